"""A client network as the engine calls it, whatever its own `__call__` takes and returns."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import InvalidRngError

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models.nnx_bridge import described, in_mode, nnx_class_of
from semanticfl_jax.models.outputs import Outputs
from semanticfl_jax.types import PyTree

# What other code calls the argument `train`, and what it would be.
_OTHER_NAMES = {
    "training": "train",
    "is_training": "train",
    "deterministic": "not train",
    "use_running_average": "not train",
}


class Network:
    """A Flax module that is told `train` and `mask` if it takes them, and returns `Outputs`.

    Args:
      module: called as `(images, ...)`; returns `Outputs`, or logits [B, K], for tokens
        [B, ..., K]. Without a `mask` argument, rows that pad a batch take part in its normalisation
        statistics. An NNX module comes through Flax's bridge, `nnx.bridge.to_linen`; if its call
        does not take `train`, its layers are put in the mode that they are to be in.

    Raises:
      SemanticFLError: if it is no Flax module, or its call is told by another name than `train`
        whether it trains.
    """

    def __init__(self, module: nn.Module):
        if not isinstance(module, nn.Module):
            raise SemanticFLError(
                f"a model must be an instance of a Flax module (flax.linen), got "
                f"{described(module)}"
            )
        self.module = module
        parameters = _parameters(module)
        _refuse_other_names(parameters, self.name)
        any_keyword = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self._takes = {name for name in ("train", "mask") if any_keyword or name in parameters}

    @property
    def name(self) -> str:
        """The name of the module's class; of an NNX module behind Flax's bridge, of that one."""
        return getattr(_class_of(self.module), "__name__", "a function")

    def init(self, key: jax.Array, images: jax.Array, *, train: bool = False) -> PyTree:
        """Return the initial variables, for images float32 [B, H, W, 3] or inputs [B, ...]."""
        module, keys = self._module(train), key
        if nnx_class_of(module):  # NNX asks for the stream of dropout already when it is made
            keys = {"params": key, "dropout": jax.random.fold_in(key, 0)}
        return module.init(keys, images, **self._arguments(train, None))

    def apply(
        self,
        variables: Mapping[str, PyTree],
        images: jax.Array,
        *,
        train: bool,
        mask: jax.Array | None = None,
        rngs: Mapping[str, jax.Array] | None = None,
        mutable: Any = False,
    ) -> Any:
        """Return `Outputs`; with `mutable`, also the collections that changed, as Flax does."""
        module, arguments = self._module(train), self._arguments(train, mask)
        result = module.apply(variables, images, **arguments, rngs=rngs, mutable=mutable)
        if mutable is False:
            return as_outputs(result)
        outputs, changed = result
        return as_outputs(outputs), changed

    def outputs(self, image_shape: tuple[int, ...]) -> Outputs:
        """Return the shapes of what it returns for one image.

        Raises:
          SemanticFLError: if it keeps what a run does not keep.
        """
        images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        variables = self._initial(images)
        return jax.eval_shape(lambda v, x: self.apply(v, x, train=False), variables, images)

    def variables(self, image_shape: tuple[int, ...]) -> PyTree:
        """Return the shapes of its initial variables.

        Raises:
          SemanticFLError: if it keeps or draws what a run does not keep or give.
        """
        images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        shapes = self._initial(images)

        def train(variables: PyTree, key: jax.Array, images: jax.Array) -> Any:
            given = {"mask": jnp.ones(1, bool), "rngs": {"dropout": key}}
            return self.apply(variables, images, train=True, mutable=["batch_stats"], **given)

        try:
            jax.eval_shape(train, shapes, jax.random.key(0), images)
        except InvalidRngError as error:
            raise SemanticFLError(
                f"{self.name} draws from a random stream that a run does not give, which is all "
                'but dropout: take self.make_rng("dropout"), or rng_collection="dropout". Flax '
                f"says: {error}"
            ) from error
        return shapes

    def _initial(self, images: jax.ShapeDtypeStruct) -> PyTree:
        """Return the shapes of the initial variables, all of which a run keeps."""
        try:
            shapes = jax.eval_shape(self.init, jax.random.key(0), images)
        except (ValueError, KeyError, AttributeError) as error:
            problem = _not_told(str(error), self.name)
            if problem is None:
                raise
            raise SemanticFLError(problem) from error
        _refuse_variables(shapes, self.name)
        return shapes

    def _module(self, train: bool) -> nn.Module:
        """Return the module; one of NNX whose call does not take `train`, in its mode."""
        if "train" in self._takes or nnx_class_of(self.module) is None:
            return self.module
        return in_mode(self.module, train)

    def _arguments(self, train: bool, mask: jax.Array | None) -> dict[str, Any]:
        given = {"train": train, "mask": mask}
        return {name: given[name] for name in self._takes}


def as_outputs(result: Any) -> Outputs:
    """Return what a network returned as `Outputs`, in float32.

    Raises:
      SemanticFLError: if it is neither `Outputs` nor an array.
    """
    if isinstance(result, Outputs):
        return jax.tree.map(lambda x: x.astype(jnp.float32), result)
    if not hasattr(result, "dtype"):
        raise SemanticFLError(
            "a model must return logits [B, K], or semanticfl_jax.Outputs(logits, features), got "
            f"{type(result).__name__}"
        )
    return Outputs(result.astype(jnp.float32), None)


def _not_told(error: str, name: str) -> str | None:
    """Return what to do about an error of Flax's layers that lack what a run tells the network."""
    layer = re.search(r'Parameter "(\w+)" must be passed', error)
    if layer and layer[1] in _OTHER_NAMES:
        return (
            f"{name} has a layer that must be told whether it trains, as nn.Dropout and "
            f"nn.BatchNorm must: let {name}.__call__ take train, and give the layer "
            f"{layer[1]}={_OTHER_NAMES[layer[1]]}"
        )
    stream = re.search(r"No RngStream named '(\w+)'", error)
    if stream is None:
        return None
    return (
        f'{name} has a layer of NNX that draws from the random stream "{stream[1]}"; a run gives '
        "dropout alone, and that only where nnx.bridge.to_linen makes the whole network"
    )


