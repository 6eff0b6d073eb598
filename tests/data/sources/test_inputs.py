"""Inputs that are no images: what is kept of them, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.errors import SemanticFLError

RNG = np.random.default_rng(0)
PICTURES, TEST_PICTURES = (RNG.integers(0, 256, (n, 4, 5, 3), dtype=np.uint8) for n in (9, 4))
LABELS, TEST_LABELS = np.arange(9) % 3, np.arange(4) % 3
ROWS, TEST_ROWS = RNG.normal(size=(9, 6)), RNG.normal(size=(4, 6))


def make(train=ROWS, test=TEST_ROWS, **changes):
    return ImageDataset.from_arrays(train, LABELS, test, TEST_LABELS, **changes)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", jnp.bfloat16])
@pytest.mark.parametrize("shape", [(6,), (3, 2), (2, 3, 1), (1, 3, 2, 1)])
def test_floats_are_float32_in_their_own_shape(dtype, shape):
    given, tested = (rows.reshape(-1, *shape).astype(dtype) for rows in (ROWS, TEST_ROWS))
    dataset = make(given, tested)
    for found, values in ((dataset.train_images, given), (dataset.test_images, tested)):
        assert found.dtype == np.float32 and found.dtype.isnative
        np.testing.assert_array_equal(found, values.astype(np.float32))
    assert (dataset.image_shape, dataset.mean, dataset.std) == (shape, (), ())
    assert not dataset.has_images and not dataset.own_moments


def test_floats_of_jax_and_memory_maps_do_and_float32_is_not_copied(tmp_path):
    whole = make(jnp.asarray(ROWS, jnp.bfloat16), jnp.asarray(TEST_ROWS, jnp.bfloat16))
    assert whole.train_images.dtype == np.float32
    np.save(tmp_path / "rows.npy", ROWS.astype(np.float32))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert np.shares_memory(make(mapped).train_images, mapped)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int64", "uint16", "uint32", "uint64"])
def test_whole_numbers_are_int32(dtype):
    ids = np.arange(9 * 7).reshape(9, 7)
    dataset = make(ids.astype(dtype), ids[:4].astype(dtype))
    assert dataset.train_images.dtype == dataset.test_images.dtype == np.int32
    np.testing.assert_array_equal(dataset.train_images, ids)


def test_the_largest_whole_numbers_are_exact_in_float32():
    ids = np.full((9, 2), 2**24)
    ids[0] = [-(2**24), 2**24 - 1]
    found = make(ids, ids[:4]).train_images.astype(np.float32)
    np.testing.assert_array_equal(found.astype(np.int64), ids)


def spoilt(value, row, dtype="float64"):
    rows = ROWS.astype(dtype)
    rows[row, 2] = value
    return rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train": spoilt(np.nan, 5)},
            r"train_images must be finite in float32, train_images\[5\]",
        ),
        ({"train": spoilt(-np.inf, 0, "float16")}, r"train_images\[0\] is not"),
        ({"train": spoilt(1e39, 3)}, r"train_images must be finite in float32"),
        ({"test": spoilt(np.nan, 2)[:4]}, r"test_images must be finite in float32, test_images\[2"),
        ({"train": np.full((9, 2), 2**24 + 1)}, "train_images must be from -2.24 to 2.24"),
        ({"train": np.full((9, 2), -(2**24) - 1)}, "got -16777217 to -16777217"),
        ({"train": np.full((9, 2), 2**63, np.uint64)}, "got 9223372036854775808 to 9223372"),
        (
            {"train": ROWS > 0},
            r"must be uint8 .n, H, W, 3., .*or float32 or int32 .*got bool .9, 6",
        ),
        ({"train": ROWS * 1j}, "as they are; got complex128"),
        ({"train": ROWS.astype(str)}, "as they are; got <U"),
        ({"train": ROWS.astype(object)}, "as they are; got object"),
        ({"train": ROWS[:, 0]}, r"as they are; got float64 \[9\]"),
        ({"train": ROWS[:, :0]}, r"as they are; got float64 \[9, 0\]"),
        ({"test": TEST_ROWS[:0]}, r"test_images is empty, float64 \[0, 6\]: it must have one"),
        ({"train": np.float64(1)}, r"as they are; got float64 \[\]"),
        ({"train": np.uint8(1)}, r"as they are; got uint8 \[\]"),
        ({"train": PICTURES.reshape(9, -1)}, r"or float32 or int32 .*; got uint8 \[9, 60\]"),
        ({"train": PICTURES[..., :2]}, r"or float32 or int32 .*; got uint8 \[9, 4, 5, 2\]"),
        ({"train": PICTURES[:, None]}, r"or float32 or int32 .*; got uint8 \[9, 1, 4, 5, 3\]"),
        ({"test": TEST_ROWS[:, :5]}, r"test_images must be as large as train_images, \(6,\)"),
        ({"test": np.ones((4, 6), int)}, "test_images must be float32, as train_images, got int32"),
        (
            {"train": PICTURES, "test": TEST_PICTURES / 255},
            "test_images must be uint8, as train_images, got float32",
        ),
        ({"mean": (0.5,) * 3}, "mean must be left out with inputs of float32.*standardise them"),
        ({"std": (0.5,) * 6}, "std must be left out with inputs of float32"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(SemanticFLError, match=message):
        make(**changes)


def test_fingerprints_tell_types_apart_and_those_of_images_are_as_before():
    numbers = np.arange(9 * 6, dtype=np.int32).reshape(9, 6)
    others = [make(), make(numbers, numbers[:4])]
    # The same bytes, shapes and labels.
    same_bytes = numbers.view(np.float32)
    others.append(make(same_bytes, same_bytes[:4]))
    assert len({dataset.fingerprint() for dataset in others}) == 3
    # As it was when there were images alone.
    assert make(PICTURES, TEST_PICTURES).fingerprint() == "fecca734242b30ad"
