"""JAX's persistent compilation cache: where programs are kept, and how many were found in it."""

import contextlib
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

from semanticfl_jax.files import compiled_programs

_found = 0


def _count(event: str, **details: str | int) -> None:
    del details
    global _found
    _found += event == "/jax/compilation_cache/cache_hits"


jax.monitoring.register_event_listener(_count)


def found_in_cache() -> int:
    """Return the number of programs found so far, in this process."""
    return _found


@contextlib.contextmanager
def programs_kept() -> Iterator[None]:
    """Keep what is compiled inside the `with` block where the commands keep it.

    JAX compiles a program anew for each simulation of a process, which its own cache avoids. Where
    the user's code says where programs are kept, they are kept there.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        yield
        return
    _keep(str(compiled_programs()))
    try:
        yield
    finally:
        _keep(None)


def _keep(directory: str | None) -> None:
    jax.config.update("jax_compilation_cache_dir", directory)
    compilation_cache.reset_cache()  # JAX reads the setting once
