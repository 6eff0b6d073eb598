"""Which files make a Stable Diffusion checkpoint, where they are, and a hash of their contents.

The layout is that of diffusers: one directory a component, each with its configuration. Nothing
heavy is imported here, so that a training run can tell whether its anchors fit its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.optional import optional_imports

BUNDLED = {"tiny-sd": Path(__file__).parent / "tiny_sd"}

#: Per component with weights: names of weight files, the first that is there is used.
WEIGHTS = {
    "unet": (
        "diffusion_flax_model.msgpack",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
    ),
    "vae": (
        "diffusion_flax_model.msgpack",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
    ),
    "text_encoder": ("flax_model.msgpack", "model.safetensors", "model.fp16.safetensors"),
}
_CONFIGS = {
    "unet": ("config.json",),
    "vae": ("config.json",),
    "text_encoder": ("config.json",),
    "tokenizer": ("vocab.json", "merges.txt"),
    "scheduler": ("scheduler_config.json",),
}
_OPTIONAL = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_LAYOUT = "\n".join(
    f"  {component}/: {', '.join(names)}"
    + (f", and one of {' | '.join(WEIGHTS[component])}" if component in WEIGHTS else "")
    for component, names in _CONFIGS.items()
)


def weight_file(checkpoint: Path, component: str) -> Path:
    """The file that `component` ("unet", "vae" or "text_encoder") is loaded from.

    Raises:
      FileNotFoundError: if none of the names in `WEIGHTS` is there.
    """
    for name in WEIGHTS[component]:
        if (checkpoint / component / name).is_file():
            return checkpoint / component / name
    raise MissingFileError(f"{checkpoint / component} has none of {', '.join(WEIGHTS[component])}")


def checkpoint_files(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint directory that loading reads, sorted.

    Raises:
      FileNotFoundError: naming every file that is missing, and the whole layout.
    """
    found, missing = [], []
    for component, names in _CONFIGS.items():
        for name in names:
            path = checkpoint / component / name
            (found if path.is_file() else missing).append(path)
        if component in WEIGHTS:
            try:
                found.append(weight_file(checkpoint, component))
            except FileNotFoundError:
                missing.append(checkpoint / component / " | ".join(WEIGHTS[component]))
    if missing:
        listed = "\n".join(f"  {path.relative_to(checkpoint)}" for path in missing)
        raise MissingFileError(
            f"checkpoint {checkpoint} is not complete; missing are\n{listed}\n"
            f"A checkpoint consists of\n{_LAYOUT}"
        )
    optional = [checkpoint / "tokenizer" / name for name in _OPTIONAL]
    return sorted(found + [path for path in optional if path.is_file()])


def fingerprint(checkpoint: str | Path) -> str:
    """SHA-256, in hexadecimal, of the names and contents of `checkpoint_files`."""
    checkpoint = Path(checkpoint)
    total = hashlib.sha256()
    for path in checkpoint_files(checkpoint):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256")
        total.update(f"{path.relative_to(checkpoint).as_posix()}\0".encode())
        total.update(content.digest())
    return total.hexdigest()


def image_size(checkpoint: Path) -> int:
    """Side in pixels of the images that a checkpoint directory was made for, by its settings."""
    unet, vae = (
        json.loads((checkpoint / component / "config.json").read_text())
        for component in ("unet", "vae")
    )
    return unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)


def check_settings(checkpoint: Path, maps: Sequence[str], resolution: int) -> None:
    """Check what is asked of a checkpoint by its settings alone, before its weights are read.

    Args:
      checkpoint: a directory.
      maps: names of feature maps; empty: those that it has.
      resolution: side in pixels; 0: its own.

    Raises:
      SemanticFLError: naming the field.
    """
    unet, vae = (
        json.loads((checkpoint / component / "config.json").read_text())
        for component in ("unet", "vae")
    )
    downs, ups = (range(len(unet[f"{side}_block_types"])) for side in ("down", "up"))
    middle = ["mid"] if unet.get("mid_block_type", "") is not None else []
    offered = ["vae", *(f"down_{i}" for i in downs), *middle, *(f"up_{i}" for i in ups)]
    for name in maps:
        if name not in offered:
            raise SemanticFLError(
                f"guidance.maps must be among {', '.join(offered)} with {checkpoint}, got {name!r}"
            )
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    if resolution % factor:
        raise SemanticFLError(
            f"guidance.resolution must be a multiple of {factor} with {checkpoint}, got "
            f"{resolution}"
        )


def resolve_checkpoint(
    checkpoint: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    offline: bool = False,
) -> Path:
    """The complete directory that a checkpoint's name stands for.

    Args:
      checkpoint: "tiny-sd", the bundled one; a directory in diffusers' layout; or a hub id, such as
        "stable-diffusion-v1-5/stable-diffusion-v1-5", which is downloaded, with a progress bar.
      revision: branch, tag or commit of a hub id.
      cache_dir: where downloads are kept; huggingface_hub's own cache by default.
      offline: look for a hub id in the cache only.

    Raises:
      FileNotFoundError: if there is no such checkpoint, or files of it are missing.
      MissingDependencyError: for a hub id, without huggingface_hub.
    """
    if str(checkpoint) in BUNDLED:
        path = BUNDLED[str(checkpoint)]
    elif Path(checkpoint).is_dir():
        path = Path(checkpoint)
    elif re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", str(checkpoint)):
        path = _download(str(checkpoint), revision, cache_dir, offline)
    else:
        raise MissingFileError(
            f"checkpoint {str(checkpoint)!r} is neither {', '.join(BUNDLED)} (bundled), nor a "
            "directory, nor a hub id of the form owner/name"
        )
    checkpoint_files(path)
    return path


def _download(
    hub_id: str, revision: str | None, cache_dir: str | Path | None, offline: bool
) -> Path:
    with optional_imports("diffusion", f"the download of {hub_id}"):
        from huggingface_hub import snapshot_download

    wanted = [f"{component}/*.json" for component in _CONFIGS] + ["tokenizer/merges.txt"]
    for component, names in WEIGHTS.items():
        # Full precision only: with the fp16 variant beside it the download would grow by half.
        wanted += [f"{component}/{name}" for name in names if ".fp16." not in name]
    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                cache_dir=cache_dir,
                allow_patterns=wanted,
                local_files_only=offline,
            )
        )
    except (OSError, ValueError) as error:
        source = "the download cache" if offline else "the hub"
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise MissingFileError(
            f"checkpoint {hub_id!r} is no directory, and could not be had from {source}:\n"
            f"{reason}\n"
            "Without a network, place these files in a directory and name that directory instead:\n"
            f"{_LAYOUT}"
        ) from error
