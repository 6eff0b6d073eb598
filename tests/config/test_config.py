"""Configuration: what is allowed, and how a mistake is answered."""

import dataclasses
import json
import typing
from pathlib import Path

import pytest

from semanticfl_jax.config import (
    AggregationConfig,
    AlgorithmConfig,
    ConfigError,
    ExperimentConfig,
    FedProxConfig,
    GuidanceConfig,
    MoonConfig,
    OptimizerConfig,
    PartitionConfig,
    RuntimeConfig,
    check_override,
    from_dict,
    to_dict,
)
from semanticfl_jax.config.algorithm import knobs
from semanticfl_jax.config.describe import describe_choices, table
from semanticfl_jax.registry import (
    AGGREGATORS,
    ALGORITHMS,
    ATTACKS,
    DATASETS,
    MODELS,
    OPTIMIZERS,
    PARTITIONS,
    SCHEDULES,
    TASKS,
    TRANSFORMS,
)
from tests.built_in import built_in


def test_round_trip_through_json():
    config = ExperimentConfig(
        seed=3,
        guidance=GuidanceConfig(enabled=True, maps=("vae", "mid")),
        runtime=RuntimeConfig(clients_per_chunk=4),
        algorithm=AlgorithmConfig("fedprox", settings=FedProxConfig(mu=3)),
        aggregation=AggregationConfig(transforms=("clip",), settings={"clip": {"max_norm": 2}}),
    )
    assert from_dict(ExperimentConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_semanticfl_is_guided_whatever_the_flag_says():
    values = {"algorithm": {"name": "semanticfl"}, "guidance": {"enabled": False}}
    assert from_dict(ExperimentConfig, values).guidance.enabled
    assert not ExperimentConfig().guidance.enabled


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"roundz": 3}, "unknown config field roundz. Did you mean rounds?"),
        ({"model": {"widht": 3}}, "model.widht. Did you mean model.width?"),
        (
            {"dataset": "mnist"},
            "dataset must be one of digits, cifar10, cifar100, tiny_imagenet, image_folder",
        ),
        ({"rounds": "many"}, "rounds must be a whole number, got 'many'"),
        ({"rounds": 2.5}, "rounds must be a whole number"),
        ({"rounds": True}, "rounds must be a whole number"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"learning_rate": "fast"}, "learning_rate must be a number"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number"),
        ({"partition": {"alpha": 0}}, "partition.alpha must be greater than 0"),
        ({"partition": 3}, "partition is a group of fields"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1"),
        ({"clients_per_round": 11}, "clients_per_round must be at most num_clients (10), got 11"),
        (
            {"runtime": {"clients_per_chunk": 0}},
            'runtime.clients_per_chunk must be "auto" or at least 1',
        ),
        ({"runtime": {"clients_per_chunk": "some"}}, "a whole number or one of auto"),
        ({"num_devices": 2}, "config field num_devices is now runtime.num_devices"),
        ({"model": {"conv": "native"}}, "config field model.conv is now runtime.conv"),
        (
            {"algorithm": {"fedprox": {"mu": 3}}},
            "algorithm.fedprox.mu is set, but algorithm.name is fedavg",
        ),
        (
            {"aggregation": {"clip": {"max_norm": 3}}},
            "aggregation.clip.max_norm is set, but aggregation.transforms is none",
        ),
        ({"algorithm": {"feddisco": {"a": 3}}}, "algorithm.feddisco is set, but algorithm.name is"),
        ({"algorithm": {"server_tau": 3}}, "algorithm.server_tau is set, but the server optimiser"),
        (
            {"algorithm": {"name": "scaffold"}, "optimizer": {"name": "adam"}},
            "optimizer.name must be sgd, without nesterov, with algorithm.name=scaffold (its",
        ),
        (
            {"algorithm": {"name": "feddyn"}, "optimizer": {"sgd": {"nesterov": True}}},
            "got 'sgd with nesterov'",
        ),
        (
            {"optimizer": {"name": "adam"}, "momentum": 0.5},
            "momentum is set, but optimizer.name is",
        ),
        (
            {"optimizer": {"cosine": {"final": 0.5}}},
            "optimizer.cosine.final is set, but optimizer.schedule is constant",
        ),
        (
            {"algorithm": {"name": "qffl"}, "optimizer": {"server_schedule": "cosine"}},
            "optimizer.server_schedule is set, but algorithm.name is qffl: it scales the step",
        ),
        (
            {"availability": {"straggler_min_work": 0.5}},
            "availability.straggler_min_work is set, but availability.straggler_share is 0",
        ),
        (
            {"feature_skew": {"share": 0.5}},
            "feature_skew.share is set, but feature_skew.corruptions is empty",
        ),
        (
            {"attack": {"name": "sign_flip", "share": 0.04}},
            "attack.share must be 0, or large enough that one of 10 clients attacks, got 0.04",
        ),
        ({"guidance": {"timestep": 3}}, "guidance.timestep is set, but guidance.enabled is false"),
        (
            {"algorithm": {"name": "feddifrc"}, "guidance": {"lambda_kd": 3}},
            "guidance.lambda_kd is set, but guidance.enabled is false",
        ),
        (
            {"guidance": {"enabled": True, "generation_steps": 3}},
            "guidance.generation_steps is set, but guidance.anchor_source is public",
        ),
        (
            {"guidance": {"enabled": True, "lambda_kd": 0, "kd": "l2"}},
            "guidance.kd is set, but guidance.lambda_kd is 0",
        ),
        (
            {"guidance": {"enabled": True, "lambda_con": 0, "temperature_con": 0.1}},
            "guidance.temperature_con is set, but guidance.lambda_con is 0",
        ),
        (
            {"guidance": {"enabled": True, "kd": "cosine", "temperature_kd": 0.1}},
            "guidance.temperature_kd is set, but guidance.kd is cosine",
        ),
        (
            {
                "guidance": {
                    "enabled": True,
                    "lambda_kd": 0,
                    "lambda_con": 0,
                    "dtype": "bfloat16",
                    "student": {"enabled": True},
                }
            },
            "guidance.dtype is set, but the bundled student is made already",
        ),
        ({"model": {"name": "cnn", "width": 8}}, "model.width is set, but model.name is cnn"),
        (
            {"partition": {"scheme": "iid", "alpha": 1}},
            "partition.alpha is set, but partition.scheme is iid",
        ),
        ({"guidance": {"prompt": "a photo"}}, "guidance.prompt must be a text with one {}"),
        ({"guidance": {"prompt": "a {} {style}"}}, "guidance.prompt must be a text with one {}"),
        ({"guidance": {"prompt": "{} {}"}}, "guidance.prompt must be a text with one {}"),
        ({"guidance": {"prompt": "a {0}"}}, "guidance.prompt must be a text with one {}"),
        ({"guidance": {"prompt": "a {name}"}}, "guidance.prompt must be a text with one {}"),
        ({"guidance": {"prompt": "a {{}}"}}, "guidance.prompt must be a text with one {}"),
        ({"guidance": {"prompt": "a {"}}, "guidance.prompt must be a text with one {}"),
        ({"guidance": {"prompt": "a {}}"}}, "guidance.prompt must be a text with one {}"),
        ({"guidance": {"prompt": "a {:>9}"}}, "guidance.prompt must be a text with one {}"),
        ({"guidance": {"prompt": "a {!r}"}}, "guidance.prompt must be a text with one {}"),
        ({"guidance": {"prompt": "a {}{x!z}"}}, "guidance.prompt must be a text with one {}"),
        ({"guidance": {"aggregation": "single"}}, "guidance.maps must be exactly one name"),
        (
            {"guidance": {"maps": "vae,mid", "budgets": "256"}},
            "guidance.budgets must be one number",
        ),
        ({"guidance": {"budgets": "many"}}, "guidance.budgets must be a list of whole numbers"),
        ({"guidance": {"anchor_source": "directory"}}, "guidance.anchor_dir must be a folder"),
        ({"guidance": {"anchor_dir": "x"}}, "guidance.anchor_dir must be none unless"),
        (
            {"guidance": {"anchor_source": "oracle", "anchors": "shuffled"}},
            'guidance.anchors must be "semantic" with anchor_source "oracle"',
        ),
        (
            {"algorithm": {"name": "semanticfl"}, "public_per_class": 0},
            "public_per_class must be at least 1 when guidance builds its anchors",
        ),
    ],
)
def test_mistakes_name_the_field_and_what_is_allowed(values, message):
    with pytest.raises(ConfigError) as error:
        from_dict(ExperimentConfig, values)
    assert message in str(error.value)


