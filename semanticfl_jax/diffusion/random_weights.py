"""The same networks with random weights: a control for features, and a stand-in for timing.

Our choice, close to how Flax begins: kernels are normal with variance 1 / fan-in (LeCun et al.
1998), embeddings normal with deviation 0.02 (CLIP's), biases zero, scales of norms one. Drawn by
NumPy, a leaf at a time, so that a model of a billion parameters needs no more than its own memory.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from semanticfl_jax.diffusion.stable_diffusion import StableDiffusion
from semanticfl_jax.diffusion.torch_weights import Shapes
from semanticfl_jax.errors import SemanticFLError

COMPONENTS = ("vae", "unet", "text_encoder")


def random_params(expected: Shapes, seed: int, dtype: Any = jnp.float32) -> dict[str, Any]:
    """Return nested parameters of the shapes {path: shape}.

    A leaf depends on (seed, its path and shape) alone.

    Raises:
      SemanticFLError: for a leaf that is none of kernel, embedding, scale and bias.
    """
    return unflatten_dict(
        {path: jnp.asarray(_leaf(path, shape, seed), dtype) for path, shape in expected.items()}
    )


def _leaf(path: tuple[str, ...], shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw float32 `shape`."""
    if path[-1] in ("bias", "scale"):
        return np.full(shape, path[-1] == "scale", np.float32)
    if path[-1] not in ("kernel", "embedding"):
        raise SemanticFLError(f"{'/'.join(path)}: no rule to draw it by")
    deviation = np.prod(shape[:-1]) ** -0.5 if path[-1] == "kernel" else 0.02
    rng = np.random.default_rng([seed, zlib.crc32("/".join(path).encode())])
    values = rng.standard_normal(shape, np.float32)
    values *= np.float32(deviation)
    return values


def with_random_weights(
    sd: StableDiffusion, components: Sequence[str], seed: int
) -> StableDiffusion:
    """Return `sd` with the named components' weights replaced by random ones of the same precision.

    Args:
      sd: the loaded checkpoint.
      components: some of `COMPONENTS`.
      seed: at least 0.

    Raises:
      SemanticFLError: for another component.
    """
    unknown = [name for name in components if name not in COMPONENTS]
    if unknown:
        raise SemanticFLError(
            f"components: must be among {', '.join(COMPONENTS)}, not {unknown[0]!r}"
        )
    drawn = {}
    for name in components:
        shapes = {path: leaf.shape for path, leaf in flatten_dict(sd.params[name]).items()}
        drawn[name] = random_params(shapes, seed, sd.networks.dtype)
    return dataclasses.replace(sd, params=sd.params | drawn)
