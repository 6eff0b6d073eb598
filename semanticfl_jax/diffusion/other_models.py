"""What lies in place of a checkpoint that is read: another model, or weights in another form.

The messages say what was found and, where that can be done, how to convert it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import git_lfs_pointer

#: Parts of pipelines, in diffusers' words, that Stable Diffusion 1.x and 2.x do not have.
_FOREIGN_PARTS = ("decoder", "prior", "text_encoder_2", "text_encoder_3", "transformer")
#: Names of pipelines that are not supported, by their beginning.
_FAMILIES = {
    r"(Flax)?StableDiffusionXL": "Stable Diffusion XL",
    r"StableDiffusion3": "Stable Diffusion 3",
    r"Flux": "Flux",
}
#: Suffixes of weights that are not read as they are.
_CONVERTED = (".bin", ".ckpt", ".gguf", ".onnx", ".pt", ".pth", ".safetensors")


def refuse_other_models(checkpoint: Path) -> None:
    """Raise SemanticFLError for a directory in diffusers' layout of a model that is not supported.

    Those are all but Stable Diffusion 1.x and 2.x: with a transformer in place of the U-Net (Stable
    Diffusion 3, Flux), with several text encoders (Stable Diffusion XL), or of another family.
    """
    pipeline = _pipeline(checkpoint / "model_index.json")
    name = str(pipeline.get("_class_name", ""))
    parts = [
        part
        for part in _FOREIGN_PARTS
        # A part that a pipeline goes without is [null, null].
        if (checkpoint / part).is_dir() or any(pipeline.get(part) or ())
    ]
    families = [words for start, words in _FAMILIES.items() if re.match(start, name)]
    if parts or families:
        model = (families or [name or "another model"])[0]
        with_parts = f" (it has {', '.join(parts)})" if parts else ""
        raise SemanticFLError(
            f"checkpoint {checkpoint} is {model}{with_parts}, which is not supported; supported "
            "are Stable Diffusion 1.x and 2.x"
        )


def _pipeline(index: Path) -> dict:
    """Return what model_index.json says; nothing where it is missing or damaged."""
    try:
        described = json.loads(index.read_bytes())
    except (ValueError, RecursionError, OSError):
        described = {}
        pointer = git_lfs_pointer(index) if index.is_file() else None
        if pointer:
            raise SemanticFLError(f"{index} is {pointer}") from None
    return described if isinstance(described, dict) else {}


def weights_instead(folder: Path) -> str:
    """Return which weights a component's folder holds that are not read, and how to convert them.

    The text goes on a sentence; "" where there are none.
    """
    found = _convertible(folder)
    if not found:
        return ""
    checkpoint = folder.parent
    command = f"P.from_pretrained('{checkpoint}').save_pretrained('{checkpoint}-safetensors')"
    return f", but {', '.join(found[:3])}, which is not read; {_convert(command)}"


def single_file_instead(checkpoint: Path) -> str:
    """Return which file has all weights, where a directory has no folder of a U-Net; or ""."""
    found = [] if (checkpoint / "unet").is_dir() else _convertible(checkpoint)
    return (
        f"; it holds {', '.join(found[:3])}: {single_file(checkpoint / found[0])}" if found else ""
    )


def single_file(path: Path) -> str:
    """Return how to convert a file that has all weights of a checkpoint."""
    command = f"P.from_single_file('{path}').save_pretrained('{path.with_suffix('')}')"
    return f"all weights in a single file are not read; {_convert(command)}"


def _convertible(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _CONVERTED)


def _convert(command: str) -> str:
    return (
        "convert it to a directory with safetensors, where diffusers and PyTorch are installed:\n"
        f'  python -c "from diffusers import StableDiffusionPipeline as P; {command}"'
    )
