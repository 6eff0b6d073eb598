"""What networks of convolutions need of their inputs."""

from semanticfl_jax.contexts import ModelContext
from semanticfl_jax.errors import ConfigError


def require_channels(context: ModelContext, least: int = 1) -> None:
    """Raise `ConfigError` for inputs without height, width and channels, of which any number do.

    Args:
      context: says of which shape inputs are.
      least: of height and width.
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
