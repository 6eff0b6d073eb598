"""launch.reproduce: a dry run without JAX; a small table from plan to result, and once more."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from launch import reproduce
from launch.flags import Given
from semanticfl_jax.config import ConfigError, ExperimentConfig
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.reproduction import training
from tests.launch.test_commands import command, output

ROOT = Path(__file__).parents[2]
SMALL = {
    "rounds": 2,
    "local_epochs": 1,
    "model.name": "linear",
    "runtime.num_devices": 1,
    "eval_every": 2,
}


def flag_values(**given):
    values = {
        "table": "digits",
        "scale": "cpu",
        "seeds": ["0"],
        "methods": ["fedavg", "fedprox"],
        "columns": [],
        "jobs": 1,
        "dry_run": False,
        "measure": False,
        "tables": None,
        "plugin": [],
    }
    return types.SimpleNamespace(**{**values, **given})


def call(monkeypatch, directory, settings=SMALL, **given):
    monkeypatch.setattr(reproduce.absl_flags, "FLAGS", flag_values(**given))
    reproduce.main(Given(ExperimentConfig, {}, settings), str(directory))


def test_a_dry_run_needs_no_jax_and_writes_nothing(tmp_path):
    script = (
        "import sys\nfrom semanticfl_jax.__main__ import main\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'jax', 'diffusers', 'matplotlib'} & set(sys.modules)\n"
        "    print('imported', sorted(heavy))\n"
    )
    arguments = ["reproduce", "--table=cifar10_nid1", "--workdir=run", "--dry_run"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert "81: 9 methods, 3 columns, seeds 0, 1, 2; 0 finished, 0 begun" in done.stdout, done
    assert "missing   cifar10 is not in" in done.stdout
    assert "not measured here: 48.3 million training images" in done.stdout
    assert done.stdout.endswith("imported []\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--table=NAME is missing. Known tables:"),
        (["--table=digits", "--config=digits"], "--config is chosen by this command"),
    ],
)
def test_mistakes_are_answered_in_one_line(tmp_path, arguments, message):
    run = command("launch.reproduce", "--workdir=run", *arguments, cwd=tmp_path)
    code, text = output(run)
    assert code == 2 and message in text and "Traceback" not in text


def test_a_table_is_measured_trained_written_and_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    call(monkeypatch, tmp_path)
    text = capsys.readouterr().out
    assert "by a short measurement" in text and "[2/2] nid1_0.2-fedprox-seed0" in text
    assert (tmp_path / "measurement-1" / "summary.json").is_file()
    table = (tmp_path / "table.md").read_text()
    final = {}
    for method in ("fedavg", "fedprox"):
        path = tmp_path / f"nid1_0.2-{method}-seed0" / "summary.json"
        final[method] = 100 * json.loads(path.read_text())["final_accuracy"]
        assert f"| {method} | 1 | {final[method]:.2f} | {final[method]:.2f} |" in table
    gain = final["fedprox"] - final["fedavg"]
    assert f"| {gain:+.2f} |" in table
    assert "Not complete" not in table and "- energy: " in table
    assert (tmp_path / "nid1_0.2" / "comparison.md").is_file()

    # Nothing is left: the same table again, and no further part in the record.
    call(monkeypatch, tmp_path)
    assert (tmp_path / "table.md").read_text() == table
    # Another method joins what is there, and nothing else is trained.
    call(monkeypatch, tmp_path, methods=["fedavg", "fedprox", "feddisco"])
    text = capsys.readouterr().out
    assert "2 finished" in text and "[1/1] nid1_0.2-feddisco-seed0" in text
    assert "by what finished runs took" in text
    parts = json.loads((tmp_path / "reproduction.json").read_text())["parts"]
    assert len(parts) == 2
    with pytest.raises(ConfigError, match="--seeds must be whole numbers, got 'x'"):
        call(monkeypatch, tmp_path, seeds=["0", "x"])
    # A directory with other runs is refused before anything is trained.
    with pytest.raises(ConfigError, match="batch_size was 16, is 8"):
        call(monkeypatch, tmp_path, {**SMALL, "batch_size": 8})


def test_what_is_missing_is_an_error_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(SemanticFLError, match=r"(?s)missing:\n  cifar10 is not in .*data_dir=DIR"):
        call(monkeypatch, tmp_path / "run", table="cifar10_nid2", methods=["fedavg"])
    assert not (tmp_path / "run").exists()


def test_a_student_is_made_by_one_process_before_others_read_it(tmp_path):
    methods = ["fedavg", "student", "student_weight_25", "student_permuted", "student_dim_64"]
    values = flag_values(table="cifar10_nid2", methods=methods)
    table = reproduce.find_table(values)
    runs = training.runs_of(table, {}, [0, 1], tmp_path)
    first, rest = training.with_new_students(runs)
    assert [run.name for run in first] == ["nid2-student-seed0", "nid2-student_dim_64-seed0"]
    assert len(first) + len(rest) == len(runs) == 10
    students = [run.config.guidance.student for run in first]
    assert {student.directory for student in students} == {str(tmp_path / "students")}
