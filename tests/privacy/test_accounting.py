"""Epsilon against closed forms, and against independent calls of dp-accounting."""

import dataclasses

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting import pld, rdp
from scipy.optimize import brentq
from scipy.stats import norm

from semanticfl_jax.config import AvailabilityConfig, ExperimentConfig, ModelConfig, PrivacyConfig
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.cohort import cohort_places
from semanticfl_jax.privacy.accounting import make_ledger, noise_multiplier

DELTA = 1e-5


def config_of(
    sampling="poisson",
    clients=1000,
    cohort=50,
    rounds=20,
    name="central",
    delta=DELTA,
    **privacy,
):
    return ExperimentConfig(
        model=ModelConfig(norm="group"),
        num_clients=clients,
        clients_per_round=cohort,
        rounds=rounds,
        availability=AvailabilityConfig(sampling=sampling),
        privacy=PrivacyConfig(name, delta=delta, **privacy),
    )


def epsilon(done, *arguments, **options):
    return make_ledger(config_of(*arguments, **options)).epsilon(done)


def delta_of_gaussian(epsilon, noise):
    """Balle, Wang, ICML 2018, Theorem 8."""
    a, b = 1 / (2 * noise), epsilon * noise
    return norm.cdf(a - b) - np.exp(epsilon) * norm.cdf(-a - b)


def closed_form(delta_of, delta=DELTA):
    return brentq(lambda epsilon: delta_of(epsilon) - delta, 1e-6, 60)


@pytest.mark.parametrize("noise", [0.8, 4.0])
def test_a_round_with_all_clients_is_the_gaussian_mechanism(noise):
    expected = closed_form(lambda epsilon: delta_of_gaussian(epsilon, noise))
    found = epsilon(1, "uniform", 30, 30, noise_multiplier=noise)
    assert expected <= found < expected + 1e-3


def test_a_round_of_poisson_sampling_is_the_sampled_gaussian_mechanism():
    noise, share = 0.7, 0.05

    def delta_of(epsilon):  # with one client there or not: (1 - q) N(0) + q N(1) against N(0)
        return share * delta_of_gaussian(np.log1p(np.expm1(epsilon) / share), noise)

    expected = closed_form(delta_of)
    assert expected <= epsilon(1, noise_multiplier=noise) < expected + 1e-3


def test_rounds_of_poisson_sampling_are_those_of_an_independent_call():
    accountant = pld.PLDAccountant().compose(
        dp.PoissonSampledDpEvent(0.05, dp.GaussianDpEvent(0.9)), 20
    )
    expected = accountant.get_epsilon(DELTA)
    found = epsilon(20, noise_multiplier=0.9)
    # Cohorts that are cut cost a little more; Renyi accounting, much more.
    assert expected - 1e-9 <= found < 1.0001 * expected
    renyi = rdp.RdpAccountant().compose(dp.PoissonSampledDpEvent(0.05, dp.GaussianDpEvent(0.9)), 20)
    assert found < renyi.get_epsilon(DELTA)


def test_a_cohort_of_fixed_size_is_accounted_for_as_such_not_as_poisson_sampling():
    found = epsilon(20, "uniform", noise_multiplier=1.8)
    event = dp.TruncatedSubsampledGaussianDpEvent(1000, 1.0, 50, 1.8)
    accountant = pld.PLDAccountant(dp.NeighboringRelation.REPLACE_ONE).compose(event, 20)
    assert found == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-6)
    # Another bound of the same sampling, whose sensitivity is 2 C (Wang et al., AISTATS 2019).
    renyi = rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    renyi.compose(dp.SampledWithoutReplacementDpEvent(1000, 50, dp.GaussianDpEvent(0.9)), 20)
    assert found < renyi.get_epsilon(DELTA)
    # Poisson sampling has the same epsilon with about half the noise.
    assert epsilon(20, noise_multiplier=1.8) < 0.6 * found


