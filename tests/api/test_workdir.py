"""Runs that are taken up in their directory: longer ones, and what binds it."""

import dataclasses
import json

import jax.numpy as jnp
import pytest

import semanticfl_jax as sfl
from semanticfl_jax.algorithms.aggregators import mean
from tests.api.runs import CONFIG, HALVES, QUIET, noise_dataset, same, tiny
from tests.federation import CLASSES, TinyNet
from tests.own_vit import confidence_penalty
from tests.results import without_times


def test_a_run_can_be_made_longer_and_equals_one_of_that_length(tmp_path, whole):
    short = dataclasses.replace(CONFIG, rounds=2, eval_every=2)
    first = sfl.run(short, tmp_path, **tiny())
    assert first.summary["rounds"] == 2
    longer = dataclasses.replace(short, rounds=3)
    result = sfl.run(longer, tmp_path, **tiny())
    same(result.params, whole.params)
    assert json.loads((tmp_path / "summary.json").read_text())["rounds"] == 3
    at_once = sfl.run(longer, **tiny())
    assert without_times(result.history) == without_times(at_once.history)
    with pytest.raises(sfl.ConfigError, match=r"not shorter\. Different: rounds was 3, is 2"):
        sfl.run(short, tmp_path, **tiny())


@sfl.register_aggregator("own_count", about="The mean, which counts its rounds")
def own_count(settings, context):
    del settings, context
    base = mean()
    return dataclasses.replace(
        base,
        name="own_count",
        finish=lambda totals, key, count: (base.finish(totals, key), count + 1),
        start=lambda model: jnp.int32(0),
        figures=lambda count: {"own_rounds": count},
    )


def test_a_longer_run_drops_the_evaluation_of_its_former_last_round_and_nothing_else(tmp_path):
    config = dataclasses.replace(
        CONFIG,
        rounds=1,
        eval_every=2,
        aggregation=sfl.AggregationConfig("own_count"),
        attack=sfl.AttackConfig("backdoor", share=0.5),
    )
    (short,) = sfl.run(config, tmp_path, **tiny()).history
    longer = dataclasses.replace(config, rounds=2)
    result = sfl.run(longer, tmp_path, **tiny())
    at_once = sfl.run(longer, **tiny())
    assert without_times(result.history) == without_times(at_once.history)
    assert sfl.run(longer, tmp_path, **tiny()).history == result.history  # as the file has it
    first, last = result.history
    assert (first["own_rounds"], last["own_rounds"]) == (1, 2)
    assert first.items() <= short.items()
    dropped = {"test_accuracy", "test_loss", "class_accuracy", "ece", "attack_success"}
    dropped |= {"worst_class_accuracy", "worst_decile_accuracy", "client_accuracy_variance"}
    assert short.keys() - first.keys() == dropped <= last.keys()


def test_a_warm_up_that_is_a_share_of_the_rounds_keeps_them_fixed(tmp_path):
    algorithm = sfl.AlgorithmConfig("fedcda")
    config = dataclasses.replace(CONFIG, rounds=1, algorithm=algorithm)
    sfl.run(config, tmp_path, **tiny())
    with pytest.raises(sfl.ConfigError, match="its warm-up is a share of all rounds"):
        sfl.run(dataclasses.replace(config, rounds=2), tmp_path, **tiny())


def test_a_workdir_is_bound_by_data_and_objects_and_not_by_how_it_is_computed(tmp_path):
    config = dataclasses.replace(CONFIG, rounds=1)
    sfl.run(config, tmp_path, **tiny())
    more = dataclasses.replace(
        config, rounds=2, runtime=sfl.RuntimeConfig(clients_per_chunk=2), checkpoint_every=2
    )
    sfl.run(more, tmp_path, **tiny())
    more = dataclasses.replace(more, rounds=3)
    labels = noise_dataset()
    labels = dataclasses.replace(labels, train_labels=labels.train_labels[::-1].copy())
    for other, message in (
        ({"dataset": labels}, "data: training labels were"),
        ({"partition": HALVES}, "partition was"),
        ({"model": TinyNet(CLASSES, feature_dim=8)}, "model was"),
    ):
        with pytest.raises(sfl.ConfigError, match=message):
            sfl.run(more, tmp_path, **tiny(**other))
    # Nor is a finished run taken for that of other objects.
    done = dataclasses.replace(more, rounds=2)
    own = confidence_penalty(0.1, 0.5)
    for other, message in (
        ({"dataset": labels}, "data: training labels were"),
        ({"partition": HALVES}, "partition was"),
        ({"model": TinyNet(CLASSES, feature_dim=8)}, "model was"),
        ({"algorithm": own}, f"algorithm was not given, is {own.name}"),
    ):
        with pytest.raises(sfl.ConfigError, match=message):
            sfl.run(done, tmp_path, **tiny(**other))
    assert sfl.run(done, tmp_path, model=TinyNet(CLASSES), **QUIET).summary["rounds"] == 2
    with pytest.raises(sfl.ConfigError, match=r"batch_size was 8, is 9"):
        sfl.run(dataclasses.replace(more, batch_size=9), tmp_path, **tiny())
