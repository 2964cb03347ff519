"""Canonical rows: one shape for every file format, and the rules that no single type can check."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.ingest.declared_columns import Column, columns_of, is_output, outcome_kind
from mlmon_dagster.ingest.formats.parse import Parsed
from mlmon_dagster.ingest.raw import row_hashes
from mlmon_dagster.ingest.report import Fault, Mask, mask_of, rows_at_fault
from mlmon_dagster.spec import (
    ModelSpec,
    Window,
    production_end,
    window_containing,
    window_date,
    windows_between,
)
from mlmon_dagster.spec.baseline import DATASETS, LIVE, PRODUCTION
from mlmon_dagster.spec.declaration import TimeSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.sources import FileSource, Stream

TIME: Final = pa.timestamp("us", "UTC")
_OK: Final = ("ok", "success", "200")  # as the profiles count them
_NOT_CONTENT: Final = {"window_start", "window_date", "row_hash", "file_sha", "row_number",
                       "ingested_at"}  # fmt: skip
Times = NDArray[np.datetime64]
_GAP = np.timedelta64(40, "D")  # longer than any window


@dataclass(frozen=True)
class Draft:
    """A file's rows with their types, before the rules have judged them.

    Attributes:
        parsed: The file.
        columns: Arrow arrays by name in the store.
        faults: What is wrong with single rows so far.
        excused: By column, cells that the rules must not judge: reported already, or empty for
            a good reason.
    """

    parsed: Parsed
    columns: dict[str, pa.Array]
    faults: tuple[Fault, ...]
    excused: Mapping[str, Mask]

    def with_faults(self, more: tuple[Fault, ...]) -> Draft:
        """Return the draft with further faults."""
        return replace(self, faults=self.faults + more)

    def erased(self) -> Mask:
        """Return which rows are those of erased predictions, whatever else is wrong with them."""
        found = [fault for fault in self.faults if fault.reason == "erased"]
        return rows_at_fault(found, self.parsed.n_rows)

    def bad(self) -> Mask:
        """Return which rows are bad."""
        return rows_at_fault(self.faults, self.parsed.n_rows)


def draft_rows(parsed: Parsed, spec: ModelSpec, now: dt.datetime) -> Draft:
    """Fill in the dataset, check times, and note which cells are excused.

    Args:
        parsed: The typed file.
        spec: The model.
        now: The moment that event times may not lie ahead of; when the file was first seen, so
            that the answer is the same however often it is read.
    """
    stream = parsed.staged.stream
    columns = dict(parsed.columns)
    columns["dataset"] = _datasets(parsed, spec)
    by_name = {column.name: column for column in columns_of(spec, stream)}
    judge = _prediction_times if stream == "predictions" else _actual_times
    faults = parsed.faults + judge(columns, by_name, spec, now)
    for name, kinds in parsed.not_finite.items():
        if is_output(name) and name != "prediction":
            any_kind = np.logical_or.reduce(list(kinds.values()))
            faults += Fault.where(any_kind, "score_out_of_range", by_name[name], "a finite number")
    excused = _excused(replace(parsed, columns=columns, faults=faults), by_name)
    return Draft(parsed, columns, faults, excused)


def _datasets(parsed: Parsed, spec: ModelSpec) -> pa.Array:
    """Return the dataset of each row: what its cell means, else what the file's path says."""
    stream = parsed.staged.stream
    source = spec.source.of(stream)
    default = PRODUCTION if stream == "predictions" else ALL
    if spec.datasets is None:
        cells = parsed.columns.get("dataset", pa.nulls(parsed.n_rows, pa.string()))
        return pc.fill_null(cells, default)
    if "dataset" in parsed.columns:
        cells, told = parsed.columns["dataset"], spec.datasets.meaning()
        words = pa.array([word for word, _ in told], pa.string())
        place = pc.index_in(pc.utf8_trim_whitespace(pc.utf8_lower(cells)), words)
        meant = pa.array([name for _, name in told], pa.string()).take(place)
        return pc.fill_null(pc.coalesce(meant, cells), default)
    by_path = spec.datasets.of_path(parsed.staged.name) if isinstance(source, FileSource) else None
    return pa.repeat(pa.scalar(by_path or default, pa.string()), parsed.n_rows)


