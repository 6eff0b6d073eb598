"""Every lowering of the convolutions with every chunk of clients: which wins on this machine?"""

import dataclasses
from typing import Any

import numpy as np

from semanticfl_jax.algorithms import make_algorithm
from semanticfl_jax.benchmarks.noise import noise_dataset
from semanticfl_jax.config import ExperimentConfig, to_dict
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.devices.mesh import describe, make_mesh
from semanticfl_jax.devices.versions import versions
from semanticfl_jax.federated.initial import init_model
from semanticfl_jax.models import make_model
from semanticfl_jax.models.client_conv import LOWERINGS
from semanticfl_jax.randomness import run_key
from semanticfl_jax.tuning.search import best, chunks_up_to
from semanticfl_jax.tuning.timing import Figure, Workload, time_chunk
from semanticfl_jax.types import Say

# Seconds of a chunk's step from which larger chunks of that lowering are left out.
_ENOUGH = 20.0
_LOWERINGS = tuple(name for name in LOWERINGS if name != "auto")


def measure(
    config: ExperimentConfig,
    *,
    largest_chunk: int,
    repeats: int,
    lowerings: tuple[str, ...] = _LOWERINGS,
    side: int = 32,
    say: Say = print,
) -> dict[str, Any]:
    """Time training steps on noise, with each lowering and 1, 2, 4, ... clients at a time.

    Nothing is left out but what does not fit, and chunks larger than one whose step took 20 s.

    Args:
      config: the clients' network, algorithm, batch size and precision.
      largest_chunk: most clients side by side on each device.
      repeats: calls that are timed of each, of which the median counts.
      lowerings: to compare.
      side: of the images, in pixels.
      say: takes lines for the user.

    Returns:
      In "figures", a dictionary for each: `conv`, `clients_per_chunk`, `outcome`, `seconds` of a
      client's step, `images_per_second` of one device, `memory_bytes`, `compile_seconds`, `note`;
      in "fastest" and "chosen", those of the fastest and of what `tuning` would take of them all;
      and what it ran on.
    """
    mesh = make_mesh(config.runtime.num_devices)
    work = noise_workload(config, side=side, largest=16 * config.batch_size)
    say(f"{describe(mesh)}; {config.precision}; all devices at once, figures of one")
    figures = []
    for conv in lowerings:
        slow = False
        for chunk in chunks_up_to(largest_chunk):
            if slow:
                note = f"left out: a step of fewer clients took over {_ENOUGH:.0f} s"
                figure = Figure(conv, chunk, "no time", note=note)
            else:
                figure = time_chunk(work, conv, chunk, mesh, repeats)
                slow = figure.seconds is not None and figure.seconds * chunk > _ENOUGH
            figures.append(figure)
            say(f"  {figure}")
    for line in table(figures, work.rows):
        say(line)
    chosen = best(figures)
    measured = [(figure.seconds, figure) for figure in figures if figure.seconds is not None]
    fastest = min(measured, key=lambda pair: pair[0])[1] if measured else None
    return {
        "model": to_dict(config.model),
        "precision": config.precision,
        "algorithm": config.algorithm.name,
        "images_a_step": work.rows,
        "image_size": side,
        "repeats": repeats,
        "figures": [_row(figure, work.rows) for figure in figures],
        "fastest": fastest and _row(fastest, work.rows),
        "chosen": chosen and _row(chosen, work.rows),
        "device": describe(mesh),
        "versions": versions(),
    }


def noise_workload(config: ExperimentConfig, *, side: int, largest: int) -> Workload:
    """Return what clients of a configuration compute on images of noise, side x side x 3.

    Args:
      config: without guidance.
      side: in pixels.
      largest: samples of the largest client.
    """
    noise = noise_dataset(1, side=side)
    num_classes, shape = noise.num_classes, noise.image_shape
    model = make_model(config, num_classes, shape)
    algorithm = make_algorithm(
        AlgorithmContext(
            config, num_classes, model.outputs(shape), variables=model.variables(shape)
        )
    )
    received = init_model(model, algorithm, shape, run_key(config.seed))
    sizes = np.array([largest])
    return Workload(config, algorithm, received, shape, num_classes, sizes, noise.mean, noise.std)


def table(figures: list[Figure], rows: int) -> list[str]:
    """Return figures as lines of a Markdown table; `rows` are the images of a step."""
    lines = [
        "| convolution | clients | ms a client's step | images/s | memory MB | compile s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for figure in figures:
        cells = [figure.note or figure.outcome, "", "", ""]
        if figure.seconds is not None:
            cells[:2] = f"{1e3 * figure.seconds:.3g}", f"{rows / figure.seconds:.0f}"
        if figure.memory_bytes is not None:
            cells[2] = f"{figure.memory_bytes / 1e6:.0f}"
        if figure.compile_seconds is not None:
            cells[3] = f"{figure.compile_seconds:.1f}"
        lines.append(f"| {figure.conv} | {figure.clients_per_chunk} | {' | '.join(cells)} |")
    return lines


def _row(figure: Figure, rows: int) -> dict[str, Any]:
    rate = rows / figure.seconds if figure.seconds is not None else None
    return {**dataclasses.asdict(figure), "images_per_second": rate}
