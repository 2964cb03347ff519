"""Rows that are too many for memory: written and read part by part.

To write them, files come first, one after the other, and then one commit. A part's rows are on the
disk before the next part is made, so memory does not grow with the rows. Until the commit no
reader sees the files. What a crash leaves is never read; an erasure searches it like any other
file, and it goes with the files of old versions.

They are read a table at a time, or bucket by bucket of their ids.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction
from numpy.typing import NDArray

from mlmon_dagster.store.places.location import Location, whole_file
from mlmon_dagster.store.tables.engine import QueryEngine

# Every partition being written keeps a row group in memory.
ROW_GROUP: Final = 32_768
ROWS_A_FILE: Final = 500_000
ROWS_AT_ONCE: Final = 125_000  # so many, with all their columns, are in memory at a time
SAMPLE: Final = 2_000
WRITERS: Final = 2  # files that are written at the same time
_NAME = re.compile(r"part-([0-9a-f]{3})-([0-9a-f]{3})-[^/]*$")
_BUCKETS: Final = 4_096  # as many as three hexadecimal digits tell apart


class Bucket(NamedTuple):
    """The ids whose md5 begins with the three hexadecimal digits from ``first`` to ``last``.

    All rows of an id, in whichever table, are in one bucket: whatever compares ids can be done
    bucket by bucket. md5 is the same in every version of every engine.
    """

    first: int = 0
    last: int = _BUCKETS - 1

    def overlaps(self, other: Bucket) -> bool:
        """Whether an id may be in both."""
        return self.first <= other.last and other.first <= self.last

    def is_inside(self, other: Bucket) -> bool:
        """Whether no id of it is outside of the other."""
        return other.first <= self.first and self.last <= other.last

    def sql(self, text: str = "prediction_id") -> str:
        """Return the condition that an id is inside, by default a row's ``prediction_id``."""
        return f"md5({text})[1:3] BETWEEN '{self.first:03x}' AND '{self.last:03x}'"

    @property
    def two_digits(self) -> tuple[int, int]:
        """The first two digits of its first and its last ids; it has all ids between them."""
        return self.first >> 4, self.last >> 4


EVERY_ID: Final = Bucket()


def buckets(n: int) -> list[Bucket]:
    """Divide all ids into at least ``n`` buckets of one size, 4,096 at most.

    Example:
        >>> [(bucket.first, bucket.last) for bucket in buckets(3)]
        [(0, 1023), (1024, 2047), (2048, 3071), (3072, 4095)]
    """
    number = min(1 << max(n - 1, 0).bit_length(), _BUCKETS)
    size = _BUCKETS // number
    return [Bucket(first, first + size - 1) for first in range(0, _BUCKETS, size)]


def bucket_of(path: str) -> Bucket:
    """Return the bucket that a file's rows are all in, as its name says; a compacted one has all.

    Example:
        >>> bucket_of("window_date=2026-01-01/part-400-7ff-0123.parquet")
        Bucket(first=1024, last=2047)
    """
    found = _NAME.search(path)
    return Bucket(int(found[1], 16), int(found[2], 16)) if found else EVERY_ID


class BucketRows(NamedTuple):
    """Rows to be written, all of one bucket."""

    bucket: Bucket
    rows: pa.Table


@dataclass
class _Open:
    """A file being written, with rows that do not fill a row group yet."""

    path: str
    values: dict[str, str | None]
    draft: Path
    bucket: Bucket
    stack: ExitStack
    writer: pq.ParquetWriter
    writing: Future[None] | None = None
    held: list[pa.Table] = field(default_factory=list)
    n_held: int = 0
    n_rows: int = 0


