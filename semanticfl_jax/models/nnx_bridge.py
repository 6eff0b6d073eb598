"""NNX modules as clients' networks: through Flax's bridge to Linen, `nnx.bridge.to_linen`.

Whoever has such a module has imported NNX. It takes half a second, so it is not imported here.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn


def nnx_class_of(module: object) -> Callable[..., Any] | None:
    """Return what makes the NNX module behind a bridge, mostly its class; None: no bridge."""
    nnx = sys.modules.get("flax.nnx")
    bridged = nnx is not None and isinstance(module, nnx.bridge.ToLinen)
    return module.nnx_class if bridged else None  # type: ignore[attr-defined]


def in_mode(module: nn.Module, train: bool) -> nn.Module:
    """Return a bridge whose layers are in training mode or not, unless a call tells them."""
    return module.clone(nnx_class=functools.partial(_made, nnx_class_of(module), train))


def _made(nnx_class: Callable[..., Any], train: bool, *args: Any, **kwargs: Any) -> Any:
    module = nnx_class(*args, **kwargs)
    (module.train if train else module.eval)()
    return module


def described(given: object) -> str:
    """Return what was given in place of a model, in words; of an NNX module what to do."""
    nnx = sys.modules.get("flax.nnx")
    made = given if isinstance(given, type) else type(given)
    if nnx is None or not issubclass(made, nnx.Module):
        return f"{given!r:.200}"
    return (
        f"{made.__name__} of NNX: give nnx.bridge.to_linen({made.__name__}, ...), with the "
        "arguments that make it but rngs"
    )
