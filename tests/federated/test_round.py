"""The compiled round: equal to a plain loop, whatever the chunks, the devices and the padding."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from semanticfl_jax.algorithms import LossTerm
from semanticfl_jax.algorithms.base import ClientRule, Finished
from semanticfl_jax.config import AlgorithmConfig, AvailabilityConfig, GuidanceConfig
from semanticfl_jax.data.augment import augment
from semanticfl_jax.data.federated import epoch_order
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.local_training import known_steps
from semanticfl_jax.federated.sampling import SAMPLERS
from semanticfl_jax.models.losses import masked_mean
from tests.federation import (
    CLASSES,
    CONFIG,
    FEDAVG,
    MEAN,
    SIZES,
    STD,
    TinyNet,
    algorithm_of,
    make_federation,
)


def plain_client(federation, params, batch_stats, client, key):
    """One client's local training, batch by batch, without padding, masks or compiled loops."""
    indices = federation.partition.client(client)
    optimizer = optax.chain(
        optax.add_decayed_weights(CONFIG.weight_decay),
        optax.sgd(CONFIG.learning_rate, CONFIG.momentum),
    )
    momentum = optimizer.init(params)
    order_key, step_key = jax.random.split(key)
    step, losses = 0, []
    for epoch in range(CONFIG.local_epochs):
        order = epoch_order(jax.random.fold_in(order_key, epoch), len(indices), len(indices))
        shuffled = indices[np.asarray(order)]
        for start in range(0, len(shuffled), CONFIG.batch_size):
            rows = shuffled[start : start + CONFIG.batch_size]
            augment_key, _ = jax.random.split(jax.random.fold_in(step_key, step))
            # The augmentation's randomness belongs to a row's place in the full batch.
            full = np.resize(rows, CONFIG.batch_size)
            images = jnp.asarray(federation.images[full])
            images = np.asarray(augment(augment_key, images, CONFIG.augmentation))
            images = (images[: len(rows)] / 255.0 - np.array(MEAN)) / np.array(STD)

            def loss_of(weights, statistics=batch_stats, images=images, rows=rows):
                outputs, updates = federation.model.apply(
                    {"params": weights["model"], "batch_stats": statistics},
                    jnp.asarray(images, jnp.float32),
                    train=True,
                    mutable=["batch_stats"],
                )
                log_p = jax.nn.log_softmax(outputs.logits)
                loss = -jnp.mean(log_p[jnp.arange(len(rows)), federation.labels[rows]])
                return loss, updates["batch_stats"]

            (loss, batch_stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
            updates, momentum = optimizer.update(gradient, momentum, params)
            params = optax.apply_updates(params, updates)
            losses += [float(loss)] * len(rows)
            step += 1
    return params, batch_stats, losses


def test_round_equals_a_plain_loop_over_clients(federation):
    run, (state, data, shared, key) = federation.round(chunk=2)
    before = jax.tree.map(np.array, (state.params, state.batch_stats))
    state, metrics = run(state, data, shared, key)

    local_key = jax.random.fold_in(jax.random.fold_in(key, 1), 0)
    cohort = np.asarray(SAMPLERS["uniform"](key, 0, np.array(SIZES), CONFIG.clients_per_round))
    total = sum(SIZES[c] for c in cohort)
    expected, losses = None, []
    for client in cohort:
        trained = plain_client(federation, *before, client, jax.random.fold_in(local_key, client))
        share = SIZES[client] / total
        weighted = jax.tree.map(lambda x, share=share: share * np.asarray(x), trained[:2])
        expected = weighted if expected is None else jax.tree.map(np.add, expected, weighted)
        losses += trained[2]
    chex.assert_trees_all_close((state.params, state.batch_stats), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(metrics.train_loss, np.mean(losses), rtol=1e-5)
    assert sorted(c for c in np.asarray(metrics.cohort) if c >= 0) == sorted(cohort)
    assert metrics.images == CONFIG.local_epochs * total
    assert state.round == 1


@pytest.fixture(scope="module")
def plain_model(federation):
    """The server model after one round, one client at a time on one device."""
    run, start = federation.round()
    return jax.tree.map(np.array, run(*start)[0].model)


@pytest.fixture(scope="module")
def reference(federation, guided):
    """Two rounds of the guided algorithm, one client at a time on one device."""
    run, (state, data, shared, key) = federation.round(guided)
    for _ in range(2):
        state, metrics = run(state, data, shared, key)
    return jax.tree.map(np.array, (state, metrics.train_loss, metrics.images))


@pytest.mark.parametrize(("devices", "chunk"), [(1, 3), (1, 5), (2, 1), (2, 2), (8, 1)])
def test_chunks_and_devices_do_not_change_the_result(federation, guided, reference, devices, chunk):
    run, (state, data, shared, key) = federation.round(guided, devices, chunk)
    for _ in range(2):
        state, metrics = run(state, data, shared, key)
    result = (state, metrics.train_loss, metrics.images)
    chex.assert_trees_all_close(result, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("lowering", "chunk"), [("native", 1), ("shifted", 1), ("patches", 2)])
def test_every_lowering_of_the_convolution_trains_the_same_model(
    federation, plain_model, lowering, chunk
):
    # What accelerators use must compile inside the sharded round, too.
    other = dataclasses.replace(federation, model=TinyNet(CLASSES, lowering=lowering))
    run, start = other.round(devices=2, chunk=chunk)
    chex.assert_trees_all_close(run(*start)[0].model, plain_model, rtol=1e-4, atol=1e-5)


def test_one_program_serves_every_round_and_needs_nothing_from_the_host(federation, guided):
    run, (state, data, shared, key) = federation.round(guided, chunk=2)
    program = run.lower(state, data, shared, key).as_text()
    assert "callback" not in program
    assert "outfeed" not in program
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    state, _ = run(state, data, shared, key)
    assert compiled, "the listener does not see compilations"
    compiled.clear()
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state, _ = run(state, data, shared, key)
        jax.block_until_ready(state)
    assert compiled == []
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed host-to-dev"):
        state.round + np.ones(1)  # the guard does guard


def test_state_is_donated(federation):
    run, (state, data, shared, key) = federation.round()
    run(state, data, shared, key)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_first_contacts_are_counted_once(federation):
    run, (state, data, shared, key) = federation.round()
    seen, new = set(), []
    for _ in range(4):
        state, metrics = run(state, data, shared, key)
        cohort = {int(c) for c in metrics.cohort if c >= 0}
        new.append(({int(c) for c in metrics.cohort[metrics.new]}, cohort - seen))
        seen |= cohort
    assert all(counted == true for counted, true in new)


@pytest.mark.parametrize("chunk", [1, 2])
def test_terms_read_the_rows_of_the_batchs_own_images(federation, chunk):
    # A term that is zero only if every image meets its own row, in every client of a chunk.
    def loss(inputs):
        return masked_mean(jnp.square(inputs.rows["label"] - inputs.labels), inputs.mask)

    rows = {"label": jnp.asarray(federation.labels, jnp.float32)}
    own = LossTerm("own", loss, per_sample=rows)
    other = LossTerm("other", loss, per_sample={"label": rows["label"][::-1]})
    losses = []
    for algorithm in (FEDAVG, *(FEDAVG.with_term(term) for term in (own, other))):
        run, start = federation.round(algorithm, chunk=chunk)
        losses.append(float(run(*start)[1].train_loss))
    assert losses[1] == losses[0]
    assert losses[2] > losses[0] + 0.1


def test_server_learning_rate_scales_the_update(federation):
    full, start = federation.round()
    before = jax.tree.map(np.array, start[0].params)
    after = jax.tree.map(np.array, full(*start)[0].params)
    slow = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig(server_learning_rate=0.5))
    half, start = federation.round(algorithm_of(slow), config=slow)
    halfway = half(*start)[0].params
    middle = jax.tree.map(lambda a, b: (a + b) / 2, before, after)
    chex.assert_trees_all_close(halfway, middle, rtol=1e-5, atol=1e-6)


def test_empty_places_do_not_train(federation):
    # Five clients on eight devices leave three places empty.
    run, start = federation.round(devices=8)
    _, metrics = run(*start)
    cohort = [int(c) for c in metrics.cohort]
    assert cohort.count(-1) == 3
    assert metrics.images == CONFIG.local_epochs * sum(SIZES[c] for c in cohort if c >= 0)


@pytest.fixture(scope="module", params=["scaffold", "fednova"])  # a state, extra sums
def equals(request):
    """Six clients that all have two steps an epoch, and what four of them do in two rounds."""
    federation = make_federation(TinyNet(CLASSES), (5, 6, 7, 8, 8, 8))
    config = dataclasses.replace(
        CONFIG,
        num_clients=6,
        clients_per_round=4,
        algorithm=AlgorithmConfig(name=request.param),
    )

    def train(chunk, devices):
        run, (state, data, shared, key) = federation.round(
            algorithm_of(config), chunk=chunk, devices=devices, config=config
        )
        loops = "while[" in str(jax.make_jaxpr(run)(state, data, shared, key))
        for _ in range(2):
            state, metrics = run(state, data, shared, key)
        padding = float(metrics.padding_share)
        return jax.tree.map(np.array, (state, metrics.train_loss, metrics.images)), padding, loops

    return train, train(3, 1)  # of four, three and one: two empty places


@pytest.mark.parametrize(("chunk", "devices"), [(1, 1), (4, 1), (2, 2)])
def test_equal_clients_are_trained_without_asking_whether_they_are_done(equals, chunk, devices):
    train, (expected, padding, loops) = equals
    assert loops
    found, found_padding, loops = train(chunk, devices)
    assert not loops
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found_padding == pytest.approx(padding, abs=1e-6)


def test_steps_are_known_where_all_clients_have_as_many_in_every_round():
    config = dataclasses.replace(CONFIG, batch_size=4, local_epochs=3)
    assert known_steps([5, 8, 7], config, FEDAVG) == 6
    assert known_steps([4, 8, 7], config, FEDAVG) is None
    own = dataclasses.replace(FEDAVG, client=half_of_the_steps())
    assert known_steps([5, 8, 7], config, own) is None
    for changes in ({"dropout": 0.1}, {"straggler_share": 0.1}):
        some = dataclasses.replace(config, availability=AvailabilityConfig(**changes))
        assert known_steps([5, 8, 7], some, FEDAVG) is None


def half_of_the_steps():
    def finish(trained):
        return Finished(state=(), figures={"own_steps": trained.steps.astype(jnp.float32)})

    return ClientRule(finish, steps=lambda client, steps: steps // 2)


def test_clients_do_as_many_steps_as_their_rule_says(federation):
    """Half of two epochs is one."""
    own = dataclasses.replace(FEDAVG, client=half_of_the_steps())
    one_epoch = dataclasses.replace(CONFIG, local_epochs=1)
    states = []
    for algorithm, config in ((own, CONFIG), (FEDAVG, one_epoch)):
        run, start = federation.round(algorithm, config=config, chunk=2)
        state, metrics = run(*start)
        states.append((state.params, state.batch_stats, metrics.images))
        if algorithm is own:
            cohort = np.asarray(metrics.cohort)
            steps = [-(-SIZES[client] // CONFIG.batch_size) for client in cohort if client >= 0]
            assert float(metrics.figures["own_steps"]) == pytest.approx(np.mean(steps))
    chex.assert_trees_all_close(*states, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("asked", [0, 10**6])
def test_no_client_does_less_than_one_step_or_more_than_all(federation, asked):
    rule = dataclasses.replace(half_of_the_steps(), steps=lambda client, steps: asked)
    run, start = federation.round(dataclasses.replace(FEDAVG, client=rule))
    _, metrics = run(*start)
    cohort = [client for client in np.asarray(metrics.cohort) if client >= 0]
    every = [2 * -(-SIZES[client] // CONFIG.batch_size) for client in cohort]
    expected = np.mean(every) if asked else 1
    assert float(metrics.figures["own_steps"]) == pytest.approx(expected)


def test_steps_that_are_no_whole_number_are_refused(federation):
    rule = dataclasses.replace(half_of_the_steps(), steps=lambda client, steps: steps / 2)
    with pytest.raises(SemanticFLError, match=r"ClientRule\.steps of fedavg must return"):
        run, start = federation.round(dataclasses.replace(FEDAVG, client=rule))
        run.lower(*start)


def test_guidance_weights_of_zero_are_fedavg_bit_for_bit(federation, anchors):
    silent = GuidanceConfig(enabled=True, lambda_kd=0.0, lambda_con=0.0)
    guided = algorithm_of(dataclasses.replace(CONFIG, guidance=silent), anchors, 6)
    results = []
    for chosen in (guided, FEDAVG):
        run, start = federation.round(chosen)
        results.append(jax.tree.map(np.array, run(*start)[0]))
    chex.assert_trees_all_equal(*results)
