r"""Pre-trains a small latent diffusion model, such as the bundled tiny-sd.

    python -m launch.pretrain_diffusion --config=launch/configs/pretrain_tiny_sd.py \
        --workdir=DIR --config.words=FILE --config.images=DIR_OR_TAR [--config.FIELD=VALUE ...]

Writes `DIR/checkpoint/` in diffusers' layout, with a model card. Run again it resumes.
"""

from pathlib import Path

from semanticfl_jax.pretraining.config import PretrainConfig

from . import flags


def main(config: PretrainConfig, workdir: str) -> None:
    """Train what is not yet trained under `workdir`, and say where the checkpoint is."""
    from semanticfl_jax.lock import Lock
    from semanticfl_jax.pretraining.run import pretrain

    with Lock(Path(workdir)):
        print(f"checkpoint: {pretrain(config, workdir)}")


if __name__ == "__main__":
    flags.run(main, PretrainConfig, default="pretrain_tiny_sd")
