"""States of a process's clients in its memory: rows, and the files of its checkpoints."""

import jax
import numpy as np
import pytest

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.host_rows import HostRows

ONE = {"zeros": np.zeros((2, 3), np.float32), "ones": np.ones((), np.int32)}
CLIENTS = 5


def everyone(rows):
    return rows.take(np.arange(CLIENTS))


def saved_rounds(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


@pytest.fixture
def done(tmp_path):
    """Rows after rounds 1 to 3, saved after each; and what NumPy has after each, from 0."""
    rows, rng = HostRows(ONE, CLIENTS, tmp_path), np.random.default_rng(0)
    expected = [jax.tree.map(lambda x: np.repeat(x[None], CLIENTS, axis=0), ONE)]
    for number in (1, 2, 3):
        ids, after = rng.permutation(CLIENTS)[:2], jax.tree.map(np.copy, expected[-1])
        new = {
            "zeros": rng.normal(size=(2, 2, 3)).astype(np.float32),
            "ones": rng.integers(9, 99, 2),
        }
        for name, array in after.items():
            array[ids] = new[name]
        rows.put(ids, new, number)
        rows.save(number)
        expected.append(after)
    return rows, expected


def test_rows_are_those_of_the_last_round_or_of_one_that_was_saved(done, tmp_path):
    rows, expected = done
    jax.tree.map(np.testing.assert_array_equal, everyone(rows), expected[3])
    again = HostRows(ONE, CLIENTS, tmp_path)
    assert jax.tree.leaves(again) == [] and again.row_bytes == 2 * 3 * 4 + 4
    for number in (0, 2, 3, 1):
        again.roll_back(number)
        jax.tree.map(np.testing.assert_array_equal, everyone(again), expected[number])


def test_files_go_with_their_checkpoints(done, tmp_path):
    rows, _ = done
    rows.forget(2)
    assert saved_rounds(tmp_path) == ["2.npz", "3.npz"]
    with pytest.raises(SemanticFLError, match=r"1\.npz is missing"):
        rows.roll_back(1)


def test_a_damaged_file_is_not_read_as_rows(done, tmp_path):
    rows, _ = done
    path = tmp_path / "3.npz"
    content = bytearray(path.read_bytes())
    content[200] ^= 1  # a number of the first array
    path.write_bytes(content)
    with pytest.raises(Exception, match="Bad CRC"):
        rows.roll_back(3)
