"""Reference pages are made of the code: every name, field and flag is on one."""

import dataclasses
import re

import pytest

import semanticfl_jax
from docs._ext import commands, markdown, tables
from semanticfl_jax import registry
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.config.algorithm import knobs
from semanticfl_jax.config.fields import flatten, to_dict
from tests.built_in import built_in


@pytest.fixture(scope="module")
def configuration():
    return tables.configuration()


def test_a_cell_is_one_line_and_keeps_its_bars():
    text = markdown.table(("a", "b"), [("x|y", "two\nlines")])
    assert text == "| a | b |\n|---|---|\n| x\\|y | two lines |"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "`none`"), ((), "`none`"), (True, "`true`"), (("a", "b"), "`a,b`")]
)
def test_values_are_shown_as_they_are_typed(value, text):
    assert markdown.code(value) == text


def test_every_field_is_listed_with_its_default(configuration):
    for path, value in flatten(to_dict(ExperimentConfig())):
        if not path.endswith("settings"):
            (line,) = [row for row in configuration.splitlines() if row.startswith(f"| `{path}` |")]
            assert markdown.code(tuple(value) if isinstance(value, list) else value) in line


def test_every_field_says_what_it_means(configuration):
    rows = re.findall(r"^\| `([\w.]+)` \|.*\|([^|]*)\|$", configuration, re.MULTILINE)
    assert len(rows) > 150
    registries = [each for each in vars(registry).values() if isinstance(each, registry.Registry)]
    of_tests = {name for each in registries for name in set(each) - set(built_in(each))}
    silent = [field for field, meaning in rows if not meaning.strip()]
    assert [field for field in silent if not of_tests & set(field.split("."))] == []


def test_comments_above_fields_are_their_meaning(configuration):
    (line,) = [row for row in configuration.splitlines() if row.startswith("| `clip_norm`")]
    assert "Norm that every gradient is cut to" in line
    (line,) = [row for row in configuration.splitlines() if row.startswith("| `algorithm.moon.mu`")]
    assert "5 on CIFAR-10, 1 on CIFAR-100" in line and "`1.0`" in line


def test_all_that_is_chosen_by_name_is_listed():
    algorithms, choices = tables.algorithms(), tables.choices()
    for name in built_in(registry.ALGORITHMS):
        assert f"| `{name}` | {registry.ALGORITHMS[name].about}" in algorithms
        assert all(f"`{knob}`" in algorithms for knob in knobs(name))
    assert "`apfl.adaptive` (true)" in algorithms and "`fedbn.names` (norm)" in algorithms
    for kind in tables.KINDS:
        assert f"`{kind.field}`" in choices
        assert all(f"| `{name}` |" in choices for name in built_in(kind.entries))


def test_every_kind_of_registry_is_covered():
    there = {id(each) for each in vars(registry).values() if isinstance(each, registry.Registry)}
    listed = {id(kind.entries) for kind in tables.KINDS}
    assert there - listed == {id(registry.ALGORITHMS)}


def test_every_public_name_has_a_place():
    text = tables.api() + tables.registering() + tables.configuration()
    for name in semanticfl_jax.__all__:
        places = (f":: semanticfl_jax.{name}\n", f":: semanticfl_jax.{name}(", f"| `{name}` |")
        assert any(place in text for place in places), name
    assert "## More" not in text, "give the new names' module a section in tables.SECTIONS"


def test_flags_of_a_command_are_its_own():
    about = commands.flags_of("compare")
    assert {"algorithms", "methods", "guided", "seeds", "config", "workdir"} <= {*about["flags"]}
    assert not {"verbosity", "jax_platforms"} & {*about["flags"]}
    assert about["doc"].startswith("Trains several methods")


def test_docstrings_become_markdown_with_blocks_of_code():
    parts = markdown.as_markdown("\n    python -m launch.train\n\nSays what.\n")
    assert parts == ["```sh\npython -m launch.train\n```", "Says what."]
    parts = markdown.as_markdown("Tasks:\n  one    the first\n         of them.\n  two    last.\n")
    assert parts == ["Tasks:\n\n- `one`: the first of them.\n\n- `two`: last."]


def test_contexts_name_every_field():
    for kind in tables.KINDS:
        for field in dataclasses.fields(kind.context):
            assert f"{field.name}: " in kind.context.__doc__
