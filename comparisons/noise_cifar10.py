"""Writes noise in the form of CIFAR-10's binary files, to time without the data set.

    python -m comparisons.noise_cifar10 DIR [--per_batch=10000]

DIR then serves as --data_dir. No operation takes longer for what it sees; accuracies mean nothing.
"""

import argparse
from pathlib import Path

import numpy as np

#: The published names, each of as many images; the last is the test split.
NAMES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


def write(directory: Path, per_batch: int = 10_000) -> Path:
    """Writes `per_batch` images to each file, always the same, and returns their folder."""
    folder = directory / "cifar-10-batches-bin"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in NAMES:
        rows = rng.integers(0, 256, (per_batch, 1 + 3 * 32 * 32), np.uint8)
        rows[:, 0] = np.arange(per_batch) % 10
        (folder / name).write_bytes(rows.tobytes())
    classes = "\n".join(f"noise_{number}" for number in range(10))
    (folder / "batches.meta.txt").write_text(f"{classes}\n")
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--per_batch", type=int, default=10_000, help="images of each of six files")
    args = parser.parse_args()
    if args.per_batch < 1:
        parser.error(f"--per_batch must be at least 1, got {args.per_batch}")
    print(write(args.directory, args.per_batch))


if __name__ == "__main__":
    main()
