"""Take rows out of a landing file as they were written: their lines, or cells of Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlmon_dagster.ingest.raw import RawFile
from mlmon_dagster.store.tables.kept_rows import CELL


@dataclass(frozen=True)
class Cut:
    """Rows of a file, and those that cannot be parted from them.

    Attributes:
        numbers: Which rows these are, ascending.
        columns: What is kept of each: ``lines`` and ``records``, or ``cell:NAME``.
        head: The bytes before the first row.
    """

    numbers: list[int]
    columns: pa.Table
    head: bytes = b""


def cut_rows(path: Path, raw: RawFile, rows: Sequence[int]) -> Cut:
    """Take rows out of a file.

    Args:
        path: The file, not packed.
        raw: What was read from it.
        rows: Row numbers, ascending.
    """
    if raw.lines_of is None:
        return Cut(list(rows), _cells(path, np.array(rows, dtype=np.int64)))
    numbers, lines = list(rows), raw.lines_of(rows)
    if raw.shares_lines:
        numbers, lines = _with_neighbours(raw.lines_of(range(raw.n_rows)), rows)
    head = range(1, raw.n_head + 1)
    texts = _texts(path, {*head, *(line for mine in lines for line in mine)})
    records = [[texts[line] for line in mine] for mine in lines]
    columns = pa.table(
        {
            "lines": pa.array([list(mine) for mine in lines], pa.list_(pa.int64())),
            "records": pa.array(records, pa.list_(pa.binary())),
        }
    )
    return Cut(numbers, columns, b"".join(texts[line] for line in head))


def _with_neighbours(
    every: Sequence[Sequence[int]], rows: Sequence[int]
) -> tuple[list[int], list[Sequence[int]]]:
    """Return the rows and all that share lines with them, however far."""
    lines = {line for row in rows for line in every[row]}
    while True:
        numbers = [row for row, mine in enumerate(every) if not lines.isdisjoint(mine)]
        more = {line for row in numbers for line in every[row]}
        if more == lines:
            return numbers, [every[row] for row in numbers]
        lines = more


def _texts(path: Path, wanted: set[int]) -> dict[int, bytes]:
    found = {}
    last = max(wanted, default=0)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number in wanted:
                found[number] = line
            if number >= last:
                break
    return found


def _cells(path: Path, rows: np.ndarray) -> pa.Table:
    """Take rows out of a Parquet file, one row group at a time."""
    parts = []
    start = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            mine = rows[(rows >= start) & (rows < end)] - start
            if mine.size:
                parts.append(file.read_row_group(group).take(pa.array(mine)))
            start = end
    table = pa.concat_tables(parts)
    return table.rename_columns([f"{CELL}{name}" for name in table.column_names])
