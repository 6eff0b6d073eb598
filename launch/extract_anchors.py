r"""Makes the anchors file of an experiment, without training.

    python -m launch.extract_anchors --config=launch/configs/cifar10.py --workdir=DIR \
        [--config.FIELD=VALUE ...]

Writes DIR/anchors.npz, for use with --config.guidance.anchors_file=DIR/anchors.npz: where clients
are trained, neither diffusers nor transformers nor the checkpoint is needed then. Run again,
an interrupted command resumes after its last batch of images. A real checkpoint:

    --config.guidance.checkpoint=stable-diffusion-v1-5/stable-diffusion-v1-5 \
    --config.guidance.resolution=256
"""

from pathlib import Path

from semanticfl_jax.config import ConfigError, ExperimentConfig

from . import flags


def main(config: ExperimentConfig, workdir: str) -> None:
    """Build the anchors of the configuration's public split."""
    from semanticfl_jax.data import sources
    from semanticfl_jax.data.federation import make_federation
    from semanticfl_jax.lock import Lock
    from semanticfl_jax.simulation.anchors import server_anchors
    from semanticfl_jax.simulation.parts import make_network

    with Lock(Path(workdir)):
        federation = make_federation(sources.from_config(config), config)
        dim = config.guidance.dim
        if not dim:
            outputs = make_network(config, federation).outputs(federation.dataset.image_shape)
            if outputs.features is None:
                raise ConfigError(
                    f"guidance.dim must be given with model.name={config.model.name}, a network "
                    "without features, whose width anchors would have"
                )
            dim = outputs.features.shape[-1]
        server_anchors(federation, config, dim, Path(workdir), print)


if __name__ == "__main__":
    flags.run(main, ExperimentConfig, default="digits", force={"guidance.enabled": True})