def _refuse_other_names(parameters: Mapping[str, inspect.Parameter], name: str) -> None:
    """Raise `SemanticFLError` for a call that would never learn that it is in training."""
    for other, value in _OTHER_NAMES.items():
        if other in parameters and "train" not in parameters:
            raise SemanticFLError(
                f"{name}.__call__ has {other}=, which must be called train (True in training, "
                f"False in tests; {other} is {value}): nothing else tells it whether it trains"
            )


def _refuse_variables(variables: PyTree, name: str) -> None:
    """Raise `SemanticFLError` for variables that a run would lose, or could not add up."""
    for kind in variables:
        if kind not in ("params", "batch_stats"):
            raise SemanticFLError(
                f'{name} has variables in the collection "{kind}"; a run keeps params and '
                "batch_stats alone. Constants can be arrays of NumPy in the module; what changes "
                'in training can be self.variable("batch_stats", ...), which is averaged over '
                "clients"
            )
    for leaf in jax.tree.leaves(variables.get("params", {})):
        if leaf.dtype != jnp.float32:
            raise SemanticFLError(
                f"{name} has parameters of {leaf.dtype}; a run adds them up in float32: give its "
                f"layers dtype=, of the computation, and not param_dtype="
            )


def _class_of(module: Any) -> Any:
    """Return the class of a module; behind Flax's bridge that of NNX, or what makes it."""
    made = nnx_class_of(module) or type(module)
    return made.func if isinstance(made, functools.partial) else made


def _parameters(module: Any) -> Mapping[str, inspect.Parameter]:
    """Return what a module's call takes: of a sequence its first layer's, which gets them."""
    while type(module) is nn.Sequential and module.layers:
        module = module.layers[0]
    made = _class_of(module)
    if not isinstance(made, type):
        raise SemanticFLError(
            f"nnx.bridge.to_linen must be given a class for a run, which looks at its call for "
            f"train, got {made!r:.200}"
        )
    if made.__module__.startswith("flax."):
        return {}  # a layer of Flax's own, whose mask is another
    called = made.__call__ if made is not type(module) or isinstance(module, nn.Module) else module
    in_python = any(hasattr(called, name) for name in ("__code__", "__wrapped__", "func"))
    if not in_python and not inspect.isfunction(type(called).__call__):
        return {}  # a callable of C, which claims to take anything since Python 3.12
    return inspect.signature(called).parameters
