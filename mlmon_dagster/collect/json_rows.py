"""Read rows from JSON: an object, an array of objects, or one object a line.

Numbers keep the digits they came with: a row is passed on as the text that it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from sys import intern
from typing import Any, Final

import pyarrow as pa

from mlmon_dagster.collect.problem import Problem
from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats.read_jsonl import NESTED, dig
from mlmon_dagster.ingest.raw import RawFile, rows_of, text_array

MAX_LINE = 1 << 24  # what the reader of landing files takes
_SPACE = " \t\r\n"
_NEWLINES = str.maketrans("\r\n", "  ")


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


class _Repeated(dict[str, Any]):
    """An object that holds the same key twice."""


@dataclass(frozen=True)
class JsonRow:
    """One row: its text, its cells, and why it is none, if so."""

    text: str
    cells: Mapping[str, Any]
    fault: str = ""


def read_array(text: str, max_rows: int) -> list[JsonRow]:
    """Read an object or an array of objects, one more than the limit at most.

    Raises:
        Problem: If the text is not JSON, or neither of the two.
    """
    try:
        # A row takes a hundred times the memory of the two characters that it may come as.
        rows = list(islice(_elements(text), max_rows + 1))
    except json.JSONDecodeError as error:
        found = f"Not JSON at line {error.lineno}, column {error.colno}: {error.msg}."
        raise Problem("malformed", found) from None
    except RecursionError:
        raise Problem("malformed", "The JSON is nested too deeply.") from None
    return rows


def read_lines(text: str, max_rows: int) -> list[JsonRow]:
    """Read one object a line, one more than the limit at most.

    Blank lines are no rows, a bad line is a row with a fault.
    """
    lines = (line for line in _split(text) if line and not line.isspace())
    return [_line(line) for line in islice(lines, max_rows + 1)]


def _split(text: str) -> Iterator[str]:
    begin = 0
    while (end := text.find("\n", begin)) >= 0:
        yield text[begin:end]
        begin = end + 1
    yield text[begin:]


def raw_file(rows: Sequence[JsonRow], wanted: Sequence[Column]) -> RawFile:
    """Return the wanted columns of the rows, as text."""
    present: dict[str, None] = {}
    for row in rows:
        if row.cells.keys() - present.keys():
            present.update(dict.fromkeys(row.cells))
    columns: dict[str, pa.Array] = {}
    for column in wanted:
        found = [_cell(row.cells, column.source) for row in rows]
        if column.source in present or any(is_there for is_there, _ in found):
            columns[column.source] = text_array([_text(cell) for _, cell in found])
            present.setdefault(column.source)
    roots = {name.partition(".")[0] for name in columns if "." in name}
    named = tuple(name for name in present if name in columns or name not in roots)
    return RawFile(columns, len(rows), named, rows_of)


def lines_of(
    rows: Sequence[JsonRow], wanted: Sequence[Column], kept: Sequence[int], present: Sequence[str]
) -> list[bytes]:
    """Write the kept rows as JSON Lines, with the wanted columns only."""
    is_plain = set(present) <= {column.source for column in wanted}
    if is_plain and len(kept) == len(rows) and not any("." in name for name in present):
        return [row.text.translate(_NEWLINES).encode() + b"\n" for row in rows]
    # A column that must exist may be in none of the rows that are kept; ingest asks for it.
    keys = {column.source: (json.dumps(column.source), column.must_exist) for column in wanted}
    return [_projected(rows[i].cells, keys) for i in kept]


def _projected(cells: Mapping[str, Any], keys: Mapping[str, tuple[str, bool]]) -> bytes:
    found = {name: _cell(cells, name) for name in keys}
    parts = (
        f"{key}: {_spelled(found[name][1])}"
        for name, (key, must_exist) in keys.items()
        if must_exist or found[name][0]
    )
    return ("{" + ", ".join(parts) + "}\n").encode()


def _cell(cells: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """Return whether a row has a column, and its cell; a dotted name may lead into objects."""
    if name in cells:
        return True, cells[name]
    return dig(cells, tuple(name.split("."))) if "." in name else (False, None)


def _spelled(cell: Any) -> str:
    return cell if type(cell) is _Number else json.dumps(cell)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Each row brings its own copy of every name; they would be a sixth of a large batch's memory.
    row = {intern(name): cell for name, cell in pairs}
    return row if len(row) == len(pairs) else _Repeated()


_DECODER: Final = json.JSONDecoder(
    parse_float=_Number, parse_int=_Number, parse_constant=_Number, object_pairs_hook=_object
)


def _elements(text: str) -> Iterator[JsonRow]:
    at = _after_space(text, 0)
    if not text.startswith("[", at):
        row, end = _DECODER.raw_decode(text, at)
        if not isinstance(row, dict):
            raise Problem("malformed", "The JSON is neither an object nor an array of objects.")
        _expect_end(text, end)
        yield _row(text[at:end], row)
        return
    at = _after_space(text, at + 1)
    if text.startswith("]", at):
        _expect_end(text, at + 1)
        return
    while True:
        row, end = _DECODER.raw_decode(text, at)
        yield _row(text[at:end], row)
        at = _after_space(text, end)
        if text.startswith("]", at):
            _expect_end(text, at + 1)
            return
        if not text.startswith(",", at):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        at = _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _expect_end(text: str, at: int) -> None:
    end = _after_space(text, at)
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _line(line: str) -> JsonRow:
    text = line.strip(_SPACE)
    try:
        return _row(text, _DECODER.decode(text))
    except (json.JSONDecodeError, RecursionError):
        return JsonRow("", {}, "malformed_json")


def _row(text: str, row: Any) -> JsonRow:
    if len(text) > MAX_LINE // 4:  # a character is at most four bytes
        return JsonRow("", {}, "too_large")
    if type(row) is _Repeated:
        return JsonRow("", {}, "duplicate_column")
    if not isinstance(row, dict):
        return JsonRow("", {}, "malformed_json")
    return JsonRow(text, row)


def _text(cell: Any) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return NESTED
