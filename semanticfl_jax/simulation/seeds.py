"""The program of several seeds: the round under `vmap` over their states, compiled once.

Images and labels are on the devices once; states, index tables and what clients receive once are
stacked. All seeds do a round at the same time, so that an accelerator which one seed leaves half
idle is filled.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from semanticfl_jax.algorithms.fixed import fixed_in
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.federated import FederatedDataset, federate
from semanticfl_jax.devices.mesh import describe, replicated
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.local_training import known_steps
from semanticfl_jax.federated.measured import RoundMetrics
from semanticfl_jax.federated.rates import make_rates
from semanticfl_jax.federated.server_state import ServerState, tested_model
from semanticfl_jax.federated.traffic import make_traffic
from semanticfl_jax.models.client_conv import choose_lowering
from semanticfl_jax.simulation.engine import Engine, may_be_nan
from semanticfl_jax.simulation.parts import Parts, describe_task
from semanticfl_jax.simulation.pipeline import FinishedRound, evaluation_due
from semanticfl_jax.simulation.prepare import Placed, Programs, make_programs, place
from semanticfl_jax.tuning.choose import Choice, default_chunk
from semanticfl_jax.types import PyTree, Say


class SeedEngine(Engine):
    """The engine of one seed, which does no rounds; its state is that seed's of the stacked ones.

    Attributes:
      take: returns this seed's state, after the last round, of the stacked ones; None before.
    """

    take: Callable[[], ServerState] | None = None
    _own: ServerState | None = None

    @property  # type: ignore[override]  # of a field, which the other has
    def state(self) -> ServerState | None:
        """The seed's state after the last round."""
        if self._own is None and self.take is not None:
            self._own = self.take()
        return self._own

    @state.setter
    def state(self, state: ServerState | None) -> None:
        self._own = state


