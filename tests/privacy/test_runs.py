"""Whole private runs: epsilon in every row, budgets, resuming, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from semanticfl_jax.config import (
    AggregationConfig,
    AlgorithmConfig,
    AvailabilityConfig,
    ConfigError,
    ExperimentConfig,
    GuidanceConfig,
    ModelConfig,
    PrivacyConfig,
    RuntimeConfig,
    from_dict,
)
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.privacy import report
from semanticfl_jax.registry import ALGORITHMS
from semanticfl_jax.reporting.runs import load_run
from semanticfl_jax.reporting.writers.metrics import read_metrics
from semanticfl_jax.simulation import experiment
from tests.built_in import built_in
from tests.federation import CLASSES, SoftmaxRegression, TwoLayers, noise_images

CONFIG = ExperimentConfig(
    dataset="digits",
    model=ModelConfig(norm="group"),
    num_clients=6,
    clients_per_round=3,
    rounds=4,
    local_epochs=1,
    batch_size=8,
    public_per_class=0,
    augmentation=(),
    eval_every=2,
    availability=AvailabilityConfig(sampling="poisson"),
    privacy=PrivacyConfig("central", noise_multiplier=2.0, settings={"adaptive": True}),
    runtime=RuntimeConfig(num_devices=1, eval_batch_size=16),
)


@pytest.fixture(scope="module")
def run():
    world = noise_images()

    def run(config, directory, model=None, say=None, **options):
        model = SoftmaxRegression(CLASSES) if model is None else model
        return experiment.run(config, directory, dataset=world, model=model, say=say, **options)

    return run


def test_every_round_tells_epsilon_and_a_resumed_run_is_the_same(run, tmp_path, capfd):
    through = run(CONFIG, tmp_path / "through")
    assert "epsilon" in capfd.readouterr().err  # the progress
    rows = read_metrics(tmp_path / "through")
    spent = [row["epsilon"] for row in rows]
    assert len(spent) == 4 and np.all(np.diff(spent) > 0)
    assert all("clip" in row for row in rows)
    run(dataclasses.replace(CONFIG, rounds=3), tmp_path / "parts")
    parts = run(CONFIG, tmp_path / "parts")
    for name in ("epsilon", "clip", "train_loss"):
        assert [row[name] for row in parts.history] == [row[name] for row in rows]
    for name, weights in through.params["Dense_0"].items():
        np.testing.assert_array_equal(parts.params["Dense_0"][name], weights)
    told = through.summary["privacy"]
    assert told["epsilon"] == spent[-1] and told["delta"] == 1e-6
    assert told["bound"].startswith("Poisson sampling")


def test_a_budget_that_is_used_up_stops_the_run(run, tmp_path):
    private = dataclasses.replace(CONFIG.privacy, target_epsilon=4.0)
    config = dataclasses.replace(CONFIG, rounds=30, privacy=private)
    lines = []
    result = run(config, tmp_path, say=lines.append)
    done = len(result.history)
    assert 0 < done < 30 and result.history[-1]["epsilon"] <= 4.0
    assert f"the privacy budget of epsilon 4 lasts {done} of 30 rounds" in "\n".join(lines)
    assert "test_accuracy" in result.history[-1]
    assert result.summary["privacy"]["used_up"]
    # It is finished: nothing is trained when it is run again, and it can be compared.
    assert run(config, tmp_path).summary["rounds"] == done
    assert load_run(tmp_path).summary["rounds"] == done


def test_a_run_that_stands_for_a_larger_federation_says_so(run, tmp_path):
    stands_for = {"population": 10_000, "noise_cohort": 100}
    config = dataclasses.replace(CONFIG, privacy=dataclasses.replace(CONFIG.privacy, **stands_for))
    lines = []
    told = run(config, tmp_path, say=lines.append).summary["privacy"]
    federation = "10,000 clients, 100 in a round"
    assert f"that of {federation}: the run itself has none" in "\n".join(lines)
    assert told["stands_for"] == federation
    (guarantee,) = [
        r["guarantee"] for r in told["seen"] if r["what"] == "the model, in every round"
    ]
    assert guarantee.endswith(f"private, with {federation}; here none")


def test_a_target_binds_the_run_to_its_rounds(run, tmp_path):
    config = dataclasses.replace(CONFIG, privacy=PrivacyConfig("local", target_epsilon=20.0))
    result = run(config, tmp_path)
    assert 19 < result.history[-1]["epsilon"] <= 20
    with pytest.raises(ConfigError, match="cannot be made longer: privacy"):
        run(dataclasses.replace(config, rounds=5), tmp_path)


def test_running_statistics_are_refused_before_the_directory_is_claimed(run, tmp_path):
    with pytest.raises(SemanticFLError, match="keeps running statistics"):
        run(CONFIG, tmp_path / "new", model=TwoLayers(CLASSES))
    assert not (tmp_path / "new" / "config.json").exists()


def values(**changes):
    return {"model": {"norm": "group"}, "privacy": {"name": "central", "noise_multiplier": 1.0}} | (
        changes
    )


STANDS_FOR = {"name": "central", "noise_multiplier": 1.0, "population": 1000, "noise_cohort": 10}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (values(model={"norm": "batch"}), "model.norm must be group with privacy.name=central"),
        (values(algorithm={"name": "scaffold"}), "scaffold cannot be used with privacy.name=cent"),
        (values(algorithm={"name": "feddisco"}), "clients send their label counts without noise"),
        (values(algorithm={"weights": "size"}), "algorithm.weights must be auto or uniform"),
        (values(aggregation={"aggregator": "median"}), "aggregation.aggregator must be mean"),
        (values(availability={"sampling": "size_weighted"}), "sampling must be uniform, poisson"),
        (values(guidance={"enabled": True, "anchor_source": "oracle"}), "another than oracle"),
        (
            values(guidance={"enabled": True, "student": {"enabled": True, "control": "permuted"}}),
            "guidance.student.control must be another than permuted with privacy.name=central",
        ),
        (values(privacy={"name": "central"}), "noise_multiplier must be a number with name=cent"),
        (values(attack={"name": "ipm"}), "attack.name must be one whose attackers do not collude"),
        (
            values(privacy={"name": "local", "noise_multiplier": 1.0}, on_divergence="skip_client"),
            "on_divergence must be warn or stop with privacy.name=local",
        ),
        (values(privacy={"name": "local", "noise_multiplier": 0.1}), "must be at least 0.2"),
        (values(privacy={"delta": 1e-5}), "privacy.delta is set, but privacy.name is none"),
        (values(privacy={"population": 10}), "noise_cohort must be set together with population"),
        (
            values(privacy=STANDS_FOR | {"name": "local"}),
            "population must be 0 with name=local",
        ),
        (
            values(privacy=STANDS_FOR | {"noise_cohort": 5}, clients_per_round=8),
            r"privacy.noise_cohort must be from clients_per_round \(8\) to population",
        ),
        (
            values(privacy=STANDS_FOR | {"delta": 2e-3}),
            r"privacy.delta must be at most one in population \(1000\)",
        ),
        (
            values(privacy={"name": "central", "noise_multiplier": 1.0, "delta": 0.2}),
            "privacy.delta must be at most one in num_clients",
        ),
        (
            values(
                privacy={"name": "central", "noise_multiplier": 1.0, "central": {"quantile": 0.9}}
            ),
            "privacy.central.quantile is set, but privacy.central.adaptive is false",
        ),
    ],
)
def test_what_has_no_guarantee_is_refused_with_the_reason(given, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(ExperimentConfig, given)


@pytest.mark.parametrize("name", ["scaffold", "fednova", "feddyn", "fedcda"])
def test_transforms_that_something_would_go_around_are_refused_at_once(name):
    with pytest.raises(ConfigError, match=rf"name={name}: its clients send .* got clip"):
        ExperimentConfig(
            algorithm=AlgorithmConfig(name), aggregation=AggregationConfig(transforms=("clip",))
        )


def test_the_summary_tells_what_each_party_sees():
    def told(**changes):
        config = from_dict(ExperimentConfig, changes)
        rows = report.seen(config, None, 1)
        return {(row["who"], row["what"]): row["guarantee"] for row in rows}

    rows = report.seen(ExperimentConfig(), None, 1, own_moments=True)
    (moments,) = [row for row in rows if row["what"].startswith("mean and standard deviation")]
    assert moments["guarantee"] == "none"
    assert told()["server", "how many images every client has, by its weight"] == "none"
    counts = told(algorithm={"name": "feddisco"})
    assert ("server", "of clients, once, how many images of each class they have") in counts
    variates = told(algorithm={"name": "scaffold"})
    assert any("control variates" in what for who, what in variates if who == "server")
    assert not any("how many images" in what for _, what in variates)
    # Of a client alone the server sees nothing under masks; weights that nobody heeds tell nothing.
    update = ("server", "every client's update, in every round")
    assert update in told() and update not in told(aggregation={"aggregator": "secure"})
    assert "many images" in str(told(aggregation={"aggregator": "secure"}))
    median = told(aggregation={"aggregator": "median"})
    assert update in median and "many images" not in str(median)
    alone = told(algorithm={"name": "local"})
    assert [what for who, what in alone if who == "server"] == ["who takes part, and when"]
    assert ("clients, and whoever gets the model", "the initial model") in alone
    for source, guarantee in (("public", "epsilon 0"), ("oracle", "none")):
        guidance = dataclasses.asdict(GuidanceConfig(enabled=True, anchor_source=source))
        guidance = {"enabled": True, "anchor_source": guidance["anchor_source"]}
        assert told(guidance=guidance)["clients", "anchors, once"].startswith(guarantee)
    for images, guarantee in (
        ("generated", "epsilon 0"),
        ("dataset:tiny_imagenet", "epsilon 0, if no client holds an image of tiny_imagenet"),
    ):
        guidance = {"enabled": True, "student": {"enabled": True, "images": images}}
        assert told(guidance=guidance)["clients", "the student, once"].startswith(guarantee)


def test_the_guide_has_the_table_of_what_is_seen():
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "privacy.md").read_text()
    assert report.table() in guide
    assert report.table().count("\n") == len(built_in(ALGORITHMS)) + 1
