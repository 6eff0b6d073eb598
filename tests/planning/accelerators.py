"""Parameters of tests: accelerators that are not there, skipped where nothing compiles for them."""

import importlib.util

import pytest

from semanticfl_jax.planning.topology import has_cuda_plugin


def _where(marker, installed, name):
    skip = pytest.mark.skipif(not installed, reason=f"nothing compiles for {name} here")
    return pytest.param(name, marks=(marker, skip))


ACCELERATORS = [
    _where(pytest.mark.tpu_aot, importlib.util.find_spec("libtpu") is not None, "v5e:2x2"),
    _where(pytest.mark.gpu_aot, has_cuda_plugin(), "h100:4"),
]
