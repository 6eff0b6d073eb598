"""Parts of a model: which of its arrays belong to a client, by the paths that name them.

A path is that of a `Model`, as in "params/model/classifier/kernel" or "batch_stats/norm/mean". The
parameters of loss terms, such as the head of guidance, are "params/TERM/..." and are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax

from semanticfl_jax.algorithms.base import ClientRule, Finished, Model
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models.fixed import joined
from semanticfl_jax.types import PyTree

Belongs = Callable[[str], bool]


def path_name(path: tuple) -> str:
    """Return a path of a tree as "params/model/Dense_0/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def part(model: Model, belongs: Belongs) -> Model:
    """Return `model` with None for what does not belong to the part."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x if belongs(path_name(path)) else None, model
    )


def put_together(own: Model, model: Model) -> Model:
    """Return `model` with the arrays of a part, `own`, in their places."""
    return joined(model, own)


def keeping(belongs: Belongs) -> ClientRule:
    """Build the rule of clients that keep a part of the model: it is trained, and never sent."""

    def start(own: Model, received: Model, broadcast: PyTree) -> Model:
        del broadcast
        return put_together(own, received)

    return ClientRule(
        init=lambda model: part(model, belongs),
        start=start,
        finish=lambda trained: Finished(state=part(trained.model, belongs)),
        uploads=lambda path: not belongs(path),
        personal=start,
    )


def in_layers(layers: Sequence[str], context: AlgorithmContext, field: str) -> Belongs:
    """Return what tells the arrays of the network's layers of these names from others.

    Args:
      layers: names of layers, whole ones, at any depth.
      context: with the network's variables.
      field: where they were given, for messages.

    Raises:
      SemanticFLError: for a name that no layer has; the message lists those that there are.
    """
    names = {path: path.split("/") for path in paths(context)}
    for layer in layers:
        if not any(layer in parts for parts in names.values()):
            known = sorted({parts[2] for parts in names.values() if len(parts) > 2})
            raise SemanticFLError(
                f"{field} must name layers of the model ({', '.join(known)}), got {layer!r}"
            )
    wanted = set(layers)
    return lambda path: _of_network(path) and not wanted.isdisjoint(path.split("/")[1:])


def classifier(context: AlgorithmContext, field: str) -> str:
    """Return the name of the last layer: the one matrix that has a column for each logit.

    Args:
      context: with the network's variables and outputs.
      field: with which one could name it, for messages.

    Raises:
      SemanticFLError: if there is none, or more than one.
    """
    logits = context.outputs.logits.shape[-1]
    shapes = paths(context)
    found = [
        path.split("/")[-2]
        for path, shape in shapes.items()
        if path.startswith("params/") and len(shape) == 2 and shape[-1] == logits
    ]
    if len(found) == 1:
        return found[0]
    several = f"{len(found)} layers ({', '.join(found)}) have" if found else "no layer has"
    raise SemanticFLError(
        f"{field} must be given for this model, to say which layer is the classifier: {several} a "
        f"matrix with {logits} columns, one for each logit"
    )


def chosen_layers(
    layers: Sequence[str] | str, context: AlgorithmContext, field: str
) -> Belongs | None:
    """Return what tells a client's layers from the shared ones; None if it has none of its own.

    Args:
      layers: names, or "classifier".
      context: with the network's variables and outputs.
      field: where they were given, for messages.
    """
    if layers == "classifier":
        layers = (classifier(context, field),)
    return in_layers(layers, context, field) if layers else None


def paths(context: AlgorithmContext) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the network's arrays by their paths in a `Model`."""
    if context.variables is None:
        raise SemanticFLError("the algorithm needs the model's variables, and there is no model")
    variables = context.variables
    model = Model({"model": variables["params"]}, variables.get("batch_stats", {}))
    leaves = jax.tree_util.tree_leaves_with_path(model)
    return {path_name(path): x.shape for path, x in leaves}


def _of_network(path: str) -> bool:
    return path.startswith(("params/model/", "batch_stats/"))
