"""A trained model as one file: weights, architecture, normalisation and class names."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax import __version__, weight_files
from semanticfl_jax.config import ExperimentConfig, from_dict, to_dict
from semanticfl_jax.data.augment import as_network_input
from semanticfl_jax.data.sources.inputs import KEPT, as_kept
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models import Network, make_model
from semanticfl_jax.paths import local_path
from semanticfl_jax.tasks import CLASSIFICATION, Task, make_task
from semanticfl_jax.types import PyTree

_FORMAT = "semanticfl_jax"
# Inputs of a batch at most, and bytes of what the network returns of them: tokens have many logits.
_BATCH, _BATCH_BYTES = 250, 100_000_000
#: Key of the inputs' type in a saved model; left out for images.
_DTYPE = "image_dtype"


class TrainedModel:
    """A network with its weights, ready to predict.

    Attributes:
      network: the network.
      params: its parameters, a tree of float32 arrays.
      batch_stats: its running statistics; {} without batch normalisation.
      class_names: what the logits stand for, in their order.
      about: what is written beside the weights: `architecture`, `image_shape`, `mean`, `std`, ...
      task: what the network learned.

    Its methods take inputs as the data set had them: images uint8 [n, H, W, 3], or, where it had no
    images, floats or whole numbers [n, ...] as `ImageDataset.from_arrays` takes them.
    """

    def __init__(
        self,
        network: Network,
        params: PyTree,
        batch_stats: PyTree,
        about: Mapping[str, Any],
        task: Task = CLASSIFICATION,
    ):
        self.network, self.params, self.batch_stats = network, params, batch_stats
        self.task = task
        self.about = dict(about)
        self.class_names = tuple(about["class_names"])

    @functools.cached_property
    def _output(self) -> Callable[[str, PyTree, PyTree, jax.Array], jax.Array]:
        """A field of the network's `Outputs`, jitted."""
        network, mean, std = self.network, self.about["mean"], self.about["std"]

        def output(name: str, params: PyTree, batch_stats: PyTree, images: jax.Array) -> jax.Array:
            variables = {"params": params, "batch_stats": batch_stats}
            outputs = network.apply(variables, as_network_input(images, mean, std), train=False)
            return getattr(outputs, name)

        return jax.jit(output, static_argnums=0)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the compiled function, which cannot be pickled."""
        return {name: value for name, value in vars(self).items() if name != "_output"}

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of images uint8 [n, H, W, 3], or other inputs: float32 [n, K].

        Of a task with a class at each position they are [n, ..., K].

        Raises:
          SemanticFLError: for images of another type or size than the model was trained on.
        """
        return self._outputs("logits", images)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return what the classifier reads of images, or other inputs: float32 [n, d].

        Raises:
          SemanticFLError: for images of another type or size than the model was trained on, or a
            network without features.
        """
        return self._outputs("features", images)

    def _outputs(
        self,
        name: str,
        images: np.ndarray,
        then: Callable[[np.ndarray], np.ndarray] = lambda found: found,
    ) -> np.ndarray:
        """Return `then` of a field of the network's `Outputs`, [n, ...], computed in batches."""
        given, shape = np.asarray(images), tuple(self.about["image_shape"])
        dtype = np.dtype(self.about.get(_DTYPE, "uint8"))
        fits = given.ndim == 1 + len(shape) and given.shape[1:] == shape
        # Any precision is taken: floats for a model of floats, whole numbers for one of these.
        images = as_kept("images", given) if fits and given.dtype != np.uint8 else given
        if not fits or images.dtype != dtype:
            raise SemanticFLError(
                f"images must be {dtype} [n, {', '.join(map(str, shape))}], got {given.dtype} "
                f"{list(given.shape)}"
            )
        compute = partial(self._output, name, self.params, self.batch_stats)
        form = jax.eval_shape(compute, np.zeros((1, *shape), dtype))
        if form is None:
            raise SemanticFLError(f"{self.network.name} returns no {name}, but logits alone")
        most = max(1, min(_BATCH, _BATCH_BYTES // max(1, form.size * form.dtype.itemsize)))
        # The last batch is filled up, so that one program serves all.
        full = np.zeros((max(1, min(most, len(images))), *shape), dtype)
        found = None
        for start in range(0, len(images), most):
            batch = images[start : start + most]
            full[: len(batch)], full[len(batch) :] = batch, 0
            here = then(np.asarray(compute(full))[: len(batch)])
            if found is None:
                found = np.zeros((len(images), *here.shape[1:]), here.dtype)
            found[start : start + most] = here
        return then(np.zeros((0, *form.shape[1:]), form.dtype)) if found is None else found

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the task's predictions for images uint8 [n, H, W, 3], or other inputs.

        Returns:
          Of classification, the most likely class, int32 [n]; of multilabel, which labels are
          likelier than not, uint8 [n, K]; of regression, float32 [n, K]; of tokens, the most likely
          class at each position, int32 [n, ...].
        """
        # Of each batch: the logits of tokens are as many times larger as there are classes.
        return self._outputs("logits", images, self.task.predict)

    def export(self, path: str | os.PathLike) -> None:
        """Write a .safetensors file that `load_model` reads.

        Raises:
          SemanticFLError: for another suffix.
        """
        path = local_path(path, "path")
        if path.suffix != ".safetensors":
            raise SemanticFLError(f"export writes a .safetensors file, got {path}")
        trees = {"params": self.params, "batch_stats": self.batch_stats}
        weight_files.write(path, trees, self.about, _FORMAT)


def describe_model(
    config: ExperimentConfig, network: Network, given: bool, image_shape: tuple[int, ...], data: Any
) -> dict[str, Any]:
    """Return what is written beside a model's weights.

    Args:
      config: of the run.
      network: what was trained.
      given: whether it was given as a Flax module: its architecture is then known by name alone.
      image_shape: H, W, 3, or the shape of an input that is no image.
      data: the data set, for class names, normalisation and the inputs' type.
    """
    architecture = {"module": network.name} if given else {"model": to_dict(config.model)}
    dtype = data.train_images.dtype
    return {
        "version": __version__,
        "architecture": {**architecture, "precision": config.precision},
        "image_shape": list(image_shape),
        "mean": list(data.mean),
        "std": list(data.std),
        **({} if dtype == np.uint8 else {_DTYPE: dtype.name}),
        "class_names": list(data.class_names),
        "task": config.task,
        "task_settings": to_dict(config)["task_settings"],
        "dataset": data.name,
        "algorithm": config.algorithm.name,
    }


def read_weights(path: str | os.PathLike) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Read {"params": ..., "batch_stats": ...} and what is written beside them.

    Raises:
      SemanticFLError: if the file is damaged or was not written by `export`.
    """
    return weight_files.read(path, _FORMAT, "Result.export")


def load_model(path: str | os.PathLike, model: nn.Module | None = None) -> TrainedModel:
    """Load a model that `Result.export` wrote, or that lies in a run's directory.

    Args:
      path: the .safetensors file, or the directory of a finished run.
      model: the Flax module, if it was given as one and is not known by name.

    Raises:
      SemanticFLError: for a damaged file, a module that is needed and not given or that other
        weights belong to, or a task that is not registered.
    """
    path = local_path(path, "path")
    weights, about = read_weights(path / "model.safetensors" if path.is_dir() else path)
    kinds = {
        "architecture": dict,
        "class_names": list,
        "image_shape": list,
        "mean": list,
        "std": list,
    }
    wrong = [name for name, kind in kinds.items() if not isinstance(about.get(name), kind)]
    if about.get(_DTYPE, "uint8") not in {dtype.name for dtype in KEPT}:
        wrong.append(_DTYPE)
    if wrong:
        raise SemanticFLError(f"{path} is damaged: it does not say its {', '.join(wrong)}")
    architecture = about["architecture"]
    config = from_dict(
        ExperimentConfig,
        {
            "model": architecture.get("model", {}),
            "precision": architecture.get("precision"),
            # Files of earlier versions do not say.
            "task": about.get("task", "classification"),
            "task_settings": about.get("task_settings"),
        },
    )
    labels = len(about["class_names"])
    task = make_task(config, labels)
    if model is not None:
        network = Network(model)
    elif "module" not in architecture:
        network = make_model(config, task.outputs(labels), tuple(about["image_shape"]))
    else:
        raise SemanticFLError(
            f"{path} holds the weights of {architecture['module']}, a module of your own: give it "
            "as load_model(path, model=...)"
        )
    image = jnp.zeros((1, *about["image_shape"]))
    wanted = jax.eval_shape(lambda: network.init(jax.random.key(0), image, train=False))
    for kind, tree in weights.items():
        weight_files.require_fit(wanted.get(kind, {}), tree, kind, str(path))
    weights = jax.tree.map(jnp.asarray, weights)
    return TrainedModel(network, weights["params"], weights["batch_stats"], about, task)
