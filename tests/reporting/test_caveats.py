"""What is said with a comparison: runs that diverged, ended early, or have few evaluations."""

import csv
import io
import json

from semanticfl_jax.reporting import caveats, tables
from semanticfl_jax.reporting.comparison import Comparison
from semanticfl_jax.reporting.html.page import page
from semanticfl_jax.reporting.report import compare
from tests.reporting.made_up import made_up_config, write_run


def change_summary(directory, **fields):
    path = directory / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_every_format_says_that_a_run_diverged(tmp_path):
    for name in ("fedavg", "moon"):
        write_run(tmp_path / name, made_up_config(name))
    change_summary(tmp_path / "moon", diverged_round=2)
    paths = [tmp_path / "fedavg", tmp_path / "moon"]
    told = f"{tmp_path / 'moon'} diverged in round 2."
    assert f"Warning: {told}" in compare(paths).splitlines()
    comparison = Comparison.load(paths)
    assert f"% Warning: {told}" in tables.latex(comparison).splitlines()
    fedavg, moon = csv.DictReader(io.StringIO(tables.by_seed(comparison)))
    assert (fedavg["diverged_round"], moon["diverged_round"]) == ("", "2")
    text = page(comparison)
    assert f'<p class="warning">{told}</p>' in text.split("<nav")[0]
    runs = text.split('<section id="runs">')[1]
    assert "Diverged in round" in runs and '<td data-v="2">2</td><td>' in runs


def test_a_run_that_ended_early_is_said_with_the_reason(tmp_path):
    config = made_up_config("fedprox", rounds=30)
    paths = [
        write_run(tmp_path / "long", made_up_config("fedavg", rounds=30), [0.1] * 30),
        write_run(tmp_path / "short", config, [0.1] * 12),
    ]
    change_summary(paths[1], privacy={"used_up": True})
    told = f"{paths[1]} ended after 12 of 30 rounds: its privacy budget was used up"
    assert caveats.warnings(Comparison.load(paths)) == [told]
    assert f"Warning: {told}." in compare(paths)


def test_a_mean_of_fewer_than_ten_evaluations_says_so(tmp_path):
    def run(name, count, seed=0):
        config = made_up_config(name, seed, rounds=count)
        return write_run(tmp_path / f"{name}-{seed}", config, [0.1] * count)

    few, one, more, long = run("fedavg", 3), run("local", 1), run("moon", 4), run("scaffold", 10)

    def note(*paths):
        return caveats.about_means(Comparison.load(paths))

    assert note(few) == "The mean of the last 10 is of all 3 evaluations: there are no more."
    assert note(one) == "The mean of the last 10 is of the only evaluation: there are no more."
    assert note(few, more, run("moon", 4, 1), long) == (
        "The mean of the last 10 is of fewer evaluations in fedavg (3), moon (4)."
    )
    assert note(long) == ""
    assert note(few) in compare([few]) and note(few) in page(Comparison.load([few]))
