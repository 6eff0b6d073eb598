"""From a configuration to compiled programs: data and model on the devices, and the round."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from semanticfl_jax.algorithms import ALGORITHMS, Algorithm, guidance_term
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.federated import Batch, FederatedDataset, federate, pad_batches
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.models import create_model
from semanticfl_jax.models.client_conv import choose_lowering
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.simulation.evaluate import make_evaluation
from semanticfl_jax.simulation.local_training import make_local_training
from semanticfl_jax.simulation.mesh import describe, replicated, split
from semanticfl_jax.simulation.round import ServerState, init_server, make_round

PyTree = Any

# The stream of randomness that initial parameters come from; rounds use others (round.py).
_INIT = 2

# One client at a time on CPU, where a loop over clients beat vmap at every size that was measured;
# accelerators have not been measured yet and get as many as fit comfortably.
_CLIENTS_PER_CHUNK = {"cpu": 1}
_CLIENTS_PER_CHUNK_ELSEWHERE = 16


@dataclasses.dataclass(frozen=True)
class Simulation:
    """Everything that a run's rounds need, on the devices, and its compiled programs.

    Attributes:
      state: the server before round 1.
      data: the clients' images.
      shared: arrays that clients receive once, `Algorithm.sent_once`.
      test: test batches.
      key: the run's random key.
      run_round: (state, data, shared, key) -> (state, metrics); donates `state`.
      evaluate: (params, batch_stats, test) -> accuracy and loss.
      model_bytes: bytes of one model sent in one direction, batch statistics included.
      shared_bytes: bytes sent to every client at its first contact.
      sample_bytes: bytes sent besides for each of its samples.
      compile_seconds: time spent compiling both programs.
      device: how many devices of what kind.
      description: the choices that were made, a line each.
    """

    state: ServerState
    data: FederatedDataset
    shared: PyTree
    test: Batch
    key: jax.Array
    run_round: Callable[..., Any]
    evaluate: Callable[..., Any]
    model_bytes: int
    shared_bytes: int
    sample_bytes: int
    compile_seconds: float
    device: str
    description: tuple[str, ...]


def prepare(
    dataset: ImageDataset,
    partition: Partition,
    anchors: Anchors | None,
    config: ExperimentConfig,
    mesh: Mesh,
) -> Simulation:
    """Puts data and model on the devices and compiles the round and the evaluation."""
    model = client_model(config, dataset.num_classes)
    algorithm = ALGORITHMS[config.algorithm.name](config.algorithm)
    if anchors is not None:
        term = guidance_term(anchors, config.guidance, model.feature_dim)
        algorithm = algorithm.with_term(term) if term else algorithm
    shared = jax.device_put(algorithm.sent_once, replicated(mesh))
    data = federate(
        dataset.train_images,
        dataset.train_labels,
        partition,
        dataset.num_classes,
        sharding=replicated(mesh),
    )
    test = pad_batches(
        dataset.test_images, dataset.test_labels, config.eval_batch_size, mesh.devices.size
    )
    test = jax.device_put(test, split(mesh))
    key = jax.device_put(jax.random.key(config.seed), replicated(mesh))
    params, batch_stats = init_params(model, algorithm, data.images.shape[1:], key)
    state = init_server(params, batch_stats, algorithm, config.num_clients)
    state = jax.device_put(state, replicated(mesh))

    chunk = config.clients_per_chunk
    if chunk == "auto":
        chunk = _CLIENTS_PER_CHUNK.get(jax.default_backend(), _CLIENTS_PER_CHUNK_ELSEWHERE)
    local_training = make_local_training(model, algorithm.terms, config, dataset.mean, dataset.std)
    run_round = make_round(
        local_training,
        algorithm,
        mesh,
        clients_per_round=config.clients_per_round,
        clients_per_chunk=chunk,
        batch_size=config.batch_size,
    )
    evaluate = make_evaluation(model, mesh, dataset.mean, dataset.std)
    began = time.perf_counter()
    run_round = run_round.lower(state, data, shared, key).compile()
    evaluate = evaluate.lower(state.params, state.batch_stats, test).compile()
    compile_seconds = time.perf_counter() - began
    lowering = config.model.conv
    if lowering == "auto":
        lowering = choose_lowering(vmapped=chunk > 1)
    description = (
        _describe_task(config, algorithm, params),
        f"{describe(mesh)}; convolution: "
        f"{lowering}; {chunk} client{'s' * (chunk > 1)} at a time on each device",
        f"compiled in {compile_seconds:.1f} s",
    )
    return Simulation(
        state=state,
        data=data,
        shared=shared,
        test=test,
        key=key,
        run_round=run_round,
        evaluate=evaluate,
        model_bytes=_size_in_bytes((params, batch_stats)),
        shared_bytes=_size_in_bytes([term.shared for term in algorithm.terms]),
        sample_bytes=_size_in_bytes([term.per_sample for term in algorithm.terms])
        // len(dataset.train_labels),
        compile_seconds=compile_seconds,
        device=describe(mesh),
        description=description,
    )


def client_model(config: ExperimentConfig, num_classes: int) -> nn.Module:
    """The network that the clients train."""
    return create_model(
        config.model.name,
        num_classes,
        width=config.model.width,
        norm=config.model.norm,
        lowering=config.model.conv,
    )


def init_params(
    model: nn.Module, algorithm: Algorithm, image_shape: tuple[int, ...], key: jax.Array
) -> tuple[PyTree, PyTree]:
    """Initial parameters {"model": ..., term name: ...} and batch statistics, float32."""
    # The model's parameters depend on its own key alone: every algorithm starts from the same.
    model_key, term_key = jax.random.split(jax.random.fold_in(key, _INIT))
    init = jax.jit(lambda key: model.init(key, jnp.zeros((1, *image_shape)), train=False))
    variables = init(model_key)
    params = {"model": variables["params"]}
    for index, term in enumerate(algorithm.terms):
        params[term.name] = term.init(jax.random.fold_in(term_key, index))
    return params, variables.get("batch_stats", {})


def _size_in_bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _describe_task(config: ExperimentConfig, algorithm: Algorithm, params: PyTree) -> str:
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    terms = (
        " with " + " and ".join(term.name for term in algorithm.terms) if algorithm.terms else ""
    )
    return (
        f"{config.algorithm.name}{terms} on {config.dataset}: {config.clients_per_round} of "
        f"{config.num_clients} clients a round, {config.partition.scheme} partition; "
        f"{config.model.name} with {count:,} parameters"
    )
