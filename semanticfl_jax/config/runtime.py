"""Configuration of how a run is computed: what does not decide its results, up to rounding."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

from semanticfl_jax.config import loggers  # noqa: F401 - registers what is built in
from semanticfl_jax.config.fields import Choosing, require, require_at_least
from semanticfl_jax.registry import LOGGERS


@dataclasses.dataclass(frozen=True)
class RuntimeConfig(Choosing):
    """Devices, chunks, memory, and where a run's metrics are sent besides its directory."""

    registries: ClassVar = {"loggers": LOGGERS}

    #: Devices to spread clients over; 0: all that a round's clients can use.
    num_devices: int = 0
    #: Clients trained at once on one device by vmap; "auto" chooses, see `tuning`.
    clients_per_chunk: int | Literal["auto"] = "auto"
    #: How a convolution is lowered (models/client_conv/); "auto" chooses, see `tuning`.
    conv: Literal["auto", "native", "canonical", "patches", "shifted"] = "auto"
    #: Whether a short measurement, made once and kept in the user's cache, makes these choices:
    #: "auto": on accelerators; "never" takes defaults everywhere.
    tuning: Literal["auto", "always", "never"] = "auto"
    #: Rounds in one dispatch where nothing is due in between; "auto": up to a second of them. They
    #: end at the next evaluation or checkpoint, so that both must be rarer for it to matter.
    rounds_per_dispatch: int | Literal["auto"] = "auto"
    #: Test images at once on each device.
    eval_batch_size: int = 250
    #: Where clients keep their state (SCAFFOLD, MOON, FedDyn, FedCDA): spread over the devices, or
    #: in host memory, or in files of the run's directory, from which only the cohort's share
    #: travels. The numbers are the same. Checkpoints have no copy of what is on the disk. Each of
    #: several processes keeps its share.
    client_state_memory: Literal["device", "host", "disk"] = "device"
    #: Where the training images are: all of them on every device, or in host memory, from which the
    #: next cohort's are gathered and sent while a round runs. The numbers are the same. Where the
    #: data set is memory-mapped, "host" takes no memory for what is not used.
    data_memory: Literal["device", "host"] = "device"
    #: Experiment trackers that get every round's metrics, besides metrics.jsonl.
    loggers: tuple[Annotated[str, LOGGERS], ...] = ()
    #: By name: settings of the loggers.
    settings: Any = None

    @classmethod
    def takes_several(cls) -> bool:
        """Return True: of loggers there can be several."""
        return True

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "num_devices")
        require_at_least(self, 1, "eval_batch_size")
        for name in ("clients_per_chunk", "rounds_per_dispatch"):
            value = getattr(self, name)
            require(value == "auto" or value >= 1, name, '"auto" or at least 1', value)
        if self.data_memory == "host":
            alone = self.rounds_per_dispatch in ("auto", 1)
            why = '"auto" or 1 with data_memory=host: images come round by round'
            require(alone, "rounds_per_dispatch", why, self.rounds_per_dispatch)
