"""Runs on inputs that are no images: tables, spectrograms of one channel, ids of words."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semanticfl_jax as sfl
from semanticfl_jax.data.federated import federate
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices.mesh import make_mesh, replicated
from semanticfl_jax.devices.placement import put
from semanticfl_jax.federated.first_contact import with_own_rows
from semanticfl_jax.models import make_model
from semanticfl_jax.simulation.parts import make_parts
from semanticfl_jax.simulation.prepare import workload
from semanticfl_jax.tuning.cache import measured_for
from semanticfl_jax.tuning.timing import time_chunk
from tests.api.runs import QUIET
from tests.federation import FEDAVG, noise_images
from tests.results import require_same

CLASSES, WORDS = 3, 11
CONFIG = sfl.ExperimentConfig(
    num_clients=3,
    clients_per_round=3,
    rounds=1,
    local_epochs=2,
    batch_size=64,
    learning_rate=0.1,
    weight_decay=1e-3,
    augmentation=(),
    public_per_class=0,
    partition=sfl.PartitionConfig("iid"),
    model=sfl.ModelConfig("linear"),
    runtime=sfl.RuntimeConfig(num_devices=1, eval_batch_size=16),
)
#: Unequal shares of 60 inputs.
PARTITION = [np.arange(0, 10), np.arange(10, 25), np.arange(25, 60)]


def data(shape, draw, count=60, test=20):
    """Inputs [n, *shape] that `draw` makes, and labels that they tell something of."""
    rng = np.random.default_rng(0)
    inputs = draw(rng, (count + test, *shape))
    labels = inputs.reshape(count + test, -1)[:, :CLASSES].argmax(1)
    return ImageDataset.from_arrays(
        inputs[:count],
        labels[:count],
        inputs[count:],
        labels[count:],
        [f"class {k}" for k in range(CLASSES)],
        name="numbers",
    )


def table(shape=(5,)):
    return data(shape, lambda rng, size: rng.normal(3, 2, size))


def texts():
    return data((6,), lambda rng, size: rng.integers(0, WORDS, size))


class BagOfWords(nn.Module):
    """The mean of the words' vectors, and a classifier."""

    @nn.compact
    def __call__(self, ids):
        features = nn.Embed(WORDS, 4)(ids.astype(jnp.int32)).mean(axis=1)
        return sfl.Outputs(nn.Dense(CLASSES)(features), features)


def run(dataset, directory=None, config=CONFIG, model=None, **options):
    given = {"dataset": dataset, "partition": PARTITION, "model": model, "workdir": directory}
    return sfl.run(config, **given, **QUIET, **options)


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize(
    "dataset", [table(), table((2, 3, 1)), texts()], ids=["rows", "maps", "ids"]
)
def test_a_round_of_fedavg_is_that_of_numpy(dataset):
    # A batch is all that a client has, so that no order matters; weights are zero at first.
    result = run(dataset)
    inputs, tested = (
        x.reshape(len(x), -1).astype(np.float64)
        for x in (dataset.train_images, dataset.test_images)
    )
    models, losses = [], []
    for own in PARTITION:
        x, y = inputs[own], np.eye(CLASSES)[dataset.train_labels[own]]
        model = {"kernel": np.zeros((x.shape[1], CLASSES)), "bias": np.zeros(CLASSES)}
        momentum = {name: 0.0 for name in model}
        for _ in range(CONFIG.local_epochs):
            chances = softmax(x @ model["kernel"] + model["bias"])
            wrong = (chances - y) / len(x)
            losses.append(-np.log((chances * y).sum(1)))
            gradient = {"kernel": x.T @ wrong, "bias": wrong.sum(0)}
            for name in model:
                decayed = gradient[name] + CONFIG.weight_decay * model[name]
                momentum[name] = CONFIG.momentum * momentum[name] + decayed
                model[name] = model[name] - CONFIG.learning_rate * momentum[name]
        models.append(model)
    shares = [len(own) / len(inputs) for own in PARTITION]
    (found,) = result.params.values()
    for name in ("kernel", "bias"):
        expected = sum(share * model[name] for share, model in zip(shares, models, strict=True))
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5)
    logits = tested @ np.asarray(found["kernel"]) + np.asarray(found["bias"])
    np.testing.assert_allclose(result.logits(dataset.test_images), logits, rtol=1e-4, atol=1e-4)
    accuracy = np.mean(logits.argmax(1) == dataset.test_labels)
    assert result.summary["final_accuracy"] == pytest.approx(accuracy)
    loss = np.concatenate(losses).mean()  # of all that was trained on
    assert result.history[-1]["train_loss"] == pytest.approx(loss, rel=1e-4)


