"""From a configuration to compiled programs: data and model on the devices, and the round."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.algorithms.fixed import fixed_in
from semanticfl_jax.data.federated import Batch, FederatedDataset, federate, pad_batches
from semanticfl_jax.devices.compilation_cache import found_in_cache
from semanticfl_jax.devices.memory import size_in_bytes
from semanticfl_jax.devices.mesh import describe, replicated, split
from semanticfl_jax.devices.placement import put
from semanticfl_jax.federated.arrivals import simulate
from semanticfl_jax.federated.client_state import RunRound, init_clients, join_clients
from semanticfl_jax.federated.client_tests import TestClients, make_client_tests
from semanticfl_jax.federated.cohort import cohort_places
from semanticfl_jax.federated.dispatch import in_blocks, longest_block, single
from semanticfl_jax.federated.evaluation import (
    ATTACK_SUCCESS,
    Evaluate,
    make_evaluation,
    with_trigger,
)
from semanticfl_jax.federated.first_contact import with_own_rows
from semanticfl_jax.federated.local_training import known_steps, make_local_training
from semanticfl_jax.federated.prefetch import rounds_data
from semanticfl_jax.federated.rates import make_rates
from semanticfl_jax.federated.round import DrawCohort, make_round
from semanticfl_jax.federated.server_state import ServerState, init_server, tested_model
from semanticfl_jax.federated.traffic import make_traffic
from semanticfl_jax.randomness import run_key
from semanticfl_jax.simulation.engine import Engine, may_be_nan
from semanticfl_jax.simulation.parts import Parts, describe_task, make_network
from semanticfl_jax.simulation.rows import columns
from semanticfl_jax.tuning import choose
from semanticfl_jax.tuning.choose import Choice
from semanticfl_jax.tuning.timing import Workload
from semanticfl_jax.types import PyTree, Say


class Programs(NamedTuple):
    """What a run compiles.

    Attributes:
      cohort: (number, sizes, key) -> the ids of its clients by place.
      run_round: (state, data, shared, key, rates) -> (state, metrics), jitted; donates `state`.
      evaluate: (model, batches) -> the task's figures, jitted.
      tested: (state, shared) -> the model that is tested.
    """

    cohort: DrawCohort
    run_round: RunRound
    evaluate: Evaluate
    tested: Callable[[ServerState, PyTree], Model]


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
        config,
        choice.clients_per_chunk,
        public=parts.federation.public,
        steps=steps,
        arrivals=simulate(config, sizes) if config.asynchronous.enabled else None,
        some_empty=bool(np.any(sizes == 0)),
        columns=columns(parts),
    )
    run_round = join_clients(parted, mesh, config.runtime.client_state_memory)
    evaluate = make_evaluation(parts.network, mesh, *moments, parts.task)

    def tested(state: ServerState, shared: PyTree) -> Model:
        return tested_model(algorithm, state, fixed_in(shared))

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
      kept_images: training images that stay on the host; None if they go to the devices.
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
    state = init_server(received, algorithm, config.num_clients, config.asynchronous.versions)
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
      say: takes lines for the user, before what takes long.
    """
    config, algorithm, images = parts.config, parts.algorithm, parts.federation.dataset.train_images
    partition = parts.federation.partition
    kept_images = images if config.runtime.data_memory == "host" else None
    placed = place(parts, mesh, kept_images, states)
    data, shared, test, stamped, received, state, key, own_rows = placed

    choice = choose.choose(workload(parts, received), mesh, kept, say)
    draw, run_round, evaluate, tested_of = make_programs(
        parts, mesh, choice, known_steps(partition.sizes, config, algorithm)
    )

    def tested(state: ServerState) -> Model:
        return tested_of(state, shared)

    data_of, shapes, about_data = rounds_data(
        data, images, partition, mesh, draw, key, cohort_places(config)
    )

    say("compiling: seconds to minutes, less if it was compiled before")
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
    evaluate = evaluate.lower(tested(state), test).compile()

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
        evaluate=may_be_nan(lambda state: _figures(evaluate, tested(state), test, stamped)),
        test_clients=_client_tests(parts, choice, mesh, data, key, fixed_in(shared)),
        tested=tested,
        traffic=make_traffic(algorithm, state, data),
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
    figures = evaluate(model, test)
    if stamped is not None:
        figures[ATTACK_SUCCESS] = evaluate(model, stamped)["test_accuracy"]
    return figures


def _client_tests(
    parts: Parts,
    choice: Choice,
    mesh: Mesh,
    data: FederatedDataset,
    key: jax.Array,
    fixed: PyTree,
) -> TestClients | None:
    """Build the test of all clients on their own images; None where they keep none for it.

    It is compiled when it is first due.
    """
    if parts.federation.client_test is None:
        return None
    dataset, kept = parts.federation.dataset, None
    if parts.config.runtime.data_memory == "host":
        kept = (dataset.train_images, parts.federation.partition)
    test_clients = make_client_tests(
        make_network(choice.applied(parts.config), parts.federation, parts.module),
        parts.algorithm,
        parts.config,
        mesh,
        data=data,
        key=key,
        held_out=parts.federation.client_test,
        mean=dataset.mean,
        std=dataset.std,
        task=parts.task,
        clients_per_chunk=choice.clients_per_chunk,
        kept=kept,
        fixed=fixed,
    )
    return may_be_nan(test_clients)


def workload(parts: Parts, received: Model) -> Workload:
    """Return what the clients compute, to be timed; `received` is the initial model."""
    dataset = parts.federation.dataset
    return Workload(
        parts.config,
        parts.algorithm,
        received,
        image_shape=parts.image_shape,
        num_classes=parts.task.outputs(dataset.num_classes),
        sizes=parts.federation.partition.sizes,
        mean=dataset.mean,
        std=dataset.std,
        module=parts.module,
        task=parts.task,
        label=None if dataset.has_classes else dataset.train_labels[:1],
        image=None if dataset.has_images else dataset.train_images[:1],
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
