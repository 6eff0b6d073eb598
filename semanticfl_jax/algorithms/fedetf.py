"""FedETF: the classifier is a fixed simplex, the same for all clients.

Li, Shang, He, Lin, Wu. "No Fear of Classifier Biases: Neural Collapse Inspired Federated Learning
with Synthetic and Fixed Classifier". ICCV 2023.

    V = sqrt(K / (K - 1)) U (I_K - 1 1^T / K),   U [d, K] with orthonormal columns
    logits in training  scale <f / |f|, v_c>,    min_y  CE

The columns of V are unit vectors with the same cosine -1 / (K - 1) between any two: the equiangular
tight frame that class means collapse to. It says nothing about what classes mean, and is thereby
the natural control for semantic anchors.

Ours: V stands in the place of the network's own classifier, without bias, so that the network
classifies as ever: f / |f| and f have the same largest logit, but not the same calibration. The
authors put a trained projection before it, learn `scale`, weigh classes by the clients' counts and
fine-tune; none of that is here. V is drawn by the seed, does not move and is not sent.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.algorithms.base import (
    Algorithm,
    ClientRule,
    Finished,
    Model,
    TermInputs,
)
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.parts import classifier, in_layers, path_name, paths
from semanticfl_jax.config import FedETFConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models.losses import unit
from semanticfl_jax.randomness import HostStream, host_generator


def fedetf(settings: FedETFConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedETF; a model whose features are narrower than there are classes is refused."""
    field, layer = "algorithm.fedetf.layer", settings.layer
    layer = classifier(context, field) if layer == "classifier" else layer
    belongs = in_layers((layer,), context, field)
    shapes = {path: shape for path, shape in paths(context).items() if belongs(path)}
    width, classes = next(shape for shape in shapes.values() if len(shape) == 2)
    if context.feature_dim != width or width < classes:
        raise SemanticFLError(
            f"algorithm.name=fedetf needs a model whose features are the input of {layer} and at "
            f"least as wide as there are classes, {classes}; {layer} takes {width} numbers, and "
            f"the features have {context.feature_dim}"
        )
    rng = host_generator(context.config.seed, HostStream.SIMPLEX)
    directions = simplex(width, classes, rng)

    def fixed(model: Model) -> Model:
        def place(path: tuple, x: jax.Array) -> jax.Array:
            return _placed(x, directions) if belongs(path_name(path)) else x

        return jax.tree_util.tree_map_with_path(place, model)

    def logits(inputs: TermInputs) -> jax.Array:
        return settings.scale * unit(inputs.outputs.features) @ directions

    algorithm = fedavg(None, context)
    evaluated = algorithm.server.evaluated
    server = dataclasses.replace(
        algorithm.server, evaluated=lambda state, model: fixed(evaluated(state, model))
    )
    client = ClientRule(
        finish=lambda trained: Finished(state=()),
        start=lambda state, received, broadcast: fixed(received),
        uploads=lambda path: not belongs(path),
        trains=lambda path, moment: not belongs(path),
    )
    return dataclasses.replace(algorithm, client=client, server=server, logits=logits)


def simplex(width: int, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Return V, float32 [width, classes], in directions drawn by `rng`; width >= classes."""
    directions, _ = np.linalg.qr(rng.standard_normal((width, classes)))
    centred = np.eye(classes) - 1 / classes
    return (np.sqrt(classes / (classes - 1)) * directions @ centred).astype(np.float32)


def _placed(x: jax.Array, directions: np.ndarray) -> jax.Array:
    """Return the simplex for a matrix, and zeros for a bias."""
    return jnp.asarray(directions, x.dtype) if x.ndim == 2 else jnp.zeros_like(x)
