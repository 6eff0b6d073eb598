"""Makes tests/diffusion/goldens: tiny random Stable Diffusion models, and what PyTorch computes.

    python -m pip install torch 'diffusers>=0.37,<0.40' 'transformers>=4.50,<5' safetensors
    python tests/diffusion/make_goldens.py

Architectures are those of SD 1.5 and SD 2.1 (block types, how attention heads are given, kind of
projection, activation and padding of the text tower, prediction type) with few channels. The
weights are saved in half precision and used in single precision, so both sides see equal numbers.
Afterwards the tests run without torch.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

GOLDENS = Path(__file__).parent / "goldens"
PROMPTS = ("a photo of a cat", "a photo of a very long-named sea creature")
TIMESTEP = 150
START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = ("p h", "o t", "ph ot", "o f</w>", "c a", "ca t</w>")

UNET = dict(
    sample_size=16,
    block_out_channels=(8, 8, 8, 16),
    layers_per_block=1,
    cross_attention_dim=16,
    norm_num_groups=4,
)
VAE = dict(
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    block_out_channels=(4, 8, 8),
    norm_num_groups=4,
    layers_per_block=1,
    sample_size=64,
)
TEXT = dict(
    hidden_size=16,
    intermediate_size=32,
    num_attention_heads=4,
    num_hidden_layers=2,
    max_position_embeddings=16,
    projection_dim=16,
)
SCHEDULE = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
)
MODELS = {
    # The end token's id is 2 in the text configuration of SD 1.5, whatever the vocabulary.
    "sd1": dict(
        unet=dict(attention_head_dim=2),
        text=dict(hidden_act="quick_gelu", eos_token_id=2),
        schedule=dict(prediction_type="epsilon"),
        pad=END,
        variant="fp16",
    ),
    "sd2": dict(
        unet=dict(
            attention_head_dim=(1, 2, 4, 4), use_linear_projection=True, upcast_attention=True
        ),
        text=dict(hidden_act="gelu"),
        schedule=dict(prediction_type="v_prediction"),
        pad="!",
        variant=None,
    ),
}


def tokenizer(pad: str) -> CLIPTokenizer:
    letters = list(bytes_to_unicode().values())
    merged = [merge.replace(" ", "") for merge in MERGES]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *merged, START, END]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
        merges.write_text("\n".join(["#version: 0.2", *MERGES, ""]))
        length = TEXT["max_position_embeddings"]
        return CLIPTokenizer(vocabulary, merges, pad_token=pad, model_max_length=length)


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """With norms and biases that are not at their defaults, all exact in half precision."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return model.half().float().eval()


def save(model: torch.nn.Module, folder: Path, variant: str | None) -> None:
    model.half().save_pretrained(folder, safe_serialization=True, variant=variant)
    model.float()


def channels_last(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).contiguous().numpy()


@torch.no_grad()
def make(name: str, settings: dict) -> None:
    torch.manual_seed(sum(map(ord, name)))
    tokens = tokenizer(settings["pad"])
    text = dict(
        vocab_size=len(tokens),
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    text_encoder = randomised(CLIPTextModel(CLIPTextConfig(**TEXT, **text | settings["text"])))
    unet = randomised(UNet2DConditionModel(**UNET, **settings["unet"]))
    vae = randomised(AutoencoderKL(**VAE))
    scheduler = DDIMScheduler(**SCHEDULE, **settings["schedule"])

    folder = GOLDENS / name
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("unet", "vae", "text_encoder"):
        save(
            dict(unet=unet, vae=vae, text_encoder=text_encoder)[part],
            folder / part,
            settings["variant"],
        )
    tokens.save_pretrained(folder / "tokenizer")
    scheduler.save_pretrained(folder / "scheduler")

    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
    noise = torch.randn_like(latents)
    noised = scheduler.add_noise(latents, noise, torch.tensor([TIMESTEP]))
    ids = tokens(
        list(PROMPTS), padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    states, pooled = text_encoder(ids)[:2]

    maps = {}

    def keep(key):
        def hook(module, inputs, output):
            maps[key] = channels_last(output[0] if isinstance(output, tuple) else output)

        return hook

    for kind in ("down", "up"):
        for i, block in enumerate(getattr(unet, f"{kind}_blocks")):
            block.register_forward_hook(keep(f"{kind}_{i}"))
    unet.mid_block.register_forward_hook(keep("mid"))
    output = unet(noised, TIMESTEP, states).sample
    np.savez_compressed(
        GOLDENS / f"{name}.npz",
        prompts=np.array(PROMPTS),
        ids=ids.int().numpy(),
        token_states=states.numpy(),
        pooled=pooled.numpy(),
        images=images.numpy(),
        latents=channels_last(latents),
        decoded=channels_last(vae.decode(latents[:1] / vae.config.scaling_factor).sample),
        noise=channels_last(noise),
        noised=channels_last(noised),
        output=channels_last(output),
        alphas_cumprod=scheduler.alphas_cumprod.numpy(),
        **maps,
    )


if __name__ == "__main__":
    for name, settings in MODELS.items():
        make(name, settings)
