"""The rows of windows as their owner has them, judged and shaped as those of landing files are.

It stands where the event log stands for other models: records are made of what it reads. What is
refused is noted for each date anew whenever the date is read, since the owner may have mended it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.ingest.commit import Kind, classify, letter_rows
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.formats.parse import Parsed, typed_columns
from mlmon_dagster.ingest.landing import Staged
from mlmon_dagster.ingest.raw import (
    RawFile,
    check_renamed,
    join_chunks,
    rows_of,
    with_derived_id,
    with_nulls,
)
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.ingest.rows.canonical import Draft, draft_rows, moments_of, place
from mlmon_dagster.ingest.rows.judge import (
    MAX_LETTERS,
    Letter,
    Part,
    drop_erased,
    judge_files,
    prepare,
    report_parts,
)
from mlmon_dagster.spec import ModelSpec, Window, window_containing
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.spec.windows import start_of_date
from mlmon_dagster.store.state import erased_ids, manifest
from mlmon_dagster.store.state.sql import literals, quote_identifier
from mlmon_dagster.store.tables.columns import conform, stream_schema
from mlmon_dagster.store.tables.part_files import EVERY_ID, Bucket
from mlmon_dagster.warehouse.by_day import ByDay, Moments
from mlmon_dagster.warehouse.owner import (
    ARRIVED,
    Owner,
    OwnerTables,
    list_streams,
    load_positions,
)

if TYPE_CHECKING:
    from mlmon_dagster.store.sources import Position
    from mlmon_dagster.store.tables.inference_records import Group

ROWS_AT_ONCE: Final = 250_000  # each group of ids reads the columns of its whole date
_JUDGED_AT_ONCE: Final = 100_000
_MOST_HELD: Final = 3_000_000  # rows of ground truth, until lags are measured
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class InPlaceLog:
    """See `EventLog`, of which this is what records are made from.

    Attributes:
        owner: The tables.
    """

    owner: Owner
    _held: Held = field(default_factory=lambda: Held())

    def pinned(self) -> PinnedRows:
        """Pin the tables at the positions of the last look."""
        at = load_positions(self.owner.store.state, self.owner.spec)
        return PinnedRows(self.owner, at, self._held)

    def window_starts(self, dataset: str) -> list[dt.datetime]:
        """Return the windows that predictions of a dataset are in, by their start, in order."""
        spec = self.owner.spec
        with self.owner.opened(self.pinned().at) as tables:
            found = tables.read_times()
        draft = draft_raw(found, spec, "predictions", self.owner.wanted["predictions"].label,
                          self.owner.now())  # fmt: skip
        is_mine = pc.equal(draft.columns["dataset"], dataset)
        times = draft.columns["event_time"].filter(is_mine)
        return [window.start for window in list_windows(spec, times)]


class _Arrived(NamedTuple):
    """When ground truth of a bucket of ids came, as it was at some positions."""

    at: Mapping[Stream, Position]
    bucket: Bucket
    rows: pa.Table


@dataclass
class Held:
    """What is held between the groups of rows that are read.

    Attributes:
        arrivals: Date -> when its ground truth came, of the first bucket of its ids: what the
            lags are measured of.
        arranged: What was arranged last.
        covered: The positions and dates that this is of.
    """

    arrivals: dict[str, _Arrived] = field(default_factory=dict)
    arranged: ByDay | None = None
    covered: tuple[Mapping[Stream, Position], frozenset[str]] = ({}, frozenset())


@dataclass(frozen=True)
class PinnedRows:
    """See `PinnedLog`.

    Attributes:
        owner: The tables.
        at: The position of each.
        held: What is held between groups.
    """

    owner: Owner
    at: Mapping[Stream, Position]
    held: Held = field(default_factory=Held)
    rows_at_once = ROWS_AT_ONCE

    def count_rows(self, dates: set[str]) -> dict[str, int]:
        """Return the number of predictions of each window date, about."""
        with self.owner.opened(self.at) as tables:
            found = {date: tables.count_predictions(self._bound(date)) for date in sorted(dates)}
            if "actuals" in self.owner.wanted and sum(found.values()) > self.rows_at_once:
                self._arrange(tables, dates)
        if self.owner.spec.columns.id_parts:  # no id of the owner says which bucket a row is in
            return {date: min(n, self.rows_at_once) for date, n in found.items()}
        return found

    def _arrange(self, tables: OwnerTables, dates: set[str]) -> None:
        """Arrange what several groups would search for, unless it is arranged already."""
        at, covered = self.held.covered
        if at == self.at and covered >= dates:
            return
        self.held.arranged = None  # before the next one is made
        self.held.arranged = tables.arrange([self._bound(date) for date in sorted(dates)])
        self.held.covered = (self.at, frozenset(dates))

    def moved_sql(self) -> None:
        """Return nothing: rows of an id on other dates are read together with a date's own."""

    def sql(
        self,
        stream: Stream,
        columns: Sequence[str],
        _dates: set[str],
        datasets: set[str] | None = None,
        bucket: Bucket = EVERY_ID,  # of which `tables` read alone
    ) -> str:
        """Return the rows that `tables` read as a subquery."""
        chosen = ", ".join(map(quote_identifier, columns))
        where = "" if datasets is None else f" WHERE dataset IN ({literals(sorted(datasets))})"
        return f"(SELECT {chosen} FROM {_TABLES[stream]}{where})"

    def tables(self, group: Group) -> dict[str, pa.Table]:
        """Read and judge the rows of some dates, note what is refused, and return the good ones."""
        spec, owner = self.owner.spec, self.owner
        spans = [self._bound(date) for date in sorted(group.dates)]
        with owner.opened(self.at) as tables:
            at, covered = self.held.covered
            arranged = self.held.arranged if at == self.at and covered >= group.dates else None
            raw = {"predictions": tables.read_predictions(spans, group.bucket, arranged)}
            if "actuals" in owner.wanted:
                ids = raw["predictions"].select(owner.wanted["predictions"].ids)
                raw["actuals"] = tables.read_actuals(ids, spans, arranged)
        found: dict[str, pa.Table] = {}
        read: dict[Stream, _Read] = {}
        for stream in list_streams(spec):
            read[stream] = _judge(owner, stream, raw.pop(stream))
            schema = stream_schema(spec, stream)
            found[_TABLES[stream]] = conform(read[stream].rows, schema, spec.model)
        _Notes(owner, group, read).write()
        if "actuals" in owner.wanted:
            self._hold_arrivals(group, found[_TABLES["actuals"]])
        else:
            found[_TABLES["actuals"]] = stream_schema(spec, "actuals").empty_table()
        return found

    def arrival_tables(self, group: Group) -> dict[str, pa.Table]:
        """Return when the ground truth of some dates came, as it was read a moment ago."""
        found = [self.held.arrivals.pop(date, None) for date in sorted(group.dates)]
        if not all(one and one[:2] == (self.at, group.bucket) for one in found):
            return self.tables(group)
        held = {id(one.rows): one.rows for one in found if one}
        return {_TABLES["actuals"]: pa.concat_tables(held.values())}

    def _hold_arrivals(self, group: Group, actuals: pa.Table) -> None:
        held = {id(one.rows): one.rows.num_rows for one in self.held.arrivals.values()}
        if group.bucket.first == 0 and sum(held.values()) < _MOST_HELD:
            mine = _Arrived(self.at, group.bucket, actuals.select(["prediction_id", "ingested_at"]))
            self.held.arrivals |= dict.fromkeys(group.dates, mine)

    def _bound(self, date: str) -> Moments:
        """Return the times of the windows that start on a local date."""
        time = self.owner.spec.time
        start = start_of_date(time, date)
        if time.granularity != "hour":
            return Moments(start, window_containing(time, start).end)
        tomorrow = (dt.date.fromisoformat(date) + _DAY).isoformat()
        return Moments(start, start_of_date(time, tomorrow))


