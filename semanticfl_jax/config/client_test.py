"""Configuration of the test on every client's own images."""

from __future__ import annotations

import dataclasses

from semanticfl_jax.config.fields import Config, require, require_at_least


@dataclasses.dataclass(frozen=True)
class ClientTestConfig(Config):
    """Images that each client keeps for testing, and which models are tested on them."""

    #: Share of every client's images, class by class, that it does not train on; 0: no such test.
    share: float = 0.0
    #: Rounds between tests of all clients; 0: after the last round alone.
    every: int = 0
    #: Steps of plain local training from the server's model, whose result is tested besides; 0:
    #: none.
    fine_tune_steps: int = 0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require(0 <= self.share < 1, "share", "at least 0 and below 1", self.share)
        require_at_least(self, 0, "every", "fine_tune_steps")
        for name in ("every", "fine_tune_steps"):
            require(
                self.share > 0 or getattr(self, name) == 0,
                name,
                "0 unless share is above 0: it is about the test on clients' own images",
                getattr(self, name),
            )
