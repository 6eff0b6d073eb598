r"""Makes the anchors file of an experiment, without training.

    python -m launch.extract_anchors --config=launch/configs/cifar10.py --workdir=DIR \\
        [--config.FIELD=VALUE ...]

Writes DIR/anchors.npz, for use with --config.guidance.anchors_file=DIR/anchors.npz: where clients
are trained, neither diffusers nor transformers is needed then.
"""

from pathlib import Path

from launch import flags
from semanticfl_jax.config import ExperimentConfig


def main(config: ExperimentConfig, workdir: str) -> None:
    """Builds the anchors of the configuration's public split."""
    from semanticfl_jax.data.sources import load_dataset
    from semanticfl_jax.simulation.experiment import deal, server_anchors

    try:
        dataset = load_dataset(config.dataset, config.data_dir)
        public, _ = deal(dataset, config)
        server_anchors(dataset, public, config, Path(workdir), print)
    except (ValueError, OSError) as error:
        flags.fail(error)


if __name__ == "__main__":
    flags.run(main, ExperimentConfig, default="digits")
