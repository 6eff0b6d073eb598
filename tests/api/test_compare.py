"""Methods compared from Python, beside runs of their own."""

import dataclasses
import os
import pickle
import signal

import jax
import numpy as np
import pytest

import semanticfl_jax as sfl
from semanticfl_jax.config import from_dict
from semanticfl_jax.files import read_json_object
from semanticfl_jax.reporting.comparison import Comparison
from tests.api.runs import CONFIG, QUIET, noise_dataset, same, tiny
from tests.federation import CLASSES, MEAN, STD, TinyNet
from tests.own_vit import confidence_penalty

SEEDS = (3, 1)
FEDPROX = dataclasses.replace(CONFIG, algorithm=sfl.AlgorithmConfig("fedprox"))


def of_seed(config, seed):
    return dataclasses.replace(config, seed=seed)


@pytest.fixture(scope="module")
def mine():
    return confidence_penalty(0.1, 0.5)


@pytest.fixture(scope="module")
def found(mine):
    methods = {"plain": CONFIG, "mine": {"algorithm": mine}}
    return sfl.compare(methods, seeds=SEEDS, config=CONFIG, **tiny())


def test_each_run_is_as_it_is_alone(found, mine):
    assert {name: tuple(each) for name, each in found.results.items()} == {
        "plain": SEEDS,
        "mine": SEEDS,
    }
    alone = sfl.run(of_seed(CONFIG, 1), algorithm=mine, **tiny())
    same(found.results["mine"][1].params, alone.params)
    other = found.results["mine"][3]
    assert not all(map(np.array_equal, *map(jax.tree.leaves, (other.params, alone.params))))


def test_the_table_has_means_spreads_and_gains_over_seeds(found):
    last = {
        name: [each[seed].summary["final_accuracy"] for seed in SEEDS]
        for name, each in found.results.items()
    }
    means = {
        name: [each[seed].summary["mean_last10_accuracy"] for seed in SEEDS]
        for name, each in found.results.items()
    }
    gains = 100 * np.subtract(means["mine"], means["plain"])
    assert str(found) == repr(found) == found._repr_markdown_()
    plain, line = (row for row in str(found).splitlines() if row.startswith(("| plain", "| mine")))
    for name, text in {"plain": plain, "mine": line}.items():
        values = 100 * np.array(last[name])
        assert f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" in text
    assert f"{gains.mean():+.2f} ± {gains.std(ddof=1):.2f}" in line
    rows = {(row["method"], row["seed"]): row for row in found.rows}
    assert len(rows) == 4 and rows["plain", 3]["gain_over_fedavg"] is None
    np.testing.assert_allclose(
        [100 * rows["mine", seed]["gain_over_fedavg"] for seed in SEEDS], gains, atol=1e-9
    )


def test_the_figure_has_the_mean_curve_of_each_method(found, tmp_path):
    (axes,) = found.plot(size="column").axes
    assert [line.get_label() for line in axes.lines] == ["plain", "mine"]
    curves = [
        [row["test_accuracy"] for row in run.history] for run in found.results["mine"].values()
    ]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), 100 * np.mean(curves, axis=0))
    assert found.plot()._repr_png_().startswith(b"\x89PNG")
    names = {path.name for path in found.write(tmp_path / "new", formats=("svg",))}
    assert {"comparison.md", "comparison_seeds.csv", "comparison.svg"} <= names
    with pytest.raises(sfl.SemanticFLError, match="size of plots must be of screen, column, page"):
        found.plot(size="wide")


def test_a_workdir_keeps_runs_and_other_seeds_are_added(tmp_path):
    methods, lines = {"fedavg": CONFIG, "prox": FEDPROX}, []
    given = {"workdir": tmp_path / "all", **tiny(say=lines.append)}
    first = sfl.compare(methods, seeds=(0,), **given)
    written = tmp_path / "all" / "prox-seed0" / "config.json"
    assert from_dict(sfl.ExperimentConfig, read_json_object(written)) == FEDPROX
    assert (tmp_path / "all" / "comparison.png").is_file()
    del lines[:]
    second = sfl.compare(methods, seeds=(0, 1), **given)
    assert sum("compiled in" in line for line in lines) == 2  # those of the new seed
    for name in methods:
        same(second.results[name][0].params, first.results[name][0].params)
    # The command reads the same from the directories, under names of its own.
    runs = [f"{name}-seed{seed}" for name in methods for seed in (0, 1)]
    read = Comparison.load([tmp_path / "all" / name for name in runs])
    gains = [row["gain_over_fedavg"] for row in second.rows if row["method"] == "prox"]
    assert list(read.gains_by_seed(read.methods[1]).values()) == gains


