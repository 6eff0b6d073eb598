"""The README and the pages of the site: their commands can be typed, their Python runs."""

import ast
import configparser
import dataclasses
import doctest
import functools
import importlib
import json
import re
import shlex
from pathlib import Path

import flax.linen as nn
import pytest

import semanticfl_jax as sfl
from launch import config_files, flags
from semanticfl_jax import registry
from semanticfl_jax.__main__ import commands
from semanticfl_jax.config import methods, to_dict
from semanticfl_jax.pretraining.config import PretrainConfig
from semanticfl_jax.reproduction.tables import Tables

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted(
    path
    for name in ("guides", "notebooks", "project", "reference", "results")
    for path in (ROOT / "docs" / name).glob("*.md")
)
PAGES += [ROOT / "CONTRIBUTING.md"]
COMMANDS = commands(ROOT / "launch")
#: Commands without a configuration; what they are given is checked by name alone.
WITHOUT_CONFIG = ("benchmark", "report", "watch")
#: What commands set themselves.
FORCED = {name: {"guidance.enabled": True} for name in ("extract_anchors", "probe_features")}
#: What a part of a reproduced table is chosen by.
CHOSEN = ("columns", "methods")
FORCED["distill_student"] = {"guidance.enabled": True, "guidance.student.enabled": True}


