"""The table of aggregators under attacks: what is run for each of its cells."""

import pytest

from launch import flags, robustness
from launch.configs.robustness import get_config
from semanticfl_jax.config import ExperimentConfig, to_dict


def given(**overrides):
    return flags.Given(ExperimentConfig, to_dict(get_config()), overrides)


@pytest.mark.parametrize("attack", robustness._ATTACKS)
@pytest.mark.parametrize("aggregator", robustness._AGGREGATORS)
def test_every_pair_is_valid_and_is_told_how_many_attack(aggregator, attack):
    config = robustness.plan(given(), aggregator, attack, 2)
    assert (config.aggregation.aggregator, config.attack.name, config.seed) == (
        aggregator,
        attack,
        2,
    )
    settings = config.aggregation.settings[aggregator]
    assert getattr(settings, "attackers", 4) == 4  # a fifth of 20


def test_settings_go_to_the_runs_that_heed_them():
    few = given(**{"attack.share": 0.1, "attack.ipm.scale": 2.0})
    assert robustness.plan(few, "krum", "ipm", 0).attack.settings.scale == 2.0
    config = robustness.plan(few, "krum", "sign_flip", 0)
    assert config.aggregation.settings["krum"].attackers == 2 and config.attack.share == 0.1


def test_a_cell_has_mean_spread_and_a_backdoors_success():
    plain = [{"mean_last10_accuracy": x} for x in (0.5, 0.7)]
    assert robustness.cell(plain) == "60.0 ± 14.1"
    assert robustness.cell(plain[:1]) == "50.0"
    assert robustness.cell([{**plain[0], "final_attack_success": 0.25}]) == "50.0 (25)"
    assert robustness.cell([plain[0], {"mean_last10_accuracy": None}]) == "not finite"
    other = {"metric": "test_mae", "higher_is_better": False, "mean_last10_mae": 3.25}
    assert robustness.cell([other]) == "3.2"
