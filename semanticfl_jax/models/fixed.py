"""A network's parameters in two trees: those that are trained, and those that are fixed.

Both have the form of all parameters, with None in the place of what the other one has.
"""

from __future__ import annotations

import jax

from semanticfl_jax.types import PyTree


def trained_of(params: PyTree, fixed: PyTree) -> PyTree:
    """Return parameters with None for those that `fixed` has; all of them if that is None."""
    if fixed is None:
        return params
    return jax.tree.map(lambda kept, x: x if kept is None else None, fixed, params, is_leaf=_none)


def joined(trained: PyTree, fixed: PyTree) -> PyTree:
    """Return all parameters, those that are trained and those that are `fixed`."""
    if fixed is None:
        return trained
    return jax.tree.map(lambda kept, x: x if kept is None else kept, fixed, trained, is_leaf=_none)


def _none(x: PyTree) -> bool:
    return x is None
