"""What a run trains, and how: data, network, algorithm and task, before anything is on a device."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
from jax.sharding import Mesh

from semanticfl_jax.algorithms import Algorithm, complete, make_algorithm
from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.algorithms.fixed import fixed_part, trained_part
from semanticfl_jax.algorithms.parts import Belongs, chosen_layers, paths
from semanticfl_jax.algorithms.student import starts_from
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.data.federation import Federation
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.data.sources.labels import FORMS
from semanticfl_jax.errors import ConfigError, SemanticFLError
from semanticfl_jax.federated.client_state import beside_checkpoints
from semanticfl_jax.federated.client_update import extra_shapes, refuse_extra
from semanticfl_jax.federated.cohort import cohort_places
from semanticfl_jax.federated.first_contact import check_rows
from semanticfl_jax.federated.initial import init_model
from semanticfl_jax.federated.memory import (
    check_client_memory,
    check_image_memory,
    check_update_memory,
    state_bytes,
)
from semanticfl_jax.federated.rates import reads_server_rate
from semanticfl_jax.federated.uploads import travelling
from semanticfl_jax.models import Network, make_model
from semanticfl_jax.privacy.accounting import Ledger, make_ledger
from semanticfl_jax.randomness import run_key
from semanticfl_jax.reporting.metric import Metric
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.semantics.student import Student
from semanticfl_jax.simulation.export import TrainedModel, describe_model
from semanticfl_jax.simulation.initial_weights import replace_weights
from semanticfl_jax.simulation.workdir import IN_CHECKPOINTS
from semanticfl_jax.tasks import Task, make_task
from semanticfl_jax.types import PyTree


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
      trains: whether the parameters at a path of the model are trained; None: all are.
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
    trains: Belongs | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """H, W, 3; of inputs that are no images, their own shape."""
        return self.federation.dataset.image_shape

    @property
    def metric(self) -> Metric:
        """The metric by which the task judges models."""
        return metric_of(self.task)

    @functools.cached_property
    def starts_from_student(self) -> bool:
        """Whether the network's weights are the student's at first, its output layer apart."""
        if self.student is None:
            return False
        variables = self.network.variables(self.image_shape)
        return starts_from(self.student, self.config.guidance.student, variables)

    def init_model(self, key: jax.Array) -> Model:
        """Return what is trained of the initial model for the run's key."""
        return trained_part(self.init_whole(key), self.algorithm.fixed)

    def init_whole(self, key: jax.Array) -> Model:
        """Return the initial model for the run's key, with the parameters that nobody trains."""
        drawn = init_model(self.network, self.algorithm, self.image_shape, key)
        if self.starts_from_student:
            assert self.student is not None
            of = "guidance.student.init (false starts from elsewhere): the student"
            return replace_weights(drawn, self.student.start, of)
        return replace_weights(drawn, self.init, trains=self.trains)

    @functools.cached_property
    def model_shapes(self) -> Model:
        """Shapes and dtypes of what `init_model` returns."""
        return jax.eval_shape(self.init_model, run_key(self.config.seed))

    def trained_model(self, model: Model) -> TrainedModel:
        """Return the network with the weights of `model`, and what is to be known of both."""
        given, dataset = self.module is not None, self.federation.dataset
        about = describe_model(self.config, self.network, given, self.image_shape, dataset)
        weights = (model.params["model"], model.batch_stats)
        return TrainedModel(self.network, *weights, about, self.task)


def make_network(
    config: ExperimentConfig, federation: Federation, module: nn.Module | None = None
) -> Network:
    """Return the network that the clients train: `module`, or what the configuration names."""
    if module is not None:
        return Network(module)
    dataset = federation.dataset
    outputs = task_of(config, federation).outputs(dataset.num_classes)
    return make_model(config, outputs, dataset.image_shape)


def task_of(config: ExperimentConfig, federation: Federation) -> Task:
    """Return the task that the configuration names, for this data set."""
    return make_task(config, federation.dataset.num_classes, federation.dataset.test_labels)


def metric_of(task: Task) -> Metric:
    """Return the metric by which a task judges models."""
    return Metric(task.headline, task.higher_is_better)


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
    image_shape = federation.dataset.image_shape
    outputs = network.outputs(image_shape)
    classes, task = federation.dataset.num_classes, task_of(config, federation)
    _check_logits(network, outputs.logits.shape, federation.dataset, task, module is None)
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
    trains = _trains(context)
    parts = Parts(
        config, federation, network, algorithm, task, ledger, module, init, student, trains
    )
    if trains is not None:
        begun = parts.init_whole(run_key(config.seed))
        fixed = jax.device_get(fixed_part(begun, trains))
        parts = dataclasses.replace(parts, algorithm=dataclasses.replace(algorithm, fixed=fixed))
    _check_algorithm(parts)
    return parts


