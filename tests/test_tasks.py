"""Tasks besides classification: labels, losses, figures, whole runs, and a task of one's own."""

import dataclasses
import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, r2_score

import semanticfl_jax as sfl
from semanticfl_jax.contexts import TaskContext
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.federated.local_step import make_loss
from semanticfl_jax.reporting.runs import load_run
from semanticfl_jax.tasks import CLASSIFICATION, make_task
from semanticfl_jax.tasks.multilabel import BINS, bins
from tests.federation import squares

CONFIG = sfl.ExperimentConfig(
    task="multilabel",
    partition=sfl.PartitionConfig("iid"),
    num_clients=2,
    clients_per_round=2,
    rounds=4,
    local_epochs=2,
    batch_size=8,
    learning_rate=0.1,
    momentum=0.0,
    augmentation=(),
    runtime=sfl.RuntimeConfig(num_devices=1, eval_batch_size=8),
)
REGRESSION = dataclasses.replace(CONFIG, task="regression", learning_rate=0.005)
QUIET = {"progress": False, "say": None}
TRAIN, TEST = 40, 21


class Linear(nn.Module):
    """A linear map of the means of four squares an image."""

    outputs: int

    @nn.compact
    def __call__(self, images):
        return nn.Dense(self.outputs)(squares(images))


def images_of(count, seed=0):
    """Images whose squares differ in brightness, and that brightness, from 0 to 1."""
    rng = np.random.default_rng(seed)
    bright = rng.random((count, 2, 1, 2, 1, 1))
    images = np.broadcast_to(255 * bright, (count, 2, 4, 2, 4, 3)).reshape(count, 8, 8, 3)
    return images.astype(np.uint8), bright.reshape(count, 4)


def dataset(kind, **options):
    (images, bright), (tests, test_bright) = images_of(TRAIN), images_of(TEST, 1)
    make = {
        "multilabel": lambda x: (x[:, :3] > [0.3, 0.5, 0.8]).astype(int),
        "regression": lambda x: 2000 + 3 * x[:, :2] - x[:, 2:],
        "centered": lambda x: 3 * x[:, 0] - 1,
        "classification": lambda x: (x[:, 0] > 0.5).astype(int),
    }[kind]
    return sfl.ImageDataset.from_arrays(
        images, make(bright), tests, make(test_bright), name=kind, **options
    )


def run(config, data, outputs, **options):
    return sfl.run(config, dataset=data, model=Linear(outputs), **QUIET, **options)


def test_labels_are_known_by_type_and_shape_or_by_the_task():
    labels = dataset("multilabel", class_names=["low", "mid", "high"])
    assert labels.labels == "binary" and labels.train_labels.dtype == np.uint8
    assert labels.num_classes == 3 and not labels.has_classes
    numbers = dataset("centered")
    assert numbers.labels == "numbers" and numbers.class_names == ("number 0",)
    assert numbers.train_labels.shape == (TRAIN, 1) and numbers.train_labels.dtype == np.float32
    assert dataset("classification").has_classes
    assert dataset("classification", task="regression").train_labels.shape == (TRAIN, 1)
    assert dataset("multilabel", task="regression").labels == "numbers"


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("centered", {"task": "multilabel"}, r"train_labels must be 0 or 1, \[n, K\]"),
        ("regression", {"task": "multilabel"}, "got others than 0 and 1"),
        ("regression", {"task": "classification"}, "must be whole numbers, one an image"),
        ("multilabel", {"class_names": ["a"]}, "one a label: an image has 3, there are 1 names"),
        ("multilabel", {"task": "multilable"}, "Did you mean multilabel"),
    ],
)
def test_labels_that_do_not_fit_are_refused(kind, options, message):
    with pytest.raises(sfl.SemanticFLError, match=message):
        dataset(kind, **options)


def figures_of(task, logits, labels, batch=8):
    """Figures of sums over batches, the last of them padded."""
    total = None
    for start in range(0, len(logits), batch):
        rows = np.arange(start, start + batch)
        taken, mask = np.minimum(rows, len(logits) - 1), rows < len(logits)
        sums = task.totals(jnp.asarray(logits[taken]), jnp.asarray(labels[taken]), mask)
        total = sums if total is None else type(sums)(*map(jnp.add, total, sums))
    found = task.checked_figures(total)
    shapes = task.figure_shapes(labels.shape[1], labels)
    assert {name: x.shape for name, x in shapes.items()} == {
        name: np.shape(x) for name, x in found.items()
    }
    return found