class Seeds:
    """The common program of several runs, and their states, stacked."""

    def __init__(self, say: Say):
        self._say = say
        self._parts: list[Parts] = []
        self._placed: list[Placed] = []
        self._engines: list[SeedEngine] = []

    def add(self, parts: Parts, mesh: Mesh) -> Engine:
        """Put a run on the devices but for its images; return an engine that does no rounds."""
        self._mesh = mesh
        placed = place(parts, mesh, parts.federation.dataset.train_images)
        if not self._placed:
            self._test_images = placed.test
        self._parts.append(parts)
        self._placed.append(placed)
        tested = partial(tested_model, parts.algorithm, fixed=fixed_in(placed.shared))
        engine = SeedEngine(
            state=placed.state,
            data=placed.data,
            data_of=lambda number: placed.data,
            shared=placed.shared,
            key=placed.key,
            rates=make_rates(parts.config),
            round=0,
            run_round=None,
            run_block=None,
            longest=1,
            evaluate=may_be_nan(lambda state: self._test(tested(state), self._test_images)),
            test_clients=None,
            tested=tested,
            traffic=make_traffic(parts.algorithm, placed.state, placed.data),
            compile_seconds=0.0,
            device=describe(mesh),
            description=(describe_task(parts, placed.received.params), *placed.description),
        )
        self._engines.append(engine)
        # What is kept here must not hold what others let go: test images, and a first state.
        self._placed[-1] = placed._replace(test=self._test_images, state=None)
        return engine

    def compile(self) -> None:
        """Stack what differs between the seeds, and compile the round and the evaluation."""
        parts, mesh, count = self._parts[0], self._mesh, len(self._parts)
        data = _padded([placed.data for placed in self._placed])
        choice = _choose(parts.config, mesh, count)
        steps = {
            known_steps(each.federation.partition.sizes, each.config, each.algorithm)
            for each in self._parts
        }
        common = steps.pop() if len(steps) == 1 else None
        programs = [make_programs(each, mesh, choice, common) for each in self._parts]
        dataset = parts.federation.dataset
        whole = federate(
            dataset.train_images,
            dataset.train_labels,
            parts.federation.partition,
            dataset.num_classes,
            replicated(mesh),
        )
        data = [each.replace(images=whole.images, labels=whole.labels) for each in data]
        began = time.perf_counter()
        self._require_one_program(programs, data)
        specs = jax.tree.map(lambda x: x.sharding.spec, self._engines[0].state)
        kept = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
        stacked = jax.tree.map(lambda spec: NamedSharding(mesh, PartitionSpec(None, *spec)), specs)
        states = [engine.state for engine in self._engines]
        self._state = jax.jit(_stack, out_shardings=stacked)(*states)
        take = jax.jit(
            lambda stacked, index: jax.tree.map(lambda x: x[index], stacked), out_shardings=kept
        )
        for index, engine in enumerate(self._engines):
            engine.state = None
            engine.take = lambda index=index: take(self._state, index)
        self._data, axes = _joined(data)
        self._shared = _stack(*(placed.shared for placed in self._placed))
        self._keys = jnp.stack([placed.key for placed in self._placed])
        self._round = self._engines[0].round
        together = jax.vmap(programs[0].run_round, in_axes=(0, axes, 0, 0, None))
        together = jax.jit(together, donate_argnums=0, out_shardings=(stacked, None))
        first = self._rates()
        self._run = together.lower(
            self._state, self._data, self._shared, self._keys, first
        ).compile()
        tested = jax.eval_shape(self._engines[0].tested, states[0])
        self._test = programs[0].evaluate.lower(tested, self._test_images).compile()
        self._placed.clear()
        seconds = time.perf_counter() - began
        for engine in self._engines:
            engine.compile_seconds = seconds
        self._say(
            f"{count} seeds as one program; {describe(mesh)}; {parts.config.precision}; {choice}; "
            f"compiled in {seconds:.1f} s"
        )

    def _require_one_program(
        self, programs: Sequence[Programs], data: Sequence[FederatedDataset]
    ) -> None:
        """Raise `SemanticFLError` if a seed's round, by itself, is not that of the others.

        What an algorithm draws by the seed and builds into the round would else be the first
        seed's for all of them.
        """
        hashes = set()
        for program, engine, of, placed in zip(
            programs, self._engines, data, self._placed, strict=True
        ):
            arguments = (engine.state, of, placed.shared, placed.key, self._rates())
            text = program.run_round.lower(*arguments).as_text()
            hashes.add(hashlib.sha256(text.encode()).digest())
        if len(hashes) > 1:
            raise SemanticFLError(
                f"{self._parts[0].algorithm.name} builds something drawn by the seed into its "
                "round, which --vmap_seeds cannot share: train the seeds one after another"
            )

    def _rates(self) -> PyTree:
        engine = self._engines[0]
        number = getattr(self, "_round", engine.round)
        return jax.tree.map(lambda x: x[0], engine.rates(number, 1))

    def _advance(self) -> tuple[RoundMetrics, float]:
        """Do a round of all seeds; return what they measured, stacked, and seconds a seed."""
        began = time.perf_counter()
        arguments = (self._state, self._data, self._shared, self._keys, self._rates())
        self._state, metrics = self._run(*arguments)
        metrics = jax.block_until_ready(metrics)
        self._round += 1
        return jax.device_get(metrics), (time.perf_counter() - began) / len(self._engines)

    def rounds(
        self, total: int, asked_to_stop: Callable[[], bool]
    ) -> Iterator[list[FinishedRound]]:
        """Yield the rounds of all seeds that are left of `total`, one of each at a time."""
        config, stopping = self._parts[0].config, False
        while self._round < total and not stopping:
            metrics, seconds = self._advance()
            number, stopping = self._round, asked_to_stop()
            last = stopping or number == total
            tested = evaluation_due(config, number, total)
            saved = last or number % config.checkpoint_every == 0
            found = []
            for index, engine in enumerate(self._engines):
                engine.round, engine.state = number, None
                evaluation = None
                if tested:
                    evaluation = jax.device_get(engine.evaluate(engine.state))
                result = jax.tree.map(lambda x, index=index: x[index], metrics)
                state = engine.state if saved else None
                found.append(FinishedRound(number, result, seconds, evaluation, state))
            yield found


def _choose(config: ExperimentConfig, mesh: Mesh, count: int) -> Choice:
    """Return lowering and chunk for `count` seeds side by side; nothing is measured."""
    platform = mesh.devices.flat[0].platform
    conv, chunk = config.runtime.conv, config.runtime.clients_per_chunk
    if conv == "auto":
        conv = choose_lowering(platform, vmapped=count > 1)
    if chunk == "auto":
        chunk = max(1, default_chunk(platform) // count)
    chunk = min(chunk, -(-config.clients_per_round // mesh.devices.size))
    return Choice(conv, chunk, f"of each of {count} seeds; not measured")


def _stack(*trees: PyTree) -> PyTree:
    return jax.tree.map(lambda *several: jnp.stack(several), *trees)


def _padded(several: Sequence[FederatedDataset]) -> list[FederatedDataset]:
    """Return index tables of equal shape: what clients never point to follows their samples."""
    longest = max(len(data.indices) for data in several)
    largest = max(data.max_size for data in several)
    return [
        data.replace(
            indices=jnp.pad(data.indices, (0, longest - len(data.indices))), max_size=largest
        )
        for data in several
    ]


def _joined(several: Sequence[FederatedDataset]) -> tuple[FederatedDataset, FederatedDataset]:
    """Return the data of all seeds, images and labels once, and what is stacked, for `vmap`."""
    first, fields = several[0], ("indices", "offsets", "sizes", "label_counts")
    stacked: Mapping[str, jax.Array] = {
        name: jnp.stack([getattr(data, name) for data in several]) for name in fields
    }
    axes: Mapping[str, int | None] = dict.fromkeys(fields, 0)
    return first.replace(**stacked), first.replace(images=None, labels=None, **axes)
