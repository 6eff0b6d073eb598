"""The result of a probe (`probe.py`) as a table and as a plot."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from semanticfl_jax.reporting import markdown
from semanticfl_jax.reporting.plots import drawing
from semanticfl_jax.reporting.spread import mean_and_spread

#: Features that a trained network is compared with, and the one that the comparison is about.
PIXELS, SUBJECT = "raw pixels", "AMDA, adaptive"


def probe_table(result: Mapping[str, Any]) -> str:
    """Return Markdown, a row a feature: accuracies in %, mean ± sample deviation over seeds."""
    figures = result["figures"]
    others = [network for network in figures if network != "trained"]
    header = ["features", "dimensions", "separability", "linear %", "k-NN %"]
    header += [f"{network}, {kind} %" for network in others for kind in ("linear", "k-NN")]
    lines = [markdown.row(header), "|---" + "|---:" * (len(header) - 1) + "|"]
    for name, own in figures["trained"].items():
        cells = [name, str(max(own["dimensions"])), mean_and_spread(own["separability"], ".2f")]
        cells += [_percent(own[kind]) for kind in ("linear", "knn")]
        for network in others:
            other = figures[network].get(name)
            cells += [_percent(other[kind]) if other else "" for kind in ("linear", "knn")]
        lines.append(markdown.row(cells))
    return "\n".join(lines)


def probe_report(result: Mapping[str, Any]) -> str:
    """Return the table with what it was made of, and how AMDA differs from its controls."""
    seeds = result["seeds"]
    error = max(
        _standard_error(own["linear"], result) for own in result["figures"]["trained"].values()
    )
    settings = (
        f"`python -m launch.probe_features`: {result['dataset']}, "
        f"{result['train_images']:,} training and {result['test_images']:,} test images, "
        f"checkpoint {result['checkpoint']}, t = {result['timestep']}, empty prompt; "
        f"seeds {', '.join(map(str, seeds))} (images, noise, random weights); mean ± standard "
        f"deviation over seeds; binomial standard error of one seed up to {100 * error:.1f}. "
        f"AMDA joins {', '.join(result['amda']['maps'])}."
    )
    lines = [settings, "", probe_table(result), ""]
    for kind, title in (("linear", "Linear probe"), ("knn", "k-NN")):
        gains = "; ".join(
            f"{mean_and_spread(values, '.2f', 100, '+')} over {name}"
            for name, values in differences(result, kind).items()
        )
        lines.append(f"{title}: {SUBJECT} is {gains} (points, seed by seed).")
    return "\n".join(lines)


def differences(result: Mapping[str, Any], kind: str) -> dict[str, list[float]]:
    """Return what AMDA gains over its controls, one number a seed (same images for both).

    Args:
      result: of `probe`.
      kind: "linear" or "knn".

    Returns:
      {control: accuracies' differences}: raw pixels, and AMDA of the networks with random weights.
    """
    figures = result["figures"]
    controls = {PIXELS: figures["trained"][PIXELS]}
    controls |= {
        f"{SUBJECT} ({network})": rows[SUBJECT]
        for network, rows in figures.items()
        if network != "trained"
    }
    own = figures["trained"][SUBJECT][kind]
    return {
        name: [a - b for a, b in zip(own, control[kind], strict=True)]
        for name, control in controls.items()
    }


def summarize_probe(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return `result` with mean, deviation and standard error beside each list of accuracies."""

    def summary(values):
        return {
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else None,
            "standard_error_of_one_seed": _standard_error(values, result),
        }

    summaries = {
        network: {
            name: {kind: summary(own[kind]) for kind in ("linear", "knn")}
            for name, own in rows.items()
        }
        for network, rows in result["figures"].items()
    }
    gains = {kind: differences(result, kind) for kind in ("linear", "knn")}
    return {**result, "summary": summaries, f"gains of {SUBJECT}": gains}


@drawing.picture
def plot_probe(result: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Draw accuracies as bars, every feature beside its controls: which layer has the meaning?

    Args:
      result: of `probe`.
      path: PNG file to write.
    """
    figures = result["figures"]
    names = list(figures["trained"])
    figure = drawing.figure(max(7.0, 1.2 + 0.85 * len(names)), 6.4)
    for axes, kind, title in zip(
        figure.subplots(2, 1, sharex=True), ("linear", "knn"), ("Linear probe", "k-NN"), strict=True
    ):
        width = 0.8 / len(figures)
        for index, (network, rows) in enumerate(figures.items()):
            places = [i for i, name in enumerate(names) if name in rows]
            values = [[100 * x for x in rows[names[i]][kind]] for i in places]
            axes.bar(
                [i + (index - (len(figures) - 1) / 2) * width for i in places],
                [statistics.fmean(each) for each in values],
                width,
                yerr=[statistics.stdev(each) if len(each) > 1 else 0 for each in values],
                color=drawing.COLOURS[index],
                error_kw={"elinewidth": 0.8},
                label=network,
            )
        pixels = 100 * statistics.fmean(figures["trained"][PIXELS][kind])
        axes.axhline(pixels, color="0.4", linewidth=0.9, linestyle="--", label=PIXELS)
        drawing.label(axes, title, "", f"Accuracy on {result['dataset']} (%)")
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    figure.axes[0].legend(frameon=False, ncols=4, fontsize=8, loc="upper left")
    figure.axes[0].margins(y=0.2)
    drawing.save(figure, path)


def _standard_error(values: Sequence[float], result: Mapping[str, Any]) -> float:
    """Return the binomial one of one seed's accuracy."""
    mean = statistics.fmean(values)
    return math.sqrt(mean * (1 - mean) / result["test_images"])


def _percent(fractions: Sequence[float]) -> str:
    return mean_and_spread(fractions, ".1f", 100)
