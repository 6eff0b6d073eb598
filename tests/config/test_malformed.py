"""Malformed values for every field of everything that can be chosen: refused by its name."""

import numpy as np
import pytest

from semanticfl_jax import ConfigError, ExperimentConfig
from semanticfl_jax.config import from_dict
from semanticfl_jax.config.overrides import combine, parse
from semanticfl_jax.pretraining.config import PretrainConfig
from tests.all_fields import all_fields
from tests.chaos.configure import malformed, refuse


def test_texts_that_mean_nothing_are_refused_by_name():
    given = list(malformed())
    assert len(given) > 4000
    assert {
        "rounds",
        "privacy.central.clip",
        "attack.backdoor.target",
        "aggregation.top_k.share",
        "runtime.tensorboard.directory",
        "guidance.student.width",
        "dataset_settings.severity",
        "unet.levels",
    } <= {field.name for _, field, _ in given}
    wrong = [
        f"{field.name}={text}: {problem}"
        for cls, field, text in given
        if (problem := refuse(cls, field, text))
    ]
    assert not wrong


#: As a file of JSON, or a program, may hold them in any place.
VALUES = (None, [], {}, [1], [None], [[1]], {"a": 1}, True, 1.5, "x", "", 10**400, {1: 2}, [{}])


@pytest.mark.parametrize("cls", [ExperimentConfig, PretrainConfig])
def test_values_of_other_kinds_are_refused_whatever_they_are(cls):
    places = {}
    for field in all_fields(cls):
        parts = field.name.split(".")
        for end in range(1, len(parts) + 1):
            places.setdefault(".".join(parts[:end]), field.chosen)
    taken = set()
    for name, chosen in places.items():
        for value in VALUES:
            try:
                from_dict(cls, nested({**chosen, name: value}))
                combine(cls, nested({**chosen, name: value}), {"seed": 1})
                taken.add((name, str(value)))
            except ConfigError:
                pass  # and no other error
    assert ("seed", "None") not in taken and ("seed", "True") not in taken
    for values in (None, [], 5, "x", {1: 2}):
        with pytest.raises(ConfigError, match="must be fields by name"):
            from_dict(cls, values)


def nested(values):
    """Return values by dotted name as groups in groups; a later one may replace a group."""
    found = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        place = found
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return found


def test_numbers_must_fit_into_32_bits():
    assert ExperimentConfig(seed=2**31 - 1, learning_rate=2**40).learning_rate == 2.0**40
    with pytest.raises(ConfigError, match="rounds must be from -2147483648 to 2147483647, got"):
        ExperimentConfig(rounds=2**31)
    with pytest.raises(ConfigError, match="weight_decay must be a number that 32 bits hold"):
        ExperimentConfig(weight_decay=1e39)
    with pytest.raises(ConfigError, match="rounds must be a whole number, got '999"):
        parse(ExperimentConfig, "rounds", "9" * 5000)


def test_numbers_of_numpy_are_numbers():
    config = ExperimentConfig(
        seed=np.int64(3), learning_rate=np.float32(0.5), rounds=np.array(2), download=np.bool_(True)
    )
    assert (config.seed, config.learning_rate, config.rounds, config.download) == (3, 0.5, 2, True)
    assert type(config.seed) is int and type(config.learning_rate) is float
    for wrong in (np.float32(2), np.array([2]), np.bool_(True), np.str_("x")):
        with pytest.raises(ConfigError, match="rounds must be a whole number"):
            ExperimentConfig(rounds=wrong)


def test_a_dotted_name_in_a_file_is_told_to_be_a_group():
    with pytest.raises(ConfigError, match=r'model\.width; write it as a group, {"model": {"width"'):
        from_dict(ExperimentConfig, {"model.width": 8})


def test_a_path_that_no_file_can_have_is_refused():
    for path in ("a\0b", "\ud800"):
        with pytest.raises(ConfigError, match="data_dir must be a path, got"):
            ExperimentConfig(data_dir=path)
