"""A plan as a table for the screen, and as plain values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from semanticfl_jax.config import to_dict
from semanticfl_jax.planning.plan import Compiled, Plan

_HEAD = (
    "| topology | program | lowering | clients a chunk | compile s | arguments MB | temporaries MB "
    "| of HBM | fits | collectives | MB exchanged |"
)


def table(plans: Sequence[Plan]) -> list[str]:
    """Return plans as lines of Markdown: the compiled programs, then the floors."""
    lines = [_HEAD, "|---|---|---|" + "---:|" * 5 + "---|---|---:|"]
    for plan in plans:
        lines += [_row(plan, program) for program in plan.programs]
    lines += [
        "",
        "| topology | chip | TFLOP a round | matrix units s | bandwidth s | rounds a second "
        "| MB up | MB down | MB once |",
        "|---|---|" + "---:|" * 7,
    ]
    for plan in plans:
        floors = plan.floors
        values = (floors.matrix_seconds, floors.bandwidth_seconds, floors.rounds_per_second)
        told = " | ".join("" if value is None else f"{value:.3g}" for value in values)
        sent = " | ".join(f"{count / 1e6:.3g}" for count in _traffic(plan).values())
        arithmetic = f"{floors.flops / 1e12:.3g}"
        lines.append(f"| {plan.topology} | {plan.chip} | {arithmetic} | {told} | {sent} |")
    lines += [
        "",
        "The first table is compiled, the second reasoned: floors, rounds at best, and what a "
        "client sends and receives in a round, and receives at its first contact.",
    ]
    for plan in plans:
        lines += _notes(plan)
    return lines


def _row(plan: Plan, program: Compiled) -> str:
    name = f"| {plan.topology} | {program.program} | {program.conv} | {program.clients_per_chunk} |"
    memory = program.memory
    if memory is None:
        return f"{name} | | | | no: {program.failed} | | |"
    share = "" if plan.device_memory is None else f"{memory.total / plan.device_memory:.1%}"
    fits = {True: "yes", False: "no", None: ""}[plan.fits(program)]
    kinds = ", ".join(f"{n} {kind}" for kind, n in program.counted().items()) or "none"
    moved = f"{sum(each.bytes for each in program.collectives) / 1e6:,.1f}"
    if program.unread is not None:
        kinds, moved = "not known", ""
    return (
        f"{name} {program.compile_seconds:.0f} | {memory.arguments / 1e6:,.0f} "
        f"| {memory.temporaries / 1e6:,.0f} | {share} | {fits} | {kinds} | {moved} |"
    )


def _notes(plan: Plan) -> list[str]:
    """Return what a table has no room for."""
    found = []
    largest = plan.largest_chunk()
    if largest is not None:
        found.append(f"{plan.topology}: {largest} clients a chunk are the most compiled that fit")
    if plan.starts_from_student is not None:
        does = "starts" if plan.starts_from_student else "does not start"
        found.append(f"{plan.topology}: the clients' network {does} from the student")
    if plan.idle:
        every = plan.devices + plan.idle
        found.append(f"{plan.topology}: the run takes {plan.devices} of the {every} devices")
    floors = plan.floors
    if floors.contact_flops:
        took = (
            "" if floors.contact_seconds is None else f", {floors.contact_seconds:.3g} s at least"
        )
        found.append(
            f"{plan.topology}: at the first contact, once for all clients' images, "
            f"{floors.contact_flops / 1e12:.3g} TFLOP{took}"
        )
    for program in plan.programs:
        if program.unread is not None:
            found.append(
                f"{plan.topology}: the collectives of the {program.program} are not known, because "
                f"jaxlib cannot read what was compiled: {program.unread}"
            )
        if program.untiled is not None:
            found.append(
                f"{plan.topology}: the {program.program} was compiled without Triton's matrix "
                f"products, which need a GPU to be timed on: {program.untiled}"
            )
        for line in program.host_transfers:
            found.append(f"{plan.topology}: the {program.program} talks to the host: {line[:100]}")
    return found


def _traffic(plan: Plan) -> dict[str, int]:
    """Return the bytes that a client sends and receives; at its first contact, the most of any."""
    traffic = plan.traffic
    return {"up": traffic.up, "down": traffic.down, "down_once": int(np.max(traffic.down_once))}


def values(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values."""
    return {
        "topology": plan.topology,
        "devices": plan.devices,
        "idle_devices": plan.idle,
        "device_memory_bytes": plan.device_memory,
        "room_bytes": plan.room,
        "checkpoint_copy_bytes": plan.checkpoint_copy,
        "chip": plan.chip,
        "images_per_client": plan.images_per_client,
        "reasoned": {**plan.floors._asdict(), "rounds_per_second": plan.floors.rounds_per_second},
        "client_bytes": _traffic(plan),
        "starts_from_student": plan.starts_from_student,
        "compiled": [_program(plan, each) for each in plan.programs],
        "largest_chunk_that_fits": plan.largest_chunk(),
        "config": to_dict(plan.config),
        "versions": {"jax": jax.__version__},
    }


def _program(plan: Plan, program: Compiled) -> dict[str, Any]:
    memory = program.memory
    return {
        "program": program.program,
        "conv": program.conv,
        "clients_per_chunk": program.clients_per_chunk,
        "failed": program.failed,
        "compile_seconds": program.compile_seconds,
        "memory_bytes": None if memory is None else memory._asdict(),
        "fits": plan.fits(program),
        "unread": program.unread,
        "untiled": program.untiled,
        **_exchanges(program),
    }


def _exchanges(program: Compiled) -> dict[str, Any]:
    """Return what crosses between devices and to the host; all None where it is not known."""
    if program.unread is not None:
        return dict.fromkeys(("collectives", "collective_bytes", "host_transfers"))
    return {
        "collectives": program.counted(),
        "collective_bytes": [each._asdict() for each in program.collectives],
        "host_transfers": len(program.host_transfers),
    }
