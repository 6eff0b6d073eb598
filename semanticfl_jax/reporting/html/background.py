"""Sections about what results rest on: traffic, time, privacy, data, anchors, configuration."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax.array_files import read_npz
from semanticfl_jax.config.fields import flatten
from semanticfl_jax.files import read_json_object
from semanticfl_jax.reporting.comparison import Comparison
from semanticfl_jax.reporting.html.charts import Line, chart
from semanticfl_jax.reporting.html.elements import (
    Cell,
    Column,
    details,
    escape,
    number,
    pairs,
    paragraph,
    picture,
    plain,
    spread,
    table,
)
from semanticfl_jax.reporting.html.quality import grid
from semanticfl_jax.reporting.runs import Method, Run, differing_fields, tells_methods_apart
from semanticfl_jax.reporting.series import Rows, bytes_of, cost_curve

#: Pictures of partitions, and of anchors, at most.
_MAX_PICTURES = 3

#: Classes whose anchors are compared with one another.
_MAX_SIMILAR = 30


def traffic(comparison: Comparison) -> str:
    """Return what travels, and how much of it until the reference's accuracy is reached."""
    if not any(row.get("bytes_up") is not None for run in comparison.runs for row in run.rows):
        return ""
    metric, reference = comparison.metric, comparison.reference
    goals = reference.values(metric.fields[-1]) if reference else []
    goal = statistics.fmean(goals) if goals else None
    columns: list[Column | str] = [
        "Method",
        Column("MB up", "From the clients to the server, a round, in 10^6 bytes"),
        Column("MB down", "From the server to the clients, a round"),
        Column("MB in all", "Both ways, over the whole run"),
    ]
    if goal is not None:
        what = f"{metric.write(goal)}{metric.unit}"
        columns += [
            Column(f"Rounds to {what}", "First evaluated round that reaches it, mean over seeds"),
            Column(f"MB to {what}", "Both ways, until then"),
            Column("Seeds that reach it"),
        ]
    rows = []
    for method in comparison.methods:
        up, down = (
            [row[name] for run in method.runs for row in run.rows if row.get(name) is not None]
            for name in ("bytes_up", "bytes_down")
        )
        totals = [_total(run.rows) for run in method.runs]
        cells = [Cell(method.label)]
        cells += [number(statistics.fmean(v) / 1e6 if v else None) for v in (up, down, totals)]
        if goal is not None:
            cells += _until(method, comparison, goal)
        rows.append(cells)
    axis = "MB both ways"
    found = _over(comparison, lambda row: bytes_of(row) / 1e6)
    note = "Model, states and anchors that a round sends, counted, not measured on a network."
    if goal is not None and reference:
        note += f" The goal is the mean of the last 10 evaluations of {reference.label}."
    charts = [chart(f"{metric.title} by traffic", axis, metric.axis, found, metric.most)]
    return table(columns, rows) + paragraph(note, "note") + grid(comparison, charts)


def _until(method: Method, comparison: Comparison, goal: float) -> list[Cell]:
    metric, rounds, sent = comparison.metric, [], []
    for run in method.runs:
        total = 0.0
        for row in run.rows:
            total += bytes_of(row)
            value = row.get(metric.name)
            if value is not None and metric.gain(value, goal) >= 0:
                rounds.append(row["round"])
                sent.append(total / 1e6)
                break
    reached = f"{len(rounds)} of {len(method.runs)}"
    return [spread(rounds, ".1f"), spread(sent, ".1f"), Cell(reached, len(rounds))]


def time(comparison: Comparison) -> str:
    """Return how long runs took, and on what."""
    rows = []
    for method in comparison.methods:
        shares = [
            [row["padding_share"] for row in run.rows if row.get("padding_share") is not None]
            for run in method.runs
        ]
        padding = [statistics.fmean(each) for each in shares if each]
        devices = dict.fromkeys(str(run.summary.get("device", "–")) for run in method.runs)
        rows.append(
            [
                Cell(method.label),
                spread(method.values("seconds_per_round")),
                spread(method.values("images_per_second"), ".0f"),
                spread(method.values("compile_seconds"), ".1f"),
                spread(method.values("train_seconds"), ".1f"),
                spread(padding, ".1f", 100),
                Cell(", ".join(devices)),
            ]
        )
    columns = [
        "Method",
        Column("s / round", "Median, without evaluation and checkpoint"),
        Column("Images / s", "Training images a second, all clients, median"),
        Column("Compile s", "Less where programs had been compiled before"),
        Column("Train s", "All rounds"),
        Column("Padding %", "Share of the training steps that was padding, mean of all rounds"),
        "Device",
    ]
    found = _over(comparison, lambda row: row.get("seconds") or 0.0)
    metric = comparison.metric
    note = (
        "Mean ± sample standard deviation over seeds. Times can be compared only between runs on "
        "the same machine with nothing beside them."
    )
    charts = [
        chart(f"{metric.title} by time", "Seconds of training", metric.axis, found, metric.most)
    ]
    return table(columns, rows) + paragraph(note, "note") + grid(comparison, charts)


