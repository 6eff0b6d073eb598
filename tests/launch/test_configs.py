"""The installed configurations: each is valid, and says what it is known for."""

import importlib

import pytest

from launch.config_files import CONFIGS
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.pretraining.config import PretrainConfig

NAMES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_is_valid_and_names_its_command(name):
    module = importlib.import_module(f"launch.configs.{name}")
    config_class = PretrainConfig if name.startswith("pretrain") else ExperimentConfig
    assert isinstance(module.get_config(), config_class)
    assert f"--config=launch/configs/{name}.py" in module.__doc__


def test_the_paper_preset_has_the_papers_values():
    from launch.configs import paper

    config = paper.get_config()
    guidance = config.guidance
    assert config.algorithm.name == "semanticfl"
    assert (guidance.lambda_kd, guidance.lambda_con) == (1.0, 0.01)
    assert (guidance.kd, guidance.temperature_con, guidance.timestep) == ("kl", 0.05, 150)
