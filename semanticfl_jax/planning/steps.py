"""A single step of training, compiled with every lowering: its arithmetic, bytes and cycles.

Unlike a round, a step has no loop over clients or steps, so that XLA's counts of it are whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.devices.mesh import replicated
from semanticfl_jax.federated.client_update import init_state, rule_state
from semanticfl_jax.federated.local_step import Broadcast, make_loss, make_on_batch, make_step
from semanticfl_jax.federated.local_training import make_local_training
from semanticfl_jax.federated.optimizers import client_optimizer
from semanticfl_jax.planning.hlo import estimated_cycles, memory_of
from semanticfl_jax.planning.images import Images
from semanticfl_jax.planning.plan import read_text, reason
from semanticfl_jax.planning.shapes import make_arguments, make_shapes, placed
from semanticfl_jax.planning.topology import Topology


class Step(NamedTuple):
    """A step of clients side by side on one device, as compiled.

    Attributes:
      conv: lowering of the convolutions.
      clients: side by side.
      flops: floating-point operations, by XLA's count; None: it does not say, as for a GPU.
      bytes: read and written, likewise.
      temporaries: bytes.
      cycles: that a TPU's compiler expects (`hlo.estimated_cycles`); None: it does not say.
      failed: why it does not compile; None: it does.
    """

    conv: str
    clients: int
    flops: float | None = None
    bytes: float | None = None
    temporaries: int = 0
    cycles: int | None = None
    failed: str | None = None


def compile_step(
    config: ExperimentConfig,
    topology: Topology,
    images: Images,
    each: int,
    conv: str,
    clients: int,
) -> Step:
    """Compile one step of `clients` side by side for one device of a topology.

    Args:
      config: of the run.
      topology: one device of which is compiled for.
      images: of the run.
      each: images of every client.
      conv: lowering of the convolutions.
      clients: side by side, under `vmap`; 1: without.
    """
    config = config.with_runtime(conv=conv)
    devices = topology.mesh.devices[:1]
    parts = make_shapes(config, images, devices[0].platform)
    mesh = jax.sharding.Mesh(devices, topology.mesh.axis_names)
    arguments = make_arguments(parts, images, each, mesh)
    network, algorithm, dataset = parts.network, parts.algorithm, parts.federation.dataset
    moments = (dataset.mean, dataset.std)
    training = make_local_training(network, algorithm, config, *moments, parts.task)
    on_batch = make_on_batch(
        make_loss(network, algorithm, parts.task), config, *moments, algorithm.attack
    )
    take_step = make_step(on_batch, client_optimizer(config), config, algorithm)
    received = arguments.state.model

    def sent(state):
        return Broadcast(algorithm.server.broadcast(state.server), jnp.float32(0))

    def start(data, state, shared, key):
        own, broadcast = rule_state(init_state(algorithm, state.model)), sent(state)
        plan = training.plan(broadcast, data, jnp.int32(0), own, key)
        return plan, training.start(state.model, broadcast, shared, data, plan)

    shapes = jax.eval_shape(start, arguments.data, arguments.state, arguments.shared, arguments.key)
    side_by_side = take_step
    if clients > 1:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((clients, *x.shape), x.dtype), shapes)
        side_by_side = jax.vmap(take_step, (None, None, None, None, 0, 0))
    plan, progress = placed(shapes, replicated(mesh))
    broadcast = placed(jax.eval_shape(sent, arguments.state), replicated(mesh))
    # As in a loop, what a step changes is changed in place.
    step = jax.jit(side_by_side, donate_argnums=5)
    try:
        lowered = step.lower(received, broadcast, arguments.shared, arguments.data, plan, progress)
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return Step(conv, clients, failed=reason(str(error)))
    costs: Any = compiled.cost_analysis() or {}
    temporaries = memory_of(compiled).temporaries
    cycles = estimated_cycles(read_text(compiled)[0])
    counts = (costs.get("flops"), costs.get("bytes accessed"))
    return Step(conv, clients, *counts, temporaries, cycles)


def table(steps: Sequence[Step]) -> list[str]:
    """Return steps as lines of Markdown: of one client each, but for the temporaries."""
    lines = [
        "| lowering | clients side by side | GFLOP a client | MB a client | estimated Mcycles a "
        "client | temporaries MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for step in steps:
        name = f"| {step.conv} | {step.clients} |"
        if step.failed is not None:
            lines.append(f"{name} {step.failed} | | | |")
            continue
        counts = (step.flops, 1e9, ".2f"), (step.bytes, 1e6, ",.0f"), (step.cycles, 1e6, ".2f")
        told = " | ".join(
            "" if count is None else f"{count / step.clients / unit:{form}}"
            for count, unit, form in counts
        )
        lines.append(f"{name} {told} | {step.temporaries / 1e6:,.0f} |")
    return lines