@pytest.fixture(scope="module")
def words():
    """A run on ids, with all that a run can have besides."""
    return everything()


def everything(directory=None, rounds=2, dataset=None, **runtime):
    config = dataclasses.replace(
        CONFIG,
        rounds=rounds,
        batch_size=4,
        client_test=sfl.ClientTestConfig(share=0.3, every=1, fine_tune_steps=2),
    )
    dataset = texts() if dataset is None else dataset
    return run(dataset, directory, config.with_runtime(**runtime), BagOfWords())


def test_host_memory_is_device_memory_to_the_bit(words):
    require_same(words, everything(data_memory="host"))


def test_devices_and_clients_side_by_side_change_nothing_but_rounding(words):
    other = everything(num_devices=2, clients_per_chunk=2, data_memory="host")
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        words.params,
        other.params,
    )


def test_a_resumed_run_is_the_same_and_its_report_is_written(words, tmp_path):
    everything(tmp_path, rounds=1)
    again = everything(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, words.params, again.params)
    told = {row["what"] for row in again.summary["privacy"]["seen"]}
    assert told and not any("standard deviation" in what for what in told)
    assert (tmp_path / "plots").is_dir()
    sfl.load_model(tmp_path, model=BagOfWords())
    other = texts()
    other = dataclasses.replace(other, train_images=other.train_images[::-1])
    with pytest.raises(sfl.SemanticFLError, match="the images or inputs themselves"):
        everything(tmp_path, dataset=other)


def test_ids_are_what_the_network_sees(words, tmp_path):
    dataset = texts()
    ids = dataset.test_images
    vectors = np.asarray(words.params["Embed_0"]["embedding"])[ids].mean(1)
    np.testing.assert_allclose(words.features(ids), vectors, rtol=1e-5, atol=1e-6)
    words.export(tmp_path / "words.safetensors")
    loaded = sfl.load_model(tmp_path / "words.safetensors", model=BagOfWords())
    for given in (ids, ids.astype(np.int64), ids.astype(np.int8)):
        np.testing.assert_array_equal(loaded.logits(given), words.logits(ids))
    for wrong in (ids.astype(np.float32), ids.astype(np.uint8), ids[:, :5], ids > 0, ids[0]):
        with pytest.raises(sfl.SemanticFLError, match=r"images must be int32 \[n, 6\], got"):
            loaded.predict(wrong)


def test_a_saved_model_predicts_as_before(tmp_path):
    dataset = table((4, 2))
    result = run(dataset)
    result.export(tmp_path / "model.safetensors")
    loaded = sfl.load_model(tmp_path / "model.safetensors")
    tested = dataset.test_images
    assert loaded.about["mean"] == loaded.about["std"] == []
    np.testing.assert_array_equal(loaded.logits(tested), result.logits(tested))
    np.testing.assert_array_equal(loaded.predict(tested.astype(np.float64)), result.predict(tested))
    assert loaded.logits(tested[:0]).shape == (0, CLASSES)
    for wrong in (tested.astype(int), tested.astype(np.uint8), tested[:, :3], tested[..., None]):
        with pytest.raises(sfl.SemanticFLError, match=r"images must be float32 \[n, 4, 2\], got"):
            loaded.predict(wrong)
    with pytest.raises(sfl.SemanticFLError, match=r"images must be finite in float32, images\[1\]"):
        loaded.predict(np.where(np.arange(20)[:, None, None] == 1, np.nan, tested))


def test_convolutions_take_floats_of_one_channel():
    shape = (8, 8, 1)
    config = dataclasses.replace(CONFIG, local_epochs=1, model=sfl.ModelConfig(width=2))
    result = run(table(shape), config=config)
    assert np.isfinite(result.history[-1]["train_loss"])
    assert 1 in {x.shape[2] for x in jax.tree.leaves(result.params) if x.ndim == 4}
    small = make_model(dataclasses.replace(CONFIG, model=sfl.ModelConfig("cnn")), CLASSES, shape)
    assert small.outputs(shape).logits.shape == (1, CLASSES)
    assert small.variables(shape)["params"]["conv_1"]["kernel"].shape == (3, 3, 1, 32)


