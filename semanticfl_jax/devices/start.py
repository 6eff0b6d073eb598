"""The start of JAX, which fails in many ways where an accelerator is asked for and not there."""

import os

import jax

from semanticfl_jax.errors import SemanticFLError


def start_jax() -> None:
    """Start JAX's backend, unless it has been.

    Raises:
      SemanticFLError: in one line, if it does not start.
    """
    try:
        jax.devices()
    except Exception as error:  # RuntimeError, AssertionError, and what plug-ins raise
        asked = os.environ.get("JAX_PLATFORMS")
        reason = str(error).strip().splitlines()
        why = f": {reason[0]}" if reason else ""
        advice = (
            f"JAX_PLATFORMS={asked} asks for a device that is not there, or whose JAX plug-in is "
            "not installed; unset it, or set JAX_PLATFORMS=cpu"
            if asked
            else "see whether the driver and the installed jax fit, or set JAX_PLATFORMS=cpu"
        )
        raise SemanticFLError(
            f"JAX cannot start ({type(error).__name__}{why}); {advice}"
        ) from error
