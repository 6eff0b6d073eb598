"""Tables that say more about images: metadata.csv, .tsv, .jsonl or .parquet beside them.

Hugging Face's imagefolder convention: the column `file_name` is relative to the table's folder. A
column can be any text; values that are missing matter only if the column is used.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from semanticfl_jax.data.sources.file_tree import Archive, Directory
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.optional import optional_imports

FILE = "file_name"
#: Forms that are read, the first that is there is used.
FORMS = (".csv", ".tsv", ".jsonl", ".parquet")
_TABLES = (*FORMS, ".txt", ".json", ".ndjson", ".xlsx", ".xls", ".ods", ".feather", ".arrow")

Row = Mapping[str, str | None]


def find_table(tree: Directory | Archive, prefix: str) -> str | None:
    """Return the name of a folder's table, None if there is none; "Metadata.CSV" is one, too."""
    found = {
        name.removeprefix(prefix).lower(): name
        for name in tree.names
        if name.startswith(prefix) and "/" not in name.removeprefix(prefix)
    }
    return next((found[f"metadata{form}"] for form in FORMS if f"metadata{form}" in found), None)


def other_tables(tree: Directory | Archive, prefix: str) -> list[str]:
    """Return the names of files in a folder that look like tables but are not read."""
    table = find_table(tree, prefix)
    return [
        name
        for name in tree.names
        if name.startswith(prefix)
        and "/" not in name.removeprefix(prefix)
        and name.lower().endswith(_TABLES)
        and name != table
    ]


def read_table(tree: Directory | Archive, name: str) -> tuple[dict[str, Row], str]:
    """Read the other columns of a table by file, and what the user should know of the reading.

    Returns:
      For each `file_name`, without "./" and with forward slashes, the row's values; None for one
      that is missing: empty, blank, null or no number (NaN). And a sentence, or "".

    Raises:
      SemanticFLError: if the file is no such table; the message names it.
    """
    try:
        with tree.open(name) as file:
            content = file.read()
        rows, note = _READERS[name[name.rindex(".") :].lower()](content)
    except (SemanticFLError, OSError) as error:
        raise SemanticFLError(f"{tree.path / name}: {error}") from None
    table: dict[str, Row] = {}
    for number, row in rows:
        file_name = row.pop(FILE, None)
        if not file_name:
            raise SemanticFLError(f"{tree.path / name}: row {number} has no {FILE}")
        key = file_name.replace("\\", "/").removeprefix("./")
        if key in table:
            raise SemanticFLError(f"{tree.path / name}: {key} has two rows")
        table[key] = {
            column: value if value and value.strip() else None for column, value in row.items()
        }
    if not table:
        raise SemanticFLError(f"{tree.path / name} must have a row an image, and has none")
    return table, note and f"{tree.path / name} {note}"


def _csv(content: bytes) -> tuple[list[tuple[int, dict[str, Any]]], str]:
    text, note = _text(content)
    header, at = re.split(r"[\r\n]", text.strip(), maxsplit=1)[0], 0
    lines = []
    try:
        fits = (d for d in ",;\t|" if FILE in next(csv.reader([header], delimiter=d), ()))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=next(fits, ","), strict=True)
        for number, line in enumerate(reader, start=1):
            at = reader.line_num
            if line:
                lines.append((number, line))
    except csv.Error as error:
        raise SemanticFLError(f"line {at + 1}: {error}") from None
    columns = lines[0][1] if lines else []
    _require_file_column(columns)
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        note = "; ".join(filter(None, (note, f"has two columns {', '.join(twice)}: left out")))
    rows = []
    for number, line in lines[1:]:
        if len(line) != len(columns):
            raise SemanticFLError(
                f"row {number} has another number of fields, {len(line)}, than the first, "
                f"{len(columns)}"
            )
        row = zip(columns, line, strict=True)
        rows.append((number, {key: value for key, value in row if key and key not in twice}))
    return rows, note


def _jsonl(content: bytes) -> tuple[list[tuple[int, dict[str, Any]]], str]:
    text, note = _text(content)
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SemanticFLError(f"line {number} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise SemanticFLError(f"line {number} must be an object, {{...}}")
        rows.append((number, {str(key): _as_text(value) for key, value in row.items()}))
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    _require_file_column(columns)
    return [(number, {key: row.get(key) for key in columns}) for number, row in rows], note


def _parquet(content: bytes) -> tuple[list[tuple[int, dict[str, Any]]], str]:
    with optional_imports("parquet", "a parquet file"):
        import pyarrow
        from pyarrow import parquet
    try:
        table = parquet.read_table(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise SemanticFLError(f"no whole parquet file: {reason}") from None
    _require_file_column(table.column_names)
    rows = [{str(key): _as_text(value) for key, value in row.items()} for row in table.to_pylist()]
    return list(enumerate(rows, start=1)), ""


_READERS = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def _text(content: bytes) -> tuple[str, str]:
    """Decode UTF-8, UTF-16 or UTF-32 with its mark, or else Windows-1252, which is said."""
    marks = {"utf-32": (b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "utf-16": (b"\xff\xfe", b"\xfe\xff")}
    encoding = next((name for name, of in marks.items() if content.startswith(of)), "utf-8-sig")
    try:
        text = content.decode(encoding)
        if "\0" not in text:
            return text, ""
    except UnicodeDecodeError:
        pass
    try:
        if b"\0" not in content:
            return content.decode("cp1252"), "is not UTF-8: read as Windows-1252 (Latin-1)"
    except UnicodeDecodeError:
        pass
    raise SemanticFLError("must be text in UTF-8, and is in an unknown encoding; save it as UTF-8")


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _require_file_column(columns: Sequence[str]) -> None:
    if FILE not in columns:
        found = ", ".join(columns[:10]) or "none"
        raise SemanticFLError(f"must have a column {FILE}, has {found}")
    if list(columns).count(FILE) > 1:
        raise SemanticFLError(f"has two columns {FILE}")
