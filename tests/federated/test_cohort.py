"""Who takes part in a round, and how much of it: statistics and rules, without training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.config import AvailabilityConfig, ExperimentConfig, from_dict
from semanticfl_jax.federated import sampling as sampling_module
from semanticfl_jax.federated.cohort import draw_reporting, place_cohort, straggle, with_contacts
from semanticfl_jax.federated.sampling import SAMPLERS, draw_distinct, permuted
from tests.federation import algorithm_of

SAMPLE = {
    name: jax.jit(sampler, static_argnums=3) for name, sampler in SAMPLERS.items()
}  # (key, round, sizes, count)
KEY = jax.random.key(0)


def cohorts(sampling, sizes, count, rounds):
    sizes = jnp.asarray(sizes)
    return np.array([SAMPLE[sampling](KEY, jnp.int32(r), sizes, count) for r in range(rounds)])


@pytest.mark.parametrize("sampling", sorted(SAMPLERS))
def test_a_cohort_has_no_client_twice(sampling):
    drawn = cohorts(sampling, np.arange(1, 51), 20, rounds=6)
    assert drawn.min() >= 0
    assert drawn.max() < 50
    assert all(len(set(cohort)) == 20 for cohort in drawn.tolist())
    assert len({tuple(cohort) for cohort in drawn.tolist()}) > 1


@pytest.mark.parametrize("sampling", ["uniform", "size_weighted"])
def test_single_clients_are_drawn_in_proportion(sampling):
    sizes = np.array([1, 2, 3, 10])
    drawn = jax.vmap(lambda r: SAMPLERS[sampling](KEY, r, jnp.asarray(sizes), 1))(jnp.arange(4000))
    frequency = np.bincount(np.ravel(drawn), minlength=4) / 4000
    expected = sizes / 16 if sampling == "size_weighted" else np.full(4, 0.25)
    # Four standard errors of a share.
    np.testing.assert_allclose(frequency, expected, atol=4 * 0.5 / np.sqrt(4000))


def test_every_ordered_draw_of_different_numbers_is_equally_likely():
    draws = 12_000
    keys = jax.random.split(KEY, draws)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: draw_distinct(key, 4, 2)))(keys))
    assert (drawn[:, 0] != drawn[:, 1]).all()
    frequency = np.bincount(4 * drawn[:, 0] + drawn[:, 1], minlength=16) / draws
    expected = np.where(np.eye(4, dtype=bool), 0, 1 / 12).ravel()
    # Four standard errors of a share.
    np.testing.assert_allclose(frequency, expected, atol=4 * np.sqrt(1 / 12 / draws))


def test_few_of_many_clients_are_drawn_without_sorting_all(monkeypatch):
    sizes = jax.ShapeDtypeStruct((sampling_module._MANY,), jnp.int32)

    def largest_sort(count):
        drawing = jax.jit(SAMPLERS["uniform"], static_argnums=3)
        text = drawing.lower(KEY, jnp.int32(0), sizes, count).as_text()
        return f"tensor<{sampling_module._MANY}xui32>" in text

    assert not largest_sort(100)
    # Most of them: repeats would be drawn again for long.
    assert largest_sort(sampling_module._MANY // 2 + 1)
    monkeypatch.setattr(sampling_module, "_MANY", 64)
    drawn = np.asarray(SAMPLERS["uniform"](KEY, jnp.int32(3), jnp.ones(64, jnp.int32), 32))
    assert len(set(drawn.tolist())) == 32
    assert drawn.min() >= 0
    assert drawn.max() < 64


@pytest.mark.parametrize("total", [1, 37, 64])
def test_every_place_of_a_permutation_has_a_number_of_its_own(total):
    at = jax.jit(permuted, static_argnums=2)
    order = np.asarray(at(KEY, jnp.arange(total), total))
    assert sorted(order.tolist()) == list(range(total))
    # Nothing depends on which places are asked for.
    for place in (0, total // 2):
        assert at(KEY, jnp.array([place]), total).tolist() == [order[place]]


def test_permutations_are_drawn_alike():
    draws = 6000
    keys = jax.random.split(KEY, draws)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: permuted(key, jnp.arange(3), 3)))(keys))
    frequency = np.unique(orders @ [9, 3, 1], return_counts=True)[1] / draws
    assert len(frequency) == 6
    np.testing.assert_allclose(frequency, 1 / 6, atol=4 * np.sqrt(1 / 6 / draws))


def test_many_clients_in_turn_take_part_equally_often(monkeypatch):
    monkeypatch.setattr(sampling_module, "_MANY", 30)
    drawing = jax.jit(jax.vmap(lambda r: SAMPLERS["round_robin"](KEY, r, jnp.ones(35), 7)))
    robin = np.asarray(drawing(jnp.arange(15)))
    assert set(np.bincount(np.ravel(robin), minlength=35)) == {3}
    np.testing.assert_array_equal(robin[:5], robin[5:10])
    assert np.ravel(robin)[:35].tolist() != list(range(35))


@pytest.mark.parametrize("large", [4, 100])  # the second draws as among few clients
def test_many_clients_are_drawn_by_the_sizes_of_those_left(monkeypatch, large):
    monkeypatch.setattr(sampling_module, "_MANY", 12)
    sizes = np.array([large, 3, *[2] * 10])
    draws = 8000

    def draw(number):
        return SAMPLERS["size_weighted"](KEY, number, jnp.asarray(sizes, jnp.int32), 3)

    drawn = np.asarray(jax.jit(jax.vmap(draw))(jnp.arange(draws)))
    assert all(len(set(cohort)) == 3 for cohort in drawn.tolist())
    first = sizes / sizes.sum()
    # The second is not the first, and comes in proportion of the others.
    second = (first * (1 - np.eye(12))) / (1 - first)[:, None]
    expected = first, first @ second
    for place, shares in enumerate(expected):
        frequency = np.bincount(drawn[:, place], minlength=12) / draws
        np.testing.assert_allclose(frequency, shares, atol=4 * 0.5 / np.sqrt(draws))


def test_contacts_are_added():
    before = jnp.array([True, False, False, False])
    after = with_contacts(before, jnp.array([2, -1, 2]))
    np.testing.assert_array_equal(after, [True, False, True, False])


def test_clients_in_turn_take_part_equally_often():
    fixed = cohorts("fixed_order", np.ones(7), 3, rounds=7)
    np.testing.assert_array_equal(fixed.ravel(), np.arange(21) % 7)
    robin = cohorts("round_robin", np.ones(7), 3, rounds=7)
    assert set(np.bincount(robin.ravel(), minlength=7)) == {3}
    assert robin.ravel()[:7].tolist() != list(range(7))


def test_turns_do_not_overflow():
    late = SAMPLE["fixed_order"](KEY, jnp.int32(10**9 + 7), jnp.ones(100_000), 1000)
    np.testing.assert_array_equal(late, (1000 * (10**9 + 7) + np.arange(1000)) % 100_000)


def dealt_in_python(sizes, batch_size, devices, chunk):
    """Indices of clients for each device: largest first, to whoever has the fewest steps."""
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    chunks = [order[i : i + chunk] for i in range(0, len(order), chunk)]
    most = -(-len(chunks) // devices)
    rows = [[] for _ in range(devices)]
    for part in chunks:
        free = [row for row in rows if len(row) < most * chunk]
        min(free, key=lambda row: sum(-(-sizes[i] // batch_size) for i in row)).extend(part)
    return [row + [-1] * (most * chunk - len(row)) for row in rows]


@pytest.mark.parametrize(("devices", "chunk"), [(1, 1), (1, 3), (2, 2), (8, 1), (3, 1), (4, 4)])
def test_clients_go_to_the_device_with_least_to_do(devices, chunk):
    sizes = (5 * np.random.default_rng(devices).pareto(1.0, 21)).astype(np.int32) + 1
    cohort = jnp.arange(100, 121)
    placed = np.asarray(place_cohort(cohort, jnp.asarray(sizes), 4, devices, chunk))
    expected = np.array(dealt_in_python(sizes.tolist(), 4, devices, chunk))
    np.testing.assert_array_equal(
        placed.reshape(devices, -1), np.where(expected < 0, -1, 100 + expected)
    )


@pytest.mark.parametrize(("devices", "in_turn"), [(2, 1.12), (4, 1.33)])
def test_devices_have_about_equal_work_where_clients_differ_in_size(devices, in_turn):
    steps = np.random.default_rng(0).lognormal(3, 1, (50, 20)).astype(np.int32) + 1
    place = functools.partial(place_cohort, jnp.arange(20), batch_size=1, devices=devices, chunk=1)
    placed = np.asarray(jax.vmap(place)(jnp.asarray(steps)))
    ideal = np.maximum(steps.sum(1) / devices, steps.max(1))

    def beyond_ideal(dealt):
        return np.mean(dealt.reshape(50, devices, -1).sum(2).max(1) / ideal)

    assert beyond_ideal(np.take_along_axis(steps, placed, 1)) < 1.07
    longest_first = -np.sort(-steps).reshape(50, -1, devices).swapaxes(1, 2)
    assert beyond_ideal(longest_first) > in_turn


def test_clients_drop_out_independently_of_where_they_are_placed():
    clients = jnp.arange(2000)
    reporting = draw_reporting(KEY, 3, clients, 0.3)
    assert abs(float(reporting.mean()) - 0.7) < 4 * 0.5 / np.sqrt(2000)
    np.testing.assert_array_equal(draw_reporting(KEY, 3, clients[::-1], 0.3), reporting[::-1])
    assert (draw_reporting(KEY, 4, clients, 0.3) != reporting).any()
    np.testing.assert_array_equal(
        draw_reporting(KEY, 0, jnp.array([4, -1, 0]), 0.0), [True, False, True]
    )
    assert not draw_reporting(KEY, 0, jnp.full(50, -1), 0.3).any()


def test_stragglers_do_a_part_of_their_steps():
    config = AvailabilityConfig(straggler_share=0.5, straggler_min_work=0.2)
    keys = jax.random.split(KEY, 2000)
    done = np.asarray(jax.vmap(lambda key: straggle(key, jnp.int32(1000), config))(keys))
    late = done < 1000
    assert abs(late.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)
    assert done.min() >= 200
    # Uniform on 200..1000: mean 600, standard deviation 800 / sqrt(12).
    assert abs(done[late].mean() - 600) < 4 * 231 / np.sqrt(late.sum())
    everyone = AvailabilityConfig(straggler_share=1.0, straggler_min_work=0.0)
    few = np.asarray(jax.vmap(lambda key: straggle(key, jnp.int32(2), everyone))(keys))
    assert set(few.tolist()) == {1}
    assert straggle(KEY, jnp.int32(0), everyone) == 0


def test_size_counts_once_where_large_clients_are_drawn_oftener():
    sizes = jnp.asarray([1, 3, 0], jnp.int32)

    def weights(sampling, **algorithm):
        values = {"availability": {"sampling": sampling}, "algorithm": algorithm}
        return algorithm_of(from_dict(ExperimentConfig, values)).weights(sizes, None)

    np.testing.assert_allclose(weights("uniform"), [0.25, 0.75, 0])
    np.testing.assert_allclose(weights("size_weighted"), [0.5, 0.5, 0])
    np.testing.assert_allclose(weights("size_weighted", weights="size"), [0.25, 0.75, 0])
