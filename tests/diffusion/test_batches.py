"""Batches: that they do not show in the result, and that finished ones are not computed again."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.diffusion import batches

ROWS = np.arange(11.0, dtype=np.float32)


@jax.jit
def double(constant, rows, index):
    return {"value": constant["factor"] * rows, "index": index}


def run(compute=double, batch_size=8, **options):
    constant = ({"factor": jnp.float32(2)},)
    rows = (ROWS, np.arange(11))
    options = {"what": "test", "progress": False} | options
    return batches.over_batches(compute, constant, rows, batch_size, **options)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 11, 50])
@pytest.mark.parametrize("devices", [1, 8])
def test_every_row_once_and_in_order(monkeypatch, batch_size, devices):
    local = jax.local_devices()[:devices]
    monkeypatch.setattr(jax, "local_devices", lambda: local)
    found = run(batch_size=batch_size)
    np.testing.assert_array_equal(found["value"], 2 * ROWS)
    np.testing.assert_array_equal(found["index"], np.arange(11))


def fails_after(count, calls, *batch):
    calls.append(len(calls))
    if len(calls) > count:
        raise KeyboardInterrupt
    return double(*batch)


def test_finished_batches_are_kept_until_discarded(tmp_path):
    parts, calls = tmp_path / "above" / "parts", []
    with pytest.raises(KeyboardInterrupt):
        run(partial(fails_after, 1, calls), parts=parts)
    assert [path.name for path in parts.iterdir()] == ["0-8.npz"]
    calls = []
    found = run(partial(fails_after, 1, calls), parts=parts)
    assert len(calls) == 1
    np.testing.assert_array_equal(found["value"], 2 * ROWS)
    (parts / "0-8.npz").write_bytes(b"cut short")
    calls = []
    found = run(partial(fails_after, 1, calls), parts=parts)
    assert len(calls) == 1
    np.testing.assert_array_equal(found["value"], 2 * ROWS)
    batches.discard(parts)
    assert list(tmp_path.iterdir()) == []


def test_default_batch_size_falls_with_the_resolution():
    devices = len(jax.local_devices())
    assert [batches.default_batch_size(side**2) // devices for side in (8, 32, 64, 128)] == [
        128,
        8,
        2,
        1,
    ]