def test_command_line_forms_are_understood():
    values = {
        "guidance": {
            "maps": "vae, mid",
            "budgets": "256,128",
            "enabled": "true",
            "anchors_file": "none",
        },
        "data_dir": 2024,
        "learning_rate": 1,
    }
    config = from_dict(ExperimentConfig, values)
    assert config.guidance.maps == ("vae", "mid")
    assert config.guidance.budgets == (256, 128)
    assert config.guidance.enabled is True
    assert config.guidance.anchors_file is None
    assert config.data_dir == "2024"
    assert isinstance(config.learning_rate, float)


def test_only_the_oracle_is_not_private():
    oracle = GuidanceConfig(enabled=True, anchor_source="oracle")
    assert not ExperimentConfig(guidance=oracle).private
    assert ExperimentConfig().private
    assert ExperimentConfig(guidance=dataclasses.replace(oracle, anchor_source="public")).private


def test_override_paths_are_checked():
    check_override(ExperimentConfig, "guidance.lambda_kd")
    with pytest.raises(ConfigError, match=r"model\.depth"):
        check_override(ExperimentConfig, "model.depth")
    with pytest.raises(ConfigError, match=r"rounds\.x. rounds is no group"):
        check_override(ExperimentConfig, "rounds.x")


def literals(cls, field):
    hint = typing.get_type_hints(cls)[field]
    if typing.get_origin(hint) is tuple:
        hint = typing.get_args(hint)[0]
    return set(typing.get_args(hint))


