"""A probe's table and plot, of figures made up so that the answers can be read off."""

import pytest
from PIL import Image

from semanticfl_jax.probing.report import (
    differences,
    plot_probe,
    probe_report,
    probe_table,
    summarize_probe,
)


def row(linear, knn, seeds=2):
    return {
        "dimensions": [4, 4][:seeds],
        "linear": linear[:seeds],
        "knn": knn[:seeds],
        "inverse_strength": [1.0, 0.1][:seeds],
        "separability": [0.25, 0.27][:seeds],
    }


def made_up(seeds=2):
    return {
        "dataset": "cifar10",
        "checkpoint": "tiny-sd",
        "timestep": 150,
        "train_images": 5000,
        "test_images": 2000,
        "seeds": [0, 1][:seeds],
        "amda": {"maps": ["vae", "mid"]},
        "figures": {
            "trained": {
                "raw pixels": row([0.30, 0.32], [0.2, 0.2], seeds),
                "mid": row([0.40, 0.42], [0.3, 0.34], seeds),
                "AMDA, adaptive": row([0.50, 0.54], [0.4, 0.4], seeds),
            },
            "random U-Net": {"AMDA, adaptive": row([0.20, 0.20], [0.1, 0.2], seeds)},
        },
    }


def test_the_table_has_means_and_deviations_and_gaps():
    lines = probe_table(made_up()).splitlines()
    assert lines[0].startswith(
        "| features | dimensions | separability | linear % | k-NN % | random"
    )
    assert lines[2] == "| raw pixels | 4 | 0.26 ± 0.01 | 31.0 ± 1.4 | 20.0 ± 0.0 |  |  |"
    assert lines[4].endswith("| 52.0 ± 2.8 | 40.0 ± 0.0 | 20.0 ± 0.0 | 15.0 ± 7.1 |")
    assert {line.count("|") for line in lines} == {8}
    single = probe_table(made_up(seeds=1)).splitlines()
    assert single[2] == "| raw pixels | 4 | 0.25 | 30.0 | 20.0 |  |  |"


def test_gains_are_seed_by_seed():
    gains = differences(made_up(), "linear")
    assert gains["raw pixels"] == pytest.approx([0.20, 0.22])
    assert gains["AMDA, adaptive (random U-Net)"] == pytest.approx([0.30, 0.34])
    text = probe_report(made_up())
    assert "Linear probe: AMDA, adaptive is +21.00 ± 1.41 over raw pixels" in text
    assert "standard error of one seed up to 1.1" in text
    error = summarize_probe(made_up())["summary"]["trained"]["AMDA, adaptive"]["linear"]
    assert error["standard_error_of_one_seed"] == pytest.approx((0.52 * 0.48 / 2000) ** 0.5)


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_plot_is_written(tmp_path, seeds):
    plot_probe(made_up(seeds), tmp_path / "plots" / "probe.png")
    with Image.open(tmp_path / "plots" / "probe.png") as image:
        assert image.format == "PNG" and image.width > 800
