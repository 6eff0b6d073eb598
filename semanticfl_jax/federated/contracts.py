"""What pieces of an algorithm must return: a mistake is named where it is made, while tracing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.parts import path_name
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.types import PyTree


def require_scalar(loss: Any, term: str) -> jax.Array:
    """Return what a term's `loss` returned; raise `SemanticFLError` unless it is a scalar."""
    if jnp.shape(loss) != ():
        raise SemanticFLError(
            f"LossTerm.loss of {term} must return a scalar, the mean over the valid rows, got an "
            f"array {list(jnp.shape(loss))}"
        )
    return jnp.asarray(loss)


def require_server_step(result: Any, params: PyTree, state: PyTree, name: str) -> tuple[Any, Any]:
    """Return the parameters and the state that a server rule's `update` returned.

    Args:
      result: what it returned.
      params: the server's parameters before.
      state: the rule's state before.
      name: of the algorithm.

    Raises:
      SemanticFLError: unless it is those two, each of the form that it had.
    """
    what = f"ServerRule.update of {name} must return (params, state)"
    if not isinstance(result, tuple) or len(result) != 2:
        raise SemanticFLError(f"{what}, got a {type(result).__name__}")
    for part, before, after in zip(("params", "state"), (params, state), result, strict=True):
        given, got = (str(jax.tree.structure(each)) for each in (before, after))
        if given != got:
            raise SemanticFLError(
                f"{what}, {part} with the structure it was given: {given}, got {got}"
            )
        old = jax.tree_util.tree_leaves_with_path(before)
        for (path, was), now in zip(old, jax.tree.leaves(after), strict=True):
            if _form(was) != _form(now):
                where = f"{part}/{path_name(path)}"
                raise SemanticFLError(
                    f"{what} as they were: {where} was {_form(was)}, is {_form(now)}"
                )
    return result


def _form(leaf: Any) -> str:
    return f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"
