"""Comparison of runs: figures against NumPy, grouping, gains over FedAvg, clear refusals."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from semanticfl_jax.config.fields import flatten
from semanticfl_jax.errors import DivergedError
from semanticfl_jax.files import write_json
from semanticfl_jax.reporting.comparison import Comparison
from semanticfl_jax.reporting.html.page import page
from semanticfl_jax.reporting.report import compare, compare_finished
from semanticfl_jax.reporting.runs import ReportError, group, load_run, load_runs
from tests.reporting.made_up import ACCURACIES, MSE, made_up_config, write_run


def cells(table):
    """Rows of the markdown table as {method: {column: text}}."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    parsed = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(parsed[0], row, strict=True)) for row in parsed[2:]}


def spread(values):
    return f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}"


def test_table_holds_numpy_s_means_and_sample_deviations(six_runs):
    table = cells(compare(six_runs))
    by_name = {
        name: np.array([ACCURACIES[name, seed] for seed in range(3)])
        for name in ("fedavg", "semanticfl")
    }
    for name, curves in by_name.items():
        assert table[name]["seeds"] == "3"
        assert table[name]["best %"] == spread(curves.max(axis=1))
        assert table[name]["last %"] == spread(curves[:, -1])
        assert table[name]["mean of last 10 %"] == spread(curves.mean(axis=1))
        assert table[name]["s / round"] == "2.00"
        assert table[name]["MB / round"] == "4.00"
    gains = (by_name["semanticfl"] - by_name["fedavg"]).mean(axis=1)
    assert table["semanticfl"]["gain over FedAvg"] == "+" + spread(gains)
    assert table["fedavg"]["gain over FedAvg"] == ""


def test_another_task_s_metric_is_compared_and_less_of_it_is_a_gain(tmp_path):
    errors = {key: [10 * value for value in values] for key, values in ACCURACIES.items()}
    directories = [
        write_run(tmp_path / f"{name}-{seed}", made_up_config(name, seed), values, MSE)
        for (name, seed), values in errors.items()
    ]
    table = cells(compare(directories, tmp_path / "out"))
    fedavg, own = (
        np.array([errors[name, seed] for seed in range(3)]) for name in ("fedavg", "semanticfl")
    )
    gains = (fedavg - own).mean(axis=1)

    def text(values, sign=""):
        return f"{np.mean(values):{sign}.4g} ± {np.std(values, ddof=1):.4g}"

    assert table["semanticfl"]["best mse"] == text(own.min(axis=1))
    assert table["semanticfl"]["last mse"] == text(own[:, -1])
    assert table["semanticfl"]["gain over FedAvg"] == text(gains, "+") and gains.mean() < 0
    with open(tmp_path / "out" / "comparison.csv") as file:
        row = list(csv.DictReader(file))[1]
    assert float(row["gain_over_fedavg_mean"]) == pytest.approx(gains.mean())
    assert float(row["best_mse_mean"]) == pytest.approx(own.min(axis=1).mean())


def test_runs_of_tasks_with_different_metrics_are_not_compared(tmp_path, six_runs):
    other = write_run(tmp_path / "other", made_up_config("fedavg", 7), metric=MSE)
    with pytest.raises(ReportError, match=r"different metrics: test_accuracy .*, test_mse .*other"):
        compare([*six_runs, other])


def test_order_of_directories_does_not_change_figures(six_runs):
    assert cells(compare(six_runs)) == cells(compare(six_runs[::-1]))


def test_gain_with_other_seeds_is_the_difference_of_means_and_says_so(six_runs):
    table = cells(compare([*six_runs[:2], six_runs[5]]))
    fedavg = np.mean([ACCURACIES["fedavg", 0], ACCURACIES["fedavg", 1]])
    gain = 100 * (np.mean(ACCURACIES["semanticfl", 2]) - fedavg)
    assert table["semanticfl"]["gain over FedAvg"] == f"{gain:+.2f} (not paired)"
    assert "±" not in table["semanticfl"]["best %"]


