"""The one way a command reads its flags: --config, --workdir, --plugin and dotted overrides."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging

from semanticfl_jax.config import ConfigError, check_override, to_dict
from semanticfl_jax.config.fields import guesses
from semanticfl_jax.config.overrides import combine, parse
from semanticfl_jax.devices.cpu_threads import use_all_cores
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import user_cache_dir
from semanticfl_jax.paths import local_path
from semanticfl_jax.plugins import load_plugins

from .console import explain, fail, prepare_output, quieten

CONFIGS = Path(__file__).parent / "configs"


@dataclasses.dataclass(frozen=True)
class Given:
    """What a command line says of the configuration.

    Attributes:
      config_class: the configuration's class.
      values: nested plain values of the configuration file.
      overrides: by dotted path, values of --config.FIELD=VALUE.
    """

    config_class: type
    values: Mapping[str, Any]
    overrides: Mapping[str, Any]

    def config(self) -> Any:
        """Return the configuration; raise `ConfigError` for one that is not valid."""
        return combine(self.config_class, self.values, self.overrides)


def run(
    main: Callable[..., None],
    config_class: type,
    default: str | None,
    define: Callable[[], None] = lambda: None,
    *,
    help: Callable[[], str] = lambda: "",
    force: Mapping[str, Any] | None = None,
    raw: bool = False,
    writes: bool = True,
) -> None:
    """Run `main(config, workdir)` as an absl command.

    A mistake that the user can mend ends the process with one line and exit status 2; any other
    error keeps its traceback, and with --debug all do.

    Args:
      main: called with the validated configuration and the directory to write to.
      config_class: frozen dataclass that `--config`'s `get_config()` returns.
      default: name of the configuration in launch/configs used when --config is not given; None:
        the command chooses configurations itself, and has fields to set but no --config.
      define: defines further absl flags.
      help: returns what --help shows besides the command's docstring.
      force: values by dotted path that the command needs, whatever the file says.
      raw: `main` is called with `Given` in place of the configuration.
      writes: whether --workdir must be given.
    """
    prepare_output()
    quieten()
    arguments = sys.argv[1:]
    debug = "--debug" in arguments or "--debug=true" in arguments
    try:
        load_plugins(_values_of("plugin", arguments))
        rest, file, overrides = _split(arguments, config_class)
        if default is None and file is not None:
            raise ConfigError("--config is chosen by this command; it has --config.FIELD=VALUE")
        name = file or default
        values = {} if name is None else _read_file(_find_config(name))
        given = Given(config_class, values, {**(force or {}), **overrides})
    except (SemanticFLError, OSError) as error:
        fail(error, debug)
    _define_flags(has_config=default is not None)
    define()
    command = sys.modules["__main__"]
    if any(argument.lstrip("-").startswith("help") for argument in arguments):
        command.__doc__ = f"{command.__doc__}\n{help()}\n"

    def parse_flags(arguments: Sequence[str]) -> list[str]:
        try:
            return flags.FLAGS(arguments)
        except flags.Error as error:
            fail(_explain(str(error), config_class))

    def start(rest: Sequence[str]) -> None:
        if len(rest) > 1:
            fail(f"unexpected argument {rest[1]!r}; fields are set as --config.FIELD=VALUE")
        if flags.FLAGS.workdir is None and writes:
            fail("--workdir=DIR is missing: the directory to write to, or whose run to resume")
        with one_line(debug):
            workdir = flags.FLAGS.workdir
            if workdir is not None:
                workdir = str(local_path(workdir, "--workdir"))
            main(given if raw else given.config(), workdir)

    logging.set_verbosity(logging.WARNING)
    prepare_environment()
    app.run(start, argv=[sys.argv[0], *rest], flags_parser=parse_flags)


def prepare_environment() -> None:
    """Set what JAX reads when it starts: a device for every core, and the compilation cache."""
    try:
        use_all_cores()
    except SemanticFLError as error:
        fail(error)
    # Programs compiled before are loaded: by other seeds, and when a run is resumed.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(user_cache_dir() / "xla"))


@contextlib.contextmanager
def one_line(debug: bool) -> Iterator[None]:
    """Turn what a user, or the machine's owner, can mend into one line and exit status 2."""
    try:
        yield
    except (SemanticFLError, OSError) as error:
        fail(error, debug)
    except KeyboardInterrupt:
        stop("interrupted")
    except Exception as error:
        if explain(error) is None:
            raise
        fail(error, debug)


