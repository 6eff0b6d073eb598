"""Labels of methods: read at a glance, all different, and the same beside other methods."""

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticfl_jax.config import ConfigError, ExperimentConfig, to_dict
from semanticfl_jax.config.fields import default_of, flatten
from semanticfl_jax.config.methods import parse_methods, plan_runs
from semanticfl_jax.config.overrides import parse
from semanticfl_jax.reporting.labels import algorithm_label, label_methods, method_label
from semanticfl_jax.reporting.runs import tells_methods_apart

TOP_K = "aggregation.transforms=top_k aggregation.top_k"
CENTRAL = "model.norm=group privacy.name=central privacy"
STUDENT = "semanticfl guidance.student.enabled=true guidance.student"


def configs_of(text):
    """The configurations of methods as `--methods` takes them, as plain values."""
    return [to_dict(config) for config in plan_runs({}, {}, parse_methods(text), [0]).values()]


def fields_of(config):
    return {name: value for name, value in flatten(config) if tells_methods_apart(name)}


def labels_of(text):
    return label_methods([fields_of(config) for config in configs_of(text)])


def test_what_is_added_is_named_with_the_settings_that_are_not_the_default():
    assert labels_of(
        f"fedavg; fedavg {TOP_K}.share=0.1; fedavg {TOP_K}.share=0.01; "
        "fedavg aggregation.aggregator=majority_sign; "
        "fedavg aggregation.transforms=clip,top_k aggregation.clip.max_norm=3 "
        "aggregation.top_k.share=0.1 aggregation.top_k.feedback=false; "
        "fedavg aggregation.aggregator=krum attack.name=sign_flip attack.share=0.4; "
        "fedavg asynchronous.enabled=true asynchronous.concurrency=5"
    ) == [
        "fedavg",
        "fedavg + top_k (share=0.1)",
        "fedavg + top_k",
        "fedavg + majority_sign",
        "fedavg + clip (max_norm=3) + top_k (share=0.1, feedback=false)",
        "fedavg + krum + attack (sign_flip, share=0.4)",
        "fedavg + asynchronous (concurrency=5)",
    ]
    assert labels_of(
        f"fedavg; fedavg {CENTRAL}.noise_multiplier=0.5; fedavg {CENTRAL}.target_epsilon=2"
    ) == [
        "fedavg (norm=batch)",
        "fedavg + privacy (central, noise_multiplier=0.5)",
        "fedavg + privacy (central, target_epsilon=2)",
    ]


def test_a_sweep_tells_every_value_and_an_ablation_what_was_changed():
    assert labels_of("moon; moon learning_rate=0.1; moon learning_rate=1") == [
        "moon (learning_rate=0.01)",
        "moon (learning_rate=0.1)",
        "moon (learning_rate=1)",
    ]
    assert labels_of("semanticfl; semanticfl guidance.kd=l2; semanticfl augmentation=none") == [
        "semanticfl",
        "semanticfl (kd=l2)",
        "semanticfl (augmentation=none)",
    ]


def test_settings_stand_behind_the_word_they_belong_to_beside_its_control():
    assert labels_of(
        f"{STUDENT}.weight=2 learning_rate=0.1; {STUDENT}.weight=5; {STUDENT}.control=permuted; "
        f"{STUDENT}.control=permuted guidance.student.weight=1; "
        "fedprox guidance.enabled=true guidance.anchors=shuffled; "
        "fedprox guidance.enabled=true guidance.anchors=shuffled guidance.kd=l2"
    ) == [
        "semanticfl (learning_rate=0.1) + student (weight=2)",
        "semanticfl (learning_rate=0.01) + student (weight=5)",
        "semanticfl + student (permuted, weight=5)",
        "semanticfl + student (permuted, weight=1)",
        "fedprox + guidance (shuffled anchors, kd=kl)",
        "fedprox + guidance (shuffled anchors, kd=l2)",
    ]


def test_a_student_that_sets_no_targets_is_told_from_one_that_does():
    alone = "fedavg guidance.enabled=true guidance.lambda_kd=0 guidance.lambda_con=0 "
    student = f"{alone} guidance.student.enabled=true guidance.student"
    methods = f"{student}.weight=5; {student}.weight=0; {student}.control=start_only"
    assert labels_of(methods) == [
        "fedavg + student",
        "fedavg + student (no targets)",
        "fedavg + student (start_only)",
    ]


def test_a_name_is_as_long_as_it_takes_to_know_the_field():
    assert labels_of(
        "fedavg; fedavg model.name=cnn; fedavg model.width=16; fedavg optimizer.name=adam; "
        "semanticfl; semanticfl guidance.maps=up1; semanticfl batch_size=8; "
        "fedavg algorithm.server_momentum=0.5 algorithm.server_optimizer=momentum"
    ) == [
        "fedavg",
        "fedavg (model.name=cnn)",
        "fedavg (width=16)",
        "fedavg (optimizer.name=adam)",
        "semanticfl",
        "semanticfl (maps=up1)",
        "semanticfl (batch_size=8)",
        "fedavg (server_optimizer=momentum, server_momentum=0.5)",
    ]


def test_a_run_alone_is_named_by_its_words():
    (config,) = configs_of(
        f"fedprox {TOP_K}.share=0.5 guidance.enabled=true guidance.anchor_source=oracle"
    )
    assert algorithm_label(config) == "fedprox + guidance (oracle anchors, not private)"
    assert method_label(config) == f"{algorithm_label(config)} + top_k"
    assert label_methods([fields_of(config)]) == [method_label(config)]
    assert method_label({}) == "unknown"


