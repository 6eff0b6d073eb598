"""Shared by all tests: eight fake CPU devices, and JAX's strictest reading of our code.

SEMANTICFL_TEST_PLATFORM=cuda,cpu runs those marked `accelerator` on a GPU instead.
"""

import os
from pathlib import Path

# Tests compile many programs and run each briefly. Compiling takes most of their time, hence:
_XLA_FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    # One LLVM module a program, not one a thread.
    "--xla_cpu_parallel_codegen_split_count=1",
    # Loops emitted as before XLA's MLIR emitters, which take three times as long to compile.
    # JAX 0.12 has no other emitters, and does not read this.
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters",
)
_PLATFORM = os.environ.get("SEMANTICFL_TEST_PLATFORM", "cpu")
if _PLATFORM == "cpu":
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_XLA_FLAGS]).strip()
os.environ["JAX_PLATFORMS"] = _PLATFORM
os.environ["PJRT_NPROC"] = "16"  # see semanticfl_jax/devices/cpu_threads.py

# Tests, test processes and commands started by tests find each other's programs, and those of the
# runs before. JAX names programs by their text, the flags and its version.
_PROGRAMS = Path(__file__).parents[1] / ".pytest_cache" / "xla"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_PROGRAMS))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

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
def two_layers():
    """The same federation with a network of two layers, one of them with running means."""
    from tests.federation import CLASSES, SIZES, TwoLayers, make_federation

    return make_federation(TwoLayers(CLASSES), SIZES)


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
