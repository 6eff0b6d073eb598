"""The student itself: a small network, its weights, and where they come from."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax import weight_files
from semanticfl_jax.config import ExperimentConfig, from_dict
from semanticfl_jax.data.augment import normalize
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.models import Network, make_model
from semanticfl_jax.types import PyTree

_FORMAT = "semanticfl_jax student"
_BLOCK = 256


class Student:
    """A network from images to what a teacher sees in them.

    Attributes:
      network: a network of the project with `dim` outputs.
      variables: {"params": ..., "batch_stats": ...}, float16: what clients are sent.
      about: `model`, `image_shape`, `mean`, `std`, `dim`, `provenance`, `measured`, as JSON values.
      conv: lowering of its convolutions; "auto": what suits the devices that JAX has.
    """

    def __init__(
        self, variables: Mapping[str, PyTree], about: Mapping[str, Any], conv: str = "auto"
    ):
        self.about, self.conv = dict(about), conv
        self.network = self._network(self.dim)
        with np.errstate(over="ignore"):  # `require_finite` tells
            self.variables = jax.tree.map(lambda x: np.asarray(x, np.float16), dict(variables))

    @property
    def dim(self) -> int:
        """Width of a target."""
        return int(self.about["dim"])

    @property
    def image_shape(self) -> tuple[int, ...]:
        """H, W, 3."""
        return tuple(self.about["image_shape"])

    @property
    def provenance(self) -> dict[str, Any]:
        """All that decided the weights."""
        return self.about["provenance"]

    def of_images(self, variables: PyTree, images: jax.Array) -> jax.Array:
        """Return what it sees in uint8 images [B, H, W, 3], float32 [B, dim]; traceable.

        Images of another size than it was made for are resized, bilinearly.
        """
        if images.shape[1:] != self.image_shape:
            size = (len(images), *self.image_shape)
            images = jax.image.resize(images.astype(jnp.float32), size, "linear")
        return self.of_normalized(
            variables, normalize(images, self.about["mean"], self.about["std"])
        )

    def of_normalized(self, variables: PyTree, images: jax.Array) -> jax.Array:
        """Return the same of images that are normalised already, float32 [B, H, W, 3]."""
        variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), variables)
        return self.network.apply(variables, images, train=False).logits

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Return what it sees in uint8 images [n, H, W, 3] on the host, float32 [n, dim]."""
        compute = jax.jit(self.of_images)
        found, block = [], min(_BLOCK, len(images))
        for start in range(0, len(images), block):
            # The last block is filled up, so that one program serves all.
            rows = np.arange(start, start + block).clip(max=len(images) - 1)
            seen = np.asarray(compute(self.variables, images[rows]))
            found.append(seen[: len(images) - start])
        return np.concatenate(found)

    @functools.cached_property
    def output_leaves(self) -> tuple[str, ...]:
        """Names of the parameters whose shape depends on how many outputs there are."""
        shapes = [
            {name: leaf.shape for name, leaf in weight_files.named_leaves(tree).items()}
            for tree in map(self._parameter_shapes, (self.dim, self.dim + 1))
        ]
        return tuple(name for name in shapes[0] if shapes[0][name] != shapes[1].get(name))

    def require_finite(self) -> None:
        """Raise `SemanticFLError` if its weights, as clients would be sent them, are not finite."""
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(self.variables)):
            raise SemanticFLError(
                "the student's training diverged: its weights are not finite, or too large for "
                "float16; lower guidance.student.learning_rate"
            )

    @property
    def start(self) -> dict[str, Any]:
        """Weights from which the same network with other outputs can start, float32.

        "drawn" names the parameters of the output layer, which are left out.
        """
        weights = jax.tree.map(lambda x: np.asarray(x, np.float32), self.variables)
        kept = {
            name: leaf
            for name, leaf in weight_files.named_leaves(weights["params"]).items()
            if name not in self.output_leaves
        }
        return {"params": kept, "batch_stats": weights["batch_stats"], "drawn": self.output_leaves}

    def fits(self, variables: PyTree) -> bool:
        """Return whether a network of such variables, or shapes of them, can start from it."""

        def shapes(kind: str, tree: PyTree) -> dict[str, tuple[int, ...] | None]:
            own = self.output_leaves if kind == "params" else ()
            named = weight_files.named_leaves(tree.get(kind, {}))
            return {name: None if name in own else leaf.shape for name, leaf in named.items()}

        kinds = ("params", "batch_stats")
        return all(shapes(kind, self.variables) == shapes(kind, variables) for kind in kinds)

    @property
    def head(self) -> dict[str, np.ndarray] | None:
        """Its output layer, {"kernel": [features, dim], "bias": [dim]}, float32; None if not one.

        Networks whose output is anything but one dense layer on the features have none.
        """
        leaves = weight_files.named_leaves(self.variables["params"])
        found = {name.rpartition("/")[2]: leaves[name] for name in self.output_leaves}
        features = self.network.outputs(self.image_shape).features
        if features is None or found.keys() != {"kernel", "bias"}:
            return None
        if found["kernel"].shape != (features.shape[-1], self.dim):
            return None
        return {name: np.asarray(leaf, np.float32) for name, leaf in found.items()}

    def save(self, path: str | os.PathLike) -> None:
        """Write one .safetensors file, whole or not at all."""
        weight_files.write(path, self.variables, self.about, _FORMAT)

    @staticmethod
    def load(path: str | os.PathLike) -> Student:
        """Read what `save` wrote.

        Raises:
          MissingFileError: if there is no such file.
          SemanticFLError: if it is damaged or holds no student.
        """
        if not os.path.isfile(path):
            raise MissingFileError(f"guidance.student.file: {path} does not exist")
        return Student(*weight_files.read(path, _FORMAT, "launch.distill_student"))

    def _network(self, outputs: int) -> Network:
        settings = {"model": self.about["model"], "runtime": {"conv": self.conv}}
        config = from_dict(ExperimentConfig, settings)
        return make_model(config, outputs, self.image_shape)

    def _parameter_shapes(self, outputs: int) -> PyTree:
        images = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
        init = functools.partial(self._network(outputs).init, train=False)
        return jax.eval_shape(init, jax.random.key(0), images)["params"]