def test_allowed_names_are_those_of_the_code():
    from semanticfl_jax.data.augment import AUGMENTATIONS
    from semanticfl_jax.models.client_conv import LOWERINGS
    from semanticfl_jax.semantics.aggregation import WEIGHTINGS
    from semanticfl_jax.semantics.losses import KD_KINDS

    assert literals(ExperimentConfig, "augmentation") == set(AUGMENTATIONS)
    assert literals(RuntimeConfig, "conv") == set(LOWERINGS)
    assert literals(GuidanceConfig, "aggregation") == set(WEIGHTINGS)
    assert literals(GuidanceConfig, "kd") == set(KD_KINDS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExperimentConfig(rounds=2.5), "rounds must be a whole number, got 2.5"),
        (lambda: ExperimentConfig(precision="fp8"), "precision must be one of float32, bfloat16"),
        (lambda: ExperimentConfig(model="cnn"), "model is a group of fields, got 'cnn'"),
        (lambda: PartitionConfig(alpha="small"), "alpha must be a number, got 'small'"),
        (lambda: AlgorithmConfig(name="FedAvg"), "got 'FedAvg'. Did you mean fedavg?"),
        (lambda: FedProxConfig(mu=-1), "mu must be at least 0, got -1"),
        (lambda: AlgorithmConfig("moon", settings={"mu": "x"}), "moon.mu must be a number"),
        (lambda: AlgorithmConfig("moon", settings=FedProxConfig()), "must be MoonConfig with moon"),
        (lambda: AlgorithmConfig(settings=FedProxConfig()), "fedavg has none"),
        (lambda: ExperimentConfig(guidance=GuidanceConfig(dim=3)), "guidance.dim is set, but"),
    ],
)
def test_every_constructor_checks(make, message):
    with pytest.raises(ConfigError) as error:
        make()
    assert message in str(error.value)


def test_constructors_convert_as_the_command_line_does():
    config = ExperimentConfig(learning_rate=1, augmentation=["cutout"], algorithm={"name": "moon"})
    assert isinstance(config.learning_rate, float) and config.augmentation == ("cutout",)
    assert config.algorithm == AlgorithmConfig("moon", settings=MoonConfig())
    assert AlgorithmConfig("moon", settings={"mu": 5}).settings == MoonConfig(mu=5)


def test_the_default_of_python_is_the_default_of_the_command():
    assert from_dict(ExperimentConfig, {}) == ExperimentConfig()


