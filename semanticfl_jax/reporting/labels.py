"""Labels of methods: the names by which tables and legends call them.

Words come from a method's configuration alone: the algorithm, its guidance, and behind a + each
thing that is added to it. Settings stand in parentheses behind the word they belong to, as the
command line takes them, where methods of the same algorithm differ in them:

    fedavg
    fedavg + majority_sign
    fedavg + top_k (share=0.1)
    fedavg (learning_rate=0.1) + privacy (central, noise_multiplier=0.5)
    semanticfl + student (random_unet)

What goes without saying is left out: the value that most of these methods have, or the default
where some of them have no such field.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.config.fields import default_of, flatten
from semanticfl_jax.config.student import WITHOUT_TARGETS
from semanticfl_jax.errors import ConfigError

#: A method's configuration: values by dotted name.
Fields = Mapping[str, Any]

#: Fields that the words behind a + tell.
_TOLD = (
    "aggregation.aggregator",
    "aggregation.transforms",
    "privacy.name",
    "attack.name",
    "asynchronous.enabled",
)


@dataclasses.dataclass(frozen=True)
class _Part:
    """A word of a label, what stands in parentheses behind it, and the prefix of its fields."""

    word: str
    prefix: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.word} ({', '.join(self.notes)})" if self.notes else self.word


def algorithm_label(config: Mapping[str, Any]) -> str:
    """Name a run's algorithm, as `fedprox + guidance` or `semanticfl (shuffled anchors)`.

    With a student, as `semanticfl + student (random_unet)`; without anchors of classes beside it,
    as `fedavg + student`; where it is a start and nothing else, as `fedavg + student (no targets)`.
    """
    return _text(_algorithm(dict(flatten(config))))


def method_label(config: Mapping[str, Any]) -> str:
    """Name a run's method by its words, as `fedavg + top_k`: its algorithm, and what is added."""
    fields = dict(flatten(config))
    return _text([*_algorithm(fields), *_added(fields)])


def label_methods(methods: Sequence[Fields]) -> list[str]:
    """Return a label for each of several methods, all different.

    Args:
      methods: configurations, all different, by dotted name; without fields that tell no methods
        apart.
    """
    words = [[*_algorithm(fields), *_added(fields)] for fields in methods]
    algorithms = [_text(_algorithm(fields)) for fields in methods]
    rivals: dict[str, list[Fields]] = {}
    for fields, algorithm in zip(methods, algorithms, strict=True):
        rivals.setdefault(algorithm, []).append(fields)
    unsaid = {algorithm: _unsaid(members) for algorithm, members in rivals.items()}
    settings = [
        _to_tell(fields, unsaid[algorithm])
        for fields, algorithm in zip(methods, algorithms, strict=True)
    ]
    labels = [
        _text(_with_settings(parts, fields, names))
        for parts, fields, names in zip(words, methods, settings, strict=True)
    ]
    for label in [label for label, count in collections.Counter(labels).items() if count > 1]:
        places = [place for place, name in enumerate(labels) if name == label]
        alike = [methods[place] for place in places]
        for place in places:
            parts = _with_settings(words[place], methods[place], settings[place])
            labels[place] = _text(_with_notes(parts, _last_notes(methods[place], alike)))
    return _numbered(labels)


def _algorithm(fields: Fields) -> list[_Part]:
    """Return the words of the algorithm and of guidance; methods that share them are rivals."""
    head = _Part(str(fields.get("algorithm.name", "unknown")))
    guided = fields.get("guidance.enabled")
    if not guided and head.word != "feddifrc":  # FedDifRC's features are anchors, too
        return [head]
    classes = [_Part("guidance", "guidance.")] if guided and head.word != "semanticfl" else []
    if guided and fields.get("guidance.student.enabled"):
        weights = [fields.get(f"guidance.{name}", 1) for name in ("lambda_kd", "lambda_con")]
        control = fields.get("guidance.student.control", "none")
        notes = [] if control == "none" else [str(control)]
        if fields.get("guidance.student.weight") == 0 and control not in WITHOUT_TARGETS:
            notes.append("no targets")
        student = _Part("student", "guidance.student.", tuple(notes))
        return [head, *(classes if any(weights) else []), student]
    anchors = fields.get("guidance.anchors", "semantic")
    note = None if anchors == "semantic" else f"{anchors} anchors"
    if fields.get("guidance.anchor_source", "public") == "oracle":
        note = "oracle anchors, not private"
    parts = [head, *classes]
    parts[-1] = dataclasses.replace(parts[-1], notes=(note,) if note else ())
    return parts


