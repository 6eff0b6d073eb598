"""Models loaded from the goldens, once for all tests of this folder."""

from pathlib import Path

import numpy as np
import pytest

from semanticfl_jax.diffusion.stable_diffusion import load

GOLDENS = Path(__file__).parent / "goldens"


def golden(name):
    with np.load(GOLDENS / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="session")
def sd1():
    """SD 1.x: `.fp16.safetensors` weights, and what PyTorch computes with them."""
    return load(GOLDENS / "sd1"), golden("sd1")


@pytest.fixture(scope="session")
def sd2():
    """SD 2.x: `.safetensors` weights, and what PyTorch computes with them."""
    return load(GOLDENS / "sd2"), golden("sd2")


@pytest.fixture(scope="session", params=["sd1", "sd2"])
def model(request):
    """Either of them."""
    return request.getfixturevalue(request.param)
