"""Plans of a diffusion model's pass, beside the pass itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.config import AlgorithmConfig, GuidanceConfig, StudentConfig
from semanticfl_jax.diffusion import features
from semanticfl_jax.diffusion.stable_diffusion import load
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.planning.features import lower_features
from semanticfl_jax.planning.plan import make_plan
from semanticfl_jax.planning.topology import make_topology
from tests.planning.accelerators import ACCELERATORS
from tests.planning.test_plan import CONFIG, IMAGES

PICTURE, CLASSES = (8, 8, 3), 4


def with_checkpoint(checkpoint, **changes):
    guidance = GuidanceConfig(enabled=True, checkpoint=str(checkpoint), **changes)
    algorithm = AlgorithmConfig("semanticfl")
    return dataclasses.replace(CONFIG, algorithm=algorithm, guidance=guidance, public_per_class=1)


def planned(config, topology="cpu:2"):
    return lower_features(config, make_topology(topology), PICTURE, CLASSES)


@pytest.mark.parametrize("maps", [(), ("vae", "mid")])
def test_what_is_planned_is_what_a_run_computes(goldens, monkeypatch, maps):
    taken = []

    def record(compute, constant, rows, batch_size, **_):
        on_devices = jax.device_put(tuple(constant)), jax.device_put(tuple(rows))
        taken.append(features.pooled_maps.lower(*on_devices[0], *on_devices[1], **compute.keywords))
        return {name: np.zeros(1) for name in compute.keywords["maps"]}

    monkeypatch.setattr(features, "over_batches", record)
    model = load(goldens / "sd1")
    texts = model.text([f"class {number}" for number in range(CLASSES)])[0]
    images, classes = np.zeros((6, *PICTURE), np.uint8), np.zeros(6, np.int32)
    features.extract_features(model, images, texts, classes, maps=maps or None, resolution=32)
    config = with_checkpoint(
        goldens / "sd1", maps=maps, resolution=32, diffusion_batch_size=5, dtype="float32"
    )
    lowered = planned(config)
    asked, told = (
        [(x.shape, x.dtype) for x in jax.tree.leaves(each.in_avals)] for each in (taken[0], lowered)
    )
    assert told == asked  # five images are six, on two devices
    assert lowered.out_info.keys() == taken[0].out_info.keys()
    for name, found in lowered.out_info.items():
        assert found.shape == taken[0].out_info[name].shape


def test_a_plan_has_the_pass_if_it_is_asked_for(goldens):
    config = with_checkpoint(goldens / "sd1", resolution=32, diffusion_batch_size=2)
    topology = make_topology("cpu:2")
    plan = make_plan(config, topology, IMAGES, 5, programs=("features",), say=lambda line: None)
    (found,) = plan.programs
    assert found.failed is None and found.conv == "native" and found.counted() == {}
    weights = sum(x.nbytes for x in jax.tree.leaves(load(goldens / "sd1").params))
    # The text tower is not run, and what is not run is not on the devices.
    assert 0.3 * weights < found.memory.arguments < weights + 1_000_000


def test_stable_diffusion_is_planned_by_its_published_sizes():
    lowered = planned(with_checkpoint("random-sd15", dtype="bfloat16"))
    leaves = jax.tree.leaves(lowered.in_avals[0][0].params["unet"])
    assert sum(leaf.size for leaf in leaves) == 859_520_964
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.bfloat16)}
    assert lowered.out_info["mid"].shape == (4, 1280)  # two images a device, at 512 pixels


def test_what_cannot_be_planned_is_refused(goldens):
    with pytest.raises(MissingFileError, match="download cache"):
        planned(with_checkpoint("nobody/nothing"))
    silent = {"programs": ("features",), "say": lambda line: None}
    labels = StudentConfig(enabled=True, control="labels", images="public", batch_size=8)
    own = GuidanceConfig(enabled=True, lambda_kd=0, lambda_con=0, student=labels)
    for guidance in (GuidanceConfig(), own):
        config = dataclasses.replace(CONFIG, guidance=guidance, public_per_class=1)
        with pytest.raises(SemanticFLError, match="for which a diffusion model reads images"):
            make_plan(config, make_topology("cpu:2"), IMAGES, 5, **silent)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_the_pass_compiles_for_an_accelerator(goldens, name):
    config = with_checkpoint(goldens / "sd1", resolution=32, diffusion_batch_size=4)
    compiled = planned(config, name).compile()
    assert "all-" not in compiled.as_text()