class PartFiles:
    """Writes the files of one commit into a table's folder.

    Args:
        folder: The table's.
        partition_by: Its partition columns.
    """

    def __init__(self, folder: Location, partition_by: Sequence[str]) -> None:
        self._folder = folder
        self._keys = tuple(partition_by)
        self._open: dict[tuple[object, ...], _Open] = {}
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._actions: list[AddAction] = []
        self._writers = ThreadPoolExecutor(WRITERS, "writer")
        self._writing: deque[Future[None]] = deque()

    def written(self, passes: Iterable[Iterable[BucketRows]]) -> list[AddAction]:
        """Write all parts; return what a commit is to add. Nothing stays if a part fails.

        The files of a pass are closed at its end.
        """
        try:
            for parts in passes:
                for part in parts:
                    self._take(part)
                    del part  # before the next is made
                for key in list(self._open):
                    self._close(key)
        except BaseException:
            self._undo()
            raise
        finally:
            self._writers.shutdown()
            if self._scratch is not None:
                self._scratch.cleanup()
        return self._actions

    def _take(self, part: BucketRows) -> None:
        for values, rows in _split_partitions(part.rows, self._keys):
            self._write(values, part.bucket, rows)

    def _write(self, values: dict[str, str | None], bucket: Bucket, rows: pa.Table) -> None:
        key = (*values.values(), bucket)
        file = self._open.get(key)
        if file is None:
            file = self._open[key] = self._begun(values, bucket, rows)
        file.held.append(rows)
        file.n_held += rows.num_rows
        if file.n_held >= ROW_GROUP:
            self._flush(file)
        elif sum(one.n_held for one in self._open.values()) > ROWS_AT_ONCE:
            for one in self._open.values():
                self._flush(one)
        if file.n_rows >= ROWS_A_FILE:
            self._close(key)

    def _begun(self, values: dict[str, str | None], bucket: Bucket, rows: pa.Table) -> _Open:
        folders = "".join(f"{key}={value}/" for key, value in values.items())
        name = f"part-{bucket.first:03x}-{bucket.last:03x}-{uuid.uuid4().hex}.parquet"
        stack = ExitStack()
        if self._folder.is_local:
            draft = stack.enter_context(whole_file(self._folder.path / folders / name))
        else:
            if self._scratch is None:
                self._scratch = tempfile.TemporaryDirectory()
            draft = Path(self._scratch.name) / name
        plain = {n for n, column in zip(rows.column_names, rows.columns, strict=True)
                 if seldom_repeats(column.slice(0, SAMPLE))}  # fmt: skip
        writer = pq.ParquetWriter(
            draft, rows.schema, compression="snappy", store_schema=False,
            use_dictionary=[name for name in rows.column_names if name not in plain],
        )  # fmt: skip
        return _Open(folders + name, values, draft, bucket, stack, writer)

    def _close(self, key: tuple[object, ...]) -> None:
        file = self._open[key]
        self._flush(file)
        if file.writing is not None:
            file.writing.result()
        del self._open[key]
        file.writer.close()
        size = file.draft.stat().st_size
        file.stack.close()  # the file is at its place, for good
        if not self._folder.is_local:
            (self._folder / file.path).write(file.draft.read_bytes())
            file.draft.unlink()
        stats = json.dumps({"numRecords": file.n_rows})
        moment = round(time.time() * 1000)
        self._actions.append(AddAction(file.path, size, file.values, moment, True, stats))

    def _flush(self, file: _Open) -> None:
        """Let a thread write what is held of a file, while the next rows are made.

        Rows of a file are written one after the other, those of several side by side.
        """
        if not file.n_held:
            return
        if file.writing is not None:
            file.writing.result()
        while len(self._writing) >= WRITERS:
            self._writing.popleft().result()
        rows = pa.concat_tables(file.held)
        file.writing = self._writers.submit(file.writer.write_table, rows, row_group_size=ROW_GROUP)
        self._writing.append(file.writing)
        file.n_rows += file.n_held
        file.held, file.n_held = [], 0

    def _undo(self) -> None:
        self._writers.shutdown()
        for file in self._open.values():
            file.writer.close()
            file.stack.__exit__(*sys.exc_info())
        for action in self._actions:
            (self._folder / action.path).delete()


def _split_partitions(
    rows: pa.Table, keys: Sequence[str]
) -> Iterator[tuple[dict[str, str | None], pa.Table]]:
    """Yield the rows of each partition, without the partition columns."""
    given = rows.select(keys)
    rows = rows.drop_columns(list(keys))
    found = given.group_by(list(keys)).aggregate([]).to_pylist() if keys else [{}]
    for values in found:
        mine = rows
        if len(found) > 1:
            same = [pc.equal(given.column(key), value) for key, value in values.items()]
            mask = same[0]
            for more in same[1:]:
                mask = pc.and_(mask, more)
            mine = _select_rows(rows, pc.fill_null(mask, False))
        yield values, mine


def _select_rows(rows: pa.Table, mask: pa.ChunkedArray) -> pa.Table:
    """Return rows, of which most need no copy if they follow each other, as events of a day do.

    Fewer are copied: whoever holds a few of them is not to hold all. They are looked for between
    the first and the last alone, and not taken by position: of a table in many pieces, as many
    small files make it, that would join all pieces of each text column for every partition.
    """
    positions = np.flatnonzero(mask)
    first, size = int(positions[0]), int(positions[-1] - positions[0]) + 1
    between = rows.slice(first, size)
    if len(positions) == size and 2 * size >= rows.num_rows:
        return between
    return between.filter(mask.slice(first, size))


def seldom_repeats(values: pa.Array | pa.ChunkedArray) -> bool:
    """Say whether a dictionary of a column's values would be thrown away again, by some of them.

    A dictionary of values that seldom repeat, such as ids and most numbers, takes three quarters
    of the time of writing a file.
    """
    if pa.types.is_nested(values.type):
        return False
    n_valid = len(values) - values.null_count
    return bool(n_valid > 100 and 2 * pc.count_distinct(values).as_py() > n_valid)


def by_bucket(
    rows: pa.Table, digits: NDArray[np.uint8], among: Sequence[Bucket]
) -> Iterator[BucketRows]:
    """Divide rows among buckets.

    Args:
        rows: The rows.
        digits: The two first digits of the md5 of each row's id, as a number.
        among: All buckets, of one size: 256 at most, that two digits tell them apart.
    """
    order = np.argsort(digits, kind="stable")
    ends = np.searchsorted(digits[order], [bucket.two_digits[1] for bucket in among], side="right")
    ordered = rows.take(pa.array(order))
    start = 0
    for bucket, end in zip(among, ends.tolist(), strict=True):
        if end > start:
            yield BucketRows(bucket, ordered.slice(start, end - start))
        start = end


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
            groups = _hash_ids(engine, sql, table)
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
            found[start : start + table.num_rows] = _hash_ids(engine, sql, table)
            start += table.num_rows
        return found


def _hash_ids(engine: QueryEngine, sql: str, rows: pa.Table) -> NDArray[np.uint8]:
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
                if _is_long_run(column)
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


def _is_long_run(column: pa.ChunkedArray) -> bool:
    """Say whether a column holds the same value for long, by its first rows."""
    sample = column.slice(0, SAMPLE).combine_chunks()
    if pa.types.is_nested(column.type) or not len(sample):
        return False
    return 20 * len(pc.run_end_encode(sample).values) <= len(sample)
