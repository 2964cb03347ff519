"""Read the wanted columns of a Parquet file, after its footer has passed the limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.raw import (
    Options,
    RawFile,
    check_header,
    check_size,
    refused,
    rows_of,
)

_MAGIC = b"PAR1"


def read_parquet(path: Path, place: str, wanted: Sequence[Column], options: Options) -> RawFile:
    """Read a Parquet file.

    Page checksums are verified where the writer left them, so that a flipped bit is refused.

    Raises:
        SchemaError: If the file is cut off, damaged, too large or lacks a column.
    """
    _check_magic(path, place)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            present = tuple(file.schema_arrow.names)
            check_header(place, present, wanted, has_schema=True)
            columns = [c.source for c in wanted if c.source in present]
            check_size(place, file.metadata.num_rows, len(columns), options.max_rows)
            chosen = file.read(columns=columns, use_threads=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        found = f"damaged Parquet ({_first_line(error)}); expected a readable Parquet file."
        raise refused(place, "unreadable", found) from error
    n_rows, chunked = chosen.num_rows, chosen.columns
    del chosen
    # Each column is let go once it is copied into one piece: never all of them twice.
    arrays = {name: _one_chunk(chunked.pop(0)) for name in columns}
    return RawFile(arrays, n_rows, present, rows_of)


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


def _one_chunk(values: pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
