r"""Trains several methods with several seeds, one after another, and compares them.

    python -m launch.compare --config=launch/configs/digits.py --workdir=DIR \
        --algorithms=fedavg,semanticfl --seeds=0,1,2 [--config.FIELD=VALUE ...]

A method is an algorithm with settings of its own; these are FedAvg, SemanticFL, and its controls:

    --methods="fedavg; semanticfl; semanticfl guidance.anchors=shuffled; \
        semanticfl guidance.anchors=random_orthogonal"

All algorithms of the paper's tables, each without and with semantic guidance:

    --algorithms=fedavg,fedprox,scaffold,moon,fedrcl,feddisco,fedcda,feddifrc --guided=both

Every run has its own directory, DIR/METHOD-seedN, and is what launch.train would make of it: run
the command again and finished runs are read, interrupted ones go on.
"""

import ast
from pathlib import Path

from absl import flags as absl_flags

from semanticfl_jax.config import ConfigError, ExperimentConfig, check_override, from_dict, to_dict

from . import flags


def define() -> None:
    """The flags beyond those that every command has."""
    absl_flags.DEFINE_list("algorithms", ["fedavg", "semanticfl"], "Algorithms to train.")
    absl_flags.DEFINE_string(
        "methods",
        None,
        "Instead of --algorithms: methods with ; between them, each an algorithm and FIELD=VALUE "
        "settings with spaces between them.",
    )
    absl_flags.DEFINE_enum(
        "guided",
        None,
        ["no", "yes", "both"],
        "Whether each method is guided by the semantic anchors; both: once without and once with. "
        "By default as the configuration and the method say.",
    )
    absl_flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds to train each method with.")


def parse_methods(text: str) -> dict[str, dict[str, object]]:
    """Names and settings {field: value} of methods written as `--methods` takes them.

    Raises:
      ConfigError: for a setting that is not FIELD=VALUE, an unknown field, or a method named twice.
    """
    methods = {}
    for method in filter(None, map(str.strip, text.split(";"))):
        algorithm, *settings = method.split()
        name, values = algorithm, {"algorithm.name": algorithm}
        for setting in settings:
            field, equals, value = setting.partition("=")
            if not equals:
                raise ConfigError(f"--methods: {setting!r} in {method!r} is not FIELD=VALUE")
            check_override(ExperimentConfig, field)
            values[field] = _literal(value)
            name += f"-{field.rpartition('.')[-1]}-{value}".replace("/", "_")
        if name in methods:
            raise ConfigError(f"--methods: {name} is there twice")
        methods[name] = values
    return methods


def guide(methods: dict[str, dict[str, object]], guided: str | None) -> dict:
    """Methods with and without semantic guidance: `guided` is no, yes, both, or None (as it is).

    SemanticFL is guided anyway, and stays as it is; guided methods are named METHOD-guided.
    """
    if guided is None:
        return methods
    chosen = {}
    for name, settings in methods.items():
        if settings["algorithm.name"] == "semanticfl":
            chosen[name] = settings
            continue
        if guided in ("no", "both"):
            chosen[name] = {**settings, "guidance.enabled": False}
        if guided in ("yes", "both"):
            chosen[f"{name}-guided"] = {**settings, "guidance.enabled": True}
    return chosen


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def plan(
    config: ExperimentConfig, methods: dict[str, dict[str, object]], seeds: list[str]
) -> dict[str, ExperimentConfig]:
    """The runs to make, {name: configuration}; raises `ConfigError` for one that is not valid."""
    runs = {}
    for seed in seeds:
        if not seed.isdecimal():
            raise ConfigError(f"--seeds must be whole numbers, got {seed!r}")
        for name, settings in methods.items():
            values = to_dict(config)
            for field, value in ({"seed": int(seed)} | settings).items():
                *groups, last = field.split(".")
                place = values
                for group in groups:
                    place = place[group]
                place[last] = value
            runs[f"{name}-seed{seed}"] = from_dict(ExperimentConfig, values)
    return runs


def main(config: ExperimentConfig, workdir: str) -> None:
    """Trains what is missing, then prints and plots the comparison."""
    values = absl_flags.FLAGS
    try:
        methods = parse_methods(values.methods or ";".join(values.algorithms))
        runs = plan(config, guide(methods, values.guided), values.seeds)
    except ConfigError as error:
        flags.fail(error)

    from semanticfl_jax.reporting.report import compare
    from semanticfl_jax.simulation import experiment

    for number, (name, run_config) in enumerate(runs.items(), start=1):
        print(f"\n[{number}/{len(runs)}] {name}")
        try:
            experiment.run(run_config, Path(workdir) / name)
        except experiment.InputError as error:
            flags.fail(error)
        except experiment.Stopped as stop:
            flags.stop(stop)
    print("\n" + compare([Path(workdir) / name for name in runs], out=workdir))


if __name__ == "__main__":
    flags.run(main, ExperimentConfig, default="digits", define=define)