_TABLES: Final[Mapping[Stream, str]] = {"predictions": "owned_predictions",
                                        "actuals": "owned_actuals"}  # fmt: skip


@dataclass(frozen=True)
class _Read:
    """The rows of one stream that were read together.

    Attributes:
        rows: The good ones, in the shape of the log.
        parts: What was found of them, part by part.
        letters: Of the bad ones.
    """

    rows: pa.Table
    parts: tuple[Part, ...]
    letters: tuple[Letter, ...]


def draft_raw(
    raw: pa.Table, spec: ModelSpec, stream: Stream, label: str, now: dt.datetime, first: int = 0
) -> Draft:
    """Give rows of an owner's table their declared types, as a file's are given them."""
    return draft_rows(_type_rows(raw, spec, stream, label, first), spec, now)


def _type_rows(raw: pa.Table, spec: ModelSpec, stream: Stream, label: str, first: int) -> Parsed:
    source = spec.source.of(stream)
    assert source is not None
    staged = Staged(stream, label, None, "", 0, 0)
    wanted = columns_of(spec, stream)
    columns = {name: join_chunks(raw.column(name)) for name in raw.column_names}
    file = RawFile(columns, raw.num_rows, tuple(raw.column_names), rows_of, first=first)
    check_renamed(label, file, wanted)
    named = with_derived_id(with_nulls(file, source.null_tokens), wanted, spec)
    return replace(typed_columns(staged, named, wanted, spec, source), first=first)


