"""Rows that are too many for memory: read a table at a time, or bucket by bucket of their ids."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.store.tables.engine import QueryEngine
from mlmon_dagster.store.tables.part_files import SAMPLE

ROWS_TOGETHER: Final = 500_000  # whose ids are compared at once
_MOST_GROUPS: Final = 250  # each has a piece of every table
_PASSES: Final = 4  # over all rows that are cheaper than to write them by group
_PLACE: Final = ":place"
Digits = NDArray[np.uint8]
Read = Callable[[Sequence[str] | None], Iterator[pa.Table]]


class PartedRows:
    """Rows in a fixed order, of which a few columns, or a part, are in memory at a time.

    Args:
        schema: Their columns, ``prediction_id`` among them.
        n_rows: How many there are.
        read: Yields them as tables, with the columns asked for, or all if that is None; the same
            tables however often it is called.
        folder: Of this machine, where the rows are; None if they are in memory.
    """

    def __init__(
        self,
        schema: pa.Schema,
        n_rows: int,
        read: Read,
        folder: Path | None = None,
    ) -> None:
        self.schema = schema
        self.num_rows = n_rows
        self._read = read
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

        return PartedRows(self.schema, int(np.count_nonzero(chosen)), read, self._folder)

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

        return PartedRows(schema, self.num_rows, read, self._folder)

    def digits(self, engine: QueryEngine) -> Digits:
        """Return the first two digits of the md5 of every row's id, as a number."""
        return self._of_ids(engine, "CAST('0x' || md5(prediction_id)[1:2] AS UTINYINT)")

    def by_id(
        self, engine: QueryEngine, columns: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """Divide them by their ids, in groups of about 500,000 rows, or 250 larger ones.

        Args:
            engine: Hashes the ids.
            columns: To be read, ``prediction_id`` among them.

        Yields:
            Of each group which rows are in it, and some columns of them, in their order; all rows
            of an id are in one group.
        """
        if self.num_rows <= ROWS_TOGETHER:
            yield np.arange(self.num_rows), self.table(columns)
            return
        n = min(-(-self.num_rows // ROWS_TOGETHER), _MOST_GROUPS)
        # Not by md5, which takes eight times as long: no table is divided by these groups.
        sql = f"CAST(hash(prediction_id) % {n} AS UTINYINT)"
        if self._folder is None or n <= _PASSES:
            groups = self._of_ids(engine, sql)
            for group in range(n):
                mine = groups == group
                yield np.flatnonzero(mine), self.only(mine).table(columns)
            return
        with tempfile.TemporaryFile(dir=self._folder) as file:
            places, schema = self._write_by_group(file, engine, sql, n, columns)
            for group in range(n):
                pieces = ((at, end - at) for at, end in places[:, group : group + 2].tolist())
                read = (os.pread(file.fileno(), size, at) for at, size in pieces if size)
                batches = [pa.ipc.read_record_batch(pa.py_buffer(one), schema) for one in read]
                rows = pa.Table.from_batches(batches, schema)
                yield rows[_PLACE].to_numpy(), rows.select(columns)

    def _write_by_group(
        self, file: IO[bytes], engine: QueryEngine, sql: str, n: int, columns: Sequence[str]
    ) -> tuple[NDArray[np.int64], pa.Schema]:
        """Write all rows once, those of each table sorted by group.

        Read anew for each group, a hundred million rows would be read two hundred times. Where a
        row stands is written beside it, so that nothing in memory grows with the rows.

        Returns:
            Between which bytes the rows of each table and group are, (tables, n + 1), and the
            columns of what is written.
        """
        schema = pa.schema([self.schema.field(name) for name in columns])
        schema = schema.append(pa.field(_PLACE, pa.int64()))
        places = []
        start = at = 0
        for table in self.tables(columns):
            groups = _asked(engine, sql, table)
            order = np.argsort(groups, kind="stable")
            ends = np.searchsorted(groups[order], np.arange(n + 1)).tolist()
            numbers = pa.array(np.arange(start, start + table.num_rows))
            start += table.num_rows
            ordered = table.append_column(_PLACE, numbers).take(pa.array(order))
            places.append([at])
            for first, end in pairwise(ends):
                if end > first:
                    mine = pa.concat_batches(ordered.slice(first, end - first).to_batches())
                    at += file.write(mine.serialize())
                places[-1].append(at)
        file.flush()
        return np.array(places, np.int64), schema

    def _of_ids(self, engine: QueryEngine, sql: str) -> NDArray[np.uint8]:
        found = np.empty(self.num_rows, np.uint8)
        start = 0
        for table in self.tables(["prediction_id"]):
            found[start : start + table.num_rows] = _asked(engine, sql, table)
            start += table.num_rows
        return found


def _asked(engine: QueryEngine, sql: str, rows: pa.Table) -> NDArray[np.uint8]:
    """Return what an expression of ``prediction_id`` is for every row."""
    ids = {"ids": rows.select(["prediction_id"])}
    found: NDArray[np.uint8] = engine.query(f"SELECT {sql} AS found FROM ids", ids)[0].to_numpy()
    return found


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