def test_multilabel_against_numpy_and_scikit_learn():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(37, 4)).astype(np.float32)
    labels = (logits + rng.normal(size=(37, 4)) > 0.5).astype(np.uint8)
    labels[:, 3] = 0  # no test image has the last one
    task = make_task(CONFIG, 4)
    chance = 1 / (1 + np.exp(-logits.astype(float)))
    entropy = -np.where(labels, np.log(chance), np.log(1 - chance)).mean(axis=1)
    np.testing.assert_allclose(task.losses(logits, labels), entropy, rtol=1e-5)
    found = figures_of(task, logits, labels)
    precisions = [average_precision_score(labels[:, k], logits[:, k]) for k in range(3)]
    np.testing.assert_allclose(found["test_mean_average_precision"], np.mean(precisions), rtol=1e-5)
    f1 = f1_score(labels[:, :3], logits[:, :3] > 0, average="macro")
    np.testing.assert_allclose(found["test_f1"], f1, rtol=1e-5)
    np.testing.assert_allclose(
        found["test_label_accuracy"], np.mean(labels == (logits > 0)), rtol=1e-5
    )
    np.testing.assert_allclose(found["test_loss"], entropy.mean(), rtol=1e-5)
    np.testing.assert_array_equal(task.predict(logits), logits > 0)


@pytest.mark.parametrize("scale", [0.02, 2, 20])
def test_average_precision_is_scikit_learns_whatever_the_scale_of_the_logits(scale):
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(500, 3)) - 1
    labels = (plain + rng.normal(size=plain.shape) > 0).astype(np.uint8)
    logits = (scale * plain).astype(np.float32)
    task = make_task(CONFIG, 3)
    found = figures_of(task, logits, labels, batch=128)["test_mean_average_precision"]
    expected = average_precision_score(labels, logits, average="macro")
    np.testing.assert_allclose(found, expected, atol=5e-4)


def test_bins_rise_with_the_logits():
    sizes = np.geomspace(1e-8, 1e6, 1000)
    logits = np.concatenate([-sizes[::-1], [0], sizes]).astype(np.float32)
    found = np.asarray(bins(jnp.asarray(logits)))
    assert found[0] == 0 and found[-1] == BINS - 1 and np.all(np.diff(found) >= 0)
    assert bins(jnp.float32(-0.0)) == bins(jnp.float32(0.0))


def test_regression_against_numpy_and_scikit_learn_far_from_zero_too():
    rng = np.random.default_rng(0)
    labels = (2000 + rng.normal(size=(37, 3)) * [1, 5, 0]).astype(np.float32)
    logits = (labels + rng.normal(size=(37, 3))).astype(np.float32)
    task = make_task(REGRESSION, 3, labels)
    errors = logits.astype(float) - labels
    np.testing.assert_allclose(task.losses(logits, labels), (errors**2).mean(1), rtol=1e-3)
    found = figures_of(task, logits, labels)
    np.testing.assert_allclose(found["test_mse"], np.mean(errors**2), rtol=1e-4)
    np.testing.assert_allclose(found["test_mae"], np.mean(np.abs(errors)), rtol=1e-4)
    # The last number does not vary, and is left out.
    np.testing.assert_allclose(found["test_r2"], r2_score(labels[:, :2], logits[:, :2]), atol=1e-4)


def test_classification_is_the_task_there_always_was():
    assert make_task(sfl.ExperimentConfig(), 10) is CLASSIFICATION
    assert make_loss.__defaults__ == (CLASSIFICATION,)


def test_a_multilabel_run_from_end_to_end(tmp_path):
    data = dataset("multilabel", class_names=["low", "mid", "high"])
    result = run(CONFIG, data, 3, workdir=tmp_path)
    row, summary = result.history[-1], result.summary
    assert summary["task"] == "multilabel" and summary["metric"] == "test_mean_average_precision"
    assert summary["final_mean_average_precision"] == row["test_mean_average_precision"] > 0.9
    assert summary["best_mean_average_precision"] == max(
        each["test_mean_average_precision"] for each in result.history
    )
    assert not {"final_accuracy", "class_accuracy", "client_accuracy"} & set(summary)
    assert set(summary["partition"]) == {"clients", "samples", "sizes", "gini"}
    predicted = result.predict(data.test_images)
    assert predicted.shape == (TEST, 3) and predicted.dtype == np.uint8
    assert np.mean(predicted == data.test_labels) == pytest.approx(row["test_label_accuracy"])
    loaded = sfl.load_model(tmp_path, model=Linear(3))
    np.testing.assert_array_equal(loaded.predict(data.test_images), predicted)
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"curves.png", "partition.png"} <= plots and "accuracy_maps.png" not in plots
    assert load_run(tmp_path).summary["final_mean_average_precision"] > 0.9
    assert json.loads((tmp_path / "config.json").read_text())["task"] == "multilabel"