class Means(nn.Module):
    """A classifier of the mean colour, which compiles in no time."""

    num_classes: int

    @nn.compact
    def __call__(self, images):
        return nn.Dense(self.num_classes)(images.mean(axis=(1, 2)))


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, *languages):
    """The text of a page's fenced blocks of code."""
    found = re.findall(r"^ *```(\w+)\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def command_lines(page):
    """(command, arguments) of every command on a page, in blocks and within sentences."""
    lines = []
    for block in blocks(page, "sh", "bash"):
        variables = dict(re.findall(r'^(\w+)="(.*)"$', block, re.MULTILINE))
        for name, value in variables.items():
            block = block.replace(f"${name}", value)
        lines += block.replace("\\\n", " ").splitlines()
    lines += re.findall(r"`([^`\n]+)`", page.read_text())
    for line in lines:
        found = re.search(r"(?:python -m launch\.|\bsemanticfl )([a-z_]+) +(\S.*)", line)
        if found:
            arguments = shlex.split(
                re.sub(r'"$| &$', "", found[2])
                if "--command" in line
                else found[2].removesuffix("&"),
                comments=True,
            )
            yield found[1], [each for each in arguments if each != "..."]


@pytest.fixture(autouse=True)
def registries():
    """What a page registers is gone after its test."""
    there = [each for each in vars(registry).values() if isinstance(each, registry.Registry)]
    before = [dict(each._entries) for each in there]
    yield
    for each, entries in zip(there, before, strict=True):
        each._entries.clear()
        each._entries.update(entries)


def check_table(arguments, overrides):
    """Raise unless a table can be planned."""
    given = dict(each.removeprefix("--").partition("=")[::2] for each in arguments)
    chosen = {name: given.get(name, "").split(",") if given.get(name) else [] for name in CHOSEN}
    table = Tables().table(
        given["table"],
        given.get("scale", "cpu"),
        lambda name: to_dict(flags.installed_config(name)),
        **chosen,
    )
    assert table.runs([0], overrides)


def check_configuration(command, arguments):
    """Raise unless a command's configuration is valid; return its other arguments."""
    cls = PretrainConfig if command == "pretrain_diffusion" else sfl.ExperimentConfig
    rest, file, overrides = flags._split(arguments, cls)
    default = {"pretrain_diffusion": "pretrain_tiny_sd"}.get(command, "digits")
    if command == "reproduce":
        check_table(rest, overrides)
        return rest
    values = config_files.read_config(config_files.find_config(file or default))
    given = flags.Given(cls, values, {**FORCED.get(command, {}), **overrides})
    if command != "compare":
        given.config()
        return rest
    own = dict(each.removeprefix("--").partition("=")[::2] for each in rest)
    text = own.get("methods") or own.get("algorithms", "fedavg,semanticfl").replace(",", ";")
    chosen = methods.guide(methods.parse_methods(text), own.get("guided"))
    seeds = methods.parse_seeds(own.get("seeds", "0").split(","))
    assert methods.plan_methods(given.values, given.overrides, chosen, seeds)
    return rest


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_on_a_page_can_be_typed(page, known_flags, monkeypatch):
    monkeypatch.chdir(ROOT)
    for block in blocks(page, "python"):
        if "@sfl.register_model" in block:
            exec(block, {"__name__": "plugin"})
    for command, arguments in command_lines(page):
        assert command in COMMANDS, f"{command} is not a command"
        # NAME stands for what the reader has added.
        arguments = [each for each in arguments if not re.search(r"\bNAME\b", each)]
        if command not in WITHOUT_CONFIG:
            arguments = check_configuration(command, arguments)
        for argument in arguments:
            name = argument.partition("=")[0].removeprefix("--")
            is_flag = argument.startswith("--")
            assert is_flag or command in ("report", "watch"), (
                f"{command} takes no argument {argument!r}"
            )
            assert not is_flag or name in known_flags[command], f"{command} has no flag {name}"


def test_commands_are_found_on_pages():
    found = {name_of(page): [*command_lines(page)] for page in PAGES}
    assert len(found["README.md"]) >= 2 and len(found["docs/guides/machines.md"]) == 5
    assert ("train", ["--coordinator_address=localhost:12345", "--num_processes=2"]) in [
        (command, arguments[:2]) for command, arguments in found["docs/guides/machines.md"]
    ]
    assert {command for lines in found.values() for command, _ in lines} == {*COMMANDS}


def test_tasks_of_the_benchmark_take_the_flags_on_a_page():
    module = ast.parse((ROOT / "launch" / "benchmark.py").read_text())
    (tasks,) = [
        {
            ast.literal_eval(name): ast.literal_eval(task.args[0])
            for name, task in zip(each.value.keys, each.value.values, strict=True)
        }
        for each in module.body
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "TASKS"
    ]
    lines = [line for page in PAGES for line in command_lines(page) if line[0] == "benchmark"]
    assert len(lines) > 5
    for _, arguments in lines:
        given = dict(each.removeprefix("--").partition("=")[::2] for each in arguments)
        assert {*given} <= {"task", "json", *tasks[given["task"]]}, arguments


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_scripts_on_a_page_exist_and_have_these_flags(page):
    text = page.read_text().replace("\\\n", " ")
    modules = re.findall(r"python -m ((?:comparisons|tests)\.\w+)([^`\n]*)", text)
    found = [(name.replace(".", "/"), arguments) for name, arguments in modules]
    found += re.findall(r"((?:comparisons|tests)/\w+\.(?:py|sh))([^`\n]*)", text)
    for name, arguments in found:
        path = next(
            each
            for each in (ROOT / name, ROOT / f"{name}.py", ROOT / name / "__main__.py")
            if each.is_file()
        )
        own, _, of_benchmark = arguments.partition(" -- ")
        for flag in re.findall(r"--(\w+)", of_benchmark):
            assert f'"{flag}"' in (ROOT / "launch" / "benchmark.py").read_text()
        for flag in re.findall(r"--\w+", own):
            assert f'"{flag}"' in path.read_text(), f"{name} has no flag {flag}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_targets_and_extras_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    text = page.read_text()
    for target in re.findall(r"(?:^|`)make ([a-z]+)\b", text, re.MULTILINE):
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target
    for extras in re.findall(r"'\.\[([\w,]+)\]'", text):
        for extra in extras.split(","):
            assert extra in setup["options.extras_require"]


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_python_on_a_page_runs(page, monkeypatch, tmp_path, capsys):
    """Runs are cut to a round, and ResNet-10 is a tiny network; all else is as it stands there."""

    def short(function, config, *arguments, **options):
        if config.model.name == "resnet10" and "model" not in options:
            dataset = options.get("dataset")
            options["model"] = Means(10 if dataset is None else dataset.num_classes)
        config = dataclasses.replace(
            config,
            rounds=1,
            local_epochs=1,
            batch_size=32,
            runtime=dataclasses.replace(config.runtime, num_devices=1),
        )
        return function(config, *arguments, progress=False, say=None, **options)

    monkeypatch.setattr(sfl, "run", functools.partial(short, sfl.run))
    monkeypatch.setattr(sfl, "Simulation", functools.partial(short, sfl.Simulation))
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile(block, name_of(page), "exec"), names)
    results = [each for each in names.values() if hasattr(each, "history")]
    assert all(len(result.history) == 1 for result in results)


@pytest.mark.parametrize("module", ["config.experiment", "config.algorithm"])
def test_examples_in_docstrings_are_right(module):
    result = doctest.testmod(importlib.import_module(f"semanticfl_jax.{module}"))
    assert result.attempted >= 3 and result.failed == 0


def test_the_readme_is_short_and_says_what_has_not_been_run():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    first_screen = " ".join(lines[:25])
    assert "What was measured" in first_screen and "has not run on any" in first_screen


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{name_of(page)}: {link}"


def test_notebooks_are_kept_without_outputs_and_install_the_package():
    paths = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
    assert len(paths) == 5
    listed = (ROOT / "docs" / "notebooks" / "index.md").read_text()
    for path in paths:
        assert f"\n{path.stem}\n" in listed
        cells = json.loads(path.read_text())["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
        assert "%pip install" in "".join(code[0]["source"])
