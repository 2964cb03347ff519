"""Ground truth of a lake by the days of its predictions, arranged once for many groups of rows.

Which file a row of ground truth is in says nothing of the day of its prediction, nor is it known
which ids come again on another day. So every group of rows would search all files for both.

Of each prediction eight bytes are held: the hash of its id beside its quarter of an hour. Two ids
of one hash cost a few rows that are read for nothing, since whoever reads compares ids.
"""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from numpy.typing import NDArray

HASH: Final = "mlmon hash"  # a column beside the owner's: the hash of a row's id
_SECONDS: Final = 900  # of a quarter of an hour: windows begin and end with one, in every zone
_A_DAY: Final = 96
_ROWS_AT_ONCE: Final = 32_768
_MOST_HELD: Final = 20 * _ROWS_AT_ONCE
_FORGOTTEN: Final = 2 * 86_400  # seconds since a killed run left its parts
_AGAIN: Final = -1  # the part of ids on several days
COMES_AGAIN: Final = dt.timedelta(days=31)  # an id, at most; else all of a table would be searched
# A time without a zone is of some zone, at most so far from UTC.
FARTHEST: Final = dt.timedelta(hours=15)
NO_DAY: Final = np.iinfo(np.int64).min
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Moments:
    """Times from one moment to before another one, UTC."""

    start: dt.datetime
    end: dt.datetime

    def with_neighbours(self) -> Moments:
        """Return them with the times in which their ids may come again."""
        return Moments(self.start - COMES_AGAIN, self.end + COMES_AGAIN)

    def in_any_zone(self) -> Moments:
        """Return them with all that they may be by clocks of a zone that nobody names."""
        return Moments(self.start - FARTHEST, self.end + FARTHEST)

    def count(self, per_second: int) -> tuple[int, int]:
        """Return them as numbers since 1970."""
        return int(self.start.timestamp() * per_second), int(self.end.timestamp() * per_second)


@dataclass(frozen=True)
class Quarters:
    """Quarters of an hour that are told apart, and how.

    Attributes:
        first: They are counted from this one, since 1970.
        bits: The low ones of a place, which has the quarter in them and else the hash of an id.
    """

    first: int
    bits: int

    @staticmethod
    def around(spans: Sequence[Moments]) -> Quarters:
        """Return those of some times, in any zone."""
        days = [day for span in spans for day in list_days(span)]
        first, last = min(days) - 2, max(days) + 2
        return Quarters(first * _A_DAY, ((last - first + 1) * _A_DAY).bit_length())

    def spell_hash(self, ids: str) -> str:
        """Return the statement of the hash of ids."""
        return f"hash({ids}) >> {self.bits}"

    def spell_place(self, ids: str, seconds: str) -> str:
        """Return the statement of the place of ids and of their seconds since 1970."""
        quarter = f"CAST(floor({seconds} / {_SECONDS}) AS BIGINT) - {self.first}"
        return f"({self.spell_hash(ids)} << {self.bits}) | CAST({quarter} AS UBIGINT)"


