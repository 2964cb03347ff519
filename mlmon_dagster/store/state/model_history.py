"""What is noted of a model: what happened to it, and marks, a row each.

It happened that the columns of its files changed, or that people did something to it. Marks say
since when rows are kept, which keys are fixed, and who last did work.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.spec.changes import Held, fixed_values, refused_changes
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store.clocks import is_ahead
from mlmon_dagster.store.state.schema import (
    baseline_promotion,
    declared_key,
    heartbeat,
    model_event,
    retention_mark,
    schema_change,
)
from mlmon_dagster.store.state.sql import (
    Bind,
    Row,
    fetch_row,
    fetch_rows,
    fetch_value,
    insert_or_ignore,
    upsert,
)

_LAYOUT: Final = "layout"  # the row that holds a stream's present columns; no change
# Known to people who ask, and no reason to warn anybody: one null makes integers to floats.
QUIET: Final = ("widened", "narrowed")


@dataclass(frozen=True)
class Change:
    """One difference between the columns of a file and of those before it.

    Attributes:
        kind: added, removed, renamed, widened, narrowed, retyped or extra.
        column: Name of the declared column, or of the extra one.
        before: Its name or type until then, empty if it was not there.
        after: Its name or type since then.
    """

    kind: str
    column: str
    before: str
    after: str

    def text(self) -> str:
        """Say it in a few words."""
        said = {
            "added": f"{self.column} is new",
            "removed": f"{self.column} is gone",
            "renamed": f"{self.column} was called {self.before} before"
            if self.after == self.column
            else f"{self.column} is called {self.after}, before {self.before}",
            "extra": f"{self.column} is new and not declared, its values are not kept",
        }.get(self.kind, f"{self.column} is written as {self.after}, before {self.before}")
        return f"{said} (it is in the files, but not declared)" if self._undeclared else said

    @property
    def _undeclared(self) -> bool:
        return self.kind == "removed" and bool(self.after)


@dataclass(frozen=True)
class SeenChange:
    """A change, and where it was seen first.

    Attributes:
        window_start: The first window of the file; None for actuals, whose files have none.
    """

    change: Change
    stream: str
    path: str
    window_start: datetime | None
    seen_at: datetime


@dataclass(frozen=True)
class StoredLayout:
    """The columns that a stream has had since a window, as JSON that ingest writes."""

    text: str
    window_start: datetime | None


def load_layout(conn: sa.Connection, model: str, stream: str) -> StoredLayout | None:
    """Return the columns a stream's newest files have; None before the first file."""
    c = schema_change.c
    mine = (c.model == model, c.stream == stream, c.kind == _LAYOUT)
    row = fetch_row(conn, sa.select(c.after, c.window_start).where(*mine))
    return None if row is None else StoredLayout(*row)


def save_layout(
    conn: sa.Connection,
    model: str,
    stream: str,
    text: str,
    window_start: datetime | None,
    now: datetime,
) -> None:
    """Remember the columns that a stream's files have from a window on."""
    c = schema_change.c
    mine = (c.model == model, c.stream == stream, c.kind == _LAYOUT)
    values = {"after": text, "window_start": window_start, "seen_at": now}
    if not conn.execute(sa.update(schema_change).where(*mine).values(values)).rowcount:
        whose = {"model": model, "stream": stream, "kind": _LAYOUT}
        conn.execute(schema_change.insert().values({**whose, **values}))


def note_changes(
    conn: sa.Connection,
    model: str,
    stream: str,
    changes: Iterable[Change],
    *,
    sha256: str,
    path: str,
    window_start: datetime | None,
    now: datetime,
) -> list[Change]:
    """Write down the changes that were never seen before; return those."""
    known = {seen.change for seen in _load_seen(conn, model, stream)}
    fresh = [change for change in changes if change not in known]
    shared = {"model": model, "stream": stream, "sha256": sha256, "path": path}
    rows = [
        {"kind": c.kind, "column_name": c.column, "before": c.before, "after": c.after}
        for c in fresh
    ]
    when = {"window_start": window_start, "seen_at": now}
    insert_or_ignore(conn, schema_change, [{**shared, **when, **row} for row in rows])
    return fresh


