"""What all peers' scripts share: flags, a stopwatch that blocks on outputs, and the figures."""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import time

import cifar10
import numpy as np
import torch

FORMATS = ("contiguous_format", "channels_last")


def parse_arguments(doc, *, tasks=("pfl_cifar10",), processes=False, privacy=False):
    """Reads the flags of a peer.

    `tasks` are those that it runs, `processes` says whether it takes several, and `privacy` whether
    it takes --private.

    Sets the seeds and, unless the peer starts processes of its own, PyTorch's threads.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=tasks, default=tasks[0])
    parser.add_argument("--data", required=True, help="file of export_cifar10.py")
    parser.add_argument("--rounds", type=int, default=20, help="rounds to time")
    parser.add_argument("--warmup_rounds", type=int, default=1, help="rounds before, not counted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file to write the figures to as well")
    if processes:
        parser.add_argument("--processes", type=int, default=1, help="sharing the machine's cores")
    if privacy:
        parser.add_argument("--private", action="store_true", help="with central privacy")
    if "family_cifar10" in tasks:
        parser.add_argument("--width", type=int, default=16, help="of ResNet-10")
        parser.add_argument("--memory_format", choices=FORMATS, default=FORMATS[0])
        parser.add_argument("--cohort", type=int, help="clients a round (family_cifar10)")
        parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    for name in ("rounds", "processes", "width"):
        if getattr(args, name, 1) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    if args.warmup_rounds < 0:
        parser.error(f"--warmup_rounds must be at least 0, got {args.warmup_rounds}")
    args.of_task = cifar10.TASKS[args.task]
    if getattr(args, "cohort", None):
        args.of_task = dataclasses.replace(args.of_task, cohort=args.cohort)
    args.processes = getattr(args, "processes", 1)
    args.threads = max(1, cores() // args.processes)
    torch.set_num_threads(args.threads)
    # On GPUs as JAX does by default: TF32, and convolutions chosen by a measurement.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002 (pfl draws from it)
    return args


def cores():
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def device():
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Stopwatch:
    """Seconds between calls, by name, the device's work finished."""

    def __init__(self):
        self.seconds = {"round": [], "evaluation": []}
        self.restart()

    def restart(self):
        """Lets the next lap begin now."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._began = time.perf_counter()

    def lap(self, name):
        """Ends a lap, and begins the next."""
        began = self._began
        self.restart()
        self.seconds[name].append(self._began - began)


def spread(values):
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def report(args, stopwatch, accuracy, parameters, packages=(), more=None):
    """Prints the figures as one line of JSON, the last of the output, and writes them to --json.

    `more` are figures of this peer alone.
    """
    task = args.of_task
    seconds = stopwatch.seconds["round"][args.warmup_rounds :]
    figures = {
        "task": args.task,
        "seconds_per_round": spread(seconds),
        "images_per_second": spread([task.images_per_round / second for second in seconds]),
        "accuracy": accuracy,
        "rounds": len(seconds),
        "warmup_rounds": args.warmup_rounds,
        "seconds_of_rounds": seconds,
        "seconds_of_evaluations": stopwatch.seconds["evaluation"],
        "parameters": parameters,
        "processes": args.processes,
        "threads_per_process": args.threads,
        "seed": args.seed,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in (*packages, "torch", "numpy")},
        },
    }
    figures |= more or {}
    if args.task == "family_cifar10":
        figures["width"] = args.width
    if hasattr(args, "memory_format"):
        figures |= {name: getattr(args, name) for name in ("memory_format", "dtype")}
        figures["cohort"] = task.cohort
    line = json.dumps(figures)
    if args.json:
        beside = f"{args.json}.{os.getpid()}.tmp"
        with open(beside, "w") as file:
            file.write(line + "\n")
        os.replace(beside, args.json)
    print(line)
