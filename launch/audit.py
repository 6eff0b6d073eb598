r"""Audits differential privacy: what noise leaves of an attack on who took part.

    python -m launch.audit --config=launch/configs/audit.py --workdir=DIR \
        [--noises=0,16,8,4,2] [--canaries=400] [--seeds=0,1,2] [--config.FIELD=VALUE ...]

To the clients of the configuration it adds canaries, each of which takes part with probability
1/2, trains a run for every noise multiplier (0: without noise), and tells from the final model who
of them did (Steinke et al., NeurIPS 2023). DIR/audit.md and audit.json hold the accountant's
epsilon, which is an upper bound, beside the attack's, a lower one with 95 % confidence: with as few
canaries as these it cannot be high. Finished runs are read when the command is run again.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags as absl_flags

from semanticfl_jax.config import ConfigError, ExperimentConfig
from semanticfl_jax.config.describe import describe_choices
from semanticfl_jax.config.methods import parse_seeds
from semanticfl_jax.config.overrides import combine

from . import flags


def define() -> None:
    """Define the flags beyond those that every command has."""
    absl_flags.DEFINE_list("noises", ["0", "16", "8", "4", "2"], "Noise multipliers; 0: no noise.")
    absl_flags.DEFINE_integer("canaries", 400, "Clients that are added.", lower_bound=40)
    absl_flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of each.")


def main(given: flags.Given, workdir: str) -> None:
    """Train what is missing, then print and write the table."""
    values = absl_flags.FLAGS
    try:
        noises = [float(noise) for noise in values.noises]
    except ValueError as error:
        raise ConfigError(f"--noises must be numbers: {error}") from None
    configs = {
        seed: combine(ExperimentConfig, given.values, {"seed": seed}, optional=given.overrides)
        for seed in parse_seeds(values.seeds)
    }

    from semanticfl_jax.benchmarks import audit
    from semanticfl_jax.data.sources import from_config
    from semanticfl_jax.files import write_json, write_text

    dataset = from_config(next(iter(configs.values())))  # the same for every seed
    rows: dict[float, list[dict]] = {noise: [] for noise in noises}
    for noise in noises:
        for seed, config in configs.items():
            print(f"noise multiplier {noise:g}, seed {seed}", flush=True)
            name = f"noise{noise:g}-seed{seed}"
            found = audit.audit(dataset, config, values.canaries, noise, Path(workdir) / name)
            rows[noise].append({"seed": seed, **found})
    text = audit.table(rows)
    write_json(Path(workdir) / "audit.json", [row for found in rows.values() for row in found])
    write_text(Path(workdir) / "audit.md", text + "\n")
    print(f"\n{text}\n\nwrote {Path(workdir) / 'audit.md'}")


if __name__ == "__main__":
    flags.run(
        main, ExperimentConfig, default="audit", define=define, help=describe_choices, raw=True
    )
