"""Algorithms x aggregators x transforms x privacy x attacks: each pair is built, or refused."""

import itertools

import pytest

from semanticfl_jax.config import ConfigError, ExperimentConfig, from_dict
from semanticfl_jax.registry import AGGREGATORS, ALGORITHMS, ATTACKS, PRIVACY, TRANSFORMS
from tests.built_in import built_in
from tests.federation import CLASSES, TinyNet, algorithm_of

AXES = {
    "algorithm": built_in(ALGORITHMS),
    "aggregator": built_in(AGGREGATORS),
    "transform": ("none", *built_in(TRANSFORMS)),
    "privacy": built_in(PRIVACY),
    "attack": built_in(ATTACKS),
}
PLAIN = {
    "algorithm": "fedavg",
    "aggregator": "mean",
    "transform": "none",
    "privacy": "none",
    "attack": "none",
}
SENDS_MORE = {"scaffold", "fedcda", "fednova", "feddyn", "qffl", "fedexp", "ifca"}
UNWEIGHTED = {"median", "trimmed_mean", "krum", "multi_krum", "bulyan", "fltrust", "majority_sign"}
ENCODE = {"norm_bound", "fltrust", "majority_sign", "count_sketch", "secure"}
COLLUDE = {"alie", "ipm"}
FORGE = {"sign_flip", "gaussian", "alie", "ipm", "free_rider"}


def values(algorithm, aggregator, transform, privacy, attack):
    chosen = {
        "algorithm": {"name": algorithm},
        "aggregation": {"aggregator": aggregator},
        "model": {"norm": "group"},
        "num_clients": 7,
        "clients_per_round": 5,
        "local_epochs": 2,
    }
    if transform != "none":
        chosen["aggregation"]["transforms"] = [transform]
    if privacy != "none":
        chosen["privacy"] = {"name": privacy, "noise_multiplier": 1.0}
    if privacy == "dp_ftrl":
        chosen["availability"] = {"sampling": "round_robin"}
    if attack != "none":
        chosen["attack"] = {"name": attack}
    return chosen


def sensible(algorithm, aggregator, transform, privacy, attack):
    """Whether a pair of choices makes sense, by rules written down apart from the registry's."""
    changed = (aggregator, transform, privacy) != ("mean", "none", "none")
    if algorithm == "local":  # its clients send nothing
        return not changed and attack not in FORGE
    if algorithm in SENDS_MORE:  # which nothing else sees, or which only a mean goes with
        return not changed and attack not in FORGE
    if algorithm == "feddisco":  # it is weights, of label counts
        return aggregator not in UNWEIGHTED and privacy == "none"
    if privacy in ("central", "dp_ftrl"):  # whose noise hides what one client changes
        return aggregator == "mean" and attack not in COLLUDE
    if (aggregator, privacy) == ("secure", "local"):  # whose bound, by default, would cut the noise
        return False
    compressed = transform not in ("none", "clip")
    if aggregator in ("majority_sign", "secure", "count_sketch") or privacy == "local":
        return not compressed and not (aggregator == "majority_sign" and transform == "clip")
    return True


@pytest.mark.parametrize("axes", list(itertools.combinations(AXES, 2)), ids="-".join)
def test_every_pair_is_built_or_refused_in_a_sentence(axes):
    for pair in itertools.product(*(AXES[axis] for axis in axes)):
        choices = {**PLAIN, **dict(zip(axes, pair, strict=True))}
        try:
            config = from_dict(ExperimentConfig, values(**choices))
        except ConfigError as error:
            assert not sensible(**choices), f"{choices} is refused: {error}"
            text = str(error)
            assert text[0].islower() and len(text.split()) > 6, text
            assert any(name in text for name in pair), f"{choices}: {text} names neither"
        else:
            assert sensible(**choices), f"{choices} is allowed"
            _built(config, choices)


@pytest.fixture(scope="module", autouse=True)
def _anchors(anchors):
    _built.anchors = anchors


def _built(config, choices):
    """Check that the choices arrived in the algorithm."""
    built = algorithm_of(config, _built.anchors, 6, model=TinyNet(CLASSES))
    assert built.name == choices["algorithm"]
    assert (built.attack is None) == (choices["attack"] == "none")
    wanted = (choices["transform"] != "none") + (choices["privacy"] == "local")
    assert len(built.transforms) == wanted
    assert built.aggregator.adds_noise == (choices["privacy"] in ("central", "dp_ftrl"))


def test_the_algorithms_that_send_more_are_those_the_registry_says():
    found = {name for name in built_in(ALGORITHMS) if ALGORITHMS[name].traits.extra}
    assert found == SENDS_MORE
    assert {n for n in built_in(AGGREGATORS) if not AGGREGATORS[n].traits.weighted} == UNWEIGHTED
    assert {n for n in built_in(AGGREGATORS) if AGGREGATORS[n].traits.encodes} == ENCODE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"algorithm": "fedexp", "aggregator": "median"},
            r"aggregator must be mean with algorithm.name=fedexp \(the length of its step",
        ),
        (
            {"algorithm": "scaffold", "aggregator": "geometric_median"},
            r"must be mean with algorithm.name=scaffold \(its control variates assume",
        ),
        (
            {"algorithm": "local", "transform": "clip"},
            "aggregation must be left out with algorithm.name=local: its clients send nothing",
        ),
        (
            {"aggregator": "majority_sign", "transform": "clip"},
            "clip has no effect with aggregation.aggregator=majority_sign",
        ),
        (
            {"algorithm": "feddisco", "aggregator": "median"},
            "median cannot be used with the weights disco: to it all clients count alike",
        ),
    ],
)
def test_the_reason_is_told(changes, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(ExperimentConfig, values(**{**PLAIN, **changes}))


def test_weights_that_an_aggregator_does_not_heed_are_refused():
    weighed = {"algorithm": {"weights": "size"}, "aggregation": {"aggregator": "median"}}
    with pytest.raises(ConfigError, match=r"weights must be auto with aggregation.aggregator=medi"):
        from_dict(ExperimentConfig, weighed)
