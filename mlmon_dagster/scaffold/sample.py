"""Read a sample of event files of any known format, with inferred types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mlmon_dagster.errors import ConfigError


@dataclass(frozen=True)
class Sample:
    """Rows to look at.

    Attributes:
        table: The rows; a column's type is the file's own, or inferred from text.
        n_rows: Rows in all the files, or those read where a format does not say.
        suffix: The extension of the files, such as ``.parquet``.
    """

    table: pa.Table
    n_rows: int
    suffix: str


def columns_of(file: Path) -> tuple[str, ...]:
    """Return the names of a file's columns.

    Raises:
        ConfigError: As `read_sample`.
    """
    return tuple(read_sample([file], max_rows=1_000).table.column_names)


def read_sample(files: Sequence[Path], max_rows: int = 200_000) -> Sample:
    """Read rows of each file in turn, an equal share of each.

    Args:
        files: Files of one format; the extension names it.
        max_rows: At most about so many rows in all.

    Raises:
        ConfigError: If a file is missing, empty, of an unknown format, or cannot be read.
    """
    suffixes = {file.suffix.lower() for file in files}
    if len(suffixes) != 1 or not suffixes <= set(_READERS):
        raise ConfigError(
            f"{', '.join(sorted(suffixes)) or 'no'} files: expected files of one format, "
            f"one of {', '.join(_READERS)}."
        )
    (suffix,) = suffixes
    share = max(max_rows // len(files), 1)
    tables: list[pa.Table] = []
    total = 0
    for file in files:
        try:
            table, n_rows = _READERS[suffix](file, share)
        except FileNotFoundError as error:
            raise ConfigError(f"There is no file {file}.") from error
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{file} cannot be read as {suffix[1:]}: {error}") from error
        tables.append(table)
        total += n_rows
    table = pa.concat_tables(tables, promote_options="permissive")
    if not table.num_rows:
        raise ConfigError(
            f"{files[0]}: no rows. A spec is written from events; give a file of some."
        )
    return Sample(table, total, suffix)


def _read_parquet(file: Path, most: int) -> tuple[pa.Table, int]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        total = parquet.metadata.num_rows
        groups = _spread(parquet, most)
        table = parquet.read_row_groups(groups) if groups else parquet.read()
    # Rows from all over the groups: files are often sorted by time or key.
    step = max(table.num_rows // most, 1)
    return table.take(pa.array(range(0, table.num_rows, step))), total


def _spread(parquet: object, most: int) -> list[int]:
    """Return row groups from the first to the last, that hold some ``most`` rows together."""
    metadata = parquet.metadata  # type: ignore[attr-defined]
    n = metadata.num_row_groups
    if not n:
        return []
    wanted = max(1, min(n, round(n * most / max(metadata.num_rows, 1))))
    return sorted({round(i * (n - 1) / max(wanted - 1, 1)) for i in range(wanted)})


def _read_csv(file: Path, most: int) -> tuple[pa.Table, int]:
    from pyarrow import csv

    options = csv.ConvertOptions(strings_can_be_null=True, null_values=["", "NULL", "null"])
    reader = csv.open_csv(file, convert_options=options)
    return _first(iter(reader), most, reader.schema)


def _read_jsonl(file: Path, most: int) -> tuple[pa.Table, int]:
    from pyarrow import json

    reader = json.open_json(file)
    return _first(iter(reader), most, reader.schema)


def _first(batches: object, most: int, schema: pa.Schema) -> tuple[pa.Table, int]:
    read = []
    n = 0
    for batch in batches:  # type: ignore[attr-defined]
        read.append(batch)
        n += batch.num_rows
        if n >= most:
            break
    return pa.Table.from_batches(read, schema).slice(0, most), n


_READERS: dict[str, Callable[[Path, int], tuple[pa.Table, int]]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
}
