"""Data sets made of arrays."""

import numpy as np
import pytest

from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.errors import SemanticFLError

RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(0, 256, (n, 4, 5, 3), dtype=np.uint8) for n in (9, 4))
LABELS, TEST_LABELS = np.arange(9) % 3, np.arange(4) % 3


def make(**changes):
    arrays = {"train_images": TRAIN, "train_labels": LABELS}
    arrays |= {"test_images": TEST, "test_labels": TEST_LABELS}
    return ImageDataset.from_arrays(**{**arrays, **changes})


def test_what_is_not_given_follows_from_the_training_images():
    dataset = make()
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    np.testing.assert_allclose(dataset.mean, TRAIN.mean((0, 1, 2)) / 255)
    np.testing.assert_allclose(dataset.std, TRAIN.std((0, 1, 2)) / 255)
    assert dataset.train_labels.dtype == np.int32
    named = make(class_names=["a", "b", "c"], mean=(0.5,) * 3, std=(0.2,) * 3)
    assert (named.class_names, named.mean) == (("a", "b", "c"), (0.5,) * 3)
    assert dataset.own_moments and not named.own_moments


def test_one_channel_is_repeated():
    grey = make(train_images=TRAIN[..., 0], test_images=TEST[..., :1])
    np.testing.assert_array_equal(grey.train_images, np.repeat(TRAIN[..., :1], 3, axis=-1))
    np.testing.assert_array_equal(grey.test_images, np.repeat(TEST[..., :1], 3, axis=-1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": TRAIN > 9}, "train_images must be uint8 .n, H, W, 3., from 0 to 255"),
        ({"test_images": TEST[:, :3]}, "test_images must be as large as train_images"),
        ({"train_labels": LABELS[:-1]}, "train_labels must be whole numbers, one an image, .9."),
        ({"train_labels": LABELS / 2}, "train_labels must be whole numbers"),
        (
            {"train_labels": LABELS[:, None], "test_labels": TEST_LABELS[:, None]},
            r"others than 0 and 1; classes, one an image, are \[n\]: flatten them",
        ),
        ({"test_labels": TEST_LABELS - 1}, "test_labels must be at least 0, got -1"),
        ({"class_names": ["a", "b"]}, "labels go to 2, there are 2 names"),
        ({"train_labels": LABELS + 2**32}, "train_labels must be below 2.31, got 4294967298"),
        ({"train_labels": LABELS * 10**6}, "labels go to 2000000, and there are 9 training imag"),
        ({"class_names": ["a", "b", "a"]}, "class_names must be different texts.*a several times"),
        ({"class_names": "abc"}, "class_names must be different texts.*got 'abc'"),
        ({"class_names": ["a", " ", "c"]}, "class_names must be different texts, none of them emp"),
        ({"mean": (0.1, 0.2)}, "mean must be three finite numbers, one a channel, got"),
        ({"mean": (0.1, 0.2, np.nan)}, "mean must be three finite numbers"),
        ({"std": (0.1, 0.2, 0)}, "std must be three finite numbers above 0"),
        (
            {
                "train_labels": LABELS * 1e300,
                "test_labels": TEST_LABELS * 1.0,
                "task": "regression",
            },
            "train_labels must be finite in float32",
        ),
        ({"train_labels": LABELS * 1j, "test_labels": TEST_LABELS * 1j}, "must be numbers, .n."),
        ({"columns": {"writer": [1, 2]}}, "columns: writer must be one value an image, .9."),
        (
            {"columns": {"writer": np.array(["a", None, *"bcdefgh"], object)}},
            "columns: writer must be whole numbers or texts, none missing, got object",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(SemanticFLError, match=message):
        make(**changes)


def test_columns_may_be_lists_and_arrays_of_texts():
    texts = list("aabbccdde")
    for given in (texts, np.array(texts), np.array(texts, object)):
        found = make(columns={"writer": given}).columns["writer"]
        assert found.dtype.kind == "U" and found.tolist() == texts


def test_a_fingerprint_tells_data_apart():
    images = TRAIN.copy()
    images[3, 0, 0, 0] ^= 1
    others = [
        make(train_images=images),
        make(train_labels=LABELS[::-1].copy()),
        make(mean=(0.1,) * 3),
    ]
    prints = {dataset.fingerprint() for dataset in (make(), make(), *others)}
    assert len(prints) == 4