def run_plain(main: Callable[[Sequence[str]], None]) -> None:
    """Run `main(arguments)` as an absl command that has no configuration; ends like `run`."""
    prepare_output()
    quieten()

    def parse_flags(arguments: Sequence[str]) -> list[str]:
        try:
            return flags.FLAGS(arguments)
        except flags.Error as error:
            fail(str(error))

    def start(arguments: Sequence[str]) -> None:
        with one_line(flags.FLAGS.debug):
            load_plugins(flags.FLAGS.plugin)
            main(arguments)

    app.run(start, flags_parser=parse_flags)


def define_overwrite() -> None:
    """Define --overwrite, for commands whose directory holds a run."""
    flags.DEFINE_bool(
        "overwrite", False, "Set the run in --workdir aside, in a folder there, and begin anew."
    )


def stop(reason: BaseException | str) -> NoReturn:
    """End a command that was interrupted, with the exit status shells give to that."""
    print(reason, file=sys.stderr)
    sys.exit(130)


def installed_config(name: str) -> Any:
    """Return the configuration launch/configs/NAME.py."""
    return importlib.import_module(f"{__package__}.configs.{name}").get_config()


def _define_flags(has_config: bool = True) -> None:
    if has_config:
        flags.DEFINE_string(
            "config",
            None,
            "Configuration file, .py or a run's config.json; its fields are --config.FIELD=VALUE.",
        )
    flags.DEFINE_string("workdir", None, "Directory to write to; resumes what is there.")
    flags.DEFINE_multi_string(
        "plugin", [], "Module, or .py file, that registers models, algorithms, ... of your own."
    )
    flags.DEFINE_bool("debug", False, "Show the traceback of every error.")


def _values_of(name: str, arguments: Sequence[str]) -> list[str]:
    """Return the values of a flag that may be repeated, before absl reads the command line."""
    values, following = [], False
    for argument in arguments:
        if following:
            values.append(argument)
            following = False
            continue
        flag, equals, value = argument.partition("=")
        if flag in (f"--{name}", f"-{name}"):
            following = not equals
            values += [value] if equals else []
    return values


def _split(
    arguments: Sequence[str], config_class: type
) -> tuple[list[str], str | None, dict[str, Any]]:
    """Return the arguments for absl, the configuration file, and the overrides."""
    rest, file, overrides, pending = [], None, {}, None
    for argument in arguments:
        if pending:
            argument, pending = f"{pending}={argument}", None
        name, equals, value = argument.partition("=")
        name = "--" + name.lstrip("-") if name.startswith("-") else name
        if name != "--config" and not name.startswith("--config."):
            rest.append(argument)
            continue
        path = name.removeprefix("--config").removeprefix(".")
        if path:
            check_override(config_class, path)
        if not equals:
            pending = name
        elif path:
            overrides[path] = parse(config_class, path, value)
        else:
            file = value
    if pending:
        raise ConfigError(f"{pending} needs a value: {pending}=VALUE")
    return rest, file, overrides


def _find_config(name: str) -> Path:
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


def _read_file(path: Path) -> dict[str, Any]:
    """Return the plain values of what a configuration file's `get_config()` returns."""
    if path.suffix == ".json":
        return _read_json(path)
    if path.resolve().parent == CONFIGS.resolve():
        module = importlib.import_module(f"{__package__}.configs.{path.stem}")
    else:
        spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"--config={path} must be a Python file that defines get_config()")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
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
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"--config={path} is no JSON file: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"--config={path} must hold a JSON object, got {type(values).__name__}")
    return values


def _explain(message: str, config_class: type) -> str:
    """Return absl's message for an unknown flag, and how a field is set, if it is one."""
    found = re.match(r"Unknown command line flag '([^']+)'", message)
    if found is None:
        return message
    try:
        check_override(config_class, found[1])
        return f"there is no flag --{found[1]}. Fields are set as --config.{found[1]}=VALUE"
    except ConfigError:
        near = [f"--config.{name}" for name in guesses(config_class, found[1])]
        hint = f". Did you mean {' or '.join(near)}?" if near else ""
        return f"{message.partition('. Did you')[0]}{hint}"
