"""Versions of what decides a run's numbers."""

import importlib.metadata
import platform

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "semanticfl-jax")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package.replace("-", "_")] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package.replace("-", "_")] = "not installed"
    return found
