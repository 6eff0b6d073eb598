"""From a configuration to compiled programs: data and model on the devices, and the round."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from semanticfl_jax.algorithms import Algorithm, complete, make_algorithm
from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.algorithms.student import starts_from
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.data.federated import Batch, FederatedDataset, federate, pad_batches
from semanticfl_jax.data.federation import Federation
from semanticfl_jax.data.sources.labels import FORMS
from semanticfl_jax.devices.compilation_cache import found_in_cache
from semanticfl_jax.devices.memory import size_in_bytes
from semanticfl_jax.devices.mesh import describe, replicated, split
from semanticfl_jax.devices.placement import put
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.arrivals import simulate
from semanticfl_jax.federated.client_state import RunRound, init_clients, join_clients
from semanticfl_jax.federated.client_tests import TestClients, make_client_tests
from semanticfl_jax.federated.client_update import extra_shapes, refuse_extra
from semanticfl_jax.federated.cohort import cohort_places
from semanticfl_jax.federated.dispatch import in_blocks, longest_block, single
from semanticfl_jax.federated.evaluation import Evaluate, make_evaluation, with_trigger
from semanticfl_jax.federated.first_contact import with_own_rows
from semanticfl_jax.federated.initial import init_params
from semanticfl_jax.federated.local_training import known_steps, make_local_training
from semanticfl_jax.federated.measured import RoundMetrics
from semanticfl_jax.federated.memory import (
    check_client_memory,
    check_image_memory,
    check_update_memory,
)
from semanticfl_jax.federated.prefetch import DataOf, rounds_data
from semanticfl_jax.federated.rates import Rates, make_rates
from semanticfl_jax.federated.round import DrawCohort, make_round
from semanticfl_jax.federated.server_state import ServerState, init_server
from semanticfl_jax.federated.traffic import Traffic, make_traffic
from semanticfl_jax.federated.uploads import travelling
from semanticfl_jax.models import Network, make_model
from semanticfl_jax.privacy.accounting import Ledger, make_ledger
from semanticfl_jax.randomness import run_key
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.semantics.student import Student
from semanticfl_jax.simulation.initial_weights import replace_weights
from semanticfl_jax.tasks import Task, make_task
from semanticfl_jax.tuning import choose
from semanticfl_jax.tuning.choose import Choice
from semanticfl_jax.tuning.timing import Workload
from semanticfl_jax.types import PyTree, Say


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """What a run trains, and how: everything but the devices.

    Attributes:
      config: of the run.
      federation: its data set, in the hands of server and clients.
      network: what the clients train.
      algorithm: with its weights, its guidance and its terms.
      task: what is learned of the images.
      ledger: what the rounds cost in privacy; None without a mechanism.
      module: the Flax module that was given in place of `config.model`; None: none was.
      init: weights to start from, {"params": ..., "batch_stats": ...}; None: drawn by the seed.
      student: of a run that has one; the network may start from it.
    """

    config: ExperimentConfig
    federation: Federation
    network: Network
    algorithm: Algorithm
    task: Task
    ledger: Ledger | None = None
    module: nn.Module | None = None
    init: Mapping[str, PyTree] | None = None
    student: Student | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """H, W, 3."""
        return self.federation.dataset.train_images.shape[1:]

    @functools.cached_property
    def starts_from_student(self) -> bool:
        """Whether the network's weights are the student's at first, its output layer apart."""
        if self.student is None:
            return False
        variables = self.network.variables(self.image_shape)
        return starts_from(self.student, self.config.guidance.student, variables)

    def init_model(self, key: jax.Array) -> Model:
        """Return the initial model for the run's key."""
        drawn = init_params(self.network, self.algorithm, self.image_shape, key)
        if self.starts_from_student:
            assert self.student is not None
            of = "guidance.student.init (false starts from elsewhere): the student"
            return Model(*replace_weights(*drawn, self.student.start, of))
        return Model(*replace_weights(*drawn, self.init))


def make_network(
    config: ExperimentConfig, federation: Federation, module: nn.Module | None = None
) -> Network:
    """Return the network that the clients train: `module`, or what the configuration names."""
    if module is not None:
        return Network(module)
    dataset = federation.dataset
    outputs = task_of(config, federation).outputs(dataset.num_classes)
    return make_model(config, outputs, dataset.train_images.shape[1:])


