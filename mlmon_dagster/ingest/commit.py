"""Append a batch of files to the log and settle it in the manifest, exactly once in effect.

The log is appended first, in one commit that carries the files' hashes; then one transaction of
the state database writes counters, dead letters and touched windows. A crash in between is found
by the hashes: the counters are then computed again, leaving the batch's own rows out of what was
known before, and come out the same. Files that are not appended, refused, failed or looked at again
later, are noted in the manifest by `Refusals`.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import traceback
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from numpy.typing import NDArray

from mlmon_dagster.errors import MlmonError, SchemaError
from mlmon_dagster.ingest.declared_columns import columns_of, reading_of
from mlmon_dagster.ingest.formats.known import ending_of
from mlmon_dagster.ingest.landing import Staged
from mlmon_dagster.ingest.queue import Queued
from mlmon_dagster.ingest.raw import (
    Layout,
    carried_over,
    changes_between,
    layout_from,
    refused,
)
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.ingest.rows.canonical import TIME
from mlmon_dagster.ingest.rows.judge import Letter, Prepared, TooManyBadError
from mlmon_dagster.spec import ModelSpec, Window, window_containing
from mlmon_dagster.spec.baseline import LIVE
from mlmon_dagster.spec.changes import Held
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store import Store
from mlmon_dagster.store.moments import note_commits
from mlmon_dagster.store.state import erased_ids, manifest, model_history, window_state
from mlmon_dagster.store.state.manifest import UNFINISHED, FileRow
from mlmon_dagster.store.state.model_history import remember_declared
from mlmon_dagster.store.state.writing import reached
from mlmon_dagster.store.tables import kept_rows
from mlmon_dagster.store.tables.event_log import EventLog
from mlmon_dagster.store.tables.id_index import find_repeated
from mlmon_dagster.store.tables.part_files import PartedRows

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Committed:
    """What a batch became."""

    reports: tuple[FileReport, ...]
    windows: tuple[Window, ...]


def commit_batch(
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    batch: Sequence[Prepared],
    *,
    is_in_log: bool,
    now: dt.datetime,
) -> Committed:
    """Append the new and conflicting rows of a batch, then settle its files.

    Args:
        store: The store.
        spec: The model.
        stream: What the files hold.
        batch: Accepted files.
        is_in_log: An earlier run appended this batch and died before settling it.
        now: The moment to note.
    """
    log = store.event_log(spec)
    # A fixed order, so that a repeated run gives each file the same counters: that of arrival.
    batch = sorted(batch, key=lambda file: file.staged.order)
    shas = [file.staged.log_id for file in batch]
    rows = PartedRows.joined([file.rows for file in batch])
    looked_up = _LookedUp(store, log, stream, rows, shas if is_in_log else ())
    if is_by_arrival(rows.schema, stream):
        looked_up = replace(looked_up, rows=_arriving_after(looked_up.newest(), rows, batch, now))
    added, counts, starts = looked_up.classified(np.cumsum([f.rows.num_rows for f in batch]))
    # What reading and judging freed is of use to the writer, which has its own allocator.
    pa.default_memory_pool().release_unused()
    reached("ingest.before_append")
    if added.num_rows and not is_in_log:
        log.append(stream, added, shas)
    reached("ingest.after_append")
    unmatched = np.zeros(len(batch), np.int64)
    if stream == "actuals":
        # Looked up only now, so that a prediction that came meanwhile is not missed.
        ends = np.cumsum(counts[:, [Kind.NEW, Kind.CONFLICT]].sum(axis=1))
        unmatched, starts = _match_actuals(store, log, added, ends)
    told = [
        w for file in batch for w in (*file.bad_windows, *_find_refused_windows(spec, file.staged))
    ]
    windows = dict.fromkeys(told, 0) | _windows(spec, starts)
    reports = _make_reports(batch, counts, unmatched)
    reached("ingest.before_manifest")
    by_truth = set(windows) - set(told) if stream == "actuals" else set[Window]()
    _settle(store, spec, batch, reports, windows, by_truth, now)
    reached("ingest.after_manifest")
    return Committed(tuple(reports), tuple(sorted(windows)))


@dataclass(frozen=True)
class _LookedUp:
    """A batch's rows beside what the log knows of their ids, a group of ids at a time."""

    store: Store
    log: EventLog
    stream: Stream
    rows: PartedRows
    excluding: Sequence[str]

    def _known(self) -> Iterator[tuple[NDArray[np.int64], pa.Table, pa.Table]]:
        """Yield positions of rows, what is compared of them, and the log's rows of their ids."""
        wanted = (*_KEYS[self.stream], "row_hash", "window_start", *ARRIVAL)
        columns = [name for name in wanted if name in self.rows.schema.names]
        for positions, rows in self.rows.by_id(self.store.queries, columns):
            known = self.log.known_ids(self.stream, rows, excluding=self.excluding)
            yield positions, rows, known

    def newest(self) -> dt.datetime | None:
        """Return when the newest row of one of the ids arrived; None if none is known."""
        found = [pc.max(known["ingested_at"]).as_py() for _, _, known in self._known()]
        return max((moment for moment in found if moment is not None), default=None)

    def classified(self, ends: Ints) -> tuple[PartedRows, Ints, Counter[dt.datetime]]:
        """Classify the rows; count those that touch a window, by its start.

        Args:
            ends: Where the rows of each of F files end.

        Returns:
            The rows that the log lacks, how many of each file are of each `Kind`, (F, 3), and the
            windows' counts.
        """
        is_added = np.ones(self.rows.num_rows, dtype=bool)
        counts = np.zeros((len(ends), len(Kind)), np.int64)
        starts: Counter[dt.datetime] = Counter()
        for positions, rows, known in self._known():
            found = classify(rows, known, self.stream)
            is_added[positions[found == Kind.DUPLICATE]] = False
            for kind in Kind:
                counts[:, kind] += _count_by_file(positions[found == kind], ends)
            if self.stream == "predictions":
                starts += _count_starts(_find_touched(rows, found, known))
        return self.rows.only(is_added), counts, starts


