"""What a run is given: weights to start from, and objects that do not fit."""

import dataclasses

import flax.linen as nn
import numpy as np
import pytest

import semanticfl_jax as sfl
from tests.api.runs import CONFIG, same, tiny
from tests.federation import CLASSES, TinyNet
from tests.own_vit import ViT


def test_weights_to_start_from(tmp_path, whole):
    config = dataclasses.replace(CONFIG, rounds=1, learning_rate=1e-30)
    run, path = tmp_path / "run", tmp_path / "model.safetensors"
    sfl.run(CONFIG, run, **tiny())
    whole.export(path)
    (run / "model.safetensors").rename(run / "elsewhere")  # then from the newest checkpoint
    tree = {"params": whole.params, "batch_stats": whole.batch_stats}
    for source in (whole.params, tree, whole, whole.model, path, run):
        started = sfl.run(config, init_params=source, **tiny())
        same(started.params, whole.params)
    with pytest.raises(sfl.SemanticFLError, match=r"params/.* must be .* for this"):
        wide = TinyNet(CLASSES, feature_dim=8)
        sfl.run(config, init_params=path, **tiny(model=wide))
    with pytest.raises(sfl.SemanticFLError, match="init_params lacks params/"):
        sfl.run(config, init_params={"other": np.zeros(3)}, **tiny())
    with pytest.raises(FileNotFoundError, match=r"must be a \.safetensors file of Result"):
        sfl.run(config, init_params=tmp_path / "nowhere", **tiny())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"params": {}, "lora": {}}, 'init_params has the collection "lora" beside params'),
        ({"base": {"kernel": np.array([1.0, np.nan])}}, "params/base/kernel has NaN or infinity"),
        ({"params": {}, "batch_stats": {"mean": 1e300}}, "batch_stats/mean has NaN or infinity"),
        ({"base": "weights"}, "params/base must be an array of numbers, got 'weights'"),
    ],
)
def test_weights_that_no_run_can_start_from_are_refused_at_once(given, message):
    with pytest.raises(sfl.SemanticFLError, match=message):
        sfl.Simulation(CONFIG, init_params=given, **tiny())


class Reduced(nn.Module):
    """Logits with an axis too few."""

    how: str

    @nn.compact
    def __call__(self, images):
        logits = nn.Dense(CLASSES)(images.mean((1, 2)))
        return logits.sum(-1) if self.how == "rows" else logits.sum(0)


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"partition": [np.arange(9)]}, {}, "num_clients must be 1, the arrays of indices in"),
        ({"partition": [np.arange(9), np.arange(5)]}, {}, "indices must be used at most once"),
        ({"partition": [[0], [50]]}, {}, "client 1 must have indices from 0 to 49, has 50 to 50"),
        ({"partition": [[], [1]]}, {}, "client 0 must have a list of whole numbers, one at least"),
        ({"partition": {"a": [0], "b": [1]}}, {}, r"got a dict: give list\(partition.values\("),
        (
            {"partition": np.array(["a", "b"] * 25)},
            {},
            r"got values, as of who .*columns=.*natural",
        ),
        ({"partition": [0] * 50}, {}, r"got values, as of who owns each sample"),
        ({"partition": 2}, {}, "must be a list of one array of indices a client, got 2"),
        ({"model": Reduced("rows")}, {}, r"Reduced must return logits \[B, 4\], .*, got \[B\]"),
        ({"model": Reduced("all")}, {}, r"must return logits .*, got \[4\] for a batch of 1"),
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