def _judge(owner: Owner, stream: Stream, raw: pa.Table) -> _Read:
    """Judge rows as they were read, in parts, and shape the good ones."""
    spec, now = owner.spec, owner.now()
    erased = erased_ids.load_erased(owner.store.state, spec.model)
    arrived = None
    if ARRIVED in raw.column_names:
        limit = pa.scalar(now, raw[ARRIVED].type)
        arrived = pc.if_else(pc.greater(raw[ARRIVED], limit), limit, raw[ARRIVED])
        raw = raw.drop_columns([ARRIVED])
    parts = []
    for first in range(0, max(raw.num_rows, 1), _JUDGED_AT_ONCE):
        some = raw.slice(first, _JUDGED_AT_ONCE)
        draft = draft_raw(some, spec, stream, owner.wanted[stream].label, now, first)
        [(draft, verdict)] = judge_files([draft], spec, stream)
        draft = drop_erased(draft, erased, owner.store.query, spec)
        parts.append(prepare(draft, verdict, spec, now))
    rows = pa.concat_tables([part.rows for part in parts])
    if stream == "actuals":
        # Without a time of arrival it is not known how late ground truth came.
        moments = pa.nulls(rows.num_rows, rows.schema.field("ingested_at").type)
        if arrived is not None:
            moments = arrived.take(rows["row_number"])
        place_ = rows.schema.get_field_index("ingested_at")
        rows = rows.set_column(place_, "ingested_at", moments)
    letters = tuple(letter for part in parts for letter in part.letters)[:MAX_LETTERS]
    return _Read(rows, tuple(replace(part, rows=rows[:0]) for part in parts), letters)


