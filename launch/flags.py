"""The one way a command reads its flags: --config, --workdir, --plugin and dotted overrides."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging

from semanticfl_jax.config import ConfigError, check_override
from semanticfl_jax.config.fields import known_fields
from semanticfl_jax.config.overrides import combine, parse
from semanticfl_jax.config.unknown_fields import guesses
from semanticfl_jax.devices.cpu_threads import use_all_cores
from semanticfl_jax.errors import INTERRUPTED, SemanticFLError, Stopped
from semanticfl_jax.files import compiled_programs
from semanticfl_jax.paths import local_path
from semanticfl_jax.plugins import load_plugins

from .config_files import as_one_line, find_config, read_config
from .console import explain, fail, prepare_output, quieten

_CACHE = "JAX_COMPILATION_CACHE_DIR"

flags.disclaim_key_flags()  # what is defined here is the command's, and shown by its --help


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

    A mistake that the user can mend ends the process with one line and exit status 2, a run that
    diverged with 3; any other error keeps its traceback, and with --debug all do.

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
    prepare_environment()  # before a plug-in or a configuration file starts JAX
    arguments = sys.argv[1:]
    debug = "--debug" in arguments or "--debug=true" in arguments
    try:
        _load_plugins(_values_of("plugin", arguments))
        rest, file, overrides = _split(arguments, config_class)
        if default is None and file is not None:
            raise ConfigError("--config is chosen by this command; it has --config.FIELD=VALUE")
        name = default if file is None else file
        values = {} if name is None else read_config(find_config(name))
        given = Given(config_class, values, {**(force or {}), **overrides})
    except (SemanticFLError, OSError) as error:
        fail(error, debug)
    _define_flags(has_config=default is not None)
    define()
    command = sys.modules["__main__"]
    if any(argument.lstrip("-").startswith("help") for argument in arguments):
        command.__doc__ = f"{command.__doc__ or ''}\n{help()}\n"

    def parse_flags(arguments: Sequence[str]) -> list[str]:
        return _parse(arguments, lambda text: _explain(text, config_class))

    def start(rest: Sequence[str]) -> None:
        if len(rest) > 1:
            fail(f"unexpected argument {rest[1]!r}; fields are set as --config.FIELD=VALUE")
        if flags.FLAGS.workdir is None and writes:
            fail("--workdir=DIR is missing: the directory to write to, or whose run to resume")
        with one_line(debug):
            workdir = flags.FLAGS.workdir
            main(given if raw else given.config(), None if workdir is None else str(workdir))

    logging.set_verbosity(logging.WARNING)
    app.run(start, argv=[sys.argv[0], *rest], flags_parser=parse_flags)


def prepare_environment() -> None:
    """Set what JAX reads when it starts: a device for every core, and the compilation cache."""
    try:
        use_all_cores()
        # Programs compiled before are loaded: by other seeds, and when a run is resumed.
        os.environ.setdefault(_CACHE, str(compiled_programs()))
    except SemanticFLError as error:
        fail(error)


def chose_cache() -> bool:
    """Return whether the user said where compiled programs are kept."""
    return os.environ.get(_CACHE) != str(compiled_programs())


@contextlib.contextmanager
def one_line(debug: bool) -> Iterator[None]:
    """Turn what a user, or the machine's owner, can mend into one line and exit status 2.

    A run that a signal stopped ends the command with that status of shells.
    """
    try:
        yield
    except (SemanticFLError, OSError) as error:
        fail(error, debug)
    except KeyboardInterrupt as error:
        _break_off(error)
    except Stopped as reason:
        stop(reason)
    except Exception as error:
        if explain(error) is None:
            raise
        fail(error, debug)


def run_plain(main: Callable[[Sequence[str]], None]) -> None:
    """Run `main(arguments)` as an absl command that has no configuration; ends like `run`."""
    prepare_output()
    quieten()

    def start(arguments: Sequence[str]) -> None:
        with one_line(flags.FLAGS.debug):
            _load_plugins(flags.FLAGS.plugin)
            main(arguments)

    app.run(start, flags_parser=_parse)


def _parse(arguments: Sequence[str], explained: Callable[[str], str] = str) -> list[str]:
    """Read the flags and return the other arguments; end the process after --help, or a mistake.

    Args:
      arguments: of the command line, the command's name first.
      explained: makes a line for the user of an error's text.
    """
    try:
        return flags.FLAGS(arguments)
    except SystemExit:
        sys.exit(0)  # absl has printed what --help asks for, and would end with status 1.
    except flags.Error as error:
        fail(_told(error) or explained(str(error)))


class _PathParser(flags.ArgumentParser):
    """Has absl read the flag `name` as `local_path` does."""

    syntactic_help = "a path"

    def __init__(self, name: str):
        super().__init__()
        self._name = name

    def parse(self, argument: str | os.PathLike) -> Path:
        """Return the path; raise `ConfigError`, which absl takes for a wrong value."""
        return local_path(argument, f"--{self._name}")


def define_path(name: str, help: str) -> flags.FlagHolder:
    """Define a flag that is a path, and None by default."""
    return flags.DEFINE(_PathParser(name), name, None, help)


def define_common() -> None:
    """Define what every command has: --plugin and --debug."""
    flags.DEFINE_multi_string(
        "plugin", [], "Module, or .py file, that registers models, algorithms, ... of your own."
    )
    flags.DEFINE_bool("debug", False, "Show the traceback of every error.")


def define_overwrite() -> None:
    """Define --overwrite, for commands whose directory holds a run."""
    flags.DEFINE_bool(
        "overwrite", False, "Set the run in --workdir aside, in a folder there, and begin anew."
    )


def stop(reason: BaseException | str) -> NoReturn:
    """End a command that was interrupted, with the exit status shells give to that."""
    print(reason, file=sys.stderr)
    sys.exit(INTERRUPTED)


def _break_off(error: KeyboardInterrupt) -> NoReturn:
    """End a command that was interrupted in whatever it did.

    Not by the interpreter's own end, which JAX (0.10.2) turns into a segmentation fault where a
    compilation was interrupted. Temporary folders go with what holds them.
    """
    error.with_traceback(None)
    gc.collect()
    sys.stdout.flush()
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


def installed_config(name: str) -> Any:
    """Return the configuration launch/configs/NAME.py."""
    return importlib.import_module(f"{__package__}.configs.{name}").get_config()


def _load_plugins(modules: Sequence[str]) -> None:
    for name in modules:
        with as_one_line(f"--plugin={name}"):
            load_plugins([name])


def _define_flags(has_config: bool = True) -> None:
    if has_config:
        flags.DEFINE_string(
            "config",
            None,
            "Configuration file, .py or a run's config.json; its fields are --config.FIELD=VALUE.",
        )
    define_path("workdir", "Directory to write to; resumes what is there.")
    define_common()


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
    rest, file, overrides, pending, given = [], None, {}, None, set[str]()
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
            continue
        if name in given:
            print(f"{name} is given twice; the last, {value}, counts", file=sys.stderr)
        given.add(name)
        if path:
            overrides[path] = parse(config_class, path, value)
        else:
            file = value
    if pending:
        raise ConfigError(f"{pending} needs a value: {pending}=VALUE")
    return rest, file, overrides


def _told(error: flags.Error) -> str | None:
    """Return what a flag's own reader said of its value; None if absl did not like it."""
    cause = error.__cause__ or error.__context__
    return str(cause) if isinstance(cause, ConfigError) else None


def _explain(message: str, config_class: type) -> str:
    """Return absl's message for an unknown flag, and how a field is set, if it is one."""
    found = re.match(r"Unknown command line flag '([^']+)'", message)
    if found is None:
        return message
    try:
        check_override(config_class, found[1])
        return f"there is no flag --{found[1]}. Fields are set as --config.{found[1]}=VALUE"
    except ConfigError:
        near = [f"--config.{name}" for name in guesses(known_fields(config_class), found[1])]
        hint = f". Did you mean {' or '.join(near)}?" if near else ""
        return f"{message.partition('. Did you')[0]}{hint}"
