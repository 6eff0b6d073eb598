"""Configuration of the clients' network, and the networks that come with the project."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

from semanticfl_jax.config.fields import Choosing, require_at_least
from semanticfl_jax.registry import MODELS

MODELS.register(
    "resnet10",
    "semanticfl_jax.models.resnet:resnet10",
    about="He et al., CVPR 2016: ResNet-10 for small images, 4.9 M parameters at width 64",
    uses=("width", "norm"),
)
MODELS.register(
    "cnn",
    "semanticfl_jax.models.cnn:cnn",
    about="Granqvist et al., NeurIPS 2024: two convolutions and two dense layers, 1.6 M parameters",
)

MODELS.register(
    "linear",
    "semanticfl_jax.models.linear:linear",
    about="Softmax regression on pixels, or on inputs of any shape",
)


@dataclasses.dataclass(frozen=True)
class ModelConfig(Choosing):
    """The clients' network."""

    registries: ClassVar = {"name": MODELS}

    name: Annotated[str, MODELS] = "resnet10"
    #: Channels of ResNet-10's first stage; its feature has 8 x width dimensions (64 in the paper).
    width: int = 64
    #: ResNet-10's normalisation: by batch, with running statistics, or by groups of channels.
    norm: Literal["batch", "group"] = "batch"
    #: Settings of a network that has some of its own.
    settings: Any = None

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 1, "width")
