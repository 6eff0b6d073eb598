"""What a run's rounds cost in (epsilon, delta), by the library dp-accounting.

All bounds are its privacy loss distributions (Meiser, Mohammadi 2018; Doroshenko, Ghazi, Kamath,
Kumar, Manurangsi. "Connect the Dots". PoPETs 2022), rounded upwards. Which one is used follows from
how clients are sampled (`availability.sampling`); z is the noise multiplier, N the clients, m those
of a round:

    central, poisson         Poisson sampling with probability m / N, cut at random to the places
                             that a round has (Ganesh et al., arXiv 2508.15089)
    central, uniform, m < N  m of N without replacement: the same with probability 1, cut to m. An
                             absent client is replaced by another, so that the sum moves by 2 C:
                             about twice the noise for the same epsilon
    central, in turn, m = N  no amplification: the Gaussian mechanism, as often as one client takes
                             part, ceil(t m / N) in t rounds
    dp_ftrl                  the same: the turns of a client are further apart than noise hangs
                             together (dp_ftrl.py)
    local                    the Gaussian mechanism with z / 2, since any two updates are within
                             2 C; as often as a client can take part, which is in every round unless
                             clients come in turn

With `privacy.population` and `noise_cohort`, N and m are those: the run stands for a federation
larger than it simulates, as is usual where there are not as many clients (McMahan et al., ICLR
2018; `noise_cohort_size` of Granqvist et al., NeurIPS 2024).

Neighbours differ in one client, whose data are there or not (its update is then zero); the bounds
without replacement and for local noise cover other data in their place, too. Who drops out or does
less work is drawn without looking at data, and can only lower the cost. Not covered: what the
simulation reports of itself (training loss, who took part), and choices made after several runs.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from semanticfl_jax.config.privacy import LEAST_NOISE
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.optional import optional_imports

if TYPE_CHECKING:
    from semanticfl_jax.config import ExperimentConfig


class Sampling(NamedTuple):
    """How often, and with which probability, a client takes part.

    Attributes:
      kind: "poisson", "fixed" or "turns".
      num_clients: N.
      cohort: m, or its mean.
      places: the most that a round has room for.
      local: whether clients add the noise themselves.
    """

    kind: str
    num_clients: int
    cohort: int
    places: int
    local: bool

    def count(self, rounds: int) -> int:
        """Return the mechanisms that are composed in that many rounds."""
        if self.kind != "turns":
            return rounds
        return -(-rounds * self.cohort // self.num_clients)

    def describe(self) -> str:
        """Return the bound in words, for reports."""
        if self.local:
            often = "in turn" if self.kind == "turns" else "in every round"
            return f"the Gaussian mechanism of a client that takes part {often}; PLD"
        if self.kind == "poisson":
            return f"Poisson sampling, cut at random to {self.places} places; PLD"
        if self.kind == "fixed":
            return "sampling without replacement, sensitivity 2 C; PLD"
        return "no amplification by sampling: the Gaussian mechanism; PLD"


def sampling_of(config: ExperimentConfig) -> Sampling:
    """Return the sampling of the federation that a run is, or stands for."""
    private, drawn = config.privacy, config.availability.sampling
    clients, cohort = private.federation(config)
    in_turn = drawn in ("round_robin", "fixed_order") or cohort == clients
    kind = "turns" if in_turn else "poisson" if drawn == "poisson" else "fixed"
    places = config.availability.places(clients, cohort)
    return Sampling(kind, clients, cohort, places, private.name == "local")


class Ledger(NamedTuple):
    """What a run may cost, and what its rounds do cost.

    Attributes:
      sampling: of clients.
      noise: the multiplier z.
      delta: at which epsilon is told.
      rounds: that the budget lasts, of those that are configured.
      budget: the epsilon that must not be exceeded; None: there is none.
      simulated: whether all this is of a larger federation, for which the run stands.
    """

    sampling: Sampling
    noise: float
    delta: float
    rounds: int
    budget: float | None
    simulated: bool = False

    def epsilon(self, rounds: int) -> float:
        """Return the epsilon of that many rounds, rounded upwards."""
        return _epsilon(self.sampling, self.noise, self.delta, rounds)

    def describe(self, rounds: int) -> list[str]:
        """Return what the rounds that are configured will cost, in one line to three."""
        spent, last = self.epsilon(self.rounds), self.rounds
        lines = [
            f"privacy: epsilon {spent:.4g} at delta {self.delta:g} after {last} rounds, with a "
            f"noise multiplier of {self.noise:.4g} ({self.sampling.describe()})"
        ]
        if last < rounds:
            lines.append(
                f"the privacy budget of epsilon {self.budget:g} lasts {last} of {rounds} rounds: "
                "the run stops there"
            )
        if self.simulated:
            lines.append(f"this epsilon is that of {self.stands_for()}: the run itself has none")
        return lines

    def stands_for(self) -> str:
        """Return the federation whose privacy is told, in words."""
        return f"{self.sampling.num_clients:,} clients, {self.sampling.cohort:,} in a round"


def make_ledger(config: ExperimentConfig) -> Ledger | None:
    """Return the ledger of a run; None without a privacy mechanism.

    Raises:
      SemanticFLError: if the budget does not last for one round, or cannot be met.
      MissingDependencyError: without dp-accounting.
    """
    private = config.privacy
    if not private.enabled:
        return None
    _library()  # before anything is trained
    noise, sampling = noise_multiplier(config), sampling_of(config)
    rounds, budget = config.rounds, private.target_epsilon
    if budget is not None and private.noise_multiplier is not None:
        rounds = _rounds_within(sampling, noise, private.delta, budget, config.rounds)
        if rounds == 0:
            one = _epsilon(sampling, noise, private.delta, 1)
            raise SemanticFLError(
                f"privacy.target_epsilon must be at least {one:.4g}, what one round costs with "
                f"privacy.noise_multiplier={noise:g}, got {budget:g}; raise one of them"
            )
    return Ledger(sampling, noise, private.delta, rounds, budget, bool(private.population))


def noise_multiplier(config: ExperimentConfig) -> float:
    """Return z: as configured, or what `target_epsilon` asks for over all rounds."""
    private = config.privacy
    if private.noise_multiplier is not None:
        return private.noise_multiplier
    assert private.target_epsilon is not None  # one of them is there, the configuration says
    sampling = sampling_of(config)
    return calibrated(sampling, private.target_epsilon, private.delta, config.rounds)


@functools.lru_cache(maxsize=64)
def calibrated(sampling: Sampling, epsilon: float, delta: float, rounds: int) -> float:
    """Return the least z with which that many rounds cost at most `epsilon`, to 1e-3.

    Raises:
      SemanticFLError: if less noise would do than can be accounted for.
    """
    dp, pld = _library()

    def search(bracket: Any, interval: float, tolerance: float) -> float:
        return dp.calibrate_dp_mechanism(
            lambda: pld.PLDAccountant(
                dp.NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=interval
            ),
            lambda noise: dp.SelfComposedDpEvent(event(sampling, noise), sampling.count(rounds)),
            epsilon,
            delta,
            bracket,
            tol=tolerance,
        )

    try:  # coarsely, and then near what was found
        near = search(dp.LowerEndpointAndGuess(LEAST_NOISE, 2.0), 1e-3, 0.01)
        return search(dp.ExplicitBracketInterval(0.85 * near, 1.01 * near), 1e-4, 1e-3)
    except dp.NoBracketIntervalFoundError as error:
        raise SemanticFLError(
            f"privacy.target_epsilon={epsilon:g} needs a noise multiplier below {LEAST_NOISE}, or "
            "one beyond all bounds; lower it, or set privacy.noise_multiplier"
        ) from error


def event(sampling: Sampling, noise: float) -> Any:
    """Return one round, or one report of a client, as an event of dp-accounting."""
    dp, _ = _library()
    if sampling.local:
        return dp.GaussianDpEvent(noise / 2)
    if sampling.kind == "turns":
        return dp.GaussianDpEvent(noise)
    share, clients = sampling.cohort / sampling.num_clients, sampling.num_clients
    share, places = (
        (share, sampling.places) if sampling.kind == "poisson" else (1.0, sampling.cohort)
    )
    return dp.TruncatedSubsampledGaussianDpEvent(clients, share, places, noise)


@functools.lru_cache(maxsize=4)
def _loss(sampling: Sampling, noise: float) -> Any:
    """Return the privacy loss distribution of one event."""
    dp, pld = _library()
    losses, relation = pld.privacy_loss_distribution, dp.NeighboringRelation.REPLACE_SPECIAL
    one = event(sampling, noise)
    if hasattr(one, "truncated_batch_size"):
        return losses.from_truncated_subsampled_gaussian_mechanism(
            one.dataset_size,
            one.sampling_probability,
            one.truncated_batch_size,
            one.noise_multiplier,
            neighboring_relation=relation,
        )
    return losses.from_gaussian_mechanism(one.noise_multiplier, neighboring_relation=relation)


@functools.lru_cache(maxsize=4096)
def _epsilon(sampling: Sampling, noise: float, delta: float, rounds: int) -> float:
    count = sampling.count(rounds)
    if count == 0:
        return 0.0
    return float(_loss(sampling, noise).self_compose(count).get_epsilon_for_delta(delta))


def _rounds_within(sampling: Sampling, noise: float, delta: float, budget: float, most: int) -> int:
    """Return how many rounds, `most` at most, cost no more than `budget`."""
    if _epsilon(sampling, noise, delta, most) <= budget:
        return most
    fits, exceeds = 0, most
    while exceeds - fits > 1:
        middle = (fits + exceeds) // 2
        if _epsilon(sampling, noise, delta, middle) <= budget:
            fits = middle
        else:
            exceeds = middle
    return fits


def _library() -> tuple[Any, Any]:
    with optional_imports("privacy", "the accounting of privacy"):
        import dp_accounting
        from dp_accounting import pld
    return dp_accounting, pld
