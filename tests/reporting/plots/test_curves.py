"""Plots: what is drawn, for ordinary and for degenerate input."""

import numpy as np
import pytest
from PIL import Image

from semanticfl_jax.reporting.plots import curves
from tests.reporting.made_up import made_up_rows


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


def test_curves_show_the_terms_of_the_loss(tmp_path, drawn):
    rows = [{**row, "train_loss_near": 0.25 * row["round"]} for row in made_up_rows([0.2, 0.7])]
    curves.plot_curves(rows, tmp_path / "curves.png")
    lines = {line.get_label(): line for line in drawn[0].axes[1].lines}
    assert list(lines) == ["train", "test", "train, near alone"]
    np.testing.assert_allclose(lines["train, near alone"].get_ydata(), [0.25, 0.5])


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