def _count_by_file(positions: Ints, ends: Ints) -> Ints:
    """Count rows, given by their positions, by the file that they are of."""
    return np.bincount(np.searchsorted(ends, positions, side="right"), minlength=len(ends))


def _match_actuals(
    store: Store, log: EventLog, added: PartedRows, ends: Ints
) -> tuple[Ints, Counter[dt.datetime]]:
    """Count the actuals of each file that have no prediction, and the windows of the others'."""
    unmatched = np.zeros(len(ends), np.int64)
    starts: Counter[dt.datetime] = Counter()
    for positions, rows in added.by_id(store.queries, ["prediction_id", "dataset"]):
        matched = log.windows_of_actuals(rows)
        starts += _count_starts(matched["window_start"])
        unmatched += _count_by_file(positions[_find_unmatched(rows, matched)], ends)
    return unmatched, starts


def settle_from_log(
    store: Store, spec: ModelSpec, staged: Staged, why: str, now: dt.datetime
) -> Committed:
    """Settle a file whose rows are in the log but which cannot be read as before.

    That takes a crash after the append, and then a changed spec or a lost copy. What the log
    holds stays; the file's refused and repeated rows are not counted any more.

    Args:
        store: The store.
        spec: The model.
        staged: The file.
        why: What is in the way of reading it.
        now: The moment to note.
    """
    log = store.event_log(spec)
    columns = ["prediction_id", "dataset"]
    rows = log.rows(staged.stream, columns, shas=[staged.log_id])
    find = log.windows_of_actuals(rows) if staged.stream == "actuals" else None
    touched = log.known_ids(staged.stream, rows) if find is None else find
    windows = _windows(spec, _count_starts(touched["window_start"]))
    report = FileReport(
        staged.stream, staged.name, "done", staged.sha256, rows_in=rows.num_rows,
        n_new=rows.num_rows,
        warnings=(f"an interrupted run had taken it in, but now: {why}",),
    )  # fmt: skip
    file = Prepared(staged, PartedRows.of(rows), rows.num_rows, 0, (), (), {}, report.warnings, ())
    by_truth = set(windows) if staged.stream == "actuals" else set[Window]()
    _settle(store, spec, [file], [report], windows, by_truth, now)
    return Committed((report,), tuple(sorted(windows)))