def test_configuration_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExperimentConfig().rounds = 3


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ({"name": "fedprx"}, "algorithm.name must be one of fedavg, fedprox, scaffold"),
        ({"fedprox": {"mu": -1}}, "algorithm.fedprox.mu must be at least 0, got -1"),
        ({"fedprox": {"alpha": 1}}, "unknown config field algorithm.fedprox.alpha"),
        ({"moon": {"temperature": 0}}, "algorithm.moon.temperature must be greater than 0"),
        ({"fedrcl": {"levels": "stem"}}, "algorithm.fedrcl.levels must be"),
        ({"name": "fedcda", "fedcda": {"models": 99}}, "9,509,900,499 combinations"),
        ({"fedcda": {"models": 0}}, "algorithm.fedcda.models must be at least 1"),
        ({"feddyn": {"alpha": 0}}, "algorithm.feddyn.alpha must be greater than 0"),
        ({"server_learning_rate": 0}, "algorithm.server_learning_rate must be"),
        ({"server_momentum": 1}, "algorithm.server_momentum must be at least 0 and below 1"),
        ({"name": "scaffold", "server_optimizer": "adam"}, "control variates"),
        ({"name": "fednova", "server_optimizer": "momentum"}, "numbers of steps itself"),
        ({"name": "feddyn", "server_optimizer": "sgd"}, "accumulated drift itself"),
        ({"name": "feddyn", "server_learning_rate": 0.5}, "accumulated drift itself"),
        ({"name": "fedcda", "server_optimizer": "yogi"}, "the models it selects"),
        ({"name": "fedcda", "weights": "disco"}, "it averages all clients alike"),
        (
            {"name": "feddisco", "weights": "size"},
            "algorithm.weights must be auto or disco with algorithm.name=feddisco "
            "(it is those weights), got 'size'",
        ),
        ({"name": "fedadam", "server_optimizer": "sgd"}, "must be auto or adam with"),
    ],
)
def test_combinations_that_make_no_sense_are_refused_with_the_reason(algorithm, message):
    with pytest.raises(ConfigError) as error:
        from_dict(ExperimentConfig, {"algorithm": algorithm})
    assert message in str(error.value)


def test_weights_and_server_optimisers_go_with_any_local_objective():
    for name in ("fedprox", "moon", "fedrcl", "feddifrc", "feddisco", "semanticfl"):
        for optimizer in ("sgd", "momentum", "adam", "yogi"):
            values = {"name": name, "server_optimizer": optimizer, "weights": "disco"}
            assert (
                from_dict(ExperimentConfig, {"algorithm": values}).algorithm.optimizer == optimizer
            )


def test_levels_are_all_or_a_list_of_numbers():
    for given, meant in (("all", "all"), ("0, 4", (0, 4)), (3, (3,)), ("", ()), ([], ())):
        values = {"algorithm": {"name": "fedrcl", "fedrcl": {"levels": given}}}
        assert from_dict(ExperimentConfig, values).algorithm.settings.levels == meant


def test_help_tells_of_everything_that_is_chosen_by_name():
    text = describe_choices()
    fields = text[: text.index("Algorithms (")]
    for name, value in (("num_clients", 10), ("guidance.enabled", False), ("augmentation", "crop")):
        assert f"{name}={value}" in fields
    assert fields.count(" .weights=") == 1 and "fedprox" not in fields
    chosen = (ALGORITHMS, MODELS, DATASETS, TASKS, PARTITIONS, AGGREGATORS, TRANSFORMS, ATTACKS)
    for registry in (*chosen, OPTIMIZERS, SCHEDULES):
        for name in built_in(registry):
            assert f"\n  {name}" in text
    for name in built_in(ALGORITHMS):
        for knob in knobs(name):
            assert f"{knob}=" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_the_servers_own_update_is_refused_beside_a_student():
    values = {
        "aggregation": {"aggregator": "fltrust"},
        "guidance": {"enabled": True, "student": {"enabled": True}},
    }
    with pytest.raises(
        ConfigError, match=r"fltrust cannot be used with guidance\.student: targets"
    ):
        from_dict(ExperimentConfig, values)


def test_features_of_clients_images_alone_are_refused_beside_the_servers_own_update():
    values = {
        "aggregation": {"aggregator": "fltrust"},
        "guidance": {"enabled": True, "anchor_source": "oracle"},
    }
    with pytest.raises(
        ConfigError, match=r"fltrust cannot be used with guidance\.anchor_source=ora"
    ):
        from_dict(ExperimentConfig, values)


