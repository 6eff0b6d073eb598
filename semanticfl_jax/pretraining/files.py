"""A run's files, written beside their place and then renamed: a stop leaves no half file."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization
from flax.traverse_util import flatten_dict

from semanticfl_jax.config import ConfigError
from semanticfl_jax.files import write, write_text


def write_json(path: Path, value: Any) -> None:
    """Write JSON with two-space indentation, as transformers and diffusers write it."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_npz(path: Path, **arrays: Any) -> None:
    """Write a compressed `.npz`."""
    write(path, lambda file: np.savez_compressed(file, **arrays))


def write_msgpack(path: Path, tree: Any, dtype: Any = None) -> None:
    """Write a pytree in Flax's msgpack, floating leaves cast to `dtype` when given."""

    def host(leaf):
        leaf = np.asarray(leaf)
        cast = dtype is not None and np.issubdtype(leaf.dtype, np.floating)
        return leaf.astype(dtype) if cast else leaf

    state = serialization.to_state_dict(jax.tree.map(host, tree))
    write(path, lambda file: file.write(serialization.msgpack_serialize(state)))


def as_saved(tree: Any) -> Any:
    """Return floating leaves rounded to float16, as in a checkpoint, and back in float32."""
    with np.errstate(over="ignore"):  # `require_finite` tells
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float16).astype(np.float32), tree)


def require_finite(stage: str, saved: Any) -> None:
    """Raise `ConfigError` if what a stage came to, of `as_saved`, is not finite."""
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved)):
        raise ConfigError(
            f"the training of {stage} diverged: its weights are not finite, or too large for "
            f"float16; lower {stage}.learning_rate, in another workdir"
        )


def read_msgpack(path: Path, like: Any = None) -> Any:
    """Read what `write_msgpack` wrote: nested dicts, or the structure of `like`.

    Raises:
      ConfigError: if the file does not hold the arrays of `like`.
    """
    state = serialization.msgpack_restore(path.read_bytes())
    if like is None:
        return state

    def layout(tree):
        flat = flatten_dict(tree, sep="/", keep_empty_nodes=True)
        return {name: np.shape(leaf) for name, leaf in flat.items()}

    if layout(state) != layout(serialization.to_state_dict(like)):
        raise ConfigError(f"{path} was written with other model sizes; remove it or its directory")
    return serialization.from_state_dict(like, state)


def digest(parts: Iterable[str]) -> str:
    """Return a short hash of texts, to tell whether a cached file is still theirs."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
