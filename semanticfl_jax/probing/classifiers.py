"""Simple classifiers on frozen features.

Linear probe: multinomial logistic regression, whose regularisation is chosen on a fifth of the
training part. k-NN: majority of the 10 nearest by cosine. Columns are standardised by the training
part. An aggregate such as AMDA's has standardised and weighted its maps itself, and would lose the
weights: it can be centred and scaled as a whole instead (and left as it is for k-NN). [ours]
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from semanticfl_jax.config import ConfigError
from semanticfl_jax.semantics.aggregation import separability

NEIGHBOURS = 10
#: Inverse strengths of the L2 penalty that are tried, from strong to weak.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


@dataclasses.dataclass(frozen=True)
class Split:
    """What is probed on: features are split like these labels.

    Attributes:
      train_labels: int [n].
      test_labels: int [m].
      seed: of the choice of regularisation.
    """

    train_labels: np.ndarray
    test_labels: np.ndarray
    seed: int


def check_counts(split: Split, images_flag: str) -> None:
    """Raise `ConfigError` unless classifiers can be fitted to images of such labels.

    Regularisation is chosen on a fifth of them, in which every class must be.

    Args:
      split: labels of both parts.
      images_flag: names what says how many images there are, for the error.
    """
    if split.train_labels.ndim != 1:
        raise ConfigError(f"{images_flag}: classifiers need images of one class each")
    count = len(split.train_labels)
    classes, counts = np.unique(split.train_labels, return_counts=True)
    if len(classes) < 2:
        raise ConfigError(f"{images_flag}: classifiers need images of two classes, got one")
    if counts.min() < 2:
        few = ", ".join(map(str, classes[counts < 2][:5]))
        raise ConfigError(
            f"{images_flag} must be larger: every class needs 2 of the {count} images that "
            f"classifiers are fitted to, and class {few} has 1"
        )
    least = max(NEIGHBOURS, 5 * len(classes) - 4)  # a fifth is rounded up
    if count < least:
        raise ConfigError(
            f"{images_flag} must be larger: classifiers of {len(classes)} classes are fitted to "
            f"{least} images at least, and there are {count}"
        )


def linear_accuracy(train: np.ndarray, test: np.ndarray, split: Split) -> tuple[float, float]:
    """Test accuracy of logistic regression, and the inverse regularisation that was chosen.

    From strong regularisation on, until two in a row are a point below the best on the held-out
    fifth; then fitted to the whole training part.

    Args:
      train: float32 [n, d], centred and scaled.
      test: float32 [m, d], by the same numbers.
      split: labels, and the seed.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from threadpoolctl import threadpool_limits

    labels = split.train_labels
    fitted, held_out = train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=split.seed
    )
    model = LogisticRegression(max_iter=300, tol=1e-3, warm_start=True)
    scores: list[float] = []
    # On cores that others use too, several threads were ten times slower than one.
    with threadpool_limits(1), warnings.catch_warnings():
        # What is not converged after that many steps is compared as it is, like early stopping.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in STRENGTHS:
            model.set_params(C=strength).fit(train[fitted], labels[fitted])
            scores.append(model.score(train[held_out], labels[held_out]))
            if len(scores) > 2 and max(scores[-2:]) < max(scores) - 0.01:
                break
        chosen = STRENGTHS[int(np.argmax(scores))]
        model = LogisticRegression(max_iter=300, tol=1e-3, C=chosen).fit(train, labels)
    return float(model.score(test, split.test_labels)), chosen


def neighbour_accuracy(train: np.ndarray, test: np.ndarray, split: Split) -> float:
    """Test accuracy of the majority among the `NEIGHBOURS` nearest by cosine.

    Args:
      train: float32 [n, d].
      test: float32 [m, d].
      split: labels.
    """
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(n_neighbors=NEIGHBOURS, metric="cosine", algorithm="brute")
    return float(model.fit(train, split.train_labels).score(test, split.test_labels))


def assess(features: np.ndarray, split: Split, *, by_column: bool = True) -> dict[str, float]:
    """Return the figures of one kind of feature.

    Args:
      features: float32 [n + m, d], the training part first.
      split: labels of both parts.
      by_column: whether to standardise every column, or to scale all by one number.

    Returns:
      `dimensions` (that are not constant), `linear` and `knn` (accuracies), `inverse_strength`
      (that was chosen), `separability` (of the training part).
    """
    train, test = np.split(np.asarray(features, np.float32), [len(split.train_labels)])
    mean, deviation = train.mean(axis=0, keepdims=True), train.std(axis=0, keepdims=True)
    varies = deviation > 1e-7
    scale = np.where(varies, deviation, 1) if by_column else max(float(deviation.max()), 1e-7)
    scaled_train, scaled_test = ((part - mean) / scale for part in (train, test))
    linear, strength = linear_accuracy(scaled_train, scaled_test, split)
    if by_column:
        train, test = scaled_train, scaled_test
    near = neighbour_accuracy(train, test, split)
    return {
        "dimensions": int(varies.sum()),
        "linear": linear,
        "knn": near,
        "inverse_strength": strength,
        "separability": separability(scaled_train, split.train_labels),
    }
