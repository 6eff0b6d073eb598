import numpy as np
import pytest
from sklearn.datasets import load_digits

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data import sources
from semanticfl_jax.data.sources import cifar, image_folder, load_dataset
from semanticfl_jax.registry import DATASETS
from tests.built_in import built_in


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", None)


def test_digits_shapes(digits):
    assert digits.train_images.shape == (1437, 32, 32, 3)
    assert digits.test_images.shape == (360, 32, 32, 3)
    assert digits.train_images.dtype == digits.test_images.dtype == np.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == np.int32
    assert digits.num_classes == 10 and digits.class_names[7] == "digit seven"


def test_digits_are_scikit_learns(digits):
    """Averaging 4x4 blocks gives back the 8x8 pixels, blurred by the interpolation."""
    images = np.concatenate([digits.train_images[:100], digits.test_images[:100]])[..., 0]
    labels = np.concatenate([digits.train_labels[:100], digits.test_labels[:100]])
    original = load_digits()
    coarse = images.reshape(-1, 8, 4, 8, 4).mean((2, 4)).reshape(-1, 64)
    # A block keeps 3/4 of its pixel and takes 1/8 of each neighbour, on both axes.
    blur = (
        np.diag(np.full(8, 0.75)) + np.diag(np.full(7, 0.125), 1) + np.diag(np.full(7, 0.125), -1)
    )
    blur[0, 0] = blur[-1, -1] = 0.875
    expected = (blur @ (original.images * 255 / 16) @ blur.T).reshape(-1, 64)
    distance = np.abs(coarse[:, None] - expected[None, :]).max(-1)
    assert len(set(distance.argmin(1))) == 200
    assert distance.min(1).max() < 1
    np.testing.assert_array_equal(original.target[distance.argmin(1)], labels)


def test_digits_split_is_stratified_and_fixed(digits):
    assert np.bincount(digits.test_labels).min() >= 34
    assert np.bincount(digits.test_labels).max() <= 38
    again = load_dataset("digits", None)
    np.testing.assert_array_equal(again.test_images, digits.test_images)


def test_normalisation_is_in_units_of_one(digits):
    pixels = digits.train_images / 255.0
    np.testing.assert_allclose(digits.mean, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(digits.std, pixels.std((0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_names_and_normalisation(name, monkeypatch):
    splits = dict.fromkeys(("train_images", "train_labels", "test_images", "test_labels"))
    columns = {"coarse_label": np.arange(3)}
    loaded = {**splits, "class_names": ("aquarium_fish", "bee"), "columns": columns}
    monkeypatch.setattr(cifar, "load_prepared", lambda name, data_dir: dict(loaded))
    dataset = load_dataset(name, None)
    assert dataset.name == name and dataset.class_names == ("aquarium fish", "bee")
    assert dataset.columns is columns
    means = {"cifar10": (0.4914, 0.4824, 0.4467), "cifar100": (0.507, 0.487, 0.441)}
    stds = {"cifar10": (0.2471, 0.2435, 0.2616), "cifar100": (0.267, 0.256, 0.276)}
    np.testing.assert_allclose(dataset.mean, means[name], atol=1e-4)
    np.testing.assert_allclose(dataset.std, stds[name], atol=1e-4)


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=", ".join(DATASETS)):
        load_dataset("cifar11", None)


@pytest.mark.parametrize("name", [name for name in built_in(DATASETS) if "folder" not in name])
def test_only_folders_of_images_are_resized(name):
    with pytest.raises(ValueError, match=f"image_size is set, but dataset is {name}"):
        load_dataset(name, None, image_size=32)


def test_the_configuration_says_what_is_loaded(monkeypatch):
    asked = []

    def load(data_dir, **options):
        asked.append((data_dir, options))
        names = {"class_names": ("a_b",), "mean": (0.5,) * 3, "std": (0.5,) * 3}
        splits = dict.fromkeys(("train_images", "train_labels", "test_images", "test_labels"))
        return {**splits, **names}

    monkeypatch.setattr(image_folder, "load_image_folder", load)
    config = ExperimentConfig(
        dataset="image_folder", data_dir="d", image_size=24, unreadable="skip"
    )
    assert sources.from_config(config).class_names == ("a b",)
    assert asked == [("d", {"image_size": 24, "unreadable": "skip", "column": None})]
    with pytest.raises(ValueError, match="unreadable must be one of refuse, skip"):
        load_dataset("digits", None, unreadable="ignore")
