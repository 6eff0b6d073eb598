"""No attack: every client does as it should."""

from semanticfl_jax.contexts import AlgorithmContext


def none(settings: object, context: AlgorithmContext) -> None:
    """Return None."""
    del settings, context
