"""What clients do to their updates, against a plain loop over clients trained one by one."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms.transforms import UpdateTransform, clip
from semanticfl_jax.config import AlgorithmConfig, ClipConfig
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.federated.memory import check_client_memory
from semanticfl_jax.federated.traffic import make_traffic
from semanticfl_jax.simulation.checkpoint import Checkpoints, shapes_of
from tests.federated.by_hand import ByHand, combine, host, minus, plus, reported
from tests.federation import (
    CLASSES,
    CONFIG,
    FEDAVG,
    SIZES,
    UNRELIABLE,
    algorithm_of,
)

MODEL_BYTES = 4 * (12 * 5 + 5 + 5 * CLASSES + CLASSES) + 4 * 12


@pytest.fixture(scope="module")
def by_hand(two_layers):
    return ByHand(two_layers, UNRELIABLE)


def transformed(*transforms, algorithm=FEDAVG):
    return dataclasses.replace(algorithm, transforms=transforms)


def length(update):
    return np.sqrt(sum(np.sum(np.square(x, dtype=float)) for x in jax.tree.leaves(update)))


def noise_like(key, tree):
    leaves, form = jax.tree.flatten(tree)
    drawn = [jax.random.normal(jax.random.fold_in(key, i), x.shape) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(form, drawn)


SPREAD = 0.02


def noisy_half():
    """Sends a half, with noise; what is left out is sent with the next update."""

    def apply(update, left, key):
        whole = jax.tree.map(jnp.add, update, left)
        sent = jax.tree.map(
            lambda x, noise: 0.5 * x + SPREAD * noise,
            whole,
            noise_like(key, whole),
        )
        return sent, jax.tree.map(jnp.subtract, whole, sent)

    zeros = partial(jax.tree.map, jnp.zeros_like)
    return UpdateTransform("noisy_half", apply, zeros, lambda update, size: size // 4)


def test_clipped_updates_are_numpys_running_statistics_included(two_layers, by_hand):
    run, (state, data, shared, key) = two_layers.round(
        transformed(clip(ClipConfig(5.0))), chunk=3, config=UNRELIABLE
    )
    before = host(state.model)
    state, metrics = run(state, data, shared, key)
    clients = reported(metrics)
    updates = [minus(by_hand.train(before, data, key, 0, c), before) for c in clients]
    lengths = [length(update) for update in updates]
    assert min(lengths) < 5 < max(lengths), "some must be clipped and some not"
    clipped = [
        jax.tree.map(lambda x, n=n: x * min(1, 5 / n), update)
        for update, n in zip(updates, lengths, strict=True)
    ]
    average = partial(np.average, axis=0, weights=[SIZES[c] for c in clients])
    expected = plus(before, combine(average, *clipped))
    chex.assert_trees_all_close(host(state.model), expected, rtol=1e-5, atol=1e-7)
    assert jax.tree.leaves(state.clients) == []


def test_an_update_of_zero_is_clipped_to_zero():
    zeros = {"x": jnp.zeros(3)}
    chex.assert_trees_all_equal(clip(ClipConfig(1.0)).apply(zeros, (), jax.random.key(0))[0], zeros)
    with pytest.raises(ValueError, match="greater than 0, got 0"):
        clip(ClipConfig(0))


@pytest.fixture(scope="module")
def expected(two_layers, by_hand):
    """Four rounds of `noisy_half` after a clip, in a plain loop: model and what is left out."""
    clipping, halving = clip(ClipConfig(4.0)), noisy_half()
    run, (state, data, shared, key) = two_layers.round(config=UNRELIABLE)
    model = host(state.model)
    left = [jax.tree.map(np.zeros_like, model) for _ in SIZES]
    taken = []
    for number in range(4):
        state, metrics = run(state, data, shared, key)  # for its cohort
        clients = reported(metrics)
        sent = []
        for client in clients:
            update = minus(by_hand.train(model, data, key, number, client), model)
            update, _ = clipping.apply(update, (), None)
            # The halving is the second of the transforms.
            own_key = by_hand.key(key, 6, number, client, 1)
            update, left[client] = halving.apply(update, left[client], own_key)
            sent.append(host(update))
        average = partial(np.average, axis=0, weights=[SIZES[c] for c in clients])
        model = plus(model, combine(average, *sent))
        taken += clients
    assert len(taken) > len(set(taken)), "somebody must send what was left out"
    return model, combine(lambda x: x, *left)


@pytest.mark.parametrize(
    ("devices", "chunk", "where"),
    [(1, 1, "device"), (1, 3, "device"), (2, 1, "device"), (2, 2, "host")],
)
def test_a_transform_with_a_state_and_a_key_is_that_of_a_plain_loop(
    two_layers, expected, devices, chunk, where
):
    algorithm = transformed(clip(ClipConfig(4.0)), noisy_half())
    run, (state, data, shared, key) = two_layers.round(algorithm, devices, chunk, UNRELIABLE, where)
    for _ in range(4):
        state, _ = run(state, data, shared, key)
    chex.assert_trees_all_close(host(state.model), expected[0], rtol=1e-4, atol=1e-5)
    rule, (of_clip, left) = state.clients
    assert rule == () and of_clip == ()
    chex.assert_trees_all_close(host(left), expected[1], rtol=1e-4, atol=1e-5)


def test_a_transforms_state_is_beside_that_of_the_client_rule(two_layers):
    config = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig(name="moon"))
    moon = algorithm_of(config)
    run, (state, data, shared, key) = two_layers.round(
        transformed(noisy_half(), algorithm=moon), chunk=2, config=config
    )
    state, metrics = run(state, data, shared, key)
    trained = np.flatnonzero(state.clients.rule["trained"])
    assert trained.tolist() == reported(metrics)
    left = state.clients.transforms[0].batch_stats["mean"]
    assert np.flatnonzero(np.any(np.asarray(left) != 0, axis=1)).tolist() == reported(metrics)


def test_a_run_resumes_with_the_states_of_transforms(two_layers, tmp_path):
    run, (state, data, shared, key) = two_layers.round(transformed(noisy_half()))
    state, _ = run(state, data, shared, key)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, host(state))
    shapes = shapes_of(state)
    through, _ = run(state, data, shared, key)
    with Checkpoints(tmp_path) as checkpoints:
        _, restored = checkpoints.restore_newest(shapes, 1, tmp_path / "damaged", print)
        resumed, _ = run(restored, data, shared, key)
    chex.assert_trees_all_equal(host(resumed), host(through))


def test_the_memory_of_transforms_states_is_stated(two_layers):
    algorithm = transformed(clip(ClipConfig(1.0)), noisy_half())
    _, (state, *_) = two_layers.round()
    said = check_client_memory(algorithm, state.model, 10, make_mesh(2), "device")
    assert said.startswith(f"client states: {10 * MODEL_BYTES / 1000:.1f} kB, {MODEL_BYTES} B for")


def test_traffic_asks_every_transform_in_turn(two_layers):
    state, data, _, _ = two_layers.start(FEDAVG, make_mesh(1))
    assert make_traffic(FEDAVG, state, data).up == MODEL_BYTES
    assert make_traffic(transformed(clip(ClipConfig(1.0))), state, data).up == MODEL_BYTES

    def count(update, size):  # a number more for each array
        return size + 4 * len(jax.tree.leaves(update))

    counting = UpdateTransform("counting", lambda *arguments: arguments[:2], bytes_up=count)
    sent = make_traffic(transformed(counting, noisy_half()), state, data)
    assert (sent.up, sent.down) == ((MODEL_BYTES + 4 * 5) // 4, MODEL_BYTES)
    other = make_traffic(transformed(noisy_half(), counting), state, data)
    assert other.up == MODEL_BYTES // 4 + 4 * 5


@pytest.mark.parametrize("name", ["scaffold", "fednova", "feddyn", "fedcda"])
def test_what_would_go_around_a_transform_is_refused(two_layers, name):
    config = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig(name=name))
    algorithm = transformed(clip(ClipConfig(1.0)), algorithm=algorithm_of(config))
    run, start = two_layers.round(algorithm, config=config)
    with pytest.raises(ValueError, match=f"{name} sends more than its update.*with clip"):
        run.lower(*start)


def test_a_transform_must_keep_the_form_of_the_update(two_layers):
    half = UpdateTransform("half", lambda update, state, key: (update.params, state))
    run, start = two_layers.round(transformed(half))
    with pytest.raises(ValueError, match=r"UpdateTransform.apply of half must return"):
        run.lower(*start)