def _arriving_after(
    newest: dt.datetime | None, rows: PartedRows, batch: Sequence[Prepared], now: dt.datetime
) -> PartedRows:
    """Let each file arrive a microsecond after the one before it, and all of them after the known.

    Files that are taken in together have one moment, and clocks are set back: neither may put a
    correction before what it corrects. Rows that were refused at first arrived with their file.
    """
    start = now if newest is None else max(now, newest + dt.timedelta(microseconds=1))
    arrived = [
        again.arrived if (again := file.staged.again) else start + dt.timedelta(microseconds=n)
        for n, file in enumerate(batch)
    ]
    moments = pa.array(arrived, TIME)
    ends = np.cumsum([file.rows.num_rows for file in batch])
    return rows.with_column(
        "ingested_at",
        lambda first, end: moments.take(
            pa.array(np.searchsorted(ends, np.arange(first, end), side="right"))
        ),
    )


def _find_refused_windows(spec: ModelSpec, staged: Staged) -> list[Window]:
    """Return the windows in which rows that are read again were counted as refused."""
    if staged.again is None:
        return []
    starts = staged.again.kept.rows["window_start"].drop_null().unique().to_pylist()
    return [window_containing(spec.time, start) for start in starts]


def _count_starts(starts: pa.ChunkedArray) -> Counter[dt.datetime]:
    """Count rows by the start of the window that they touch."""
    return Counter({row["values"]: row["counts"] for row in pc.value_counts(starts).to_pylist()})


def _windows(spec: ModelSpec, starts: Mapping[dt.datetime, int]) -> dict[Window, int]:
    return {window_containing(spec.time, start): n for start, n in starts.items()}


def _select(rows: pa.Table, chosen: NDArray[np.bool_]) -> pa.Table:
    """Return the chosen rows, without copying them if they are all."""
    return rows if chosen.all() else rows.filter(pa.array(chosen))


def _find_touched(rows: pa.Table, kinds: NDArray[np.int8], known: pa.Table) -> pa.ChunkedArray:
    """Return the window starts of new rows, and of all rows that they conflict with."""
    placed = rows.select(["prediction_id", "window_start"])
    starts = [_select(placed, kinds != Kind.DUPLICATE)["window_start"]]
    conflicting = _select(placed, kinds == Kind.CONFLICT)
    if conflicting.num_rows:
        same_id = pc.is_in(known["prediction_id"], conflicting["prediction_id"].combine_chunks())
        starts.append(known.filter(same_id)["window_start"].cast(starts[0].type))
    return pa.chunked_array([chunk for column in starts for chunk in column.chunks], starts[0].type)


def _find_unmatched(rows: pa.Table, matched: pa.Table) -> NDArray[np.bool_]:
    """Return which actuals have no prediction."""
    found = pc.is_in(rows["prediction_id"], matched["prediction_id"].combine_chunks())
    is_named = pc.not_equal(rows["dataset"], ALL)
    if pc.any(is_named).as_py():
        pairs = _join_pairs(matched).combine_chunks()
        found = pc.if_else(is_named, pc.is_in(_join_pairs(rows), pairs), found)
    unmatched: NDArray[np.bool_] = ~found.to_numpy().astype(bool)
    return unmatched


