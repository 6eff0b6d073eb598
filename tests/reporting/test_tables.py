"""A comparison as CSV by seed and as LaTeX."""

import csv
import io
import re

import numpy as np
import pytest

from semanticfl_jax.reporting import tables
from semanticfl_jax.reporting.comparison import Comparison
from tests.reporting.made_up import ACCURACIES, MSE, made_up_config, write_run


def test_the_long_table_has_a_line_a_seed_with_its_gain(six_runs):
    rows = list(csv.DictReader(io.StringIO(tables.by_seed(Comparison.load(six_runs)))))
    assert [(row["method"], row["seed"]) for row in rows] == [
        (name, str(seed)) for name in ("fedavg", "semanticfl") for seed in range(3)
    ]
    for row, directory in zip(rows, six_runs, strict=True):
        own = ACCURACIES[row["method"], int(row["seed"])]
        assert float(row["final_accuracy"]) == own[-1]
        assert float(row["mean_last10_accuracy"]) == pytest.approx(np.mean(own))
        assert row["run"] == str(directory.resolve()) and row["ece"] == ""
        gain = np.mean(own) - np.mean(ACCURACIES["fedavg", int(row["seed"])])
        expected = "" if row["method"] == "fedavg" else pytest.approx(gain)
        assert (row["gain_over_fedavg"] and float(row["gain_over_fedavg"])) == expected


def test_gains_of_other_seeds_are_not_paired_in_the_long_table(six_runs):
    text = tables.by_seed(Comparison.load([*six_runs[:2], six_runs[5]]))
    assert [row["gain_over_fedavg"] for row in csv.DictReader(io.StringIO(text))] == ["", "", ""]


def test_a_seed_that_is_not_finite_has_no_gain_and_moves_no_other_s(tmp_path):
    finals = {"fedavg": [None, 0.5, 0.7], "moon": [0.9, 0.6, None]}
    runs = [
        write_run(tmp_path / f"{name}-{seed}", made_up_config(name, seed), (0.1, value, value))
        for name, values in finals.items()
        for seed, value in enumerate(values)
    ]
    comparison = Comparison.load(runs)
    (moon,) = comparison.rivals()
    gain = 2 / 3 * (0.6 - 0.5)  # of seed 1, the only one that both have
    assert comparison.paired(moon)
    assert comparison.gains(moon) == pytest.approx([gain])
    rows = list(csv.DictReader(io.StringIO(tables.by_seed(comparison))))
    gains = [row["gain_over_fedavg"] for row in rows if row["method"] == "moon"]
    assert gains[::2] == ["", ""] and float(gains[1]) == pytest.approx(gain)


def test_latex_has_a_line_a_method_with_the_best_in_bold(tmp_path, six_runs):
    odd = made_up_config("fedprox", 0, anchors="a_b%")
    odd["guidance"]["enabled"] = True
    text = tables.latex(Comparison.load([*six_runs, write_run(tmp_path / "odd", odd)]))
    lines = {line.split(" & ")[0]: line for line in text.splitlines() if " & " in line}
    best = np.mean([max(ACCURACIES["semanticfl", seed]) for seed in range(3)])
    spread = np.std([max(ACCURACIES["semanticfl", seed]) for seed in range(3)], ddof=1)
    assert rf"$\mathbf{{{100 * best:.2f}}} \pm {100 * spread:.2f}$" in lines["semanticfl"]
    assert r"\mathbf" not in lines["fedavg"]
    assert r"fedprox + guidance (a\_b\% anchors)" in lines
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1])
    assert {line.count(" & ") + 1 for line in lines.values()} == {columns}


def test_latex_has_the_least_error_in_bold(tmp_path):
    runs = [
        write_run(tmp_path / name, made_up_config(name), 3 * [value], MSE)
        for name, value in {"fedavg": 3.0, "moon": 2.0}.items()
    ]
    lines = tables.latex(Comparison.load(runs)).splitlines()
    (fedavg,), (moon,) = ([x for x in lines if x.startswith(n)] for n in ("fedavg &", "moon &"))
    assert r"\mathbf{2}" in moon and r"\mathbf" not in fedavg


def test_every_special_character_of_latex_is_escaped():
    assert tables.escape_latex(r"a_b&50%$#{}~^\c") == (
        r"a\_b\&50\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}c"
    )
    assert tables.escape_latex('<|>"') == (
        r"\textless{}\textbar{}\textgreater{}\textquotedblright{}"
    )


def test_large_and_small_numbers_have_powers_of_ten_and_a_method_alone_is_not_bold(tmp_path):
    runs = [
        write_run(tmp_path / str(seed), made_up_config(seed=seed), 3 * [12345.6 + 11 * seed], MSE)
        for seed in range(2)
    ]
    text = tables.latex(Comparison.load(runs))
    assert r"$1.235 \times 10^{4} \pm 7.778$" in text and r"\mathbf" not in text
    small = write_run(tmp_path / "small", made_up_config("moon"), 3 * [2.1e-6], MSE)
    text = tables.latex(Comparison.load([*runs, small]))
    assert r"$\mathbf{2.1 \times 10^{-6}}$" in text and "e-" not in text


def test_a_mean_over_some_seeds_says_so_in_latex_and_csv(tmp_path):
    values = ((0.1, 0.2, 0.4), (0.1, None, None))
    runs = [
        write_run(tmp_path / str(seed), made_up_config(seed=seed), each)
        for seed, each in enumerate(values)
    ]
    comparison = Comparison.load(runs)
    assert "$40.00$ (1 of 2)" in tables.latex(comparison)
    (row,) = csv.DictReader(io.StringIO(tables.by_method(comparison)))
    assert (row["best_accuracy_count"], row["final_accuracy_count"]) == ("2", "1")
