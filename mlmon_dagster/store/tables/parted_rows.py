"""Rows that are too many for memory: read a table at a time, or bucket by bucket of their ids."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.store.tables.engine import QueryEngine
from mlmon_dagster.store.tables.part_files import SAMPLE

ROWS_TOGETHER: Final = 500_000  # whose ids are compared at once
_MOST_GROUPS: Final = 250  # a byte a row
_PASSES: Final = 4  # over all rows that are cheaper than to write them by group
Digits = NDArray[np.uint8]
Groups = NDArray[np.uint8]
Read = Callable[[Sequence[str] | None], Iterator[pa.Table]]


class PartedRows:
    """Rows in a fixed order, of which a few columns, or a part, are in memory at a time.

    Args:
        schema: Their columns, ``prediction_id`` among them.
        n_rows: How many there are.
        read: Yields them as tables, with the columns asked for, or all if that is None; the same
            tables however often it is called.
        groups: Which rows may have an id in common, if that is known.
        folder: Of this machine, where the rows are; None if they are in memory.
    """

    def __init__(
        self,
        schema: pa.Schema,
        n_rows: int,
        read: Read,
        groups: Groups | None = None,
        folder: Path | None = None,
    ) -> None:
        self.schema = schema
        self.num_rows = n_rows
        self._read = read
        self._groups = groups
        self._folder = folder

    @classmethod
    def of(cls, rows: pa.Table) -> PartedRows:
        """Return rows that are in memory."""
        return cls(
            rows.schema,
            rows.num_rows,
            lambda columns: iter([rows if columns is None else rows.select(columns)]),
        )

    @classmethod
    def joined(cls, parts: Sequence[PartedRows]) -> PartedRows:
        """Return several rows as one, in their order; they have the same columns."""
        return parts[0] if len(parts) == 1 else cls.of(
            pa.concat_tables([table for part in parts for table in part.tables()])
        )  # fmt: skip

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield all rows, table by table, with some or all columns."""
        return self._read(columns)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows at once, with some or all columns."""
        names = self.schema.names if columns is None else columns
        empty = pa.schema([self.schema.field(name) for name in names]).empty_table()
        return pa.concat_tables([empty, *self.tables(names)])

    def only(self, chosen: NDArray[np.bool_]) -> PartedRows:
        """Return the chosen ones."""
        if chosen.all():
            return self

        def read(columns: Sequence[str] | None) -> Iterator[pa.Table]:
            start = 0
            for table in self._read(columns):
                mine = chosen[start : start + table.num_rows]
                start += table.num_rows
                yield table if mine.all() else table.filter(pa.array(mine))

        groups = None if self._groups is None else self._groups[chosen]
        return PartedRows(self.schema, int(chosen.sum()), read, groups, self._folder)

    def with_column(self, name: str, values: Callable[[int, int], pa.Array]) -> PartedRows:
        """Return them with a column set, or added as the last.

        Args:
            name: Of the column.
            values: Returns its values from one row to another.
        """
        place = self.schema.get_field_index(name)
        field = pa.field(name, values(0, 0).type)
        schema = self.schema.append(field) if place < 0 else self.schema.set(place, field)

        def read(columns: Sequence[str] | None) -> Iterator[pa.Table]:
            names = schema.names if columns is None else columns
            start = 0
            known = [n for n in self.schema.names if n in names] or ["prediction_id"]
            for table in self._read(known):
                end = start + table.num_rows
                if name in names:
                    new, at = values(start, end), table.schema.get_field_index(name)
                    table = (
                        table.append_column(field, new)
                        if at < 0
                        else table.set_column(at, field, new)
                    )
                start = end
                yield table.select(names)

        return PartedRows(schema, self.num_rows, read, self._groups, self._folder)

    def digits(self, engine: QueryEngine) -> Digits:
        """Return the first two digits of the md5 of every row's id, as a number."""
        return self._of_ids(engine, "CAST('0x' || md5(prediction_id)[1:2] AS UTINYINT)")

    def by_id(
        self, engine: QueryEngine, columns: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """Divide them by their ids, in groups of about 500,000 rows, or 250 larger ones.

        Args:
            engine: Hashes the ids.
            columns: To be read.

        Yields:
            Of each group which rows are in it, and some columns of them, in their order; all rows
            of an id are in one group.
        """
        if self.num_rows <= ROWS_TOGETHER:
            yield np.arange(self.num_rows), self.table(columns)
            return
        if self._groups is None:
            most = min(-(-self.num_rows // ROWS_TOGETHER), _MOST_GROUPS)
            # Not by md5, which takes eight times as long: no table is divided by these groups.
            self._groups = self._of_ids(engine, f"CAST(hash(prediction_id) % {most} AS UTINYINT)")
        groups = self._groups
        n = int(groups.max()) + 1  # of more rows, if some are gone since
        if self._folder is None or n <= _PASSES:
            for group in range(n):
                mine = groups == group
                yield np.flatnonzero(mine), self.only(mine).table(columns)
            return
        with tempfile.TemporaryFile(dir=self._folder) as file:
            places = self._write_by_group(file, groups, n, columns)
            schema = pa.schema([self.schema.field(name) for name in columns])
            for group in range(n):
                read = (os.pread(file.fileno(), size, at) for at, size in places[group])
                batches = [pa.ipc.read_record_batch(pa.py_buffer(one), schema) for one in read]
                yield np.flatnonzero(groups == group), pa.Table.from_batches(batches, schema)

    def _write_by_group(
        self, file: IO[bytes], groups: Groups, n: int, columns: Sequence[str]
    ) -> list[list[tuple[int, int]]]:
        """Write all rows once, sorted by group; return where each has bytes, and how many.

        Read anew for each group, a hundred million rows would be read two hundred times.
        """
        places: list[list[tuple[int, int]]] = [[] for _ in range(n)]
        start = at = 0
        for table in self.tables(columns):
            mine = groups[start : start + table.num_rows]
            start += table.num_rows
            order = np.argsort(mine, kind="stable")
            ends = np.searchsorted(mine[order], np.arange(n + 1))
            ordered = table.take(pa.array(order)).combine_chunks()
            for group in np.flatnonzero(np.diff(ends)):
                for batch in ordered.slice(ends[group], ends[group + 1] - ends[group]).to_batches():
                    written = batch.serialize()
                    places[group].append((at, written.size))
                    at += file.write(written)
        file.flush()
        return places

    def _of_ids(self, engine: QueryEngine, sql: str) -> NDArray[Any]:
        query = f"SELECT {sql} AS found FROM ids"
        found = [
            engine.query(query, {"ids": table}).column("found").to_numpy()
            for table in self.tables(["prediction_id"])
        ]
        return np.concatenate(found)


class Spill:
    """A file of this machine that rows are written to once and read from over and over.

    Columns that hold the same value for long, such as the file's name, are stored once for each
    run of it. Nothing is compressed: what is left hardly shrinks, and takes five times as long.

    Args:
        path: The file; replaced if it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: Any = None
        self._sizes: list[int] = []
        self._schema: pa.Schema = pa.schema([])
        self._stored: pa.Schema = pa.schema([])
        self._thread = ThreadPoolExecutor(1, "spill")
        self._adding: Future[None] | None = None

    def add(self, rows: pa.Table) -> None:
        """Write the next rows, while the caller makes those after them."""
        self._wait()
        self._adding = self._thread.submit(self._write, rows)

    def _wait(self) -> None:
        if self._adding is not None:
            self._adding.result()
            self._adding = None

    def _write(self, rows: pa.Table) -> None:
        if self._writer is None:
            self._schema = rows.schema
            self._stored = pa.schema(
                pa.field(name, pa.run_end_encoded(pa.int32(), column.type))
                if _lasts(column)
                else pa.field(name, column.type)
                for name, column in zip(rows.column_names, rows.columns, strict=True)
            )
            self._writer = pa.ipc.new_file(str(self.path), self._stored)
        for batch in rows.combine_chunks().to_batches():
            arrays = [
                pc.run_end_encode(values) if pa.types.is_run_end_encoded(field.type) else values
                for field, values in zip(self._stored, batch.columns, strict=True)
            ]
            self._writer.write_batch(pa.record_batch(arrays, schema=self._stored))
        self._sizes.append(rows.num_rows)

    def discard(self) -> None:
        """Delete the file; nothing is read from it any more."""
        self._thread.shutdown()
        if self._writer is not None:
            self._writer.close()
        self.path.unlink(missing_ok=True)

    def rows(self) -> PartedRows:
        """End the file; return its rows."""
        self._wait()
        self._thread.shutdown()
        self._writer.close()
        return PartedRows(self._schema, sum(self._sizes), self._read, folder=self.path.parent)

    def _read(self, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        chosen = None
        if columns is not None:
            chosen = [self._schema.get_field_index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=chosen)
        with (
            pa.OSFile(str(self.path), "rb") as file,
            pa.ipc.open_file(file, options=options) as reader,
        ):
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                table = pa.table(
                    {
                        field.name: pc.run_end_decode(values)
                        if pa.types.is_run_end_encoded(field.type)
                        else values
                        for field, values in zip(batch.schema, batch.columns, strict=True)
                    }
                )
                yield table if columns is None else table.select(columns)


def _lasts(column: pa.ChunkedArray) -> bool:
    """Say whether a column holds the same value for long, by its first rows."""
    sample = column.slice(0, SAMPLE).combine_chunks()
    if pa.types.is_nested(column.type) or not len(sample):
        return False
    return 20 * len(pc.run_end_encode(sample).values) <= len(sample)
