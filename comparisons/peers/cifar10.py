"""The two tasks on CIFAR-10, and the data as every peer reads it. NumPy only."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Task:
    """One benchmark task: FedAvg with plain local SGD, one local epoch.

    Attributes:
      users: users that own equal, IID parts of the 50,000 training images.
      cohort: users that train in a round; all weigh the same.
      batch_size: of local training; a last partial batch is kept.
      learning_rate: of local SGD; the server's is 1, which makes its update the plain average.
      momentum: of local SGD, from zero in every round.
      weight_decay: of local SGD, added to the gradient.
      eval_every: rounds between evaluations on the 10,000 test images.
      augment: random crop (4 pixels of zero padding) and horizontal flip, images reshuffled in
        every round; otherwise users' images are neither changed nor reordered.
      mean: of each channel in 0..255; None: the training images' own.
      std: of each channel in 0..255; None: the training images' own.
    """

    users: int
    cohort: int
    batch_size: int
    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    eval_every: int = 10
    augment: bool = False
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    @property
    def images_per_round(self) -> int:
        """Images that a round trains on."""
        return self.cohort * 50_000 // self.users


TASKS = {
    # The CIFAR-10 IID benchmark of Granqvist et al., "pfl-research" (NeurIPS 2024), appendix D.
    "pfl_cifar10": Task(users=1000, cohort=50, batch_size=10, learning_rate=0.1),
    # As launch.benchmark runs it: the protocol of the FedDifRC family (ICCV 2025), one local epoch.
    "family_cifar10": Task(
        users=50,
        cohort=5,
        batch_size=64,
        learning_rate=0.01,
        momentum=0.9,
        weight_decay=1e-5,
        augment=True,
        mean=(125.3, 123.0, 113.9),
        std=(63.0, 62.1, 66.7),
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """CIFAR-10 for one task.

    Attributes:
      train_images: uint8 [50000, 3, 32, 32], the layout in which PyTorch trains fastest on CPU.
      train_labels: int64 [50000].
      test_images: uint8 [10000, 3, 32, 32].
      test_labels: int64 [10000].
      users: training images of each user, int32 [users, images].
      mean: of each channel in 0..255, float32 [3, 1, 1].
      std: of each channel in 0..255, float32 [3, 1, 1].
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    users: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 images [n, 3, 32, 32] to float32 of mean 0 and standard deviation 1."""
        return (images - self.mean) / self.std


def load(path: str, name: str) -> Data:
    """Reads what `export_cifar10.py` wrote, for the task of that name."""
    task = TASKS[name]
    with np.load(path, allow_pickle=False) as arrays:
        return Data(
            train_images=_channels_first(arrays["train_images"]),
            train_labels=arrays["train_labels"],
            test_images=_channels_first(arrays["test_images"]),
            test_labels=arrays["test_labels"],
            users=arrays[f"users_{name}"],
            mean=np.asarray(task.mean or arrays["train_mean"], np.float32)[:, None, None],
            std=np.asarray(task.std or arrays["train_std"], np.float32)[:, None, None],
        )


def _channels_first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