def test_clients_in_turn_are_charged_as_often_as_one_of_them_takes_part():
    # 50 of 1000: everybody once in 20 rounds, and somebody twice in 21.
    for rounds, times in ((1, 1), (20, 1), (21, 2), (40, 2)):
        noise = 2.0 / np.sqrt(times)
        expected = closed_form(lambda epsilon, noise=noise: delta_of_gaussian(epsilon, noise))
        found = epsilon(rounds, "round_robin", rounds=40, noise_multiplier=2.0)
        assert expected <= found < expected + 1e-3


def test_local_noise_is_that_of_two_updates_apart_in_every_round():
    expected = closed_form(lambda epsilon: delta_of_gaussian(epsilon, 5.0 / 2 / np.sqrt(7)))
    for sampling in ("uniform", "poisson"):
        found = epsilon(7, sampling, name="local", noise_multiplier=5.0)
        assert expected <= found < expected + 1e-3
    # In turn, 50 of 1000, a client adds its noise in one of 20 rounds.
    once = closed_form(lambda epsilon: delta_of_gaussian(epsilon, 5.0 / 2))
    found = epsilon(20, "round_robin", rounds=20, name="local", noise_multiplier=5.0)
    assert once <= found < once + 1e-3


def test_a_target_gives_the_noise_that_just_meets_it():
    config = config_of("round_robin", target_epsilon=1.5)
    ledger = make_ledger(config)
    assert 1.49 < ledger.epsilon(20) <= 1.5 and ledger.rounds == 20
    assert ledger.noise == noise_multiplier(config)


def test_a_budget_lasts_to_the_last_round_within_it():
    options = {"sampling": "fixed_order", "noise_multiplier": 9.0, "rounds": 300}
    ledger = make_ledger(config_of(target_epsilon=1.2, **options))
    assert 0 < ledger.rounds < 300
    assert ledger.epsilon(ledger.rounds) <= 1.2 < ledger.epsilon(ledger.rounds + 1)
    assert "lasts" in ledger.describe(300)[1]
    with pytest.raises(SemanticFLError, match=r"must be at least 0\.\d+, what one round costs"):
        make_ledger(config_of(target_epsilon=0.01, **options))


def test_cohorts_have_room_for_nearly_all_that_are_drawn():
    config = config_of(clients=50_000, cohort=1000, noise_multiplier=1.0)
    places = cohort_places(config)
    assert 1180 < places < 1250  # 6.4 standard deviations of 31
    assert cohort_places(dataclasses.replace(config, num_clients=1000)) == 1000
    assert cohort_places(config_of("uniform", noise_multiplier=1.0)) == 50


@pytest.mark.parametrize("sampling", ["poisson", "uniform", "round_robin"])
def test_a_run_that_stands_for_a_larger_federation_costs_what_that_one_costs(sampling):
    of_many = epsilon(200, sampling, 50_000, 500, 200, noise_multiplier=1.0)
    stands_for = {"population": 50_000, "noise_cohort": 500}
    assert epsilon(200, sampling, rounds=200, noise_multiplier=1.0, **stands_for) == of_many
    # It draws fifty of a thousand, of whom each takes part five times as often.
    assert of_many < 0.7 * epsilon(200, sampling, rounds=200, noise_multiplier=1.0)


def test_the_published_noise_of_a_cohort_of_1000_in_a_million_is_that_of_an_independent_call():
    """The setting of Granqvist et al., NeurIPS 2024: epsilon 2, delta 1e-6, 1,500 rounds."""
    stands_for = {"population": 1_000_000, "noise_cohort": 1000}
    config = config_of(rounds=1500, target_epsilon=2.0, delta=1e-6, **stands_for)
    ledger = make_ledger(config)
    event = dp.PoissonSampledDpEvent(1e-3, dp.GaussianDpEvent(ledger.noise))
    expected = pld.PLDAccountant().compose(event, 1500).get_epsilon(1e-6)
    assert 1.98 < ledger.epsilon(1500) <= 2
    assert ledger.epsilon(1500) == pytest.approx(expected, rel=1e-3)
    assert "1,000,000 clients, 1,000 in a round" in " ".join(ledger.describe(1500))
