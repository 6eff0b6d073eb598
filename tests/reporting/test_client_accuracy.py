"""What the server model is worth to each client, in closed form."""

import numpy as np
import pytest
from PIL import Image

from semanticfl_jax.reporting.client_accuracy import (
    client_accuracy,
    evaluated,
    fairness,
    final_figures,
)
from semanticfl_jax.reporting.plots.accuracy_maps import plot_accuracy_maps


def test_a_client_is_worth_its_classes():
    accuracy = np.array([1.0, 0.5, np.nan])
    counts = np.array([[5, 0, 0], [0, 2, 0], [3, 1, 100], [0, 0, 4]])
    np.testing.assert_allclose(client_accuracy(accuracy, counts), [1.0, 0.5, 0.875, np.nan])


@pytest.mark.parametrize("clients", [1, 9, 10, 25])
def test_fairness_of_evenly_spaced_clients(clients):
    values = np.random.default_rng(0).permutation(np.arange(clients) / clients)
    result = fairness(np.append(values, np.nan))
    worst = max(1, clients // 10)
    assert result["worst_decile_accuracy"] == pytest.approx((worst - 1) / 2 / clients)
    assert result["client_accuracy_variance"] == pytest.approx((clients**2 - 1) / 12 / clients**2)


def test_nobody_left():
    assert np.isnan(list(fairness(np.array([np.nan])).values())).all()


def test_final_figures_have_names():
    figures = {"test_accuracy": 0.5, "class_accuracy": np.array([0.9, 0.2, np.nan]), "ece": 0.1}
    counts = np.array([[1, 1, 0], [0, 3, 1]])
    row = evaluated(figures, counts)
    assert row["worst_class_accuracy"] == 0.2
    assert row["worst_decile_accuracy"] == pytest.approx(0.2)
    row["class_accuracy"] = [0.9, 0.2, None]  # as it is read back
    final = final_figures(row, ("cat", "dog", "owl"), counts)
    assert final["worst_class"] == "dog"
    assert final["class_accuracy"]["cat"] == 0.9
    np.testing.assert_allclose(final["client_accuracy"], [0.55, 0.2])
    many = final_figures(row, ("cat", "dog", "owl"), np.tile(counts, (600, 1)))
    assert "client_accuracy" not in many


@pytest.mark.parametrize(("clients", "rounds"), [(3, 0), (3, 1), (60, 12), (500, 30)])
def test_maps_are_pictures(tmp_path, clients, rounds):
    rng = np.random.default_rng(0)
    rows = [{"round": 0, "train_loss": 1.0}]
    for number in range(1, rounds + 1):
        rows.append({"round": number, "class_accuracy": [*rng.random(4).tolist(), None]})
    counts = rng.integers(0, 9, (clients, 5))
    path = tmp_path / "accuracy_maps.png"
    plot_accuracy_maps(rows, tuple("abcde"), counts, path)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 800


def test_maps_have_the_best_client_first(tmp_path, drawn):
    rows = [{"round": r, "class_accuracy": [0.1 * r, 0.5, None]} for r in (1, 2)]
    counts = np.array([[4, 0, 0], [0, 4, 1], [2, 2, 0]])
    plot_accuracy_maps(rows, tuple("abc"), counts, tmp_path / "maps.png")
    classes, clients = drawn[0].axes[:2]
    shown = classes.images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(shown, [[10, 20], [50, 50], [np.nan, np.nan]])
    shown = clients.images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(shown, [[50, 50], [30, 35], [10, 20]])
    assert [text.get_text() for text in clients.get_yticklabels()] == ["1", "2", "0"]
