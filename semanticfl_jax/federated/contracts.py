"""What pieces of an algorithm must return: a mistake is named where it is made, while tracing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Descent, Finished, Model
from semanticfl_jax.algorithms.parts import path_name
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.types import PyTree


def require_scalar(loss: Any, term: str) -> jax.Array:
    """Return what a term's `loss` returned; raise `SemanticFLError` unless it is a scalar."""
    what = f"LossTerm.loss of {term} must return a scalar, the mean over the valid rows"
    return _scalar(loss, what)


def require_steps(steps: Any, name: str) -> jax.Array:
    """Return what a client rule's `steps` returned; raise `SemanticFLError` unless it is a number.

    Args:
      steps: that; a whole number.
      name: of the algorithm.
    """
    what = f"ClientRule.steps of {name} must return a whole number, a scalar"
    number = _scalar(steps, what)
    if not jnp.issubdtype(number.dtype, jnp.integer):
        raise SemanticFLError(f"{what}, got {number.dtype}")
    return number.astype(jnp.int32)


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
    _require_pair(what, result)
    require_form(what, "params", params, result[0])
    require_form(what, "state", state, result[1])
    return result


def require_finished(result: Any, state: PyTree, params: PyTree, name: str) -> Finished:
    """Return what a client rule's `finish` returned.

    Args:
      result: that.
      state: the client's before the round.
      params: of its model.
      name: of the algorithm.

    Raises:
      SemanticFLError: unless it is a `Finished` with a state as before, an update, if any, as the
        parameters, and figures that are scalars.
    """
    what = f"ClientRule.finish of {name} must return semanticfl_jax.Finished"
    if not isinstance(result, Finished):
        raise SemanticFLError(f"{what}(state, update, extra), got a {type(result).__name__}")
    require_form(f"{what} with the state that init makes", "state", state, result.state)
    if result.update is not None:
        require_form(f"{what} with an update like params", "update", params, result.update)
    figures = require_figures(result.figures, f"ClientRule.finish of {name}")
    return result._replace(state=_kept(state, result.state), figures=figures)


def require_figures(figures: Any, what: str) -> dict[str, jax.Array]:
    """Return figures as float32 scalars by name.

    Args:
      figures: what a function of the user's measured.
      what: the name of that function.

    Raises:
      SemanticFLError: unless they are scalars by name.
    """
    rule = f"the figures of {what} must be scalars by name"
    if not isinstance(figures, Mapping):
        raise SemanticFLError(f"{rule}, a dict, got a {type(figures).__name__}")
    found = {}
    for name, value in figures.items():
        if not isinstance(name, str):
            raise SemanticFLError(f"{rule}, got the name {name!r}")
        try:
            found[name] = jnp.asarray(value, jnp.float32)
        except (TypeError, ValueError) as error:
            raise SemanticFLError(f"{rule}: {name} is a {type(value).__name__}") from error
        if found[name].shape != ():
            raise SemanticFLError(f"{rule}: {name} is an array {list(found[name].shape)}")
    return found


def require_own_names(
    figures: Mapping[str, Mapping[str, jax.Array]], columns: Collection[str]
) -> dict[str, jax.Array]:
    """Return all figures of a round by name.

    Args:
      figures: by whose they are.
      columns: other names that the round's row has.

    Raises:
      SemanticFLError: for a name that the row has twice.
    """
    found: dict[str, jax.Array] = {}
    owners = dict.fromkeys(columns, "the row")
    for owner, own in figures.items():
        for name in own:
            if name in owners:
                raise SemanticFLError(
                    f"the figures of {owner} must have names of their own, got {name!r}, which "
                    f"{owners[name]} has already"
                )
            owners[name] = owner
        found |= own
    return found


def require_begun(result: Any, received: Model, name: str) -> tuple[Model, PyTree]:
    """Return what a client rule's `begin` returned.

    Args:
      result: that.
      received: the server's model.
      name: of the algorithm.

    Raises:
      SemanticFLError: unless it is a model of that form, and arrays.
    """
    what = f"ClientRule.begin of {name} must return (model, own)"
    _require_pair(what, result)
    require_start(result[0], received, what)
    return result[0], as_arrays(result[1], f"ClientRule.begin of {name}")


def require_model(model: Any, what: str) -> Model:
    """Return what a user's function gave to a function of ours; `what` takes a `Model`."""
    if not isinstance(model, Model):
        raise SemanticFLError(
            f"{what} takes a semanticfl_jax.Model, which has parameters and running statistics, "
            f"got a {type(model).__name__}"
        )
    return model


def require_start(result: Any, received: Model, what: str) -> Model:
    """Return a model that a client trains from.

    Args:
      result: what a function of the user's returned.
      received: the server's model.
      what: which function must return what, for the message.

    Raises:
      SemanticFLError: unless it is a `Model` of the received one's form.
    """
    if not isinstance(result, Model):
        raise SemanticFLError(f"{what}, the model a Model, got a {type(result).__name__}")
    require_form(what, "model", received, result)
    return result


