"""Everything that a run's rounds need, on the devices: data, state, and compiled programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.federated.client_tests import TestClients
from semanticfl_jax.federated.measured import RoundMetrics
from semanticfl_jax.federated.prefetch import DataOf
from semanticfl_jax.federated.rates import Rates
from semanticfl_jax.federated.server_state import ServerState
from semanticfl_jax.federated.traffic import Traffic
from semanticfl_jax.types import PyTree


def may_be_nan(test: Callable[[ServerState], Any]) -> Callable[[ServerState], Any]:
    """Return a test for which `jax_debug_nans` is off.

    The figure of a class or a client without test images is NaN on purpose.
    """

    def unchecked(state: ServerState) -> Any:
        with jax.debug_nans(False):
            return test(state)

    return unchecked


@dataclasses.dataclass
class Engine:
    """Everything that a run's rounds need, on the devices, and its compiled programs.

    Attributes:
      state: the server, after as many rounds as were dispatched; the next one takes its memory.
      data: the index table of the clients, with their images if these stay on the devices.
      data_of: what each round takes.
      shared: what clients have from their first contact on: `Algorithm.sent_once`, and the rows
        that they compute themselves (`first_contact`).
      key: the run's random key.
      rates: (rounds done, count) -> the learning rates of the next ones.
      round: rounds dispatched.
      run_round: (state, data, shared, key, rates) -> (state, metrics); donates `state`.
      run_block: (state, data, shared, key, rates, count) -> (state, stacked metrics), see
        `dispatch`; None where rounds are dispatched one by one.
      longest: rounds of a block at most.
      evaluate: state -> the task's figures of the test set.
      test_clients: state -> figures on every client's own test images; None without any.
      tested: state -> the model that is tested, which is also what a run results in.
      traffic: how much clients and server send each other.
      compile_seconds: time spent compiling its programs.
      device: how many devices of what kind.
      description: the choices that were made, a line each.
    """

    state: ServerState
    data: FederatedDataset
    data_of: DataOf
    shared: PyTree
    key: jax.Array
    rates: Callable[[int, int], Rates]
    round: int
    run_round: Callable[..., Any]
    run_block: Callable[..., Any] | None
    longest: int
    evaluate: Callable[[ServerState], dict[str, jax.Array]]
    test_clients: TestClients | None
    tested: Callable[[ServerState], Model]
    traffic: Traffic
    compile_seconds: float
    device: str
    description: tuple[str, ...]

    def advance(self, count: int) -> RoundMetrics:
        """Dispatch `count` rounds, together if they can be.

        Returns:
          Their metrics, stacked where rounds are dispatched in blocks.
        """
        arguments = (self.state, self.data_of(self.round), self.shared, self.key)
        rates = self.rates(self.round, self.longest)
        if self.run_block is None:
            rates = jax.tree.map(lambda x: x[0], rates)
            self.state, metrics = self.run_round(*arguments, rates)
        else:
            self.state, metrics = self.run_block(*arguments, rates, np.int32(count))
        self.round += count
        return metrics
