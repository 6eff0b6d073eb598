"""What a run has come to, as summary.json holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from semanticfl_jax.devices.versions import code_commit, versions
from semanticfl_jax.federated.evaluation import ATTACK_SUCCESS
from semanticfl_jax.files import to_json_values
from semanticfl_jax.privacy.report import report
from semanticfl_jax.reporting import client_tests
from semanticfl_jax.reporting.client_accuracy import final_figures
from semanticfl_jax.reporting.writers.metrics import summarize
from semanticfl_jax.semantics.anchor_images import NOT_PRIVATE
from semanticfl_jax.simulation.divergence import summary_of
from semanticfl_jax.simulation.engine import Engine
from semanticfl_jax.simulation.parts import Parts
from semanticfl_jax.simulation.rows import tells_classes
from semanticfl_jax.tasks import CLASSIFICATION


def summarize_run(
    parts: Parts,
    engine: Engine,
    history: Sequence[Mapping[str, Any]],
    rounds: int,
    ended: str | None,
    *,
    stopped_early: bool = False,
) -> dict[str, Any]:
    """Return what the rounds done so far have come to, as JSON values.

    Args:
      parts: what is trained.
      engine: with the state after those rounds.
      history: their rows.
      rounds: how many they are.
      ended: when the run ended; None: it has not.
      stopped_early: whether it ended before its last round because the user's code said so.
    """
    config, federation = parts.config, parts.federation
    figures = {
        "algorithm": parts.algorithm.name,
        "guidance": config.guidance.anchors if config.guidance.enabled else None,
        **({"student": config.guidance.student.control} if parts.student else {}),
        **({} if config.private else {"private": False, "note": NOT_PRIVATE}),
        "privacy": report(config, parts.ledger, rounds, own_moments=federation.dataset.own_moments),
        "dataset": federation.dataset.name,
        "model": config.model.name if parts.module is None else parts.network.name,
        **_numbers_of_parameters(parts, engine),
        "seed": config.seed,
        **_about_task(parts),
        **summarize(history, metric=parts.metric),
        **_last_evaluation(parts, history),
        **summary_of(config, history),
        **client_tests.last_figures(history),
        "partition": federation.summary(),
        "compile_seconds": engine.compile_seconds,
        "device": engine.device,
        "versions": versions(),
        "commit": code_commit(),
        "finished": ended,
        **({"stopped_early": True} if stopped_early else {}),
    }
    return to_json_values(figures)


def _numbers_of_parameters(parts: Parts, engine: Engine) -> dict[str, int]:
    """Return how many parameters the network has and, unless all are, how many are trained."""
    trained = sum(x.size for x in jax.tree.leaves(engine.state.params["model"]))
    fixed = sum(x.size for x in jax.tree.leaves(parts.algorithm.fixed))
    return {"num_params": trained + fixed, **({"num_trained_params": trained} if fixed else {})}


def _about_task(parts: Parts) -> dict[str, Any]:
    """Return the task and its headline, unless it is classification."""
    if parts.task is CLASSIFICATION:
        return {}
    return {
        "task": parts.config.task,
        "metric": parts.task.headline,
        "higher_is_better": parts.task.higher_is_better,
    }


def _last_evaluation(parts: Parts, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of classes and clients of the last evaluation; {} without any."""
    row = next((row for row in reversed(history) if tells_classes(parts, row)), None)
    if row is None:
        return {}
    names, counts = parts.federation.dataset.class_names, parts.federation.label_counts()
    figures = final_figures(row, names, counts)
    if ATTACK_SUCCESS in row:
        figures["final_attack_success"] = row[ATTACK_SUCCESS]
    return figures
