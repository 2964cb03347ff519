"""The manifest: every landing file ever seen, every row refused, files that wait.

Files wait that the last look found and did not take in: too new to be complete, or too many. Their
times are of the files, by the real clock, whatever moment the project is replayed at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack, cast

import sqlalchemy as sa

from mlmon_dagster.store.state.schema import dead_letter, ingest_backlog, ingest_file, ingest_path
from mlmon_dagster.store.state.sql import (
    Query,
    between,
    fetch,
    fetch_rows,
    fetch_value,
    insert_or_ignore,
    read_frame,
    upsert,
)

if TYPE_CHECKING:
    import pandas as pd

IN_PLACE: Final = "in-place:"  # begins the name of rows that are in tables of their owner
IS_IN_LOG = sa.not_(ingest_file.c.sha256.startswith(IN_PLACE, autoescape=True))
UNFINISHED = ("discovered", "loading", "missing")  # statuses of files that are to be read
FUTURE = "future_time"  # why rows are refused that lie ahead of now
_AT_ONCE = 500
_JITTER = timedelta(seconds=2)  # the age of a file is measured anew by every look


class FileRow(TypedDict):
    """A row of ``ingest_file``."""

    model: str
    stream: str
    sha256: str
    path: str
    size_bytes: int
    mtime_ns: int
    status: str
    reason: str
    error: str
    rows_in: int
    n_new: int
    n_duplicate: int
    n_conflict: int
    n_bad: int
    schema_report: str
    attempts: int
    first_seen: datetime
    finished_at: datetime | None
    kept: str
    read_with: str
    again_at: datetime | None


@dataclass(frozen=True)
class SeenPath:
    """What a path held when it was last looked at."""

    size_bytes: int
    mtime_ns: int
    sha256: str
    mark: str = ""

    @property
    def look(self) -> tuple[int, int, str]:
        """What a listing tells of a file: another one has another of these."""
        return self.size_bytes, self.mtime_ns, self.mark


def has_rows(engine: sa.Engine, model: str, stream: str) -> bool:
    """Tell whether a file was taken in that brought rows of the log."""
    c = ingest_file.c
    query = sa.select(c.sha256).where(c.model == model, c.stream == stream, c.status == "done")
    query = query.where(c.n_new + c.n_conflict > 0, IS_IN_LOG).limit(1)
    return fetch_value(engine, query) is not None


def load_paths(engine: sa.Engine, model: str, stream: str) -> dict[str, SeenPath]:
    """Return what every path of a stream held when it was last looked at."""
    c = ingest_path.c
    query = sa.select(c.path, c.size_bytes, c.mtime_ns, c.sha256, c.mark)
    query = query.where(c.model == model, c.stream == stream)
    return {path: SeenPath(*seen) for path, *seen in fetch_rows(engine, query)}


def note_paths(conn: sa.Connection, model: str, stream: str, seen: Mapping[str, SeenPath]) -> None:
    """Remember what paths hold, replacing what was remembered of them."""
    same = {"model": model, "stream": stream}
    rows = [{**same, "path": path, **asdict(found)} for path, found in seen.items()]
    upsert(conn, ingest_path, rows)


def note_discovered(conn: sa.Connection, rows: Sequence[Mapping[str, object]]) -> int:
    """Insert files that are not in the manifest yet; return how many those were.

    Args:
        conn: A write transaction.
        rows: Columns of ``ingest_file``: at least model, stream, sha256, path and first_seen;
            all with the same keys.
    """
    return insert_or_ignore(conn, ingest_file, rows)


def update_file(
    conn: sa.Connection, model: str, stream: str, sha256: str, **values: object
) -> None:
    """Change columns of a file's row, such as status, counters or error."""
    update_files(conn, model, stream, [{"sha256": sha256}], **values)