def load_changes(engine: sa.Engine, model: str, since: datetime | None = None) -> list[SeenChange]:
    """Return the changes of a model's files, newest first.

    Args:
        engine: The state database.
        model: The model's name.
        since: Only those seen at this moment or later.
    """
    found = _load_seen(engine, model)
    return [seen for seen in reversed(found) if since is None or seen.seen_at >= since]


def find_warned(found: Sequence[SeenChange], window_start: datetime) -> list[SeenChange]:
    """Return the changes that a window's schema check warns of."""
    return [
        seen
        for seen in reversed(found)
        if seen.window_start == window_start and seen.change.kind not in QUIET
    ]


def _load_seen(bind: Bind, model: str, stream: str | None = None) -> list[SeenChange]:
    c = schema_change.c
    query = sa.select(schema_change).where(c.model == model, c.kind != _LAYOUT).order_by(c.id)
    if stream is not None:
        query = query.where(c.stream == stream)
    return [
        SeenChange(
            Change(row.kind, row.column_name, row.before, row.after),
            row.stream, row.path, row.window_start, row.seen_at,
        )
        for row in fetch_rows(bind, query)
    ]  # fmt: skip


def note_event(
    conn: sa.Connection, model: str, kind: str, *, author: str, note: str, now: datetime
) -> None:
    """Write down that a person changed something of a model, in the transaction that does it."""
    conn.execute(
        model_event.insert().values(
            model=model, kind=kind, author=author, note=note, happened_at=now
        )
    )


def load_history(engine: sa.Engine, model: str) -> list[Row]:
    """Return what people did to a model, and how its files changed, newest first.

    Returns:
        Mappings of at, kind, author (empty for changes of files) and note.
    """
    e, p = model_event.c, baseline_promotion.c
    found: list[Row] = []

    def add(at: datetime, kind: str, author: str, note: str) -> None:
        found.append({"at": at, "kind": kind, "author": author, "note": note})

    for row in fetch_rows(engine, sa.select(model_event).where(e.model == model)):
        add(row.happened_at, row.kind, row.author, row.note)
    for row in fetch_rows(engine, sa.select(baseline_promotion).where(p.model == model)):
        span = f"{row.period_start:%Y-%m-%d} to {row.period_end:%Y-%m-%d}"
        note = f"{span}; {row.note}" if row.note else span
        add(row.promoted_at, "baseline promoted", row.author, note)
        if row.undone_at:
            add(row.undone_at, "promotion undone", row.undone_by, span)
    for seen in load_changes(engine, model):
        add(
            seen.seen_at, "columns changed", "", f"{seen.stream}: {seen.change.text()}; {seen.path}"
        )
    return sorted(found, key=lambda row: row["at"], reverse=True)


DISPATCHER = "dispatcher"
_UPKEEP = "upkeep/"  # and the model


def load_rows_from(engine: sa.Engine, model: str) -> dict[str, datetime]:
    """Return dataset -> start of its oldest window that still has all its rows.

    Datasets of which nothing was deleted are absent. Numbers of older windows cannot be computed
    again and stay as they are.
    """
    c = retention_mark.c
    query = sa.select(c.dataset, c.rows_from).where(c.model == model)
    return {row.dataset: row.rows_from for row in fetch_rows(engine, query)}


def move_rows_from(
    conn: sa.Connection, model: str, dataset: str, moment: datetime, now: datetime
) -> None:
    """Note, before they are deleted, that rows of earlier windows go; it moves no mark back."""
    c = retention_mark.c
    known = fetch_value(conn, sa.select(c.rows_from).where(c.model == model, c.dataset == dataset))
    if known is None or known < moment:
        move_marks(conn, model, {dataset: moment}, now)


def find_marks_ahead(engine: sa.Engine, model: str, now: datetime) -> dict[str, datetime]:
    """Return dataset -> mark of rows_from that lies ahead of now, so that nothing is computed."""
    return {d: mark for d, mark in load_rows_from(engine, model).items() if is_ahead(mark, now)}


def check_marks(engine: sa.Engine, model: str, now: datetime) -> None:
    """Refuse to compute a model of which a mark lies ahead of now.

    Raises:
        StoreError: With the marks, and the command that moves them back.
    """
    if ahead := find_marks_ahead(engine, model, now):
        raise StoreError(describe_marks(model, ahead, now))


