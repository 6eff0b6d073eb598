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
os.environ["PJRT_NPROC"] = "9"  # see semanticfl_jax/cpu_threads.py

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
