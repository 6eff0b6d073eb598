"""Shared by all tests: eight fake CPU devices, and JAX's strictest reading of our code."""

import os

# Tests compile many programs and run each briefly: less optimisation halves their time.
_XLA_FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_XLA_FLAGS]).strip()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["PJRT_NPROC"] = "9"  # see semanticfl_jax/devices/cpu_threads.py

from pathlib import Path

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def goldens():
    """The directory with the small Stable Diffusion checkpoints sd1 and sd2."""
    return Path(__file__).parent / "diffusion" / "goldens"


@pytest.fixture(scope="session")
def federation():
    """The small ragged federation of `tests.federation`."""
    from tests.federation import CLASSES, SIZES, TinyNet, make_federation

    return make_federation(TinyNet(CLASSES), SIZES)


@pytest.fixture(scope="session")
def anchors():
    """Made up, for the federation's classes and network."""
    from semanticfl_jax.semantics.anchors import Anchors
    from tests.federation import CLASSES

    rng = np.random.default_rng(1)
    visual, text = rng.normal(size=(CLASSES, 6)), rng.normal(size=(CLASSES, 6))
    visual, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (visual, text))
    return Anchors(visual.astype(np.float32), text.astype(np.float32), tuple("abcd"), {}, {}, 0)


@pytest.fixture(scope="session")
def guided(federation, anchors):
    """SemanticFL on the federation."""
    from semanticfl_jax.algorithms import guidance_term
    from semanticfl_jax.config import GuidanceConfig
    from tests.federation import FEDAVG

    term = guidance_term(anchors, GuidanceConfig(lambda_con=0.5), federation.model.feature_dim)
    return FEDAVG.with_term(term)
