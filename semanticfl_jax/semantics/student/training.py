"""The student's training: from augmented images to their targets, or to their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from semanticfl_jax.config import StudentConfig
from semanticfl_jax.data.augment import augment, normalize
from semanticfl_jax.models import Network
from semanticfl_jax.pretraining import loop
from semanticfl_jax.pretraining.images import Batches
from semanticfl_jax.types import PyTree

_WEIGHT_DECAY, _WARMUP = 0.01, 200
_CHECKPOINT_EVERY, _LOG_EVERY = 500, 50


class Training(NamedTuple):
    """A student's training, nothing of which has been computed.

    Attributes:
      init: key -> state, {"params": ..., "batch_stats": ..., "optimizer": ...}.
      step: (state, batch, key) -> (state, {"loss": scalar}), pure; the batch has `images`, uint8
        [B, H, W, 3], and `targets`, float32 [B, dim] or labels int32 [B].
    """

    init: Callable[[jax.Array], PyTree]
    step: Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, dict[str, jax.Array]]]


def train(
    network: Network,
    images: np.ndarray,
    targets: np.ndarray,
    config: StudentConfig,
    *,
    augmentation: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    workdir: Path,
) -> dict[str, PyTree]:
    """Train a student; resume an interrupted training in the same directory.

    Batches are spread over the devices; their normalisation statistics are of the whole batch, so
    that the number of devices does not matter.

    Args:
      network: with as many outputs as targets, or classes.
      images: uint8 [n, H, W, 3].
      targets: float32 [n, dim]: the loss is the mean squared distance; or int32 [n], labels:
        cross-entropy.
      config: steps, batch size, learning rate, seed.
      augmentation: the clients'.
      mean: of each channel, the clients'.
      std: likewise.
      workdir: for checkpoints and the curve, `student.csv`.

    Returns:
      {"params": ..., "batch_stats": ...}, float32, on the host.
    """
    batch_size = min(config.batch_size, len(images))
    init, step = make_training(network, config, images.shape[1:], augmentation, mean, std)
    batches = Batches(len(images), batch_size, config.seed)

    def batch_of(step: int) -> dict[str, np.ndarray]:
        rows = batches(step)
        return {"images": images[rows], "targets": targets[rows]}

    workdir.mkdir(parents=True, exist_ok=True)
    state, _ = loop.train(
        workdir,
        "student",
        init(jax.random.key(config.seed)),
        step,
        batch_of,
        config.steps,
        config.seed,
        batch_size,
        _CHECKPOINT_EVERY,
        _LOG_EVERY,
    )
    return jax.device_get({name: state[name] for name in ("params", "batch_stats")})


def make_training(
    network: Network,
    config: StudentConfig,
    image_shape: tuple[int, ...],
    augmentation: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
) -> Training:
    """Return the training of a student; arguments as of `train`."""
    optimizer = loop.adamw(config.learning_rate, config.steps, _WARMUP, _WEIGHT_DECAY)

    def init(key: jax.Array) -> PyTree:
        variables = network.init(key, jnp.zeros((1, *image_shape)))
        params, statistics = variables["params"], variables.get("batch_stats", {})
        return {"params": params, "batch_stats": statistics, "optimizer": optimizer.init(params)}

    def loss_of(params, statistics, batch, key):
        key_augment, key_dropout = jax.random.split(key)
        pixels = normalize(augment(key_augment, batch["images"], augmentation), mean, std)
        outputs, updates = network.apply(
            {"params": params, "batch_stats": statistics},
            pixels,
            train=True,
            rngs={"dropout": key_dropout},
            mutable=["batch_stats"],
        )
        if batch["targets"].ndim == 1:
            losses = optax.softmax_cross_entropy_with_integer_labels(
                outputs.logits, batch["targets"]
            )
        else:
            losses = jnp.square(outputs.logits - batch["targets"])
        return jnp.mean(losses), updates.get("batch_stats", {})

    def step(state: Any, batch: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        gradient_of = jax.value_and_grad(loss_of, has_aux=True)
        (loss, statistics), gradient = gradient_of(
            state["params"], state["batch_stats"], batch, key
        )
        updates, optimizer_state = optimizer.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        state = {"params": params, "batch_stats": statistics, "optimizer": optimizer_state}
        return state, {"loss": loss}

    return Training(init, step)
