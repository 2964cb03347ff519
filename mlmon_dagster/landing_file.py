"""What a serving process writes: cells of JSON, and landing files that appear whole.

A reader sees all of a file or nothing, and a power cut changes neither. Standard library only: a
serving process uses this without the rest of the package; numpy, pandas and other scalars are known
by what they can do.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import enum
import json
import math
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

Cell = str | int | float | bool | None
_SIMPLE = frozenset({float, int, str, bool, bytes, type(None)})
_ROW_BYTES = 200  # of a row, besides the values
_SAMPLED = 100  # elements of a list or mapping that are looked at
_MIDNIGHT = "T00:00:00+00:00"
ENDING = ".jsonl"


def encode_row(row: Mapping[str, Any], on_bad: Callable[[str, object], None]) -> bytes:
    """Write a row as one line of JSON.

    Args:
        row: Column name -> value; see `to_cell` for what values may be.
        on_bad: Called with column and value where a value is no cell; null is written instead.
    """
    cells: dict[str, Cell] = {}
    for name, value in row.items():
        kind = type(value)
        if kind in _PLAIN or (kind is float and math.isfinite(value)):
            cells[name] = value
            continue
        try:
            cells[name] = to_cell(value)
        except Exception:  # a value of a foreign class may do anything when looked at
            on_bad(name, value)
            cells[name] = None
    return _ENCODER.encode(cells).encode("ascii") + b"\n"


def to_cell(value: object) -> Cell:
    """Return a value as a JSON cell that ingest reads back as the same value.

    - None, NaT and NA become null; NaN and the infinities their names, which ingest counts.
    - Aware times become ISO 8601 in UTC, naive ones stay naive (the spec's ``time.naive``
      decides), a numpy time is UTC; a date is its first moment in UTC.
    - Decimals keep their digits, UUIDs become text, enum members their value, bytes UTF-8 text.
    - Scalars of numpy, pandas, PyTorch and the like become what their ``item()`` is.

    Raises:
        TypeError: If it is a list, a mapping or another value that is no single cell.
        UnicodeDecodeError: If bytes are not UTF-8.
    """
    for kind, convert in _CONVERSIONS:
        if isinstance(value, kind):
            return convert(value)
    if type(value).__name__ in {"NAType", "NaTType"}:
        return None
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        return _scalar(value)
    raise TypeError(f"{type(value).__name__} is no single value")


def _time(value: dt.datetime) -> str | None:
    if value != value:  # NaT calls itself a datetime
        return None
    return (value.astimezone(dt.UTC) if value.tzinfo else value).isoformat()


def _float(value: float) -> Cell:
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _decimal(value: decimal.Decimal) -> Cell:
    return str(value) if value.is_finite() else _float(float("nan" if value.is_nan() else value))


def _scalar(value: Any) -> Cell:
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "M":
        text = str(value)
        if text == "NaT":
            return None
        return text + ("Z" if "T" in text else _MIDNIGHT)
    plain = value.item()
    return _float(float(plain)) if type(plain) is type(value) else to_cell(plain)


_PLAIN: Final = frozenset({str, int, bool, type(None)})
# In this order: a bool is an int, a datetime is a date, and an enum member may be any of them.
_CONVERSIONS: Final[tuple[tuple[type, Callable[[Any], Cell]], ...]] = (
    (enum.Enum, lambda value: to_cell(value.value)),
    (type(None), lambda _: None),
    (bool, bool),
    (int, int),
    (float, _float),
    (str, str),
    (dt.datetime, _time),
    (dt.date, lambda value: value.isoformat() + _MIDNIGHT),
    (decimal.Decimal, _decimal),
    (uuid.UUID, str),
    (bytes, lambda value: value.decode("utf-8")),
)
_ENCODER = json.JSONEncoder(allow_nan=False, check_circular=False, separators=(",", ":"))


def size_of(
    prediction_id: object, features: Mapping[str, object] | None, columns: Mapping[str, object]
) -> int:
    """Estimate what a row takes in memory; of lists and arrays also what they hold."""
    size = _ROW_BYTES + _bytes_of(prediction_id)
    for values in (features, columns):
        if values:
            size += sys.getsizeof(values)
            if _SIMPLE.issuperset(map(type, values.values())):
                size += sum(map(sys.getsizeof, values.values()))
            else:
                size += sum(map(_bytes_of, values.values()))
    return size


def _bytes_of(value: object, depth: int = 2) -> int:
    size = sys.getsizeof(value, _ROW_BYTES)
    if type(value) in _SIMPLE:
        return size
    held = getattr(value, "nbytes", 0)  # an array or a tensor, which may be a view
    if isinstance(held, int):
        size = max(size, held)
    if depth and isinstance(value, list | tuple | set | frozenset | dict):
        elements = value.values() if isinstance(value, dict) else value
        some = [_bytes_of(element, depth - 1) for element in islice(elements, _SAMPLED)]
        size += sum(some) * len(value) // max(len(some), 1)
    return size


def publish(folder: Path, name: str, lines: Sequence[bytes]) -> Path:
    """Write lines to ``folder/name`` by way of a temporary file, durably.

    When it returns, file and name have reached the disk. Ingest does not see temporary files:
    their names begin with a dot and end in ``.tmp``. A file of the same name is replaced.

    Args:
        folder: Where to; made if missing.
        name: The file's name.
        lines: The content, in pieces.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the name is not there then.
    """
    make_folder(folder)
    target = folder / name
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(folder)
    return target


def clear_leftovers(folder: Path, older_than: float = 86_400.0) -> None:
    """Delete temporary files of processes that were killed while they wrote.

    Args:
        folder: A landing folder; it need not exist.
        older_than: Seconds since their last change; a younger one may still be written to.
    """
    limit = time.time() - older_than
    for path in folder.glob(f".*{ENDING}.*.tmp"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < limit:
                path.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each of them durable in its own parent."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for child in reversed(missing):
        child.mkdir(exist_ok=True)
        sync_folder(child.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
