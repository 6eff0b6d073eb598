r"""Do the features of a diffusion checkpoint mean something? Asks simple classifiers.

    python -m launch.probe_features --config=launch/configs/cifar10.py --data_dir=DIR \
        --workdir=DIR [--config.guidance.checkpoint=DIR] [--config.FIELD=VALUE ...]

Accuracy of a linear probe and of k-NN on every feature map and on AMDA's aggregate, beside raw
pixels and the same network with random weights; the network is not told what is in an image. Writes
probe.md, probe.json and probe.png to WORKDIR, and keeps features in WORKDIR/features: run again, an
interrupted command resumes.
"""

import dataclasses
from pathlib import Path

from absl import flags as absl_flags

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.config.methods import parse_seeds

from . import flags


def define() -> None:
    """Define the flags beyond those that every command has."""
    flags.define_path("data_dir", "Directory of the data set, as --config.data_dir.")
    absl_flags.DEFINE_integer(
        "train_images", 5000, "Images to fit classifiers to, at most.", lower_bound=1
    )
    absl_flags.DEFINE_integer(
        "test_images", 2000, "Images to measure accuracy on, at most.", lower_bound=1
    )
    absl_flags.DEFINE_list("seeds", ["0", "1", "2"], "Each with other images and random weights.")


def main(config: ExperimentConfig, workdir: str) -> None:
    """Probe, print the table, and write it."""
    values = absl_flags.FLAGS
    seeds = tuple(parse_seeds(values.seeds))

    from semanticfl_jax.data import sources
    from semanticfl_jax.files import write_json, write_text
    from semanticfl_jax.lock import Lock
    from semanticfl_jax.probing.probe import ProbeConfig, probe
    from semanticfl_jax.probing.report import plot_probe, probe_report, summarize_probe
    from semanticfl_jax.reporting.plots.drawing import attempt

    directory = Path(workdir)
    settings = ProbeConfig(values.train_images, values.test_images, seeds)
    if values.data_dir is not None:
        config = dataclasses.replace(config, data_dir=values.data_dir)
    with Lock(directory):
        result = probe(sources.from_config(config), config, settings, directory)
        report = probe_report(result)
        picture = "![Accuracies of every feature](probe.png)"
        write_text(directory / "probe.md", f"{report}\n\n{picture}\n")
        write_json(directory / "probe.json", summarize_probe(result))
        path = directory / "probe.png"
        attempt(path, lambda: plot_probe(result, path), print)
    print(f"\n{report}\n\nwrote probe.md, probe.json and probe.png in {directory}")


if __name__ == "__main__":
    flags.run(
        main,
        ExperimentConfig,
        default="cifar10",
        define=define,
        force={"guidance.enabled": True},
    )
