"""What was done in a table's directory: commands, versions, hours and energy, part by part."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semanticfl_jax.devices.energy import Meter
from semanticfl_jax.devices.versions import code_commit, versions
from semanticfl_jax.errors import ConfigError
from semanticfl_jax.files import write_json

#: Its file, in the table's directory.
RECORD = "reproduction.json"


class Record:
    """The record of a table's directory, where it is resumed the one that is there.

    Attributes:
      parts: one for every call that trained: `command`, `began`, `seconds`, `energy_joules` (None
        where it was not measured), `versions`, `commit`.

    Args:
      directory: of the table.
      table: its name.
      scale: its scale.

    Raises:
      ConfigError: if the directory holds another table, or this one at another scale.
    """

    def __init__(self, directory: Path, table: str, scale: str):
        self._path = directory / RECORD
        self._names = {"table": table, "scale": scale}
        there = _read(self._path) or {**self._names, "parts": []}
        for name, value in self._names.items():
            if there.get(name) != value:
                raise ConfigError(
                    f"--workdir={directory} holds another table; use another directory. "
                    f"Different: --{name} was {there.get(name)}, is {value}"
                )
        self.parts: list[dict[str, Any]] = there["parts"]

    @contextlib.contextmanager
    def part(self, command: str) -> Iterator[None]:
        """Add what is done meanwhile, however it ends.

        Args:
          command: that does it.
        """
        meter, began = Meter(), time.monotonic()
        part: dict[str, Any] = {
            "command": command,
            "began": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": versions(),
            "commit": code_commit(),
        }
        try:
            yield
        finally:
            part |= {"seconds": time.monotonic() - began, "energy_joules": meter.stop()}
            # Another command may have trained a part of the same table meanwhile.
            self.parts = [*(_read(self._path) or {"parts": []})["parts"], part]
            write_json(self._path, {**self._names, "parts": self.parts})

    def hours(self) -> float:
        """Return the hours of all parts together."""
        return math.fsum(part["seconds"] for part in self.parts) / 3600

    def energy(self) -> str:
        """Return the energy of all parts in words; "not measured" where some part's is not."""
        measured = [part["energy_joules"] for part in self.parts]
        if not measured or None in measured or len({*map(frozenset, measured)}) > 1:
            return "not measured: this machine did not tell, or not all the time"
        total = {kind: math.fsum(part[kind] for part in measured) / 3.6e6 for kind in measured[0]}
        said = ", ".join(f"{value:.3g} kWh by its {kind}" for kind, value in total.items())
        return f"{said}, other work of the machine included"


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"{path} is damaged ({error}); delete it: the runs beside it are kept"
        ) from None