def task_of(config: ExperimentConfig, federation: Federation) -> Task:
    """Return the task that the configuration names, for this data set."""
    return make_task(config, federation.dataset.num_classes, federation.dataset.test_labels)


def make_parts(
    config: ExperimentConfig,
    federation: Federation,
    anchors: Anchors | None = None,
    *,
    student: Student | None = None,
    module: nn.Module | None = None,
    algorithm: Algorithm | None = None,
    init: Mapping[str, PyTree] | None = None,
) -> Parts:
    """Put together what a run trains.

    Args:
      config: of the run.
      federation: its data.
      anchors: of a run that uses them.
      student: of a run that has one.
      module: a Flax module in place of `config.model`.
      algorithm: an algorithm in place of `config.algorithm`; guidance is added to it all the same.
      init: weights to start from.

    Raises:
      SemanticFLError: if the algorithm needs what the model does not return, or anchors that do not
        fit the model.
    """
    network = make_network(config, federation, module)
    image_shape = federation.dataset.train_images.shape[1:]
    outputs = network.outputs(image_shape)
    classes, task = federation.dataset.num_classes, task_of(config, federation)
    logits = task.outputs(classes)
    if outputs.logits.shape != (1, logits):
        word = FORMS[federation.dataset.labels][1]
        what = f"one for each {word}" if logits == classes else f"for {classes} {word}s an image"
        raise SemanticFLError(
            f"{network.name} must return logits [B, {logits}], {what} of "
            f"{federation.dataset.name}, got [B, {', '.join(map(str, outputs.logits.shape[1:]))}]"
        )
    variables = network.variables(image_shape)
    context = AlgorithmContext(
        config, classes, outputs, anchors, federation.holders, student, variables
    )
    algorithm = make_algorithm(context) if algorithm is None else complete(algorithm, context)
    if algorithm.sends_label_counts and not federation.dataset.has_classes:
        raise SemanticFLError(
            f"{algorithm.name} needs one class an image, and task is {config.task}: its weights go "
            "by how many images of each class a client has"
        )
    for term in algorithm.terms:
        for need in term.needs:
            if getattr(outputs, need) is None or len(getattr(outputs, need)) == 0:
                raise SemanticFLError(
                    f"{term.name} needs the model's {need}, which {network.name} does not return; "
                    f"let it return semanticfl_jax.Outputs(logits, features, levels)"
                )
    ledger = make_ledger(config)
    parts = Parts(config, federation, network, algorithm, task, ledger, module, init, student)
    _check_uploads(parts)
    return parts


def _check_uploads(parts: Parts) -> None:
    """Raise `SemanticFLError` for what clients send and transforms or noise would not cover."""
    config, algorithm = parts.config, parts.algorithm
    shapes = jax.eval_shape(parts.init_model, run_key(config.seed))
    refuse_extra(algorithm, extra_shapes(algorithm, shapes))
    if config.runtime.data_memory == "host" and algorithm.aggregator.needs_root:
        raise SemanticFLError(
            f"runtime.data_memory must be device with {algorithm.aggregator.name}, which trains "
            "on the server's images in every round: host sends those of clients alone"
        )
    statistics = jax.tree.leaves(travelling(algorithm, shapes).batch_stats)
    if config.privacy.enabled and statistics:
        raise SemanticFLError(
            f"{parts.network.name} keeps running statistics, which privacy.name="
            f"{config.privacy.name} does not go with: they would take most of the clipping norm, "
            "and noise would make some variances negative; use group normalisation"
        )


