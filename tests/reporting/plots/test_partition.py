"""Plots of partitions: what is drawn, for few clients and for many."""

import numpy as np
import pytest
from PIL import Image

from semanticfl_jax.reporting.plots.partition import plot_clients, plot_partition


def test_bubble_area_is_the_count(tmp_path, drawn):
    counts = np.array([[10, 0, 40], [0, 20, 0]])
    plot_partition(counts, ["a", "b", "c"], tmp_path / "partition.png", "Gini 0.21")
    bars, chart = drawn[0].axes
    assert bars.get_title("left").endswith("(20 to 50 images each)\nGini 0.21")
    bubbles = chart.collections[0]
    np.testing.assert_array_equal(bubbles.get_offsets(), [[0, 0], [0, 2], [1, 1]])
    sizes = bubbles.get_sizes()
    np.testing.assert_allclose(sizes / sizes[0], [1, 4, 2])
    assert [bar.get_height() for bar in bars.patches] == [50, 20]
    assert [label.get_text() for label in chart.get_yticklabels()] == ["a", "b", "c"]


def test_many_clients_become_a_heat_map_sorted_by_main_class(tmp_path, drawn):
    rng = np.random.default_rng(0)
    counts = rng.multinomial(50, rng.dirichlet(np.full(10, 0.1), 1000))
    counts[3] = 0
    plot_partition(counts, [str(k) for k in range(10)], tmp_path / "partition.png")
    shown = drawn[0].axes[1].images[0].get_array().filled(0).T
    assert sorted(map(tuple, shown)) == sorted(map(tuple, counts))
    heights, edges, _ = drawn[0].axes[0].patches[0].get_data()
    np.testing.assert_array_equal(heights, shown.sum(1))
    assert (edges[0], edges[-1]) == (-0.5, 999.5)
    main = shown[:-1].argmax(axis=1)
    assert (np.diff(main) >= 0).all()
    assert (shown[-1] == 0).all()  # the client without images comes last
    with Image.open(tmp_path / "partition.png") as image:
        assert max(image.size) < 2500


def test_a_hundred_thousand_clients_are_averaged_in_groups(tmp_path, drawn):
    rng = np.random.default_rng(0)
    counts = rng.multinomial(20, rng.dirichlet(np.full(10, 0.1), 100_001))
    plot_partition(counts, [str(k) for k in range(10)], tmp_path / "partition.png")
    bars, chart = drawn[0].axes[:2]
    shown = chart.images[0].get_array().filled(0).T
    assert shown.shape == (991, 10)
    assert "means of 101" in chart.get_xlabel()
    assert len(chart.get_xticks()) == 0
    # All columns but the last are of 101 clients, of whom each has 20 images.
    members = np.append(np.full(990, 101), 100_001 - 990 * 101)
    np.testing.assert_allclose(members @ shown, counts.sum(0))
    np.testing.assert_allclose(bars.patches[0].get_data().values, 20)


def test_clients_are_sorted_curves_with_their_mean(tmp_path, drawn):
    values = {"Images": np.array([3, 9, 6]), "Classes": np.array([1.0, np.nan, 2.0])}
    plot_clients(values, tmp_path / "plots" / "clients.png")
    images, classes = drawn[0].axes
    assert images.get_title("left") == "Images"
    curve, mean = images.lines
    np.testing.assert_array_equal(curve.get_xydata(), [[1, 9], [2, 6], [3, 3]])
    np.testing.assert_array_equal(mean.get_ydata(), [6, 6])
    np.testing.assert_array_equal(classes.lines[0].get_ydata(), [2, 1])
    assert images.texts[0].get_text() == "mean 6"
    with Image.open(tmp_path / "plots" / "clients.png") as image:
        assert image.width > 900


def test_many_classes_keep_client_order(tmp_path, drawn):
    counts = np.arange(400).reshape(2, 200)[::-1]
    plot_partition(counts, [f"class {k}" for k in range(200)], tmp_path / "partition.png")
    shown = drawn[0].axes[1].images[0].get_array().filled(0).T
    np.testing.assert_array_equal(shown, counts)
    assert len(drawn[0].axes[1].get_yticks()) <= 30


@pytest.mark.parametrize("shape", [(2, 4), (3,), (0, 3)])
def test_partition_of_wrong_shape_is_refused(tmp_path, shape):
    with pytest.raises(ValueError, match="label_counts"):
        plot_partition(np.ones(shape, int), ["a", "b", "c"], tmp_path / "partition.png")
