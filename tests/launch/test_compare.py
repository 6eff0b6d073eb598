"""Methods of a comparison: what the command line's text stands for."""

import json

import pytest

from launch.compare import comparison_of, guide, parse_methods, plan
from launch.flags import Given
from semanticfl_jax.config import ConfigError, ExperimentConfig, to_dict
from semanticfl_jax.errors import DivergedError
from tests.reporting.made_up import made_up_config, write_run


def given(config, **overrides):
    return Given(ExperimentConfig, to_dict(config), overrides)


def test_a_method_is_an_algorithm_with_settings_of_its_own():
    methods = parse_methods(
        "fedavg; semanticfl guidance.anchors=shuffled guidance.lambda_con=0.5 guidance.maps=vae,mid"
    )
    runs = plan(given(ExperimentConfig(rounds=7)), methods, ["0", "3"])
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
        plan(given(ExperimentConfig()), parse_methods(text), ["0"])
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
        runs = plan(given(ExperimentConfig()), guide(methods, guided), ["0"])
        assert list(runs) == [f"{name}-seed0" for name in names]
        for name, config in runs.items():
            assert config.guidance.enabled == ("guided" in name or "semanticfl" in name)


def test_settings_of_the_command_line_go_to_the_methods_that_heed_them():
    overrides = {"algorithm.moon.mu": 5.0, "guidance.lambda_con": 0.5, "rounds": 3}
    methods = parse_methods("fedavg; moon; moon algorithm.moon.mu=2; semanticfl")
    asked = Given(ExperimentConfig, {}, overrides)
    runs = plan(asked, methods, ["0"])
    assert [config.rounds for config in runs.values()] == [3] * 4
    assert runs["moon-seed0"].algorithm.settings.mu == 5
    assert runs["moon-mu-2-seed0"].algorithm.settings.mu == 2
    assert runs["semanticfl-seed0"].guidance.lambda_con == 0.5
    assert not runs["fedavg-seed0"].guidance.enabled
    with pytest.raises(ConfigError, match=r"algorithm.moon.mu is set, but algorithm.name is"):
        plan(asked, parse_methods("fedavg; semanticfl"), ["0"])


def test_a_run_that_diverged_is_named_in_what_is_written(tmp_path):
    names = ["fedavg-seed0", "moon-seed0", "scaffold-seed0"]
    for name in names:
        write_run(tmp_path / name, made_up_config(name.partition("-")[0]))
    stopped = tmp_path / "moon-seed0" / "summary.json"
    summary = json.loads(stopped.read_text()) | {"finished": None, "diverged_round": 2}
    stopped.write_text(json.dumps(summary))
    text = comparison_of(names, ["moon-seed0"], tmp_path)
    line = "Warning: moon-seed0 is not compared: it diverged in round 2."
    assert line in text.splitlines() and "scaffold" in text
    assert line in (tmp_path / "comparison.md").read_text().splitlines()
    assert f"% {line}" in (tmp_path / "comparison.tex").read_text().splitlines()
    with pytest.raises(DivergedError, match=r"no run is left: moon-seed0 .* diverged in round 2"):
        comparison_of(names[1:2], ["moon-seed0"], tmp_path)