@dataclasses.dataclass
class Engine:
    """Everything that a run's rounds need, on the devices, and its compiled programs.

    Attributes:
      state: the server, after as many rounds as were dispatched; the next one takes its memory.
      data: the index table of the clients, with their images if these stay on the devices.
      data_of: what each round takes.
      shared: what clients have from their first contact on: `Algorithm.sent_once`, and the rows
        that they compute themselves (`first_contact`).
      key: the run's random key.
      rates: (rounds done, count) -> the learning rates of the next ones.
      round: rounds dispatched.
      run_round: (state, data, shared, key, rates) -> (state, metrics); donates `state`.
      run_block: (state, data, shared, key, rates, count) -> (state, stacked metrics), see
        `dispatch`; None where rounds are dispatched one by one.
      longest: rounds of a block at most.
      evaluate: state -> the task's figures of the test set.
      test_clients: state -> figures on every client's own test images; None without any.
      tested: state -> the model that is tested, which is also what a run results in.
      traffic: how much clients and server send each other.
      compile_seconds: time spent compiling both programs.
      device: how many devices of what kind.
      description: the choices that were made, a line each.
    """

    state: ServerState
    data: FederatedDataset
    data_of: DataOf
    shared: PyTree
    key: jax.Array
    rates: Callable[[int, int], Rates]
    round: int
    run_round: Callable[..., Any]
    run_block: Callable[..., Any] | None
    longest: int
    evaluate: Callable[[ServerState], dict[str, jax.Array]]
    test_clients: TestClients | None
    tested: Callable[[ServerState], Model]
    traffic: Traffic
    compile_seconds: float
    device: str
    description: tuple[str, ...]

    def advance(self, count: int) -> RoundMetrics:
        """Dispatch `count` rounds, together if they can be.

        Returns:
          Their metrics, stacked where rounds are dispatched in blocks.
        """
        arguments = (self.state, self.data_of(self.round), self.shared, self.key)
        rates = self.rates(self.round, self.longest)
        if self.run_block is None:
            rates = jax.tree.map(lambda x: x[0], rates)
            self.state, metrics = self.run_round(*arguments, rates)
        else:
            self.state, metrics = self.run_block(*arguments, rates, np.int32(count))
        self.round += count
        return metrics


class Programs(NamedTuple):
    """What a run compiles.

    Attributes:
      cohort: (number, sizes, key) -> the ids of its clients by place.
      run_round: (state, data, shared, key, rates) -> (state, metrics), jitted; donates `state`.
      evaluate: (params, batch_stats, batches) -> the task's figures, jitted.
      tested: state -> the model that is tested.
    """

    cohort: DrawCohort
    run_round: RunRound
    evaluate: Evaluate
    tested: Callable[[ServerState], Model]


def make_programs(parts: Parts, mesh: Mesh, choice: Choice, steps: int | None) -> Programs:
    """Build the round and the evaluation; nothing is compiled.

    Args:
      parts: what to train.
      mesh: the devices, which need not be there.
      choice: lowering of the convolutions, and clients side by side.
      steps: of every client, where they are known (`known_steps`).
    """
    config, algorithm, dataset = parts.config, parts.algorithm, parts.federation.dataset
    sizes = parts.federation.partition.sizes
    # Evaluation, one model on large batches, keeps the lowering that suits a model alone.
    trained = make_network(choice.applied(config), parts.federation, parts.module)
    moments = (dataset.mean, dataset.std)
    local_training = make_local_training(trained, algorithm, config, *moments, parts.task)
    parted = make_round(
        local_training,
        algorithm,
        mesh,
        clients_per_round=config.clients_per_round,
        clients_per_chunk=choice.clients_per_chunk,
        batch_size=config.batch_size,
        availability=config.availability,
        most=cohort_places(config),
        public=parts.federation.public,
        steps=steps,
        skip_diverged=config.on_divergence == "skip_client",
        arrivals=simulate(config, sizes) if config.asynchronous.enabled else None,
    )
    run_round = join_clients(parted, mesh, config.runtime.client_state_memory)
    evaluate = make_evaluation(parts.network, mesh, *moments, parts.task)

    def tested(state: ServerState) -> Model:
        return algorithm.server.evaluated(state.server, state.model)

    return Programs(parted.cohort, run_round, evaluate, tested)


class Placed(NamedTuple):
    """What a run has on the devices before anything is compiled.

    Attributes:
      data: the clients' index table, with their images if these stay there.
      shared: what clients have from their first contact on.
      test: the test images.
      stamped: those with an attack's trigger; None without any.
      received: the initial model, as drawn.
      state: of the server, with the clients'.
      key: the run's.
      description: lines about what was computed.
    """

    data: FederatedDataset
    shared: PyTree
    test: Batch
    stamped: Batch | None
    received: Model
    state: ServerState
    key: jax.Array
    description: list[str]