def test_what_clients_compute_once_is_of_inputs_as_they_are():
    term = sfl.LossTerm(
        "sum",
        lambda inputs: jnp.sum(inputs.rows["sum"]),
        contact=sfl.Contact(lambda shared, images: {"sum": images.sum((1, 2)), "same": images}),
    )
    algorithm, mesh = FEDAVG.with_term(term), make_mesh(2)
    for dataset in (table((3, 2)), data((3, 2), lambda rng, size: rng.integers(0, 9, size))):
        inputs = dataset.train_images
        given = (inputs, dataset.train_labels, Partition(np.arange(60), [0, 20, 60]), CLASSES)
        for kept in (None, inputs):
            there = federate(*given, replicated(mesh), with_images=kept is None)
            sent = put(algorithm.sent_once, replicated(mesh))
            rows = with_own_rows(algorithm, sent, there, mesh, kept)["sum"][1]
            assert rows["same"].dtype == inputs.dtype
            np.testing.assert_array_equal(rows["same"], inputs)
            np.testing.assert_allclose(rows["sum"], inputs.sum((1, 2)), rtol=1e-5, atol=1e-5)


def test_fltrust_trains_on_inputs_of_the_servers():
    config = dataclasses.replace(
        CONFIG, public_per_class=2, aggregation=sfl.AggregationConfig("fltrust")
    )
    result = sfl.run(config, dataset=table(), **QUIET)
    assert np.isfinite(result.history[-1]["train_loss"])


def test_the_tuner_times_inputs_of_their_kind():
    for dataset, module in ((table(), None), (texts(), BagOfWords())):
        parts = make_parts(CONFIG, make_federation(dataset, CONFIG, PARTITION), module=module)
        work = workload(parts, parts.init_model(jax.random.key(0)))
        assert time_chunk(work, "native", 2, make_mesh(1), repeats=1).outcome == "measured"
        dtype = dataset.train_images.dtype.name
        assert measured_for(work, make_mesh(1))["image_dtype"] == dtype
    config = dataclasses.replace(CONFIG, num_clients=5, clients_per_round=5)
    parts = make_parts(config, make_federation(noise_images(), config))
    work = workload(parts, parts.init_model(jax.random.key(0)))
    assert "image_dtype" not in measured_for(work, make_mesh(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"augmentation": ("crop_flip",)},
            r"augmentation must be empty, augmentation=\(\), with in",
        ),
        (
            {"guidance": sfl.GuidanceConfig(enabled=True), "public_per_class": 2},
            "guidance.enabled must be false, with inputs that are no images",
        ),
        (
            {"algorithm": sfl.AlgorithmConfig("semanticfl"), "public_per_class": 2},
            "algorithm.name must be another than semanticfl",
        ),
        (
            {"algorithm": sfl.AlgorithmConfig("feddifrc"), "public_per_class": 2},
            "algorithm.name must be another than feddifrc",
        ),
        (
            {"feature_skew": sfl.FeatureSkewConfig(corruptions=("noise",))},
            "feature_skew.corruptions must be empty",
        ),
        (
            {"attack": sfl.AttackConfig("backdoor", share=0.4)},
            "attack.name must be another than backdoor.*its trigger is a white square",
        ),
    ],
)
def test_what_needs_images_is_refused(changes, message):
    config = dataclasses.replace(CONFIG, **changes)
    with pytest.raises(sfl.ConfigError, match=message) as error:
        make_federation(table(), config)
    assert "numbers has float32 [n, 5], where images are uint8 [n, H, W, 3]" in str(error.value)


@pytest.mark.parametrize("model", ["resnet10", "cnn"])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5,), r"model.name must be linear with inputs \[n, 5\], or a module of your own, .*needs"),
        ((8, 8), r"needs \[n, H, W, C\].*; one channel is images\[..., None\]"),
        ((2, 8, 8, 1), r"with inputs \[n, 2, 8, 8, 1\]"),
    ],
)
def test_convolutions_are_refused_for_other_shapes(model, shape, message):
    config = dataclasses.replace(CONFIG, model=sfl.ModelConfig(model))
    with pytest.raises(sfl.ConfigError, match=message):
        make_model(config, CLASSES, shape)


def test_images_that_are_too_small_for_the_cnn_are_refused():
    config = dataclasses.replace(CONFIG, model=sfl.ModelConfig("cnn"))
    with pytest.raises(sfl.ConfigError, match=r"cnn needs \[n, H, W, C\], H and W at least 6"):
        make_model(config, CLASSES, (8, 5, 1))


def test_mean_and_std_are_of_images():
    dataset = dataclasses.replace(table((4, 4, 3)), mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(
        sfl.SemanticFLError, match="numbers has mean and std, by which uint8 images"
    ):
        make_federation(dataset, CONFIG)