def test_fedcda_is_refused_where_more_than_clients_per_round_can_take_part():
    values = {"algorithm": {"name": "fedcda"}, "availability": {"sampling": "poisson"}}
    with pytest.raises(
        ConfigError, match=r"algorithm\.fedcda\.selection must be newest with avail"
    ):
        from_dict(ExperimentConfig, values)
    values["algorithm"]["fedcda"] = {"selection": "newest"}
    from_dict(ExperimentConfig, values)


def test_the_guide_has_the_tables_of_aggregators_transforms_and_attacks():
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "robustness.md").read_text()
    for field, registry in (
        ("aggregation.aggregator", AGGREGATORS),
        ("aggregation.transforms", TRANSFORMS),
        ("attack.name", ATTACKS),
    ):
        assert table(field, registry) in guide


def test_a_list_of_names_is_typed_as_words_or_none():
    def augmentation(value):
        return from_dict(ExperimentConfig, {"augmentation": value}).augmentation

    assert augmentation("none") == augmentation([]) == ()
    assert augmentation("crop_flip") == augmentation(["crop_flip"]) == ("crop_flip",)
    with pytest.raises(ConfigError, match="augmentation must be none or a list of crop_flip, auto"):
        augmentation("crop_flip,rotate")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"partition": {"scheme": "natural"}}, r"partition\.column must be the name of a column"),
        ({"partition": {"column": "writer"}}, r"partition\.column must be .* none otherwise"),
        (
            {"partition": {"scheme": "nid2", "biased_clients": 11}},
            r"biased_clients must be at",
        ),
        ({"partition": {"imbalance_factor": 0.1}}, r"imbalance_factor must be at least 1"),
        ({"feature_skew": {"corruptions": "fog"}}, r"corruptions must be .* noise, blur"),
        ({"feature_skew": {"min_severity": 0.9, "max_severity": 0.5}}, r"at most max_severity"),
        ({"modality": {"without_text": 0.5}}, r"unless guidance\.enabled"),
        ({"modality": {"without_text": 0.6, "without_both": 0.6}}, r"sum to 1 at most"),
        (
            {"modality": {"without_text": 0.5}, "guidance": {"enabled": True, "lambda_con": 0}},
            r"modality.without_text is set, but guidance.lambda_con is 0",
        ),
        (
            {
                "modality": {"without_student": 0.5},
                "guidance": {"enabled": True, "student": {"enabled": True, "weight": 0}},
            },
            r"modality.without_student is set, but the student sets no targets",
        ),
        ({"availability": {"dropout": 1.0}}, r"dropout must be at least 0 and below 1"),
    ],
)
def test_impossible_heterogeneity_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(ExperimentConfig, values)


def test_a_prompt_may_be_chosen_for_images_that_only_a_student_is_distilled_on():
    student = {"enabled": True, "images": "generated"}
    guidance = {"enabled": True, "lambda_kd": 0, "lambda_con": 0, "student": student}
    config = from_dict(ExperimentConfig, {"guidance": guidance | {"prompt": "a drawing of a {}"}})
    assert config.guidance.prompt == "a drawing of a {}"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExperimentConfig(learningrate=0.1), "ExperimentConfig: .* mean learning_rate"),
        (
            lambda: AlgorithmConfig("fedprox", mu=0.1),
            r"has no field mu; of .*fedprox.* it is given as settings=\{'mu': ...\}",
        ),
        (
            lambda: OptimizerConfig(nesterov=True),
            r"no field nesterov; of sgd it is given as settings=\{'sgd': \{'nesterov': ...\}\}",
        ),
        (
            lambda: AlgorithmConfig("fedprox", fedprox={}),
            r"no field fedprox; its settings are given as settings=\{\.\.\.\}",
        ),
        (
            lambda: OptimizerConfig("adam", adam={"beta1": 0.8}),
            r"no field adam; its settings are given as settings=\{'adam': \{\.\.\.\}\}",
        ),
        (
            lambda: AggregationConfig("trimmed_mean", settings={"attackers": 2}),
            r"as in settings=\{'trimmed_mean': \{'attackers': \.\.\.\}\}, got 'attackers'",
        ),
        (lambda: PartitionConfig("dirichlet", alfa=1), "PartitionConfig: .* mean alpha"),
    ],
)
def test_a_constructor_answers_to_a_field_that_does_not_exist(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
