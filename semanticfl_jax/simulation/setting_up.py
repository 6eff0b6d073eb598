"""All that comes before anything compiles: data, anchors, student, checks, and the directory."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from semanticfl_jax.algorithms import Algorithm
from semanticfl_jax.config import ConfigError, ExperimentConfig
from semanticfl_jax.data import sources
from semanticfl_jax.data.federation import Federation, describe_merged, make_federation
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices import processes
from semanticfl_jax.devices.cpu_threads import available_cores
from semanticfl_jax.errors import MissingFileError
from semanticfl_jax.federated.uploads import travelling
from semanticfl_jax.reporting.metric import Metric
from semanticfl_jax.reporting.runs import without_addresses
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.semantics.student import Student
from semanticfl_jax.semantics.student.checks import inexact_start
from semanticfl_jax.simulation import workdir as files
from semanticfl_jax.simulation.anchors import server_anchors
from semanticfl_jax.simulation.initial_weights import (
    Weights,
    describe_drawn,
    digest,
    drawn_in_place,
    read_initial,
)
from semanticfl_jax.simulation.parts import (
    Parts,
    check_memory,
    make_network,
    make_parts,
    metric_of,
    task_of,
    where_states_are,
)
from semanticfl_jax.simulation.student import require_model_by_name, server_student
from semanticfl_jax.types import PyTree, Say


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """What a user gives of a run; attributes as of `Simulation`."""

    config: ExperimentConfig
    dataset: ImageDataset | None = None
    partition: Partition | Sequence[np.ndarray] | None = None
    model: nn.Module | None = None
    algorithm: Algorithm | None = None
    init_params: PyTree | str | os.PathLike | None = None

    def federation(self) -> Federation:
        """Read the data set, if it is not given, and divide it."""
        dataset = self.dataset or sources.from_config(self.config)
        return make_federation(dataset, self.config, self.partition)


def set_up(given: Given, mesh: Mesh, workdir: Path | None, say: Say) -> Parts:
    """Read the data, and check all that can be checked before anything compiles.

    Args:
      given: by the user.
      mesh: the devices.
      workdir: of the run, which is claimed for it; None: it has none.
      say: takes lines for the user.

    Raises:
      SemanticFLError: for what cannot be run.
    """
    config = given.config
    with processes.main_first():
        init = read_initial(given.init_params)
        federation = given.federation()
        merged = describe_merged(federation, config)
        if merged is not None:
            say(merged)
        network = make_network(config, federation, given.model)
        features = network.outputs(federation.dataset.image_shape).features
        anchors = _anchors(config, federation, features, workdir, say)
        student = _student(given, federation, init, workdir, say)
        parts = make_parts(
            config,
            federation,
            anchors,
            student=student,
            module=given.model,
            algorithm=given.algorithm,
            init=init,
        )
        if student is not None:
            does = "starts" if parts.starts_from_student else "does not start"
            say(f"the clients' network {does} from the student")
            moments = federation.dataset.mean, federation.dataset.std
            inexact = inexact_start(student, *moments) if parts.starts_from_student else None
            if inexact is not None:
                say(inexact)
        if init is not None and parts.trains is not None:
            wanted = network.variables(federation.dataset.image_shape)["params"]
            drawn = drawn_in_place(wanted, init, parts.trains)
            if drawn:
                say(describe_drawn(drawn))
        for line in check_memory(parts, mesh):
            say(line)
        if workdir is not None:
            _bind(given, parts, anchors, workdir)
    data, dealt = federation.dataset, federation.partition
    processes.require_equal(
        "images, labels and partition",
        *(data.train_images, data.train_labels, data.test_images, data.test_labels),
        *(federation.public, dealt.indices, dealt.offsets),
    )
    return parts


def check_without_diffusion(given: Given) -> Metric:
    """Check what can be checked of a run without anchors, student or compiling.

    Returns:
      The metric by which its task judges models.

    Raises:
      SemanticFLError: for what cannot be run.
    """
    config = given.config
    init = read_initial(given.init_params)
    federation = given.federation()
    if config.uses_anchors or config.guidance.uses_student:
        make_network(config, federation, given.model)
    else:
        make_parts(config, federation, module=given.model, algorithm=given.algorithm, init=init)
    return metric_of(task_of(config, federation))


def bound_to(given: Given, federation: Federation) -> dict[str, Any]:
    """Return what run.json would have of data and objects, for a run without a directory."""
    return {**_hashes(federation), **_objects(given, None)}


def require_same(given: Given, workdir: Path) -> None:
    """Raise `ConfigError` if a directory's finished run had other objects than are given now.

    What is not given is not compared: a finished run is read without its data. Of a partition alone
    the data set is read, if it is there.
    """
    bound = _objects(given, read_initial(given.init_params))
    if given.dataset is not None or given.partition is not None:
        with contextlib.suppress(MissingFileError):
            bound = {**_hashes(given.federation()), **bound}
    files.check_bound(workdir, {name: each for name, each in bound.items() if each is not None})


def advice(parts: Parts) -> list[str]:
    """Return a line each on what is not tested or not used, and on norms that do not fit."""
    config, rule, lines = parts.config, parts.algorithm.client, []
    if rule is not None and rule.personal is not None and not config.client_test.share:
        lines.append(
            "the clients' own models are not tested: client_test.share=0.2 keeps a fifth of "
            "every client's images for it"
        )
    public, count = len(parts.federation.public), len(parts.federation.dataset.train_labels)
    if public and not config.uses_public and config.partition.file is None:
        lines.append(
            f"{public:,} of {count:,} training images are public, and no client has them, as in "
            "runs with guidance; where none is compared, public_per_class=0 gives them to clients"
        )
    names = {parts.algorithm.aggregator.name, *(each.name for each in parts.algorithm.transforms)}
    cutting = " and ".join(sorted(names & {"clip", "norm bound"}))
    if cutting and _sends_statistics(parts):
        lines.append(
            f"{cutting}: running statistics count in the norm of an update, and may take most of "
            "it; raise max_norm, or use model.norm=group, which has none"
        )
    cores, devices = available_cores(), jax.local_device_count()
    wanted = config.runtime.num_devices or config.clients_per_round
    # Of several processes each may be meant to have few: they share their machine's cores.
    several = jax.process_count() > 1
    if several or jax.default_backend() != "cpu" or devices >= min(cores, wanted):
        return lines
    return [
        *lines,
        f"JAX has {devices} CPU device{'s' * (devices > 1)} and there are {cores} cores: call "
        "semanticfl_jax.use_all_cores() before JAX starts to train a client on each",
    ]


def _sends_statistics(parts: Parts) -> bool:
    """Return whether clients send running statistics of their network."""
    return bool(jax.tree.leaves(travelling(parts.algorithm, parts.model_shapes).batch_stats))


def _anchors(
    config: ExperimentConfig, federation: Federation, features: Any, workdir: Path | None, say: Say
) -> Anchors | None:
    """Return the anchors of a run that uses them; `features` is the shape of the network's."""
    if not config.uses_anchors:
        return None
    if features is None:
        guided, name = config.guidance.enabled, config.algorithm.name
        what = "guidance.enabled=true" if guided else f"algorithm.name={name}"
        raise ConfigError(
            f"{what} is not possible with this model: anchors pull its features, and it "
            "returns none; let it return semanticfl_jax.Outputs(logits, features)"
        )
    with _directory(workdir) as directory:
        return server_anchors(federation, config, features.shape[-1], directory, say)


