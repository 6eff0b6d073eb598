"""All clients' own test images: the server's model, the clients' own, and a fine-tuned one.

    global       the server's model, as it is tested on the common test set
    personal     what a client would use itself (`ClientRule.personal`), where it has any
    fine_tuned   the server's model after some steps on the client's training images

Every client is tested, not only a cohort: a client that was never drawn has the state that it began
with. The clients of a block are spread over the devices and done chunk by chunk; of their states
only a block's are gathered at a time, from the devices or from host memory. Nothing of it is
traffic, because no client sends anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from semanticfl_jax.algorithms.base import Algorithm, Model, ServerRule
from semanticfl_jax.algorithms.fixed import whole
from semanticfl_jax.config import AlgorithmConfig, AvailabilityConfig, ExperimentConfig
from semanticfl_jax.config.overrides import unused_allowed
from semanticfl_jax.data.augment import as_network_input
from semanticfl_jax.data.federated import FederatedDataset, gather_batch
from semanticfl_jax.data.host_images import HostImages
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.devices.memory import size_in_bytes
from semanticfl_jax.devices.mesh import CLIENTS, on_each_device, replicated, split
from semanticfl_jax.devices.placement import put
from semanticfl_jax.federated.client_state import take_rows
from semanticfl_jax.federated.client_update import rule_state
from semanticfl_jax.federated.cohort import samples_of
from semanticfl_jax.federated.kept_rows import KeptRows, OwnRows
from semanticfl_jax.federated.local_step import Broadcast
from semanticfl_jax.federated.local_training import make_local_training
from semanticfl_jax.federated.server_state import ServerState, tested_model
from semanticfl_jax.randomness import Stream, client_key, round_key
from semanticfl_jax.tasks import CLASSIFICATION, Task
from semanticfl_jax.types import PyTree

GLOBAL, PERSONAL, FINE_TUNED = "global", "personal", "fine_tuned"

# Bytes of clients' states that are gathered at a time, unless a single chunk takes more.
_STATES = 64e6
# Clients of a block at most.
_LARGEST = 4096


class ClientFigures(NamedTuple):
    """What a model is worth to each of N clients, on its own test images.

    Attributes:
      headline: the task's headline, float32 [N]; NaN for a client without test images.
      loss: float32 [N].
    """

    headline: np.ndarray
    loss: np.ndarray


class TestClients(Protocol):
    """Tests all clients."""

    def __call__(self, state: ServerState) -> dict[str, ClientFigures]:
        """Return the figures of each model by its name, on the host.

        Args:
          state: after some round; it is not changed.
        """


def make_client_tests(
    network: nn.Module,
    algorithm: Algorithm,
    config: ExperimentConfig,
    mesh: Mesh,
    data: FederatedDataset,
    key: jax.Array,
    held_out: Partition,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    task: Task = CLASSIFICATION,
    clients_per_chunk: int = 1,
    kept: tuple[np.ndarray, Partition] | None = None,
    fixed: PyTree = None,
) -> TestClients:
    """Build the test of all clients, compiled at its first call.

    Args:
      network: that the clients train.
      algorithm: its client rule says what a client would use itself.
      config: of the run.
      mesh: the devices.
      data: the clients' images; their own test images are among them.
      key: the run's, for fine-tuning.
      held_out: the images that each client is tested on, indices into the same.
      mean: of each channel; () for inputs as they are.
      std: likewise.
      task: what is learned.
      clients_per_chunk: clients side by side on each device.
      kept: the images, [n, ...], and who trains on which, if they stay in host memory.
      fixed: parameters that nobody trains, on the devices; None: there are none.
    """
    test = _test_data(data, held_out)
    everywhere, spread = PartitionSpec(), PartitionSpec(CLIENTS)
    test_device = _make_test_device(network, algorithm, config, mean, std, task, clients_per_chunk)

    def test_block(state: ServerState, fixed, data, test, clients, rows, key):
        tested = tested_model(algorithm, state)
        broadcast = algorithm.server.broadcast(state.server)
        key = round_key(key, Stream.FINE_TUNING, state.round)
        models = (tested, state.model, fixed)
        sharded = on_each_device(
            test_device,
            mesh,
            in_specs=(*[everywhere] * 2, data.specs(), test.specs(), everywhere, spread, spread),
            out_specs=spread,
        )
        found = sharded(models, broadcast, data, test, key, clients, rule_state(rows))
        # Replicated, so that every process can read all of it.
        return jax.lax.with_sharding_constraint(found, replicated(mesh))

    run = jax.jit(test_block)
    take = jax.jit(take_rows, static_argnums=2)
    num_clients, rule = held_out.num_clients, algorithm.client
    personal = rule is not None and rule.personal is not None
    step = mesh.devices.size * clients_per_chunk

    def test_clients(state: ServerState) -> dict[str, ClientFigures]:
        everyone = state.clients if personal else ()  # else nobody's state is looked at
        state = state._replace(clients=())
        block = _block_size(everyone, num_clients, step)
        train_of = test_of = None
        if kept is not None:
            images, trained_on = kept
            most = block // mesh.devices.size
            test_of = HostImages(images, held_out, mesh, most).of
            if config.client_test.fine_tune_steps:
                train_of = HostImages(images, trained_on, mesh, most).of
        found = []
        for start in range(0, num_clients, block):
            ids = np.arange(start, start + block, dtype=np.int32)
            ids = np.where(ids < num_clients, ids, -1).astype(np.int32)
            rows = _rows(everyone, ids, mesh, take)
            clients = put(ids, split(mesh))
            here = data if train_of is None else train_of(data, ids)
            seen = test if test_of is None else test_of(test, ids)
            found.append(jax.device_get(run(state, fixed, here, seen, clients, rows, key)))
        joined = jax.tree.map(lambda *parts: np.concatenate(parts)[:num_clients], *found)
        return {name: ClientFigures(*figures) for name, figures in joined.items()}

    return test_clients


def _test_data(data: FederatedDataset, held_out: Partition) -> FederatedDataset:
    """Return `data` with the index table of the clients' test images; the images are shared."""
    table = (held_out.indices, held_out.offsets[:-1], held_out.sizes)
    table = tuple(x.astype(np.int32) for x in table)
    indices, offsets, sizes = put(table, data.indices.sharding)
    largest = int(held_out.sizes.max())
    return data.replace(indices=indices, offsets=offsets, sizes=sizes, max_size=max(largest, 1))


