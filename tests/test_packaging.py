"""The wheel as users get it, and the command that it installs."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import semanticfl_jax
from semanticfl_jax.__main__ import commands
from tests import fresh_install
from tests.launch.test_commands import command, output

ROOT = Path(__file__).parents[1]
COMMANDS = commands(ROOT / "launch")
#: A user's own module of that name; importing it must not happen.
THEIRS = "raise SystemExit('this is the launch.py of the user')\n"


def test_commands_are_the_modules_that_can_be_run():
    assert {"train", "compare", "report", "benchmark", "extract_anchors"} <= {*COMMANDS}
    assert not {"__init__", "flags", "distributed"} & {*COMMANDS}
    assert all(COMMANDS.values())


@pytest.mark.parametrize(("arguments", "status"), [((), 2), (("--help",), 0)])
def test_help_lists_the_commands(tmp_path, arguments, status):
    code, text = output(command("semanticfl_jax", *arguments, cwd=tmp_path))
    assert code == status
    for name, line in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", text, re.MULTILINE)


def test_an_unknown_command_is_named(tmp_path):
    code, text = output(command("semanticfl_jax", "trian", cwd=tmp_path))
    assert code == 2
    assert text.startswith("error: 'trian' is not a command")


def test_help_loads_nothing_heavy():
    script = (
        "import sys\nfrom semanticfl_jax import __main__\n"
        "sys.argv[1:] = ['--help']\n__main__.main()\n"
        "heavy = {'jax', 'numpy', 'absl', 'ml_collections'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_a_command_in_a_clone_is_the_same_as_the_module(tmp_path):
    (tmp_path / "launch.py").write_text(THEIRS)
    arguments = ("train", "--workdir=run", "--config=nothing")
    code, text = output(command("semanticfl_jax", *arguments, cwd=tmp_path))
    assert code == 2
    assert text.startswith("error: --config=nothing: no such file. Installed: audit")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The unpacked wheel."""
    pytest.importorskip("setuptools", minversion="77")
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    for name in ("semanticfl_jax", "launch"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    assert f"-{semanticfl_jax.__version__}-" in path.name
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_has_one_top_level_package(wheel):
    found = {path.name for path in wheel.iterdir()}
    assert found == {"semanticfl_jax", f"semanticfl_jax-{semanticfl_jax.__version__}.dist-info"}


def test_the_wheel_has_every_file_of_the_package(wheel):
    def files(folder):
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
        return {name for name in found if (folder / name).is_file() and "__pycache__" not in name}

    ours = files(ROOT / "semanticfl_jax")
    ours |= {f"launch/{name}" for name in files(ROOT / "launch")}
    assert files(wheel / "semanticfl_jax") == ours
    assert "py.typed" in ours and "data/sources/checksums.tsv" in ours
    assert "diffusion/tiny_sd/unet/diffusion_flax_model.msgpack" in ours
    assert "launch/configs/digits.py" in ours and "reproduction/tables.toml" in ours


def test_the_wheel_names_the_command(wheel):
    (metadata,) = wheel.glob("*.dist-info")
    entries = configparser.ConfigParser()
    entries.read(metadata / "entry_points.txt")
    assert dict(entries["console_scripts"]) == {"semanticfl": "semanticfl_jax.__main__:main"}


def installed(wheel, *arguments, cwd):
    """Exit status and output of a module of the wheel, beside a launch.py of the user's."""
    (cwd / "launch.py").write_text(THEIRS)
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "start", [("semanticfl_jax", "train"), ("semanticfl_jax.launch.train",)], ids=" ".join
)
def test_the_wheels_commands_run_beside_a_users_launch_py(wheel, tmp_path, start):
    arguments = ("--workdir=run", "--config=nothing")
    code, text = installed(wheel, *start, *arguments, cwd=tmp_path)
    assert code == 2
    assert text.startswith("error: --config=nothing: no such file. Installed: audit")


def test_configurations_do_not_import_launch():
    for path in (ROOT / "launch" / "configs").glob("*.py"):
        assert not re.search(r"^(from|import) launch\b", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize("config", ["digits", "shards"])
def test_the_wheels_configurations_load_beside_a_users_launch_py(wheel, tmp_path, config):
    arguments = ("--workdir=run", f"--config={config}", "--config.seed=x")
    code, text = installed(wheel, "semanticfl_jax", "train", *arguments, cwd=tmp_path)
    assert code == 2
    assert text.startswith("error: seed must be a whole number, got 'x'")


# Of releases.


def releasable(folder):
    """Exit status and output of the check in a small repository with our Makefile."""
    done = subprocess.run(
        ["make", "--no-print-directory", "releasable"], cwd=folder, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(not (shutil.which("make") and shutil.which("git")), reason="needs make and git")
def test_what_cannot_be_released_is_refused(tmp_path):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def commit(changes):
        (tmp_path / "CHANGELOG.md").write_text(changes)
        git("add", "-A")
        git("commit", "--quiet", "-m", "a")

    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "semanticfl_jax").mkdir()
    (tmp_path / "semanticfl_jax" / "__init__.py").write_text('__version__ = "1.2.0"\n')
    git("init", "--quiet")
    commit("## [Unreleased]\n\n## [1.2.0]\n- All.\n")
    assert releasable(tmp_path) == (0, "")
    (tmp_path / "more").touch()
    status, text = releasable(tmp_path)
    assert status and "the tree is not clean" in text
    commit("## [Unreleased]\n- New.\n\n## [1.2.0]\n- All.\n")
    status, text = releasable(tmp_path)
    assert status and "changes under [Unreleased]" in text
    commit("## [1.1.0]\n- All.\n")
    status, text = releasable(tmp_path)
    assert status and "has no section [1.2.0]" in text
    commit("## [1.2.0]\n- All.\n")
    git("tag", "v1.2.0")
    status, text = releasable(tmp_path)
    assert status and "v1.2.0 is tagged already" in text


def test_the_workflow_runs_targets_that_there_are_on_every_python_that_is_named():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        word
        for line in re.findall(r"run: make (.*)", workflow)
        for word in line.split()
        if re.fullmatch("[a-z]+", word)
    }
    assert {"lint", "test", "docs", "notebooks"} <= targets
    assert all(re.search(rf"^{target}:.*## ", makefile, re.MULTILINE) for target in targets)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    matrices = re.findall(r"python: \[(.*)\]", workflow)
    assert matrices and all(re.findall(r"[\d.]+", each) == named for each in matrices)
    assert tuple(named) == fresh_install.PYTHONS
    for version in named:
        pins = (ROOT / "constraints" / f"py{version.replace('.', '')}.txt").read_text()
        assert f"Python {version}" in pins.splitlines()[0]
        assert re.search(r"^jax==", pins, re.MULTILINE), version
        assert re.search(r"^sphinx==", pins, re.MULTILINE | re.IGNORECASE), version