def require_descent(result: Any, model: Model, own: PyTree, name: str) -> Descent:
    """Return what a client rule's `descend` returned.

    Args:
      result: that.
      model: of the client, before the step.
      own: what it carried to the step.
      name: of the algorithm.

    Raises:
      SemanticFLError: unless it is a `Descent` with a scalar loss, and of these forms.
    """
    what = f"ClientRule.descend of {name} must return semanticfl_jax.Descent"
    if not isinstance(result, Descent):
        raise SemanticFLError(
            f"{what}(loss, batch_stats, gradient, own), got a {type(result).__name__}"
        )
    loss = _scalar(result.loss, f"{what} with a scalar loss")
    require_form(f"{what} with a gradient like params", "gradient", model.params, result.gradient)
    statistics = (model.batch_stats, result.batch_stats)
    require_form(f"{what} with running statistics of their form", "batch_stats", *statistics)
    require_form(f"{what} with own as it was before the step", "own", own, result.own)
    return result._replace(loss=loss, own=_kept(own, result.own))


def require_correction(correction: PyTree, params: PyTree, name: str) -> None:
    """Raise `SemanticFLError` unless a client rule's `correction` can be added to a gradient."""
    what = f"ClientRule.correction of {name} must return a tree like params"
    require_form(what, "correction", params, correction)


def require_transformed(result: Any, update: PyTree, state: PyTree, name: str) -> tuple[Any, Any]:
    """Return the update and the state that a transform's `apply` returned, if they are those."""
    what = f"UpdateTransform.apply of {name} must return (update, state)"
    _require_pair(what, result)
    require_form(what, "update", update, result[0])
    require_form(what, "state", state, result[1])
    return result


def require_weights(weights: Any, sizes: jax.Array, name: str) -> jax.Array:
    """Return the weights of a cohort; raise `SemanticFLError` unless there is one a place."""
    if jnp.shape(weights) != sizes.shape:
        raise SemanticFLError(
            f"the weights of {name} must be one for each place of the cohort, "
            f"{list(sizes.shape)} as sizes, got {list(jnp.shape(weights))}"
        )
    return jnp.asarray(weights)


def require_aggregated(result: Any, state: PyTree, name: str) -> tuple[Any, Any]:
    """Return the update and the state that an aggregator's `finish` returned, if it has a state."""
    what = f"Aggregator.finish of {name}, which has start, must return (update, state)"
    _require_pair(what, result)
    require_form(what, "state", state, result[1])
    return result


def require_update(update: Any, like: Model, name: str) -> None:
    """Raise `SemanticFLError` unless an aggregator's update is one of a single client's form."""
    what = f"Aggregator.finish of {name} must return an update like a single client's, a Model"
    require_form(what, "update", like, update)


def as_arrays(tree: PyTree, what: str) -> PyTree:
    """Return a tree with arrays for its numbers, each in memory of its own.

    A round takes the memory of the state before it, which may be neither the model's, nor that of
    two leaves, nor an array that the user keeps.

    Args:
      tree: what a function of the user's returned.
      what: the name of that function.

    Raises:
      SemanticFLError: for a leaf that is no number.
    """

    def array(leaf: Any) -> jax.Array:
        try:
            return jnp.array(leaf)
        except (TypeError, ValueError) as error:
            raise SemanticFLError(
                f"{what} must return a tree of arrays, got a {type(leaf).__name__} in it: "
                f"{leaf!r:.100}"
            ) from error

    return jax.tree.map(array, tree)


def require_form(what: str, part: str, before: PyTree, after: PyTree) -> None:
    """Raise `SemanticFLError` unless a tree has the form of another: structure, shapes, types.

    Args:
      what: which function must return what, for the message.
      part: of what it returned this is.
      before: a tree of that form.
      after: what was returned.
    """
    forms, found = _forms(part, before), _forms(part, after)
    if not forms and not found:
        return  # nothing, whether (), {} or None
    lacking = [where for where in forms if where not in found]
    more = [where for where in found if where not in forms]
    if lacking or more:
        raise SemanticFLError(
            f"{what}: {part} {_named('lacks', lacking)}{' and ' * bool(lacking and more)}"
            f"{_named('has also', more)}"
        )
    given, got = (str(jax.tree.structure(each)) for each in (before, after))
    if given != got:
        raise SemanticFLError(
            f"{what}: {part} must have the structure {given:.200}, got {got:.200}"
        )
    for where, form in forms.items():
        if form != found[where]:
            raise SemanticFLError(f"{what}: {where} must be {form}, got {found[where]}")


def _scalar(value: Any, what: str) -> jax.Array:
    """Return a scalar that a function of the user's returned; `what` must return it."""
    try:
        scalar = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise SemanticFLError(f"{what}, got a {type(value).__name__}") from error
    if scalar.shape != ():
        raise SemanticFLError(f"{what}, got an array {list(scalar.shape)}")
    return scalar


def _kept(before: PyTree, after: PyTree) -> PyTree:
    """Return what is kept; nothing stays the nothing that it was, as loops of JAX's want it."""
    return after if jax.tree.leaves(after) else before


def _require_pair(what: str, result: Any) -> None:
    """Raise `SemanticFLError` unless it is two things; a `Model` has two parts, and is one."""
    if not isinstance(result, tuple) or isinstance(result, Model) or len(result) != 2:
        raise SemanticFLError(f"{what}, got a {type(result).__name__}")


def _form(leaf: Any) -> str:
    return f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"


def _forms(part: str, tree: PyTree) -> dict[str, str]:
    """Return the forms of a tree's leaves by where they are."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(filter(None, (part, path_name(path)))): _form(leaf) for path, leaf in leaves}


def _named(verb: str, places: list[str]) -> str:
    """Return "lacks a, b", with the first places alone of many."""
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return f"{verb} {', '.join(places[:3])}{more}" if places else ""