def update_files(
    conn: sa.Connection,
    model: str,
    stream: str,
    rows: Sequence[Mapping[str, object]],
    **same: object,
) -> None:
    """Change columns of many files' rows in one statement.

    Args:
        conn: A write transaction.
        model: The model's name.
        stream: The files' stream.
        rows: ``sha256`` and the new values of a file; all with the same keys.
        same: New values that all of them have in common.
    """
    if not rows:
        return
    c = ingest_file.c
    changed: dict[str, object] = {
        name: sa.bindparam(f"new_{name}") for name in rows[0] if name != "sha256"
    }
    of_file = c.sha256 == sa.bindparam("new_sha256")
    statement = sa.update(ingest_file).where(c.model == model, c.stream == stream, of_file)
    conn.execute(
        statement.values({**same, **changed}),
        [{f"new_{name}": value for name, value in row.items()} for row in rows],
    )


def add_counters(
    conn: sa.Connection,
    model: str,
    stream: str,
    sha256: str,
    more: Mapping[str, int],
    less: int,
) -> dict[str, int]:
    """Return the counters of a file once refused rows of it were read again.

    Args:
        conn: A write transaction.
        model: The model's name.
        stream: ``predictions`` or ``actuals``.
        sha256: The file's content.
        more: What the rows count as now.
        less: How many rows these are, that counted as bad.
    """
    c = ingest_file.c
    names = ("rows_in", "n_new", "n_duplicate", "n_conflict", "n_bad")
    query = sa.select(*(c[name] for name in names)).where(
        c.model == model, c.stream == stream, c.sha256 == sha256
    )
    before = fetch(conn, query)[0]
    gone = {"rows_in": less, "n_bad": less}
    return {name: before[name] - gone.get(name, 0) + more[name] for name in names}


class ChosenFiles(TypedDict, total=False):
    """Which files.

    Attributes:
        status: One status or several; all by default.
        shas: Only files with these content hashes.
        seen_from: Only files first seen at or after this time.
    """

    status: str | Sequence[str] | None
    shas: Sequence[str] | None
    seen_from: datetime | None


def load_files_frame(
    engine: sa.Engine, model: str, stream: str | None = None, **chosen: Unpack[ChosenFiles]
) -> pd.DataFrame:
    """Return rows of ``ingest_file``, of both streams by default, oldest first."""
    return read_frame(engine, _select_files(model, stream, **chosen))


def load_files(
    engine: sa.Engine, model: str, stream: str, **chosen: Unpack[ChosenFiles]
) -> list[FileRow]:
    """Return what `load_files_frame` does as mappings: not every look has to build a frame."""
    return _fetch_files(engine, _select_files(model, stream, **chosen))


def _select_files(model: str, stream: str | None, **chosen: Unpack[ChosenFiles]) -> sa.Select[Any]:
    c = ingest_file.c
    query = sa.select(ingest_file).where(c.model == model)
    if stream is not None:
        query = query.where(c.stream == stream)
    if (status := chosen.get("status")) is not None:
        query = query.where(c.status.in_([status] if isinstance(status, str) else status))
    if (shas := chosen.get("shas")) is not None:
        query = query.where(c.sha256.in_(shas))
    if (seen_from := chosen.get("seen_from")) is not None:
        query = query.where(c.first_seen >= seen_from)
    return query.order_by(c.first_seen, c.path, c.sha256)


def _fetch_files(engine: sa.Engine, query: Query) -> list[FileRow]:
    return cast("list[FileRow]", fetch(engine, query))


BY_RULE = "expectation"  # the one reason to refuse a row that could be stored
# Refused, and of no window: ground truth, or the time cannot be believed.
_UNPLACED = (dead_letter.c.window_start.is_(None), dead_letter.c.reason != "erased")
NOT_KEPT = '"kept": false'  # in a file's report: an expectation of the spec that does not hold


def load_files_to_tell(engine: sa.Engine, model: str, seen_from: datetime) -> list[FileRow]:
    """Return the files since a moment that a window must tell of, whatever rows they brought.

    They were refused, or have refused rows of no window, or are of predictions sent before, or
    break an expectation of the spec.
    """
    c, letter = ingest_file.c, dead_letter.c
    mine = (letter.model == c.model, letter.stream == c.stream, letter.sha256 == c.sha256)
    is_unplaced = (c.n_bad > 0) & sa.exists().where(*mine, *_UNPLACED)
    is_repeated = (c.stream == "predictions") & (c.n_duplicate + c.n_conflict > 0)
    is_unexpected = c.schema_report.contains(NOT_KEPT, autoescape=True)
    is_told = is_repeated | is_unexpected | is_unplaced
    wanted = (c.status == "quarantined") | ((c.status == "done") & is_told)
    return _fetch_files(engine, _select_files(model, None, seen_from=seen_from).where(wanted))


