"""The run that `tests.chaos` harms: guided SCAFFOLD of a tiny network on noise.

python -m tests.chaos.run WORKDIR ROUNDS
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import semanticfl_jax as sfl
from tests.federation import CLASSES, MEAN, STD, SoftmaxRegression

NAMES = ("a", "b", "c", "d")


def dataset() -> sfl.ImageDataset:
    """Return 200 training images of noise and 40 to test on."""
    images = np.random.default_rng(0).integers(0, 256, (240, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(240) % CLASSES
    return sfl.ImageDataset.from_arrays(
        images[:200], labels[:200], images[200:], labels[200:], NAMES, mean=MEAN, std=STD
    )


def config(rounds: int, anchors: Path) -> sfl.ExperimentConfig:
    """Return the run's configuration, with anchors from a file."""
    return sfl.ExperimentConfig(
        dataset="digits",
        num_clients=6,
        clients_per_round=3,
        rounds=rounds,
        local_epochs=1,
        batch_size=16,
        public_per_class=2,
        partition=sfl.PartitionConfig("dirichlet", alpha=0.5),
        augmentation=(),
        algorithm=sfl.AlgorithmConfig("scaffold"),
        guidance=sfl.GuidanceConfig(enabled=True, anchors_file=str(anchors)),
        runtime=sfl.RuntimeConfig(num_devices=1),
    )


def make_anchors(path: Path, data: sfl.ImageDataset) -> None:
    """Write made-up anchors that are accepted as those of the run."""
    from semanticfl_jax.data.federation import make_federation
    from semanticfl_jax.semantics.anchors import Anchors
    from semanticfl_jax.semantics.building import checkpoint_directory, expected_provenance
    from semanticfl_jax.simulation.anchors import anchor_images

    settings = config(1, path)
    federation = make_federation(data, settings)
    guidance = settings.guidance
    images = anchor_images(data, federation.public, federation.partition, guidance)
    provenance = expected_provenance(
        guidance, checkpoint_directory(guidance), images, NAMES, dim=CLASSES, seed=0
    )
    eye = np.eye(CLASSES, dtype=np.float32)
    Anchors(eye, eye, NAMES, provenance, {}, 0).save(path)


def train(workdir: Path, rounds: int, say: Callable[[str], None] | None = None) -> sfl.Result:
    """Train the run, or go on with it; its anchors lie beside the directory."""
    data, anchors = dataset(), workdir.parent / "given-anchors.npz"
    if not anchors.exists():
        make_anchors(anchors, data)
    return sfl.run(
        config(rounds, anchors),
        workdir,
        dataset=data,
        model=SoftmaxRegression(CLASSES),
        progress=False,
        say=say,
    )


if __name__ == "__main__":
    sfl.use_all_cores()
    train(Path(sys.argv[1]), int(sys.argv[2]))