def _trains(context: AlgorithmContext) -> Belongs | None:
    """Return what tells the parameters that are trained, where some of the network's are not.

    Raises:
      ConfigError: if `trainable` names no layer, or none that has parameters.
    """
    layers, field = context.config.trainable, "trainable"
    if layers == "all":
        return None
    chosen = chosen_layers(layers, context, field)
    assert chosen is not None  # the configuration refuses an empty one
    network = [path for path in paths(context) if path.startswith("params/")]
    if not any(map(chosen, network)):
        raise ConfigError(f"{field} must name layers with parameters, got {list(layers)}")
    if all(map(chosen, network)):
        return None
    return lambda path: not path.startswith("params/model/") or chosen(path)


def _check_logits(
    network: Network, shape: tuple[int, ...], dataset: ImageDataset, task: Task, built_in: bool
) -> None:
    """Raise `SemanticFLError` if a network's logits, of this shape for one image, do not fit."""
    classes = dataset.num_classes
    wanted = task.logits_shape(classes, dataset.train_labels)
    if shape == (1, *wanted):
        return
    word, several = FORMS[dataset.labels][1], len(wanted) > 1
    what = f"one for each {word}" if wanted[-1] == classes else f"for {classes} {word}s"
    if several:
        what += " at each position"
    elif wanted[-1] != classes:
        what += " an image"
    # Of a network that returns no row an image, the shape says so.
    got = ["B", *shape[1:]] if shape[:1] == (1,) else shape
    of = "" if shape[:1] == (1,) else " for a batch of 1"
    hint = ": give a network of your own, sfl.run(config, dataset=..., model=...)"
    raise SemanticFLError(
        f"{network.name} must return logits [B, {', '.join(map(str, wanted))}], {what} of "
        f"{dataset.name}, got [{', '.join(map(str, got))}]{of}{hint * (several and built_in)}"
    )


def _check_algorithm(parts: Parts) -> None:
    """Raise `SemanticFLError` for an algorithm that does not go with the rest of the run.

    Of one that is given as an object, this shows only here: what it sends that transforms or noise
    would not cover, or that would be of another round, and what it needs on the devices.
    """
    config, algorithm, shapes = parts.config, parts.algorithm, parts.model_shapes
    check_rows(algorithm, len(parts.federation.dataset.train_labels))
    _check_server_rate(parts)
    extra = extra_shapes(algorithm, shapes)
    refuse_extra(algorithm, extra)
    if config.asynchronous.enabled:
        server = algorithm.server
        broadcast = jax.eval_shape(lambda model: server.broadcast(server.init(model)), shapes)
        if jax.tree.leaves((extra, broadcast)):
            raise SemanticFLError(
                f"{algorithm.name} cannot be used with asynchronous.enabled: what server and "
                "clients send besides model and update would be of another round"
            )
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


def _check_server_rate(parts: Parts) -> None:
    """Raise `ConfigError` for a server's rate that is set and that the server's step ignores."""
    config = parts.config
    rates = (
        ("algorithm.server_learning_rate", config.algorithm.server_learning_rate, "auto"),
        ("optimizer.server_schedule", config.optimizer.server_schedule, "constant"),
    )
    asked = [name for name, value, default in rates if value != default]
    if asked and not reads_server_rate(parts.algorithm, parts.model_shapes, cohort_places(config)):
        raise ConfigError(
            f"{asked[0]} is set and has no effect with {parts.algorithm.name}: its "
            "ServerRule.update does not read Aggregate.rate, the server's rate of the round"
        )


def check_memory(parts: Parts, mesh: Mesh) -> list[str]:
    """Return a line each on what clients' states and single updates will take, if there are any.

    Raises:
      SemanticFLError: if they cannot fit.
    """
    config, algorithm, shapes = parts.config, parts.algorithm, parts.model_shapes
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


def where_states_are(parts: Parts) -> str:
    """Return where the clients' states are when the run is saved, in words."""
    beside = beside_checkpoints(parts.config.runtime.client_state_memory)
    if beside is None or state_bytes(parts.algorithm, parts.model_shapes) == 0:
        return IN_CHECKPOINTS
    return beside


def describe_task(parts: Parts, params: PyTree) -> str:
    """Return a line on what is trained on what; `params` are the initial ones that are trained."""
    config, algorithm = parts.config, parts.algorithm
    trained = sum(leaf.size for leaf in jax.tree.leaves(params))
    count = trained + sum(leaf.size for leaf in jax.tree.leaves(algorithm.fixed))
    share = f", {trained:,} of them trained" if trained < count else ""
    names = [term.name for term in algorithm.terms if term.name != algorithm.name]
    terms = f" with {' and '.join(names)}" if names else ""
    partition = config.partition.file or config.partition.scheme
    partition = "given" if parts.federation.given else partition
    model = config.model.name if parts.module is None else parts.network.name
    return (
        f"{algorithm.name}{terms} on {parts.federation.dataset.name}: {config.clients_per_round} "
        f"of {config.num_clients} clients a round, {partition} partition; "
        f"{model} with {count:,} parameters{share}"
    )
