"""What a command makes of its arguments, and of a configuration file, before anything is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch import config_files, flags
from semanticfl_jax import ConfigError, ExperimentConfig
from semanticfl_jax.config.methods import parse_seeds

ROOT = Path(__file__).parents[2]


def written(path, content):
    path.write_text(content) if isinstance(content, str) else path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.py", "def get_config(:", r"c[.]py, line 1: invalid syntax"),
        ("c.py", b"x = 1\0", r"c[.]py is no Python file: .*null bytes"),
        ("c.py", "import sys\nsys.exit(0)\n", r"ends the program .sys.exit, status 0"),
        ("c.py", "get_config = {}\n", r"must define get_config"),
        ("c.py", "def get_config():\n    return {}['x']\n", r"c[.]py, line 2: KeyError: 'x'"),
        ("c.py", "import not_there_at_all\n", r"c[.]py, line 1: ModuleNotFoundError"),
        ("c.py", "def get_config(x):\n    return {}\n", r"missing 1 required positional argument"),
        ("c.py", "x = 1\n", r"must define get_config"),
        ("c.py", "def get_config():\n    return None\n", r"must return an ExperimentConfig"),
        ("c.json", '{"rounds": 1, "rounds": 2}', r"'rounds' is there twice"),
        ("c.json", "[" * 100_000, r"is no JSON file"),
        ("c.json", b"\xff\xfe", r"is no JSON file"),
        ("c.json", "", r"is no JSON file"),
        ("c.json", "[]", r"must hold a JSON object"),
    ],
)
def test_a_configuration_file_that_fails_is_named(tmp_path, name, content, message):
    path = written(tmp_path / name, content)
    with pytest.raises(ConfigError, match=f"(?s)^--config=.*{message}"):
        config_files.read_config(path)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = written(tmp_path / "c.json", b'\xef\xbb\xbf{"rounds": 3}')
    assert config_files.read_config(path) == {"rounds": 3}


def test_a_plugin_that_fails_is_named(tmp_path):
    path = written(
        tmp_path / "broken_plugin.py", "import semanticfl_jax\n\nsemanticfl_jax.nothing\n"
    )
    with pytest.raises(ConfigError, match=r"broken_plugin[.]py, line \d+: AttributeError"):
        flags._load_plugins([str(path)])


def test_an_empty_name_of_a_file_does_not_mean_the_default():
    _, file, _ = flags._split(["--config="], ExperimentConfig)
    assert file == ""
    with pytest.raises(ConfigError, match="--config must be a path, got ''"):
        config_files.find_config(file)


def test_of_a_flag_given_twice_the_last_counts_and_it_is_said(capsys):
    arguments = ["--config.rounds=1", "--config=a.py", "--config.rounds=2", "--config", "b.py"]
    rest, file, overrides = flags._split(arguments, ExperimentConfig)
    assert (rest, file, overrides) == ([], "b.py", {"rounds": 2})
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "--config.rounds is given twice; the last, 2, counts",
        "--config is given twice; the last, b.py, counts",
    ]


@pytest.mark.parametrize("given", [[], [""], ["0", "x"], ["-1"], ["1.0"], ["²"]])
def test_seeds_must_be_whole_numbers(given):
    with pytest.raises(ConfigError, match="--seeds must be whole numbers, got"):
        parse_seeds(given)
    assert parse_seeds(["3", "0", "3"]) == [3, 0]


def test_a_plugin_that_starts_jax_finds_it_set_up(tmp_path):
    plugin = tmp_path / "own.py"
    plugin.write_text("import jax\nprint(jax.config.jax_compilation_cache_dir, jax.devices())\n")
    done = run_python("-m", "semanticfl_jax", "train", f"--plugin={plugin}", "--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    first = done.stdout.splitlines()[0]
    assert "xla" in first and first.count("CpuDevice") == 3
    for flag in ("--config", "--workdir", "--plugin", "--[no]debug", "--[no]overwrite"):
        assert f"  {flag}: " in done.stdout


def test_a_command_that_is_interrupted_ends_without_the_interpreters_end(tmp_path):
    code = (
        "import atexit; from launch import flags\n"
        "atexit.register(print, 'at the end')\n"
        "with flags.one_line(False):\n    raise KeyboardInterrupt"
    )
    done = run_python("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def run_python(*arguments, cwd):
    settings = {"JAX_NUM_CPU_DEVICES": "3", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=200,
    )
