"""The section about models on clients' own test images: the server's, fine-tuned, clients' own."""

from __future__ import annotations

import statistics

from semanticfl_jax.reporting.client_tests import MODELS, TITLES, fields
from semanticfl_jax.reporting.comparison import Comparison
from semanticfl_jax.reporting.html.charts import chart
from semanticfl_jax.reporting.html.elements import Cell, Column, paragraph, spread, table
from semanticfl_jax.reporting.html.quality import grid, lines


def personal(comparison: Comparison) -> str:
    """Return what each model is worth on clients' own images, a line a model of a method."""
    metric, rows = comparison.metric, []
    for method in comparison.methods:
        for model in MODELS:
            *names, loss = fields(model, metric)
            losses = method.values(loss)
            if not losses and not any(method.values(name) for name in names):
                continue
            cells = [Cell(method.label), Cell(TITLES[model])]
            for name in names:
                values = method.values(name)
                text = method.spread(metric, name)
                cells.append(Cell(text, statistics.fmean(values)) if values else Cell("–"))
            rows.append([*cells, spread(losses, ".3f", of=len(method.runs))])
    if not rows:
        return ""
    columns: list[Column | str] = [
        "Method",
        "Model",
        Column(f"Mean {metric.column}", "Over clients, each of whom counts alike"),
        Column(f"Worst tenth {metric.column}", "Mean over the tenth that are served worst"),
        Column("Spread over clients", "Standard deviation over clients"),
        Column("Loss", "Mean over clients"),
    ]
    note = (
        "On images that clients keep for testing (client_test.share), after the last test; mean ± "
        "sample standard deviation over seeds. The server's model is what a client is sent; its "
        "own is what the algorithm leaves with it."
    )
    charts = []
    for model in MODELS:
        found = lines(comparison, fields(model, metric)[0], metric.factor)
        if any(len(line.x) > 1 for line in found):
            title = f"{TITLES[model].capitalize()} model on clients' own images"
            charts.append(chart(title, "Round", metric.axis, found, metric.most))
    return table(columns, rows, kind="text") + paragraph(note, "note") + grid(comparison, charts)
