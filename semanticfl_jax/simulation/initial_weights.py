"""Weights to start from: a tree, a file that `Result.export` wrote, or another run's directory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import jax
import numpy as np

from semanticfl_jax.algorithms.model import Model
from semanticfl_jax.algorithms.parts import Belongs
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.paths import local_path
from semanticfl_jax.simulation import workdir
from semanticfl_jax.simulation.checkpoint import Checkpoints, first_line
from semanticfl_jax.simulation.export import read_weights
from semanticfl_jax.types import PyTree
from semanticfl_jax.weight_files import named_leaves, require_fit

Weights = Mapping[str, PyTree]


def read_initial(source: PyTree | str | os.PathLike | None) -> Weights | None:
    """Return weights to start from.

    Args:
      source: a tree of the network's parameters, or {"params": ..., "batch_stats": ...}; the path
        of a .safetensors file of `Result.export`, or of a run's directory, whose newest weights are
        taken; None: none.

    Returns:
      {"params": ..., "batch_stats": ...} or without "batch_stats"; None for None.

    Raises:
      MissingFileError: if there is nothing at the path.
    """
    if source is None:
        return None
    if isinstance(source, str | os.PathLike):
        return _read(local_path(source, "init_params"))
    if (
        isinstance(source, Mapping)
        and "params" in source
        and set(source) <= {"params", "batch_stats"}
    ):
        return source
    return {"params": source}


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
                if any(leaf is None for leaf in jax.tree.leaves(params, is_leaf=_none)):
                    raise SemanticFLError(
                        f"init_params: the run in {path} trains a part of its network "
                        f"(trainable) and has not ended: its checkpoints lack the rest"
                    )
                return {"params": params, "batch_stats": state["batch_stats"]}
    raise MissingFileError(
        f"init_params must be a .safetensors file or the directory of a run, got {path}, where "
        "there is neither"
    )


def _none(leaf: object) -> bool:
    return leaf is None


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
        that are may be missing, and stay as they were drawn.

    Raises:
      SemanticFLError: if names or shapes differ; the message names the first.
    """
    if weights is None:
        return model
    wanted, drawn = model.params["model"], set(weights.get("drawn", ()))
    if trains is not None:
        missing = named_leaves(wanted).keys() - named_leaves(weights["params"]).keys()
        drawn |= {name for name in missing if trains(f"params/model/{name}")}
    params = {**model.params, "model": _like(wanted, weights, "params", of, drawn)}
    statistics = model.batch_stats
    if weights.get("batch_stats"):
        statistics = _like(statistics, weights, "batch_stats", of, weights.get("drawn", ()))
    return Model(params, statistics)


def _like(wanted: PyTree, weights: Weights, kind: str, of: str, drawn: Collection[str]) -> PyTree:
    require_fit(wanted, weights[kind], kind, of, drawn)
    named, there = named_leaves(wanted), named_leaves(weights[kind])
    leaves = [
        np.asarray(there[name], leaf.dtype) if name in there else leaf
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
