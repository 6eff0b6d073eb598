"""A small student for the networks of `tests.federation`, made by hand."""

import jax
import jax.numpy as jnp
import numpy as np

import semanticfl_jax as sfl
import tests.tiny_plugin  # noqa: F401 - registers tiny_net
from semanticfl_jax.config import ExperimentConfig, ModelConfig, to_dict
from semanticfl_jax.models import make_model
from semanticfl_jax.semantics.student import Student
from tests.federation import TwoLayers


@sfl.register_model("two_layers", about="Two dense layers, which compile fast")
def two_layers(settings, context):
    del settings
    return TwoLayers(context.num_classes)


TINY_NET, TWO_LAYERS = ModelConfig(name="tiny_net"), ModelConfig(name="two_layers")
MEAN, STD, DIM = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 3


def make_student(model=TINY_NET, seed=0, dim=DIM, provenance=None):
    """Random weights and statistics, whose outputs differ from image to image."""
    shape = (8, 8, 3)
    network = make_model(ExperimentConfig(model=model), dim, shape)
    variables = network.init(jax.random.key(seed), jnp.zeros((1, *shape)))
    rng = np.random.default_rng(seed)
    variables = {
        "params": jax.tree.map(lambda x: x + rng.normal(size=x.shape), variables["params"]),
        "batch_stats": jax.tree.map(
            lambda x: x + rng.uniform(0.1, 1, size=x.shape), variables["batch_stats"]
        ),
    }
    about = {
        "model": to_dict(model),
        "image_shape": list(shape),
        "mean": list(MEAN),
        "std": list(STD),
        "dim": dim,
        "provenance": provenance or {},
        "measured": {},
    }
    return Student(variables, about)
