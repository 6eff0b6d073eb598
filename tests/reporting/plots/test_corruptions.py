"""The gallery of corrupted clients."""

import numpy as np
import pytest
from PIL import Image

from semanticfl_jax.reporting.plots.corruptions import plot_gallery


def strip(count, value):
    return np.full((count, 8, 8, 3), value, np.uint8)


@pytest.mark.parametrize("sizes", [(6, 6, 2), (1,)])
def test_gallery_shows_every_client_before_and_after(tmp_path, sizes):
    # Values that no text or axis has, so that an image's area can be counted.
    rows = [(f"client {i}", strip(n, 100 + i), strip(n, 150 + i)) for i, n in enumerate(sizes)]
    path = tmp_path / "plots" / "corruptions.png"
    plot_gallery(rows, path, note="not private")
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    areas = {value: (pixels == value).all(axis=1).sum() for value in range(100, 153)}
    first = areas[100] / sizes[0]
    assert first > 500
    for i, size in enumerate(sizes):
        assert areas[100 + i] == pytest.approx(size * first, rel=0.1)
        assert areas[150 + i] == pytest.approx(size * first, rel=0.1)


def test_gallery_of_nobody(tmp_path):
    with pytest.raises(ValueError, match="at least one corrupted client"):
        plot_gallery([], tmp_path / "x.png")
