"""The alignment encoder against PyTorch (`make_goldens.py`), and the cache of its features."""

import os
import pickle
from pathlib import Path

import jax
import numpy as np
import pytest

from semanticfl_jax.config import ConfigError
from semanticfl_jax.pretraining import encoder, torch_file

GOLDENS = Path(__file__).parent / "goldens"
features = jax.jit(encoder.features, static_argnums=2)


def test_features_agree_with_pytorch():
    params = encoder.convert(torch_file.read_tensors(GOLDENS / "lite.pth"))
    with np.load(GOLDENS / "lite.npz") as golden:
        found = features(params, golden["images"], 48)
        assert golden["features"].std() > 0.1
        np.testing.assert_allclose(found, golden["features"], rtol=1e-3, atol=1e-3)


def test_tensors_have_their_shapes_and_types():
    tensors = torch_file.read_tensors(GOLDENS / "lite.pth")
    assert tensors["_conv_stem.weight"].shape == (4, 3, 3, 3)
    assert tensors["_blocks.3._depthwise_conv.weight"].shape == (24, 1, 5, 5)
    assert tensors["_bn0.num_batches_tracked"].dtype == np.int64
    assert all(tensors[name].dtype == np.float32 for name in tensors if name.endswith("weight"))


class Call:
    """Its pickle calls a function as soon as it is run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_is_never_run(tmp_path):
    values = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, Call(str(tmp_path / "ran"))]
    (tmp_path / "bad.pth").write_bytes(b"".join(pickle.dumps(value, 2) for value in values))
    with pytest.raises(ValueError, match="calls 'posix mkdir'"):
        torch_file.read_tensors(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(values[3]))
    assert (tmp_path / "ran").exists()
    (tmp_path / "text.pth").write_bytes(b"not a pickle")
    with pytest.raises(ValueError, match="not an old PyTorch file"):
        torch_file.read_tensors(tmp_path / "text.pth")


def test_features_are_cached_and_resumed(tmp_path):
    params = encoder.convert(torch_file.read_tensors(GOLDENS / "lite.pth"))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)

    def cached(key, load):
        return encoder.cached_features(pixels, 32, tmp_path / "f.npz", key, load, batch_size=2)

    found = cached("a", lambda: params)
    both = [features(params, side, 32) for side in (pixels, pixels[:, :, ::-1])]
    np.testing.assert_allclose(found, np.mean(both, 0), atol=1e-2)
    assert found.dtype == np.float16
    assert list(tmp_path.iterdir()) == [tmp_path / "f.npz"]
    np.testing.assert_array_equal(cached("a", None), found)
    with pytest.raises(TypeError):
        cached("b", None)


def test_whitened_features_are_principal_components():
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(60, 6)) @ rng.normal(size=(6, 6)) + 1).astype(np.float32)
    train, val = encoder.whitened(rows[:40], rows[40:], 3)
    pca = PCA(3, whiten=True).fit(rows[:40])
    # scikit-learn divides by n - 1; signs are free.
    factor = np.sqrt(40 / 39)
    np.testing.assert_allclose(np.abs(train), np.abs(pca.transform(rows[:40])) * factor, rtol=1e-3)
    np.testing.assert_allclose(np.abs(val), np.abs(pca.transform(rows[40:])) * factor, rtol=1e-3)
    np.testing.assert_allclose(train.std(0), 1, rtol=1e-4)
    with pytest.raises(ConfigError, match=r"alignment_encoder_dim must be at most 6, .* got 7"):
        encoder.whitened(rows[:40], rows[40:], 7)