def _join_pairs(rows: pa.Table) -> pa.ChunkedArray:
    """Return dataset and id of each row as one text."""
    return pc.binary_join_element_wise(rows["dataset"], rows["prediction_id"], "/")


def _make_reports(batch: Sequence[Prepared], found: Ints, unmatched: Ints) -> list[FileReport]:
    reports = []
    for file, counts, n_unmatched in zip(batch, found.tolist(), unmatched.tolist(), strict=True):
        if sum(counts) + file.n_bad != file.n_rows:
            raise AssertionError(f"{file.staged.name}: {counts} + {file.n_bad} != {file.n_rows}")
        reports.append(
            FileReport(
                stream=file.staged.stream,
                path=file.staged.name,
                status="done",
                sha256=file.staged.sha256,
                reason="" if file.n_rows else "no_rows",
                rows_in=file.n_rows,
                n_new=counts[Kind.NEW],
                n_duplicate=counts[Kind.DUPLICATE],
                n_conflict=counts[Kind.CONFLICT],
                n_bad=file.n_bad,
                n_erased=file.n_erased,
                is_again=file.staged.again is not None,
                n_unmatched=n_unmatched,
                warnings=file.warnings,
                bad_rows=file.examples,
            )
        )
    return reports


def _settle(
    store: Store,
    spec: ModelSpec,
    batch: Sequence[Prepared],
    reports: Sequence[FileReport],
    windows: Mapping[Window, int],
    by_truth: Collection[Window],
    now: dt.datetime,
) -> None:
    # Before the row that names it, so that no row names a file that is not there.
    kept = [_keep_rows(store, spec, file) for file in batch]
    reached("ingest.kept")
    stream = batch[0].staged.stream
    first_read = [file.staged.sha256 for file in batch if not file.staged.again]
    rows = [
        {
            "sha256": report.sha256,
            "reason": report.reason,
            **_counters(report),
            "schema_report": json.dumps(
                {**file.report, "warnings": report.warnings, "n_unmatched": report.n_unmatched},
                allow_nan=False,
            ),
            "kept": name,
        }
        for file, report, name in zip(batch, reports, kept, strict=True)
        if not file.staged.again
    ]
    same: dict[str, Any] = {
        "status": "done", "error": "", "attempts": 0, "again_at": None,
        "read_with": reading_of(spec, stream),
    }  # fmt: skip
    with store.state.begin() as conn:
        manifest.forget_refused(conn, spec.model, stream, *first_read)
        for file, report, name in zip(batch, reports, kept, strict=True):
            if again := file.staged.again:
                key = (spec.model, stream, report.sha256)
                manifest.forget_rows(conn, *key, again.row_numbers())
                less = again.kept.n_refused
                changed: dict[str, Any] = {
                    **same,
                    **manifest.add_counters(conn, *key, _counters(report), less),
                    "kept": name,
                }
                manifest.update_file(conn, *key, **changed)
            manifest.refuse_rows(conn, letter_rows(conn, spec, report, file.letters, now))
        manifest.update_files(conn, spec.model, stream, rows, **same, finished_at=now)
        layouts = [
            SeenLayout(file.layout, file.staged.name, file.staged.sha256, _first_window(file))
            for file in batch if file.layout
        ]  # fmt: skip
        note_layouts(conn, spec, stream, layouts, now)
        held: list[Held] = ["windows"] if windows else []
        held += [stream] if any(report.n_new + report.n_conflict for report in reports) else []
        remember_declared(conn, spec, held, now)
        window_state.mark_arrivals(conn, spec, windows, now, by_truth)
        tables = [folder.path for folder in store.event_log(spec).folders.values()]
        note_commits(conn, store, spec.model, tables)


def _counters(report: FileReport) -> dict[str, int]:
    names = ("rows_in", "n_new", "n_duplicate", "n_conflict", "n_bad")
    return {name: getattr(report, name) for name in names}


