"""One experiment, from images to report.

image source -> partition -> corruption -> anchors -> data on devices -> rounds -> metrics -> report
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data import federation, sources
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices import processes
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.devices.versions import versions
from semanticfl_jax.files import write_json
from semanticfl_jax.reporting.client_accuracy import evaluated, final_figures
from semanticfl_jax.reporting.plots.accuracy_maps import plot_accuracy_maps
from semanticfl_jax.reporting.plots.curves import plot_curves
from semanticfl_jax.reporting.writers.metrics import MetricsWriter, read_metrics, summarize
from semanticfl_jax.reporting.writers.progress import RoundProgress
from semanticfl_jax.semantics.anchor_images import NOT_PRIVATE
from semanticfl_jax.simulation import workdir as files
from semanticfl_jax.simulation.anchors import server_anchors
from semanticfl_jax.simulation.checkpoint import Checkpoints, shapes_of
from semanticfl_jax.simulation.interrupt import stop_between_rounds
from semanticfl_jax.simulation.pipeline import finished_rounds
from semanticfl_jax.simulation.prepare import Simulation, check_memory, prepare


class InputError(Exception):
    """What the user gave cannot be run; the message says why."""


class Stopped(Exception):
    """A signal asked the run to stop; what was done is saved."""


def run(
    config: ExperimentConfig, workdir: str | Path, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Trains one federated run in `workdir`, or goes on with the one that is there.

    Args:
      config: what to run.
      workdir: gets config.json, tuning.json, metrics.jsonl, partition.npz, clients.npz,
        anchors.npz, checkpoints/, plots/ and, at the end, summary.json.
      say: takes lines for the user.

    Returns:
      The summary.

    Raises:
      InputError: for an impossible configuration, a workdir of another one, or missing files.
      Stopped: if a signal stopped the run after some round.
    """
    say = say if processes.is_main() else _silent
    with _input_errors(), processes.main_first():
        directory = files.check(workdir, config, claimed=not processes.is_main())
        summary = files.read_summary(directory)
        if summary is not None:
            say(f"{directory} is finished: {summary['rounds']} rounds")
            return summary
        mesh = make_mesh(config.num_devices, config.clients_per_round)
        dataset = sources.from_config(config)
        public, partition = federation.deal(dataset, config)
        skewed = federation.corrupt(dataset, partition, config)
        dataset = skewed.dataset
        anchors = None
        if config.uses_anchors:
            anchors = server_anchors(dataset, public, partition, config, directory, say)
        memory = check_memory(dataset, anchors, config, mesh)
        if memory:
            say(memory)
        # Claimed only now: a directory must not be bound to a configuration that cannot run.
        if processes.is_main():
            files.claim(directory, config)
            federation.save(directory / files.PARTITION, public, partition, dataset, config)
            federation.record(skewed, partition, config, directory, directory / files.PLOTS)
    with _input_errors():
        processes.require_equal(
            "images, labels and partition",
            *(dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels),
            *(public, partition.indices, partition.offsets),
        )
    simulation = prepare(
        dataset, partition, anchors, config, mesh, kept=directory / files.TUNING, say=say
    )
    for line in simulation.description:
        say(line)
    train(simulation, config, directory, say)
    with processes.main_first():
        if not processes.is_main():
            return files.read_summary(directory)
        return report(dataset, partition, simulation, config, directory, say)


def _silent(line: str) -> None:
    del line


@contextlib.contextmanager
def _input_errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error


def train(
    simulation: Simulation, config: ExperimentConfig, directory: Path, say: Callable[[str], None]
) -> None:
    """Runs the rounds that are left, writing metrics and checkpoints.

    Raises:
      Stopped: if a signal asked for it; the last round done is saved first.
    """
    state = simulation.take_state()
    label_counts = np.asarray(simulation.data.label_counts)
    main = processes.is_main()
    with Checkpoints(directory / files.CHECKPOINTS) as checkpoints:
        number = done = checkpoints.latest() or 0
        if done:
            shapes = shapes_of(state)
            del state  # else it would be in memory beside the one that is restored
            state = checkpoints.restore(shapes)
            say(f"resuming after round {done} of {config.rounds}, from {directory}")
        with (
            MetricsWriter(directory, done) if main else contextlib.nullcontext() as metrics,
            RoundProgress(config.rounds, done, quiet=not main) as progress,
            stop_between_rounds(progress.say) as asked_to_stop,
        ):
            for finished in finished_rounds(simulation, state, config, done, asked_to_stop):
                number, result = finished.number, finished.result
                row = {
                    "round": number,
                    "train_loss": result.train_loss,
                    "seconds": finished.seconds,
                    "images_per_second": result.images / finished.seconds,
                    "padding_share": result.padding_share,
                    **simulation.traffic.of_round(result),
                }
                if not config.private:
                    row["private"] = False
                if finished.evaluation is not None:
                    row |= evaluated(finished.evaluation, label_counts)
                if main:
                    metrics.write(row)
                progress.update(number, row.get("test_accuracy"), row["images_per_second"])
                # After its row: a run that goes on from here keeps the rows up to here.
                if finished.state is not None:
                    checkpoints.save(number, finished.state)
            if number < config.rounds:
                raise Stopped(f"stopped after round {number}; run the same command to go on")


def report(
    dataset: ImageDataset,
    partition: Partition,
    simulation: Simulation,
    config: ExperimentConfig,
    directory: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Writes plots and the summary of a finished run, and returns the summary."""
    rows = read_metrics(directory)
    plots = directory / files.PLOTS
    private = config.private
    note = None if private else NOT_PRIVATE
    plot_curves(rows, plots / "curves.png", note)
    label_counts = np.asarray(simulation.data.label_counts)
    names = dataset.class_names
    plot_accuracy_maps(rows, names, label_counts, plots / "accuracy_maps.png", note)
    summary = {
        "algorithm": config.algorithm.name,
        "guidance": config.guidance.anchors if config.guidance.enabled else None,
        **({} if private else {"private": False, "note": NOT_PRIVATE}),
        "dataset": config.dataset,
        "seed": config.seed,
        **summarize(rows),
        **final_figures(rows[-1], names, label_counts),
        "partition": federation.describe(dataset, partition, plots),
        "compile_seconds": simulation.compile_seconds,
        "device": simulation.device,
        "versions": versions(),
    }
    write_json(directory / files.SUMMARY, summary)
    say(f"wrote {directory / files.SUMMARY} and {plots}/")
    return summary