def test_a_gain_is_of_the_seeds_that_both_methods_have(tmp_path):
    """A method that lacks the worst seed is not better for it."""
    levels = {0: 0.3, 1: 0.5, 2: 0.7}
    paths = [
        write_run(tmp_path / f"{name}-{seed}", made_up_config(name, seed), 3 * [level])
        for name, left_out in (("fedavg", None), ("moon", 0), ("fedprox", 9))
        for seed, level in levels.items()
        if seed != left_out
    ]
    table = cells(compare(paths, tmp_path / "out"))
    assert table["moon"]["gain over FedAvg"] == "+0.00 ± 0.00 (2 of 3)"
    assert table["fedprox"]["gain over FedAvg"] == "+0.00 ± 0.00"
    assert r"& $+0.00 \pm 0.00$ (2 of 3) \\" in (tmp_path / "out" / "comparison.tex").read_text()
    with open(tmp_path / "out" / "comparison.csv", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    counts = [rows[name]["gain_over_fedavg_count"] for name in ("fedavg", "moon", "fedprox")]
    assert counts == ["", "2", "3"] and float(rows["moon"]["gain_over_fedavg_mean"]) == 0
    with open(tmp_path / "out" / "comparison_seeds.csv", newline="") as file:
        gains = [row["gain_over_fedavg"] for row in csv.DictReader(file)]
    assert gains == ["", "", "", *5 * ["0.0"]]


def test_no_gain_column_without_fedavg(six_runs):
    assert "gain" not in compare(six_runs[3:])


def test_labels_tell_guidance_anchors_and_settings_apart(tmp_path):
    configs = [
        made_up_config("fedprox"),
        made_up_config("fedprox", guided=True),
        made_up_config("semanticfl", anchors="shuffled"),
        made_up_config("fedavg", algorithm={"name": "fedavg", "server_learning_rate": 1.0}),
        made_up_config("fedavg", algorithm={"name": "fedavg", "server_learning_rate": 0.5}),
    ]
    directories = [write_run(tmp_path / str(i), config) for i, config in enumerate(configs)]
    assert [method.label for method in group(load_runs(directories))] == [
        "fedprox",
        "fedprox + guidance",
        "semanticfl (shuffled anchors)",
        "fedavg (server_learning_rate=1)",
        "fedavg (server_learning_rate=0.5)",
    ]
    # Two plain FedAvg methods: which one is the reference would be a guess.
    assert "gain" not in compare(directories)


def test_gains_are_over_fedavg_to_which_nothing_is_added(tmp_path):
    plain, sign, both = ({}, {"aggregator": "majority_sign"}, {"transforms": ["clip", "top_k"]})
    paths = [
        write_run(tmp_path / str(place), made_up_config(aggregation=each), 3 * [accuracy])
        for place, (each, accuracy) in enumerate(((sign, 0.5), (plain, 0.8), (both, 0.7)))
    ]
    table = cells(compare(paths))
    assert table["fedavg"]["gain over FedAvg"] == ""
    assert table["fedavg + majority_sign"]["gain over FedAvg"] == "-30.00"
    assert table["fedavg + clip + top_k"]["gain over FedAvg"] == "-10.00"
    # Of two to which something is added, neither is plain; of one, there is no doubt.
    other = write_run(tmp_path / "other", made_up_config("moon", aggregation=sign), 3 * [0.6])
    assert "gain" not in compare([paths[0], paths[2], other])
    gain = cells(compare([paths[0], other]))["moon + majority_sign"]["gain over FedAvg"]
    assert gain == "+10.00"


def test_a_bar_in_a_label_ends_no_cell(tmp_path):
    for prompt in ("a|b {}", "c {}"):
        guidance = {"enabled": True, "prompt": prompt}
        write_run(tmp_path / prompt[:1], made_up_config("semanticfl", guidance=guidance))
    text = compare([tmp_path / "a", tmp_path / "c"])
    assert r"| semanticfl (prompt='a\|b {}') |" in text


def test_fields_that_make_the_comparison_unfair_are_named(tmp_path):
    one = write_run(tmp_path / "a", made_up_config("fedavg"))
    two = write_run(
        tmp_path / "b",
        made_up_config("semanticfl", seed=4, data_dir="x", model={"name": "cnn", "width": 16}),
    )
    text = compare([one, two])
    assert "Warning: the runs also differ in model.width." in text
    assert "model.name=cnn" in text and "Warning" not in compare([one])


def test_missing_and_unfinished_directories_are_all_named(tmp_path, six_runs):
    (tmp_path / "empty").mkdir()
    (six_runs[1] / "summary.json").unlink()
    (six_runs[2] / "config.json").write_text("{")
    write_json(six_runs[3] / "config.json", made_up_config("fedavg", 9, rounds=50))
    with pytest.raises(ReportError) as error:
        compare([tmp_path / "nowhere", tmp_path / "empty", *six_runs])
    message = str(error.value)
    for path, reason in (
        (tmp_path / "nowhere", "no such directory"),
        (tmp_path / "empty", "not a run"),
        (six_runs[1], "not finished"),
        (six_runs[2], "damaged"),
        (six_runs[3], "not finished (3 of 50 rounds"),
    ):
        assert f"{path}: {reason}" in message
    assert str(six_runs[0]) not in message
    with pytest.raises(ReportError, match="no run directories"):
        compare([])


def test_a_run_given_twice_counts_once_and_a_copy_is_refused(tmp_path, six_runs):
    assert len(load_runs([six_runs[0], six_runs[0] / ".." / six_runs[0].name])) == 1
    copy = write_run(tmp_path / "copy", made_up_config("fedavg", 0))
    with pytest.raises(ReportError, match=re.escape(str(copy))):
        compare([six_runs[0], copy])


def test_written_comparison_agrees_with_the_table(tmp_path, six_runs):
    out = tmp_path / "out"
    names = [".md", ".csv", "_seeds.csv", ".tex", ".png", "_traffic.png", "_bars.png"]
    paths = [out / f"comparison{name}" for name in names]
    table = compare(six_runs)
    assert compare(six_runs, out) == "\n".join([table, "", *(f"wrote {path}" for path in paths)])
    assert sorted(out.iterdir()) == sorted(paths)
    assert paths[0].read_text(encoding="utf-8") == table + "\n"
    with open(paths[1], newline="") as file:
        fedavg, semanticfl = csv.DictReader(file)
    curves = np.array([ACCURACIES["semanticfl", seed] for seed in range(3)])
    assert float(semanticfl["best_accuracy_mean"]) == pytest.approx(curves.max(axis=1).mean())
    assert float(semanticfl["best_accuracy_std"]) == pytest.approx(curves.max(axis=1).std(ddof=1))
    assert fedavg["gain_over_fedavg_mean"] == "" and float(fedavg["megabytes_per_round"]) == 4.0
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths[4:])


