"""Several runs: one after another, or side by side, each a process on its share of the machine.

A process starts its run as `semanticfl train` does. On a CPU its share is some of the cores, which
no other run uses; on NVIDIA GPUs it is some of the GPUs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from semanticfl_jax.config import ExperimentConfig, to_dict
from semanticfl_jax.devices.cpu_threads import forced_devices, least_threads
from semanticfl_jax.errors import INTERRUPTED, ConfigError, DivergedError, SemanticFLError, Stopped
from semanticfl_jax.files import write_json
from semanticfl_jax.reporting.metric import Metric
from semanticfl_jax.simulation.workdir import read_summary
from semanticfl_jax.types import Say, silent

#: Configurations that the processes read, in the sweep's directory.
CONFIGS = "configs"
#: What the processes printed, likewise.
LOGS = "logs"

_NODES, _PCI = Path("/dev"), Path("/sys/bus/pci/devices")
# As in JAX 0.10.2: of v3 and its like, v4, v5p, v5e, v6e and 7x. Google's network cards are others.
_GOOGLE = "0x1ae0"
_TPUS = ("0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Share:
    """What one of several processes gets of the machine.

    Attributes:
      cores: numbers of the processor cores; empty where a process cannot be held to some.
      environment: variables that hold JAX to the share.
    """

    cores: tuple[int, ...]
    environment: Mapping[str, str]


def shares(jobs: int, environment: Mapping[str, str] | None = None) -> list[Share]:
    """Split the machine into `jobs` parts that differ by one core, or one GPU, at most.

    Args:
      jobs: processes at a time.
      environment: of this process; by default `os.environ`.

    Raises:
      ConfigError: if there are more jobs than cores, or than GPUs where there are any, or
        more than one on a TPU.
    """
    environment = os.environ if environment is None else environment
    affinity = getattr(os, "sched_getaffinity", None)
    cores = sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))
    if jobs > 1 and _uses_tpus(environment):
        raise ConfigError(
            "--jobs must be 1 on a TPU: the first process takes all of the host's chips; with "
            "JAX_PLATFORMS=cpu the runs share the cores"
        )
    gpus = _gpus(environment)
    for count, kind in ((len(cores), "cores"), (len(gpus), "GPUs")):
        if jobs < 1 or (jobs > count and count):
            raise ConfigError(
                f"--jobs must be at least 1 and at most the number of {kind}, {count}, got {jobs}"
            )
    parts = []
    for index in range(jobs):
        own = tuple(cores[index::jobs])
        limits = {}
        if not forced_devices(environment):  # else they are as XLA_FLAGS says, in every process
            limits["JAX_NUM_CPU_DEVICES"] = str(len(own))
            limits["PJRT_NPROC"] = str(least_threads(len(own)))
        if gpus:
            limits["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index::jobs])
        parts.append(Share(own if affinity else (), limits))
    return parts


def _gpus(environment: Mapping[str, str]) -> list[str]:
    """Return the NVIDIA GPUs that JAX would use, as CUDA_VISIBLE_DEVICES names them."""
    if environment.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return []
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [name for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name]
    found = [path.name.removeprefix("nvidia") for path in _NODES.glob("nvidia*")]
    # CUDA counts those that it sees from 0, whatever the numbers of their nodes: a container may
    # have nvidia4 and nvidia6 alone.
    return [str(index) for index in range(sum(name.isdecimal() for name in found))]


def _uses_tpus(environment: Mapping[str, str]) -> bool:
    """Return whether JAX would use TPUs, without starting it, as it finds them itself."""
    asked = environment.get("JAX_PLATFORMS", "")
    if asked:
        return asked.split(",")[0] == "tpu"
    return any(
        (device / "vendor").read_text().strip() == _GOOGLE
        and (device / "device").read_text().strip() in _TPUS
        for device in _PCI.glob("*")
    )


def train(
    runs: Mapping[str, ExperimentConfig],
    workdir: str | Path,
    jobs: int = 1,
    plugins: Sequence[str] = (),
    overwrite: bool = False,
) -> list[str]:
    """Train runs, or resume them; finished ones are left as they are.

    Args:
      runs: configurations by name; NAME is trained in the directory `workdir`/NAME.
      workdir: of all.
      jobs: runs at a time; one is trained in this process.
      plugins: modules that other processes load.
      overwrite: whether a run that is there is set aside, and begun anew.

    Returns:
      The names of the runs that stopped because they diverged.

    Raises:
      Stopped: if a signal stopped them.
    """
    if jobs == 1:
        return _one_by_one(runs, workdir, overwrite)
    return run_side_by_side(runs, workdir, jobs, plugins=plugins, overwrite=overwrite)


def _one_by_one(
    runs: Mapping[str, ExperimentConfig], workdir: str | Path, overwrite: bool
) -> list[str]:
    """Train the runs; return the names of those that diverged, which are not compared."""
    # Not before: the parent of several processes leaves JAX, and the devices, to them.
    from semanticfl_jax.simulation.experiment import run

    diverged = []
    for number, (name, config) in enumerate(runs.items(), start=1):
        print(f"\n[{number}/{len(runs)}] {name}")
        try:
            run(config, Path(workdir) / name, overwrite=overwrite)
        except DivergedError as error:  # the others are still worth training
            print(f"warning: {name} is not compared: {error}")
            diverged.append(name)
    return diverged


def run_side_by_side(
    runs: Mapping[str, ExperimentConfig],
    workdir: str | os.PathLike,
    jobs: int,
    *,
    plugins: Sequence[str] = (),
    overwrite: bool = False,
    say: Say = print,
) -> list[str]:
    """Train runs, or resume them, `jobs` at a time; finished ones are left as they are.

    What a run prints goes to `workdir`/logs/NAME.log. A signal that stops this process stops the
    runs after their rounds under way, and they are saved.

    Args:
      runs: configurations by name; NAME is trained in the directory `workdir`/NAME.
      workdir: of the sweep.
      jobs: processes at a time.
      plugins: modules that register entries, for every process.
      overwrite: whether a run that is there is set aside, and begun anew.
      say: takes a line for every run that starts or ends.

    Returns:
      The names of the runs that stopped because they diverged.

    Raises:
      ConfigError: as `shares`.
      SemanticFLError: when all others have ended, naming the runs that failed and why.
      Stopped: if a signal stopped the sweep.
    """
    directory = Path(workdir)
    free, waiting = shares(jobs), list(runs.items())
    flags = [f"--plugin={each}" for each in plugins] + ["--overwrite"] * overwrite
    for folder in (CONFIGS, LOGS):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    active: dict[str, _Started] = {}
    failed: list[str] = []
    diverged: list[str] = []
    with _signals_to(active) as signals:
        while active or (waiting and not signals.asked):
            while free and waiting and not signals.asked:
                name, config = waiting.pop(0)
                say(f"[{len(runs) - len(waiting)}/{len(runs)}] {name}: started")
                active[name] = _start(name, config, directory, free.pop(0), flags)
                signals.tell(name)
            time.sleep(_POLL_SECONDS)
            for name in [name for name, run in active.items() if run.process.poll() is not None]:
                run = active.pop(name)
                free.append(run.share)
                code, seconds = run.process.returncode, time.monotonic() - run.began
                say(f"{name}: {_outcome(directory / name, code, seconds)}")
                if code == DivergedError.exit_status:
                    diverged.append(name)
                elif code not in (0, INTERRUPTED):
                    failed.append(f"{name}: {_last_line(directory / LOGS / f'{name}.log')}")
        if signals.asked:
            raise Stopped("stopped; runs under way were saved, the same command resumes them")
    if failed:
        raise SemanticFLError("these runs failed:\n  " + "\n  ".join(failed))
    return diverged


@dataclasses.dataclass(frozen=True)
class _Started:
    process: subprocess.Popen[bytes]
    share: Share
    began: float


def _start(
    name: str, config: ExperimentConfig, directory: Path, share: Share, flags: Sequence[str]
) -> _Started:
    path = directory / CONFIGS / f"{name}.json"
    write_json(path, to_dict(config))
    command = [sys.executable, "-m", "semanticfl_jax", "train", f"--config={path}"]
    command += [f"--workdir={directory / name}", *flags]
    # The folder that this package came from, which need not be an installed one.
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **share.environment, "PYTHONPATH": os.pathsep.join(paths)}
    with open(directory / LOGS / f"{name}.log", "ab") as log, _on_cores(share.cores):
        # In a session of its own, so that a terminal's Ctrl-C comes once, from this process.
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    return _Started(process, share, time.monotonic())


@contextlib.contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Hold this process to some cores, which one that is started meanwhile inherits."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class _Signals:
    """Signals that ask the sweep to stop, passed on to its runs; `asked`: there was one.

    Args:
      active: the runs under way, by name.
    """

    def __init__(self, active: Mapping[str, _Started]):
        self._active = active
        self._told: set[str] = set()
        self.asked = False

    def pass_on(self, number: int, frame: object) -> None:
        """Handle a signal: send it to all runs under way."""
        del frame
        self.asked = True
        for name in list(self._active):
            self._send(name, number)

    def tell(self, name: str) -> None:
        """Send a run that has just started the signal that came while it did."""
        if self.asked and name not in self._told:
            self._send(name, signal.SIGTERM)

    def end(self) -> None:
        """Ask all runs that are still under way to stop, and wait until they have."""
        for name in self._active:
            self._send(name, signal.SIGTERM)
        for run in self._active.values():
            run.process.wait()

    def _send(self, name: str, number: int) -> None:
        self._told.add(name)
        process = self._active[name].process
        if process.poll() is None:
            # A run heeds those two; a terminal that is closed ends it as they do.
            process.send_signal(number if number in _SIGNALS else signal.SIGTERM)


@contextlib.contextmanager
def _signals_to(active: Mapping[str, _Started]) -> Iterator[_Signals]:
    """Pass signals on to the processes; none of them is left behind, whatever is raised.

    In a thread other than the main one Python gives no signals, and none is passed on.
    """
    signals = _Signals(active)
    numbers = [*_SIGNALS, signal.SIGHUP]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    # A signal that is ignored stays so: under nohup, a sweep outlives its terminal.
    numbers = [each for each in numbers if signal.getsignal(each) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, signals.pass_on) for number in numbers}
    try:
        yield signals
    finally:
        signals.end()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _outcome(directory: Path, code: int, seconds: float) -> str:
    if code == INTERRUPTED:
        return f"stopped after {seconds:.0f} s"
    if code == DivergedError.exit_status:
        return f"diverged after {seconds:.0f} s"
    if code:
        return f"failed after {seconds:.0f} s"
    summary = read_summary(directory, silent) or {}
    metric = Metric.of(summary)
    final = summary.get(metric.fields[1])
    figure = "" if final is None else f", {metric.short} {metric.write(final)}{metric.unit}"
    return f"done in {seconds:.0f} s{figure}"


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line for line in lines if line.strip()]
    return f"{lines[-1]} (see {path})" if lines else f"see {path}"
