"""Which files make a Stable Diffusion checkpoint, where they are, and a hash of their contents.

The layout is that of diffusers: one directory a component, each with its configuration. Nothing
heavy is imported here, so that a training run can tell whether its anchors fit its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from semanticfl_jax.diffusion.other_models import (
    refuse_other_models,
    single_file,
    single_file_instead,
    weights_instead,
)
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.files import git_lfs_pointer
from semanticfl_jax.optional import optional_imports
from semanticfl_jax.paths import local_path, path_or_name

#: Checkpoints that come with the package: where each lies.
BUNDLED_CHECKPOINTS = {"tiny-sd": Path(__file__).parent / "tiny_sd"}

#: Per component with weights: the stems of its weight files, Flax's and PyTorch's.
WEIGHTS = {
    "unet": ("diffusion_flax_model", "diffusion_pytorch_model"),
    "vae": ("diffusion_flax_model", "diffusion_pytorch_model"),
    "text_encoder": ("flax_model", "model"),
}
_CONFIGS = {
    "unet": ("config.json",),
    "vae": ("config.json",),
    "text_encoder": ("config.json",),
    "tokenizer": ("vocab.json", "merges.txt"),
    "scheduler": ("scheduler_config.json",),
}
_OPTIONAL = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
#: The variant that is taken where full precision is missing; then others by name, and last weights
#: that are no running averages.
_HALF = ("fp16", "bf16")


def _names(component: str) -> str:
    flax, torch = WEIGHTS[component]
    return f"{flax}.msgpack | {torch}.safetensors | {torch}.safetensors.index.json"


_LAYOUT = (
    "\n".join(
        f"  {component}/: {', '.join(names)}"
        + (f", and one of {_names(component)}" if component in WEIGHTS else "")
        for component, names in _CONFIGS.items()
    )
    + "\nWeights may be of a variant, as diffusion_pytorch_model.fp16.safetensors."
)


def weight_file(checkpoint: Path, component: str) -> Path:
    """Return the file that `component` ("unet", "vae" or "text_encoder") is loaded from.

    Flax's goes first, then PyTorch's in full precision, then a variant. Where the weights are in
    several files it is their index (`shards` says which they are).

    Raises:
      MissingFileError: if there is none that is read; the message says what is there instead.
    """
    folder = checkpoint / component
    flax, torch = WEIGHTS[component]
    pattern = re.compile(
        rf"{torch}(?:\.(?P<of_file>[\w-]+))?\.safetensors"
        r"(?P<index>\.index(?:\.(?P<of_index>[\w-]+))?\.json)?"
    )
    found, pointers = [], []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = pattern.fullmatch(path.name)
        if (match is None and path.name != f"{flax}.msgpack") or not path.is_file():
            continue
        pointer = git_lfs_pointer(path)
        if pointer:
            pointers.append(f"{path} is {pointer}")
            continue
        variant = (match["of_file"] or match["of_index"] or "") if match else ""
        if re.fullmatch(r".*\d{5}-of-\d{5}", variant):
            continue  # one of several files
        place = ("", *_HALF).index(variant) if variant in ("", *_HALF) else len(_HALF) + 1
        rank = (match is not None, "ema" in variant, place, variant, bool(match and match["index"]))
        found.append((*rank, path))
    if found:
        return min(found)[-1]
    if pointers:
        raise MissingFileError(pointers[0])
    raise MissingFileError(f"{folder} has none of {_names(component)}{weights_instead(folder)}")


def weight_variants(checkpoint: Path) -> dict[str, str]:
    """Return names of weight files that are of a variant, not of full precision, by component."""
    files = {of: weight_file(checkpoint, of) for of in WEIGHTS if _has_weights(checkpoint, of)}
    usual = {f"{torch}.safetensors" for _, torch in WEIGHTS.values()}
    return {
        component: path.name
        for component, path in files.items()
        if path.suffix != ".msgpack" and path.name.removesuffix(".index.json") not in usual
    }


def shards(index: Path) -> list[Path]:
    """Return the weight files that an index (`.safetensors.index.json`) names, sorted.

    Raises:
      MissingFileError: naming the files that are missing.
      SemanticFLError: if the index is damaged.
    """
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        paths = [index.parent / name for name in names]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SemanticFLError(f"{index} is no index of weight files: {error}") from None
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths:
        raise MissingFileError(f"{index} names files that are missing: {', '.join(missing)}")
    return paths


def checkpoint_files(checkpoint: Path) -> list[Path]:
    """Return the files of a checkpoint directory that loading reads, sorted.

    Raises:
      MissingFileError: naming every file that is missing, and the whole layout.
      SemanticFLError: for a model that is no Stable Diffusion 1.x or 2.x, and for files that are
        pointers of Git LFS.
    """
    refuse_other_models(checkpoint)
    found, missing, reasons = [], [], []
    for component, names in _CONFIGS.items():
        for name in names:
            path = checkpoint / component / name
            (found if path.is_file() else missing).append(path)
        if component in WEIGHTS:
            try:
                path = weight_file(checkpoint, component)
                found += [path, *(shards(path) if path.suffix == ".json" else [])]
            except FileNotFoundError as error:
                missing.append(checkpoint / component / _names(component))
                reasons.append(f"{error}")
    if missing:
        listed = "\n".join(f"  {path.relative_to(checkpoint)}" for path in missing)
        why = "".join(f"\n{reason}" for reason in reasons)
        instead = single_file_instead(checkpoint)
        raise MissingFileError(
            f"checkpoint {checkpoint} is not complete{instead}; missing are\n{listed}{why}\n"
            f"A checkpoint consists of\n{_LAYOUT}"
        )
    optional = [checkpoint / "tokenizer" / name for name in _OPTIONAL]
    found += [path for path in optional if path.is_file()]
    for path in found:
        pointer = git_lfs_pointer(path)
        if pointer:
            raise SemanticFLError(f"{path} is {pointer}")
    return sorted(found)


def fingerprint(checkpoint: str | Path) -> str:
    """Return SHA-256, in hexadecimal, of the names and contents of `checkpoint_files`."""
    checkpoint = local_path(checkpoint, "checkpoint")
    total = hashlib.sha256()
    for path in checkpoint_files(checkpoint):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256")
        total.update(f"{path.relative_to(checkpoint).as_posix()}\0".encode())
        total.update(content.digest())
    return total.hexdigest()


def resolve_checkpoint(
    checkpoint: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    offline: bool = False,
) -> Path:
    """Return the complete directory that a checkpoint's name stands for.

    Args:
      checkpoint: "tiny-sd", the bundled one; a directory in diffusers' layout; or a hub id, such as
        "stable-diffusion-v1-5/stable-diffusion-v1-5", which is downloaded, with a progress bar.
      revision: branch, tag or commit of a hub id.
      cache_dir: where downloads are kept; huggingface_hub's own cache by default.
      offline: look for a hub id in the cache only.

    Raises:
      MissingFileError: if there is no such checkpoint, or files of it are missing.
      MissingDependencyError: for a hub id, without huggingface_hub.
    """
    if str(checkpoint) in BUNDLED_CHECKPOINTS:
        path = BUNDLED_CHECKPOINTS[str(checkpoint)]
    elif (path := Path(path_or_name(checkpoint, "checkpoint"))).is_dir():
        pass
    elif path.is_file():
        raise MissingFileError(f"checkpoint {path}: {single_file(path)}")
    elif re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", str(checkpoint)):
        path = _download(str(checkpoint), revision, cache_dir, offline)
    else:
        raise MissingFileError(
            f"checkpoint {str(checkpoint)!r} is neither {', '.join(BUNDLED_CHECKPOINTS)} "
            "(bundled), nor a directory, nor a hub id of the form owner/name"
        )
    checkpoint_files(path)
    return path


def _download(
    hub_id: str, revision: str | None, cache_dir: str | Path | None, offline: bool
) -> Path:
    with optional_imports("diffusion", f"the download of {hub_id}"):
        from huggingface_hub import snapshot_download

    def fetch(patterns: list[str]) -> Path:
        try:
            return Path(
                snapshot_download(
                    hub_id,
                    revision=revision,
                    cache_dir=cache_dir,
                    allow_patterns=patterns,
                    local_files_only=offline,
                )
            )
        except (OSError, ValueError) as error:
            source = "the download cache" if offline else "the hub"
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise MissingFileError(
                f"checkpoint {hub_id!r} is no directory, and could not be had from {source}:\n"
                f"{reason}\n"
                "Without a network, place these files in a directory and name that directory "
                f"instead:\n{_LAYOUT}"
            ) from error

    # Gigabytes of a model that is refused need not be downloaded.
    refuse_other_models(fetch(["model_index.json"]))
    wanted = [f"{component}/*.json" for component in _CONFIGS] + ["tokenizer/merges.txt"]
    for component, (flax, torch) in WEIGHTS.items():
        # Full precision only: with the fp16 variant beside it the download would grow by half.
        names = (f"{flax}.msgpack", f"{torch}.safetensors", f"{torch}-*-of-*.safetensors")
        wanted += [f"{component}/{name}" for name in names]
    path = fetch(wanted)
    for variant in ("fp16", "*"):
        without = [component for component in WEIGHTS if not _has_weights(path, component)]
        if without:
            path = fetch([f"{of}/{WEIGHTS[of][1]}.{variant}*.safetensors" for of in without])
    return path


def _has_weights(checkpoint: Path, component: str) -> bool:
    try:
        weight_file(checkpoint, component)
    except FileNotFoundError:
        return False
    return True
