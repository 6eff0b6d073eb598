"""Several seeds of one run as one program: the round under `vmap`, compiled once.

Every seed keeps a directory, metrics and checkpoints of its own, as if it ran alone, and its
numbers are those of a run alone up to rounding: products of several seeds are computed side by
side. Images and labels are on the devices once; states, index tables and what clients receive once
are stacked. All seeds do a round at the same time, so that an accelerator which one seed leaves
half idle is filled.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from semanticfl_jax.config import ConfigError, ExperimentConfig, to_dict
from semanticfl_jax.data.federated import FederatedDataset, federate
from semanticfl_jax.devices.mesh import describe, replicated
from semanticfl_jax.errors import DivergedError, SemanticFLError
from semanticfl_jax.federated.local_training import known_steps
from semanticfl_jax.federated.measured import RoundMetrics
from semanticfl_jax.federated.rates import make_rates
from semanticfl_jax.federated.server_state import ServerState
from semanticfl_jax.federated.traffic import make_traffic
from semanticfl_jax.models.client_conv import choose_lowering
from semanticfl_jax.simulation.experiment import Simulation
from semanticfl_jax.simulation.interrupt import Stopped, stop_between_rounds
from semanticfl_jax.simulation.parts import Parts, describe_task
from semanticfl_jax.simulation.pipeline import FinishedRound
from semanticfl_jax.simulation.prepare import Engine, Placed, Programs, make_programs, place
from semanticfl_jax.tuning.choose import Choice, default_chunk
from semanticfl_jax.types import PyTree, Say, silent


def check_together(configs: Mapping[str, ExperimentConfig]) -> None:
    """Raise `ConfigError` for runs that cannot be one program, naming the field.

    Args:
      configs: by name, of one method.
    """
    several = [to_dict(config) | {"seed": None} for config in configs.values()]
    if any(other != several[0] for other in several[1:]):
        raise ConfigError(f"runs must differ in the seed alone: {', '.join(configs)}")
    config = next(iter(configs.values()))
    for field, value, allowed in (
        ("runtime.data_memory", config.runtime.data_memory, "device"),
        ("runtime.client_state_memory", config.runtime.client_state_memory, "device"),
        ("runtime.rounds_per_dispatch", config.runtime.rounds_per_dispatch, ("auto", 1)),
        ("client_test.share", config.client_test.share, 0),
        ("feature_skew.corruptions", config.feature_skew.corruptions, ()),
        ("attack.name", config.attack.name, "none"),
        ("privacy.name", config.privacy.name, "none"),
    ):
        if value != allowed and value not in (allowed if isinstance(allowed, tuple) else ()):
            shown = '"auto" or 1' if isinstance(allowed, tuple) and allowed else allowed or "none"
            raise ConfigError(
                f"{field} must be {shown} where seeds are one program (--vmap_seeds), got {value!r}"
            )


def run_together(
    configs: Mapping[str, ExperimentConfig],
    workdir: Path,
    *,
    overwrite: bool = False,
    say: Say | None = print,
    progress: bool = True,
    **options: Any,
) -> list[str]:
    """Train runs that differ in the seed alone as one program; finished ones are left as they are.

    Args:
      configs: by name; NAME is trained in the directory `workdir`/NAME.
      workdir: of all of them.
      overwrite: whether runs that are there are set aside.
      say: takes lines for the user; None for none.
      progress: whether to show a bar.
      **options: as of `Simulation`: dataset, model, algorithm, callbacks.

    Returns:
      The names of the runs that stopped because they diverged.

    Raises:
      SemanticFLError: for runs that cannot be one program.
      Stopped: if a signal stopped them after some round.
    """
    check_together(configs)
    seeds = Seeds(say or silent)
    members: dict[str, Member] = {}
    try:
        for name, config in configs.items():
            member = Member(
                config,
                seeds,
                workdir=workdir / name,
                overwrite=overwrite,
                say=say,
                progress=progress and not members,  # one bar for all
                **options,
            )
            if member.engine is not None:
                members[name] = member
                options.setdefault("dataset", member.federation.clean)
        return seeds.run(members) if members else []
    finally:
        for member in members.values():
            member.close()


class Member(Simulation):
    """A run whose rounds are computed together with those of other seeds."""

    def __init__(self, config: ExperimentConfig, seeds: Seeds, **options: Any):
        self._seeds = seeds
        super().__init__(config, **options)

    def _prepare(self) -> Engine:
        return self._seeds.add(self.parts, self._mesh)

    def steps(self, rounds: Iterator[FinishedRound]) -> Iterator[object]:
        """Record rounds as they come."""
        return self._take(rounds)


class SeedEngine(Engine):
    """The engine of one seed, which does no rounds; its state is cut out when it is asked for.

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
            evaluate=self._evaluate,
            test_clients=None,
            tested=lambda state: parts.algorithm.server.evaluated(state.server, state.model),
            traffic=make_traffic(parts.algorithm, placed.state, placed.data),
            compile_seconds=0.0,
            device=describe(mesh),
            description=(describe_task(parts, placed.received.params), *placed.description),
        )
        self._engines.append(engine)
        # What is kept here must not hold what others let go: test images, and a first state.
        self._placed[-1] = placed._replace(test=self._test_images, state=None)
        return engine

    def run(self, members: Mapping[str, Member]) -> list[str]:
        """Train the runs that were added to their ends; return the names of those that diverged."""
        done = {member.round for member in members.values()}
        if len(done) > 1:
            raise SemanticFLError(
                f"the runs were stopped after different rounds ({sorted(done)}): resume them one "
                "by one, without --vmap_seeds"
            )
        self._compile()
        diverged: list[str] = []
        with stop_between_rounds(self._say) as asked_to_stop:
            rounds = self._rounds(list(members.values()), asked_to_stop)
            each = iter(itertools.tee(rounds, len(members)))
            steps = {
                name: member.steps(_of_seed(next(each), index))
                for index, (name, member) in enumerate(members.items())
            }
            del each  # a run that diverges must not keep the others' rounds
            while steps:
                for name in list(steps):
                    try:
                        if next(steps[name], None) is None:
                            del steps[name]
                    except DivergedError as error:  # the others are still worth training
                        self._say(f"warning: {name} is not compared: {error}")
                        diverged.append(name)
                        del steps[name]
        left = [member for name, member in members.items() if name not in diverged]
        if any(member.round < member.rounds for member in left):
            number = left[0].round
            raise Stopped(f"stopped after round {number}; run the same command to go on")
        return diverged

    def _compile(self) -> None:
        """Stack what differs between the seeds, and compile the round and the evaluation."""
        parts, mesh, count = self._parts[0], self._mesh, len(self._parts)
        data = _padded([placed.data for placed in self._placed])
        choice = _choose(parts.config, mesh, count)
        steps = {known_steps(each.federation.partition.sizes, each.config) for each in self._parts}
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
        tested = jax.eval_shape(programs[0].tested, states[0])
        self._test = programs[0].evaluate.lower(*tested, self._test_images).compile()
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

    def _evaluate(self, state: ServerState) -> dict[str, jax.Array]:
        tested = self._engines[0].tested(state)
        return self._test(*tested, self._test_images)

    def _advance(self) -> tuple[RoundMetrics, float]:
        """Do a round of all seeds; return what they measured, stacked, and seconds a seed."""
        began = time.perf_counter()
        arguments = (self._state, self._data, self._shared, self._keys, self._rates())
        self._state, metrics = self._run(*arguments)
        metrics = jax.block_until_ready(metrics)
        self._round += 1
        return jax.device_get(metrics), (time.perf_counter() - began) / len(self._engines)

    def _rounds(
        self, members: Sequence[Member], asked_to_stop: Any
    ) -> Iterator[list[FinishedRound]]:
        """Yield the rounds of all seeds, one of each at a time."""
        config, total, stopping = self._parts[0].config, members[0].rounds, False
        while self._round < total and not stopping:
            metrics, seconds = self._advance()
            number, stopping = self._round, asked_to_stop()
            last = stopping or number == total
            tested = number == total or number % config.eval_every == 0
            saved = last or number % config.checkpoint_every == 0
            found = []
            for index, engine in enumerate(self._engines):
                engine.round, engine.state = number, None
                evaluation = None
                if tested:
                    evaluation = jax.device_get(self._evaluate(engine.state))
                result = jax.tree.map(lambda x, index=index: x[index], metrics)
                state = engine.state if saved else None
                found.append(FinishedRound(number, result, seconds, evaluation, state))
            yield found


def _of_seed(rounds: Iterator[list[FinishedRound]], index: int) -> Iterator[FinishedRound]:
    return (found[index] for found in rounds)


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
