"""What a checkpoint's configurations say of it, before its weights are read.

Nothing heavy is imported here, so that settings that do not suit a checkpoint are refused at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semanticfl_jax.config import ConfigError
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import read_json_object


def image_size(checkpoint: Path) -> int:
    """Return the side in pixels of the images that a checkpoint directory was made for."""
    unet, vae = _settings(checkpoint)
    return unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)


def map_channels(checkpoint: Path) -> dict[str, int]:
    """Return the feature maps that a checkpoint directory has, each with its channels."""
    unet, vae = _settings(checkpoint)
    widths = unet["block_out_channels"]
    found = {"vae": vae["latent_channels"]}
    downs, ups = (unet[f"{side}_block_types"] for side in ("down", "up"))
    found |= {f"down_{i}": width for i, (_, width) in enumerate(zip(downs, widths, strict=False))}
    if unet.get("mid_block_type", "") is not None:
        found["mid"] = widths[-1]
    backwards = zip(ups, reversed(widths), strict=False)
    return found | {f"up_{i}": width for i, (_, width) in enumerate(backwards)}


def check_settings(
    checkpoint: Path, maps: Sequence[str], resolution: int, maps_field: str = "guidance.maps"
) -> None:
    """Check what is asked of a checkpoint by its settings alone, before its weights are read.

    Args:
      checkpoint: a directory.
      maps: names of feature maps; empty: those that it has.
      resolution: side in pixels; 0: its own.
      maps_field: the field that `maps` are of.

    Raises:
      SemanticFLError: naming the field.
    """
    _, vae = _settings(checkpoint)
    offered = map_channels(checkpoint)
    for name in maps:
        if name not in offered:
            raise SemanticFLError(
                f"{maps_field} must be among {', '.join(offered)} with {checkpoint}, got {name!r}"
            )
    if len(set(maps)) < len(maps):
        raise ConfigError(f"{maps_field} must be distinct names, got {', '.join(maps)}")
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    if resolution % factor:
        raise SemanticFLError(
            f"guidance.resolution must be a multiple of {factor} with {checkpoint}, got "
            f"{resolution}"
        )


def _settings(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configurations of the U-Net and the autoencoder."""
    needed = {
        "unet": ("sample_size", "down_block_types", "up_block_types", "block_out_channels"),
        "vae": ("block_out_channels", "latent_channels"),
    }
    found = {}
    for component, names in needed.items():
        path = checkpoint / component / "config.json"
        found[component] = read_json_object(path)
        missing = [name for name in names if name not in found[component]]
        if missing:
            raise SemanticFLError(f"{path} lacks {', '.join(missing)}")
        for name in names:
            value = found[component][name]
            kind = int if name in ("sample_size", "latent_channels") else list
            if type(value) is not kind or not value:
                wanted = "a whole number" if kind is int else "a list"
                raise SemanticFLError(f"{path}: {name} must be {wanted}, is {value!r}")
    return found["unet"], found["vae"]
