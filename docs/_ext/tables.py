"""Markdown of the reference pages, made of the registries, the configuration and the commands.

A page names one of `GENERATED` on a line of its own, `% generated: NAME`, and gets its text when
the site is built, so that no list of names stands in a page as well as in the code. This module
needs the package alone; `generated.py` hands its texts to Sphinx.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import semanticfl_jax
from semanticfl_jax import contexts, registry
from semanticfl_jax.__main__ import commands
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.config.describe import entry_settings
from semanticfl_jax.config.fields import describe, field_types, group_class
from semanticfl_jax.registry import ALGORITHMS, Entry, Registry

ROOT = Path(__file__).parents[2]

#: Title, field that chooses, registry and context of every kind of thing with a name.
KINDS: tuple[tuple[str, str, Registry, type], ...] = (
    ("Models", "model.name", registry.MODELS, contexts.ModelContext),
    ("Data sets", "dataset", registry.DATASETS, contexts.DatasetContext),
    ("Tasks", "task", registry.TASKS, contexts.TaskContext),
    ("Partition schemes", "partition.scheme", registry.PARTITIONS, contexts.PartitionContext),
    ("Aggregators", "aggregation.aggregator", registry.AGGREGATORS, contexts.AlgorithmContext),
    ("Update transforms", "aggregation.transforms", registry.TRANSFORMS, contexts.AlgorithmContext),
    ("Client optimisers", "optimizer.name", registry.OPTIMIZERS, contexts.AlgorithmContext),
    ("Schedules", "optimizer.schedule", registry.SCHEDULES, contexts.AlgorithmContext),
    (
        "Server optimisers",
        "algorithm.server_optimizer",
        registry.SERVER_OPTIMIZERS,
        contexts.AlgorithmContext,
    ),
)

#: Sections of the API page: title, and the modules whose public names stand there.
SECTIONS = (
    ("Running", ("simulation.", "devices.")),
    ("Data", ("data.",)),
    ("Models", ("models.",)),
    ("Tasks", ("tasks.",)),
    ("Algorithms", ("algorithms.",)),
    ("Errors", ("errors",)),
)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; cells may hold Markdown of one line."""
    head = list(head)

    def line(cells: Iterable[str]) -> str:
        return (
            "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |"
        )

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def code(value: Any) -> str:
    """Return a value as it is typed on the command line, in code type."""
    if value is None or value == ():
        return "`none`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`" + ",".join(map(str, value)) + "`"
    return f"`{value}`"


# Configuration


def comments(cls: type) -> dict[str, str]:
    """Return the `#:` comments above the fields of a class, by field.

    One comment may stand above several fields; it belongs to the first.
    """
    found: dict[str, str] = {}
    text: list[str] = []
    for line in inspect.getsource(cls).splitlines():
        comment = re.match(r"    #: ?(.*)", line)
        field = re.match(r"    (\w+)\s*:(?!:)", line)
        if comment:
            text.append(comment[1])
        elif field:
            found[field[1]] = " ".join(text)
            text = []
    return found


def own_fields(cls: type, prefix: str) -> str:
    """Return the table of the plain fields of a configuration class."""
    notes, types = comments(cls), field_types(cls)
    made = cls()
    rows = []
    for name, hint in types.items():
        if group_class(hint) is None and not name.endswith("settings"):
            by_name = any(isinstance(each, Registry) for each in getattr(hint, "__metadata__", ()))
            note = notes.get(name) or ("See [the list](algorithms.md)." if by_name else "")
            rows.append((f"`{prefix}{name}`", describe(hint), code(getattr(made, name)), note))
    return table(("field", "takes", "default", "meaning"), rows)


def configuration() -> str:
    """Return all fields of an experiment, group by group, each with its class."""
    parts = [
        "```{eval-rst}\n.. py:currentmodule:: semanticfl_jax\n```",
        class_of(ExperimentConfig),
        own_fields(ExperimentConfig, ""),
    ]
    for name, hint in field_types(ExperimentConfig).items():
        cls = group_class(hint)
        if cls is None:
            continue
        parts += [f"## {name}", class_of(cls), own_fields(cls, f"{name}.")]
        for inner, inner_hint in field_types(cls).items():
            inner_class = group_class(inner_hint)
            if inner_class is not None:
                parts += [f"### {name}.{inner}", first_line(inner_class)]
                parts.append(own_fields(inner_class, f"{name}.{inner}."))
        entries = cls.entries() if hasattr(cls, "entries") else {}
        for entry in entries.values():
            if dataclasses.fields(entry.settings):
                title = f"{name}.{entry.name}"
                parts += [f"### {title}", first_line(entry.settings)]
                parts.append(own_fields(entry.settings, f"{title}."))
    return "\n\n".join(parts)


