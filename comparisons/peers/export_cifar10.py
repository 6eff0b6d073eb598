"""Writes CIFAR-10 and the users' partitions to one file that every peer reads.

    python -m comparisons.peers.export_cifar10 --data_dir=DIR --output=cifar10.npz

The one script here that runs in this project's own environment: the peers' have no TFDS. Images are
those that `launch.benchmark` trains on, and the users own the same images.
"""

import argparse

import numpy as np

from comparisons.peers.cifar10 import TASKS
from semanticfl_jax import files
from semanticfl_jax.config import PartitionConfig
from semanticfl_jax.data.partition import make_partition
from semanticfl_jax.data.sources import load_dataset


def export(data_dir: str | None, output: str, seed: int = 0) -> None:
    """Writes the arrays of `cifar10.Data`, of `users` one for each task, images channels-last."""
    dataset = load_dataset("cifar10", data_dir)
    arrays = {
        "train_images": dataset.train_images,
        "train_labels": dataset.train_labels.astype(np.int64),
        "test_images": dataset.test_images,
        "test_labels": dataset.test_labels.astype(np.int64),
        "train_mean": dataset.train_images.mean((0, 1, 2), dtype=np.float64),
        "train_std": dataset.train_images.std((0, 1, 2), dtype=np.float64),
    }
    iid = PartitionConfig(scheme="iid")
    for name, task in TASKS.items():
        partition = make_partition(iid, dataset.train_labels, task.users, seed=seed)
        arrays[f"users_{name}"] = partition.indices.reshape(task.users, -1)
    files.write(output, lambda file: np.savez(file, **arrays))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", help="prepared TFDS data sets")
    parser.add_argument("--output", required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the partitions")
    args = parser.parse_args()
    export(args.data_dir, args.output, args.seed)


if __name__ == "__main__":
    main()
