"""Labels with a class at each position: what a data set makes of them, and what it refuses."""

import numpy as np
import pytest

from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.errors import SemanticFLError

RNG = np.random.default_rng(0)
IDS, TEST_IDS = (RNG.integers(0, 50, (n, 7)) for n in (30, 9))
LABELS, TEST_LABELS = (RNG.integers(-1, 6, (n, 7)) for n in (30, 9))
LABELS[0, 0] = 5
NAMES = tuple("abcde ")


def make(**changes):
    arrays = {"train_images": IDS, "train_labels": LABELS}
    arrays |= {"test_images": TEST_IDS, "test_labels": TEST_LABELS}
    arrays |= {"class_names": NAMES, "task": "tokens"}
    return ImageDataset.from_arrays(**{**arrays, **changes})


def test_they_are_kept_as_int32_with_a_name_for_each_class():
    dataset = make()
    assert dataset.labels == "tokens" and not dataset.has_classes
    assert dataset.class_names == NAMES  # a space is a token, too
    assert dataset.train_labels.dtype == dataset.test_labels.dtype == np.int32
    np.testing.assert_array_equal(dataset.train_labels, LABELS)
    assert make(class_names=[*NAMES, "z"]).num_classes == 7
    unnamed = make(class_names=None)
    assert unnamed.class_names == tuple(f"class {number}" for number in range(6))
    two_axes = {"train_labels": LABELS[:, None], "test_labels": TEST_LABELS[:, None]}
    assert make(**two_axes).labels == "tokens"


def test_labels_are_tokens_only_where_a_task_says_so():
    zero_or_one = {"train_labels": (LABELS > 0) * 1, "test_labels": (TEST_LABELS > 0) * 1}
    assert make(**zero_or_one, class_names=None, task=None).labels == "binary"
    assert make(**zero_or_one, class_names=None).labels == "tokens"
    assert make(class_names=None, task="regression").labels == "numbers"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_labels": LABELS / 2},
            r"from 0, -1 where .*, \[n, ...\], with n = 30, got float64",
        ),
        ({"train_labels": LABELS[:-1]}, r"with n = 30, got int64 \[29, 7\]"),
        ({"train_labels": LABELS[:, 0]}, r"\[n, ...\], with n = 30, got int64 \[30\]"),
        ({"train_labels": LABELS[:, :0]}, r"with n = 30, got int64 \[30, 0\]"),
        ({"train_labels": LABELS > 0}, r"got bool \[30, 7\]"),
        ({"train_labels": LABELS - 1}, "at least 0, or -1 where a position does not count, got -2"),
        ({"train_labels": LABELS * 0 - 1}, "train_labels must have a position that counts"),
        ({"test_labels": TEST_LABELS * 0 - 1}, "test_labels must have a position that counts"),
        ({"train_labels": LABELS + 2**31}, "train_labels must be below 2.31, got"),
        (
            {"test_labels": TEST_LABELS[:, :5]},
            r"positions of train_labels, \[7\] a sample, got \[5",
        ),
        ({"class_names": NAMES[:4]}, "labels go to 5, there are 4 names"),
        ({"class_names": ("a", "", *"cdef")}, "must be different texts, none of them empty"),
        (
            {"class_names": None, "train_labels": np.maximum(LABELS, 0) * 999},
            "labels go to 4995, and there are 210 training positions that count",
        ),
        ({"task": None}, 'others than 0 and 1; labels with a class at each position need task="to'),
        (
            {"train_labels": LABELS[:, None], "test_labels": TEST_LABELS[:, None], "task": None},
            r'must be 0 or 1, \[n, K\], .* got int64 \[30, 1, 7\]; .* need task="tokens"',
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(SemanticFLError, match=message):
        make(**changes)