def first_line(thing: Any) -> str:
    """Return the first paragraph of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n\n")[0]


def class_of(cls: type) -> str:
    """Return the class of a group, as something that links lead to."""
    return f"```{{eval-rst}}\n.. autoclass:: semanticfl_jax.{cls.__name__}(...)\n```"


# What is chosen by name


def settings_cell(field: str, entry: Entry) -> str:
    """Return an entry's settings with their defaults."""
    settings = entry_settings(field, entry)
    return ", ".join(f"`{name}` ({value!s})" for name, value in settings.items())


def algorithms() -> str:
    """Return the table of algorithms, and of what each refuses."""
    rows = []
    for name, entry in ALGORITHMS.items():
        rows.append((f"`{name}`", entry.about, settings_cell("algorithm.name", entry)))
    refused = []
    for name, entry in ALGORITHMS.items():
        traits = entry.traits
        reasons = (
            ("another `server_optimizer`", traits.server_step),
            ("`server_learning_rate`", traits.server_rate),
            ("other `weights`", traits.weights_reason),
            ("clients that do not optimise with plain SGD", traits.sgd),
            ("tasks without classes", traits.classes),
        )
        refused += [(f"`{name}`", what, why) for what, why in reasons if why]
    return "\n\n".join(
        [
            table(
                ("`algorithm.name`", "what it is, and what it costs beyond FedAvg", "settings"),
                rows,
            ),
            "## What an algorithm refuses",
            "Combinations that contradict an algorithm's mathematics end with these reasons, "
            "before anything is trained.",
            table(("algorithm", "refuses", "because"), refused),
        ]
    )


def choices() -> str:
    """Return a table for everything else that is chosen by name."""
    parts = []
    for title, field, entries, _ in KINDS:
        rows = [
            (f"`{name}`", entry.about, settings_cell(field, entry))
            for name, entry in entries.items()
        ]
        head = (f"`{field}`", "what it is", "settings")
        if not any(row[2] for row in rows):
            head, rows = head[:2], [row[:2] for row in rows]
        parts += [f"## {title}", table(head, rows)]
    return "\n\n".join(parts)


# Commands


def flags_of(command: str) -> dict[str, Any]:
    """Return a command's description and flags, as its --help shows them.

    absl keeps the flags of a process in one place, so that each command gets a process.
    """
    script = f"""
import json, sys
from absl import app, flags
from semanticfl_jax.__main__ import launch_folder
launch_folder()
import runpy
found = {{}}
def listed(main, argv=None, flags_parser=None):
    given = flags.FLAGS.flags_by_module_dict()
    for module, members in given.items():
        if module.startswith(("absl", "jax", "tensorflow", "chex", "grain", "etils")):
            continue
        for flag in members:
            found[flag.name] = [flag.flag_type(), flag.default_as_str, flag.help]
app.run = listed
sys.argv = ["{command}", "--workdir=unused"]
module = runpy.run_module("semanticfl_jax.launch.{command}", run_name="__main__", alter_sys=True)
print(json.dumps({{"doc": module["__doc__"], "flags": found}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode != 0:
        raise RuntimeError(f"the flags of launch.{command} cannot be listed: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def command_pages() -> str:
    """Return every command with its description and its own flags."""
    known = commands(ROOT / "launch")
    found = {name: flags_of(name) for name in known}
    shared = set.intersection(
        *({*found[name]["flags"]} for name in known if "config" in found[name]["flags"])
    )
    rows = [(f"[`launch.{name}`](#{slug(name)})", line.rstrip(".")) for name, line in known.items()]
    some = next(name for name in known if shared and "config" in found[name]["flags"])
    parts = [
        table(("command", "what it does"), rows),
        "## Flags of every command that takes a configuration",
        flag_table({name: found[some]["flags"][name] for name in sorted(shared)}),
    ]
    for name in known:
        _, _, rest = inspect.cleandoc(found[name]["doc"]).partition("\n\n")
        takes_config = "config" in found[name]["flags"]
        own = {
            flag: about
            for flag, about in found[name]["flags"].items()
            if not (takes_config and flag in shared)
        }
        parts += [f"({slug(name)})=\n## launch.{name}", known[name], *as_markdown(rest)]
        parts += [flag_table(own)] if own else []
    return "\n\n".join(parts)


def slug(command: str) -> str:
    """Return the target of a command's section."""
    return "launch-" + command.replace("_", "-")


