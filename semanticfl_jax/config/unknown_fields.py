"""Answers to a field that does not exist: where it is now, or which one may be meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

#: Fields that were elsewhere before, and where they are now.
MOVED = {
    "num_devices": "runtime.num_devices",
    "clients_per_chunk": "runtime.clients_per_chunk",
    "rounds_per_dispatch": "runtime.rounds_per_dispatch",
    "eval_batch_size": "runtime.eval_batch_size",
    "tuning": "runtime.tuning",
    "client_state_memory": "runtime.client_state_memory",
    "model.conv": "runtime.conv",
}

#: What other frameworks, and people in a hurry, call fields.
CALLED_ELSEWHERE = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "epochs": "local_epochs",
    "local_ep": "local_epochs",
    "clients": "num_clients",
    "n_clients": "num_clients",
    "cohort": "clients_per_round",
    "cohort_size": "clients_per_round",
    "num_rounds": "rounds",
    "comm_rounds": "rounds",
    "algo": "algorithm.name",
    "method": "algorithm.name",
    "strategy": "algorithm.name",
    "arch": "model.name",
    "net": "model.name",
    "data": "dataset",
    "gpus": "runtime.num_devices",
}

#: The fields of a class by name, each with those of its group; with none if it is a plain value.
Fields = Mapping[str, Collection[str]]


def unknown_field(fields: Fields, prefix: str, name: str) -> str:
    """Return the message for a field that does not exist: the nearest name, and all that do."""
    path = prefix + name
    if "." in name:  # in a file, where groups are objects in objects
        group, _, rest = name.partition(".")
        return f'unknown config field {path}; write it as a group, {{"{group}": {{"{rest}": ...}}}}'
    if path in MOVED:
        return f"config field {path} is now {MOVED[path]}"
    known = sorted(prefix + each for each in fields)
    return unknown_name(path, known, [prefix + each for each in guesses(fields, name)])


def unknown_name(path: str, known: list[str], near: list[str] | None = None) -> str:
    """Return the message for the dotted `path`, which is none of `known`; `near` may be meant."""
    near = difflib.get_close_matches(path, known, n=1) if near is None else near
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    listed = f" Fields: {', '.join(known)}" if known else ""
    return f"unknown config field {path}.{hint}{listed}"


def guesses(fields: Fields, name: str) -> list[str]:
    """Return the fields, by dotted path, that may be meant by an unknown `name`.

    What it is called elsewhere, fields of that name in groups, or the nearest name.
    """
    if name in CALLED_ELSEWHERE and CALLED_ELSEWHERE[name].split(".")[0] in fields:
        return [CALLED_ELSEWHERE[name]]
    inside = [f"{group}.{name}" for group, inner in fields.items() if name in inner]
    return inside or difflib.get_close_matches(name, fields, n=1)