def _block_size(everyone: PyTree, num_clients: int, step: int) -> int:
    """Return how many clients are done at a time: a multiple of `step`."""
    most = min(num_clients, _LARGEST)
    one = size_in_bytes(everyone) / num_clients
    if isinstance(everyone, OwnRows):
        one = everyone.row_bytes
    if one:
        most = min(most, int(_STATES / one))
    return step * max(1, -(-most // step))


def _rows(everyone: PyTree, ids: np.ndarray, mesh: Mesh, take: Callable[..., PyTree]) -> PyTree:
    """Return the states of clients `ids`, spread over the devices; any in empty places."""
    leaves = jax.tree.leaves(everyone)
    if isinstance(everyone, OwnRows) or (leaves and isinstance(leaves[0], np.ndarray)):
        return KeptRows(mesh).take(everyone, ids)
    if not leaves:
        return everyone
    return take(everyone, put(ids, replicated(mesh)), mesh)


def _make_test_device(
    network: nn.Module,
    algorithm: Algorithm,
    config: ExperimentConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    task: Task,
    chunk: int,
) -> Callable[..., dict[str, ClientFigures]]:
    """Build what each device does with its clients of a block, inside `jax.shard_map`."""
    rule = algorithm.client
    tune = _make_fine_tuning(network, config, mean, std, task)

    def totals_of(model: Model, test: FederatedDataset, client: jax.Array) -> PyTree:
        rows = min(config.runtime.eval_batch_size, test.max_size)
        order = jnp.arange(test.max_size, dtype=jnp.int32)
        size = samples_of(client, test.sizes)

        def of_batch(index: jax.Array) -> PyTree:
            batch = gather_batch(test, client, order, index, rows)
            images = as_network_input(batch.images, mean, std)
            outputs = network.apply(model.variables, images, train=False)
            return task.totals(outputs.logits, batch.labels, batch.mask & (client >= 0))

        def add(index: jax.Array, totals: PyTree) -> PyTree:
            return jax.tree.map(jnp.add, totals, of_batch(index))

        shapes = jax.eval_shape(of_batch, 0)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.fori_loop(0, -(-size // rows), add, zeros)

    def figures_of(model: Model, test: FederatedDataset, client: jax.Array) -> ClientFigures:
        figures = task.checked_figures(totals_of(model, test, client))
        some = (client >= 0) & (test.sizes[client] > 0)
        found = (figures[task.headline], figures["test_loss"])
        return ClientFigures(*(jnp.where(some, x, jnp.nan) for x in found))

    def test_device(models, broadcast, data, test, key, clients, rows):
        tested, received, fixed = models

        def of_client(place):
            client, state = place
            used = {GLOBAL: tested}
            if rule is not None and rule.personal is not None:
                used[PERSONAL] = rule.personal(state, received, broadcast)
            if config.client_test.fine_tune_steps:
                own_key = client_key(key, client)
                used[FINE_TUNED] = tune(tested, fixed, data, client, own_key)
            return {
                name: figures_of(whole(model, fixed), test, client) for name, model in used.items()
            }

        together = None if chunk == 1 else chunk
        return jax.lax.map(of_client, (clients, rows), batch_size=together)

    return test_device


def _make_fine_tuning(
    network: nn.Module,
    config: ExperimentConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    task: Task,
) -> Callable[[Model, PyTree, FederatedDataset, jax.Array, jax.Array], Model] | None:
    """Build (model, fixed, data, client, key) -> the model after some steps of plain training.

    Of the task's loss alone, with the clients' optimiser at the rate `learning_rate`, which no
    schedule lowers. None without such steps.
    """
    steps = config.client_test.fine_tune_steps
    if not steps:
        return None
    with unused_allowed():  # what another algorithm made of guidance, FedAvg does not
        config = dataclasses.replace(
            config,
            local_epochs=steps,  # more than enough
            availability=AvailabilityConfig(),
            optimizer=dataclasses.replace(config.optimizer, epoch_decay=1.0),
            algorithm=AlgorithmConfig(),
        )
    plain = Algorithm("fine-tuning", ServerRule(update=lambda state, params, _: (params, state)))
    training = make_local_training(network, plain, config, mean, std, task)

    def tune(
        model: Model, fixed: PyTree, data: FederatedDataset, client: jax.Array, key: jax.Array
    ) -> Model:
        shared = dataclasses.replace(plain, fixed=fixed).sent_once
        broadcast = Broadcast((), jnp.float32(config.learning_rate))
        plan = training.plan(broadcast, data, client, (), key)
        plan = plan._replace(steps=jnp.minimum(plan.steps, steps))
        progress = training.start(model, broadcast, shared, data, plan)
        progress = training.advance(model, broadcast, shared, data, plan, progress, plan.steps)
        return training.finish(plan, progress).model

    return tune
