"""The shape of input that convolutional networks need."""

from semanticfl_jax.contexts import ModelContext
from semanticfl_jax.errors import ConfigError


def require_channels(context: ModelContext, least: int = 1) -> None:
    """Raise `ConfigError` for inputs that are not [n, H, W, C]; any number of channels fits.

    Args:
      context: has the shape of an input.
      least: height and width that the network needs.
    """
    shape = context.image_shape
    if len(shape) == 3 and min(shape[:2]) >= least:
        return
    hint = "; one channel is images[..., None]" if len(shape) == 2 else ""
    at_least = f", H and W at least {least}" if least > 1 else ""
    raise ConfigError(
        f"model.name must be linear with inputs [n, {', '.join(map(str, shape))}], or a module of "
        f"your own, sfl.run(config, dataset=..., model=...): {context.config.model.name} needs "
        f"[n, H, W, C]{at_least}{hint}"
    )
