"""The benchmark of augmentation, in its smallest form."""

import pytest

from semanticfl_jax.benchmarks.augmentation import measure
from semanticfl_jax.config import ModelConfig


def test_shares_of_a_step_are_measured():
    lines = []
    cases = ((), ("crop_flip", "cutout"))
    figures = measure(
        ModelConfig(name="cnn"),
        repeats=2,
        steps=2,
        batch_size=4,
        image_size=8,
        cases=cases,
        say=lines.append,
    )
    bare, augmented = figures["cases"]
    assert bare["augmentation"] == [] and bare["share_of_step"] == 0
    assert augmented["augmentation"] == ["crop_flip", "cutout"]
    step = augmented["seconds_per_step"]
    assert 0 < step["min"] <= step["median"] <= step["max"]
    # Whatever the machine does meanwhile, a part is not more than the whole.
    assert augmented["share_of_step"] < 1
    alone = augmented["alone_microseconds_per_image"]
    expected = 1e-6 * alone * 4 * figures["clients_side_by_side"] / step["median"]
    assert augmented["alone_share_of_step"] == pytest.approx(expected)
    assert any("crop_flip, cutout" in line for line in lines)
