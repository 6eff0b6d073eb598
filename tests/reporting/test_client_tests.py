"""Figures over clients, their table and their plot."""

import numpy as np
import pytest

from semanticfl_jax.reporting import client_tests
from semanticfl_jax.reporting.metric import ACCURACY, Metric
from semanticfl_jax.reporting.plots.client_tests import plot_client_tests
from semanticfl_jax.reporting.runs import Method, Run

TESTED = np.arange(21) < 20


@pytest.fixture
def tests():
    """Twenty clients of accuracies 0.05 to 1, and one without test images."""
    headline = np.append(np.arange(1, 21) / 20, np.nan).astype(np.float32)
    return {"global": (headline, 1 - headline), "personal": (headline[::-1] ** 0.5, headline)}


def test_the_worst_tenth_is_of_those_who_were_tested(tests):
    row = client_tests.over_clients(tests, ACCURACY, TESTED)
    assert row["global_client_accuracy"] == pytest.approx(0.525)
    assert row["global_client_accuracy_worst_decile"] == pytest.approx((0.05 + 0.1) / 2)
    assert row["global_client_accuracy_std"] == pytest.approx(np.std(np.arange(1, 21) / 20))
    assert row["global_client_loss"] == pytest.approx(0.475)
    # Of a metric of which less is better, the worst are the largest.
    row = client_tests.over_clients(tests, Metric("test_mse", higher=False), TESTED)
    assert row["global_client_mse_worst_decile"] == pytest.approx((0.95 + 1) / 2)
    assert all(map(client_tests.is_field, row))


def test_nobody_tested_is_nan_and_no_error():
    nobody = np.full(3, np.nan, np.float32)
    arguments = {"global": (nobody, nobody)}, ACCURACY, np.zeros(3, bool)
    row = client_tests.over_clients(*arguments)
    assert all(map(np.isnan, row.values())) and len(row) == 4
    assert client_tests.not_finite(*arguments) == []


def test_a_model_that_came_to_no_number_is_not_left_out_of_the_mean():
    tested, ones = np.arange(4) < 3, np.ones(4, np.float32)
    loss = np.array([1, np.nan, 2, np.nan], np.float32)
    tests = {"global": (ones, ones), "personal": (np.float32([0.5, 0.25, 0.75, np.nan]), loss)}
    row = client_tests.over_clients(tests, ACCURACY, tested)
    assert np.isnan(row["personal_client_loss"]) and row["global_client_loss"] == 1
    assert row["personal_client_accuracy"] == 0.5  # as it would predict
    assert client_tests.not_finite(tests, ACCURACY, tested) == ["personal_client_loss"]
    errors = Metric("test_mse", higher=False)
    row = client_tests.over_clients({"personal": (loss, loss)}, errors, tested)
    assert len(row) == 4 and all(map(np.isnan, row.values()))
    # A figure that the images of a client do not have is none of its model.
    row = client_tests.over_clients({"personal": (loss, ones)}, errors, tested)
    assert row["personal_client_mse"] == 1.5 and row["personal_client_mse_worst_decile"] == 2


def test_the_last_test_counts():
    rows = [
        {"round": 1, "global_client_accuracy": 0.1},
        {"round": 2, "global_client_accuracy": 0.2, "test_accuracy": 0.5},
        {"round": 3, "test_accuracy": 0.6},
    ]
    assert client_tests.last_figures(rows) == {"global_client_accuracy": 0.2}
    assert client_tests.last_figures(rows[2:]) == {}


def test_the_table_has_the_models_that_were_tested(tmp_path):
    def method(label, **summary):
        return Method(label, (Run(tmp_path, {}, summary, []), Run(tmp_path, {}, summary, [])))

    both = {"global_client_accuracy": 0.5, "global_client_accuracy_worst_decile": 0.25}
    own = {"personal_client_accuracy": 0.75, "personal_client_accuracy_worst_decile": 0.5}
    text = client_tests.table([method("fedavg", **both), method("ditto", **both, **own)], ACCURACY)
    head, rule, fedavg, ditto = [line.strip("| ").split(" | ") for line in text.splitlines()]
    assert [cell.strip() for cell in head][1:] == [
        "server's model, %",
        "server's, worst tenth, %",
        "clients' own model, %",
        "clients' own, worst tenth, %",
    ]
    assert [cell.strip() for cell in fedavg] == [
        "fedavg",
        "50.00 ± 0.00",
        "25.00 ± 0.00",
        "-",
        "-",
    ]
    assert ditto[3].strip() == "75.00 ± 0.00" and len(rule) == 5
    assert client_tests.table([method("fedavg")], ACCURACY) is None


def test_the_plot_is_drawn_whatever_was_tested(tests, tmp_path):
    drawn = set()
    for name, some in {"both": tests, "one": {"global": tests["global"]}}.items():
        plot_client_tests(some, tmp_path / f"{name}.png")
        drawn.add((tmp_path / f"{name}.png").read_bytes())
    nobody = {"global": (np.full(2, np.nan), np.full(2, np.nan))}
    plot_client_tests(nobody, tmp_path / "none.png", metric=Metric("test_mse", higher=False))
    drawn.add((tmp_path / "none.png").read_bytes())
    assert len(drawn) == 3 and all(each.startswith(b"\x89PNG") for each in drawn)


@pytest.mark.parametrize(("higher", "better"), [(True, 1), (False, 2)])
def test_the_plot_tells_for_how_many_another_model_is_better(tmp_path, drawn, higher, better):
    before, after = np.float32([1.0, 2.0, 3.0, np.nan]), np.float32([0.5, 2.5, 1.0, np.nan])
    tests = {"global": (before, before), "personal": (after, after)}
    plot_client_tests(tests, tmp_path / "a.png", metric=Metric("test_x", higher))
    _, pairs = drawn[0].axes
    (label,) = [text.get_text() for text in pairs.get_legend().get_texts()]
    assert label == f"clients' own: better for {better} of 3"


@pytest.mark.parametrize(("higher", "end"), [(True, "below 1.2"), (False, "above 2.8")])
def test_the_plot_tells_the_end_of_the_worst_tenth(tmp_path, drawn, higher, end):
    before = np.float32([1.0, 2.0, 3.0, np.nan])
    metric = Metric("test_x", higher)
    plot_client_tests({"global": (before, before)}, tmp_path / "a.png", metric=metric)
    (histogram,) = drawn[0].axes
    told = histogram.get_legend().get_texts()[0].get_text()
    assert told == f"server's: mean 2, worst tenth {end}"


def test_every_clients_figures_are_saved(tests, tmp_path):
    client_tests.save(tmp_path / "client_tests.npz", tests, ACCURACY)
    with np.load(tmp_path / "client_tests.npz") as arrays:
        assert set(arrays) == {
            "global_accuracy",
            "global_loss",
            "personal_accuracy",
            "personal_loss",
        }
        np.testing.assert_array_equal(arrays["global_accuracy"], tests["global"][0])
