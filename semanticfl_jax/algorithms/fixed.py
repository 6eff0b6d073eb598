"""The network's parameters that nobody trains: taken out of a `Model`, and put back in its place.

What is trained, sent, averaged, clipped and kept by clients is the rest; the network alone is
applied with all. Fixed parameters are sent once, at a client's first contact. Clients side by side
share them: under `vmap` they have no axis of clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semanticfl_jax.algorithms.model import Model
from semanticfl_jax.algorithms.parts import Belongs, part
from semanticfl_jax.models.fixed import joined, trained_of
from semanticfl_jax.types import PyTree


def fixed_part(model: Model, trains: Belongs) -> PyTree:
    """Return the network's parameters that are not trained, with None for the others.

    Args:
      model: as drawn, all of it.
      trains: whether the parameters at a path of the `Model` are trained.
    """
    network = Model({"model": model.params["model"]}, ())
    return part(network, lambda path: not trains(path)).params["model"]


def trained_part(model: Model, fixed: PyTree) -> Model:
    """Return `model` with None for what is `fixed`; all of it if that is None."""
    network = trained_of(model.params["model"], fixed)
    return model._replace(params={**model.params, "model": network})


def whole(model: Model, fixed: PyTree) -> Model:
    """Return a trained part with what is `fixed`, as the network is applied with."""
    network = joined(model.params["model"], fixed)
    return model._replace(params={**model.params, "model": network})


def fixed_in(shared: Mapping[str, Any]) -> PyTree:
    """Return the fixed parameters among `Algorithm.sent_once`, as they are on the devices."""
    return shared["model"][0] if "model" in shared else None