def _over(comparison: Comparison, cost) -> list[Line]:
    """Return the metric of every method by what its rounds have cost so far, mean over seeds."""
    metric, found = comparison.metric, []
    for index, method in enumerate(comparison.methods):
        x, value = cost_curve([run.rows for run in method.runs], metric.name, cost)
        band = metric.factor * value.spread if value.seeds > 1 else None
        found.append(Line(index, method.label, x, metric.factor * value.mean, band))
    return found


def _total(rows: Rows) -> float:
    return sum(map(bytes_of, rows))


def privacy(comparison: Comparison) -> str:
    """Return what the runs promise about the clients' images."""
    parts, private = [], True
    for method in comparison.methods:
        summary = method.runs[0].summary
        entry = dict(summary.get("privacy") or {})
        seen = entry.pop("seen", None)
        known = dict(flatten({"privacy": entry})) if entry else {}
        transforms = method.runs[0].config.get("aggregation", {}).get("transforms")
        known |= {"aggregation.transforms": transforms} if transforms else {}
        if not summary.get("private", True):
            private = False
            note = summary.get("note", "This method is not private.")
            parts.append(paragraph(f"{method.label}: {note}", "warning"))
        if known or seen:
            content = pairs(known) + (_who_sees_what(seen) if seen else "")
            parts.append(details(method.label, content, shown=len(comparison.methods) < 4))
    said = (
        "Clients send updates of the model, never images"
        + (". " if private else ", except in the methods marked above. ")
        + "An update can still tell of the images it was trained on; a bound on that needs "
        "clipping and noise, whose guarantee is shown here where a run has one."
    )
    return "".join(parts) + paragraph(said, "note")


def _who_sees_what(seen: Sequence[Mapping[str, Any]]) -> str:
    keys = {"who": "Who", "what": "Sees", "guarantee": "Guarantee"}
    rows = [[Cell(plain(each.get(key))) for key in keys] for each in seen]
    return table([*keys.values()], rows, sortable=False, kind="text prose")


def partition(comparison: Comparison) -> str:
    """Return who holds what: figures of each partition, and its pictures."""
    found = _distinct(comparison.runs, "partition")
    rows, names = [], dict.fromkeys(n for run in found for n, _ in _partition_figures(run))
    for run in found:
        figures = dict(_partition_figures(run))
        seeds = Cell(str(run.config.get("seed")))
        rows.append([seeds, *(_figure(figures.get(name)) for name in names)])
    if not names:
        return ""
    shown = [run for run in found if (run.path / "plots" / "partition.png").is_file()]
    pictures = [
        picture(run.path / "plots" / "partition.png", f"Partition of seed {run.config.get('seed')}")
        for run in shown[:_MAX_PICTURES]
    ]
    note = (
        "One line for each different partition, with the seed of the first run that has it. Sizes "
        "are images a client; the Gini coefficient is of the sizes; effective classes are the "
        "exponential of the entropy of a client's labels; total variation is between its labels "
        "and all."
    )
    return table(["Seed", *names], rows) + paragraph(note, "note") + _gallery(pictures)


def _partition_figures(run: Run) -> list[tuple[str, Any]]:
    pairs_of = flatten(run.summary.get("partition") or {})
    return [(name.replace("_", " ").replace(".", ": "), value) for name, value in pairs_of]


def _figure(value: Any) -> Cell:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(f"{value:.4g}" if isinstance(value, float) else str(value), value)
    return Cell(plain(value))


def anchors(comparison: Comparison) -> str:
    """Return of what the semantic anchors are made, and how far they tell classes apart."""
    parts = []
    for run in _distinct(comparison.runs, "anchors", "anchors.npz")[:_MAX_PICTURES]:
        described, visual = _read_anchors(run.path / "anchors.npz")
        seed = f"Anchors of seed {run.config.get('seed')}"
        provenance = described.get("provenance", described)
        known = {name: value for name, value in flatten(provenance) if name != "class_names"}
        content = pairs(known)
        names = described.get("class_names") or [str(i) for i in range(len(visual))]
        if 1 < len(visual) <= _MAX_SIMILAR:
            content += _similarity(names, visual)
        path = run.path / "plots" / "anchors.png"
        if path.is_file():
            content += _gallery([picture(path, f"{seed}: which feature maps they are made of")])
        parts.append(details(seed, content, shown=not parts))
    return "".join(parts)


