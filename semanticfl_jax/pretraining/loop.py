"""One training loop for the three stages: batches by step number, checkpoints, exact resume."""

import csv
import io
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from semanticfl_jax.devices.mesh import device_mesh
from semanticfl_jax.pretraining import files


def schedule(peak: float, steps: int, warmup: int) -> optax.Schedule:
    """Return a linear warm-up over `warmup` steps, then a cosine to `peak` / 100 at `steps`."""
    warmup = min(warmup, max(steps // 10, 1))
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, 2), peak / 100)


def adamw(
    peak: float, steps: int, warmup: int, weight_decay: float
) -> optax.GradientTransformation:
    """Return AdamW with gradients clipped to norm 1; matrices and kernels alone are decayed."""

    def mask(params):
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    rate = schedule(peak, steps, warmup)
    optimiser = optax.adamw(rate, b2=0.99, weight_decay=weight_decay, mask=mask)
    return optax.chain(optax.clip_by_global_norm(1.0), optimiser)


def placements(
    batch_size: int, devices: Sequence[jax.Device] | None = None
) -> tuple[NamedSharding, NamedSharding]:
    """Return shardings: a batch's rows over as many devices as divide them, a state whole.

    The devices are this process's, unless others are given.
    """
    devices = jax.local_devices() if devices is None else devices
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    mesh = device_mesh(devices[:count], "data")
    return NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())


def train(
    workdir: Path,
    stage: str,
    state: Any,
    step_fn: Callable[[Any, Any, jax.Array], tuple[Any, dict[str, jax.Array]]],
    batch_fn: Callable[[int], Any],
    steps: int,
    seed: int,
    batch_size: int,
    checkpoint_every: int,
    log_every: int,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
) -> tuple[Any, list[dict[str, float]]]:
    """Train for `steps` steps from the last checkpoint under `workdir`, or from `state`.

    The batch and the random key of a step depend on the step's number alone, so an interrupted run
    ends with the same bits as one that was not. Each step is dispatched by itself: on a CPU, XLA's
    convolutions inside a scan are far slower than outside.

    Args:
      workdir: holds `STAGE.msgpack` (the state) and `STAGE.csv` (the curve).
      stage: name of the stage.
      state: a pytree.
      step_fn: pure `(state, batch, key) -> (state, metrics)`; compiled here, the state donated.
      batch_fn: step number to a pytree of NumPy arrays with `batch_size` rows each.
      steps: total number of steps.
      seed: of the stage's random keys.
      batch_size: rows of a batch; they are spread over the devices.
      checkpoint_every: steps between checkpoints; the last step is always saved.
      log_every: steps between lines of the curve; a line holds the mean since the line before.
      evaluate: called at each checkpoint on the state; its numbers join the curve.

    Returns:
      (final state, curve): a line of the curve has `step`, `seconds` of training so far, the
      metrics of `step_fn` and, at a checkpoint, those of `evaluate`.
    """
    from tqdm import tqdm

    rows, replicated = placements(batch_size)
    saved, curve_file = workdir / f"{stage}.msgpack", workdir / f"{stage}.csv"
    first, curve = 0, []
    if saved.is_file():
        restored = files.read_msgpack(saved, {"step": 0, "seconds": 0.0, "state": state})
        first, state = int(restored["step"]), restored["state"]
        curve = [line for line in read_curve(curve_file) if line["step"] <= first]
    before = float(restored["seconds"]) if first else 0.0
    state = jax.device_put(state, replicated)
    compiled = jax.jit(step_fn, donate_argnums=0)
    key = jax.random.key(seed)

    started, pending = time.perf_counter(), []
    bar = tqdm(range(first, steps), desc=stage, initial=first, total=steps, mininterval=5)
    for step in bar:
        batch = jax.device_put(batch_fn(step), rows)
        state, metrics = compiled(state, batch, jax.random.fold_in(key, step))
        pending.append(metrics)
        done = step + 1
        saving = done % checkpoint_every == 0 or done == steps
        if done % log_every == 0 or saving:
            means = {name: float(np.mean([m[name] for m in pending])) for name in metrics}
            pending = []
            line = {"step": done, "seconds": round(before + time.perf_counter() - started, 1)}
            curve.append(line | means)
            bar.set_postfix({name: f"{value:.4f}" for name, value in means.items()})
        if saving:
            curve[-1] |= evaluate(state) if evaluate else {}
            write_curve(curve_file, curve)
            seconds = before + time.perf_counter() - started
            content = {"step": done, "seconds": seconds, "state": state}
            files.write_msgpack(saved, content)
    return state, curve


def write_curve(path: Path, curve: list[dict[str, float]]) -> None:
    """Write the curve as CSV: a column a metric, empty where a line has none."""
    columns = dict.fromkeys(itertools.chain.from_iterable(curve))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    for line in curve:
        writer.writerow({name: float(f"{value:.8g}") for name, value in line.items()})
    files.write_text(path, text.getvalue())


def read_curve(path: Path) -> list[dict[str, float]]:
    """Read what `write_curve` wrote; an empty list if there is no file."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: float(value) for name, value in line.items() if value}
            for line in csv.DictReader(file)
        ]
