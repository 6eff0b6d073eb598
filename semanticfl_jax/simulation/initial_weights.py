"""Weights to start from: arrays, a trained model, a file of `Result.export`, or a directory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from semanticfl_jax.algorithms.model import Model
from semanticfl_jax.algorithms.parts import Belongs
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.paths import local_path
from semanticfl_jax.simulation import workdir
from semanticfl_jax.simulation.checkpoint import Checkpoints, first_line
from semanticfl_jax.simulation.export import TrainedModel, read_weights
from semanticfl_jax.simulation.result import Result
from semanticfl_jax.types import PyTree
from semanticfl_jax.weight_files import named_leaves, require_fit

Weights = Mapping[str, PyTree]


def read_initial(source: PyTree | str | os.PathLike | None) -> Weights | None:
    """Return weights to start from.

    Args:
      source: a tree of the network's parameters, or {"params": ..., "batch_stats": ...}; the path
        of a .safetensors file of `Result.export`, or of a run's directory, whose newest weights are
        taken; a `Result` or a `TrainedModel`; None: none.

    Returns:
      {"params": ..., "batch_stats": ...} or without "batch_stats"; None for None.

    Raises:
      MissingFileError: if there is nothing at the path.
      SemanticFLError: for other collections beside "params", or what is no finite number.
    """
    if source is None:
        return None
    weights = _weights(source)
    _require_finite(weights)
    return weights


def _weights(source: PyTree | str | os.PathLike) -> Weights:
    if isinstance(source, str | os.PathLike):
        return _read(local_path(source, "init_params"))
    if isinstance(source, Result):
        source = source.model
    if isinstance(source, TrainedModel):
        return {"params": source.params, "batch_stats": source.batch_stats}
    if not isinstance(source, Mapping) or "params" not in source:
        return {"params": source}
    for kind in source:
        if kind not in ("params", "batch_stats"):
            raise SemanticFLError(
                f'init_params has the collection "{kind}" beside params, which a run does not '
                "keep: params and batch_stats alone"
            )
    return source


def _require_finite(weights: Weights) -> None:
    """Raise `SemanticFLError` for weights with which the first round would diverge."""
    for name, leaf in named_leaves(dict(weights)).items():
        try:
            with np.errstate(over="ignore"):
                finite = np.isfinite(np.asarray(leaf, np.float32)).all()
        except (TypeError, ValueError) as error:
            raise SemanticFLError(
                f"init_params: {name} must be an array of numbers, got {leaf!r:.80}"
            ) from error
        if not finite:
            raise SemanticFLError(f"init_params: {name} has NaN or infinity")


def _read(path: Path) -> Weights:
    if path.is_file():
        return read_weights(path)[0]
    if (path / workdir.MODEL).is_file():
        return read_weights(path / workdir.MODEL)[0]
    if (path / workdir.CHECKPOINTS).is_dir():
        with Checkpoints(path / workdir.CHECKPOINTS) as checkpoints:
            if checkpoints.latest() is not None:
                try:
                    state = checkpoints.restore_as_saved()
                except Exception as error:  # as many kinds as there are files
                    raise SemanticFLError(
                        f"init_params: the newest checkpoint in {path / workdir.CHECKPOINTS} "
                        f"cannot be read: {first_line(error)}"
                    ) from error
                params = state["params"]["model"]
                leaves = jax.tree.leaves(params, is_leaf=lambda x: x is None)
                if any(leaf is None for leaf in leaves):
                    raise SemanticFLError(
                        f"init_params: the run in {path} trains a part of its network "
                        f"(trainable) and has not ended: its checkpoints lack the rest"
                    )
                return {"params": params, "batch_stats": state["batch_stats"]}
    raise MissingFileError(
        f"init_params must be a .safetensors file of Result.export or the directory of a run, got "
        f"{path}, where there is neither"
    )


def replace_weights(
    model: Model,
    weights: Weights | None,
    of: str = "init_params",
    trains: Belongs | None = None,
) -> Model:
    """Return an initial model with the network's parameters and statistics those of `weights`.

    Args:
      model: as drawn; `weights` without statistics leave its own.
      weights: as `read_initial` returns them; or a student's, which lack the output layer: that
        one stays as it was drawn.
      of: where they come from, for the error.
      trains: whether the parameters at a path of the model are trained, where some are not; those
        that are may be missing or have another shape, and stay as they were drawn.

    Raises:
      SemanticFLError: if names or shapes differ; the message names the first.
    """
    if weights is None:
        return model
    wanted, drawn = model.params["model"], set(weights.get("drawn", ()))
    drawn |= drawn_in_place(wanted, weights, trains).keys()
    params = {**model.params, "model": _like(wanted, weights, "params", of, drawn)}
    statistics = model.batch_stats
    if weights.get("batch_stats"):
        statistics = _like(statistics, weights, "batch_stats", of, weights.get("drawn", ()))
    return Model(params, statistics)


def drawn_in_place(
    wanted: PyTree, weights: Weights, trains: Belongs | None
) -> dict[str, tuple[int, ...] | None]:
    """Return the trained parameters that weights do not give, by name.

    Args:
      wanted: parameters of the network, or what has their shapes.
      weights: to start from.
      trains: as of `replace_weights`; None: nothing may be missing.

    Returns:
      For each the shape that the weights have in its place, of another model; None: nothing.
    """
    if trains is None:
        return {}
    there = {name: np.shape(leaf) for name, leaf in named_leaves(weights["params"]).items()}
    return {
        name: there.get(name)
        for name, leaf in named_leaves(wanted).items()
        if trains(f"params/model/{name}") and there.get(name) != leaf.shape
    }


def describe_drawn(drawn: Mapping[str, tuple[int, ...] | None]) -> str:
    """Return a line on what `drawn_in_place` returned."""
    missing = [name for name, shape in drawn.items() if shape is None]
    other = [f"{name} ({list(shape)} there)" for name, shape in drawn.items() if shape is not None]
    reasons = [("init_params lacks", missing), ("init_params has in another shape", other)]
    parts = [f"{reason} {_some(names)}" for reason, names in reasons if names]
    return f"{'; '.join(parts)}: drawn by the seed, as what trainable names may be"


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _like(wanted: PyTree, weights: Weights, kind: str, of: str, drawn: Collection[str]) -> PyTree:
    require_fit(wanted, weights[kind], kind, of, drawn)
    named, there = named_leaves(wanted), named_leaves(weights[kind])
    leaves = [
        np.asarray(there[name], leaf.dtype)
        if name in there and np.shape(there[name]) == leaf.shape
        else leaf
        for name, leaf in named.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(wanted), leaves)


def digest(weights: Weights | None) -> str | None:
    """Return a hash of weights to start from; None for None."""
    if weights is None:
        return None
    content = hashlib.sha256()
    for name, leaf in named_leaves(dict(weights)).items():
        content.update(name.encode())
        content.update(np.ascontiguousarray(leaf))
    return content.hexdigest()[:16]