def _keep_rows(store: Store, spec: ModelSpec, file: Prepared) -> str:
    """Write the refused rows of a file; return the name of what was written, empty if nothing."""
    if file.kept is None:
        return ""
    with store.state.begin() as conn:
        salt = erased_ids.ensure_salt(conn, spec.model)
    name = kept_rows.make_name(file.staged.log_id, file.staged.stream)
    place = kept_rows.locate_folder(store, spec.model) / name
    place.write(file.kept.with_hashed_ids(salt).content())
    return name


def letter_rows(
    conn: sa.Connection,
    spec: ModelSpec,
    report: FileReport,
    letters: Sequence[Letter],
    now: dt.datetime,
) -> list[dict[str, object]]:
    """Return dead letters as rows of their table; of an id, only its keyed hash is kept."""
    if not letters:
        return []
    salt = erased_ids.ensure_salt(conn, spec.model)
    rows = []
    for letter in letters:
        row: dict[str, object] = {k: v for k, v in letter.items() if k != "prediction_id"}
        row |= {"model": spec.model, "stream": report.stream, "sha256": report.sha256}
        own, values = letter["prediction_id"], letter["row_hash"]
        row["id_hash"] = erased_ids.hash_id(salt, own) if own else ""
        # So is the hash of its values, which could be tried out otherwise.
        row["row_hash"] = erased_ids.hash_id(salt, values) if values else ""
        rows.append({**row, "created_at": now})
    return rows


class Kind(enum.IntEnum):
    """What a row adds to the log."""

    NEW = 0
    DUPLICATE = 1  # the same key and content are there
    CONFLICT = 2  # the same key is there with other content; kept, the records choose


# A second content under one of these is a conflict. A later actual of a prediction is none: it
# is a new version of the ground truth. Without a time of its own an actual is later by its
# arrival, so that no two are ever at the same moment.
_KEYS: Final[dict[Stream, tuple[str, ...]]] = {
    "predictions": ("dataset", "prediction_id"),
    "actuals": ("dataset", "prediction_id", "actual_time"),
}
ARRIVAL: Final = ("ingested_at", "row_number")


def classify(rows: pa.Table, known: pa.Table, stream: Stream) -> NDArray[np.int8]:
    """Classify each row by what came before it.

    Args:
        rows: Canonical rows of a batch, in a fixed order; in that of arrival, if they are actuals
            without a time.
        known: Rows of the log with the same ids: key columns and row_hash; of actuals without a
            time also where they stand in the order of arrival.
        stream: Which key to use.

    Returns:
        One `Kind` per row. The counts add up to the same totals in any order of delivery, unless
        the order is all that tells which ground truth is the newest.
    """
    kinds = np.full(rows.num_rows, Kind.NEW, dtype=np.int8)
    is_repeated = find_repeated(rows, known)  # all others are new without looking
    if not is_repeated.any():
        return kinds
    if is_by_arrival(rows.schema, stream):
        known = known.sort_by([(name, "ascending") for name in ARRIVAL])
    keys = [name for name in _KEYS[stream] if name in rows.column_names]
    columns = [*keys, "row_hash"]
    asked = rows.select(columns).filter(pa.array(is_repeated))
    frame = pa.concat_tables([known.select(columns).cast(asked.schema), asked]).to_pandas()
    found = np.full(len(frame), Kind.NEW, dtype=np.int8)
    if is_by_arrival(rows.schema, stream):
        found[_find_same_as_known(frame, keys)] = Kind.DUPLICATE
    else:
        found[_find_repeated(frame, keys)] = Kind.CONFLICT
        found[_find_repeated(frame, columns)] = Kind.DUPLICATE
    kinds[is_repeated] = found[known.num_rows :]
    return kinds


def is_by_arrival(schema: pa.Schema, stream: Stream) -> bool:
    """Say whether rows are ground truth of which the order of arrival tells the newest."""
    return stream == "actuals" and "actual_time" not in schema.names


