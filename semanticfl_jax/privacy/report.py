"""What each party of a run sees, and what guarantees it: for summaries, and for the README.

It is put together from the registry (`AlgorithmTraits`), the configuration and the ledger; nothing
keeps a second list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semanticfl_jax.config.privacy import AT_SERVER
from semanticfl_jax.registry import AGGREGATORS, ALGORITHMS, Entry
from semanticfl_jax.reporting import markdown

if TYPE_CHECKING:
    from semanticfl_jax.config import ExperimentConfig
    from semanticfl_jax.privacy.accounting import Ledger

#: Of `guidance.anchor_source`: what anchors tell of clients' images.
ANCHORS = {
    "public": "epsilon 0: made of the public split, which no client holds",
    "generated": "epsilon 0: made of generated images alone",
    "directory": "epsilon 0, if no client holds an image of guidance.anchor_dir",
    "oracle": "none: made of the clients' own images",
}
#: Of `guidance.student.images`, where they are no data set's.
STUDENTS = {
    "bundled": "epsilon 0, if no client holds an image that it was made of",
    "public": ANCHORS["public"],
    "generated": ANCHORS["generated"],
    "directory": "epsilon 0, if no client holds an image of guidance.student.data_dir",
}
_NONE = "none"
_UPDATE = "every client's update, in every round"
_SUM = (
    "the weighted sum of the clients' updates, in every round; of a single one, noise (simulated)"
)


def report(
    config: ExperimentConfig, ledger: Ledger | None, rounds: int, *, own_moments: bool = False
) -> dict[str, Any]:
    """Return the privacy of a run for its summary.

    Args:
      config: of the run.
      ledger: what its rounds cost; None without a mechanism.
      rounds: rounds done.
      own_moments: as of `ImageDataset`.
    """
    told: dict[str, Any] = {"mechanism": config.privacy.name}
    if ledger is not None:
        told |= {
            "epsilon": ledger.epsilon(rounds),
            "delta": ledger.delta,
            "noise_multiplier": ledger.noise,
            "clip": config.privacy.settings.clip,
            "bound": ledger.sampling.describe(),
            "neighbours": "one client, whose data are there or not",
            "stands_for": ledger.stands_for() if ledger.simulated else None,
            "used_up": ledger.rounds < config.rounds and rounds >= ledger.rounds,
        }
    return {**told, "seen": seen(config, ledger, rounds, own_moments)}


def seen(
    config: ExperimentConfig, ledger: Ledger | None, rounds: int, own_moments: bool = False
) -> list[dict[str, str]]:
    """Return what each party sees: rows of `who`, `what` and `guarantee`; args as of `report`."""
    entry, name = config.algorithm.entry, config.privacy.name
    told = _NONE
    if ledger is not None:
        told = f"({ledger.epsilon(rounds):.4g}, {ledger.delta:g})-differentially private"
        if ledger.simulated:
            told = f"{told}, with {ledger.stands_for()}; here none"
    of_update = dict.fromkeys(AT_SERVER, "none: it is trusted to clip and to add the noise")
    of_update["local"] = told
    rows = [("server", "who takes part, and when", _NONE)]
    if not entry.traits.silent:
        hidden = config.aggregation.aggregator == "secure"
        rows.append(("server", _SUM if hidden else _UPDATE, of_update.get(name, _NONE)))
    if ledger is None and _weighs(config):
        rows.append(("server", "how many images every client has, by its weight", _NONE))
    if config.algorithm.uses_label_counts:
        counts = ALGORITHMS["feddisco"].traits.once
        rows.append(("server", f"of clients, once, {counts}", _NONE))
    if entry.traits.extra:
        rows.append(("server", f"of clients, in every round, {entry.traits.extra}", _NONE))
    model = "the initial model" if entry.traits.silent else "the model, in every round"
    rows.append(("clients, and whoever gets the model", model, told))
    if own_moments:
        moments = "mean and standard deviation of all training images, which normalise them"
        rows.append(("clients, and whoever gets the model", moments, _NONE))
    if entry.traits.broadcast:
        rows.append(("clients", f"{entry.traits.broadcast}, in every round", _NONE))
    if config.uses_anchors:
        rows.append(("clients", "anchors, once", ANCHORS[config.guidance.anchor_source]))
    if config.guidance.uses_student:
        student = config.guidance.student
        other = f"epsilon 0, if no client holds an image of {student.dataset}"
        rows.append(("clients", "the student, once", STUDENTS.get(student.images, other)))
    own = "training loss, what rules measure, who took part, figures of single clients"
    rows.append(("whoever reads this run's files", own, _NONE))
    return [dict(zip(("who", "what", "guarantee"), row, strict=True)) for row in rows]


def _weighs(config: ExperimentConfig) -> bool:
    """Return whether the server weighs clients by how many images they have."""
    chosen, traits = config.algorithm.weights, config.algorithm.entry.traits
    uniform = chosen == "uniform" or (chosen == "auto" and traits.uniform)
    heeded = AGGREGATORS[config.aggregation.aggregator].traits.weighted
    return heeded and not (uniform or traits.silent)


def table() -> str:
    """Return what each algorithm's parties see besides update and model, as Markdown."""
    head = ["`algorithm.name`", "the server, of a client", "clients", "`privacy.name`"]
    lines = [head, ["---"] * len(head)]
    for name, entry in ALGORITHMS.items():
        if entry.source.startswith("semanticfl_jax."):
            lines.append([f"`{name}`", _up(entry), _down(entry), _protected(entry)])
    return "\n".join(map(markdown.row, lines))


def _up(entry: Entry) -> str:
    traits = entry.traits
    weighs = not (traits.uniform or traits.weights or traits.silent)
    sees = ["how many images it has"] if weighs else []
    sees += [f"once, {traits.once}"] if traits.once else []
    sees += [traits.extra] if traits.extra else []
    return "; ".join(sees)


def _down(entry: Entry) -> str:
    traits = entry.traits
    sees = [traits.broadcast] if traits.broadcast else []
    sees += ["anchors, once"] if traits.guided or traits.anchors else []
    return "; ".join(sees)


def _protected(entry: Entry) -> str:
    if entry.traits.silent:
        return "nothing is sent"
    return "refused" if entry.traits.extra or entry.traits.once else "central, dp_ftrl, local"
