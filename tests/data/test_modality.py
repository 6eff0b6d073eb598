"""Which clients lack which anchors."""

import numpy as np
import pytest

from semanticfl_jax.config import ModalityConfig
from semanticfl_jax.data.modality import draw_modalities


@pytest.mark.parametrize("num_clients", [10, 37, 1000])
def test_shares_are_met_and_disjoint(num_clients):
    config = ModalityConfig(without_text=0.2, without_visual=0.3, without_both=0.1)
    holders = draw_modalities(config, num_clients, seed=4)
    text, visual = holders["text"], holders["visual"]
    counts = [(~text & visual).sum(), (text & ~visual).sum(), (~text & ~visual).sum()]
    np.testing.assert_allclose(counts, np.array([0.2, 0.3, 0.1]) * num_clients, atol=1)
    again = draw_modalities(config, num_clients, seed=4)
    np.testing.assert_array_equal(again["text"], text)
    assert (draw_modalities(config, num_clients, seed=5)["text"] != text).any()


def test_all_or_nobody():
    assert draw_modalities(ModalityConfig(), 10, 0) == {}
    nobody = draw_modalities(ModalityConfig(without_both=1.0), 10, 0)
    assert not nobody["text"].any()
    assert not nobody["visual"].any()


def test_who_lacks_the_student_is_drawn_apart_from_the_anchors():
    config = ModalityConfig(without_text=0.2, without_student=0.3)
    holders = draw_modalities(config, 50, seed=4)
    assert (~holders["student"]).sum() == 15
    anchors_alone = draw_modalities(ModalityConfig(without_text=0.2), 50, seed=4)
    np.testing.assert_array_equal(anchors_alone["text"], holders["text"])
    assert "student" not in anchors_alone
    assert set(draw_modalities(ModalityConfig(without_student=0.3), 50, 4)) == {"student"}
