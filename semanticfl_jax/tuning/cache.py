"""Figures of lowerings and chunks that outlive the run that measured them.

A file for each workload and kind of device, under the user's cache; deleted, it is measured anew.
"""

import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from semanticfl_jax.config import to_dict
from semanticfl_jax.devices.machine import host
from semanticfl_jax.devices.versions import versions
from semanticfl_jax.files import user_cache_dir, write_json
from semanticfl_jax.tuning.timing import (
    Figure,
    Workload,
    fits,
    room_for_chunk,
    time_chunk,
    too_large,
)
from semanticfl_jax.types import Say

# Seconds of compiling and measuring after which nothing more is begun.
_SECONDS = 60.0
# Left to the next run: it has time of its own, and what failed may have failed for what others did
# with the device.
_UNKNOWN = ("no time", "failed")


class Measured:
    """Figures of one workload: those in the cache, and new ones."""

    def __init__(self, work: Workload, mesh: Mesh, say: Say):
        self._work, self._mesh, self._say = work, mesh, say
        self._of = measured_for(work, mesh)
        name = hashlib.sha256(json.dumps(self._of, sort_keys=True).encode()).hexdigest()[:16]
        self._path = user_cache_dir() / "tuning" / f"{name}.json"
        known = [figure for figure in read_figures(self._path) if figure.outcome not in _UNKNOWN]
        self._figures = {(figure.conv, figure.clients_per_chunk): figure for figure in known}
        self._room = room_for_chunk(mesh)
        self._began = time.perf_counter()
        self._lost: OSError | None = None
        self.new = 0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._began

    def look(self, conv: str, clients_per_chunk: int) -> Figure:
        """Return the figure there is, else a new one."""
        found = self._figures.get((conv, clients_per_chunk))
        if found is not None and not fits(found, self._room):
            return too_large(found, self._room)
        if found is not None and found.outcome in ("measured", "failed"):
            return found
        if not self.new:
            self._say("measuring convolutions and clients at a time, once, for about a minute")
        self.new += 1
        if self.seconds > _SECONDS:
            note = f"not begun after {_SECONDS:.0f} s of measuring"
            found = Figure(conv, clients_per_chunk, "no time", note=note)
        else:
            found = time_chunk(self._work, conv, clients_per_chunk, self._mesh)
        self._say(f"  {found}")
        self._figures[conv, clients_per_chunk] = found
        self._write()  # at once: a run that is killed while it measures keeps what it has
        return found

    @property
    def where(self) -> str:
        """Where the figures are, in words."""
        if self._lost is not None:
            return f"the figures could not be kept: {self._lost}"
        return f"figures in {self._path}"

    def _write(self) -> None:
        known = (figure for figure in self._figures.values() if figure.outcome not in _UNKNOWN)
        try:
            figures = list(map(dataclasses.asdict, known))
            write_json(self._path, {"of": self._of, "figures": figures})
            self._lost = None
        except OSError as error:
            self._lost = error


def measured_for(work: Workload, mesh: Mesh) -> dict[str, Any]:
    """Return all that the figures depend on, as JSON values.

    Numbers that weigh a term or a step change values and not work: they count as there or not.
    """
    config, device = work.config, mesh.devices.flat[0]
    model = to_dict(config.model)
    own = config.algorithm.settings
    found = versions()
    return {
        "device": host()["cpu"] if device.platform == "cpu" else device.device_kind,
        "devices": len(mesh.local_devices),
        "versions": {name: found[name] for name in ("jax", "jaxlib", "semanticfl_jax")},
        "model": model if work.module is None else repr(work.module),
        "num_classes": work.num_classes,
        "task": work.task.name,
        "image_shape": list(work.image_shape),
        "precision": config.precision,
        "images_a_step": work.rows,
        "steps": work.steps,
        "augmentation": list(config.augmentation),
        "optimizer": config.optimizer.name,
        "momentum": config.momentum > 0,
        "clip_norm": config.clip_norm > 0,
        "algorithm": config.algorithm.name,
        "settings": {
            name: value > 0 if isinstance(value, float) else value
            for name, value in to_dict(own).items()
        },
        "sent_once": [
            f"{jax.tree_util.keystr(path)} {x.dtype}{list(x.shape)}"
            for path, x in jax.tree_util.tree_leaves_with_path(work.algorithm.sent_once)
        ],
        "distillation": config.guidance.kd if config.guidance.enabled else None,
        "visual_head": config.guidance.visual_head if config.guidance.enabled else None,
        "student": config.guidance.student.targets if config.guidance.uses_student else None,
        # Left out for images, so that earlier measurements stay valid.
        **({} if work.image is None else {"image_dtype": work.image.dtype.name}),
    }


def read_figures(path: Path) -> list[Figure]:
    """Return the figures in a file of the cache; none if it is not there or damaged."""
    try:
        return [Figure(**row) for row in json.loads(path.read_text())["figures"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
