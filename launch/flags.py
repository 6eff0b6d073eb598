"""The one way a command reads its flags: --config, --workdir and dotted overrides."""

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_dict, config_flags

from semanticfl_jax.config import ConfigError, check_override, from_dict
from semanticfl_jax.devices.cpu_threads import available_cores, threads_for
from semanticfl_jax.files import user_cache_dir

CONFIGS = Path(__file__).parent / "configs"


def to_config_dict(config: Any) -> ConfigDict:
    """A dataclass of defaults as a `ConfigDict`, whose fields the command line can override.

    Every field is free of type: `config.from_dict` checks types once, for files and flags alike.
    """
    fields = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            fields[field.name] = to_config_dict(value)
        else:
            fields[field.name] = config_dict.FieldReference(None, field_type=object)
            fields[field.name].set(value)
    return ConfigDict(fields)


def run(
    main: Callable[[Any, str], None],
    config_class: type,
    default: str,
    define: Callable[[], None] = lambda: None,
) -> None:
    """Runs `main(config, workdir)` as an absl command.

    Args:
      main: called with the validated configuration and the directory to write to.
      config_class: frozen dataclass that `--config`'s `get_config()` describes.
      default: name of the configuration in launch/configs used when --config is not given.
      define: defines further absl flags.

    A mistake on the command line ends the process at once with one line and exit status 2.
    """
    try:
        argv = [sys.argv[0], *_prepare_arguments(sys.argv[1:], config_class, default)]
    except ConfigError as error:
        fail(error)
    config_file = config_flags.DEFINE_config_file("config", None, "Configuration file.")
    workdir = flags.DEFINE_string("workdir", None, "Directory to write to; resumes what is there.")
    flags.mark_flag_as_required("workdir")
    define()

    def parse(arguments: Sequence[str]) -> list[str]:
        try:
            return flags.FLAGS(arguments)
        except flags.Error as error:
            fail(error)

    def start(rest: Sequence[str]) -> None:
        if len(rest) > 1:
            fail(f"unexpected argument {rest[1]!r}; fields are set as --config.FIELD=VALUE")
        try:
            config = from_dict(config_class, config_file.value.to_dict())
        except ConfigError as error:
            fail(error)
        try:
            main(config, workdir.value)
        except KeyboardInterrupt:
            stop("interrupted")

    logging.set_verbosity(logging.WARNING)
    use_every_core()
    # Programs compiled before are loaded: by other seeds, and when a run goes on.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(user_cache_dir() / "xla"))
    app.run(start, argv=argv, flags_parser=parse)


def use_every_core() -> None:
    """Makes every processor core a device, should JAX run on the CPU; does not load JAX.

    One client a core beats all cores on one client: 1.6 times the images a second on two cores
    (`launch.benchmark`, ResNet-10 of width 16), because XLA runs narrow convolutions on one thread.
    XLA gets the thread to spare that it needs then (`cpu_threads`).
    """
    flags_of_xla = os.environ.get("XLA_FLAGS", "")
    forced = re.search(r"xla_force_host_platform_device_count=(\d+)", flags_of_xla)
    if forced:
        devices = int(forced[1])
    else:
        given = os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(available_cores()))
        if not given.isdecimal():
            fail(f"JAX_NUM_CPU_DEVICES must be a whole number, got {given!r}")
        devices = int(given)
    os.environ.setdefault("PJRT_NPROC", str(threads_for(devices)))


def fail(error: BaseException | str) -> NoReturn:
    """Ends the command with one line on standard error and exit status 2."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def stop(reason: BaseException | str) -> NoReturn:
    """Ends a command that was interrupted, with the exit status shells give to that."""
    print(reason, file=sys.stderr)
    sys.exit(130)


def _prepare_arguments(arguments: Sequence[str], config_class: type, default: str) -> list[str]:
    """Checks override names, and finds the configuration file wherever the command is run."""
    prepared, file_given = [], False
    pending = None
    for argument in arguments:
        if pending:
            argument, pending = f"{pending}={argument}", None
        name, equals, value = argument.partition("=")
        name = "--" + name.lstrip("-") if name.startswith("-") else name
        if name == "--config" or name.startswith("--config."):
            if name != "--config":
                check_override(config_class, name.removeprefix("--config."))
            if not equals:
                pending = name
                continue
            if name == "--config":
                file_given = True
                value = _find_config(value)
            argument = f"{name}={value}"
        prepared.append(argument)
    if pending:
        raise ConfigError(f"{pending} needs a value: {pending}=VALUE")
    return prepared if file_given else [f"--config={_find_config(default)}", *prepared]


def _find_config(name: str) -> str:
    """Path of a configuration file: as given, else of that name among the installed ones."""
    stem = Path(name).name.removesuffix(".py")
    installed = CONFIGS / f"{stem}.py"
    is_installed_name = name == stem or Path(name).parent == Path("launch/configs")
    if os.path.isfile(name):
        return name
    if is_installed_name and installed.is_file():
        return str(installed)
    known = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem != "__init__")
    raise ConfigError(f"--config={name}: no such file. Installed: {', '.join(known)}")
