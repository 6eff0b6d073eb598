"""Networks of the registry, made without a whole configuration."""

from semanticfl_jax.config import ExperimentConfig, ModelConfig, RuntimeConfig
from semanticfl_jax.models import make_model
from semanticfl_jax.registry import MODELS


def create_model(name, num_classes, *, precision="float32", lowering="auto", **options):
    """A network; options that it does not heed are left out."""
    heeded = MODELS[name].uses if name in MODELS else ()
    options = {key: value for key, value in options.items() if key in heeded}
    config = ExperimentConfig(
        model=ModelConfig(name, **options),
        precision=precision,
        runtime=RuntimeConfig(conv=lowering),
    )
    return make_model(config, num_classes).module
