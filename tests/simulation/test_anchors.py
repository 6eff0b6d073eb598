"""The anchors of a run: of which images they are made, and controls in place of them."""

import numpy as np

from semanticfl_jax.config import ExperimentConfig, GuidanceConfig
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.simulation import anchors as module
from tests.federation import noise_images
from tests.semantics.test_anchors import made_up


def config_of(seed=0, **guidance):
    return ExperimentConfig(
        dataset="digits",
        num_clients=6,
        clients_per_round=3,
        public_per_class=2,
        seed=seed,
        guidance=GuidanceConfig(enabled=True, **guidance),
    )


def test_they_are_made_of_the_public_images_alone():
    world, config = noise_images(), config_of()
    federation = make_federation(world, config)
    found = module.anchor_images(
        federation.dataset, federation.public, federation.partition, config.guidance
    )
    np.testing.assert_array_equal(found.images, world.train_images[federation.public])
    np.testing.assert_array_equal(found.labels, world.train_labels[federation.public])


def test_a_control_takes_their_place_and_goes_by_the_seed(monkeypatch, tmp_path):
    made = made_up(rows=4)
    monkeypatch.setattr(module, "obtain_anchors", lambda *inputs, **options: made)

    def visual(seed):
        config = config_of(seed, anchors="random_orthogonal")
        federation = make_federation(noise_images(), config)
        return module.server_anchors(federation, config, 8, tmp_path, lambda line: None).visual

    one, other = visual(0), visual(1)
    np.testing.assert_allclose(one @ one.T, np.eye(4), atol=1e-5)
    assert not np.array_equal(one, other)