def test_a_regression_run_learns_and_its_best_is_the_least():
    data = dataset("centered")
    heard = []

    class Listen(sfl.Callback):
        def on_evaluation(self, simulation, step):
            heard.append(step.metrics["test_r2"])

    result = run(REGRESSION, data, 1, callbacks=[Listen()])
    mse = [row["test_mse"] for row in result.history]
    assert result.summary["best_mse"] == min(mse) and result.summary["final_mse"] == mse[-1]
    assert mse[-1] < mse[0] and len(heard) == 4
    predicted = result.predict(data.test_images)
    assert predicted.shape == (TEST, 1)
    np.testing.assert_allclose(np.mean((predicted - data.test_labels) ** 2), mse[-1], rtol=1e-4)


def test_a_round_is_the_steps_that_numpy_takes():
    """One client, one step a round on all of its images: plain gradient descent."""
    data = dataset("centered", mean=(0.5,) * 3, std=(0.25,) * 3)
    config = dataclasses.replace(
        REGRESSION,
        num_clients=1,
        clients_per_round=1,
        rounds=3,
        local_epochs=1,
        batch_size=TRAIN,
        weight_decay=0.0,
    )
    kernel, bias = np.zeros((12, 1)), np.zeros(1)
    start = {"Dense_0": {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}}
    result = run(config, data, 1, partition=[np.arange(TRAIN)], init_params=start)
    x = np.asarray(squares((data.train_images / 255 - 0.5) / 0.25))
    losses = []
    for _ in range(3):
        errors = x @ kernel + bias - data.train_labels
        losses.append(np.mean(errors**2))
        kernel = kernel - 0.005 * 2 * x.T @ errors / TRAIN
        bias = bias - 0.005 * 2 * errors.mean(0)
    np.testing.assert_allclose([row["train_loss"] for row in result.history], losses, rtol=1e-4)
    np.testing.assert_allclose(result.params["Dense_0"]["kernel"], kernel, rtol=1e-3, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class GaussianSettings:
    """Settings of the task."""

    floor: float = 0.1


@sfl.register_task("own_gaussian", labels="numbers", settings=GaussianSettings, about="A density")
def own_gaussian(settings, context):
    """A mean and a variance of every number, by the likelihood."""
    width = context.num_labels

    def loss(logits, labels):
        variance = settings.floor + nn.softplus(logits[:, width:])
        squared = jnp.square(labels - logits[:, :width]) / variance
        return 0.5 * jnp.mean(squared + jnp.log(variance), axis=-1)

    def totals(logits, labels, mask):
        return jnp.sum(mask), jnp.sum(jnp.where(mask, loss(logits, labels), 0.0))

    return sfl.Task(
        "own_gaussian",
        loss,
        totals,
        lambda totals: {"test_loss": totals[1] / totals[0]},
        lambda logits: logits[:, :width],
        headline="test_loss",
        higher_is_better=False,
        outputs=lambda width: 2 * width,
    )


def test_a_task_of_ones_own_with_more_logits_than_labels(tmp_path):
    config = dataclasses.replace(REGRESSION, task="own_gaussian", task_settings={"floor": 0.5})
    data = dataset("centered")
    result = run(config, data, 2)
    assert result.summary["final_loss"] < result.history[0]["test_loss"]
    assert result.predict(data.test_images).shape == (TEST, 1)
    result.export(tmp_path / "model.safetensors")
    loaded = sfl.load_model(tmp_path / "model.safetensors", model=Linear(2))
    assert loaded.about["task_settings"] == {"floor": 0.5}
    np.testing.assert_array_equal(
        loaded.predict(data.test_images), result.predict(data.test_images)
    )
    with pytest.raises(sfl.SemanticFLError, match=r"must return logits \[B, 2\], for 1 numbers"):
        run(config, data, 1)


@sfl.register_task("own_smooth", about="Label smoothing")
def own_smooth(settings, context):
    """A task with classes: partitions and figures by class stay."""
    del settings

    def loss(logits, labels):
        one_hot = nn.one_hot(labels, context.num_labels)
        smooth = 0.9 * one_hot + 0.1 / context.num_labels
        return -jnp.sum(smooth * nn.log_softmax(logits), axis=-1)

    return dataclasses.replace(CLASSIFICATION, name="own_smooth", loss=loss)


def test_a_task_of_ones_own_with_classes_keeps_all_that_goes_by_them():
    config = dataclasses.replace(
        CONFIG,
        task="own_smooth",
        partition=sfl.PartitionConfig("dirichlet", alpha=1.0),
        algorithm=sfl.AlgorithmConfig("feddisco"),
        public_per_class=1,
        rounds=1,
    )
    summary = run(config, dataset("classification"), 2).summary
    assert set(summary["class_accuracy"]) == {"class 0", "class 1"}
    assert "client_accuracy" in summary and "final_accuracy" in summary


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": {"name": "feddisco"}}, "algorithm.name=feddisco needs one class an image"),
        ({"algorithm": {"name": "fedrcl"}}, "it contrasts images of one class with those of"),
        ({"algorithm": {"name": "feddifrc"}}, "contrasts features with those of every class"),
        ({"algorithm": {"name": "semanticfl"}}, "guidance.enabled needs one class an image"),
        ({"algorithm": {"weights": "disco"}}, "algorithm.weights=disco needs one class"),
        ({"guidance": {"enabled": True}}, "an anchor stands for a class"),
        ({"public_per_class": 3}, "public_per_class is set, but task is multilabel, whose images"),
        ({"task": "multilable"}, "task must be one of .* Did you mean multilabel"),
    ],
)
def test_what_goes_by_classes_is_refused_without_them(changes, message):
    with pytest.raises(sfl.ConfigError, match=message):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize("scheme", ["dirichlet", "nid1", "nid2", "shards"])
