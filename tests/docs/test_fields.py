"""Every field of a configuration, and every command, that a text names is one that there is.

test_pages.py runs through the commands of the site's pages; this file reads all other texts too:
sentences, notebooks, scripts, and what the commands say of themselves.
"""

import ast
import json
import re
import shlex

import pytest

from docs._ext import tables
from launch import config_files
from semanticfl_jax import registry
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.config.fields import field_types, flatten, group_class, to_dict
from semanticfl_jax.pretraining.config import PretrainConfig
from tests.docs.test_pages import COMMANDS, ROOT, WITHOUT_CONFIG, check_configuration, name_of

#: What has passed may name what is gone.
PAST = ("CHANGELOG.md",)
HIDDEN = {".venv", ".git", "_build", "build", "dist"}
TEXTS = [
    path
    for ending in ("md", "ipynb", "sh", "py")
    for path in sorted(ROOT.rglob(f"*.{ending}"))
    if not HIDDEN & {*path.relative_to(ROOT).parts}
    and path.name not in PAST
    and (ending in ("md", "ipynb") or path.is_relative_to(ROOT / "comparisons"))
]
SOURCES = [*sorted((ROOT / "launch").glob("*.py")), *sorted((ROOT / "launch/configs").glob("*.py"))]
SOURCES += [ROOT / "comparisons" / "compare.py"]
#: Endings of files, which "model.safetensors" has and a field has not.
FILES = ("safetensors", "ipynb", "md", "py", "json", "jsonl", "npz", "png", "csv", "txt", "toml")
GROUPS = {
    name for name, hint in field_types(ExperimentConfig).items() if group_class(hint) is not None
}


@pytest.fixture(scope="module")
def fields():
    """Dotted paths of everything that can be set, and of the groups that they are in."""
    found = {*re.findall(r"^\| `([\w.]+)` \|", tables.configuration(), re.MULTILINE)}
    found |= {path for path, _ in flatten(to_dict(PretrainConfig()))}
    for name, entries in (("dataset", registry.DATASETS), ("task", registry.TASKS)):
        for entry in (each for _, each in entries.items()):
            found |= {f"{name}_settings.{field}" for field in field_types(entry.settings)}
    groups = {path[: dot.start()] for path in found for dot in re.finditer(r"\.", path)}
    return found | groups


def text_of(path):
    """What a reader sees of a file: of a notebook its cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    for name, value in re.findall(r"\b(\w+)=([a-z_]+(?:\.[a-z_]+)+)\b", text):
        text = text.replace(f"${name}.", f"{value}.")
    return text


def named(text):
    """Fields that a text names: as flags, as settings of methods, and in `code`."""
    for path in re.findall(r"--config\.([a-z][\w.]*\w)", text):
        yield path
    for path in re.findall(r"(?<![\w.\-/$])([a-z_]+(?:\.[a-z_0-9]+)+)=", text):
        yield path
    for path in re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+)`", text):
        yield path


def is_field(path, fields, own):
    """Whether a path is a field, or no path into a configuration at all."""
    head, *rest = path.split(".")
    if (head not in GROUPS and rest) or path != path.lower():  # NAME and FIELD stand for any
        return True
    return path in fields or bool({*rest[-1:]} & {*FILES} | {*rest} & own)


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_fields_that_a_text_names_exist(path, fields):
    text = text_of(path)
    own = {*re.findall(r"@sfl\.register_\w+\(\s*\"(\w+)\"", text)}
    wrong = {each for each in named(text) if not is_field(each, fields, own)}
    flags = {each.partition(".")[0] for each in re.findall(r"--config\.([a-z][\w.]*\w)", text)}
    heads = {each.partition(".")[0] for each in fields}
    assert not wrong and flags <= heads, sorted(wrong | (flags - heads))


def test_fields_that_do_not_exist_are_found(fields):
    text = (
        "`runtime.wrong` and --config.learning_rat=1, guidance.student.wait=2, `model.safetensors`"
    )
    wrong = [each for each in named(text) if not is_field(each, fields, set())]
    assert wrong == ["learning_rat", "guidance.student.wait", "runtime.wrong"]


def examples(path):
    """(command, arguments) of the examples in a module's docstring, their options included."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    for line in text.replace("\\\n", " ").splitlines():
        found = re.fullmatch(r" +python -m launch\.(\w+) +(\S.*)", line)
        if found:
            words = shlex.split(found[2].replace("[", " ").replace("]", " "))
            # Of "float32|bfloat16" the first; FIELD and "..." stand for anything.
            words = [re.sub(r"=([^=|; ]+)\|.*", r"=\1", each) for each in words]
            yield found[1], [each for each in words if "FIELD" not in each and each != "..."]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_examples_of_a_docstring_can_be_typed(path, known_flags, monkeypatch):
    monkeypatch.chdir(ROOT)
    for command, arguments in examples(path):
        if command not in WITHOUT_CONFIG:
            arguments = [each.replace("configs/NAME.py", "configs/digits.py") for each in arguments]
            arguments = check_configuration(command, arguments)
        for argument in arguments:
            if argument.startswith("--"):
                name = argument.partition("=")[0].removeprefix("--")
                assert name in known_flags[command], f"{command} has no flag {name}"
            else:
                assert command in ("report", "watch"), f"{command} takes no argument {argument!r}"


def test_every_command_and_every_configuration_has_an_example():
    found = {path: [command for command, _ in examples(path)] for path in SOURCES}
    for command in COMMANDS:
        assert command in found[ROOT / "launch" / f"{command}.py"], command
    for path in SOURCES:
        if path.parent.name == "configs" and path.stem != "__init__":
            assert found[path], name_of(path)
            assert config_files.find_config(path.stem)