def test_seeds_as_one_program_are_those_alone(tmp_path):
    given = {"seeds": (0, 1), **tiny()}
    with pytest.raises(sfl.ConfigError, match="workdir must be given with vmap_seeds"):
        sfl.compare({"prox": FEDPROX}, vmap_seeds=True, **given)
    alone = sfl.compare({"prox": FEDPROX}, **given)
    together = sfl.compare({"prox": FEDPROX}, vmap_seeds=True, workdir=tmp_path, **given)
    assert tuple(together.results["prox"]) == (0, 1)
    for seed, result in together.results["prox"].items():
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            result.params,
            alone.results["prox"][seed].params,
        )


def test_runs_that_diverge_are_named_and_left_out():
    wild = dataclasses.replace(CONFIG, learning_rate=1e30, on_divergence="stop")
    found = sfl.compare({"fedavg": CONFIG, "wild": wild}, seeds=(0,), **tiny())
    assert tuple(found.results) == ("fedavg",)
    assert "wild-seed0 is not compared: it diverged in round 1." in str(found)
    with pytest.raises(sfl.DivergedError, match="no run is left: wild-seed0 is not compared"):
        sfl.compare({"wild": wild}, seeds=(0,), **tiny())


def test_programs_are_kept_for_the_other_seeds(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        sfl.compare({"fedavg": CONFIG}, seeds=(0,), **tiny())
        assert jax.config.jax_compilation_cache_dir is None
        assert any((tmp_path / "semanticfl_jax" / "xla").iterdir())
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_what_cannot_be_trained_is_found_before_anything_is(tmp_path):
    lines = []
    shared = {"seeds": (0, 1), "workdir": tmp_path, **tiny(say=lines.append)}
    wide = {"config": CONFIG, "model": TinyNet(CLASSES + 1)}
    with pytest.raises(sfl.SemanticFLError, match=r"methods\['wide'\]: TinyNet .* logits"):
        sfl.compare({"fedavg": CONFIG, "wide": wide}, **shared)
    numbers = {"config": dataclasses.replace(CONFIG, task="regression"), "dataset": numbers_of()}
    numbers |= {"model": TinyNet(1)}
    with pytest.raises(sfl.ConfigError, match=r"one metric, .* test_accuracy \(fedavg\), test_mse"):
        sfl.compare({"fedavg": CONFIG, "numbers": numbers}, **shared)
    held_out = dataclasses.replace(CONFIG, client_test=sfl.ClientTestConfig(share=0.2))
    with pytest.raises(sfl.ConfigError, match=r"methods\['tested'\]: client_test.share must be 0 "):
        sfl.compare({"fedavg": CONFIG, "tested": held_out}, vmap_seeds=True, **shared)
    assert not lines and not list(tmp_path.iterdir())


def numbers_of():
    images = noise_dataset().train_images
    return sfl.ImageDataset.from_arrays(
        images[:50], images[:50].mean(axis=(1, 2, 3)), images[:9], np.zeros(9), mean=MEAN, std=STD
    )


def test_unlike_data_and_partitions_are_told():
    images, labels = noise_dataset().train_images, noise_dataset().train_labels
    other = sfl.ImageDataset.from_arrays(
        images[::-1], labels, images[:9], labels[:9], mean=MEAN, std=STD
    )
    uneven = [np.arange(10), np.arange(10, 50)]
    methods = {"a": {}, "b": {"dataset": other}, "c": {"partition": uneven}}
    text = str(sfl.compare(methods, config=CONFIG, seeds=(0,), **tiny()))
    assert "a and b were trained on different data." in text
    assert "a and c have different partitions." in text
    assert "dataset=" not in text and "partition.scheme=given" in text
    assert "gain" not in text  # all are FedAvg, and none is called so


def test_of_several_that_are_fedavg_the_one_so_called_is_gained_over(mine):
    named = dataclasses.replace(mine, name="fedavg")
    slow = dataclasses.replace(CONFIG, learning_rate=0.01)
    methods = {"slow": slow, "fedavg": CONFIG, "mine": {"algorithm": named}}
    found = sfl.compare(methods, config=CONFIG, seeds=(0,), **tiny())
    gains = {row["method"]: row["gain_over_fedavg"] for row in found.rows}
    assert gains["fedavg"] is None and gains["slow"] is not None and gains["mine"] is not None


class Interrupts(sfl.Callback):
    """Asks the process to stop, as Ctrl-C does."""

    def on_round(self, simulation, step):
        if step.round == 1:
            os.kill(os.getpid(), signal.SIGINT)


def test_who_stops_a_run_without_a_workdir_is_told_what_is_kept():
    with pytest.raises(sfl.Stopped, match=r"fedavg-seed0: stopped after round \d; without a wor"):
        sfl.compare({"fedavg": CONFIG}, callbacks=lambda: [Interrupts()], seeds=(0,), **tiny())


def test_a_comparison_can_be_kept_in_a_file(found):
    images = noise_dataset().test_images
    found.results["mine"][1].predict(images)  # compiles
    again = pickle.loads(pickle.dumps(found))
    assert str(again) == str(found)
    for result in (found.results["mine"][1], again.results["mine"][1]):
        predicted = result.predict(images)
    np.testing.assert_array_equal(predicted, found.results["mine"][1].predict(images))


class StopsAfter(sfl.Callback):
    """Ends a run after some of its rounds."""

    def __init__(self, rounds):
        self.left = rounds

    def on_round(self, simulation, step):
        self.left -= 1
        if self.left == 0:
            simulation.stop()


def test_each_run_has_callbacks_of_its_own(tmp_path):
    given = {"callbacks": lambda: [StopsAfter(2)], **tiny()}
    found = sfl.compare({"fedavg": CONFIG}, seeds=(0, 1), **given)
    lengths = {seed: len(run.history) for seed, run in found.results["fedavg"].items()}
    assert lengths == {0: 2, 1: 2}
    assert "fedavg-seed1 ended after 2 of 3 rounds: its own code stopped it" in str(found)
    with pytest.raises(sfl.ConfigError, match="callbacks cannot be given with vmap_seeds"):
        sfl.compare({"fedavg": CONFIG}, vmap_seeds=True, workdir=tmp_path, **given)


@pytest.mark.parametrize(
    "methods, options, message",
    [
        ({}, {}, "methods must be a mapping of one at least"),
        ([CONFIG], {}, "methods must be a mapping of one at least"),
        ({"a/b": CONFIG}, {}, "a method's name must be a text of 200 .*, without / and .*'a/b'"),
        ({"": CONFIG}, {}, "a method's name must be a text of 200 bytes at most"),
        ({"$HOME": CONFIG}, {}, "a method's name must be a text of 200 bytes at most"),
        ({"a\n": CONFIG}, {}, "a method's name must be a text of 200 bytes at most"),
        ({"a" * 201: CONFIG}, {}, "a method's name must be a text of 200 bytes at most"),
        (
            {"a": "fedavg"},
            {},
            r"methods\['a'\] must be an ExperimentConfig or a mapping of config,",
        ),
        ({"a": {}}, {}, r"methods\['a'\] has no config; give it one, or config=\.\.\. to all"),
        (
            {"a": {"seed": 1}},
            {},
            r"methods\['a'\]: there is no argument seed; there are config, da",
        ),
        ({"a": {}}, {"config": "digits"}, r"methods\['a'\]: config must be an ExperimentConfig"),
        ({"a": CONFIG}, {"algorithm": "moon"}, r"methods\['a'\]: algorithm must be an Algorithm"),
        ({"a": CONFIG}, {"callbacks": [StopsAfter(1)]}, "callbacks must be a function without arg"),
        ({"a": CONFIG}, {"callbacks": StopsAfter(1)}, "callbacks must be a function without argu"),
        ({"a": CONFIG}, {"callbacks": StopsAfter}, "callbacks must be a function without argum"),
        ({"a": CONFIG}, {"callbacks": lambda: None}, "callbacks must be a function without argum"),
        ({"a": CONFIG}, {"callbacks": lambda run: []}, "callbacks must be a function without arg"),
        ({"a": CONFIG}, {"callbacks": lambda: [StopsAfter]}, r"callbacks must be made, as StopsA"),
        ({"a": CONFIG}, {"rounds": 3}, "sfl.compare has no argument rounds; methods share config"),
        ({"a": CONFIG}, {"seeds": 3}, "seeds must be a sequence of whole numbers, got 3"),
        ({"a": CONFIG}, {"seeds": ()}, "seeds must be one at least, each once, got "),
        ({"a": CONFIG}, {"seeds": (1, 1)}, "seeds must be one at least, each once, got "),
        ({"a": CONFIG}, {"seeds": (-1,)}, "seeds: seed must"),
        ({"a": CONFIG}, {"seeds": (0.5,)}, "seeds must be whole numbers, got 0.5"),
        ({"a": CONFIG}, {"seeds": (True,)}, "seeds: seed must"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(methods, options, message):
    with pytest.raises(sfl.ConfigError, match=message):
        sfl.compare(methods, **QUIET, **options)