def place(
    parts: Parts, mesh: Mesh, kept_images: np.ndarray | None, states: Path | None = None
) -> Placed:
    """Put data and model on the devices.

    Args:
      parts: what to train.
      mesh: the devices.
      kept_images: the training images, if they do not go there now; None: they do.
      states: folder of clients' states on a disk; None: a temporary one.
    """
    config, algorithm, dataset = parts.config, parts.algorithm, parts.federation.dataset
    everywhere = replicated(mesh)
    data = federate(
        dataset.train_images,
        dataset.train_labels,
        parts.federation.partition,
        dataset.num_classes,
        sharding=everywhere,
        with_images=kept_images is None,
    )
    sent = put(algorithm.sent_once, everywhere)
    began = time.perf_counter()
    shared = jax.block_until_ready(with_own_rows(algorithm, sent, data, mesh, kept_images))
    own_rows = _describe_own_rows(sent, shared, time.perf_counter() - began)
    key = run_key(config.seed)
    received = parts.init_model(key)
    state = init_server(*received, algorithm, config.num_clients, config.asynchronous.versions)
    state, key = put((state, key), everywhere)
    clients = init_clients(
        algorithm,
        state.model,
        config.num_clients,
        mesh,
        config.runtime.client_state_memory,
        states,
    )
    state = state._replace(clients=clients)
    return Placed(data, shared, *_test_images(parts, mesh), received, state, key, own_rows)


def prepare(
    parts: Parts,
    mesh: Mesh,
    *,
    kept: Path | None = None,
    states: Path | None = None,
    say: Say = print,
) -> Engine:
    """Put data and model on the devices and compile the round and the evaluation.

    Args:
      parts: what to train.
      mesh: the devices.
      kept: file of the run with the choice of lowering and chunk; None: no run.
      states: folder of clients' states on a disk; None: a temporary one.
      say: takes lines for the user, should that choice take a measurement.
    """
    config, images = parts.config, parts.federation.dataset.train_images
    partition = parts.federation.partition
    kept_images = images if config.runtime.data_memory == "host" else None
    placed = place(parts, mesh, kept_images, states)
    data, shared, test, stamped, received, state, key, own_rows = placed

    choice = choose.choose(workload(parts, received), mesh, kept, say)
    draw, run_round, evaluate, tested = make_programs(
        parts, mesh, choice, known_steps(partition.sizes, config)
    )
    data_of, shapes, about_data = rounds_data(
        data, images, partition, mesh, draw, key, cohort_places(config)
    )

    began, found = time.perf_counter(), found_in_cache()
    longest, run_block, rates = longest_block(config), None, make_rates(config)
    if longest > 1:
        run_block = in_blocks(run_round, longest)
        arguments = (state, shapes, shared, key, rates(0, longest), np.int32(1))
        run_block = run_block.lower(*arguments).compile()
        run_round = single(run_block, longest)
    else:
        first = jax.tree.map(lambda x: x[0], rates(0, 1))
        run_round = run_round.lower(state, shapes, shared, key, first).compile()
    evaluate = evaluate.lower(*tested(state), test).compile()

    compile_seconds, found = time.perf_counter() - began, found_in_cache() - found
    before = f" (programs that were compiled before: {found})" if found else ""
    description = (
        describe_task(parts, received.params),
        *own_rows,
        *about_data,
        f"{describe(mesh)}; {config.precision}; {choice}",
        f"compiled in {compile_seconds:.1f} s{before}",
    )
    return Engine(
        state=state,
        data=data,
        data_of=data_of,
        shared=shared,
        key=key,
        rates=rates,
        round=0,
        run_round=run_round,
        run_block=run_block,
        longest=longest,
        evaluate=lambda state: _figures(evaluate, tested(state), test, stamped),
        test_clients=_client_tests(parts, choice, mesh, data, key),
        tested=tested,
        traffic=make_traffic(parts.algorithm, state, data),
        compile_seconds=compile_seconds,
        device=describe(mesh),
        description=description,
    )


