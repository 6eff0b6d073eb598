"""How much arithmetic a training step takes, whatever computes it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models import Network, make_model
from semanticfl_jax.models.fixed import joined, trained_of
from semanticfl_jax.types import PyTree


def training_flops(
    config: ExperimentConfig,
    num_classes: int,
    image_shape: tuple[int, ...],
    rows: int | None = None,
    fixed: PyTree = None,
) -> float:
    """Return the floating-point operations of one image in training, by XLA's cost analysis.

    Counted is one step's loss and gradient: network and cross-entropy, forward and backward, at the
    configuration's batch size. Left out is what a faster simulator could do away with or what does
    not depend on the network: augmentation, optimiser, aggregation, the algorithm's own terms.

    The step is lowered by itself, because the analysis counts a loop's body once, and with native
    convolutions, because other lowerings do more work for the same values. It is JAX's CPU backend
    that counts, wherever rounds run: GPU and TPU plugins do not offer the analysis.

    Args:
      config: of the run.
      num_classes: of the data set.
      image_shape: H, W, 3, or the shape of an input that is no image.
      rows: images of a step; by default the configuration's batch size.
      fixed: the network's parameters without a gradient, or their shapes, with None for the others;
        None: all have one.

    Raises:
      SemanticFLError: if JAX_PLATFORMS leaves out the CPU.
    """
    model = make_model(config.with_runtime(conv="native"), num_classes, image_shape)

    def loss(trained, fixed, batch_stats, images, labels, key):
        outputs, updates = model.apply(
            {"params": joined(trained, fixed), "batch_stats": batch_stats},
            images,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels)
        return jnp.mean(losses), updates

    rows = config.batch_size if rows is None else rows
    shape = (rows, *image_shape)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = model.variables(image_shape)
    trained = trained_of(variables["params"], fixed)
    fixed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), fixed)
    arguments = (trained, fixed, variables.get("batch_stats", {}), images, labels, key)
    return _flops(jax.value_and_grad(loss, has_aux=True), *arguments) / rows


def forward_flops(network: Network, image_shape: tuple[int, ...], rows: int) -> float:
    """Return the floating-point operations of one image in evaluation, counted likewise.

    Args:
      network: with native convolutions.
      image_shape: H, W, 3, or the shape of an input that is no image.
      rows: images at once.

    Raises:
      SemanticFLError: if JAX_PLATFORMS leaves out the CPU.
    """

    def logits(variables, images):
        return network.apply(variables, images, train=False).logits

    images = jax.ShapeDtypeStruct((rows, *image_shape), jnp.float32)
    return _flops(logits, network.variables(image_shape), images) / rows


def _flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Return the operations of a function of shapes, lowered for the CPU."""
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise SemanticFLError(
            f"JAX_PLATFORMS must contain cpu, to count operations: {error}"
        ) from error
    with jax.default_device(cpu):
        lowered = jax.jit(function).lower(*arguments)
    costs: Any = lowered.cost_analysis()
    return costs["flops"]
