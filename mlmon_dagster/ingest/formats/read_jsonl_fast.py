"""The fast way to read plain JSON Lines; whatever is unusual is left to the careful way.

Arrow parses ten times faster than the standard library, and guesses. So it is told the type of
every column, from the first lines; anything that does not fit, it reports, and nothing is lost:
the file is then read line by line. Both ways give the same cells.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as arrow_json

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.raw import Options, RawFile, check_header, check_size

_SAMPLE = 1_000  # lines
_LEAST_BYTES = 1 << 16  # a small file is read at once anyway
_BLOCK = 1 << 24
_BREAK = b"}\n{"


def read_flat(path: Path, place: str, wanted: Sequence[Column], options: Options) -> RawFile | None:
    """Read a file of flat objects, one on each line; None if it is anything else.

    Raises:
        SchemaError: If it has too many rows, or a column is in no row.
    """
    if path.stat().st_size < _LEAST_BYTES or any("." in column.source for column in wanted):
        return None
    n_rows = _count_lines(path)
    if n_rows is None:
        return None
    check_size(place, n_rows, len(wanted), options.max_rows)
    present, types = _look(path, wanted)
    missing = [c.source for c in wanted if c.source not in present]
    if types is None or _holds_any(path, missing):
        return None
    table = _parse(path, types)
    if table is None or table.num_rows != n_rows:
        return None
    check_header(place, present, wanted)
    arrays = {name: _as_written(table.column(name)) for name in types}
    return RawFile(
        arrays, n_rows, present, lambda rows: [f"line {row + 1}" for row in rows],
        lines_of=lambda rows: [(row + 1,) for row in rows],
    )  # fmt: skip


def _count_lines(path: Path) -> int | None:
    """Count the rows if every line is one object and nothing else."""
    n_lines = n_breaks = 0
    end = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if not _is_utf8(block, file):
                return None
            if not end and not block.startswith(b"{"):
                return None
            n_lines += block.count(b"\n")
            n_breaks += block.count(_BREAK) + (end + block[:2]).count(_BREAK)
            end = (end + block)[-2:]
    n_rows = n_lines if end.endswith(b"\n") else n_lines + 1
    return n_rows if end in (b"}\n",) and n_breaks == n_rows - 1 else None


def _is_utf8(block: bytes, file: Any) -> bool:
    if block.isascii():
        return True
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may be cut in two by the end of the block: look at it whole.
        is_cut = len(block) - error.start < 4 and len(block) == _BLOCK
        if is_cut:
            file.seek(-(len(block) - error.start), 1)
        return is_cut
    return True


def _look(
    path: Path, wanted: Sequence[Column]
) -> tuple[tuple[str, ...], dict[str, pa.DataType] | None]:
    """Return the keys of the first lines, and the type of each wanted column among them."""
    present: dict[str, None] = {}
    kinds: dict[str, set[type]] = {column.source: set() for column in wanted}
    with path.open("rb") as file:
        for line in islice(file, _SAMPLE):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                return (), None
            present.update(dict.fromkeys(row))
            for name, seen in kinds.items():
                if (cell := row.get(name)) is not None:
                    seen.add(type(cell))
    types = {c.source: _type_of(c, kinds[c.source]) for c in wanted if c.source in present}
    if None in types.values():
        return tuple(present), None
    return tuple(present), {name: kind for name, kind in types.items() if kind is not None}


def _type_of(column: Column, seen: set[type]) -> pa.DataType | None:
    if seen <= {str}:
        return pa.string()
    if seen == {bool}:
        return pa.bool_() if column.kind in ("boolean", "label") else None
    if column.kind in ("number", "label"):
        return pa.float64() if seen <= {int, float} else None
    # Fractions as text or times keep their digits only if they are read as text.
    return pa.int64() if seen == {int} else None


def _as_written(values: pa.ChunkedArray) -> pa.Array:
    whole = pa.types.is_integer(values.type)
    return (values.cast(pa.string()) if whole else values).combine_chunks()


def _holds_any(path: Path, names: Sequence[str]) -> bool:
    """Say whether a key that the first lines lack may come later."""
    if not names:
        return False
    keys = [json.dumps(name, ensure_ascii=False).encode() for name in names]
    with path.open("rb") as file:
        end = b""
        while block := file.read(_BLOCK):
            if b"\\u" in block or any(key in end + block for key in keys):
                return True
            end = block[-1024:]
    return False


def _parse(path: Path, types: dict[str, pa.DataType]) -> pa.Table | None:
    try:
        return arrow_json.read_json(
            path,
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=_BLOCK),
            parse_options=arrow_json.ParseOptions(
                explicit_schema=pa.schema(list(types.items())), unexpected_field_behavior="ignore"
            ),
        )
    except (pa.ArrowException, OSError):
        return None
