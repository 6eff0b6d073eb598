"""The networks of a Stable Diffusion checkpoint, as its configurations describe them.

The one file of the loading path that touches diffusers and transformers (their Flax classes); both
are imported when a checkpoint is loaded, not before. Not used of them: pipelines, schedulers, and
conversions of precision. Where the Flax U-Net differs from the PyTorch one that real checkpoints
were trained with, `Networks._as_pytorch` puts it right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import read_json_object
from semanticfl_jax.optional import optional_imports

# What the Flax classes cannot express, and the values at which they agree with PyTorch.
_UNET_FIXED = {
    "act_fn": "silu",
    "addition_embed_type": None,
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}
_VAE_FIXED = {
    "act_fn": "silu",
    "latents_mean": None,
    "latents_std": None,
    "mid_block_add_attention": True,
    "shift_factor": None,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}
_BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
_PREDICTIONS = ("epsilon", "v_prediction")
# Modules whose loggers announce, at every call, that Flax support ends; versions are pinned.
_NOISY = (
    "diffusers.models.attention_flax",
    "diffusers.models.embeddings_flax",
    "diffusers.models.modeling_flax_utils",
    "diffusers.models.resnet_flax",
    "diffusers.models.unets.unet_2d_blocks_flax",
    "diffusers.models.unets.unet_2d_condition_flax",
    "diffusers.models.vae_flax",
    "transformers.modeling_flax_utils",
)


def _check_tokenizer(tokenizer: Any, directory: Path) -> None:
    """Raise `SemanticFLError` if vocabulary and merges do not belong together.

    A tokenizer whose vocab.json or merges.txt was cut short is read without an error, and splits
    words otherwise. Tokens after the first special one were added later, and need no merge.
    """
    words, first = tokenizer.encoder, tokenizer.bos_token_id
    made = {"".join(pair) for pair in tokenizer.bpe_ranks}
    usual = (word for word, place in words.items() if place < first)
    joined = {word for word in usual if len(word.removesuffix("</w>")) > 1}
    if not joined <= made or not made <= words.keys():
        raise SemanticFLError(
            f"{directory} is damaged: {len(joined - made)} words of vocab.json are in no line of "
            f"merges.txt, and {len(made - words.keys())} lines make words that vocab.json has not; "
            "download the folder anew"
        )


class Networks:
    """Modules and settings of a checkpoint, static under jit; equal where configurations are.

    So a checkpoint that is loaded again runs the programs that were compiled for it before. The
    tokenizer does not count: no compiled program has it.

    Attributes:
      vae, unet, text_encoder: Flax modules, without parameters.
      vae_factor: pixels a latent position, along each side.
      maps: our names of the U-Net's blocks to those of its submodules.
      alphas_cumprod: float64 [steps].
      prediction_type: "epsilon" or "v_prediction".
    """

    def __init__(self, directory: Path, dtype: Any):
        """Read the configurations and the tokenizer in `directory`; compute in `dtype`.

        Raises:
          SemanticFLError: if they describe something other than Stable Diffusion 1.x or 2.x.
          MissingDependencyError: without diffusers or transformers.
        """
        for name in _NOISY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with optional_imports("diffusion", "a diffusion checkpoint"):
            from diffusers import FlaxAutoencoderKL, FlaxUNet2DConditionModel
            from transformers import CLIPTextConfig, CLIPTokenizer, FlaxCLIPTextModel

        unet_config = _read_config(directory / "unet" / "config.json", _UNET_FIXED)
        vae_config = _read_config(directory / "vae" / "config.json", _VAE_FIXED)
        schedule = _read_config(directory / "scheduler" / "scheduler_config.json", {})
        self.dtype = dtype
        self.unet = _build(FlaxUNet2DConditionModel, unet_config, dtype)
        self.vae = _build(FlaxAutoencoderKL, vae_config, dtype)
        text_config = _read_config(directory / "text_encoder" / "config.json", {})
        with _naming(directory / "text_encoder"):
            self.text_config = CLIPTextConfig.from_pretrained(directory / "text_encoder")
            self.text_encoder = FlaxCLIPTextModel(self.text_config, dtype=dtype, _do_init=False)
        with _naming(directory / "tokenizer"):
            self.tokenizer = CLIPTokenizer.from_pretrained(directory / "tokenizer")
        _check_tokenizer(self.tokenizer, directory / "tokenizer")
        self.norm_groups = unet_config.get("norm_num_groups", 32)
        self.norm_eps = unet_config.get("norm_eps", 1e-5)
        self.vae_factor = 2 ** (len(self.vae.block_out_channels) - 1)
        with _naming(directory / "scheduler"):
            self.alphas_cumprod = alphas_cumprod(schedule)
        self.prediction_type = schedule.get("prediction_type", "epsilon")
        self._directory = directory
        self._check()
        settings = [unet_config, vae_config, schedule, text_config]
        self._settings = json.dumps([jnp.dtype(dtype).name, *settings], sort_keys=True)
        downs, ups = len(self.unet.down_block_types), len(self.unet.up_block_types)
        self.maps = {f"down_{i}": f"down_blocks_{i}" for i in range(downs)}
        if self.unet.mid_block_type is not None:
            self.maps["mid"] = "mid_block"
        self.maps |= {f"up_{i}": f"up_blocks_{i}" for i in range(ups)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and self._settings == other._settings

    def __hash__(self) -> int:
        return hash(self._settings)

    def _check(self) -> None:
        """Raise SemanticFLError if the components do not fit together as in Stable Diffusion."""
        unet, vae, text_width = self.unet, self.vae, self.text_config.hidden_size
        for block in (*unet.down_block_types, *unet.up_block_types):
            if block not in _BLOCKS:
                raise SemanticFLError(
                    f"unet: block type {block}; supported are {', '.join(_BLOCKS)}"
                )
        if not isinstance(unet.sample_size, int):
            raise SemanticFLError(f"unet: sample_size must be an integer, not {unet.sample_size!r}")
        if unet.in_channels != vae.latent_channels:
            raise SemanticFLError(
                f"unet: in_channels {unet.in_channels} differs from the vae's latent_channels "
                f"{vae.latent_channels}; inpainting, depth and editing checkpoints do not work here"
            )
        if unet.cross_attention_dim != text_width:
            raise SemanticFLError(
                f"unet: cross_attention_dim {unet.cross_attention_dim} differs from the text "
                f"encoder's hidden_size {text_width}"
            )
        if self.prediction_type not in _PREDICTIONS:
            raise SemanticFLError(
                f"scheduler: prediction_type {self.prediction_type}; supported are "
                f"{', '.join(_PREDICTIONS)}"
            )

    def tokenize(self, prompts: Sequence[str]) -> np.ndarray:
        """Return int32 [P, L]: padded with the tokenizer's own padding token, or cut, to L."""
        return self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.text_config.max_position_embeddings,
            return_tensors="np",
        )["input_ids"].astype(np.int32)

    @lru_cache(maxsize=8)  # noqa: B019 - of a few configurations; tracing takes seconds
    def expected_params(self) -> dict[str, dict[tuple[str, ...], tuple[int, ...]]]:
        """Return the shapes {component: {path: shape}} of the parameters that the modules want."""
        inits = {
            "vae": self.vae.init_weights,
            "unet": self.init_unet,
            "text_encoder": partial(self.text_encoder.init_weights, input_shape=(1, 1)),
        }
        found = {}
        for component, init in inits.items():
            with _naming(self._directory / component):
                shapes = flatten_dict(jax.eval_shape(init, jax.random.key(0)))
            found[component] = {path: leaf.shape for path, leaf in shapes.items()}
        return found

    def init_unet(self, rng: jax.Array) -> dict[str, Any]:
        """Draw random parameters of the U-Net."""
        with nn.intercept_methods(self._as_pytorch):
            return self.unet.init_weights(rng)

    def apply_unet(
        self,
        params: dict[str, Any],
        latents: jax.Array,
        t: jax.Array,
        text_states: jax.Array,
        maps: Sequence[str] = (),
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the U-Net's output and the named blocks' outputs, channels last, float32.

        Args:
          params: of the U-Net.
          latents: [B, h, w, c].
          t: int [B].
          text_states: [B, L, d].
          maps: keys of `self.maps`.
        """
        wanted = {self.maps[name]: name for name in maps}
        with nn.intercept_methods(self._as_pytorch):
            output, captured = self.unet.apply(
                {"params": params},
                latents.transpose(0, 3, 1, 2).astype(self.dtype),
                t,
                text_states.astype(self.dtype),
                capture_intermediates=lambda m, method: method == "__call__" and m.name in wanted,
                mutable=["intermediates"],
            )
        found = {}
        for module, name in wanted.items():
            (block,) = captured["intermediates"][module]["__call__"]
            # Down blocks return (output, what they pass on to the up blocks).
            found[name] = (block[0] if isinstance(block, tuple) else block).astype(jnp.float32)
        return output.sample.transpose(0, 2, 3, 1).astype(jnp.float32), found

    def _as_pytorch(self, call, args, kwargs, context):
        """Run the Flax U-Net as PyTorch's computes; an interceptor of Linen.

        Flax's has the tanh approximation of GELU where PyTorch's has the exact one, an epsilon of
        1e-5 instead of 1e-6 in the transformers' group norm, and ignores `norm_num_groups` and
        `norm_eps`.
        """
        with optional_imports("diffusion", "a diffusion checkpoint"):
            from diffusers.models.attention_flax import FlaxGEGLU, FlaxTransformer2DModel

        module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(module, FlaxGEGLU):
            linear, gate = jnp.split(module.proj(args[0]), 2, axis=-1)
            return linear * nn.gelu(gate, approximate=False)
        # The norms made below have no module above them.
        if isinstance(module, nn.GroupNorm) and isinstance(module.parent, nn.Module):
            inside = isinstance(module.parent, FlaxTransformer2DModel)
            epsilon = 1e-6 if inside else self.norm_eps
            norm = nn.GroupNorm(num_groups=self.norm_groups, epsilon=epsilon, parent=None)
            if module.is_initializing():
                for name, value in norm.init(jax.random.key(0), *args)["params"].items():
                    module.put_variable("params", name, value)
            return norm.apply({"params": module.variables["params"]}, *args)
        return call(*args, **kwargs)


def alphas_cumprod(schedule: dict[str, Any]) -> np.ndarray:
    """Return abar_t = prod_{s <= t} (1 - beta_s), float64 [steps], of a scheduler's configuration.

    `beta_schedule` "linear": betas evenly spaced from `beta_start` to `beta_end`;
    "scaled_linear": their square roots are (Stable Diffusion).

    Raises:
      SemanticFLError: for other schedules.
    """
    start, end = schedule.get("beta_start", 1e-4), schedule.get("beta_end", 0.02)
    steps, kind = schedule.get("num_train_timesteps", 1000), schedule.get("beta_schedule", "linear")
    if schedule.get("trained_betas") is not None or schedule.get("rescale_betas_zero_snr"):
        raise SemanticFLError(
            "scheduler: trained_betas and rescale_betas_zero_snr are not supported"
        )
    if kind == "linear":
        betas = np.linspace(start, end, steps)
    elif kind == "scaled_linear":
        betas = np.linspace(start**0.5, end**0.5, steps) ** 2
    else:
        raise SemanticFLError(
            f"scheduler: beta_schedule {kind}; supported are linear, scaled_linear"
        )
    if not len(betas) or not ((betas > 0) & (betas < 1)).all():
        raise SemanticFLError(
            "scheduler: betas must be between 0 and 1, and there must be some; beta_start is "
            f"{start}, beta_end {end}, num_train_timesteps {steps}"
        )
    return np.cumprod(1 - betas)


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Name a component's folder in whatever the libraries raise of its files."""
    try:
        yield
    except (SemanticFLError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise SemanticFLError(
            f"{folder} is damaged, or of a kind that is not supported: {type(error).__name__}: "
            f"{reason}"
        ) from error


def _read_config(path: Path, fixed: dict[str, Any]) -> dict[str, Any]:
    """Read a component's configuration, lists as tuples; refuse one that departs from `fixed`."""
    config = read_json_object(path)
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise SemanticFLError(
                f"{path}: {name} is {config[name]!r}; only {value!r} is supported"
            )
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}


def _build(cls: type[nn.Module], config: dict[str, Any], dtype: Any) -> nn.Module:
    """Return the module of a configuration, which was compared with what `cls` does."""
    fields = {field.name for field in dataclasses.fields(cls)} - {"dtype", "parent", "name"}
    return cls(**{k: v for k, v in config.items() if k in fields}, dtype=dtype)
