"""The command that draws a partition without training."""

import json

import numpy as np
import pytest

from launch import partition
from semanticfl_jax.config import ExperimentConfig, PartitionConfig
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.simulation import workdir


def config(**fields):
    return ExperimentConfig(
        dataset="digits", num_clients=8, partition=PartitionConfig(scheme="shards", **fields)
    )


def test_it_writes_and_prints_what_it_promises(tmp_path, capsys):
    partition.main(config(), str(tmp_path))
    dealt = Partition.load(tmp_path / "partition.npz")
    summary = json.loads((tmp_path / "partition.json").read_text())
    assert summary["clients"] == dealt.num_clients == 8
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "partition.png",
        "partition_clients.png",
    }
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1,237 images of digits to 8 clients"
    assert lines[1].split() == ["mean", "min", "median", "max"]
    sizes = dealt.sizes
    figures = (sizes.mean(), sizes.min(), np.median(sizes), sizes.max())
    assert lines[2].split() == ["sizes", *(f"{figure:.2f}" for figure in figures)]
    assert lines[6].startswith("Gini of sizes")
    # Training in the same directory is not bound to these settings by it.
    assert not (tmp_path / "config.json").exists()


def test_its_partition_can_be_trained_on(tmp_path):
    partition.main(config(), str(tmp_path / "first"))
    file = str(tmp_path / "first" / "partition.npz")
    partition.main(config(file=file), str(tmp_path / "second"))
    first, second = (
        (tmp_path / name / "partition.json").read_text() for name in ("first", "second")
    )
    assert first == second


def test_what_is_impossible_or_would_spoil_a_run_is_refused(tmp_path):
    with pytest.raises(SemanticFLError, match="shards_per_client must be at most 154"):
        partition.main(config(shards_per_client=1000), str(tmp_path))
    assert not list(tmp_path.iterdir())

    workdir.claim(tmp_path, config(), {})
    with pytest.raises(SemanticFLError, match="shards_per_client was 2, is 3"):
        partition.main(config(shards_per_client=3), str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "run.json"]
