"""Configuration files: found by name, run or read, and named where they fail."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import semanticfl_jax
from semanticfl_jax.config import ConfigError, to_dict
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.paths import local_path

CONFIGS = Path(__file__).parent / "configs"
_OURS = (str(Path(__file__).parent), str(Path(semanticfl_jax.__file__).parent))


def find_config(name: str) -> Path:
    """Return the path of a configuration file: as given, else of that name among the installed."""
    path = local_path(name, "--config")
    if path.is_file():
        return path
    stem = path.name.removesuffix(".py")
    installed = CONFIGS / f"{stem}.py"
    if (name == stem or path.parent == Path("launch/configs")) and installed.is_file():
        return installed
    known = sorted(each.stem for each in CONFIGS.glob("*.py") if each.stem != "__init__")
    raise ConfigError(f"--config={name}: no such file. Installed: {', '.join(known)}")


def read_config(path: Path) -> dict[str, Any]:
    """Return the plain values of what a configuration file's `get_config()` returns."""
    if path.suffix == ".json":
        return _read_json(path)
    with as_one_line(f"--config={path}"):
        return _run_file(path)


def _run_file(path: Path) -> dict[str, Any]:
    """Run a configuration file; return the plain values of what its `get_config()` returns."""
    if path.resolve().parent == CONFIGS.resolve():
        module = importlib.import_module(f"{__package__}.configs.{path.stem}")
    else:
        spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"--config={path} must be a Python file that defines get_config()")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for the types of their fields
        spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
        raise ConfigError(f"--config={path} must define get_config()")
    config = module.get_config()
    if dataclasses.is_dataclass(config):
        return to_dict(config)
    if hasattr(config, "to_dict"):  # a ConfigDict
        return config.to_dict()
    if isinstance(config, Mapping):
        return dict(config)
    raise ConfigError(
        f"--config={path}: get_config() must return an ExperimentConfig, got "
        f"{type(config).__name__}"
    )


def _read_json(path: Path) -> dict[str, Any]:
    """Return the plain values in a JSON file, as a run's config.json."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--config={path} is no JSON file: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"--config={path} must hold a JSON object, got {type(values).__name__}")
    return values


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; raise `ValueError` where it has a name twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return values


@contextlib.contextmanager
def as_one_line(what: str) -> Iterator[None]:
    """Turn whatever a user's own file raises into `ConfigError`, which names the place."""
    try:
        yield
    except (SemanticFLError, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise ConfigError(f"{what} ends the program (sys.exit, status {error.code})") from None
    except Exception as error:
        if isinstance(error, SyntaxError) and error.filename is None:
            raise ConfigError(f"{what} is no Python file: {error.msg}") from None
        if isinstance(error, SyntaxError):
            file, line, reason = error.filename, error.lineno, error.msg
        else:
            frames = traceback.extract_tb(error.__traceback__)
            theirs = [f for f in frames if not f.filename.startswith((*_OURS, "<frozen"))]
            frame = (theirs or frames)[-1]
            file, line, reason = frame.filename, frame.lineno, f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{what}: {file}, line {line}: {reason} (--debug shows the traceback)"
        ) from error
