"""Plug-ins: modules that register models, algorithms, data sets and more of their own.

A command loads those named by `--plugin=MODULE`. Installed packages that name modules in the entry
point group `semanticfl_jax.plugins` are loaded when a name is looked up that is not built in, or
when all names are listed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import semanticfl_jax.config  # noqa: F401 - registers what is built in, which names must not repeat
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.paths import path_or_name
from semanticfl_jax.registry import (
    AGGREGATORS,
    ALGORITHMS,
    ATTACKS,
    DATASETS,
    LOGGERS,
    MODELS,
    OPTIMIZERS,
    PARTITIONS,
    PRIVACY,
    SCHEDULES,
    SERVER_OPTIMIZERS,
    TASKS,
    TRANSFORMS,
)

GROUP = "semanticfl_jax.plugins"

register_model = MODELS.register
register_algorithm = ALGORITHMS.register
register_dataset = DATASETS.register
register_partition = PARTITIONS.register
register_attack = ATTACKS.register
register_privacy = PRIVACY.register
register_aggregator = AGGREGATORS.register
register_transform = TRANSFORMS.register
register_optimizer = OPTIMIZERS.register
register_server_optimizer = SERVER_OPTIMIZERS.register
register_schedule = SCHEDULES.register
register_task = TASKS.register
register_logger = LOGGERS.register


def load_plugins(modules: Sequence[str]) -> None:
    """Import modules that register entries.

    Args:
      modules: names, as of `import`, which are also looked for in the current directory; or paths
        of .py files.

    Raises:
      SemanticFLError: for a module that is not there. What a module itself raises is passed on.
    """
    for name in modules:
        path = Path(path_or_name(name, "--plugin"))
        if path.suffix == ".py":
            _load_file(path)
            continue
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise SemanticFLError(
                f"--plugin={name}: there is no module {error.name}; looked for in {Path.cwd()} and "
                "where Python looks for modules"
            ) from None


def _load_file(path: Path) -> None:
    if not path.is_file():
        raise SemanticFLError(f"--plugin={path}: no such file")
    name = path.stem
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path.resolve()):
        return
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None  # of a .py file there is one
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


_installed_are_loaded = False


def load_installed() -> None:
    """Import the plug-ins of installed packages, once.

    Raises:
      SemanticFLError: for one that cannot be imported, naming its package.
    """
    global _installed_are_loaded
    if _installed_are_loaded:
        return
    _installed_are_loaded = True  # before: a plug-in may look names up while it registers
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            _installed_are_loaded = False
            package = point.dist.name if point.dist is not None else point.value
            raise SemanticFLError(
                f"the plug-in {point.name!r} of the package {package} cannot be loaded: {error!r}; "
                "mend or uninstall it"
            ) from error
