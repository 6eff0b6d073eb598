r"""Times this project and a peer alternately on one machine, and prints the ratio of their speeds.

    python -m comparisons.compare --task=pfl_cifar10 --peer=pfl_research --env=DIR \
        --data_dir=DIR [--rounds=20] [--processes=1] [--alternations=3]

Each run is a process of its own, ours and the peer's in turn, the peer's first in every other pair,
so that a slow drift of the machine meets both. Other busy processes do not: threads that spin while
they wait lose far more. What share of the CPU others take is measured before each run, and warned
about. A run's figure is the median of its rounds, the first one not counted; the ratio is taken
within each pair of runs. --env is what peers/make_env.sh made. Figures, machine, commands and
versions go to --json, by default comparisons/results/compare_TASK_PEER.json, with what differs from
the default in its name.
"""

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from comparisons.peers.cifar10 import TASKS
from comparisons.peers.export_cifar10 import export
from semanticfl_jax.devices.machine import BUSY, busy_share, host
from semanticfl_jax.errors import ConfigError
from semanticfl_jax.files import write_json
from semanticfl_jax.paths import local_path
from semanticfl_jax.reporting.spread import spread

ROOT = Path(__file__).resolve().parent.parent
PEERS = {
    "pfl_research": ("pfl_cifar10",),
    "flower": ("pfl_cifar10",),
    "pytorch_loop": ("pfl_cifar10", "family_cifar10"),
}


def parse_arguments() -> argparse.Namespace:
    """Reads the flags, and refuses what cannot be run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, default="pfl_cifar10")
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--env", required=True, help="the peer's environment")
    parser.add_argument("--data_dir", default=None, help="prepared TFDS data sets")
    parser.add_argument("--rounds", type=int, default=20, help="rounds to time in each run")
    parser.add_argument("--alternations", type=int, default=3, help="pairs of runs")
    parser.add_argument("--processes", type=int, default=1, help="of pfl_research and flower")
    parser.add_argument("--width", type=int, default=16, help="of ResNet-10 (family_cifar10)")
    parser.add_argument("--cohort", type=int, default=5, help="clients a round (family_cifar10)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--memory_format", choices=("contiguous_format", "channels_last"), help="of pytorch_loop"
    )
    parser.add_argument("--json", default=None, help="where the figures go")
    args = parser.parse_args()
    for name in ("env", "data_dir", "json"):
        if getattr(args, name) is not None:
            try:
                setattr(args, name, local_path(getattr(args, name), f"--{name}"))
            except ConfigError as error:
                parser.error(str(error))
    if args.task not in PEERS[args.peer]:
        parser.error(f"--peer={args.peer} runs {', '.join(PEERS[args.peer])}, not {args.task}")
    for name in ("rounds", "alternations", "processes", "width", "cohort"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    if args.peer == "pytorch_loop" and args.processes > 1:
        parser.error("--processes is for pfl_research and flower")
    if args.task != "family_cifar10" and (args.cohort != 5 or args.dtype != "float32"):
        parser.error("--cohort and --dtype are for --task=family_cifar10")
    if args.memory_format and args.peer != "pytorch_loop":
        parser.error("--memory_format is for pytorch_loop")
    if not (args.env / "bin" / "python").is_file():
        parser.error(
            f"--env must be an environment with bin/python, made by make_env.sh: {args.env}"
        )
    return args


def commands(args: argparse.Namespace, data: Path) -> dict[str, list[str]]:
    """The command of each side, without --json."""
    shared = [f"--task={args.task}", f"--rounds={args.rounds}"]
    if args.task == "family_cifar10":
        shared += [f"--width={args.width}", f"--cohort={args.cohort}", f"--dtype={args.dtype}"]
    ours = [sys.executable, "-m", "launch.benchmark", *shared]
    if args.data_dir:
        ours.append(f"--data_dir={os.path.abspath(args.data_dir)}")
    script = ROOT / "comparisons" / "peers" / f"{args.peer}.py"
    peer = [str(args.env.absolute() / "bin" / "python"), str(script), *shared, f"--data={data}"]
    if args.memory_format:
        peer.append(f"--memory_format={args.memory_format}")
    if args.processes > 1:
        peer.append(f"--processes={args.processes}")
    return {"ours": ours, "peer": peer}


def run(command: list[str], directory: Path, root: Path = ROOT) -> dict[str, Any]:
    """Runs a benchmark to its end and returns its figures, and how busy others were before it.

    Args:
      command: without --json.
      directory: for the figures.
      root: of the tree whose code is run.

    Raises:
      SystemExit: if it fails; its output is shown.
    """
    figures = directory / "figures.json"
    figures.unlink(missing_ok=True)
    busy = busy_share()
    done = subprocess.run(
        [*command, f"--json={figures}"],
        cwd=root,
        env=None if root == ROOT else {**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode or not figures.is_file():
        sys.exit(f"{done.stdout}\n{shlex.join(command)} failed with status {done.returncode}")
    return {**json.loads(figures.read_text()), "busy_before": busy}


def compare(args: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Runs both sides in turn, saying what each took."""
    data = directory / "cifar10.npz"
    export(args.data_dir, data)
    sides = commands(args, data)
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    for number in range(args.alternations):
        for side in sorted(sides, reverse=number % 2 == 1):
            figures = run(sides[side], directory)
            runs[side].append(figures)
            seconds, accuracy = figures["seconds_per_round"], figures.get("accuracy")
            print(
                f"{number + 1} {side if side == 'ours' else args.peer:12} "
                f"{seconds['median']:8.3f} s a round ({seconds['min']:.3f} to {seconds['max']:.3f})"
                + ("" if accuracy is None else f", accuracy {accuracy:.4f}")
                + f", others busy {figures['busy_before']:.0%}",
                flush=True,
            )
            if figures["busy_before"] > BUSY:
                print("  warning: other processes were busy, the ratio means little", flush=True)
    pairs = zip(runs["peer"], runs["ours"], strict=True)
    ratios = [
        peer["seconds_per_round"]["median"] / ours["seconds_per_round"]["median"]
        for peer, ours in pairs
    ]
    return {
        "task": args.task,
        "peer": args.peer,
        "speed_ratio": spread(ratios),
        "speed_ratio_of_pairs": ratios,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": host(),
        "devices": {side: figures[0].get("device") for side, figures in runs.items()},
        "command": shlex.join(["python", "-m", "comparisons.compare", *sys.argv[1:]]),
        "runs": runs,
    }


def name_of(args: argparse.Namespace) -> str:
    """Which comparison it is, in one word."""
    parts = ["compare", args.task, args.peer]
    if args.task == "family_cifar10" and args.width != 16:
        parts.append(f"width{args.width}")
    if args.cohort != 5:
        parts.append(f"{args.cohort}clients")
    if args.dtype != "float32":
        parts.append(args.dtype)
    if args.memory_format == "channels_last":
        parts.append("channels_last")
    if args.processes > 1:
        parts.append(f"{args.processes}processes")
    return "_".join(parts)


def main():
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as directory:
        figures = compare(args, Path(directory))
    ratio = figures["speed_ratio"]
    print(
        f"ours is {ratio['median']:.2f} times as fast as {args.peer} "
        f"({ratio['min']:.2f} to {ratio['max']:.2f} over {args.alternations} pairs)"
    )
    path = args.json or ROOT / "comparisons" / "results" / f"{name_of(args)}.json"
    write_json(path, figures)
    print(f"figures: {path}")


if __name__ == "__main__":
    main()
