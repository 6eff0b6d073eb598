r"""Trains every aggregator under every attack, and writes a table of accuracies.

    python -m launch.robustness --config=launch/configs/robustness.py --workdir=DIR \
        [--aggregators=mean,median,krum] [--attacks=none,sign_flip] [--seeds=0,1,2] \
        [--directories] [--config.FIELD=VALUE ...]

`attack.share` of the clients attack, 20 % by default; aggregators that ask for a number of
attackers are told as many as are expected in a round. DIR/runs/AGGREGATOR-ATTACK-seedN.json keeps
configuration and summary of each run: run the command again and finished runs are read. With
--directories a run's directory of that name is what launch.train would make of it, plots and
checkpoints included, which takes longer than these runs do. DIR/robustness.md holds the table: the
mean of the last 10 evaluations in per cent, and of a backdoor its success after the last round.

Runs that differ in their seeds alone share a program, where clients have equally many images: it
is compiled once.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path

from absl import flags as absl_flags

from semanticfl_jax.config import ConfigError, ExperimentConfig, to_dict
from semanticfl_jax.config.describe import describe_choices
from semanticfl_jax.config.methods import parse_seeds
from semanticfl_jax.config.overrides import combine
from semanticfl_jax.registry import AGGREGATORS, ATTACKS
from semanticfl_jax.reporting import markdown
from semanticfl_jax.reporting.metric import Metric
from semanticfl_jax.reporting.spread import mean_and_spread

from . import flags

_ATTACKS = ("none", "label_flip", "sign_flip", "gaussian", "alie", "ipm", "backdoor", "free_rider")
_AGGREGATORS = (
    "mean",
    "median",
    "trimmed_mean",
    "krum",
    "multi_krum",
    "bulyan",
    "geometric_median",
    "norm_bound",
    "fltrust",
)


def define() -> None:
    """Define the flags beyond those that every command has."""
    absl_flags.DEFINE_list("aggregators", list(_AGGREGATORS), "Aggregators to train with.")
    absl_flags.DEFINE_list("attacks", list(_ATTACKS), "Attacks to train under.")
    absl_flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of each pair.")
    absl_flags.DEFINE_bool("directories", False, "Write the whole directory of every run.")


def plan(given: flags.Given, aggregator: str, attack: str, seed: int) -> ExperimentConfig:
    """Return the configuration of one run."""
    chosen: dict[str, object] = {"aggregation.aggregator": aggregator, "seed": seed}
    if attack != "none":
        chosen["attack.name"] = attack
    base = combine(ExperimentConfig, given.values, chosen, optional=given.overrides)
    settings = AGGREGATORS[aggregator].settings
    if any(field.name == "attackers" for field in dataclasses.fields(settings)):
        expected = round(base.attack.share * base.clients_per_round)
        chosen[f"aggregation.{aggregator}.attackers"] = expected
    return combine(ExperimentConfig, given.values, chosen, optional=given.overrides)


def cell(summaries: list[dict]) -> str:
    """Return what stands in the table for the runs of one pair."""
    metric = Metric.of(summaries[0])
    values = [each[metric.fields[2]] for each in summaries]
    if None in values:
        return "not finite"
    text = mean_and_spread(values, ".1f", metric.factor)
    success = [100 * s["final_attack_success"] for s in summaries if "final_attack_success" in s]
    return text + (f" ({statistics.fmean(success):.0f})" if success else "")


def summary_of(config: ExperimentConfig, workdir: Path, name: str, directory: bool) -> dict:
    """Return the summary of a run, which is trained unless it is there.

    Args:
      config: of the run.
      workdir: of the table.
      name: of the run.
      directory: whether it gets a directory of its own, besides the file that remembers it.
    """
    from semanticfl_jax.api import run
    from semanticfl_jax.files import write_json

    path, told = workdir / "runs" / f"{name}.json", json.loads(json.dumps(to_dict(config)))
    wanted = workdir / name if directory else None
    if path.exists() and (wanted is None or (wanted / "summary.json").exists()):
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["config"] == told:
            return known["summary"]
    result = run(config, wanted, progress=False, say=None)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"config": told, "summary": result.summary})
    return result.summary


def main(given: flags.Given, workdir: str) -> None:
    """Train what is missing, then print and write the table."""
    values = absl_flags.FLAGS
    for registry, names in ((AGGREGATORS, values.aggregators), (ATTACKS, values.attacks)):
        for name in names:
            registry.check(name, f"--{registry.kind}s")
        if not names:
            raise ConfigError(f"--{registry.kind}s must name one at least")
    seeds = parse_seeds(values.seeds)
    pairs = [(a, b) for a in values.aggregators for b in values.attacks]
    plans = {(*pair, seed): plan(given, *pair, seed) for pair in pairs for seed in seeds}

    from semanticfl_jax.files import write_text

    summaries: dict[tuple[str, str], list[dict]] = {pair: [] for pair in pairs}
    for number, ((*pair, seed), config) in enumerate(plans.items(), start=1):
        name = "-".join(pair) + f"-seed{seed}"
        print(f"[{number}/{len(plans)}] {name}", flush=True)
        summary = summary_of(config, Path(workdir), name, values.directories)
        summaries[tuple(pair)].append(summary)
    lines = [["aggregator", *values.attacks], ["---", *["---:"] * len(values.attacks)]]
    lines += [
        [a, *(cell(summaries[a, attack]) for attack in values.attacks)] for a in values.aggregators
    ]
    text = "\n".join(map(markdown.row, lines))
    write_text(Path(workdir) / "robustness.md", text + "\n")
    print(f"\n{text}\n\nwrote {Path(workdir) / 'robustness.md'}")


if __name__ == "__main__":
    flags.run(
        main, ExperimentConfig, default="robustness", define=define, help=describe_choices, raw=True
    )
