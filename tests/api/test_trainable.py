"""Runs that train a part of the network: `trainable`."""

import dataclasses

import jax
import numpy as np
import pytest

import semanticfl_jax as sfl
from tests.api.runs import CONFIG, same, tiny
from tests.federation import CLASSES, TwoLayers, head_only
from tests.results import require_same

HEAD = dataclasses.replace(CONFIG, rounds=2, trainable="classifier")


def network(**options):
    return tiny(model=TwoLayers(CLASSES), **options)


@pytest.fixture(scope="module")
def pretrained():
    """Weights of the first layer alone."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(12, 5)), rng.normal(size=5)
    return {"base": {"kernel": np.float32(kernel), "bias": np.float32(bias)}}


@pytest.fixture(scope="module")
def result(pretrained, tmp_path_factory):
    directory = tmp_path_factory.mktemp("head") / "run"
    return sfl.run(HEAD, directory, init_params=pretrained, **network())


def test_the_rest_stays_as_given_and_the_classifier_learns(result, pretrained):
    same(result.params["base"], pretrained["base"])
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    head = CLASSES * (5 + 1)
    assert result.summary["num_trained_params"] == head
    assert result.summary["num_params"] == result.num_params == head + 5 * (12 + 1)


def test_only_the_part_travels_and_the_rest_once(result):
    part, statistics, base = 4 * CLASSES * (5 + 1), 4 * 12, 4 * 5 * (12 + 1)
    first, second = result.history
    assert first["bytes_up"] == second["bytes_up"] == 2 * (part + statistics)
    assert second["bytes_down"] == 2 * (part + statistics)
    assert first["bytes_down"] == second["bytes_down"] + 2 * base


def test_a_model_is_exported_whole(result, tmp_path):
    result.export(tmp_path / "model.safetensors")
    again = sfl.load_model(tmp_path / "model.safetensors", TwoLayers(CLASSES))
    same(again.params, result.params)
    images = network()["dataset"].test_images
    np.testing.assert_array_equal(again.predict(images), result.predict(images))
    assert np.mean(again.predict(images) == network()["dataset"].test_labels) == pytest.approx(
        result.summary["final_accuracy"]
    )


def test_a_run_goes_on_bit_for_bit_and_on_other_devices(result, pretrained, tmp_path):
    given = {"init_params": pretrained, **network()}
    with sfl.Simulation(HEAD, workdir=tmp_path, **given) as simulation:
        next(iter(simulation))
        same(simulation.result().params["base"], pretrained["base"])
    with pytest.raises(sfl.SemanticFLError, match="has not ended: its checkpoints lack the rest"):
        sfl.run(HEAD, init_params=tmp_path, **network())
    require_same(sfl.run(HEAD, tmp_path, **given), result)
    config = HEAD.with_runtime(num_devices=2)
    spread = sfl.run(config, **given)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        spread.params,
        result.params,
    )


def test_seeds_as_one_program_have_their_own_rest(tmp_path):
    given = network()
    del given["say"], given["progress"]
    seeds = {"seeds": (0, 1), "progress": False, "say": None, **given}
    alone = sfl.compare({"head": HEAD}, **seeds)
    together = sfl.compare({"head": HEAD}, vmap_seeds=True, workdir=tmp_path, **seeds)
    bases = []
    for seed, one in alone.results["head"].items():
        other = together.results["head"][seed]
        same(one.params["base"], other.params["base"])
        bases.append(one.params["base"]["kernel"])
        losses = [each.history[-1]["test_loss"] for each in (one, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert np.any(bases[0] != bases[1])


def test_clients_tests_and_fine_tuning_use_the_whole_and_train_the_part(pretrained):
    config = dataclasses.replace(
        HEAD,
        algorithm=sfl.AlgorithmConfig("fedper"),
        client_test=sfl.ClientTestConfig(share=0.3, fine_tune_steps=2),
    )
    found = sfl.run(config, init_params=pretrained, **network()).history
    # The same head begins: where it is the only layer, all parameters are trained.
    every, constant = dataclasses.replace(config, trainable="all"), network()
    constant["model"] = head_only(pretrained["base"])
    reference = sfl.run(every, **constant).history
    figures = [
        {name: row[name] for name in row if "client" in name} for row in (found[-1], reference[-1])
    ]
    assert len(figures[0]) > 5
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        (("hed",), r"trainable must name layers of the model \(base, head\), got 'hed'"),
        (("mean",), r"trainable must name layers with parameters, got \['mean'\]"),
        ((), "trainable must be one layer at least"),
    ],
)
def test_names_that_are_not_there_are_refused(trainable, message):
    with pytest.raises(sfl.SemanticFLError, match=message):
        config = dataclasses.replace(HEAD, trainable=trainable)
        sfl.run(config, **network())


def test_what_nobody_trains_must_be_given(pretrained):
    head = {"head": {"kernel": np.zeros((5, CLASSES)), "bias": np.zeros(CLASSES)}}
    with pytest.raises(sfl.SemanticFLError, match="init_params lacks params/base/bias"):
        sfl.run(HEAD, init_params=head, **network())
    with pytest.raises(sfl.SemanticFLError, match="init_params lacks params/head/bias"):
        config = dataclasses.replace(HEAD, trainable="all")
        sfl.run(config, init_params=pretrained, **network())


def test_a_classifier_of_other_classes_is_drawn_and_spoken_of(pretrained):
    head = {"kernel": np.zeros((5, CLASSES + 3)), "bias": np.zeros(CLASSES + 3)}
    lines, given = [], network()
    given["say"] = lines.append
    simulation = sfl.Simulation(HEAD, init_params={**pretrained, "head": head}, **given)
    drawn = sfl.Simulation(HEAD, init_params=pretrained, **given)
    same(simulation.state.model.params, drawn.state.model.params)
    assert (
        "init_params has in another shape head/bias ([7] there), head/kernel ([5, 7] there): drawn "
        "by the seed, as what trainable names may be" in lines
    )
    assert "init_params lacks head/bias, head/kernel: drawn by" in "".join(lines)
    wide = {"kernel": np.zeros((12, 6)), "bias": np.zeros(6)}
    with pytest.raises(sfl.SemanticFLError, match=r"params/base/bias must be \[5\] for this model"):
        sfl.Simulation(HEAD, init_params={"base": wide, "head": head}, **given)


def test_all_layers_by_name_are_all():
    named = dataclasses.replace(HEAD, trainable=("base", "head"))
    every = dataclasses.replace(HEAD, trainable="all")
    require_same(sfl.run(named, **network()), sfl.run(every, **network()))