@dataclass(frozen=True)
class Places:
    """When the predictions of each id are.

    Attributes:
        found: Hash and quarter in one number each, sorted.
        quarters: How they are told apart.
    """

    found: Hashes
    quarters: Quarters

    @staticmethod
    def gather(batches: Iterable[pa.Table], quarters: Quarters) -> Places:
        """Return what the only column of some tables has."""
        parts = [table.column(0).to_numpy() for table in batches]
        found = np.concatenate([np.zeros(0, np.uint64), *parts])
        found.sort()
        return Places(found, quarters)

    def find_repeated(self) -> Hashes:
        """Return the hashes of ids that come in several quarters, sorted."""
        bits = np.uint64(self.quarters.bits)
        apart = self.found[1:] ^ self.found[:-1]
        has_moved = (apart > 0) & (apart < np.uint64(1) << bits)
        return np.unique(self.found[1:][has_moved] >> bits)

    def count_others(self, batches: Iterable[Hashes]) -> int:
        """Return how many hashes have no prediction."""
        others = [hashes[self.find_days(hashes) == NO_DAY] for hashes in batches]
        return int(np.unique(np.concatenate([np.zeros(0, np.uint64), *others])).size)

    def find_days(self, hashes: Hashes) -> NDArray[np.int64]:
        """Return the first day of each id, since 1970; `NO_DAY` of those without a prediction."""
        days = np.full(hashes.size, NO_DAY)
        if not self.found.size:
            return days
        bits, order = np.uint64(self.quarters.bits), np.argsort(hashes)
        asked = hashes[order]
        at = np.searchsorted(self.found, asked << bits)
        place = self.found[np.minimum(at, self.found.size - 1)]
        quarter = (place & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
        day = (quarter + self.quarters.first) // _A_DAY
        days[order] = np.where(place >> bits == asked, day, NO_DAY)
        return days


@dataclass(frozen=True)
class ByDay:
    """What was arranged; its files are deleted with it.

    Attributes:
        schema: Of the ground truth.
        parts: Day since 1970 -> the file of its rows; `_AGAIN` -> of ids on several days.
        repeated: The predictions whose ids come in several quarters of an hour, and maybe others.
    """

    schema: pa.Schema
    parts: Mapping[int, Path]
    repeated: pads.Dataset

    def open_truth(self, spans: Iterable[Moments]) -> pads.Dataset:
        """Return the rows whose predictions may be of some times."""
        days = [_AGAIN, *sorted(set(chain.from_iterable(map(list_days, spans))))]
        files = [str(self.parts[day]) for day in days if day in self.parts]
        if not files:
            return pads.dataset(self.schema.empty_table())
        return pads.dataset(files, schema=self.schema, format="parquet")


def arrange_truth(
    folder: Path,
    batches: Iterable[pa.Table],
    schema: pa.Schema,
    places: Places,
    days: set[int],
    repeated: pads.Dataset,
) -> ByDay:
    """Write ground truth into a part a day of its predictions.

    Args:
        folder: Where, on this machine.
        batches: The ground truth, with the column `HASH`.
        schema: Of it without that column, for when there is none.
        places: When the predictions of each id are.
        days: Those that are wanted.
        repeated: See `ByDay`.
    """
    again, mine = places.find_repeated(), _make_folder(folder)
    wanted = np.array(sorted(days), np.int64)
    with ExitStack() as unfinished:
        unfinished.callback(shutil.rmtree, mine, ignore_errors=True)
        writing = _Parts(mine, unfinished)
        for table in batches:
            hashes = table.column(HASH).to_numpy()
            of_day = places.find_days(hashes)
            of_day[~np.isin(of_day, wanted)] = NO_DAY
            if again.size:
                of_day[np.isin(hashes, again)] = _AGAIN
            rows = table.drop_columns([HASH])
            schema = rows.schema
            for day in np.unique(of_day[of_day != NO_DAY]).tolist():
                writing.add(day, rows.filter(pa.array(of_day == day)))
        found = ByDay(schema, writing.close(), repeated)
        unfinished.pop_all()
    weakref.finalize(found, shutil.rmtree, mine, ignore_errors=True)
    return found


@dataclass
class _Parts:
    """Files that are being written, each with rows that do not fill a row group yet.

    Attributes:
        folder: Where they are.
        stack: Closes them if this is given up.
    """

    folder: Path
    stack: ExitStack
    writers: dict[int, pq.ParquetWriter] = field(default_factory=dict)
    held: dict[int, list[pa.Table]] = field(default_factory=dict)
    n_held: int = 0

    def add(self, day: int, rows: pa.Table) -> None:
        held = self.held.setdefault(day, [])
        held.append(rows)
        self.n_held += rows.num_rows
        if sum(table.num_rows for table in held) >= _ROWS_AT_ONCE:
            self._write(day)
        elif self.n_held >= _MOST_HELD:
            self._write(max(self.held, key=lambda one: sum(t.num_rows for t in self.held[one])))

    def close(self) -> dict[int, Path]:
        for day in list(self.held):
            self._write(day)
        for writer in self.writers.values():
            writer.close()
        return {day: self._name(day) for day in self.writers}

    def _write(self, day: int) -> None:
        rows = pa.concat_tables(self.held.pop(day))
        self.n_held -= rows.num_rows
        if day not in self.writers:
            writer = pq.ParquetWriter(
                self._name(day), rows.schema, compression="lz4", use_dictionary=False
            )
            self.writers[day] = self.stack.enter_context(writer)
        self.writers[day].write_table(rows)

    def _name(self, day: int) -> Path:
        return self.folder / f"{day}.parquet"


def list_days(span: Moments) -> range:
    """Return the days, since 1970, that a span has a part of."""
    start, end = (int(moment.timestamp() // 86_400) for moment in (span.start, span.end))
    return range(start, end + 1)


def _make_folder(home: Path) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    for left in home.iterdir():
        with suppress(FileNotFoundError):  # another process may delete its own
            if left.stat().st_mtime < time.time() - _FORGOTTEN:
                shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=home))
