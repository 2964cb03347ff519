"""A look at the tables of an owner: which windows have other rows than at the look before.

Where the tables stand is found before anything is read, so that what is committed meanwhile is
seen by the next look. Windows and positions are noted in one transaction: a look that is killed
was never made.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import dataclass, field

import pyarrow as pa
import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.ingest.commit import letter_rows
from mlmon_dagster.ingest.report import FileReport, IngestReport
from mlmon_dagster.ingest.rows.judge import MAX_LETTERS, Letter
from mlmon_dagster.spec import ModelSpec, Window, window_containing, windows_between
from mlmon_dagster.spec.changes import Held
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store import sources
from mlmon_dagster.store.moments import begin_moment, check_moment
from mlmon_dagster.store.sources import Position
from mlmon_dagster.store.state import manifest, window_state
from mlmon_dagster.store.state.model_history import check_declared, remember_declared
from mlmon_dagster.store.state.writing import reached, writer_lock
from mlmon_dagster.warehouse.log import draft_raw, list_windows, make_entry
from mlmon_dagster.warehouse.owner import (
    AHEAD,
    Changes,
    Owner,
    OwnerTables,
    list_streams,
    load_noted,
    split_ahead,
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
        return IngestReport(tuple(found.reports), sorted(found.windows))


@dataclass
class _Found:
    """What a look found.

    Attributes:
        positions: Where each table stands now, as it is noted.
        is_new: Whether anything is to be noted.
        windows: Windows with other rows than before.
        by_truth: Those of them with other ground truth alone.
        reports: What is said of each table.
    """

    positions: dict[Stream, Position] = field(default_factory=dict)
    is_new: bool = False
    windows: set[Window] = field(default_factory=set)
    by_truth: set[Window] = field(default_factory=set)
    reports: list[FileReport] = field(default_factory=list)


def _find(owner: Owner, tables: OwnerTables) -> _Found:
    engine, spec, now = owner.store.state, owner.spec, owner.now()
    found = _Found()
    touched: dict[Stream, set[Window]] = {}
    for stream in list_streams(spec):
        noted = load_noted(engine, spec, stream)
        before, ahead = split_ahead(noted)
        changes = tables.find_changes(stream, before)
        times = _read_times(owner, _read_changed(tables, stream, changes))
        windows = {*list_windows(spec, times), *_list_due(spec, ahead, now)}
        later = {window.start for window in windows if window.start > now}
        if ahead is not None and ahead > now:
            later.add(ahead)
        position = dict(changes.position) | ({AHEAD: min(later).isoformat()} if later else {})
        touched[stream] = {window for window in windows if window.start <= now}
        found.is_new |= position != noted
        found.positions[stream] = position
        if touched[stream] or changes.n_unplaced or changes.notice:
            found.reports.append(_report(owner, stream, changes, len(touched[stream])))
    found.windows = set().union(*touched.values())
    found.by_truth = touched.get("actuals", set()) - touched["predictions"]
    return found


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


def _report(owner: Owner, stream: Stream, changes: Changes, n_windows: int) -> FileReport:
    wanted = owner.wanted[stream]
    said = [f"what changed touches {n_windows:,} windows"]
    said += [changes.notice] if changes.notice else []
    if changes.n_unplaced:
        lacking = " and ".join(wanted.ids) if stream == "actuals" else wanted.time
        said.append(
            f"{changes.n_unplaced:,} rows have no {lacking}, so they are of no window and count "
            "as refused. Fill it in, or delete them"
        )
    stand = json.dumps(changes.position, sort_keys=True)
    name = hashlib.sha256(f"{wanted.label}/{stand}".encode()).hexdigest()
    digest = f"{manifest.IN_PLACE}{name}"
    return FileReport(stream, wanted.label, "done", digest, rows_in=changes.n_unplaced,
                      n_bad=changes.n_unplaced, warnings=tuple(said))  # fmt: skip


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
        for report in found.reports:
            if report.n_bad:
                _refuse_unplaced(conn, owner, report)
        for stream, position in found.positions.items():
            sources.save_cursor(conn, spec.model, stream, position, now)


def _refuse_unplaced(conn: sa.Connection, owner: Owner, report: FileReport) -> None:
    """Note rows that are of no window, as those of a file are noted."""
    spec, now = owner.spec, owner.now()
    name = "prediction_id" if report.stream == "actuals" else "event_time"
    manifest.note_discovered(conn, [make_entry(spec, report, now)])
    manifest.update_file(conn, spec.model, report.stream, report.sha256, status="done",
                         finished_at=now, rows_in=report.rows_in, n_bad=report.n_bad)  # fmt: skip
    letters: list[Letter] = [
        {
            "row_number": row, "reason": "null_required", "column_name": name,
            "message": f"{report.path}: {report.warnings[-1]}.", "row_hash": "",
            "prediction_id": None, "window_start": None,
        }
        for row in range(min(report.n_bad, MAX_LETTERS))
    ]  # fmt: skip
    manifest.refuse_rows(conn, letter_rows(conn, spec, report, letters, now))
