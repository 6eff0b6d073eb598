"""Installs the wheel in new environments and runs a small form of the demo there, far from here.

    python -m tests.fresh_install [--wheel=FILE] [3.11 3.12 3.13]

Every Python that is on this machine is taken: by its name, as pyenv has it, or as uv finds it. What
is installed comes from the index, by uv where it is there, which is faster, else by pip, held to
constraints/ where there is a file for that Python.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
DEMO = (
    "compare",
    "--config=digits",
    "--algorithms=fedavg,semanticfl",
    "--seeds=0",
    "--workdir=demo",
    "--config.rounds=2",
    "--config.local_epochs=1",
)
#: Prints where the package lies, and versions.
_ABOUT = """
from importlib.metadata import version
import semanticfl_jax
names = ("semanticfl-jax", "jax", "flax")
print(semanticfl_jax.__file__, *(f"{name} {version(name)}" for name in names), sep="|")
"""


def find_python(version: str) -> Path | None:
    """Return an interpreter of a version that runs, or None."""
    candidates = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    candidates += sorted(pyenv.glob(f"versions/{version}*/bin/python{version}"))
    if shutil.which("uv"):
        found = subprocess.run(["uv", "python", "find", version], capture_output=True, text=True)
        candidates.append(found.stdout.strip() or None)
    for path in filter(None, candidates):
        script = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([path, "-c", script], capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip() == version:
            return Path(path)
    return None


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this tree into a folder."""
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (path,) = folder.glob("*.whl")
    return path


def try_one(python: Path, version: str, wheel: Path, folder: Path) -> str:
    """Install the wheel in a new environment and run the demo; return a line about it."""
    environment = folder / "environment"
    installed = environment / "bin"
    pins = ROOT / "constraints" / f"py{version.replace('.', '')}.txt"
    wanted = [*(["--constraint", pins] if pins.is_file() else []), f"{wheel}[all]"]
    if shutil.which("uv"):
        subprocess.run(["uv", "venv", "--quiet", "--python", python, environment], check=True)
        pip = ["uv", "pip", "install", "--quiet", "--python", environment]
    else:
        subprocess.run([python, "-m", "venv", environment], check=True)
        pip = [installed / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *wanted], check=True)

    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "XLA_", "JAX_"))}
    clean |= {"XDG_CACHE_HOME": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=elsewhere, env=clean, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"Python {version}: {command} failed\n{done.stdout}{done.stderr}")
        return done.stdout

    place, *about = run(installed / "python", "-c", _ABOUT).strip().split("|")
    assert Path(place).is_relative_to(environment), place
    began = time.monotonic()
    text = run(installed / "semanticfl", *DEMO)
    assert "| semanticfl" in text and (elsewhere / "demo" / "comparison.md").is_file(), text
    return f"Python {version}: {', '.join(about)}; the demo took {time.monotonic() - began:.0f} s"


def main() -> None:
    """Try every Python that was asked for; fail if none is there, or if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wheel", type=Path, help="by default it is built")
    parser.add_argument("pythons", nargs="*", default=PYTHONS)
    given = parser.parse_args()
    tried = 0
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder)) if given.wheel is None else given.wheel.resolve()
        for version in given.pythons:
            python = find_python(version)
            if python is None:
                print(f"Python {version}: not on this machine", flush=True)
                continue
            own = Path(folder) / version
            own.mkdir()
            print(try_one(python, version, wheel, own), flush=True)
            shutil.rmtree(own)
            tried += 1
    if not tried:
        raise SystemExit("none of these Pythons is on this machine")


if __name__ == "__main__":
    main()
