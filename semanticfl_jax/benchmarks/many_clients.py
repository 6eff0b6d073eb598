"""Many clients: does a round's time follow the cohort, and does its memory stay the same?"""

import dataclasses
from typing import Any

import numpy as np

from semanticfl_jax.benchmarks.rounds import efficiency, engine_of, one_by_one, time_rounds
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices.memory import size_in_bytes
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models.flops import training_flops
from semanticfl_jax.simulation.engine import Engine
from semanticfl_jax.types import Say

#: Images of each client.
IMAGES = 20


def measure(
    config: ExperimentConfig, rounds: int, dataset: ImageDataset, say: Say = print
) -> dict[str, Any]:
    """Time rounds of a configuration whose clients each hold 20 images out of `dataset`.

    Beside it stand three settings that differ in one thing each: a quarter and a half of the
    cohort, and a hundredth of the clients (or as many as the cohort). They are run one after
    another, the configuration itself last, so that peak memory is its own.

    Args:
      config: what to run; its partition is not used.
      rounds: rounds to time of each, after one that is not counted.
      dataset: the images; clients share them where there are too few.
      say: takes lines for the user.

    Returns:
      What `rounds.measure` returns, and in "settings", a dictionary for each: `num_clients`,
      `cohort`, `seconds_per_round` (median, least and greatest), `milliseconds_per_client`,
      and in bytes on each device `images_bytes`, `index_table_bytes`, `round_arguments_bytes` (all
      that goes into the round: those two, model, anything else that is kept of clients) and
      `round_temporary_bytes` (the compiled round's own).
    """
    num_clients, cohort = config.num_clients, config.clients_per_round
    flops = training_flops(config, dataset.num_classes, dataset.image_shape)
    mesh = make_mesh(config.runtime.num_devices, cohort)
    images = f"{len(dataset.train_labels):,} images of {dataset.name}"
    say(f"{images}, {IMAGES} a client at random, whatever the lines below call it")
    few = max(cohort, num_clients // 100)
    settings = [(few, cohort), *((num_clients, max(1, cohort // part)) for part in (4, 2, 1))]
    rows = []
    for clients, asked in settings:
        say(f"{clients:,} clients, {asked:,} a round")
        # The memory asked for is that of one round's program.
        chosen = one_by_one(
            dataclasses.replace(config, num_clients=clients, clients_per_round=asked)
        )
        partition = overlapping_partition(len(dataset.train_labels), clients, IMAGES, config.seed)
        engine = engine_of(chosen, dataset, mesh, partition)
        figures = time_rounds(engine, chosen, rounds, say)
        rows.append(
            {
                "num_clients": clients,
                "cohort": asked,
                "seconds_per_round": figures["seconds_per_round"],
                "milliseconds_per_client": 1e3 * figures["seconds_per_round"]["median"] / asked,
                **_bytes(engine),
            }
        )
        del engine  # before the next one's images
    for line in table(rows):
        say(line)
    return {
        "images": images,
        "images_per_client": IMAGES,
        **figures,
        **efficiency(flops, figures, mesh, say),
        "settings": rows,
    }


def overlapping_partition(num_samples: int, num_clients: int, size: int, seed: int) -> Partition:
    """Draw `size` different samples for each client; clients share where samples run out.

    As many clients as samples allow are dealt a shuffled deck without overlap, the next as many the
    deck shuffled anew, and so on: every sample is held by about equally many clients.
    """
    if not 1 <= size <= num_samples:
        raise SemanticFLError(
            f"size must be from 1 to the number of samples {num_samples}, got {size}"
        )
    rng = np.random.default_rng(seed)
    hands = num_samples // size
    decks = [rng.permutation(num_samples)[: hands * size] for _ in range(-(-num_clients // hands))]
    indices = np.concatenate(decks)[: num_clients * size]
    return Partition(indices, size * np.arange(num_clients + 1), overlapping=num_clients > hands)


def _bytes(engine: Engine) -> dict[str, int | None]:
    data, program = engine.data, engine.run_round.memory_analysis()
    table = (data.indices, data.offsets, data.sizes, data.label_counts)
    return {
        "images_bytes": size_in_bytes((data.images, data.labels)),
        "index_table_bytes": size_in_bytes(table),
        # None where XLA does not tell.
        "round_arguments_bytes": getattr(program, "argument_size_in_bytes", None),
        "round_temporary_bytes": getattr(program, "temp_size_in_bytes", None),
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the settings as lines of a Markdown table."""
    lines = [
        "| clients | cohort | s a round | ms a client | images MB | index table MB "
        "| all arguments MB | temporary MB |",
        "|---:" * 8 + "|",
    ]
    for row in rows:
        sizes = ("images", "index_table", "round_arguments", "round_temporary")
        found = [row[f"{name}_bytes"] for name in sizes]
        megabytes = " | ".join("" if size is None else f"{size / 1e6:.1f}" for size in found)
        lines.append(
            f"| {row['num_clients']:,} | {row['cohort']:,} "
            f"| {row['seconds_per_round']['median']:.3f} | {row['milliseconds_per_client']:.2f} "
            f"| {megabytes} |"
        )
    return lines
