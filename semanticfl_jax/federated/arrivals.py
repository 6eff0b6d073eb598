"""Who reports when, where clients train at their own pace: a simulated clock, on the host.

Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba. "Federated Learning with Buffered Asynchronous
Aggregation". AISTATS 2022 (FedBuff).

M clients train at any time, each from the model that the server had as it began. The server
collects reports; with K of them it steps, which makes the next version of the model. Whoever
reports is replaced at once by a client that neither trains nor waits in the buffer, drawn at random
(the latter is ours: nobody counts twice in a step). A report that is too stale is thrown away.
A schedule of the clients' learning rate goes by the step in which a client reports (ours).

No number that is trained decides when a client reports, so that the whole run's reports are known
beforehand, and a compiled round looks them up. A longer run begins with those of a shorter one.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.randomness import HostStream, host_generator


class Arrivals(NamedTuple):
    """The reports of a run's rounds; a round is a step of the server.

    Attributes:
      clients: int32 [rounds, K], who reports, in this order.
      staleness: int32 [rounds, K], the server's steps since each began.
      weights: float32 [rounds, K], (1 + staleness)^-p.
      clock: float32 [rounds], when the server steps; a client of median speed takes 1 for a step.
      versions: models that the server keeps.
    """

    clients: np.ndarray
    staleness: np.ndarray
    weights: np.ndarray
    clock: np.ndarray
    versions: int


def simulate(config: ExperimentConfig, sizes: np.ndarray) -> Arrivals:
    """Run the clock of a whole run.

    Args:
      config: of the run.
      sizes: int [N], the clients' images; who has none is never drawn.

    Raises:
      SemanticFLError: if too few clients have images, or reports are all too stale.
    """
    settings, buffer = config.asynchronous, config.clients_per_round
    rng = host_generator(config.seed, HostStream.ARRIVALS)
    speeds = np.exp(settings.speed_spread * rng.standard_normal(len(sizes)))
    seconds = config.local_epochs * np.ceil(np.asarray(sizes) / config.batch_size) / speeds
    busy = np.asarray(sizes) == 0
    concurrency = settings.clients_at_a_time(config)
    if np.sum(~busy) < concurrency + buffer:
        raise SemanticFLError(
            f"asynchronous.concurrency and clients_per_round need {concurrency + buffer} clients "
            f"with images, and {np.sum(~busy)} have any"
        )
    training: list[tuple[float, int, int, int]] = []

    def begin(now: float, version: int, order: int) -> None:
        client = int(rng.integers(len(sizes)))
        while busy[client]:
            client = int(rng.integers(len(sizes)))
        busy[client] = True
        heapq.heappush(training, (now + seconds[client], order, client, version))

    for order in range(concurrency):
        begin(0.0, 0, order)
    steps: list[list[tuple[int, int]]] = []
    clock, waiting, wasted, order = [], [], 0, concurrency
    while len(steps) < config.rounds:
        now, _, client, version = heapq.heappop(training)
        stale, wasted = len(steps) - version, wasted + 1
        if stale <= settings.most_stale:
            waiting.append((client, stale))
            wasted = 0
        else:
            busy[client] = False
        if len(waiting) == buffer:
            steps.append(waiting)
            clock.append(now)
            busy[[client for client, _ in waiting]] = False
            waiting = []
        if wasted > 100 * concurrency:
            raise SemanticFLError("asynchronous.most_stale is too low: reports are all too stale")
        begin(now, len(steps), order)
        order += 1
    told = np.array(steps, np.int32)
    weights = (1.0 + told[..., 1]) ** -settings.power
    return Arrivals(
        told[..., 0],
        told[..., 1],
        weights.astype(np.float32),
        np.array(clock, np.float32),
        settings.versions,
    )
