"""A look at the tables of an owner: which windows have other rows than at the look before.

Where the tables stand is found before anything is read, so that what is committed meanwhile is
seen by the next look. Windows and positions are noted in one transaction: a look that is killed
was never made.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.ingest.commit import SeenLayout, note_layouts
from mlmon_dagster.ingest.declared_columns import columns_of, reading_of
from mlmon_dagster.ingest.raw import Layout, RawFile, layout_of, rows_of
from mlmon_dagster.ingest.report import FileReport, IngestReport
from mlmon_dagster.spec import ModelSpec, Window, window_containing, windows_between
from mlmon_dagster.spec.changes import Held
from mlmon_dagster.spec.names import counted
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store.moments import begin_moment, check_moment
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.state.model_history import check_declared, remember_declared
from mlmon_dagster.store.state.writing import reached, writer_lock
from mlmon_dagster.warehouse.log import draft_raw, list_windows
from mlmon_dagster.warehouse.owner import (
    Changes,
    Noted,
    Owner,
    OwnerTables,
    list_streams,
    load_noted,
)
from mlmon_dagster.warehouse.unplaced import Unplaced, find_unplaced, note_unplaced

_READ_OTHERWISE: Final = (
    "its columns have other types than at the look before, or the spec reads them otherwise; all "
    "windows are computed again."
)


def look_at_tables(owner: Owner, wait_seconds: float = 600) -> IngestReport:
    """Find the windows whose rows changed since the last look, and note them.

    Args:
        owner: The tables.
        wait_seconds: How long to wait for another look at the model.

    Returns:
        An entry a stream that changed, or that cannot be read, and the windows.

    Raises:
        ConfigError: If the spec was changed in a way that what is stored does not allow.
        BusyError: If another look goes on for longer than that.
        StoreError: If the state database fails, or is not the one that the store is about.
    """
    store, spec = owner.store, owner.spec
    with writer_lock(store.state, f"ingest/{spec.model}", wait_seconds=wait_seconds):
        check_declared(store.state, spec)
        check_moment(store, spec.model)
        try:
            with owner.opened() as tables:
                found = _find(owner, tables)
        except (ConfigError, StoreError) as error:
            label = owner.wanted["predictions"].label
            failed = FileReport("predictions", label, "failed", reason="source_failed",
                                message=str(error))  # fmt: skip
            return IngestReport((failed,))
        reached("look.found")
        if found.is_new:
            _note(owner, found)
        reached("look.noted")
        return IngestReport(found.reports, sorted(found.windows), again=found.again)


@dataclass(frozen=True)
class _Seen:
    """What a look saw of one table.

    Attributes:
        changes: What is different.
        before: What the look before noted.
        noted: What this one notes.
        unplaced: Rows of no window, as there are now.
        windows: Those that what changed touches.
        report: What is said of it; None if nothing is.
    """

    changes: Changes
    before: Noted
    noted: Noted
    unplaced: list[Unplaced]
    windows: set[Window]
    report: FileReport | None


@dataclass(frozen=True)
class _Found:
    """What a look found.

    Attributes:
        streams: What it saw of each table.
        schemas: The columns of each.
    """

    streams: Mapping[Stream, _Seen]
    schemas: Mapping[Stream, pa.Schema]

    @property
    def is_new(self) -> bool:
        """Whether anything is to be noted."""
        return any(seen.noted != seen.before for seen in self.streams.values())

    @property
    def windows(self) -> set[Window]:
        """Windows with other rows than before."""
        return set().union(*(seen.windows for seen in self.streams.values()))

    @property
    def by_truth(self) -> set[Window]:
        """Those of them with other ground truth alone."""
        return self.windows - self.streams["predictions"].windows

    @property
    def again(self) -> str:
        """Why windows are computed again whose rows may be as they were; empty if none are."""
        told = (
            f"{seen.report.path}: {seen.changes.notice.rstrip('.')}"
            for seen in self.streams.values()
            if seen.report and seen.changes.notice
        )
        return ". ".join(told)

    @property
    def reports(self) -> tuple[FileReport, ...]:
        """What is said of each table."""
        return tuple(seen.report for seen in self.streams.values() if seen.report)


def _find(owner: Owner, tables: OwnerTables) -> _Found:
    streams = list_streams(owner.spec)
    return _Found(
        {stream: _see(owner, tables, stream) for stream in streams},
        {stream: tables.find_schema(stream) for stream in streams},
    )


def _see(owner: Owner, tables: OwnerTables, stream: Stream) -> _Seen:
    spec, now = owner.spec, owner.now()
    before = load_noted(owner.store.state, spec, stream)
    reading = _spell_reading(owner, tables, stream)
    is_read_alike = reading == before.reading
    changes = tables.find_changes(stream, before.position if is_read_alike else {})
    if before.reading and not is_read_alike:  # all rows may be other ones
        changes = replace(changes, rows=None, notice=_READ_OTHERWISE)
    times = _read_times(owner, _read_changed(tables, stream, changes))
    windows = {*list_windows(spec, times), *_list_due(spec, before.ahead, now)}
    if changes.rows is None:  # windows of rows that are gone are known by their state alone
        known = window_state.list_touched_before(owner.store.state, spec.model, now)
        windows.update(window_containing(spec.time, start) for start in known)
    later = {window.start for window in windows if window.start > now}
    if before.ahead is not None and before.ahead > now:
        later.add(before.ahead)
    # No database tells of deleted rows, so those that are noted are looked for at every look.
    is_asked = changes.are_any or bool(before.unplaced)
    unplaced = find_unplaced(owner, tables, stream) if is_asked else []
    noted = Noted(changes.position, min(later, default=None),
                  {one.key: one.n for one in unplaced}, reading)  # fmt: skip
    windows = {window for window in windows if window.start <= now}
    report = _report(owner, tables, stream, changes, before, unplaced, len(windows))
    return _Seen(changes, before, noted, unplaced, windows, report)


def _spell_reading(owner: Owner, tables: OwnerTables, stream: Stream) -> str:
    """Return how rows are read: what the spec says of it, and the types of their columns."""
    wanted = owner.wanted[stream].names
    kinds = {one.name: str(one.type) for one in tables.find_schema(stream) if one.name in wanted}
    return f"{reading_of(owner.spec, stream)} {json.dumps(kinds, sort_keys=True)}"


def _read_changed(tables: OwnerTables, stream: Stream, changes: Changes) -> pa.Table:
    """Return the times of the predictions that changed, or whose ground truth did."""
    if changes.rows is None:
        return tables.read_times()
    if stream == "predictions":
        return changes.rows
    return tables.read_times(changes.rows) if changes.rows.num_rows else changes.rows


def _read_times(owner: Owner, times: pa.Table) -> pa.Array:
    wanted = owner.wanted["predictions"]
    if wanted.time not in times.column_names:
        return pa.nulls(0, pa.timestamp("us", "UTC"))
    draft = draft_raw(times.select([wanted.time]), owner.spec, "predictions", wanted.label,
                      owner.now())  # fmt: skip
    return draft.columns["event_time"]


def _list_due(spec: ModelSpec, ahead: dt.datetime | None, now: dt.datetime) -> list[Window]:
    """Return the windows of rows that lay ahead of an earlier look, and do no longer."""
    if ahead is None or ahead > now:
        return []
    return windows_between(spec.time, window_containing(spec.time, ahead).start, now)


def _report(
    owner: Owner,
    tables: OwnerTables,
    stream: Stream,
    changes: Changes,
    before: Noted,
    unplaced: Sequence[Unplaced],
    n_windows: int,
) -> FileReport | None:
    """Say what a look found of a table; None if nothing."""
    if not n_windows and not changes.are_any and not changes.notice:
        return None
    wanted = owner.wanted[stream]
    came = [(one, one.n - before.unplaced.get(one.key, 0)) for one in unplaced]
    came = [(one, n) for one, n in came if n > 0]
    n_bad = sum(n for _, n in came)
    n_unmatched = 0
    if stream == "actuals" and changes.are_any:
        n_unmatched = tables.count_unmatched(changes.rows)
    return FileReport(
        stream, wanted.label, "done", rows_in=n_bad, n_bad=n_bad, n_unmatched=n_unmatched,
        n_windows=n_windows,
        bad_rows=tuple(
            f"{counted(n, 'row')} of no window: {one.fault.message(wanted.label)}"
            for one, n in came
        ),
    )  # fmt: skip


def _note(owner: Owner, found: _Found) -> None:
    store, spec, now = owner.store, owner.spec, owner.now()
    if found.windows:
        begin_moment(store, spec.model, now)
    held: list[Held] = ["windows"] if found.windows else []
    held += list_streams(spec)
    with store.state.begin() as conn:
        remember_declared(conn, spec, held, now)
        arrivals = dict.fromkeys(found.windows, 1)
        window_state.mark_arrivals(conn, spec, arrivals, now, found.by_truth)
        for stream, seen in found.streams.items():
            note_unplaced(conn, owner, stream, seen.before.unplaced, seen.unplaced)
            newest = max((window.start for window in seen.windows), default=None)
            layout = _lay_out(owner, stream, found.schemas[stream])
            label = owner.wanted[stream].label
            note_layouts(conn, spec, stream, [SeenLayout(layout, label, "", newest)], now)
            seen.noted.save(conn, spec, stream, now)


def _lay_out(owner: Owner, stream: Stream, schema: pa.Schema) -> Layout:
    """Return the layout of a table, as of a file."""
    columns = {field.name: pa.array([], field.type) for field in schema}
    extra = set(schema.names) - set(owner.wanted[stream].names)
    raw = RawFile(columns, 0, tuple(schema.names), rows_of)
    return layout_of(raw, columns_of(owner.spec, stream), sorted(extra))