@dataclass(frozen=True)
class _Notes:
    """What is noted of the rows of some dates: one entry a stream and date, as of a file."""

    owner: Owner
    group: Group
    read: Mapping[Stream, _Read]

    def write(self) -> None:
        """Replace what was noted of these dates."""
        store, spec = self.owner.store, self.owner.spec
        is_first = self.group.bucket.first == 0
        now = self.owner.now()
        with store.state.begin() as conn:
            for stream, read in self.read.items():
                for report, letters in self._by_date(stream, read):
                    key = (spec.model, stream, report.sha256)
                    counted = {name: getattr(report, name) for name in _COUNTERS}
                    manifest.note_discovered(conn, [make_entry(spec, report, now)])
                    if is_first:
                        manifest.forget_refused(conn, *key)
                    else:
                        counted = manifest.add_counters(conn, *key, counted, 0)
                    manifest.refuse_rows(conn, letter_rows(conn, spec, report, letters, now))
                    manifest.update_file(
                        conn, *key, **counted, status="done", finished_at=now,
                        schema_report=json.dumps(
                            {**report_parts(read.parts), "warnings": [], "n_unmatched": 0},
                            allow_nan=False,
                        ),
                    )  # fmt: skip

    def _by_date(self, stream: Stream, read: _Read) -> Iterator[tuple[FileReport, list[Letter]]]:
        dates = self._find_dates(stream, read)
        kinds = classify(read.rows, read.rows[:0], stream)
        offset = self.group.bucket.first * MAX_LETTERS  # rows of other buckets have other numbers
        windows = self._find_windows(stream, read)
        for date in sorted(self.group.dates):
            mine = Counter(kinds[dates == date].tolist())
            letters = [
                _renumber(letter, offset, window)
                for letter, window in zip(read.letters, windows, strict=True)
                if window is not None and window.key[:10] == date
            ]
            bad = {letter["row_number"] for letter in letters}
            yield (
                FileReport(
                    stream, f"{self.owner.wanted[stream].label}/{date}", "done",
                    _digest(self.owner.spec, stream, date),
                    rows_in=sum(mine.values()) + len(bad),
                    n_new=mine[Kind.NEW], n_duplicate=mine[Kind.DUPLICATE],
                    n_conflict=mine[Kind.CONFLICT], n_bad=len(bad),
                ),
                letters,
            )  # fmt: skip

    def _find_dates(self, stream: Stream, read: _Read) -> NDArray[np.object_]:
        """Return the window date of each good row; of ground truth that of its prediction."""
        if stream == "predictions":
            dates = read.rows["window_date"]
        else:
            dates = self._look_up("window_date", read.rows["prediction_id"])
        found: NDArray[np.object_] = dates.to_numpy()
        return found

    def _find_windows(self, stream: Stream, read: _Read) -> list[Window | None]:
        """Return the window of each letter; of ground truth that of its prediction."""
        starts = [letter["window_start"] for letter in read.letters]
        if stream == "actuals":
            ids = pa.array([letter["prediction_id"] for letter in read.letters], pa.string())
            starts = self._look_up("window_start", pa.chunked_array([ids])).to_pylist()
        time = self.owner.spec.time
        return [None if start is None else window_containing(time, start) for start in starts]

    def _look_up(self, column: str, ids: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return a column of the predictions of some ids; null where there is none.

        Those of the dates themselves stand before those of the same ids elsewhere.
        """
        rows = self.read["predictions"].rows
        return rows[column].take(pc.index_in(ids, rows["prediction_id"].combine_chunks()))


def _renumber(letter: Letter, offset: int, window: Window) -> Letter:
    found = letter.copy()
    found["row_number"] += offset
    found["window_start"] = window.start
    return found


_COUNTERS: Final = ("rows_in", "n_new", "n_duplicate", "n_conflict", "n_bad")


def _digest(spec: ModelSpec, stream: Stream, date: str) -> str:
    name = f"{spec.model}/{stream}/{date}"
    return f"{manifest.IN_PLACE}{hashlib.sha256(name.encode()).hexdigest()}"


def make_entry(spec: ModelSpec, report: FileReport, now: dt.datetime) -> dict[str, object]:
    """Return a row of ``ingest_file`` for rows that were read in place."""
    return {
        "model": spec.model, "stream": report.stream, "sha256": report.sha256,
        "path": report.path, "size_bytes": 0, "mtime_ns": 0, "first_seen": now,
    }  # fmt: skip


def list_windows(spec: ModelSpec, times: pa.Array) -> list[Window]:
    """Return the windows of some times; nulls are of none."""
    return list(place(spec.time, moments_of(times.drop_null())).windows)
