"""PyTorch weights, as diffusers and transformers save them, for the Flax classes; without torch.

Driven by what the Flax module expects: for each of its parameters the PyTorch name is derived, and
every tensor must be used. (The libraries' own converters pass unknown and missing names silently,
initialise the model to learn its shapes, and need torch tensors.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from semanticfl_jax.diffusion.fingerprint import shards
from semanticfl_jax.errors import SemanticFLError

Shapes = Mapping[tuple[str, ...], tuple[int, ...]]

#: Buffers that older versions saved; Flax computes them.
_HARMLESS = re.compile(r"(^|\.)position_ids$")
#: Types of numbers, in safetensors' words, that weights may be of.
_TYPES = ("F64", "F32", "F16", "BF16")
#: Flax's names of the VAE's attention, which PyTorch kept until diffusers 0.17.
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


def torch_names(path: tuple[str, ...]) -> list[str]:
    """Return PyTorch names that the Flax parameter at `path` may have, the likeliest first.

    Members of lists are `blocks_0` in Flax and `blocks.0` in PyTorch; the time embedding's
    `linear_1` and `linear_2` are no list.
    """
    *modules, leaf = path
    dotted = [re.sub(r"(?<!linear)_(\d+)$", r".\1", module) for module in modules]
    renamed = [*dotted[:-1], _ATTENTION.get(dotted[-1], dotted[-1])]
    names = [".".join([*parts, _LEAVES.get(leaf, leaf)]) for parts in (renamed, dotted)]
    return list(dict.fromkeys(names))


def to_flax_layout(tensor: np.ndarray, path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Return a tensor as Flax holds it: OIHW to HWIO, linear [out, in] to [in, out].

    A 1x1 convolution and a linear map are interchangeable, as they were between versions.
    """
    if path[-1] != "kernel":
        return tensor
    if tensor.ndim == 4:
        tensor = tensor.transpose(2, 3, 1, 0)
        return tensor[0, 0] if len(shape) == 2 and tensor.shape[:2] == (1, 1) else tensor
    return tensor.T[None, None] if len(shape) == 4 else tensor.T


def convert(tensors: Mapping[str, np.ndarray], expected: Shapes, source: str) -> dict:
    """Return Flax parameters {path: array} from PyTorch tensors {name: array}.

    Args:
      tensors: as read from a `.safetensors` file, of any floating dtype, which is kept.
      expected: shape of every parameter of the Flax module.
      source: what to call the tensors in errors.

    Raises:
      SemanticFLError: if a parameter is missing, has another shape, or a tensor belongs to none.
    """
    params, used, missing = {}, set(), []
    for path, shape in expected.items():
        name = next((name for name in torch_names(path) if name in tensors), None)
        if name is None:
            missing.append(torch_names(path)[0])
        else:
            params[path] = to_flax_layout(tensors[name], path, shape)
            used.add(name)
    unexpected = [n for n in tensors if n not in used and not _HARMLESS.search(n)]
    if missing or unexpected:
        raise SemanticFLError(_difference(source, missing, unexpected))
    check_shapes(params, expected, source)
    return params


def check_shapes(params: Mapping[tuple[str, ...], np.ndarray], expected: Shapes, source: str):
    """Raise SemanticFLError unless `params` has exactly the names and shapes expected."""
    missing = ["/".join(path) for path in expected if path not in params]
    unexpected = ["/".join(path) for path in params if path not in expected]
    if missing or unexpected:
        raise SemanticFLError(_difference(source, missing, unexpected))
    for path, shape in expected.items():
        if tuple(params[path].shape) != tuple(shape):
            raise SemanticFLError(
                f"{source}: {'/'.join(path)} has shape {tuple(params[path].shape)}, but the "
                f"configuration beside it asks for {tuple(shape)}"
            )


def _difference(source: str, missing: list[str], unexpected: list[str]) -> str:
    def some(names):
        more = f", ... ({len(names)} in all)" if len(names) > 5 else ""
        return (", ".join(sorted(names)[:5]) + more) or "none"

    return (
        f"{source} does not fit the configuration beside it; missing: {some(missing)}; "
        f"unexpected: {some(unexpected)}"
    )


def read(path: Path, expected: Shapes) -> dict:
    """Read Flax parameters {path: array} from PyTorch's `.safetensors` or Flax's msgpack.

    Args:
      path: of the file, or of the index of several (`.safetensors.index.json`).
      expected: shape of every parameter of the Flax module.

    Raises:
      SemanticFLError: if a file is damaged, does not hold exactly the expected parameters, or holds
        numbers of another type than float or bfloat16.
    """
    if path.suffix in (".safetensors", ".json"):
        tensors: dict[str, np.ndarray] = {}
        for shard in shards(path) if path.suffix == ".json" else [path]:
            tensors |= _read_safetensors(shard)
        return convert(tensors, expected, str(path))
    from flax import serialization
    from flax.traverse_util import flatten_dict

    try:
        params = flatten_dict(serialization.msgpack_restore(path.read_bytes()))
    except Exception as error:
        raise SemanticFLError(f"{path} is not a whole Flax msgpack file: {error}") from error
    check_shapes(params, expected, str(path))
    return params


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import ml_dtypes  # noqa: F401 (makes bfloat16 known to NumPy)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            other = {name: of for name, of in types.items() if of not in _TYPES}
            for name, kind in other.items():
                if not _HARMLESS.search(name):
                    raise SemanticFLError(
                        f"{path}: {name} is of type {kind}; weights of {', '.join(_TYPES)} are "
                        "read. Convert it to fp16 with the tool that made it"
                    )
            return {name: file.get_tensor(name) for name in types if name not in other}
    except (SafetensorError, OSError) as error:
        raise SemanticFLError(f"{path} is not a whole safetensors file: {error}") from error