def _added(fields: Fields) -> list[_Part]:
    """Return the words of what is added: to updates, to their average, to what clients do."""
    transforms = fields.get("aggregation.transforms")
    names = list(map(str, transforms)) if isinstance(transforms, list | tuple) else []
    default = default_of(ExperimentConfig, "aggregation.aggregator")
    aggregator = fields.get("aggregation.aggregator", default)
    names += [str(aggregator)] if aggregator != default else []
    parts = [_Part(name, f"aggregation.{name}.") for name in names]
    for group in ("privacy", "attack"):
        name = fields.get(f"{group}.name", "none")
        parts += [_Part(group, f"{group}.", (str(name),))] if name != "none" else []
    if fields.get("asynchronous.enabled"):
        parts.append(_Part("asynchronous", "asynchronous."))
    return parts


def _unsaid(rivals: Sequence[Fields]) -> dict[str, str | None]:
    """Return by field the value, as its key, that goes without saying; None where none does.

    Args:
      rivals: methods of the same algorithm.
    """
    found: dict[str, str | None] = {}
    for name in set().union(*rivals):
        counts = collections.Counter(_key(each[name]) for each in rivals if name in each)
        key, count = counts.most_common(1)[0]
        lacking = len(rivals) - counts.total()
        if lacking:
            found[name] = _default_key(name)
        else:
            found[name] = key if 2 * count > len(rivals) else None
    return found


def _to_tell(fields: Fields, unsaid: Mapping[str, str | None]) -> list[str]:
    """Return the fields of a method that its label has to tell, beside its words."""
    return [
        name
        for name in _in_effect(fields)
        if name not in _TOLD and _key(fields[name]) != unsaid[name]
    ]


def _in_effect(fields: Fields) -> list[str]:
    """Return the fields of a method without those of groups that are off."""
    guided = fields.get("guidance.enabled") or fields.get("algorithm.name") == "feddifrc"
    student = fields.get("guidance.enabled") and fields.get("guidance.student.enabled")
    added = {part.prefix for part in _added(fields)}
    off = [prefix for prefix in ("privacy.", "attack.", "asynchronous.") if prefix not in added]
    off += ([] if guided else ["guidance."]) + ([] if student else ["guidance.student."])
    return [name for name in fields if not name.startswith(tuple(off))]


def _default_key(name: str) -> str | None:
    try:
        return _key(default_of(ExperimentConfig, name))
    except ConfigError:  # of another version, or of a plug-in that is not loaded
        return None


def _key(value: Any) -> str:
    """Return a text that equal values share, and no others: 1 is not 1.0, nor true."""
    return json.dumps(value, sort_keys=True)


def _with_settings(parts: Sequence[_Part], fields: Fields, names: Collection[str]) -> list[_Part]:
    """Return words with settings, each behind the word with the longest prefix of its field."""
    owners = {name: _owner(parts, name) for name in _in_effect(fields)}
    found = []
    for place, part in enumerate(parts):
        own = [name for name, owner in owners.items() if owner == place]
        notes = [f"{_short(name, own)}={_written(fields[name])}" for name in own if name in names]
        found.append(dataclasses.replace(part, notes=(*part.notes, *notes)))
    return found


def _owner(parts: Sequence[_Part], name: str) -> int:
    owners = [place for place, part in enumerate(parts) if name.startswith(part.prefix)]
    return max(owners, key=lambda place: len(parts[place].prefix))


def _short(name: str, names: Iterable[str]) -> str:
    """Return the shortest end of a dotted name that is no end of another one; else all of it."""
    words = name.split(".")
    others = [f".{other}" for other in names if other != name]
    for count in range(1, len(words)):
        end = ".".join(words[-count:])
        if not any(other.endswith(f".{end}") for other in others):
            return end
    return name


def _written(value: Any) -> str:
    """Return a value as the command line takes it, quoted where a shell needs it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_written, value)) or "none"
    if isinstance(value, str):
        return shlex.quote(value) if value.isprintable() else repr(value)
    return "none" if value is None else _key(value).removesuffix(".0")


def _last_notes(own: Fields, alike: Sequence[Fields]) -> list[str]:
    """Return what else tells a method apart: fields that it lacks, and such as have no effect."""
    names = sorted(set().union(*alike))
    lacking = [name for name in names if name not in own]
    differing = [
        name
        for name in names
        if len({_key(fields[name]) for fields in alike if name in fields}) > 1 and name in own
    ]
    notes = [f"{name}={_written(own[name])}" for name in differing]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        notes.append(f"without {lacking[0]}{more}")
    return notes


def _with_notes(parts: Sequence[_Part], notes: Iterable[str]) -> list[_Part]:
    head, *others = parts
    return [dataclasses.replace(head, notes=(*head.notes, *notes)), *others]


def _numbered(labels: Sequence[str]) -> list[str]:
    """Return labels of which those that are there already have a number."""
    found: list[str] = []
    for label in labels:
        name, number = label, 1
        while name in found or (number > 1 and name in labels):
            number += 1
            name = f"{label} #{number}"
        found.append(name)
    return found


def _text(parts: Iterable[_Part]) -> str:
    return " + ".join(map(str, parts))
