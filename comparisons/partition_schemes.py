"""How long each partition scheme takes for a million samples and a hundred thousand clients.

    python comparisons/partition_schemes.py --samples 1000000 --clients 100000 --json FILE

Labels are random, so that nothing has to be read: 10 and 100 classes. Every case runs in a process
of its own, whose peak memory is reported with the seconds of `make_partition`, of the figures
(`partition_statistics`), and of the plots.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import tempfile
import time

import numpy as np

from semanticfl_jax.config import PartitionConfig
from semanticfl_jax.data.partition import make_partition
from semanticfl_jax.data.partition.statistics import partition_statistics
from semanticfl_jax.registry import PARTITIONS
from semanticfl_jax.reporting.plots.partition import plot_clients, plot_partition


def measure(scheme, classes, samples, clients, alpha):
    """One case: seconds of each part, and the peak memory of the process."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, samples, dtype=np.int32)
    natural = scheme == "natural"
    column = rng.integers(0, 3 * clients, samples) if natural else None
    config = PartitionConfig(
        scheme=scheme,
        alpha=alpha,
        column="writer" if natural else None,
        biased_clients=6 * clients // 10,
    )
    times = [time.perf_counter()]
    partition = make_partition(config, labels, clients, seed=0, column=column)
    times.append(time.perf_counter())
    counts = partition.label_counts(labels, classes)
    statistics = partition_statistics(counts)
    times.append(time.perf_counter())
    with tempfile.TemporaryDirectory() as folder:
        plot_partition(counts, [str(k) for k in range(classes)], f"{folder}/partition.png")
        plot_clients({"Images": statistics.sizes}, f"{folder}/clients.png")
    times.append(time.perf_counter())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parts = zip(("partition", "figures", "plots"), np.diff(times).tolist(), strict=True)
    return {
        "scheme": scheme,
        "classes": classes,
        **{f"{name}_seconds": round(seconds, 2) for name, seconds in parts},
        "peak_memory_mb": round(peak / (2**20 if platform.system() == "Darwin" else 2**10)),
    }


def main():
    """Prints a table, and writes the figures where --json says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, default=100_000)
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    setting = {"samples": arguments.samples, "clients": arguments.clients, "alpha": arguments.alpha}
    rows = []
    spawn = multiprocessing.get_context("spawn")
    for scheme in PARTITIONS:
        for classes in (10, 100):
            with spawn.Pool(1) as pool:
                rows.append(pool.apply(measure, (scheme, classes), setting))
            print(" ".join(f"{value:>10}" for value in rows[-1].values()), flush=True)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({**setting, "numpy": np.__version__, "cases": rows}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