def _student(
    given: Given, federation: Federation, init: Any, workdir: Path | None, say: Say
) -> Student | None:
    """Return the student of a run that has one; `init` are the weights to start from, if any."""
    config = given.config
    if not config.guidance.uses_student:
        return None
    if given.model is not None:
        require_model_by_name(config)
    if init is not None and config.guidance.student.may_start:
        raise ConfigError(
            "guidance.student.init must be false with init_params: both say what the clients' "
            "network starts from"
        )
    with _directory(workdir) as directory:
        return server_student(federation, config, directory, say)


def _bind(given: Given, parts: Parts, anchors: Anchors | None, workdir: Path) -> None:
    """Check the directory against the data, and claim it.

    Only now: a directory must not be bound to a configuration that cannot run.
    """
    # Process 0 has claimed it by now; what it was claimed for must be what this one runs.
    files.check(workdir, given.config, claimed=not processes.is_main())
    federation = parts.federation
    bound = {
        **_hashes(federation),
        "anchors": None if anchors is None else files.hash_arrays(anchors.visual, anchors.text),
        "student": None if parts.student is None else digest(parts.student.variables),
        **_objects(given, parts.init),
        "noise_multiplier": None if parts.ledger is None else repr(parts.ledger.noise),
    }
    files.check_bound(workdir, bound)
    states = where_states_are(parts)
    files.check_states(workdir, states)
    if processes.is_main():
        files.claim(workdir, given.config, {**bound, files.STATES: states})
        federation.save(workdir, given.config)


def _objects(given: Given, init: Weights | None) -> dict[str, Any]:
    """Return what tells the objects of a run apart, by which a directory is bound."""
    return {
        "model": None if given.model is None else without_addresses(repr(given.model)),
        "algorithm": None if given.algorithm is None else given.algorithm.name,
        "init_params": digest(init),
    }


def _hashes(federation: Federation) -> dict[str, Any]:
    """Return hashes of the data and of the partition, by which a directory is bound."""
    dealt = federation.partition
    return {
        "data": federation.clean.fingerprint(),
        "data_parts": federation.clean.parts(),
        "partition": files.hash_arrays(dealt.indices, dealt.offsets, federation.public),
    }


@contextlib.contextmanager
def _directory(workdir: Path | None) -> Iterator[Path]:
    """Yield the run's directory, or one that is deleted again."""
    if workdir is not None:
        yield workdir
        return
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)
