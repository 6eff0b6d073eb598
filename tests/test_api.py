"""The Python interface as a researcher uses it: own data, model, algorithm; threads; results."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semanticfl_jax as sfl
from semanticfl_jax.algorithms.aggregators import mean
from tests.federation import CLASSES, MEAN, STD, TinyNet
from tests.own_vit import ViT, confidence_penalty, stripes

ROOT = Path(__file__).parents[1]
CONFIG = sfl.ExperimentConfig(
    num_clients=2,
    clients_per_round=2,
    rounds=3,
    local_epochs=1,
    batch_size=8,
    learning_rate=0.05,
    augmentation=(),
    runtime=sfl.RuntimeConfig(num_devices=1),
)
HALVES = [np.arange(24), np.arange(24, 48)]
QUIET = {"progress": False, "say": None}


@pytest.fixture(scope="module")
def result():
    """An own ViT on own arrays, two clients by lists, an own algorithm."""
    return sfl.run(
        CONFIG,
        dataset=stripes(),
        partition=HALVES,
        model=ViT(2),
        algorithm=confidence_penalty(0.1, 0.5),
        **QUIET,
    )


def test_a_model_data_partition_and_algorithm_of_ones_own(result):
    vit = ViT(2).init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    assert result.num_params == sum(x.size for x in jax.tree.leaves(vit))
    assert result.summary["num_params"] == result.num_params
    assert result.summary["algorithm"] == "own_entropy" and result.summary["model"] == "ViT"
    assert [row["round"] for row in result.history] == [1, 2, 3]
    assert result.workdir is None and result.batch_stats == {}


def test_predictions_are_the_networks(result):
    dataset = stripes()
    images = (dataset.test_images / 255 - np.array(dataset.mean)) / np.array(dataset.std)
    logits = ViT(2).apply({"params": result.params}, images.astype(np.float32))
    np.testing.assert_allclose(result.logits(dataset.test_images), logits, rtol=1e-4, atol=1e-5)
    predicted = result.predict(dataset.test_images)
    assert predicted.dtype == np.int32
    np.testing.assert_array_equal(predicted, np.argmax(logits, axis=-1))
    accuracy = np.mean(predicted == dataset.test_labels)
    assert accuracy == pytest.approx(result.summary["final_accuracy"])
    assert len(result.predict(dataset.test_images[:0])) == 0
    assert result.logits(dataset.test_images[:0]).shape == (0, 2)
    with pytest.raises(sfl.SemanticFLError, match=r"images must be uint8 \[n, 8, 8, 3\]"):
        result.predict(dataset.test_images / 255)


class ColourMeans(nn.Module):
    """The mean of each channel, and a linear classifier of them."""

    @nn.compact
    def __call__(self, x, train=False):
        means = x.mean(axis=(1, 2))
        return sfl.Outputs(nn.Dense(2)(means), means)


def test_features_are_what_the_classifier_reads(result):
    dataset = stripes()
    found = sfl.Simulation(CONFIG, dataset=dataset, partition=HALVES, model=ColourMeans(), **QUIET)
    seen = found.result().features(dataset.test_images)
    expected = (dataset.test_images / 255 - np.array(dataset.mean)) / np.array(dataset.std)
    np.testing.assert_allclose(seen, expected.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    with pytest.raises(sfl.SemanticFLError, match="ViT returns no features"):
        result.features(dataset.test_images)


def test_an_exported_model_predicts_the_same(result, tmp_path):
    path, images = tmp_path / "model.safetensors", stripes().test_images
    result.export(path)
    loaded = sfl.load_model(path, model=ViT(2))
    np.testing.assert_array_equal(loaded.logits(images), result.logits(images))
    assert loaded.class_names == ("rows", "columns")
    with pytest.raises(sfl.SemanticFLError, match="the weights of ViT, a module of your own"):
        sfl.load_model(path)
    with pytest.raises(sfl.SemanticFLError, match=r"must be \[3\] for this model, is \[2\]"):
        sfl.load_model(path, model=ViT(3))
    with pytest.raises(sfl.SemanticFLError, match=r"writes a \.safetensors file"):
        result.export(tmp_path / "model.bin")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(sfl.SemanticFLError, match="is damaged"):
        sfl.load_model(path, model=ViT(2))


def noise_dataset():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (70, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(70) % CLASSES
    return sfl.ImageDataset.from_arrays(
        images[:50], labels[:50], images[50:], labels[50:], mean=MEAN, std=STD
    )


def tiny(**options):
    """Arguments of a run of the tiny network on noise."""
    partition = [np.arange(25), np.arange(25, 50)]
    return {"dataset": noise_dataset(), "partition": partition, "model": TinyNet(CLASSES)} | {
        **QUIET,
        **options,
    }


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def whole():
    """Three rounds at once."""
    return sfl.run(CONFIG, **tiny())


def without_times(history):
    drop = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in drop} for row in history]


def test_iterating_is_the_same_run_and_can_be_left_and_taken_up(whole):
    simulation = sfl.Simulation(CONFIG, **tiny())
    for step in simulation:
        assert int(simulation.state.round) == step.round == simulation.round
        if step.round == 1:
            break
    result = simulation.run(1)
    assert simulation.round == 2 and len(result.history) == 2
    assert [step.round for step in simulation] == [3]
    assert list(simulation) == []
    same(simulation.result().params, whole.params)
    assert without_times(simulation.history) == without_times(whole.history)


def test_callbacks_hear_of_everything_in_order():
    heard = []

    class Listen(sfl.Callback):
        def on_start(self, simulation):
            heard.append("start")

        def on_round(self, simulation, step):
            heard.append((step.round, step.evaluated))

        def on_evaluation(self, simulation, step):
            heard.append(f"accuracy {step.round}")
            assert 0 <= step.metrics["test_accuracy"] <= 1

        def on_end(self, simulation):
            heard.append("end")

        def close(self):
            heard.append("close")

    config = sfl.ExperimentConfig(**{**vars(CONFIG), "eval_every": 2})
    sfl.run(config, callbacks=[Listen()], **tiny())
    rounds = [(1, False), (2, True), "accuracy 2", (3, True), "accuracy 3"]
    assert heard == ["start", *rounds, "end", "close"]


def test_a_callback_that_fails_is_the_runs_failure_and_others_are_closed():
    closed = []

    class Fail(sfl.Callback):
        def on_round(self, simulation, step):
            raise ZeroDivisionError

        def close(self):
            closed.append(True)

    with pytest.raises(ZeroDivisionError):
        sfl.run(CONFIG, callbacks=[Fail()], **tiny())
    assert closed == [True]


def test_a_run_in_a_thread_beside_another_is_the_same(whole):
    results = []

    def train():
        results.append(sfl.run(CONFIG, **tiny()))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    same(results[0].params, whole.params)


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
    with pytest.raises(sfl.ConfigError, match=r"batch_size was 8, is 9"):
        sfl.run(dataclasses.replace(more, batch_size=9), tmp_path, **tiny())


def test_weights_to_start_from(tmp_path, whole):
    config = dataclasses.replace(CONFIG, rounds=1, learning_rate=1e-30)
    run, path = tmp_path / "run", tmp_path / "model.safetensors"
    sfl.run(CONFIG, run, **tiny())
    whole.export(path)
    (run / "model.safetensors").rename(run / "elsewhere")  # then from the newest checkpoint
    tree = {"params": whole.params, "batch_stats": whole.batch_stats}
    for source in (whole.params, tree, path, run):
        started = sfl.run(config, init_params=source, **tiny())
        same(started.params, whole.params)
    with pytest.raises(sfl.SemanticFLError, match=r"params/.* must be .* for this"):
        wide = TinyNet(CLASSES, feature_dim=8)
        sfl.run(config, init_params=path, **tiny(model=wide))
    with pytest.raises(sfl.SemanticFLError, match="init_params lacks params/"):
        sfl.run(config, init_params={"other": np.zeros(3)}, **tiny())
    with pytest.raises(FileNotFoundError, match=r"must be a \.safetensors file or"):
        sfl.run(config, init_params=tmp_path / "nowhere", **tiny())


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"partition": [np.arange(9)]}, {}, "num_clients must be 1, the arrays of indices in"),
        ({"partition": [np.arange(9), np.arange(5)]}, {}, "indices must be used at most once"),
        ({"partition": [[0], [50]]}, {}, "client 1 must have indices from 0 to 49, has 50 to 50"),
        ({"partition": [[], [1]]}, {}, "client 0 must have a list of whole numbers, one at least"),
        ({"model": TinyNet(3)}, {}, r"TinyNet must return logits \[B, 4\], one for each class"),
        ({"model": TinyNet}, {}, r"must be an instance of a Flax \(Linen\) module"),
        (
            {"model": ViT(CLASSES)},
            {"algorithm": sfl.AlgorithmConfig("moon")},
            "moon needs the model's features, which ViT does not return",
        ),
        (
            {"model": ViT(CLASSES)},
            {"algorithm": sfl.AlgorithmConfig("fedrcl")},
            "fedrcl needs the model's levels, which ViT does not return",
        ),
        (
            {"model": ViT(CLASSES)},
            {"algorithm": sfl.AlgorithmConfig("fedrcl", settings={"levels": (0,)})},
            "fedrcl needs the model's levels, which ViT does not return",
        ),
        (
            {"model": ViT(CLASSES)},
            {
                "algorithm": sfl.AlgorithmConfig("feddifrc"),
                "guidance": sfl.GuidanceConfig(anchor_source="generated"),
            },
            "algorithm.name=feddifrc is not possible with this model",
        ),
        (
            {"model": ViT(CLASSES)},
            {"guidance": sfl.GuidanceConfig(enabled=True, anchor_source="generated")},
            "guidance.enabled=true is not possible with this model",
        ),
        (
            {},
            {"algorithm": sfl.AlgorithmConfig("fedrcl", settings={"levels": (0, 5)})},
            "algorithm.fedrcl.levels must be from 0 to 0 with this model",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_compiles(options, changes, message):
    config = sfl.ExperimentConfig(**{**vars(CONFIG), **changes})
    with pytest.raises(sfl.SemanticFLError, match=message):
        sfl.run(config, **tiny(**options))


def script(code, cwd, **environment):
    """Run code in an interpreter of its own: standard output and error."""
    given = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "PJRT_NPROC")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=cwd,
        env={**given, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_importing_is_quick_and_starts_no_jax(tmp_path):
    code = """
        import sys, time
        began = time.perf_counter()
        import semanticfl_jax as sfl
        sfl.ExperimentConfig(), sfl.register_model, sfl.use_all_cores
        print(time.perf_counter() - began)
        assert not {"jax", "numpy", "flax"} & set(sys.modules)
        assert set(sfl.__all__) <= set(dir(sfl))
        try:
            sfl.nothing
        except AttributeError as error:
            print(error)
    """
    seconds = []
    for _ in range(3):
        out, _ = script(code, tmp_path)
        seconds.append(float(out.splitlines()[0]))
        assert "has no attribute 'nothing'" in out
    assert min(seconds) < 0.3


def test_cores_are_used_if_asked_for_in_time(tmp_path):
    code = """
        import semanticfl_jax as sfl
        print(sfl.use_all_cores())
        import jax, os
        assert jax.local_device_count() == len(os.sched_getaffinity(0))
        assert int(os.environ["PJRT_NPROC"]) == jax.local_device_count() + 1
    """
    assert script(code, tmp_path)[0].split() == ["True"]
    code = """
        import jax
        jax.numpy.ones(3) + 1
        import semanticfl_jax as sfl
        print(sfl.use_all_cores(), jax.local_device_count())
    """
    out, error = script(code, tmp_path)
    if len(os.sched_getaffinity(0)) > 1:
        assert out.split() == ["False", "1"]
        assert "JAX has started already, with 1 device" in error


def test_a_started_interpreter_says_what_it_uses_and_how_to_get_more(tmp_path):
    code = """
        import jax
        jax.numpy.ones(3) + 1
        from tests.test_api import *
        lines = []
        config = sfl.ExperimentConfig(**{**vars(CONFIG), "runtime": sfl.RuntimeConfig()})
        sfl.Simulation(config, **tiny(say=lines.append))
        print("\\n".join(lines))
    """
    out, _ = script(code, tmp_path, JAX_PLATFORMS="cpu")
    assert "1 x cpu" in out
    if len(os.sched_getaffinity(0)) > 1:
        assert "call semanticfl_jax.use_all_cores() before JAX starts" in out


def test_help_starts_no_jax(tmp_path):
    code = """
        import runpy, sys
        sys.argv = ["train", "--help"]
        try:
            runpy.run_module("launch.train", run_name="__main__")
        except SystemExit as end:
            assert end.code == 0
        assert not {"jax", "numpy", "flax"} & set(sys.modules)
    """
    out, _ = script(code, tmp_path)
    assert "Algorithms (--config.algorithm.name=NAME)" in out
