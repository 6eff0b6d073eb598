"""The package in an interpreter of its own: how fast it is imported, what it starts and uses."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


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
        began = time.process_time()
        import semanticfl_jax as sfl
        sfl.ExperimentConfig(), sfl.register_model, sfl.use_all_cores
        print(time.process_time() - began)
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
        assert int(os.environ["PJRT_NPROC"]) == 2 * jax.local_device_count()
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
        from tests.api.runs import *
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
