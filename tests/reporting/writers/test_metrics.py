"""Metrics files survive kills and odd numbers; summaries match figures computed by hand."""

import json
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticfl_jax.devices.versions import versions
from semanticfl_jax.files import write_json
from semanticfl_jax.reporting.writers import metrics


def write_rounds(workdir, rounds, kept=0):
    with metrics.MetricsWriter(workdir, metrics.read_metrics(workdir)[:kept]) as writer:
        for number in rounds:
            writer.write({"round": number, "train_loss": 1.0 / number})


def rounds_of(workdir):
    return [row["round"] for row in metrics.read_metrics(workdir)]


def test_each_round_is_on_disk_before_the_next_one(tmp_path):
    writer = metrics.MetricsWriter(tmp_path)
    writer.write({"round": 1, "train_loss": 2.5})
    assert metrics.read_metrics(tmp_path) == [{"round": 1, "train_loss": 2.5}]
    writer.close()


def test_resume_drops_the_rounds_after_the_checkpoint(tmp_path):
    write_rounds(tmp_path, range(1, 6))
    write_rounds(tmp_path, [4, 5, 6], kept=3)
    assert rounds_of(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_new_run_starts_an_empty_file(tmp_path):
    write_rounds(tmp_path, range(1, 6))
    write_rounds(tmp_path, [1])
    assert rounds_of(tmp_path) == [1]


@given(cut=st.integers(min_value=0, max_value=400))
def test_a_file_cut_anywhere_can_be_resumed(tmp_path_factory, cut):
    workdir = tmp_path_factory.mktemp("cut")
    write_rounds(workdir, range(1, 6))
    path = workdir / metrics.METRICS_FILE
    path.write_bytes(path.read_bytes()[:cut])
    whole = rounds_of(workdir)
    assert whole == list(range(1, len(whole) + 1))
    write_rounds(workdir, [len(whole) + 1], kept=len(whole))
    assert rounds_of(workdir) == [*whole, len(whole) + 1]
    assert path.read_text().endswith("}\n")


@pytest.mark.parametrize(
    "damaged", ["half a li", "[" * 100_000, "[1]", "3", '{"train_loss": 1}', '{"round": "x"}']
)
def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path, damaged):
    path = tmp_path / metrics.METRICS_FILE
    path.write_text(f'{{"round": 1}}\n{damaged}\n{{"round": 3}}\n')
    with pytest.raises(ValueError, match=re.escape(str(path)) + ", line 2"):
        metrics.read_metrics(tmp_path)


@pytest.mark.parametrize("number", [2, 1, 0])
def test_rounds_must_go_up(tmp_path, number):
    write_rounds(tmp_path, [1, 2])
    with (
        metrics.MetricsWriter(tmp_path, metrics.read_metrics(tmp_path)) as writer,
        pytest.raises(ValueError, match="round must be above 2"),
    ):
        writer.write({"round": number})


def test_numbers_of_every_library_become_plain_json(tmp_path):
    with metrics.MetricsWriter(tmp_path) as writer:
        writer.write(
            {
                "round": np.int64(1),
                "jax": jnp.float32(0.5),
                "bfloat16": jnp.bfloat16(0.25),
                "numpy": np.float16(2.0),
                "flag": np.bool_(True),
                "array": np.array([1.0, np.nan]),
                "nan": float("nan"),
                "infinite": jnp.float32(-np.inf),
            }
        )

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    line = (tmp_path / metrics.METRICS_FILE).read_text()
    assert json.loads(line, parse_constant=refuse) == {
        "round": 1,
        "jax": 0.5,
        "bfloat16": 0.25,
        "numpy": 2.0,
        "flag": True,
        "array": [1.0, None],
        "nan": None,
        "infinite": None,
    }


def test_summary_by_hand():
    accuracies = {2: 0.1, 4: 0.5, 6: 0.9, 8: 0.9, 10: 0.7}
    rows = [
        {"round": r, "seconds": 100.0 if r == 1 else 2.0, "images_per_second": 10.0 * r}
        | {"bytes_up": 3, "bytes_down": 5}
        | ({"test_accuracy": accuracies[r]} if r in accuracies else {})
        for r in range(1, 11)
    ]
    assert metrics.summarize(rows) == {
        "rounds": 10,
        "final_accuracy": 0.7,
        "best_accuracy": 0.9,
        "best_round": 6,
        "mean_last10_accuracy": pytest.approx(3.1 / 5),
        "train_seconds": pytest.approx(118.0),
        "seconds_per_round": 2.0,
        "images_per_second": 55.0,
        "bytes_up": 30,
        "bytes_down": 50,
    }


