"""A class at each position: losses and figures, language models, segmentation, what is refused."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semanticfl_jax as sfl
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.tasks import make_task
from tests.results import require_same

LETTERS = tuple("abcde ")
K, LENGTH = len(LETTERS), 7
TRAIN, TEST = 30, 9
#: Unequal shares of 30 samples.
PARTITION = [np.arange(0, 6), np.arange(6, 16), np.arange(16, 30)]
CONFIG = sfl.ExperimentConfig(
    task="tokens",
    partition=sfl.PartitionConfig("iid"),
    num_clients=3,
    clients_per_round=3,
    rounds=2,
    local_epochs=2,
    batch_size=64,
    learning_rate=0.5,
    momentum=0.0,
    weight_decay=0.0,
    augmentation=(),
    runtime=sfl.RuntimeConfig(num_devices=1, eval_batch_size=4),
)
QUIET = {"progress": False, "say": None}


class Bigram(nn.Module):
    """The next letter's logits, by the last letter alone."""

    @nn.compact
    def __call__(self, ids):
        return nn.Embed(K, K)(ids.astype(jnp.int32))


class Pixels(nn.Module):
    """Logits of every pixel, of those around it."""

    @nn.compact
    def __call__(self, images):
        return nn.Conv(2, (3, 3))(images)


