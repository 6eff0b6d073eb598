"""Libraries that only some runs need: what to install is said where one of them is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from semanticfl_jax.errors import MissingDependencyError

#: Extras of setup.cfg whose libraries are imported at need.
Extra = Literal[
    "diffusion",
    "tfds",
    "prepare",
    "privacy",
    "parquet",
    "tensorboard",
    "wandb",
    "mlflow",
    "plan",
    "plan-gpu",
]


@contextmanager
def optional_imports(extra: Extra, purpose: str) -> Iterator[None]:
    """Turn a failed import in the `with` block into one line that names the extra to install.

    Libraries of a version without what is imported fail likewise: the extra bounds their versions.

    Args:
      extra: what brings the libraries that the block imports.
      purpose: what they are for, as the subject of a sentence.

    Raises:
      MissingDependencyError: in place of an ImportError.
    """
    try:
        yield
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError(missing(extra, purpose, error)) from error


def missing(extra: Extra, purpose: str, reason: object) -> str:
    """Return the line that says what is missing and what to install."""
    reason = (str(reason).splitlines() or ["import failed"])[0].rstrip(".")
    return f"{purpose} needs more libraries ({reason}): pip install 'semanticfl-jax[{extra}]'"
