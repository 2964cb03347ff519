"""Writing what is too large for memory: files first, part by part, and then one commit.

A part's rows are on the disk before the next part is made, so memory does not grow with the rows.
Until the commit no reader sees the files. What a crash leaves is never read; an erasure searches
it like any other file, and it goes with the files of old versions.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction
from numpy.typing import NDArray

from mlmon_dagster.store.places.location import Location, whole_file

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

    def sql(self) -> str:
        """Return the condition that a row's ``prediction_id`` is inside."""
        return f"md5(prediction_id)[1:3] BETWEEN '{self.first:03x}' AND '{self.last:03x}'"

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
        for values, rows in _divided(part.rows, self._keys):
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


def _divided(
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
            mine = _chosen(rows, pc.fill_null(mask, False))
        yield values, mine


def _chosen(rows: pa.Table, mask: pa.ChunkedArray) -> pa.Table:
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