def test_fields_that_a_run_lacks_are_told_where_nothing_else_differs():
    (config,) = map(fields_of, configs_of("fedavg"))
    older = {name: value for name, value in config.items() if not name.startswith("privacy.")}
    one = {name: value for name, value in config.items() if name != "weight_decay"}
    assert label_methods([config, older, one]) == [
        "fedavg",
        "fedavg (without privacy.delta and 5 more)",
        "fedavg (without weight_decay)",
    ]


#: Each is a method of its own.
MANY = configs_of(
    "; ".join(
        [
            "fedavg; fedprox; moon; feddifrc; feddifrc guidance.enabled=true; semanticfl",
            *(f"{name} learning_rate=0.1" for name in ("fedavg", "moon", "semanticfl")),
            "fedavg learning_rate=0.1 momentum=0.5; fedavg weight_decay=0.1; fedavg rounds=7",
            "fedprox algorithm.fedprox.mu=0.5; fedprox algorithm.fedprox.mu=5 momentum=0.5",
            f"fedavg {TOP_K}.share=0.1; fedavg {TOP_K}.share=0.2; fedavg {TOP_K}.feedback=false",
            "fedavg aggregation.transforms=random_k aggregation.random_k.share=0.1",
            "fedavg aggregation.transforms=clip,qsgd; fedavg aggregation.transforms=qsgd,clip",
            "fedavg aggregation.aggregator=krum; fedavg aggregation.aggregator=median",
            "fedavg attack.name=sign_flip; fedavg attack.name=gaussian attack.gaussian.spread=2",
            f"fedavg {CENTRAL}.noise_multiplier=1; fedavg {CENTRAL}.noise_multiplier=2",
            f"moon {CENTRAL}.noise_multiplier=1 privacy.central.clip=0.1",
            "fedavg model.name=cnn; fedavg model.name=linear model.norm=batch",
            "fedavg dataset=cifar100 augmentation=none; fedavg partition.scheme=shards",
            f"{STUDENT}.weight=2; {STUDENT}.weight=3; {STUDENT}.control=permuted",
            "semanticfl guidance.anchors=shuffled; semanticfl guidance.maps=up1,up2",
        ]
    )
)
FIELDS = list(map(fields_of, MANY))
SOME = st.lists(st.sampled_from(range(len(MANY))), unique=True, min_size=1, max_size=8)


@settings(deadline=None)
@given(SOME)
def test_labels_are_all_different_in_any_order_and_begin_with_the_method_s_words(places):
    labels = label_methods([FIELDS[place] for place in places])
    assert len(set(labels)) == len(labels)
    assert labels[::-1] == label_methods([FIELDS[place] for place in places[::-1]])
    for place, label in zip(places, labels, strict=True):
        words = [word.partition(" (")[0] for word in method_label(MANY[place]).split(" + ")]
        assert [word.partition(" (")[0] for word in label.split(" + ")] == words


@settings(deadline=None, max_examples=15)
@given(SOME)
def test_methods_of_another_algorithm_change_no_label(places):
    alone = label_methods([FIELDS[place] for place in places])
    others = [
        fields
        for fields, config in zip(FIELDS, MANY, strict=True)
        if algorithm_label(config) not in {algorithm_label(MANY[place]) for place in places}
    ]
    assert label_methods([*others, *(FIELDS[place] for place in places)])[len(others) :] == alone


NAMES = ("algorithm.name", "aggregation.aggregator", "aggregation.transforms", "privacy.name")
NAMES += ("privacy.delta", "aggregation.a.x", "aggregation.b.x", "x", "a.x", "guidance.enabled")
VALUES = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from([1.0, 0.5])
VALUES |= st.sampled_from(["a", "b", "a, x=1", "1", "none", "privacy", "a #2"])
VALUES |= st.lists(st.sampled_from(["a", "b"]), max_size=2)


@given(st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES), min_size=2, max_size=5))
def test_labels_of_configurations_that_no_run_writes_are_different_too(methods):
    different = {repr(sorted(fields.items())): fields for fields in methods}
    labels = label_methods(list(different.values()))
    assert len(set(labels)) == len(different)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("guidance.prompt", "an {} (old, faded) photo"),
        ("guidance.maps", "up1,up2"),
        ("guidance.student.init", "false"),
        ("augmentation", "none"),
        ("learning_rate", "1e-05"),
        ("momentum", "0"),
        ("clip_norm", "3"),
        ("batch_size", "7"),
    ],
)
def test_values_are_written_as_the_command_line_takes_them(field, text):
    fields = dict(flatten(to_dict(ExperimentConfig())))
    value = parse(ExperimentConfig, field, text)
    value = list(value) if isinstance(value, tuple) else value
    _, label = label_methods([fields, {**fields, field: value}])
    assert label.partition("=")[2] == f"{shlex.quote(text)})"


def test_a_default_is_found_by_its_dotted_name():
    assert default_of(ExperimentConfig, "learning_rate") == ExperimentConfig().learning_rate
    assert default_of(ExperimentConfig, "augmentation") == ["crop_flip"]
    assert default_of(ExperimentConfig, "guidance.student.control") == "none"
    assert default_of(ExperimentConfig, "aggregation.top_k.share") == 0.01
    for path in ("nothing", "algorithm.moon.nothing", "aggregation.nothing.share", "seed.more"):
        with pytest.raises(ConfigError, match=f"no field {path}"):
            default_of(ExperimentConfig, path)
