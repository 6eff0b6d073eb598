"""A diffusion model's pass over a batch of images, lowered for devices that need not be there.

Only the checkpoint's configuration is read, not its weights.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec

from semanticfl_jax.config import ExperimentConfig, GuidanceConfig
from semanticfl_jax.devices.mesh import device_mesh
from semanticfl_jax.diffusion import random_sd15
from semanticfl_jax.diffusion.batches import default_batch_size
from semanticfl_jax.diffusion.features import available_maps, default_maps, pooled_maps
from semanticfl_jax.diffusion.fingerprint import resolve_checkpoint
from semanticfl_jax.diffusion.networks import Networks
from semanticfl_jax.diffusion.stable_diffusion import StableDiffusion
from semanticfl_jax.planning.shapes import placed
from semanticfl_jax.planning.topology import Topology
from semanticfl_jax.semantics.building import compute_dtype


def lower_features(
    config: ExperimentConfig, topology: Topology, image_shape: tuple[int, ...], classes: int
) -> jax.stages.Lowered:
    """Lower the pass over a batch, on the devices of one host, as a run would make it.

    Args:
      config: of the run; `guidance.checkpoint` is a directory, the bundled one, an id whose files
        were downloaded before, or "random-sd15", Stable Diffusion 1.5 by its published sizes.
      topology: the devices.
      image_shape: H, W, 3 of the images, before they are resized.
      classes: K prompts that condition images, where they do.

    Raises:
      MissingFileError: if the checkpoint is none of these; nothing is downloaded.
    """
    guidance, here = config.guidance, topology.of_one_host()
    model = _of_shapes(guidance, compute_dtype(guidance, here[0].platform))
    side = guidance.resolution or model.image_size
    count = guidance.diffusion_batch_size
    if not count:
        count = default_batch_size((side // model.vae_factor) ** 2, len(here))
    count = -(-count // len(here)) * len(here)
    mesh = device_mesh(here, "images")
    by_image, everywhere = (
        NamedSharding(mesh, spec) for spec in (PartitionSpec("images"), PartitionSpec())
    )
    maps, prompts = guidance.maps or default_maps(model), classes
    if not config.uses_anchors:  # a student's teacher sees everything, and is told nothing
        maps, prompts = guidance.student.maps or available_maps(model), 1
    words = model.networks.text_config.max_position_embeddings
    constant = (
        model,
        jax.ShapeDtypeStruct((prompts, words, model.text_dim), np.float32),
        jax.eval_shape(lambda: jax.random.key(0)),
    )
    rows = (
        jax.ShapeDtypeStruct((count, *image_shape), np.uint8),
        jax.ShapeDtypeStruct((count,), np.int32),
        jax.ShapeDtypeStruct((count,), np.int32),
    )
    return pooled_maps.lower(
        *placed(constant, everywhere),
        *placed(rows, by_image),
        timestep=guidance.timestep,
        maps=tuple(maps),
        resolution=side,
    )


def _of_shapes(guidance: GuidanceConfig, dtype: str) -> StableDiffusion:
    """Return a checkpoint whose weights are shapes."""
    if guidance.checkpoint == random_sd15.NAME:
        directory, networks = Path(random_sd15.NAME), random_sd15.networks(dtype)
    else:
        directory = resolve_checkpoint(
            guidance.checkpoint,
            revision=guidance.revision,
            cache_dir=guidance.cache_dir,
            offline=True,
        )
        networks = Networks(directory, jnp.dtype(dtype))
    params = {
        component: unflatten_dict(
            {path: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for path, shape in shapes.items()}
        )
        for component, shapes in networks.expected_params().items()
    }
    return StableDiffusion(params, networks, directory)
