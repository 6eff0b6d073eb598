"""Finished runs beside one another: methods, their task's metric, gains, what else differs."""

from __future__ import annotations

import dataclasses
import os
import statistics
from collections.abc import Sequence
from typing import Any

import semanticfl_jax.config  # noqa: F401 - registers the partition schemes
from semanticfl_jax.config.fields import flatten
from semanticfl_jax.registry import PARTITIONS
from semanticfl_jax.reporting import caveats
from semanticfl_jax.reporting.labels import algorithm_label, method_label
from semanticfl_jax.reporting.metric import Metric
from semanticfl_jax.reporting.runs import (
    NOT_METHOD,
    Method,
    ReportError,
    Run,
    differing_fields,
    group,
    load_runs,
)
from semanticfl_jax.reporting.series import bytes_of
from semanticfl_jax.reporting.spread import some_of

#: Fields (and groups of fields) that a comparison is about.
_COMPARED = ("algorithm", "guidance", *NOT_METHOD)

#: Fields shown with a comparison when all runs share them.
_SETTING = (
    "dataset",
    "partition.scheme",
    "partition.alpha",
    "model.name",
    "num_clients",
    "clients_per_round",
    "rounds",
    "local_epochs",
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Finished runs, grouped into methods.

    Attributes:
      runs: all of them.
      methods: in the order in which they first appear.
      metric: by which the runs' task judges models.
      reference: plain FedAvg, if exactly one of several methods is: the one to which nothing is
        added, or else the only one, or else the only one labelled so; None otherwise.
      left_out: sentences about runs that diverged, and are not among these, and about what else
        must be known.
    """

    runs: tuple[Run, ...]
    methods: tuple[Method, ...]
    metric: Metric
    reference: Method | None
    left_out: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        directories: Sequence[str | os.PathLike],
        diverged: Sequence[str | os.PathLike] = (),
    ) -> Comparison:
        """Read finished runs.

        Args:
          directories: of the runs.
          diverged: of runs that were stopped for that, of which the comparison only tells.

        Raises:
          ReportError: as `load_runs` and `group`, or if the runs' tasks have different metrics.
        """
        return cls.of(group(load_runs(directories)), tuple(map(caveats.not_compared, diverged)))

    @classmethod
    def of(cls, methods: Sequence[Method], left_out: Sequence[str] = ()) -> Comparison:
        """Return the comparison of methods.

        Args:
          methods: each with a label of its own.
          left_out: as the attribute.

        Raises:
          ReportError: if the runs' tasks have different metrics.
        """
        runs = [run for method in methods for run in method.runs]
        metric = _metric(runs)
        return cls(tuple(runs), tuple(methods), metric, _reference(methods), tuple(left_out))

    def rivals(self) -> list[Method]:
        """Return the methods that have a gain over the reference; none without a reference."""
        return [each for each in self.methods if self.reference and each is not self.reference]

    def paired(self, method: Method) -> bool:
        """Return whether gains of a method are by seed."""
        return bool(self.gains_by_seed(method))

    def gains(self, method: Method) -> list[float]:
        """Return gains over the reference: one for each seed that both have.

        Where no seed is common, it is one, the difference of the means: other seeds deal other
        data, so that it says little. They are gains in the mean of the last 10 evaluations, above 0
        where the method is better.
        """
        if self.reference is None or method is self.reference:
            return []
        if _seeds(method) & _seeds(self.reference):
            return list(self.gains_by_seed(method).values())
        own, base = (each.values(self.metric.fields[-1]) for each in (method, self.reference))
        if own and base:
            return [self.metric.gain(statistics.fmean(own), statistics.fmean(base))]
        return []

    def write_gain(self, method: Method) -> str:
        """Return the gains as text, mean ± spread; "" of the reference, "-" where there is none.

        Where some seeds have no gain, the number of those that have one follows; where no seed is
        common, "(not paired)".
        """
        if self.reference is None or method is self.reference:
            return ""
        gains = self.gains(method)
        text = self.metric.write_spread(gains, sign="+")
        if gains and not self.paired(method):
            return f"{text} (not paired)"
        return text + some_of(len(gains), len(_seeds(method) | _seeds(self.reference)))

    def gains_by_seed(self, method: Method) -> dict[Any, float]:
        """Return gains as of `gains` by seed, of the seeds that both have.

        A seed whose mean is not finite, of the method or of the reference, has no gain.
        """
        reference = self.reference
        if reference is None or method is reference:
            return {}
        own, base = (each.by_seed(self.metric.fields[-1]) for each in (method, reference))
        return {seed: self.metric.gain(own[seed], base[seed]) for seed in own if seed in base}

    def setting(self) -> dict[str, Any]:
        """Return the main settings that all runs share."""
        differing = differing_fields(self.runs)
        fields = dict(flatten(self.runs[0].config))
        # It may have been given as arrays.
        fields["dataset"] = self.runs[0].summary.get("dataset", fields.get("dataset"))
        # Data and models of one name may differ.
        told = {"data": "dataset", "model.repr": "model.name"}
        differing += [told[name] for name in differing if name in told]
        scheme = PARTITIONS.get(str(fields.get("partition.scheme")))
        if scheme is None or "alpha" not in scheme.uses:
            fields.pop("partition.alpha", None)
        return {n: fields[n] for n in _SETTING if n in fields and n not in differing}

    def title(self) -> str:
        """Return what is compared, in a line: the data set, and how it was parted."""
        setting = self.setting()
        parts = [str(setting.get("dataset", "several data sets"))]
        if "partition.scheme" in setting:
            parts.append(str(setting["partition.scheme"]))
            scheme = PARTITIONS.get(parts[-1])
            if scheme is not None and "alpha" in scheme.uses and "partition.alpha" in setting:
                parts[-1] += f" {setting['partition.alpha']}"
        return ", ".join(parts)

    def unfair(self) -> list[str]:
        """Return the fields, besides what is compared or swept, in which runs differ."""
        return [
            name
            for name in differing_fields(self.runs)
            if name.split(".")[0] not in _COMPARED and not self._swept(name)
        ]

    def _swept(self, field: str) -> bool:
        """Return whether every method was run with the same values of a field, as in a sweep."""
        values: dict[str, set[str]] = {}
        for run in self.runs:
            label = algorithm_label(run.config)
            values.setdefault(label, set()).add(repr(dict(flatten(run.config)).get(field)))
        return len(set(map(frozenset, values.values()))) == 1


def megabytes(method: Method) -> float | None:
    """Return the mean traffic of a round, both ways, in 10^6 bytes; None if it is not known."""
    rows = [r for run in method.runs for r in run.rows if r.get("bytes_up") is not None]
    return sum(map(bytes_of, rows)) / len(rows) / 1e6 if rows else None


def _metric(runs: Sequence[Run]) -> Metric:
    """Return the metric of all runs; raise `ReportError` if there is more than one."""
    by_metric: dict[Metric, Run] = {}
    for run in runs:
        by_metric.setdefault(Metric.of(run.summary), run)
    if len(by_metric) > 1:
        kinds = ", ".join(f"{metric.name} ({run.path})" for metric, run in by_metric.items())
        raise ReportError(f"cannot compare runs whose tasks have different metrics: {kinds}")
    return next(iter(by_metric))


def _reference(methods: Sequence[Method]) -> Method | None:
    """Return plain FedAvg, if exactly one method is."""
    plain: list[Method] = []
    for name in (method_label, algorithm_label):
        plain = [method for method in methods if name(method.runs[0].config) == "fedavg"]
        if len(plain) == 1 and len(methods) > 1:
            return plain[0]
    return next((method for method in plain if method.label == "fedavg"), None)


def _seeds(method: Method) -> set[Any]:
    return {run.config.get("seed") for run in method.runs}
