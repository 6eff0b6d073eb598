"""From a configuration to compiled programs: data and model on the devices, and the round."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from semanticfl_jax.algorithms import Algorithm, make_algorithm
from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.federated import FederatedDataset, federate, pad_batches
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices.compilation_cache import found_in_cache
from semanticfl_jax.devices.mesh import describe, replicated, split
from semanticfl_jax.devices.placement import put
from semanticfl_jax.federated.client_state import init_clients, join_clients
from semanticfl_jax.federated.dispatch import in_blocks, longest_block, single
from semanticfl_jax.federated.evaluation import make_evaluation
from semanticfl_jax.federated.initial import client_model, init_params
from semanticfl_jax.federated.local_training import known_steps, make_local_training
from semanticfl_jax.federated.memory import check_client_memory, check_update_memory
from semanticfl_jax.federated.round import ServerState, init_server, make_round
from semanticfl_jax.federated.traffic import Traffic, make_traffic
from semanticfl_jax.randomness import run_key
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.tuning import choose
from semanticfl_jax.tuning.timing import Workload
from semanticfl_jax.types import PyTree


@dataclasses.dataclass
class Simulation:
    """Everything that a run's rounds need, on the devices, and its compiled programs.

    Attributes:
      state: the server before round 1; None once it is taken.
      data: the clients' images.
      shared: arrays that clients receive once, `Algorithm.sent_once`.
      key: the run's random key.
      run_round: (state, data, shared, key) -> (state, metrics); donates `state`.
      run_block: (state, data, shared, key, count) -> (state, stacked metrics), see `block`; None
        where rounds are dispatched one by one.
      evaluate: state -> accuracy and loss on the test set.
      traffic: how much clients and server send each other.
      compile_seconds: time spent compiling both programs.
      device: how many devices of what kind.
      description: the choices that were made, a line each.
    """

    state: ServerState | None
    data: FederatedDataset
    shared: PyTree
    key: jax.Array
    run_round: Callable[..., Any]
    run_block: Callable[..., Any] | None
    evaluate: Callable[..., Any]
    traffic: Traffic
    compile_seconds: float
    device: str
    description: tuple[str, ...]

    def take_state(self) -> ServerState:
        """The server before round 1, which is kept no longer: its memory is the rounds'."""
        state, self.state = self.state, None
        return state


def prepare(
    dataset: ImageDataset,
    partition: Partition,
    anchors: Anchors | None,
    config: ExperimentConfig,
    mesh: Mesh,
    kept: Path | None = None,
    say: Callable[[str], None] = print,
) -> Simulation:
    """Puts data and model on the devices and compiles the round and the evaluation.

    Args:
      dataset: images of clients and test set.
      partition: who holds which.
      anchors: of a guided run.
      config: what to run; what it leaves to choose is chosen here (`tuning`).
      mesh: the devices.
      kept: file of the run with that choice; None: no run.
      say: takes lines for the user, should the choice take a measurement.
    """
    model = client_model(config, dataset.num_classes)
    algorithm = make_algorithm(config, anchors, model.feature_dim)
    shared = put(algorithm.sent_once, replicated(mesh))
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
    test = put(test, split(mesh))
    key = run_key(config.seed)
    image_shape = data.images.shape[1:]
    received = Model(*init_params(model, algorithm, image_shape, key))
    state = init_server(*received, algorithm, config.num_clients)
    state, key = put((state, key), replicated(mesh))
    clients = init_clients(
        algorithm, state.model, config.num_clients, mesh, config.client_state_memory
    )
    state = state._replace(clients=clients)

    work = Workload(
        config,
        algorithm,
        received,
        image_shape,
        dataset.num_classes,
        partition.sizes,
        dataset.mean,
        dataset.std,
    )
    choice = choose.choose(work, mesh, kept, say)
    # Evaluation, one model on large batches, keeps the lowering that suits a model alone.
    trained = client_model(choice.applied(config), dataset.num_classes)
    local_training = make_local_training(trained, algorithm, config, dataset.mean, dataset.std)
    run_round = make_round(
        local_training,
        algorithm,
        mesh,
        clients_per_round=config.clients_per_round,
        clients_per_chunk=choice.clients_per_chunk,
        batch_size=config.batch_size,
        availability=config.availability,
        steps=known_steps(partition.sizes, config),
    )
    run_round = join_clients(run_round, mesh, config.client_state_memory)
    evaluate = make_evaluation(model, mesh, dataset.mean, dataset.std)

    def tested(state: ServerState) -> Model:
        return algorithm.server.evaluated(state.server, state.model)

    began, found = time.perf_counter(), found_in_cache()
    longest, run_block = longest_block(config), None
    if longest > 1:
        run_block = in_blocks(run_round, longest)
        run_block = run_block.lower(state, data, shared, key, np.int32(1)).compile()
        run_round = single(run_block)
    else:
        run_round = run_round.lower(state, data, shared, key).compile()
    evaluate = evaluate.lower(*tested(state), test).compile()
    compile_seconds, found = time.perf_counter() - began, found_in_cache() - found
    before = f" (programs that were compiled before: {found})" if found else ""
    description = (
        _describe_task(config, algorithm, received.params),
        f"{describe(mesh)}; {config.precision}; {choice}",
        f"compiled in {compile_seconds:.1f} s{before}",
    )
    return Simulation(
        state=state,
        data=data,
        shared=shared,
        key=key,
        run_round=run_round,
        run_block=run_block,
        evaluate=lambda state: evaluate(*tested(state), test),
        traffic=make_traffic(algorithm, state, data),
        compile_seconds=compile_seconds,
        device=describe(mesh),
        description=description,
    )


def check_memory(
    dataset: ImageDataset, anchors: Anchors | None, config: ExperimentConfig, mesh: Mesh
) -> str | None:
    """Return what clients' states and updates will take, before anything is made; None if nothing.

    Raises:
      ValueError: if they cannot fit, and for anchors that do not fit the model.
    """
    model = client_model(config, dataset.num_classes)
    algorithm = make_algorithm(config, anchors, model.feature_dim)
    shape = dataset.train_images.shape[1:]
    shapes = jax.eval_shape(
        lambda key: init_params(model, algorithm, shape, key), run_key(config.seed)
    )
    states = check_client_memory(
        algorithm, Model(*shapes), config.num_clients, mesh, config.client_state_memory
    )
    if states:
        states += f"; every checkpoint has them all (checkpoint_every={config.checkpoint_every})"
    updates = check_update_memory(algorithm, Model(*shapes), config.clients_per_round, mesh)
    return "\n".join(line for line in (states, updates) if line) or None


def _describe_task(config: ExperimentConfig, algorithm: Algorithm, params: PyTree) -> str:
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    names = [term.name for term in algorithm.terms if term.name != algorithm.name]
    terms = f" with {' and '.join(names)}" if names else ""
    partition = config.partition.file or config.partition.scheme
    return (
        f"{config.algorithm.name}{terms} on {config.dataset}: {config.clients_per_round} of "
        f"{config.num_clients} clients a round, {partition} partition; "
        f"{config.model.name} with {count:,} parameters"
    )