def test_partitions_by_class_are_refused_and_given_ones_are_not(scheme):
    data = dataset("multilabel")
    biased = {"biased_clients": 1} if scheme == "nid2" else {}
    config = dataclasses.replace(CONFIG, partition=sfl.PartitionConfig(scheme, **biased))
    with pytest.raises(sfl.ConfigError, match=f"scheme={scheme} needs one class .* use iid"):
        make_federation(data, config)
    halves = np.split(np.arange(TRAIN), 2)
    assert make_federation(data, config, halves).partition.sizes.tolist() == [20, 20]


def test_partitions_by_other_things_work():
    data = dataset("regression", columns={"writer": np.arange(TRAIN) % 5})
    for partition in (
        sfl.PartitionConfig("quantity", alpha=1.0),
        sfl.PartitionConfig("natural", column="writer"),
    ):
        federation = make_federation(data, dataclasses.replace(REGRESSION, partition=partition))
        assert federation.partition.sizes.sum() == TRAIN and len(federation.public) == 0
    tail = sfl.PartitionConfig("iid", imbalance_factor=2.0)
    with pytest.raises(sfl.ConfigError, match="a long tail of classes, needs one class"):
        make_federation(data, dataclasses.replace(REGRESSION, partition=tail))


def test_data_of_another_task_is_refused_with_the_one_that_fits():
    with pytest.raises(sfl.SemanticFLError, match=r"float32 \[40, 1\], which fits task=regression"):
        make_federation(dataset("centered"), CONFIG)
    with pytest.raises(sfl.SemanticFLError, match=r"uint8 \[40, 3\], which fits task=multilabel"):
        make_federation(dataset("multilabel"), dataclasses.replace(CONFIG, task="classification"))


def test_tasks_that_are_made_wrongly_are_refused():
    regression = make_task(REGRESSION, 2)
    with pytest.raises(sfl.SemanticFLError, match="must begin with test_, got 'mse'"):
        dataclasses.replace(regression, headline="mse")
    with pytest.raises(sfl.SemanticFLError, match="must have test_score, got test_mse"):
        figures_of(dataclasses.replace(regression, headline="test_score"), *[np.ones((9, 2))] * 2)
    scalar = dataclasses.replace(regression, loss=lambda logits, labels: jnp.mean(logits - labels))
    with pytest.raises(sfl.SemanticFLError, match=r"must be one a sample, \[9\] for a batch of 9"):
        scalar.losses(jnp.ones((9, 2)), jnp.ones((9, 2)))
    with pytest.raises(sfl.SemanticFLError, match="must be class, binary, numbers or tokens"):
        sfl.register_task("own_words", own_smooth, labels="words")
    assert TaskContext(CONFIG, 3).test_labels is None