def refuse_rows(conn: sa.Connection, rows: Sequence[Mapping[str, object]]) -> int:
    """Insert refused rows into ``dead_letter``; return how many were not there yet.

    All rows must have the same keys.
    """
    return insert_or_ignore(conn, dead_letter, rows)


def load_refused_files(engine: sa.Engine, model: str, stream: str) -> list[FileRow]:
    """Return the files that were refused, or whose refused rows are kept, oldest first."""
    c = ingest_file.c
    refused = sa.or_(c.status == "quarantined", c.kept != "")
    return _fetch_files(engine, _select_files(model, stream).where(refused))


def load_last_finished(engine: sa.Engine, model: str) -> datetime | None:
    """Return when a file of a model was last settled; None if none ever was."""
    c = ingest_file.c
    return fetch_value(engine, sa.select(sa.func.max(c.finished_at)).where(c.model == model))


def load_refused_as_ahead(engine: sa.Engine, model: str, stream: str) -> dict[str, datetime]:
    """Return content hash -> when rows of a file were last refused since they lay ahead of now."""
    c = dead_letter.c
    query = sa.select(c.sha256, sa.func.max(c.created_at)).where(
        c.model == model, c.stream == stream, c.reason == FUTURE
    )
    return {sha: moment for sha, moment in fetch_rows(engine, query.group_by(c.sha256))}


def forget_refused(conn: sa.Connection, model: str, stream: str, *shas: str) -> None:
    """Delete the refused rows of files that are judged anew."""
    c = dead_letter.c
    mine = (c.model == model, c.stream == stream, c.sha256.in_(shas))
    conn.execute(sa.delete(dead_letter).where(*mine))


def forget_rows(
    conn: sa.Connection, model: str, stream: str, sha256: str, rows: Sequence[int]
) -> None:
    """Delete what is noted of refused rows of a file, by number, that are judged anew."""
    c = dead_letter.c
    mine = (c.model == model, c.stream == stream, c.sha256 == sha256)
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        conn.execute(sa.delete(dead_letter).where(*mine, c.row_number.in_(some)))


def load_unplaced_in_place(
    conn: sa.Connection, model: str, stream: str, reason: str, column: str
) -> list[tuple[str, int]]:
    """Return name and number of rows of the looks that found some of no window, newest first."""
    c, letter = ingest_file.c, dead_letter.c
    mine = (letter.model == c.model, letter.stream == c.stream, letter.sha256 == c.sha256)
    why = (letter.reason == reason, letter.column_name == column, *_UNPLACED)
    query = sa.select(c.sha256, c.n_bad).where(
        c.model == model, c.stream == stream, sa.not_(IS_IN_LOG), sa.exists().where(*mine, *why)
    )
    return [(sha, n) for sha, n in fetch_rows(conn, query.order_by(c.first_seen.desc()))]


def load_refused_rows(
    engine: sa.Engine,
    model: str,
    *,
    sha256: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    is_unplaced: bool = False,
) -> pd.DataFrame:
    """Return rows of ``dead_letter``, by file and row number.

    Args:
        engine: The state database.
        model: The model's name.
        sha256: Only rows of this file.
        start: Only rows of windows that start at or after this time.
        end: Only rows of windows that start before this time.
        is_unplaced: Only rows of no window, as `count_unplaced` counts them.
    """
    c = dead_letter.c
    query = sa.select(dead_letter).where(c.model == model, *between(c.window_start, start, end))
    if sha256 is not None:
        query = query.where(c.sha256 == sha256)
    if is_unplaced:
        query = query.where(*_UNPLACED)
    return read_frame(engine, query.order_by(c.stream, c.sha256, c.row_number, c.reason))


