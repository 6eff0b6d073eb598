"""The start of JAX, which fails in many ways where an accelerator is asked for and not there."""

import os

from semanticfl_jax.errors import SemanticFLError


def start_jax() -> None:
    """Start JAX's backend, unless it has been.

    Raises:
      SemanticFLError: in one line, if it does not start.
    """
    import jax

    try:
        jax.devices()
    except Exception as error:  # RuntimeError, AssertionError, and what plug-ins raise
        raise SemanticFLError(cannot_start(error)) from error


def cannot_start(error: BaseException) -> str:
    """Return one line for an error of JAX's start; it needs no JAX."""
    text, asked = " ".join(str(error).split())[:200], os.environ.get("JAX_PLATFORMS")
    line = f"JAX cannot start ({type(error).__name__}{': ' if text else ''}{text}); "
    if not asked:
        return line + "see whether the driver and the installed jax fit, or set JAX_PLATFORMS=cpu"
    return line + (
        f"JAX_PLATFORMS={asked} asks for a device that is not there, or whose plug-in for JAX is "
        "not installed; unset it, or set JAX_PLATFORMS=cpu"
    )
