"""Read the wanted columns of a Parquet file, after its footer has passed the limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.raw import (
    Options,
    RawFile,
    check_header,
    check_size,
    in_parts,
    join_chunks,
    refused,
    rows_of,
)

ENDINGS: Final[tuple[str, ...]] = (".parquet", ".pq")
_MAGIC = b"PAR1"
_BATCH = 50_000  # rows
_BUFFER = 1 << 20  # bytes of each column, read ahead


def read_parquet(
    path: Path, place: str, wanted: Sequence[Column], options: Options
) -> Iterator[RawFile]:
    """Read a Parquet file, a large one in parts, of which one is in memory.

    Page checksums are verified where the writer left them, so that a flipped bit is refused.

    Raises:
        SchemaError: If the file is cut off, damaged, too large or lacks a column.
    """
    _check_magic(path, place)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, buffer_size=_BUFFER) as file:
            present = tuple(file.schema_arrow.names)
            check_header(place, present, wanted, has_schema=True)
            columns = [c.source for c in wanted if c.source in present]
            check_size(
                place, file.metadata.num_rows, len(columns), options.max_rows, options.rows_at_once
            )
            for first, part in _tables(file, columns, options.rows_at_once):
                n_part, chunked = part.num_rows, part.select(columns).columns
                del part
                # Each column is let go once it is copied into one piece: never all of them twice.
                arrays = {name: join_chunks(chunked.pop(0)) for name in columns}
                yield RawFile(arrays, n_part, present, rows_of, first=first)
    except (pa.ArrowException, OSError, ValueError) as error:
        found = f"damaged Parquet ({_first_line(error)}); expected a readable Parquet file."
        raise refused(place, "unreadable", found) from error


def _tables(
    file: pq.ParquetFile, columns: Sequence[str], rows_at_once: int | None
) -> Iterator[tuple[int, pa.Table]]:
    if rows_at_once is None or file.metadata.num_rows <= rows_at_once:
        yield 0, file.read(columns=columns, use_threads=True)
        return
    groups = range(file.metadata.num_row_groups)
    if max(file.metadata.row_group(group).num_rows for group in groups) <= rows_at_once:
        tables = (file.read_row_group(group, columns=columns) for group in groups)
    else:
        # The bytes of all row groups that it is asked for are read ahead, and held to its end.
        read = (file.iter_batches(_BATCH, row_groups=[g], columns=columns) for g in groups)
        tables = (pa.Table.from_batches([batch]) for batch in chain.from_iterable(read))
    yield from in_parts(tables, rows_at_once)


def _check_magic(path: Path, place: str) -> None:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(-min(4, path.stat().st_size), 2)
        tail = file.read(4)
    if head != _MAGIC:
        found = "does not begin as a Parquet file; expected the bytes PAR1."
        raise refused(place, "unreadable", found)
    if tail != _MAGIC:
        raise refused(
            place, "truncated", "the Parquet footer is missing; expected PAR1 at the end."
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
