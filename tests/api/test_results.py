"""A result of own data, partition, model and algorithm: predictions, features, export."""

import copy
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semanticfl_jax as sfl
from semanticfl_jax.simulation import export
from tests.api.runs import CONFIG, HALVES, QUIET
from tests.own_vit import ViT, confidence_penalty, stripes


@pytest.fixture(scope="module")
def result():
    """An own ViT on own arrays, two clients by lists, an own algorithm."""
    return sfl.run(
        CONFIG,
        dataset=stripes(),
        partition=HALVES,
        model=ViT(2),
        algorithm=confidence_penalty(0.1, 0.5),
        **QUIET,
    )


def test_a_model_data_partition_and_algorithm_of_ones_own(result):
    vit = ViT(2).init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    assert result.num_params == sum(x.size for x in jax.tree.leaves(vit))
    assert result.summary["num_params"] == result.num_params
    assert result.summary["algorithm"] == "own_entropy" and result.summary["model"] == "ViT"
    assert [row["round"] for row in result.history] == [1, 2, 3]
    assert result.workdir is None and result.batch_stats == {}


def test_predictions_are_the_networks(result):
    dataset = stripes()
    images = (dataset.test_images / 255 - np.array(dataset.mean)) / np.array(dataset.std)
    logits = ViT(2).apply({"params": result.params}, images.astype(np.float32))
    np.testing.assert_allclose(result.logits(dataset.test_images), logits, rtol=1e-4, atol=1e-5)
    predicted = result.predict(dataset.test_images)
    assert predicted.dtype == np.int32
    np.testing.assert_array_equal(predicted, np.argmax(logits, axis=-1))
    accuracy = np.mean(predicted == dataset.test_labels)
    assert accuracy == pytest.approx(result.summary["final_accuracy"])
    assert len(result.predict(dataset.test_images[:0])) == 0
    assert result.logits(dataset.test_images[:0]).shape == (0, 2)
    with pytest.raises(sfl.SemanticFLError, match=r"images must be uint8 \[n, 8, 8, 3\]"):
        result.predict(dataset.test_images / 255)


@pytest.mark.parametrize(("most", "largest"), [(10**9, 250), (8 * 100, 100)])
def test_predictions_are_made_batch_by_batch(result, monkeypatch, most, largest):
    monkeypatch.setattr(export, "_BATCH_BYTES", most)
    sizes = []

    def predict(logits):
        sizes.append(len(logits))
        return result.model.task.predict(logits)

    model = copy.copy(result.model)
    model.task = dataclasses.replace(model.task, predict=predict)
    images = np.resize(stripes().test_images, (600, 8, 8, 3))
    found = model.predict(images)
    assert sum(sizes) == 600 and max(sizes) == largest  # never the logits of all at once
    np.testing.assert_array_equal(found, np.argmax(result.logits(images), axis=-1))


class Recurrent(nn.Module):
    """A recurrent layer over the rows of an image."""

    @nn.compact
    def __call__(self, images):
        rows = images.reshape(*images.shape[:2], -1)
        return nn.Dense(2)(nn.RNN(nn.GRUCell(4))(rows)[:, -1])


def test_networks_and_terms_may_loop_from_a_constant():
    def loss(inputs):
        square = jnp.mean(inputs.outputs.logits**2, axis=-1)
        return jax.lax.fori_loop(0, 2, lambda _, total: total + jnp.mean(square), jnp.zeros(()))

    algorithm = dataclasses.replace(
        confidence_penalty(0.1, 0.5), terms=(sfl.LossTerm("square", loss),)
    )
    tests = sfl.ClientTestConfig(share=0.2, fine_tune_steps=1)
    two = sfl.RuntimeConfig(num_devices=2)
    config = dataclasses.replace(CONFIG, rounds=1, client_test=tests, runtime=two)
    given = {"dataset": stripes(), "partition": HALVES, "model": Recurrent()}
    row = sfl.run(config, algorithm=algorithm, **given, **QUIET).history[-1]
    assert np.isfinite(row["train_loss"]) and np.isfinite(row["test_loss"])
    with pytest.raises(sfl.ConfigError, match=r"config\.algorithm\.weights is set and has no eff"):
        weighted = dataclasses.replace(config, algorithm=sfl.AlgorithmConfig(weights="uniform"))
        sfl.run(weighted, algorithm=algorithm, **given, **QUIET)


class ColourMeans(nn.Module):
    """The mean of each channel, and a linear classifier of them."""

    @nn.compact
    def __call__(self, x, train=False):
        means = x.mean(axis=(1, 2))
        return sfl.Outputs(nn.Dense(2)(means), means)


def test_features_are_what_the_classifier_reads(result):
    dataset = stripes()
    found = sfl.Simulation(CONFIG, dataset=dataset, partition=HALVES, model=ColourMeans(), **QUIET)
    seen = found.result().features(dataset.test_images)
    expected = (dataset.test_images / 255 - np.array(dataset.mean)) / np.array(dataset.std)
    np.testing.assert_allclose(seen, expected.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    with pytest.raises(sfl.SemanticFLError, match="ViT returns no features"):
        result.features(dataset.test_images)


def test_an_exported_model_predicts_the_same(result, tmp_path):
    path, images = tmp_path / "model.safetensors", stripes().test_images
    result.export(path)
    loaded = sfl.load_model(path, model=ViT(2))
    np.testing.assert_array_equal(loaded.logits(images), result.logits(images))
    assert loaded.class_names == ("rows", "columns")
    with pytest.raises(sfl.SemanticFLError, match="the weights of ViT, a module of your own"):
        sfl.load_model(path)
    with pytest.raises(sfl.SemanticFLError, match=r"must be \[3\] for this model, is \[2\]"):
        sfl.load_model(path, model=ViT(3))
    with pytest.raises(sfl.SemanticFLError, match=r"writes a \.safetensors file"):
        result.export(tmp_path / "model.bin")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(sfl.SemanticFLError, match="is damaged"):
        sfl.load_model(path, model=ViT(2))