def as_markdown(text: str) -> list[str]:
    """Return a docstring's paragraphs; indented ones are code, and "  name   text" is a list."""
    parts = []
    for block in re.split(r"\n\n+", text.strip("\n")):
        if block.startswith("    "):
            parts.append("```sh\n" + inspect.cleandoc("\n" + block) + "\n```")
            continue
        lines: list[str] = []
        for line in block.splitlines():
            item = re.match(r"  (\S+) {2,}(.*)", line)
            if item:
                lines += ["", f"- `{item[1]}`: {escape(item[2])}"]
            elif line.startswith("  ") and lines:
                lines[-1] += " " + escape(line.strip())
            else:
                lines.append(escape(line))
        parts.append("\n".join(lines))
    return [part for part in parts if part]


def flag_table(flags: dict[str, list[Any]]) -> str:
    """Return the table of a command's flags."""
    rows = []
    for name, (_, default, about) in flags.items():
        # absl's own words about choices, and about flags that may be repeated.
        about = re.sub(r"^<([^>]*)>", lambda found: found[1].replace("|", ", "), about)
        about = re.sub(
            r"\.?;\s+repeat this option.*", ". It may be repeated.", about, flags=re.DOTALL
        )
        rows.append((f"`--{name}`", (default or "").strip("'"), escape(about)))
    return table(("flag", "default", "meaning"), rows)


def escape(text: str | None) -> str:
    """Return plain text such that Markdown leaves it as it is."""
    return re.sub(r"([\\*_<>`|{}\[\]$])", r"\\\1", text or "").replace(r"\|", "|")


# The Python interface


def api() -> str:
    """Return the public names, section by section, each for autodoc."""
    left = [name for name in semanticfl_jax.__all__ if not name.startswith("register_")]
    left = [name for name in left if not is_config(name)]
    parts = []
    for title, modules in SECTIONS:
        names = [name for name in left if module_of(name).startswith(modules)]
        left = [name for name in left if name not in names]
        parts += [f"## {title}", *map(autodoc, sorted(names, key=functions_first))]
    if left != ["load_plugins"]:
        parts += ["## More", *(autodoc(name) for name in left if name != "load_plugins")]
    return "\n\n".join(parts)


def functions_first(name: str) -> tuple[bool, str]:
    """Return a key that sorts functions before classes, and each by name."""
    return isinstance(getattr(semanticfl_jax, name), type), name.lower()


def module_of(name: str) -> str:
    """Return the module of a public name, without the package's."""
    return getattr(semanticfl_jax, name).__module__.removeprefix("semanticfl_jax.")


def is_config(name: str) -> bool:
    """Return whether a public name is a group of the configuration."""
    thing = getattr(semanticfl_jax, name)
    return isinstance(thing, type) and module_of(name).startswith("config.")


def autodoc(name: str) -> str:
    """Return autodoc's directive for a public name."""
    thing = getattr(semanticfl_jax, name)
    directive = "autofunction"
    options = ""
    if isinstance(thing, type):
        directive = "autoexception" if issubclass(thing, BaseException) else "autoclass"
        options = "\n   :members:"
    return f"```{{eval-rst}}\n.. {directive}:: semanticfl_jax.{name}{options}\n```"


def registering() -> str:
    """Return the registering functions, what their builders get, and the groups of settings."""
    of_registry = {id(entries): (title, field, context) for title, field, entries, context in KINDS}
    of_registry[id(ALGORITHMS)] = ("Algorithms", "algorithm.name", contexts.AlgorithmContext)
    rows = []
    for name in semanticfl_jax.__all__:
        if not name.startswith("register_"):
            continue
        _, field, context = of_registry[id(getattr(semanticfl_jax, name).__self__)]
        rows.append(
            (f"`{name}`", f"`{field}`", f"{{py:class}}`semanticfl_jax.contexts.{context.__name__}`")
        )
    used = sorted({row[2] for row in rows})
    parts = [
        autodoc("register_model"),
        table(("function", "chosen by", "its builder's context"), rows),
        autodoc("load_plugins"),
        "### Contexts",
    ]
    for role in used:
        path = role.split("`")[1]
        parts.append(f"```{{eval-rst}}\n.. autoclass:: {path}\n   :members:\n```")
    return "\n\n".join(parts)


GENERATED: dict[str, Callable[[], str]] = {
    "algorithms": algorithms,
    "api": api,
    "choices": choices,
    "commands": command_pages,
    "configuration": configuration,
    "registering": registering,
}