def count_refused(engine: sa.Engine, model: str) -> dict[datetime, dict[str, int]]:
    """Count refused rows by window, each once, under one of its reasons.

    Returns:
        Window start -> reason and column -> rows; rows of no window, which `count_unplaced`
        counts, are not in it.
    """
    found: dict[datetime, dict[str, int]] = {}
    for start, why, n_bad in fetch_rows(engine, _REFUSED, {"of_model": model}):
        found.setdefault(start, {})[why] = n_bad
    return found


def count_unplaced(engine: sa.Engine, model: str, seen_from: datetime) -> pd.DataFrame:
    """Count the refused rows of no window in files since a moment that were not refused whole.

    They are ground truth, or their time cannot be believed. Each row counts once.

    Returns:
        Columns path and first_seen of the file, why (reason and column) and n_bad (rows).
    """
    rows, c = _select_refused_once(model, *_UNPLACED), ingest_file.c
    same = (c.model == model) & (c.stream == rows.c.stream) & (c.sha256 == rows.c.sha256)
    keys = (c.path, c.first_seen, rows.c.why)
    query = sa.select(*keys, sa.func.count().label("n_bad"))
    query = query.select_from(sa.join(rows, ingest_file, same))
    query = query.where(c.status == "done", c.first_seen >= seen_from)
    return read_frame(engine, query.group_by(*keys).order_by(c.first_seen, c.path, rows.c.why))


def _select_refused_once(
    model: str | sa.BindParameter[str], *which: sa.ColumnElement[bool]
) -> sa.Subquery:
    c = dead_letter.c
    named = c.reason + ":" + c.column_name
    why = sa.func.min(sa.case((c.column_name == "", c.reason), else_=named)).label("why")
    keys = (c.window_start, c.stream, c.sha256, c.row_number)
    return sa.select(*keys, why).where(c.model == model, *which).group_by(*keys).subquery()


def _count_once() -> sa.Select[datetime, str, int]:
    of_model: sa.BindParameter[str] = sa.bindparam("of_model")
    rows = _select_refused_once(of_model, dead_letter.c.window_start.is_not(None))
    keys = (rows.c.window_start, rows.c.why)
    return sa.select(*keys, sa.func.count()).select_from(rows).group_by(*keys)


_REFUSED = _count_once()  # every verdict asks, and building it takes longer than asking


@dataclass(frozen=True)
class Backlog:
    """What the last look left of one stream.

    Attributes:
        n_waiting: Files that may still be written to.
        n_left: Complete files, for which there was no time.
        oldest_at: Last change of the oldest of all of them.
        newest_at: Last change of the newest.
        left_since: When the oldest complete one could have been read.
    """

    n_waiting: int = 0
    n_left: int = 0
    oldest_at: datetime | None = None
    newest_at: datetime | None = None
    left_since: datetime | None = None

    @property
    def n(self) -> int:
        """All files that are not read yet."""
        return self.n_waiting + self.n_left

    def holds_any_until(self, moment: datetime) -> bool:
        """Tell whether a file is left that had landed by a moment."""
        return self.oldest_at is not None and self.oldest_at <= moment + _JITTER


def load_backlog(engine: sa.Engine, model: str) -> dict[str, Backlog]:
    """Return what the last look at a model left, by stream; streams with nothing are absent."""
    return load_backlogs(engine, model).get(model, {})


def load_backlogs(engine: sa.Engine, model: str | None = None) -> dict[str, dict[str, Backlog]]:
    """Return what the last looks left, by model and stream; models with nothing are absent."""
    c = ingest_backlog.c
    query = sa.select(ingest_backlog).where(c.n_waiting + c.n_left > 0)
    if model is not None:
        query = query.where(c.model == model)
    found: dict[str, dict[str, Backlog]] = {}
    for name, stream, *values in fetch_rows(engine, query):
        found.setdefault(name, {})[stream] = Backlog(*values)
    return found


def note_backlog(engine: sa.Engine, model: str, found: Mapping[str, Backlog]) -> None:
    """Remember what a look at a model left; an idle look writes nothing."""
    known = load_backlog(engine, model)
    rows = [
        {"model": model, "stream": stream, **asdict(backlog)}
        for stream, backlog in found.items()
        if backlog != known.get(stream, Backlog())
    ]
    if rows:
        with engine.begin() as conn:
            upsert(conn, ingest_backlog, rows)