def canonical_rows(draft: Draft, keep: Mask, spec: ModelSpec, ingested_at: dt.datetime) -> pa.Table:
    """Return the kept rows in the shape of the event log, with windows and content hashes."""
    stream = draft.parsed.staged.stream
    rows = np.flatnonzero(keep)
    chosen = pa.array(rows)
    columns = draft.columns
    if len(rows) < draft.parsed.n_rows:
        columns = {name: values.take(chosen) for name, values in columns.items()}
    else:
        columns = dict(columns)
    if outcome_kind(spec) == "label":
        for name in ("prediction", "actual"):
            if name in columns:
                columns[name] = columns[name].cast(pa.int64())
    if stream == "predictions":
        columns["nonfinite"] = _nonfinite(draft.parsed.not_finite, rows)
        columns |= _window_columns(columns["event_time"], spec)
    else:
        columns["deleted"] = find_withdrawn(columns["actual"], spec)
    content = [name for name in columns if name not in _NOT_CONTENT]
    n = len(rows)
    return pa.table(
        {
            **columns,
            "row_hash": row_hashes(*_first_names(pa.table(columns), content, spec)),
            "file_sha": pa.repeat(draft.parsed.staged.log_id, n),
            "row_number": pa.array(draft.parsed.row_numbers()[rows], pa.int64()),
            "ingested_at": pa.repeat(pa.scalar(ingested_at, TIME), n),
        }
    )


def find_withdrawn(actuals: pa.Array, spec: ModelSpec) -> pa.Array:
    """Say which rows take an earlier ground truth back: those that have none.

    A row of evaluations is of one of them, and takes nothing back of the others.
    """
    if spec.evaluations:
        return pa.repeat(pa.scalar(False), len(actuals))
    return actuals.is_null()


def _first_names(
    table: pa.Table, content: list[str], spec: ModelSpec
) -> tuple[pa.Table, list[str]]:
    """Name renamed features as they were first, so that a row delivered again hashes the same."""
    first = {name: f.alias[0] for name, f in spec.features.items() if f.alias}
    if not first:
        return table, content
    named = table.rename_columns([first.get(name, name) for name in table.column_names])
    return named, [first.get(name, name) for name in content]


def moments_of(times: pa.Array) -> Times:
    """Return Arrow UTC times as numpy microseconds; a null becomes NaT."""
    found: Times = times.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
    return found


def _window_columns(times: pa.Array, spec: ModelSpec) -> dict[str, pa.Array]:
    placed = place(spec.time, moments_of(times))
    return {
        "window_start": pa.array(placed.starts()).cast(TIME),
        "window_date": pa.array(placed.dates(spec.time), pa.string()),
    }


def _prediction_times(
    columns: Mapping[str, pa.Array],
    by_name: Mapping[str, Column],
    spec: ModelSpec,
    now: dt.datetime,
) -> tuple[Fault, ...]:
    is_live = mask_of(pc.is_in(columns["dataset"], pa.array(LIVE)))
    start = dt.datetime.combine(spec.time.start, dt.time(), ZoneInfo(spec.time.zone))
    early = mask_of(pc.less(columns["event_time"], pa.scalar(start, TIME)).fill_null(False))
    expected = f"{start.isoformat()} or later, the 'start' under 'time'"
    column = by_name["event_time"]
    found = _future(columns["event_time"], column, spec, now, is_live)
    found += Fault.where(early & is_live, "before_start", column, expected)
    if (end := production_end(spec.time)) is None:
        return found
    after = mask_of(pc.greater_equal(columns["event_time"], pa.scalar(end, TIME)).fill_null(False))
    expected = f"before {end.astimezone(start.tzinfo).isoformat()}, the 'end' under 'time'"
    return found + Fault.where(after & is_live, "after_end", column, expected)


def _actual_times(
    columns: Mapping[str, pa.Array],
    by_name: Mapping[str, Column],
    spec: ModelSpec,
    now: dt.datetime,
) -> tuple[Fault, ...]:
    if "actual_time" not in by_name:
        return ()
    # A wrong time ahead of all others would stay the newest version for ever.
    return _future(columns["actual_time"], by_name["actual_time"], spec, now, np.True_)


def _future(
    times: pa.Array, column: Column, spec: ModelSpec, now: dt.datetime, among: Mask | np.bool_
) -> tuple[Fault, ...]:
    limit = now + spec.time.skew_tolerance
    late = mask_of(pc.greater(times, pa.scalar(limit, TIME)).fill_null(False))
    expected = f"at most {limit.astimezone(dt.UTC).isoformat()}"
    return Fault.where(late & among, "future_time", column, expected)