def sequences(count, seed):
    """Made-up text: letters that mostly follow the alphabet, and how many of each sample count."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([1, 2], (count, LENGTH + 1), p=[0.8, 0.2])
    ids = (np.cumsum(steps, axis=1) + rng.integers(0, K, (count, 1))) % K
    lengths = rng.integers(1, LENGTH + 1, count)
    lengths[1] = 0  # none of this sample's positions counts
    labels = np.where(np.arange(LENGTH) < lengths[:, None], ids[:, 1:], -1)
    return ids[:, :-1], labels


def text(**changes):
    (ids, labels), (test_ids, test_labels) = sequences(TRAIN, 0), sequences(TEST, 1)
    arrays = {
        "train_images": ids,
        "train_labels": labels,
        "test_images": test_ids,
        "test_labels": test_labels,
        "class_names": LETTERS,
        "task": "tokens",
        "name": "text",
    }
    return sfl.ImageDataset.from_arrays(**{**arrays, **changes})


def segments(count=24, seed=0):
    """Images with a bright half plane, and which pixels are of it; the border does not count."""
    rng = np.random.default_rng(seed)
    edges = rng.integers(2, 7, count)
    labels = np.arange(8)[None, :, None] < edges[:, None, None]
    labels = np.broadcast_to(labels, (count, 8, 8)).astype(np.int64)
    images = (100 * labels[..., None] + rng.integers(0, 120, (count, 8, 8, 3))).astype(np.uint8)
    labels = labels.copy()
    labels[:, [0, -1]] = -1
    return images, labels


def images():
    both = [*segments(), *segments(10, 1)]
    return sfl.ImageDataset.from_arrays(*both, ["background", "object"], task="tokens")


def run(dataset, config=CONFIG, model=None, **options):
    given = {"partition": PARTITION, "model": Bigram() if model is None else model}
    return sfl.run(config, dataset=dataset, **{**given, **QUIET, **options})


def log_chances(logits):
    logits = logits.astype(np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def by_position(logits, labels):
    """Cross-entropy and hits of the positions that count, one after the other."""
    places = np.argwhere(labels >= 0)
    chances = log_chances(logits)
    entropies = np.array([-chances[(*place, labels[tuple(place)])] for place in places])
    hits = np.array([logits[tuple(place)].argmax() == labels[tuple(place)] for place in places])
    return places[:, 0], entropies, hits


@pytest.mark.parametrize("shape", [(5,), (3, 4)])
def test_loss_and_figures_against_numpy_with_padding(shape):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (11, *shape, 4)).astype(np.float32)
    labels = rng.integers(-1, 4, (11, *shape)).astype(np.int32)
    labels[2] = -1
    task = make_task(CONFIG, 4)
    samples, entropies, hits = by_position(logits, labels)
    losses = [entropies[samples == n].mean() if n != 2 else 0 for n in range(11)]
    np.testing.assert_allclose(task.losses(logits, labels), losses, rtol=1e-5)
    total = None
    for start in range(0, 11, 4):  # the last batch is padded
        rows = np.arange(start, start + 4)
        taken, mask = np.minimum(rows, 10), jnp.asarray(rows < 11)
        sums = task.totals(jnp.asarray(logits[taken]), jnp.asarray(labels[taken]), mask)
        total = sums if total is None else type(sums)(*map(jnp.add, total, sums))
    found = task.checked_figures(total)
    assert set(found) == set(task.figure_shapes(4, labels))
    assert task.logits_shape(4, labels) == (*shape, 4)
    assert found["test_accuracy"] == pytest.approx(hits.mean())
    assert found["test_loss"] == pytest.approx(entropies.mean(), rel=1e-5)
    assert found["test_perplexity"] == pytest.approx(np.exp(entropies.mean()), rel=1e-5)
    predicted = task.predict(logits)
    assert predicted.dtype == np.int32
    np.testing.assert_array_equal(predicted, logits.argmax(-1))


def test_positions_that_do_not_count_have_no_gradient():
    logits = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    labels = jnp.array([[1, -1, 3], [-1, -1, -1]])
    task = make_task(CONFIG, 4)
    found = jax.grad(lambda x: task.losses(x, labels).sum())(logits)
    chances = np.exp(log_chances(logits)) - np.eye(4)[np.maximum(labels, 0)]
    expected = np.where(labels[..., None] >= 0, chances / 2, 0)  # two positions count
    np.testing.assert_allclose(found, expected, atol=1e-6)


def sgd(table, ids, labels, steps, rate):
    """The bigram's table after steps on all samples at once, and each step's loss."""
    losses = []
    for _ in range(steps):
        gradient, loss = np.zeros_like(table), 0.0
        for sample, wanted in zip(ids, labels, strict=True):
            counted = [place for place in range(LENGTH) if wanted[place] >= 0]
            for place in counted:
                chances = log_chances(table[sample[place]])
                share = 1 / (len(ids) * len(counted))
                loss -= share * chances[wanted[place]]
                gradient[sample[place]] += share * (np.exp(chances) - np.eye(K)[wanted[place]])
        losses.append(loss)
        table = table - rate * gradient
    return table, losses


def test_a_bigram_model_is_trained_as_numpy_trains_it():
    # A batch is all that a client has, so that no order matters.
    dataset, table = text(), np.random.default_rng(2).normal(size=(K, K)) / 2
    start = {"Embed_0": {"embedding": table.astype(np.float32)}}
    result = run(dataset, init_params=start)
    for row in result.history:
        trained, losses = [], []
        for own in PARTITION:
            ids, labels = dataset.train_images[own], dataset.train_labels[own]
            found = sgd(table, ids, labels, CONFIG.local_epochs, CONFIG.learning_rate)
            trained.append(len(own) / TRAIN * found[0])
            losses.append(len(own) / TRAIN * np.mean(found[1]))
        table = sum(trained)
        assert row["train_loss"] == pytest.approx(sum(losses), rel=1e-4)
        logits = table[dataset.test_images]
        _, entropies, hits = by_position(logits, dataset.test_labels)
        assert row["test_loss"] == pytest.approx(entropies.mean(), rel=1e-4)
        assert row["test_accuracy"] == pytest.approx(hits.mean())
        assert row["test_perplexity"] == pytest.approx(np.exp(entropies.mean()), rel=1e-4)
    np.testing.assert_allclose(result.params["Embed_0"]["embedding"], table, rtol=1e-4, atol=1e-5)
    assert result.summary["final_accuracy"] == result.history[-1]["test_accuracy"]
    assert set(result.summary["partition"]) == {"clients", "samples", "sizes", "gini"}


def everything(directory=None, rounds=2, **runtime):
    """A run with several batches, and with all that a run can have besides."""
    config = dataclasses.replace(
        CONFIG,
        rounds=rounds,
        batch_size=4,
        client_test=sfl.ClientTestConfig(share=0.3, every=1, fine_tune_steps=2),
    )
    return run(text(), config.with_runtime(**runtime), workdir=directory)


@pytest.fixture(scope="module")
def words():
    return everything()


def test_host_memory_is_device_memory_to_the_bit(words):
    require_same(words, everything(data_memory="host"))


def test_devices_and_clients_side_by_side_change_nothing_but_rounding(words):
    other = everything(num_devices=2, clients_per_chunk=2, data_memory="host")
    same = dict(rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **same), words.params, other.params)
    for name in ("test_loss", "global_client_loss", "fine_tuned_client_accuracy"):
        assert words.history[-1][name] == pytest.approx(other.history[-1][name], rel=1e-4)


def test_a_resumed_run_is_the_same_and_its_saved_model_predicts_the_same(words, tmp_path):
    everything(tmp_path, rounds=1)
    again = everything(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, words.params, again.params)
    dataset = text()
    predicted = words.predict(dataset.test_images)
    assert predicted.shape == (TEST, LENGTH) and predicted.dtype == np.int32
    counts = dataset.test_labels >= 0
    hits = (predicted == dataset.test_labels)[counts]
    assert hits.mean() == pytest.approx(words.history[-1]["test_accuracy"])
    words.export(tmp_path / "words.safetensors")
    for path in (tmp_path, tmp_path / "words.safetensors"):
        loaded = sfl.load_model(path, model=Bigram())
        assert loaded.class_names == LETTERS
        np.testing.assert_array_equal(loaded.predict(dataset.test_images), predicted)
        logits = loaded.logits(dataset.test_images)
        assert logits.shape == (TEST, LENGTH, K)
        np.testing.assert_array_equal(logits, words.logits(dataset.test_images))


def test_a_client_none_of_whose_test_positions_counts_is_left_out_of_the_mean():
    dataset = text()
    labels = dataset.train_labels.copy()
    labels[PARTITION[0]] = -1
    config = dataclasses.replace(CONFIG, client_test=sfl.ClientTestConfig(share=0.5, every=1))
    result = run(text(train_labels=labels), config)
    row = result.history[-1]
    assert np.isfinite(row["global_client_accuracy"]) and "diverged" not in row


def test_clients_are_the_values_of_a_column():
    speakers = np.repeat(["Ann", "Bo", "Cy"], 10)
    config = dataclasses.replace(
        CONFIG, rounds=1, partition=sfl.PartitionConfig("natural", column="speaker")
    )
    federation = make_federation(text(columns={"speaker": speakers}), config)
    assert federation.partition.sizes.tolist() == [10, 10, 10]
    assert federation.label_counts().tolist() == [[0]] * 3


def test_a_network_in_bfloat16_learns_as_well():
    class Half(nn.Module):
        @nn.compact
        def __call__(self, ids):
            return nn.Embed(K, K, dtype=jnp.bfloat16)(ids.astype(jnp.int32))

    config = dataclasses.replace(CONFIG, precision="bfloat16", rounds=4)
    losses = [row["test_loss"] for row in run(text(), config, Half()).history]
    assert losses[-1] < losses[0]


def test_segmentation_learns_which_pixels_are_of_an_object():
    dataset = images()
    config = dataclasses.replace(CONFIG, rounds=6, batch_size=4, learning_rate=0.2)
    parts = np.split(np.arange(24), 3)
    result = run(dataset, config, Pixels(), partition=parts)
    predicted = result.predict(dataset.test_images)
    assert predicted.shape == (10, 8, 8)
    counts = dataset.test_labels >= 0
    hits = (predicted == dataset.test_labels)[counts].mean()
    assert result.history[-1]["test_accuracy"] == pytest.approx(hits) and hits > 0.9
    moved = dataclasses.replace(config, augmentation=("cutout", "crop_flip"))
    with pytest.raises(sfl.ConfigError, match="augmentation must be without crop_flip where pix"):
        make_federation(dataset, moved, parts)


class Mean(nn.Module):
    """A network that returns one class a sample."""

    @nn.compact
    def __call__(self, ids):
        return nn.Dense(K)(ids)


class Tall(nn.Module):
    """Features of every position, where a term needs one row a sample."""

    @nn.compact
    def __call__(self, ids):
        features = nn.Embed(K, 3)(ids.astype(jnp.int32))
        return sfl.Outputs(nn.Dense(K)(features), features)


def test_networks_that_return_other_logits_are_refused():
    message = r"Mean must return logits \[B, 7, 6\], one for each class at each position of text"
    with pytest.raises(sfl.SemanticFLError, match=message + r", got \[B, 6\]$"):
        run(text(), model=Mean())
    halves = np.split(np.arange(24), 3)
    for name in ("linear", "resnet10"):
        config = dataclasses.replace(CONFIG, model=sfl.ModelConfig(name))
        with pytest.raises(sfl.SemanticFLError, match=r"logits \[B, 8, 8, 2\].* network of your"):
            sfl.run(config, dataset=images(), partition=halves, **QUIET)
    moon = dataclasses.replace(CONFIG, algorithm=sfl.AlgorithmConfig("moon"))
    with pytest.raises(sfl.SemanticFLError, match=r"needs features \[B, d\].*\[B, 7, 3\]: average"):
        run(text(), moon, Tall())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": {"name": "feddisco"}}, "algorithm.name=feddisco needs one class an image"),
        ({"algorithm": {"name": "fedlc"}}, "algorithm.name=fedlc needs one class an image"),
        ({"algorithm": {"weights": "disco"}}, "algorithm.weights=disco needs one class"),
        ({"guidance": {"enabled": True}}, "an anchor stands for a class"),
        ({"attack": {"name": "label_flip", "share": 0.4}}, "attack.name=label_flip needs one cl"),
        ({"attack": {"name": "backdoor", "share": 0.4}}, "attack.name=backdoor needs one class"),
        ({"aggregation": {"aggregator": "fltrust"}}, "fltrust"),
        ({"public_per_class": 3}, "public_per_class is set, but task is tokens"),
    ],
)
def test_what_goes_by_classes_is_refused(changes, message):
    with pytest.raises(sfl.ConfigError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_partitions_by_class_and_data_of_other_tasks_are_refused():
    skewed = dataclasses.replace(CONFIG, partition=sfl.PartitionConfig("dirichlet"))
    with pytest.raises(sfl.ConfigError, match=r"needs one class .* use iid"):
        make_federation(text(), skewed)
    assert make_federation(text(), skewed, PARTITION).partition.num_clients == 3
    other = dataclasses.replace(CONFIG, task="multilabel")
    with pytest.raises(sfl.SemanticFLError, match=r"int32 \[30, 7\], which fits task=tokens"):
        make_federation(text(), other)
    labels = [x > 0 for x in (text().train_labels, text().test_labels)]
    binary = text(train_labels=labels[0], test_labels=labels[1], task=None, class_names=None)
    with pytest.raises(sfl.SemanticFLError, match=r'multilabel: make it with .* task="tokens"\)'):
        make_federation(binary, CONFIG)
