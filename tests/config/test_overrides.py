"""Values typed on the command line, on top of those of a file."""

import pytest

from semanticfl_jax.config import (
    AlgorithmConfig,
    ConfigError,
    ExperimentConfig,
    GuidanceConfig,
    MoonConfig,
    PartitionConfig,
    to_dict,
)
from semanticfl_jax.config.overrides import combine, parse


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("guidance.revision", "7e345678", "7e345678"),
        ("guidance.revision", "39593e5", "39593e5"),
        ("data_dir", "007", "007"),
        ("partition.file", "none", None),
        ("rounds", "12", 12),
        ("learning_rate", "1e-3", 1e-3),
        ("learning_rate", "1", 1.0),
        ("guidance.enabled", "True", True),
        ("guidance.maps", "vae, mid", ("vae", "mid")),
        ("guidance.budgets", "256", (256,)),
        ("augmentation", "none", ()),
        ("runtime.clients_per_chunk", "auto", "auto"),
        ("runtime.clients_per_chunk", "4", 4),
        ("algorithm.server_learning_rate", "0.5", 0.5),
        ("algorithm.fedrcl.levels", "0,4", (0, 4)),
        ("algorithm.fedrcl.levels", "all", "all"),
        ("aggregation.clip.max_norm", "2", 2.0),
    ],
)
def test_a_text_becomes_what_its_field_holds(path, text, value):
    found = parse(ExperimentConfig, path, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("rounds", "2.5", "rounds must be a whole number, got '2.5'"),
        ("rounds", "", "rounds must be a whole number, got ''"),
        ("learning_rate", "inf", "learning_rate must be a number"),
        ("guidance.enabled", "maybe", "guidance.enabled must be true or false"),
        ("algorithm", "fedprox", "set one of them, as in --config.algorithm.name=fedprox"),
        ("lr", "0.1", "unknown config field lr. Did you mean learning_rate?"),
        ("width", "8", "unknown config field width. Did you mean model.width?"),
        ("model.epochs", "8", "unknown config field model.epochs. Fields"),
        ("model.depth", "3", "unknown config field model.depth"),
        ("clients_per_chunk", "3", "is now runtime.clients_per_chunk"),
    ],
)
def test_a_text_that_means_nothing_there_is_refused(path, text, message):
    with pytest.raises(ConfigError) as error:
        parse(ExperimentConfig, path, text)
    assert message in str(error.value)


FILE = to_dict(
    ExperimentConfig(
        algorithm=AlgorithmConfig("moon", settings=MoonConfig(mu=5)),
        partition=PartitionConfig(scheme="nid1", alpha=0.05),
        guidance=GuidanceConfig(enabled=True, lambda_con=0.01),
    )
)


def test_what_an_override_leaves_without_effect_goes_back_to_its_default():
    overrides = {"algorithm.name": "fedavg", "partition.scheme": "iid", "guidance.enabled": False}
    config = combine(ExperimentConfig, FILE, overrides)
    assert config == ExperimentConfig(partition=PartitionConfig(scheme="iid"))
    kept = combine(ExperimentConfig, FILE, {"rounds": 3})
    assert kept.algorithm.settings.mu == 5 and kept.guidance.lambda_con == 0.01


def test_an_override_without_effect_is_an_error():
    for path, value in (("algorithm.moon.mu", 3.0), ("guidance.lambda_con", 0.5)):
        overrides = {"algorithm.name": "fedavg", "guidance.enabled": False, path: value}
        with pytest.raises(ConfigError, match=path.replace(".", "[.]") + " is set, but"):
            combine(ExperimentConfig, FILE, overrides)
        # Unless it is one that gives way.
        del overrides[path]
        config = combine(ExperimentConfig, FILE, overrides, optional={path: value})
        assert config.algorithm.name == "fedavg"