def _test_images(parts: Parts, mesh: Mesh) -> tuple[Batch, Batch | None]:
    """Return the test images on the devices, and with the trigger of an attack that has one."""
    dataset, rows = parts.federation.dataset, parts.config.runtime.eval_batch_size
    test = pad_batches(dataset.test_images, dataset.test_labels, rows, mesh.devices.size)
    return put((test, with_trigger(parts.algorithm.attack, test)), split(mesh))


def _figures(
    evaluate: Callable[..., dict[str, jax.Array]], model: Model, test: Batch, stamped: Batch | None
) -> dict[str, jax.Array]:
    """Return the figures of the test set, and a backdoor's success on the `stamped` one."""
    figures = evaluate(*model, test)
    if stamped is not None:
        figures["attack_success"] = evaluate(*model, stamped)["test_accuracy"]
    return figures


def _client_tests(
    parts: Parts, choice: Choice, mesh: Mesh, data: FederatedDataset, key: jax.Array
) -> TestClients | None:
    """Build the test of all clients on their own images; None where they keep none for it.

    It is compiled when it is first due.
    """
    if parts.federation.client_test is None:
        return None
    dataset, kept = parts.federation.dataset, None
    if parts.config.runtime.data_memory == "host":
        kept = (dataset.train_images, parts.federation.partition)
    return make_client_tests(
        make_network(choice.applied(parts.config), parts.federation, parts.module),
        parts.algorithm,
        parts.config,
        mesh,
        data,
        key,
        parts.federation.client_test,
        dataset.mean,
        dataset.std,
        parts.task,
        choice.clients_per_chunk,
        kept,
    )


def check_memory(parts: Parts, mesh: Mesh) -> list[str]:
    """Return a line each on what clients' states and single updates will take, if there are any.

    Raises:
      SemanticFLError: if they cannot fit.
    """
    config, algorithm = parts.config, parts.algorithm
    shapes = jax.eval_shape(parts.init_model, run_key(config.seed))
    if config.runtime.data_memory == "device":
        check_image_memory(parts.federation.dataset.train_images, mesh)
    states = check_client_memory(
        algorithm, shapes, config.num_clients, mesh, config.runtime.client_state_memory
    )
    if states and config.runtime.client_state_memory != "disk":
        every = config.checkpoint_every
        states += (
            f"; checkpoints include all client states; with many clients, raise checkpoint_every "
            f"({every})"
        )
    updates = check_update_memory(algorithm, shapes, cohort_places(config), mesh)
    return [line for line in (states, updates) if line]


def workload(parts: Parts, received: Model) -> Workload:
    """Return what the clients compute, to be timed; `received` is the initial model."""
    dataset = parts.federation.dataset
    return Workload(
        parts.config,
        parts.algorithm,
        received,
        parts.image_shape,
        parts.task.outputs(dataset.num_classes),
        parts.federation.partition.sizes,
        dataset.mean,
        dataset.std,
        parts.module,
        parts.task,
        None if dataset.has_classes else dataset.train_labels[:1],
    )


def _describe_own_rows(sent: PyTree, shared: PyTree, seconds: float) -> list[str]:
    """Return a line on what clients compute at their first contact, if they compute anything."""
    size = size_in_bytes(shared) - size_in_bytes(sent)
    if not size:
        return []
    return [
        f"first contact: what clients compute of their images took {seconds:.1f} s for all, "
        f"and takes {size / 1e6:.1f} MB on each device"
    ]


def describe_task(parts: Parts, params: PyTree) -> str:
    """Return a line on what is trained on what; `params` are the initial ones."""
    config, algorithm = parts.config, parts.algorithm
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    names = [term.name for term in algorithm.terms if term.name != algorithm.name]
    terms = f" with {' and '.join(names)}" if names else ""
    partition = config.partition.file or config.partition.scheme
    partition = "given" if parts.federation.given else partition
    model = config.model.name if parts.module is None else parts.network.name
    return (
        f"{algorithm.name}{terms} on {parts.federation.dataset.name}: {config.clients_per_round} "
        f"of {config.num_clients} clients a round, {partition} partition; "
        f"{model} with {count:,} parameters"
    )
