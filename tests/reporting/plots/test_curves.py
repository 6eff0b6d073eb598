"""Plots: what is drawn, for ordinary and for degenerate input."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from semanticfl_jax.reporting.plots import curves


def made_up_rows(accuracies, every=1):
    rows = [{"round": r, "train_loss": 1 / r} for r in range(1, len(accuracies) * every + 1)]
    for index, accuracy in enumerate(accuracies):
        rows[(index + 1) * every - 1] |= {"test_accuracy": accuracy, "test_loss": 0.5}
    return rows


def test_curves_show_percent_at_evaluated_rounds_and_mark_the_best(tmp_path, drawn):
    curves.plot_curves(made_up_rows([0.2, 0.7, 0.6], every=2), tmp_path / "plots" / "curves.png")
    accuracy, loss = drawn[0].axes
    np.testing.assert_array_equal(accuracy.lines[0].get_xdata(), [2, 4, 6])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [20, 70, 60])
    assert accuracy.lines[1].get_xdata() == [4]
    assert [len(line.get_xdata()) for line in loss.lines] == [6, 3]
    assert "%" in accuracy.get_ylabel() and accuracy.get_xlabel() == "Round"
    assert [each.name for each in (tmp_path / "plots").iterdir()] == ["curves.png"]


def test_curves_show_what_is_spent_of_privacy(tmp_path, drawn):
    rows = [{**row, "epsilon": 0.5 * row["round"]} for row in made_up_rows([0.2, 0.7])]
    curves.plot_curves(rows, tmp_path / "curves.png")
    *_, spent = drawn[0].axes
    assert len(drawn[0].axes) == 3 and spent.get_ylabel() == "epsilon"
    np.testing.assert_allclose(spent.lines[0].get_ydata(), [0.5, 1.0])


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"round": 1, "train_loss": None}],
        [{"round": 1, "train_loss": 1.0, "test_accuracy": 0.5, "test_loss": None}],
        [{"round": r, "train_loss": None, "test_accuracy": 0.1} for r in (1, 2)],
    ],
)
def test_curves_of_little_or_diverged_training_are_still_a_picture(tmp_path, rows):
    path = tmp_path / "curves.png"
    curves.plot_curves(rows, path)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 800


def test_comparison_draws_mean_and_sample_deviation_over_common_rounds(tmp_path, drawn):
    seeds = [made_up_rows([0.1, 0.5]), made_up_rows([0.3, 0.9, 0.95])]
    runs = {"fedavg": seeds, "semanticfl": [made_up_rows([0.4, 0.6])]}
    curves.plot_comparison(runs, tmp_path / "comparison.png")
    (axes,) = drawn[0].axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [20, 70])
    band = axes.collections[0].get_paths()[0].vertices
    half = 40 / np.sqrt(2)
    np.testing.assert_allclose(
        [band[:, 1].min(), band[:, 1].max()], [20 - 20 / np.sqrt(2), 70 + half]
    )
    assert len(axes.collections) == 1
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["fedavg (2 seeds)", "semanticfl (1 seed)"]


def test_plotting_leaves_matplotlib_as_it_was(tmp_path):
    before = dict(matplotlib.rcParams)
    curves.plot_comparison({"fedavg": [made_up_rows([0.1])]}, tmp_path / "comparison.png")
    assert dict(matplotlib.rcParams) == before


def test_feature_maps_show_separability_and_weight_in_order(tmp_path, drawn):
    maps = {
        "vae": {"dimensions": 4, "weight": 0.25, "separability": 0.1},
        "mid": {"dimensions": 64, "weight": 0.75, "separability": 1.2},
    }
    curves.plot_feature_maps(maps, tmp_path / "anchors.png", note="not private")
    separability, weight = drawn[0].axes
    assert [bar.get_width() for bar in separability.patches] == [0.1, 1.2]
    assert [bar.get_width() for bar in weight.patches] == [0.25, 0.75]
    assert [text.get_text() for text in separability.get_yticklabels()] == [
        "vae (4 d)",
        "mid (64 d)",
    ]
    assert drawn[0].get_suptitle() == "not private"