def _excused(parsed: Parsed, by_name: Mapping[str, Column]) -> dict[str, Mask]:
    excused = {name: np.zeros(parsed.n_rows, dtype=bool) for name in by_name}
    for name, kinds in parsed.not_finite.items():
        for mask in kinds.values():
            excused[name] |= mask
    if parsed.staged.stream == "predictions":
        unscored = _may_lack_score(parsed)
        for name in excused:
            if is_output(name):
                excused[name] |= unscored & parsed.columns[name].is_null().to_numpy(False)
    elif "actual_time" in excused and by_name["actual"].evaluation is None:
        excused["actual_time"] |= mask_of(parsed.columns["actual"].is_null())
    for fault in parsed.faults:
        if fault.reason in {"malformed_line", "unpaired", "malformed_payload"}:
            # A row without a dataset has been given one, which breaks no rule.
            for name in excused.keys() - {"dataset"}:
                excused[name][fault.rows] = True
        elif fault.reason in {"wrong_type", "naive_time", "ambiguous_time", "score_out_of_range"}:
            excused[fault.name][fault.rows] = True
    return {name: mask for name, mask in excused.items() if mask.any()}


def _may_lack_score(parsed: Parsed) -> Mask:
    """Return the rows that need no score: training data, and requests that failed."""
    is_training = mask_of(pc.equal(parsed.columns["dataset"], "training"))
    status = parsed.columns.get("status")
    if status is None:
        return is_training
    is_ok = pc.is_in(pc.utf8_lower(status), pa.array(_OK))
    return is_training | mask_of(pc.and_(status.is_valid(), pc.invert(is_ok)))


def _nonfinite(not_finite: Mapping[str, Mapping[str, Mask]], rows: np.ndarray) -> pa.Array:
    """Return per kept row the sorted ``column:kind`` of its cells that were not finite."""
    found: dict[int, list[str]] = {}
    for name in sorted(not_finite):
        for what, mask in sorted(not_finite[name].items()):
            for position in np.flatnonzero(mask[rows]).tolist():
                found.setdefault(position, []).append(f"{name}:{what}")
    # Most rows have none: a list for each of them would take longer than all other columns.
    lengths = np.zeros(len(rows) + 1, np.int32)
    for position, entries in found.items():
        lengths[position + 1] = len(entries)
    values = [entry for position in sorted(found) for entry in found[position]]
    offsets = pa.array(np.cumsum(lengths, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(values, pa.string()))


def known_datasets(stream: Stream) -> tuple[str, ...]:
    """Return the dataset names that rows of a stream may have."""
    return DATASETS if stream == "predictions" else (*DATASETS, ALL)


@dataclass(frozen=True)
class Placed:
    """The windows of n events.

    Attributes:
        windows: The distinct windows, ascending.
        positions: Shape (n,), the index into ``windows`` of each event.
    """

    windows: tuple[Window, ...]
    positions: NDArray[np.int64]

    def starts(self) -> Times:
        """Return the window start of each event, UTC microseconds."""
        return as_times([w.start for w in self.windows])[self.positions]

    def dates(self, time: TimeSpec) -> NDArray[np.object_]:
        """Return the local date of the window's start of each event, ``YYYY-MM-DD``."""
        names = np.array([window_date(time, w) for w in self.windows], dtype=object)
        found: NDArray[np.object_] = names[self.positions]
        return found


def place(time: TimeSpec, moments: Times) -> Placed:
    """Find the window of each moment; right also where clocks change.

    Args:
        time: The model's time settings.
        moments: UTC microseconds in the years 1 to 9998, none missing.
    """
    if not len(moments):
        return Placed((), np.zeros(0, dtype=np.int64))
    # Runs of near days: one stray event of another century must not list all windows between.
    days = np.unique(moments.astype("datetime64[D]"))
    breaks = np.flatnonzero(np.diff(days) > _GAP) + 1
    candidates: list[Window] = []
    for run in np.split(days, breaks):
        first = window_containing(time, _utc(run[0])).start
        candidates += windows_between(time, first, _utc(run[-1]) + dt.timedelta(days=1))
    edges = as_times([w.start for w in candidates])
    found = np.searchsorted(edges, moments, side="right") - 1
    used = np.flatnonzero(np.bincount(found, minlength=len(candidates)))
    position_of = np.zeros(len(candidates), dtype=np.int64)
    position_of[used] = np.arange(len(used))
    return Placed(tuple(candidates[i] for i in used), position_of[found])


def as_times(moments: list[dt.datetime]) -> Times:
    """Return aware datetimes as UTC microseconds of numpy."""
    naive = [m.astimezone(dt.UTC).replace(tzinfo=None) for m in moments]
    return np.array(naive, dtype="datetime64[us]")


def _utc(day: np.datetime64) -> dt.datetime:
    moment: dt.datetime = day.astype("datetime64[us]").item()
    return moment.replace(tzinfo=dt.UTC)
