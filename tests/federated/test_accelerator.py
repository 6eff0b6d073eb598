"""What must hold on any accelerator: lowerings, bfloat16, chunks, memories, resuming.

Here they run on CPU as every test does. On a GPU or a TPU, without the flags for quick compilation:

    SEMANTICFL_TEST_PLATFORM=cuda,cpu XLA_FLAGS=--xla_gpu_deterministic_ops=true \
        python -m pytest -n 0 -m accelerator -W default tests/federated/test_accelerator.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.config import AlgorithmConfig, ExperimentConfig, ModelConfig, RuntimeConfig
from semanticfl_jax.models.client_conv import LOWERINGS
from semanticfl_jax.simulation import experiment
from tests.federation import CLASSES, SIZES, TinyNet, make_federation, noise_images

pytestmark = pytest.mark.accelerator

CONFIG = ExperimentConfig(
    dataset="digits",
    num_clients=6,
    clients_per_round=4,
    rounds=4,
    local_epochs=1,
    batch_size=8,
    public_per_class=0,
    model=ModelConfig(name="cnn"),
    algorithm=AlgorithmConfig(name="scaffold"),
    eval_every=4,
    checkpoint_every=2,
    runtime=RuntimeConfig(num_devices=1, tuning="never", clients_per_chunk=2),
)


@pytest.fixture(autouse=True)
def full_float32():
    """Products of float32 in float32: else TF32 would hide what is compared."""
    with jax.default_matmul_precision("highest"):
        yield


def trained(chunk, lowering):
    """Parameters after a round of the ragged federation."""
    federation = make_federation(TinyNet(CLASSES, lowering=lowering), SIZES)
    run, start = federation.round(devices=1, chunk=chunk)
    return jax.device_get(run(*start)[0].params)


@pytest.fixture(scope="module")
def one_by_one():
    """Parameters after a round of clients trained one after another."""
    with jax.default_matmul_precision("highest"):
        return trained(1, "shifted")


@pytest.mark.parametrize("lowering", [name for name in LOWERINGS if name != "auto"])
def test_every_lowering_in_the_round_and_chunks_against_one_by_one(lowering, one_by_one):
    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)

    jax.tree.map(close, trained(3, lowering), one_by_one)


@pytest.fixture(scope="module")
def noise():
    """A data set of noise, 8 x 8 pixels."""
    return noise_images(130, 30)


def simulate(config, noise, workdir=None):
    return experiment.Simulation(config, dataset=noise, workdir=workdir, say=None, progress=False)


@pytest.fixture(scope="module")
def whole(noise):
    """The result of four rounds in one go."""
    with jax.default_matmul_precision("highest"), simulate(CONFIG, noise) as simulation:
        return simulation.run()


def require_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    assert one.history[-1]["train_loss"] == other.history[-1]["train_loss"]


def test_a_resumed_run_ends_as_the_whole_one(noise, whole, tmp_path):
    with simulate(CONFIG, noise, tmp_path) as simulation:
        simulation.run(2)
    with simulate(CONFIG, noise, tmp_path) as simulation:
        assert simulation.round == 2
        require_equal(simulation.run(), whole)


def test_images_and_states_from_host_memory_are_the_same(noise, whole):
    host = CONFIG.with_runtime(data_memory="host", client_state_memory="host")
    with simulate(host, noise) as simulation:
        require_equal(simulation.run(), whole)


def test_bfloat16_stays_near_float32_and_keeps_float32_weights(noise, whole):
    with simulate(dataclasses.replace(CONFIG, precision="bfloat16"), noise) as simulation:
        start = jax.device_get(simulation.state.params["model"])
        result = simulation.run()
    assert {x.dtype for x in jax.tree.leaves(result.params)} == {jnp.float32.dtype}

    def joined(tree):
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])

    moved = joined(whole.params) - joined(start)
    apart = joined(result.params) - joined(whole.params)
    # bfloat16 keeps 8 bits of a product; four rounds of small steps add up what it loses.
    assert 0 < np.linalg.norm(apart) < 0.1 * np.linalg.norm(moved)
