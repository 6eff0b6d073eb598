r"""Divides a data set among clients and shows the partition, without training.

    python -m launch.partition --config=launch/configs/digits.py --workdir=DIR \
        [--config.partition.scheme=dirichlet --config.partition.alpha=0.1 ...]

Prints a table, and writes DIR/partition.json (its numbers), DIR/plots/partition.png (clients x
classes), DIR/plots/partition_clients.png (sizes, effective classes and distances of all clients),
with feature skew DIR/plots/corruptions.png (images of corrupted clients), and DIR/partition.npz. A
run with --config.partition.file=DIR/partition.npz trains on it.
"""

from pathlib import Path

from semanticfl_jax.config import ExperimentConfig

from . import flags


def main(config: ExperimentConfig, workdir: str) -> None:
    """Deal the training samples as `launch.train` would."""
    from semanticfl_jax.data import sources
    from semanticfl_jax.data.federation import describe_merged, make_federation
    from semanticfl_jax.data.partition.statistics import table
    from semanticfl_jax.files import write_json
    from semanticfl_jax.lock import Lock
    from semanticfl_jax.reporting.plots.drawing import attempt
    from semanticfl_jax.simulation import workdir as files

    # The partition of a run with another configuration must not be replaced.
    directory: Path = files.check(workdir, config)
    with Lock(directory):
        federation = make_federation(sources.from_config(config), config)
        federation.save(directory, config)
        summary = federation.summary()
        write_json(directory / "partition.json", summary)
        attempt(directory / files.PLOTS, lambda: federation.draw(directory / files.PLOTS), print)
    print(f"{summary['samples']:,} images of {config.dataset} to {summary['clients']:,} clients")
    merged = describe_merged(federation, config)
    if merged is not None:
        print(merged)
    print(table(summary))
    print(f"wrote {directory / 'partition.json'}, {files.PARTITION} and {files.PLOTS}/")


if __name__ == "__main__":
    flags.run(main, ExperimentConfig, default="digits")