@given(st.lists(st.floats(0, 1), min_size=11, max_size=40), st.integers(1, 5))
def test_mean_of_the_last_ten_counts_evaluated_rounds(accuracies, every):
    rows = []
    for accuracy in accuracies:
        rows += [{"round": len(rows) + 1 + skipped} for skipped in range(every - 1)]
        rows.append({"round": len(rows) + 1, "test_accuracy": accuracy})
    summary = metrics.summarize(rows)
    assert math.isclose(summary["mean_last10_accuracy"], np.mean(accuracies[-10:]), abs_tol=1e-12)
    assert summary["best_accuracy"] == max(accuracies)
    assert rows[summary["best_round"] - 1]["test_accuracy"] == max(accuracies)


def test_an_evaluation_that_is_not_finite_is_not_passed_over():
    rows = [{"round": r, "test_accuracy": a} for r, a in enumerate([0.5, 0.6, None], start=1)]
    summary = metrics.summarize(rows)
    assert summary["final_accuracy"] is None and summary["mean_last10_accuracy"] is None
    assert (summary["best_accuracy"], summary["best_round"]) == (0.6, 2)
    # Ten evaluations later it counts no more.
    rows += [{"round": number, "test_accuracy": 0.7} for number in range(4, 14)]
    assert metrics.summarize(rows)["mean_last10_accuracy"] == pytest.approx(0.7)


def test_summary_without_evaluations_or_rows():
    summary = metrics.summarize([{"round": 1, "test_accuracy": None, "seconds": None}])
    assert summary["final_accuracy"] is None and summary["seconds_per_round"] is None
    assert metrics.summarize([])["rounds"] == 0


def test_failed_json_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"accuracy": np.float32(0.5), "lost": math.nan})
    with pytest.raises(TypeError):
        write_json(path, {"accuracy": object()})
    assert json.loads(path.read_text()) == {"accuracy": 0.5, "lost": None}
    assert [each.name for each in tmp_path.iterdir()] == ["summary.json"]


def test_versions_are_those_imported():
    found = versions()
    assert found["numpy"] == np.__version__
    assert set(found) >= {"python", "jax", "jaxlib", "flax", "optax", "semanticfl_jax"}


@pytest.mark.parametrize(
    "tail", [b"\n\n", b"\0" * 50, b"\0\n\0", b"\r\n", b'\n{"round": 4, "tr', b'{"rou\0\0']
)
def test_what_an_editor_or_a_lost_write_leaves_at_the_end_is_no_row(tmp_path, tail):
    rows = b'{"round": 1}\r\n\n{"round": 2, "test_accuracy": Infinity}\n\n{"round": 3}\n'
    (tmp_path / metrics.METRICS_FILE).write_bytes(rows + tail)
    read = metrics.read_metrics(tmp_path)
    assert read == [{"round": 1}, {"round": 2, "test_accuracy": None}, {"round": 3}]


@pytest.mark.parametrize("number", ["2", "1", "0", "-1", "2.5", "true", "null", '"3"', "NaN"])
def test_rows_that_were_edited_out_of_order_are_not_counted_twice(tmp_path, number):
    text = '{"round": 1}\n{"round": 2}\n{"round": ' + number + "}\n"
    (tmp_path / metrics.METRICS_FILE).write_text(text)
    with pytest.raises(
        ValueError, match=r"line 3: not a metrics row .it must have a round above 2"
    ):
        metrics.read_metrics(tmp_path)


@pytest.mark.parametrize("name", ["test_accuracy", "seconds", "bytes_up"])
def test_a_figure_that_is_a_text_is_named(name):
    with pytest.raises(ValueError, match=f"{name} of round 2 must be a number, is 'high'"):
        metrics.summarize([{"round": 1, name: 1}, {"round": 2, name: "high"}])
