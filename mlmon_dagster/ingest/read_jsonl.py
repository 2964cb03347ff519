"""Read JSON Lines as text: numbers keep the digits they were written with."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlmon_dagster.ingest.layout import Column
from mlmon_dagster.ingest.raw import (
    Limits,
    RawFile,
    check_header,
    check_size,
    refused,
    text_array,
)

_MAX_LINE = 1 << 24
# A nested value is no cell of a table; the NUL makes the cell refused as of the wrong type.
_NESTED = "\0"


def read_jsonl(path: Path, place: str, wanted: Sequence[Column], limits: Limits) -> RawFile:
    """Read a file of one JSON object a line; a key that a row lacks is null in that row.

    Raises:
        SchemaError: If a line is cut, is no JSON object or repeats a key, if the file is not
            UTF-8 or if a column is in no row.
    """
    columns: dict[str, list[str | None]] = {column.source: [] for column in wanted}
    present: dict[str, None] = {}
    numbers: list[int] = []
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), 1):
            if line.isspace():
                continue
            row = _parse(line, place, number)
            if len(numbers) >= limits.max_rows:
                check_size(place, len(numbers) + 1, len(columns), limits)
            numbers.append(number)
            if row.keys() - present.keys():
                present.update(dict.fromkeys(row))
            for name, cells in columns.items():
                cells.append(_text(row.get(name)))
    if numbers:
        check_header(place, tuple(present), wanted)
    arrays = {name: text_array(cells) for name, cells in columns.items() if name in present}
    return RawFile(arrays, len(numbers), tuple(present), _places(numbers))


def _parse(line: bytes, place: str, number: int) -> dict[str, Any]:
    where = f"{place}, line {number}"
    try:
        row = _DECODER.decode(line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
    except UnicodeDecodeError as error:
        found = f"byte {error.start + 1} of the line is not UTF-8; expected UTF-8."
        raise refused(where, "not_utf8", found) from error
    except _RepeatedKeyError as error:
        raise refused(where, "duplicate_column", "a key is present twice in one object.") from error
    except (json.JSONDecodeError, RecursionError) as error:
        if not line.endswith(b"\n"):
            found = "the last line is cut off; expected a whole JSON object and a line end."
            raise refused(where, "cut_line", found) from error
        raise refused(where, "malformed_json", "not JSON; expected a JSON object.") from error
    if not isinstance(row, dict):
        found = f"a JSON {type(row).__name__}; expected a JSON object."
        raise refused(where, "malformed_json", found)
    return row


class _RepeatedKeyError(ValueError):
    """One object holds the same key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise _RepeatedKeyError
    return row


_DECODER = json.JSONDecoder(
    parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=_unique
)


def _text(cell: Any) -> str | None:
    if cell is None or type(cell) is str:
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return _NESTED


def _places(numbers: list[int]) -> Callable[[Sequence[int]], list[str]]:
    return lambda rows: [f"line {numbers[row]}" for row in rows]