def _similarity(names: list[str], visual: np.ndarray) -> str:
    unit = visual / np.maximum(np.linalg.norm(visual, axis=1, keepdims=True), 1e-12)
    cosines = unit @ unit.T
    rows = [
        [Cell(str(name)), *(Cell(f"{v:.2f}", float(v), shade=abs(float(v))) for v in line)]
        for name, line in zip(names, cosines, strict=True)
    ]
    note = (
        "Cosine similarity of the visual anchors of two classes; the nearer to 0, the better apart."
    )
    return table(["Class", *map(str, names)], rows, kind="heat") + paragraph(note, "note")


def _read_anchors(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    arrays = read_npz(path)
    described = json.loads(str(arrays["described"])) if "described" in arrays else {}
    return described, arrays.get("visual", np.zeros((0, 1)))


def _distinct(runs: Iterable[Run], bound: str, file: str | None = None) -> list[Run]:
    """Return the first run of each partition, or set of anchors, by their hash in run.json."""
    found: dict[Any, Run] = {}
    for run in runs:
        if file is not None and not (run.path / file).is_file():
            continue
        path = run.path / "run.json"
        there = read_json_object(path) if path.is_file() else {}
        found.setdefault(there.get(bound, (run.config.get("seed"), run.config.get("dataset"))), run)
    return sorted(found.values(), key=lambda run: run.config.get("seed") or 0)


def _gallery(pictures: list[str]) -> str:
    return f'<div class="gallery">{"".join(pictures)}</div>' if pictures else ""


def configuration(comparison: Comparison) -> str:
    """Return the settings in which methods differ, and those that all runs share."""
    differing = [n for n in differing_fields(comparison.runs) if tells_methods_apart(n)]
    parts = []
    if differing:
        flat = [dict(flatten(method.runs[0].config)) for method in comparison.methods]
        rows = []
        for name in differing:
            cells = [Cell(plain(each[name]) if name in each else "") for each in flat]
            rows.append([Cell(name), *cells])
        labels = [method.label for method in comparison.methods]
        parts.append("<h3>What differs</h3>" + table(["Field", *labels], rows, kind="text"))
    unfair = comparison.unfair()
    if unfair:
        parts.append(paragraph(f"The runs also differ in {', '.join(unfair)}.", "warning"))
    every = differing_fields(comparison.runs)
    shared = {n: v for n, v in flatten(comparison.runs[0].config) if n not in every}
    groups: dict[str, dict[str, Any]] = {}
    for name, value in shared.items():
        head, _, rest = name.partition(".")
        groups.setdefault(head if rest else "", {})[name] = value
    parts.append("<h3>What all runs share</h3>" + pairs(groups.pop("", {})))
    parts += [details(name, pairs(values)) for name, values in groups.items()]
    return "".join(parts)


def runs(comparison: Comparison) -> str:
    """Return a line for each run: its figures, its directory, its versions."""
    metric = comparison.metric
    rows, versions = [], {}
    for method in comparison.methods:
        for run in method.runs:
            cells = [Cell(method.label), _figure(run.config.get("seed"))]
            for name in metric.fields:
                value = run.summary.get(name)
                cells.append(Cell("–") if value is None else Cell(metric.write(value), value))
            cells.append(_figure(run.summary.get("best_round")))
            cells.append(_figure(run.summary.get("rounds")))
            diverged = run.summary.get("diverged_round")
            cells.append(Cell("–") if diverged is None else _figure(diverged))
            cells.append(Cell(str(run.path)))
            rows.append(cells)
            text = ", ".join(f"{n} {v}" for n, v in (run.summary.get("versions") or {}).items())
            versions.setdefault(text, 0)
            versions[text] += 1
    heads = [f"{which} {metric.column}" for which in ("Best", "Last", "Mean of last 10")]
    columns = ["Method", "Seed", *heads, "Best round", "Rounds", "Diverged in round", "Directory"]
    lines = "".join(
        f"<li>{count} of {len(rows)}: {escape(text)}</li>"
        for text, count in versions.items()
        if text
    )
    about = f"<p>Versions:</p><ul>{lines}</ul>" if lines else ""
    return table(columns, rows, kind="tall text") + about
