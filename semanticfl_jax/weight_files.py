"""Trees of arrays in one .safetensors file, with a description of what they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from semanticfl_jax import files
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.types import PyTree


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of a tree by their paths, as in "block_1/conv_1/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(keys, simple=True, separator="/"): leaf for keys, leaf in leaves}


def require_fit(
    wanted: PyTree, weights: PyTree, kind: str, of: str, stays: Iterable[str] = ()
) -> None:
    """Raise `SemanticFLError` unless weights have the names and shapes that a model wants.

    Args:
      wanted: tree of arrays, or of what has their shapes.
      weights: tree of arrays.
      kind: what they are, as in "params", for the error, which names the first that differs.
      of: where they come from, likewise.
      stays: names that may be missing, or have another shape.
    """
    named, there = named_leaves(wanted), named_leaves(weights)
    for name in sorted((named.keys() | there.keys()) - set(stays)):
        if name not in there or name not in named:
            which = "lacks" if name not in there else "has, and the model has not,"
            raise SemanticFLError(f"{of} {which} {kind}/{name}")
        if np.shape(named[name]) != np.shape(there[name]):
            raise SemanticFLError(
                f"{of}: {kind}/{name} must be {list(np.shape(named[name]))} for this model, "
                f"is {list(np.shape(there[name]))}"
            )


def write(
    path: str | os.PathLike, trees: Mapping[str, PyTree], about: Mapping[str, Any], form: str
) -> None:
    """Write trees of dicts, whole or not at all.

    Args:
      path: the file.
      trees: by name, as in {"params": ..., "batch_stats": ...}.
      about: what they are, JSON values.
      form: tells apart kinds of files; `read` asks for it.
    """
    from safetensors.numpy import save

    arrays = {
        f"{kind}/{name}": np.ascontiguousarray(leaf)
        for kind, tree in trees.items()
        for name, leaf in named_leaves(tree).items()
    }
    described = json.dumps(files.to_json_values(about))
    content = save(arrays, metadata={"format": form, "about": described})
    files.write(path, lambda file: file.write(content))


def read(
    path: str | os.PathLike, form: str, writer: str
) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Read what `write` wrote: {"params": ..., "batch_stats": ...}, and what they are.

    Args:
      path: the file.
      form: as it was written.
      writer: what writes such files, for the error.

    Raises:
      SemanticFLError: if the file is damaged or of another form.
    """
    from safetensors import SafetensorError, safe_open

    pointer = files.git_lfs_pointer(path)
    if pointer:
        raise SemanticFLError(f"{path} is {pointer}")
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != form:
                raise SemanticFLError(f"{path} was not written by {writer} of this project")
            trees: dict[str, Any] = {"params": {}, "batch_stats": {}}
            for name in file.keys():  # noqa: SIM118 - no mapping
                *groups, last = name.split("/")
                place = trees
                for group in groups:
                    place = place.setdefault(group, {})
                place[last] = file.get_tensor(name)
            about = json.loads(metadata["about"])
            if not isinstance(about, dict):
                raise TypeError("what it is is no JSON object")
            return trees, about
    except (SafetensorError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SemanticFLError(f"{path} is damaged: {error}") from error
    except json.JSONDecodeError as error:
        raise SemanticFLError(f"{path} is damaged: {error}") from error
