"""The tasks that come with the project: what clients learn of their images."""

from semanticfl_jax.registry import TASKS

_TASKS = "semanticfl_jax.tasks"

TASKS.register(
    "classification",
    f"{_TASKS}.classification:classification",
    about="One class an image: cross-entropy; accuracy, each class's, and calibration",
)
TASKS.register(
    "multilabel",
    f"{_TASKS}.multilabel:multilabel",
    about="Any number of K labels an image: binary cross-entropy; mean average precision, F1",
    labels="binary",
)
TASKS.register(
    "regression",
    f"{_TASKS}.regression:regression",
    about="Numbers an image: squared error; mean squared and absolute error, R squared",
    labels="numbers",
)
TASKS.register(
    "tokens",
    f"{_TASKS}.tokens:tokens",
    about="A class at each position of a sample: cross-entropy; accuracy of positions, perplexity",
    labels="tokens",
)
