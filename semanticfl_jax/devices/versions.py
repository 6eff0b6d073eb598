"""Versions of what decides a run's numbers."""

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from semanticfl_jax import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


@functools.cache
def code_commit() -> str | None:
    """Return the commit that the package runs from, "-dirty" with changes; None without git."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(
            [*command, "--abbrev=10"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "semanticfl_jax": __version__}