def _find_same_as_known(frame: pd.DataFrame, keys: list[str]) -> NDArray[np.bool_]:
    """Return the rows whose content is that of the row of their key just before them.

    An earlier content that comes back after a correction is a correction itself.
    """
    groups = frame.groupby(keys, sort=False).ngroup().to_numpy()
    order = np.argsort(groups, kind="stable")
    groups, hashes = groups[order], frame["row_hash"].to_numpy()[order]
    same = np.zeros(len(frame), dtype=bool)
    same[order[1:]] = (groups[1:] == groups[:-1]) & (hashes[1:] == hashes[:-1])
    return same


def _find_repeated(frame: pd.DataFrame, columns: list[str]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = frame.duplicated(columns).to_numpy()
    return found


@dataclass(frozen=True)
class SeenLayout:
    """The columns of a file, or of a table in place, as they were seen.

    Attributes:
        layout: The columns.
        path: Of the file.
        sha256: Its content.
        window: The first window of its live predictions; None if it has none.
    """

    layout: Layout
    path: str
    sha256: str
    window: dt.datetime | None


def note_layouts(
    conn: sa.Connection,
    spec: ModelSpec,
    stream: Stream,
    seen: Sequence[SeenLayout],
    now: dt.datetime,
) -> None:
    """Compare each layout with the ones before it, oldest window first.

    Files without live predictions are left out, since exports of training and validation data
    often have other columns; so are predictions older than the last change, which came late.
    """
    stored = model_history.load_layout(conn, spec.model, stream)
    before, since = (layout_from(stored.text), stored.window_start) if stored else (None, None)
    if before and all(carried_over(before, one.layout) == before for one in seen):
        return
    order = sorted(
        (one for one in seen if stream == "actuals" or one.window is not None),
        key=lambda one: (one.window or now, one.path),
    )
    for one in order:
        after = one.layout if before is None else carried_over(before, one.layout)
        is_old = one.window is not None and since is not None and one.window < since
        if is_old or after == before:
            continue
        if before is not None:
            found = changes_between(before, after, columns_of(spec, stream))
            model_history.note_changes(
                conn, spec.model, stream, found, sha256=one.sha256, path=one.path,
                window_start=one.window, now=now,
            )  # fmt: skip
        model_history.save_layout(conn, spec.model, stream, after.text(), one.window, now)
        before, since = after, one.window


def _first_window(file: Prepared) -> dt.datetime | None:
    """Return the first window that a file has live predictions of."""
    if file.staged.stream != "predictions":
        return None
    firsts = []
    for rows in file.rows.tables(["dataset", "window_start"]):
        live = pc.is_in(rows.column("dataset"), pa.array(LIVE))
        firsts.append(pc.min(rows.column("window_start").filter(live)).as_py())
    first = min((moment for moment in firsts if moment is not None), default=None)
    return None if first is None else first.astimezone(dt.UTC)


MAX_FAILURES: Final = 3  # recorded exceptions
MAX_ATTEMPTS: Final = 10  # begun and never ended, as when the machine runs out of memory
_MARK = "attempt "


@dataclass(frozen=True)
class Refusals:
    """Writes what becomes of files that are not simply ingested."""

    store: Store
    spec: ModelSpec
    now: dt.datetime
    run_id: str = ""

    def admit(
        self, items: Sequence[Queued], reports: list[FileReport]
    ) -> tuple[list[Queued], list[Queued]]:
        """Note staged files as being loaded, in one transaction.

        Contents that are settled already are only reported; files that ended the program too
        often are quarantined.

        Returns:
            The files to go on with, and those with the content of one of them, for later.
        """
        admitted: dict[str, Queued] = {}
        twins = []
        known = self._rows(items)
        for item in items:
            assert item.staged is not None
            if item.kept:
                admitted[item.staged.log_id] = item
                continue
            row = known.get(item.staged.sha256)
            if item.staged.sha256 in admitted:
                twins.append(item.without_copy())
            elif row and not _is_open(row, item):
                reports.append(self._known(item, row))
            else:
                admitted[item.staged.sha256] = item.as_noted(row)
        self._note(list(admitted.values()))
        reached("ingest.admitted")
        crashing = [i for i in admitted.values() if i.attempts >= MAX_ATTEMPTS and not i.is_in_log]
        for item in crashing:
            found = f"the program ended {item.attempts} times while it read this file."
            reports.append(self.quarantine(item, refused(item.name, "failed", found)))
        return [item for item in admitted.values() if item not in crashing], twins

    def quarantine(self, item: Queued, error: SchemaError) -> FileReport:
        """Refuse a whole file: keep a copy, say why, and leave it until it is read differently."""
        assert item.staged is not None
        if item.kept:
            return self._leave(item, error.reason, str(error))
        letters = error.letters if isinstance(error, TooManyBadError) else ()
        n_rows = error.n_rows if isinstance(error, TooManyBadError) else 0
        report = FileReport(
            item.stream, item.name, "quarantined", item.staged.sha256, error.reason, str(error),
            rows_in=n_rows, n_bad=n_rows,
            bad_rows=error.examples if isinstance(error, TooManyBadError) else (),
        )  # fmt: skip
        self._keep_copy(item)
        key = (self.spec.model, item.stream, item.staged.sha256)
        with self.store.state.begin() as conn:
            manifest.forget_refused(conn, *key)
            manifest.refuse_rows(conn, letter_rows(conn, self.spec, report, letters, self.now))
            manifest.update_file(
                conn, *key, status="quarantined", reason=error.reason, error=str(error),
                rows_in=n_rows, n_bad=n_rows, n_new=0, n_duplicate=0, n_conflict=0, attempts=0,
                again_at=None, finished_at=self.now, read_with=reading_of(self.spec, item.stream),
            )  # fmt: skip
        item.staged.discard()
        return report

    def fail(self, item: Queued, error: Exception) -> FileReport:
        """Record an unexpected exception; the third one quarantines the file."""
        assert item.staged is not None
        count = item.error.count(_MARK) + 1
        text = _describe_error(error)
        if item.kept:
            return self._leave(item, "failed", f"{item.name}: {text}.")
        run = f" in run {self.run_id}" if self.run_id else ""
        errors = "\n".join(filter(None, [item.error, f"{_MARK}{count}{run}: {text}"]))
        if count >= MAX_FAILURES and not item.is_in_log:
            found = f"{count} attempts to read it failed, the last with {text}."
            return self.quarantine(item, refused(item.name, "failed", found))
        self._update(item, error=errors)
        message = f"{item.name}: {text}. It is tried again at the next ingest."
        return item.report("failed", "failed", message)

    def _leave(self, item: Queued, reason: str, why: str) -> FileReport:
        """Leave refused rows that cannot be read again where they are kept."""
        assert item.staged is not None
        self._update(item, again_at=None, attempts=0, read_with=reading_of(self.spec, item.stream))
        item.staged.discard()
        message = (
            f"{why} Its refused rows stay as they are, and are read again once the spec changes, "
            "or with --retry."
        )
        return item.report("failed", reason, message, is_again=True)

    def postpone(self, item: Queued, error: SchemaError) -> FileReport:
        """Forget a file that looks unfinished, so that it is looked at again."""
        assert item.staged is not None
        self._update(item, attempts=0, status="missing")
        item.staged.discard()
        message = f"{error} It is given more time to be completed."
        return item.report("waiting", error.reason, message)

    def _rows(self, items: Sequence[Queued]) -> dict[str, FileRow]:
        """Return what the manifest says of the contents of some files of one stream."""
        shas = [item.staged.sha256 for item in items if item.staged is not None]
        if not shas:
            return {}
        stream = items[0].stream
        found = manifest.load_files(self.store.state, self.spec.model, stream, shas=shas)
        return {row["sha256"]: row for row in found}

    def _note(self, items: Sequence[Queued]) -> None:
        for item in items:
            if item.kept:
                self._update(
                    item, again_at=item.first_seen, attempts=item.attempts + 1,
                    read_with=reading_of(self.spec, item.stream),
                )  # fmt: skip
        items = [item for item in items if not item.kept]
        if not items:
            return
        stream = items[0].stream
        rows: list[dict[str, object]] = []
        paths: dict[str, manifest.SeenPath] = {}
        for item in items:
            assert item.staged is not None
            rows.append(
                {
                    "model": self.spec.model,
                    "stream": stream,
                    "sha256": item.staged.sha256,
                    "path": item.name,
                    "size_bytes": item.staged.size,
                    "mtime_ns": item.staged.mtime_ns,
                    "first_seen": item.first_seen,
                }
            )
            paths |= self._seen(item)
        begun = [
            {"sha256": row["sha256"], "path": row["path"], "attempts": item.attempts + 1}
            for row, item in zip(rows, items, strict=True)
        ]
        with self.store.state.begin() as conn:
            manifest.note_discovered(conn, rows)
            manifest.update_files(conn, self.spec.model, stream, begun, status="loading")
            manifest.note_paths(conn, self.spec.model, stream, paths)

    def _seen(self, item: Queued) -> dict[str, manifest.SeenPath]:
        """Return what was seen of a landing file, by its path."""
        if item.candidate is None or item.staged is None:
            return {}  # a copy that an earlier run made, and noted with what it saw of the file
        staged = item.staged
        seen = manifest.SeenPath(staged.size, staged.mtime_ns, staged.sha256, staged.mark)
        return {item.name: seen}

    def _known(self, item: Queued, row: FileRow) -> FileReport:
        """Report a file whose content was settled under this or another name."""
        assert item.staged is not None
        with self.store.state.begin() as conn:
            manifest.note_paths(conn, self.spec.model, item.stream, self._seen(item))
        item.staged.discard()
        if row["status"] == "quarantined":
            message = str(row["error"]).replace(row["path"], item.name)
            return item.report("quarantined", row["reason"], message)
        message = f"{item.name}: the content of {row['path']}, known already; nothing to do."
        if row["kept"]:
            message += (
                f" {row['n_bad']:,} of its rows were refused and are kept: correct the spec, or "
                "write the corrected rows into another file."
            )
        return item.report("duplicate", "", message)

    def _update(self, item: Queued, **values: object) -> None:
        assert item.staged is not None
        with self.store.state.begin() as conn:
            manifest.update_file(conn, self.spec.model, item.stream, item.staged.sha256, **values)

    def _keep_copy(self, item: Queued) -> None:
        if item.staged is None or item.staged.path is None:
            return
        name = f"{item.staged.sha256}{ending_of(item.name)}"
        (kept_rows.locate_folder(self.store, self.spec.model) / name).keep(item.staged.path)


def _is_open(row: FileRow, item: Queued) -> bool:
    """Say whether a content in the manifest is still to be ingested."""
    if row["status"] == "quarantined":
        # Another ending may be another format: the file was renamed to what it is.
        return ending_of(row["path"]) != ending_of(item.name)
    return row["status"] in UNFINISHED


def _describe_error(error: Exception) -> str:
    """Say what failed and where; the message of an unforeseen error may quote a value of a row."""
    kind = type(error).__name__
    if isinstance(error, MlmonError):
        return " ".join(f"{kind}: {error}".split())[:500]
    if isinstance(error, OSError) and error.strerror:
        return f"{kind}: {error.strerror}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "mlmon_dagster" in frame.filename] or frames
    at = f" at {Path(ours[-1].filename).stem}:{ours[-1].lineno}" if ours else ""
    return f"{kind}{at}"