def test_a_run_without_evaluations_has_dashes(tmp_path):
    table = cells(compare([write_run(tmp_path / "a", made_up_config(), (None, None, None))]))
    assert table["fedavg"]["best %"] == table["fedavg"]["mean of last 10 %"] == "-"


def test_traffic_that_is_null_is_a_dash(tmp_path):
    path = write_run(tmp_path / "a", made_up_config())
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    text = "".join(json.dumps(row | {"bytes_up": None, "bytes_down": None}) + "\n" for row in rows)
    (path / "metrics.jsonl").write_text(text)
    assert cells(compare([path]))["fedavg"]["MB / round"] == "-"
    assert 'id="traffic"' not in page(Comparison.load([path]))


def test_load_run_returns_what_was_written(six_runs):
    run = load_run(six_runs[0])
    assert run.config == made_up_config("fedavg", 0)
    assert [row["test_accuracy"] for row in run.rows] == ACCURACIES["fedavg", 0]
    assert run.summary["best_round"] == 2
    assert dict(flatten(run.config))["model.width"] == 8


def test_command_prints_the_table_and_fails_in_one_line(tmp_path, six_runs):
    def report(*arguments):
        command = [sys.executable, "-m", "launch.report", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")

    done = report(*six_runs, f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert compare(six_runs) in done.stdout and "comparison.png" in done.stdout
    failed = report(tmp_path / "nowhere")
    assert failed.returncode == 2 and "nowhere: no such directory" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert report().returncode == 2


def test_a_sweep_has_no_warning_about_what_it_sweeps(tmp_path):
    def run(name, rate, **changes):
        config = made_up_config(name, learning_rate=rate, **changes)
        return write_run(tmp_path / f"{name}-{rate}-{len(changes)}", config)

    sweep = [run(name, rate) for name in ("fedavg", "moon") for rate in (0.1, 0.01)]
    text = compare(sweep)
    assert "Warning" not in text and "moon (learning_rate=0.01)" in text
    # Where methods have other values, the comparison is unfair.
    assert "the runs also differ in learning_rate" in compare(sweep[:3])
    # How a run is computed makes no other method.
    same = run("moon", 0.1, seed=1, runtime={"num_devices": 2})
    assert cells(compare([*sweep, same]))["moon (learning_rate=0.1)"]["seeds"] == "2"


def test_an_algorithm_given_from_python_is_another_method(tmp_path):
    paths = [write_run(tmp_path / name, made_up_config()) for name in ("usual", "own", "module")]
    for path, field, name in ((paths[1], "algorithm", "mine"), (paths[2], "model", "MyNet")):
        summary = json.loads((path / "summary.json").read_text())
        (path / "summary.json").write_text(json.dumps({**summary, field: name}))
    assert load_run(paths[1]).config["algorithm"] == {"name": "mine"}
    text = compare(paths)  # not "the same run (same seed)"
    assert "mine" in text and "fedavg (model.name=MyNet" in text


def test_seeds_of_one_network_are_pooled_wherever_its_functions_lie_in_memory(tmp_path):
    paths = []
    for seed, address in enumerate(("0x7f66129a9f80", "0x7f0000000010")):
        path = write_run(tmp_path / str(seed), made_up_config(seed=seed))
        write_json(path / "run.json", {"model": f"Net(\n  act = <function relu at {address}>\n)"})
        paths.append(path)
    assert [row["seeds"] for row in cells(compare(paths)).values()] == ["2"]


def test_a_mean_says_of_how_many_seeds_it_is(tmp_path):
    values = ((0.1, 0.2, 0.4), (0.1, None, None))
    paths = [
        write_run(tmp_path / str(seed), made_up_config(seed=seed), each)
        for seed, each in enumerate(values)
    ]
    (row,) = cells(compare(paths)).values()
    assert row["seeds"] == "2" and row["last %"] == "40.00 (1 of 2)"
    assert "(" not in row["best %"]


def test_seeds_of_different_networks_or_images_are_not_pooled(tmp_path):
    shown = ("Net(\n    # attributes\n    width = 4\n)", "Net(\n    # attributes\n    width = 8\n)")
    for given in ([{"model": text} for text in shown], [{"data": "a"}, {"data": "b"}]):
        paths = []
        for seed, bound in enumerate(given):
            path = write_run(tmp_path / f"{'-'.join(bound)}-{seed}", made_up_config(seed=seed))
            summary = json.loads((path / "summary.json").read_text())
            write_json(path / "summary.json", summary | {"dataset": "arrays"})
            write_json(path / "run.json", bound)
            paths.append(path)
        text = compare(paths)
        assert [row["seeds"] for row in cells(text).values()] == ["1", "1"], text
        # What differs under one name is not said to be shared.
        assert ("dataset=arrays" in text) == ("model" in given[0])
        assert ("model.name=" in text) == ("data" in given[0])


@pytest.mark.parametrize(
    "changes", [{"algorithm": "fedavg"}, {"guidance": None}, {"rounds": "many"}]
)
def test_a_configuration_of_another_kind_is_damaged(tmp_path, changes):
    path = write_run(tmp_path / "run", {**made_up_config(), **changes})
    with pytest.raises(ReportError, match=f"damaged .in config.json {next(iter(changes))}"):
        load_run(path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "summary.json",
            '{"rounds": 3, "privacy": "x"}',
            "summary.json privacy is of another kind",
        ),
        ("summary.json", '{"rounds": 3, "final_accuracy": "high"}', "json final_accuracy is of an"),
        (
            "metrics.jsonl",
            '{"round": 1, "test_accuracy": "high"}',
            "test_accuracy of round 1 must be",
        ),
        ("metrics.jsonl", '{"round": 1}\n{"round": 1}', "line 2: not a metrics row"),
    ],
)
def test_files_that_were_edited_are_named(six_runs, file, content, message):
    (six_runs[0] / file).write_text(content)
    with pytest.raises(ReportError, match=rf"damaged \(.*{message}"):
        load_runs(six_runs[:1])


def test_a_run_that_diverged_is_named_in_what_is_written(tmp_path):
    names = ["fedavg-seed0", "moon-seed0", "scaffold-seed0"]
    for name in names:
        write_run(tmp_path / name, made_up_config(name.partition("-")[0]))
    stopped = tmp_path / "moon-seed0" / "summary.json"
    summary = json.loads(stopped.read_text()) | {"finished": None, "diverged_round": 2}
    stopped.write_text(json.dumps(summary))
    text = compare_finished(names, ["moon-seed0"], tmp_path)
    line = "Warning: moon-seed0 is not compared: it diverged in round 2."
    assert line in text.splitlines() and "scaffold" in text
    assert line in (tmp_path / "comparison.md").read_text().splitlines()
    assert f"% {line}" in (tmp_path / "comparison.tex").read_text().splitlines()
    with pytest.raises(DivergedError, match=r"no run is left: moon-seed0 .* diverged in round 2"):
        compare_finished(names[1:2], ["moon-seed0"], tmp_path)
