"""Methods of a comparison: what the command line's text stands for."""

import pytest

from semanticfl_jax.config import ConfigError
from semanticfl_jax.config.methods import guide, parse_methods, plan_methods


def test_a_method_is_an_algorithm_with_settings_of_its_own():
    methods = parse_methods(
        "fedavg; semanticfl guidance.anchors=shuffled guidance.lambda_con=0.5 guidance.maps=vae,mid"
    )
    runs = plan_methods({"rounds": 7}, {}, methods, [0, 3])
    guided = "semanticfl-anchors-shuffled-lambda_con-0.5-maps-vae,mid"
    assert list(runs) == ["fedavg-seed0", f"{guided}-seed0", "fedavg-seed3", f"{guided}-seed3"]
    assert not runs["fedavg-seed3"].guidance.enabled
    config = runs[f"{guided}-seed3"]
    assert (config.seed, config.rounds, config.algorithm.name) == (3, 7, "semanticfl")
    assert config.guidance.anchors == "shuffled"
    assert config.guidance.lambda_con == 0.5
    assert config.guidance.maps == ("vae", "mid")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fedavg; fedavg", "fedavg is there twice"),
        ("semanticfl shuffled", "'shuffled' in 'semanticfl shuffled' is not FIELD=VALUE"),
        ("semanticfl guidance.anchor=x", "Did you mean guidance.anchors?"),
        ("fedsgd", "algorithm.name must be one of fedavg"),
        ("fedavg rounds=few", "rounds must be a whole number, got 'few'"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(ConfigError) as error:
        plan_methods({}, {}, parse_methods(text), [0])
    assert message in str(error.value)


def test_methods_are_trained_without_and_with_guidance():
    methods = parse_methods(
        "scaffold; semanticfl; fedprox fedprox.mu=1".replace(" fedprox.", " algorithm.fedprox.")
    )
    for guided, names in (
        (None, ["scaffold", "semanticfl", "fedprox-mu-1"]),
        ("no", ["scaffold", "semanticfl", "fedprox-mu-1"]),
        ("yes", ["scaffold-guided", "semanticfl", "fedprox-mu-1-guided"]),
        (
            "both",
            ["scaffold", "scaffold-guided", "semanticfl", "fedprox-mu-1", "fedprox-mu-1-guided"],
        ),
    ):
        runs = plan_methods({}, {}, guide(methods, guided), [0])
        assert list(runs) == [f"{name}-seed0" for name in names]
        for name, config in runs.items():
            assert config.guidance.enabled == ("guided" in name or "semanticfl" in name)


def test_settings_of_the_command_line_go_to_the_methods_that_heed_them():
    overrides = {"algorithm.moon.mu": 5.0, "guidance.lambda_con": 0.5, "rounds": 3}
    methods = parse_methods("fedavg; moon; moon algorithm.moon.mu=2; semanticfl")
    runs = plan_methods({}, overrides, methods, [0])
    assert [config.rounds for config in runs.values()] == [3] * 4
    assert runs["moon-seed0"].algorithm.settings.mu == 5
    assert runs["moon-mu-2-seed0"].algorithm.settings.mu == 2
    assert runs["semanticfl-seed0"].guidance.lambda_con == 0.5
    assert not runs["fedavg-seed0"].guidance.enabled
    with pytest.raises(ConfigError, match=r"algorithm.moon.mu is set, but algorithm.name is"):
        plan_methods({}, overrides, parse_methods("fedavg; semanticfl"), [0])
