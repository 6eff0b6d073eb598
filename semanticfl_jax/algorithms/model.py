"""A whole model: what is trained, and the statistics that follow from it."""

from __future__ import annotations

from typing import NamedTuple

from semanticfl_jax.types import PyTree


class Model(NamedTuple):
    """A whole model.

    Attributes:
      params: trained parameters, {"model": ..., term name: ...}, float32.
      batch_stats: running statistics of batch normalisation, float32; never trained, and no part
        of any server rule: their differences are aggregated as those of parameters, and added.
    """

    params: PyTree
    batch_stats: PyTree

    @property
    def variables(self) -> PyTree:
        """What the network is applied with: {"params": ..., "batch_stats": ...}."""
        return {"params": self.params["model"], "batch_stats": self.batch_stats}