def describe_marks(model: str, ahead: Mapping[str, datetime], now: datetime) -> str:
    """Say which marks lie ahead of now, what follows from it, and what to do."""
    marks = ", ".join(f"{moment:%Y-%m-%d} ({dataset})" for dataset, moment in ahead.items())
    return (
        f"Rows of {model} count as deleted by retention up to {marks}, which lies ahead of now, "
        f"{now:%Y-%m-%d %H:%M} UTC, so that none of its windows would be computed. If this clock "
        "is right, the mark was set by a clock that was ahead; move it back with: "
        f"mlmon store repair {model}"
    )


def move_marks(
    conn: sa.Connection, model: str, marks: Mapping[str, datetime], now: datetime
) -> None:
    """Move marks of rows_from, back too: a clock that was ahead has set them."""
    rows = [
        {"model": model, "dataset": dataset, "rows_from": moment, "deleted_at": now}
        for dataset, moment in marks.items()
    ]
    upsert(conn, retention_mark, rows)


def check_declared(engine: sa.Engine, spec: ModelSpec) -> None:
    """Refuse a spec that does not fit the events that are stored.

    Raises:
        ConfigError: With every key that changed and may not, and the way to do it.
    """
    if problems := find_changed_keys(engine, spec):
        lines = "\n".join(f"  {key} {said}" for key, said in problems)
        raise ConfigError(
            f"models/{spec.model}.yaml was changed in a way that its stored events do not allow:\n"
            f"{lines}\nUntil then the model is not read or computed. "
            "docs/spec.md lists what may change."
        )


def find_changed_keys(engine: sa.Engine, spec: ModelSpec) -> list[tuple[str, str]]:
    """Return the keys of a spec that do not fit the events that are stored, and what to do."""
    c = declared_key.c
    query = sa.select(c.key, c.value).where(c.model == spec.model)
    stored = {key: value for key, value in fetch_rows(engine, query)}
    return list(refused_changes(spec, stored))


def remember_declared(
    conn: sa.Connection, spec: ModelSpec, held: Sequence[Held], now: datetime
) -> None:
    """Note what events rest on, in the transaction that takes them in; what is known stays."""
    rows = [
        {"model": spec.model, "key": key, "value": value, "since": now}
        for key, value in fixed_values(spec, *held).items()
    ]
    insert_or_ignore(conn, declared_key, rows)


def note_beat(engine: sa.Engine, name: str, at: dt.datetime, note: str = "") -> None:
    """Record that a part has just done its work."""
    with engine.begin() as conn:
        upsert(conn, heartbeat, [{"name": name, "beat_at": at, "note": note}])


def load_beats(engine: sa.Engine) -> dict[str, dt.datetime]:
    """Return when each part last did its work; parts that never did are absent."""
    query = sa.select(heartbeat.c.name, heartbeat.c.beat_at)
    query = query.where(~heartbeat.c.name.startswith(_UPKEEP))
    return {name: at for name, at in fetch_rows(engine, query)}


def note_upkeep(engine: sa.Engine, model: str, at: dt.datetime, machine: dt.datetime) -> None:
    """Record when a model's upkeep looked at the clock, and what the machine's said then."""
    note_beat(engine, _UPKEEP + model, at, machine.isoformat())


def load_last_upkeep(engine: sa.Engine, model: str) -> tuple[dt.datetime, dt.datetime] | None:
    """Return what the clock and the machine's said at a model's last upkeep; None without one."""
    c = heartbeat.c
    row = fetch_row(engine, sa.select(c.beat_at, c.note).where(c.name == _UPKEEP + model))
    return (row.beat_at, dt.datetime.fromisoformat(row.note)) if row else None


def load_last_note(engine: sa.Engine, name: str) -> str | None:
    """Return what a part noted when it last did its work; None if it never did."""
    return fetch_value(engine, sa.select(heartbeat.c.note).where(heartbeat.c.name == name))


def load_last_beat(engine: sa.Engine, name: str) -> dt.datetime | None:
    """Return when a part last did its work; None if it never did."""
    return fetch_value(engine, sa.select(heartbeat.c.beat_at).where(heartbeat.c.name == name))
