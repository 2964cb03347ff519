"""What happened to a model: when the columns of its files changed, and what people did to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from mlmon_dagster.store.state.schema import baseline_promotion, model_event, schema_change
from mlmon_dagster.store.state.sql import Row, insert_or_ignore

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


def layout(conn: sa.Connection, model: str, stream: str) -> StoredLayout | None:
    """Return the columns a stream's newest files have; None before the first file."""
    c = schema_change.c
    query = sa.select(c.after, c.window_start).where(
        c.model == model, c.stream == stream, c.kind == _LAYOUT
    )
    row = conn.execute(query).first()
    return None if row is None else StoredLayout(row[0], row[1])


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
    values: dict[str, object] = {"after": text, "window_start": window_start, "seen_at": now}
    if not conn.execute(sa.update(schema_change).where(*mine).values(values)).rowcount:
        values |= {"model": model, "stream": stream, "kind": _LAYOUT}
        conn.execute(schema_change.insert().values(values))


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
    known = {seen.change for seen in _load(conn, model, stream)}
    fresh = [change for change in changes if change not in known]
    shared: dict[str, object] = {"model": model, "stream": stream, "sha256": sha256, "path": path}
    shared |= {"window_start": window_start, "seen_at": now}
    rows = [
        {
            **shared,
            "kind": change.kind,
            "column_name": change.column,
            "before": change.before,
            "after": change.after,
        }
        for change in fresh
    ]
    insert_or_ignore(conn, schema_change, rows)
    return fresh


def changes(engine: sa.Engine, model: str, since: datetime | None = None) -> list[SeenChange]:
    """Return the changes of a model's files, newest first.

    Args:
        engine: The state database.
        model: The model's name.
        since: Only those seen at this moment or later.
    """
    with engine.connect() as conn:
        found = _load(conn, model)
    return [seen for seen in reversed(found) if since is None or seen.seen_at >= since]


def warned_in(found: Sequence[SeenChange], window_start: datetime) -> list[SeenChange]:
    """Return the changes that a window's schema check warns of."""
    return [
        seen
        for seen in reversed(found)
        if seen.window_start == window_start and seen.change.kind not in QUIET
    ]


def _load(conn: sa.Connection, model: str, stream: str | None = None) -> list[SeenChange]:
    c = schema_change.c
    query = sa.select(schema_change).where(c.model == model, c.kind != _LAYOUT).order_by(c.id)
    if stream is not None:
        query = query.where(c.stream == stream)
    return [_seen(row) for row in conn.execute(query).mappings()]


def _seen(row: sa.RowMapping) -> SeenChange:
    change = Change(row["kind"], row["column_name"], row["before"], row["after"])
    return SeenChange(change, row["stream"], row["path"], row["window_start"], row["seen_at"])


def note_event(
    conn: sa.Connection, model: str, kind: str, *, author: str, note: str, now: datetime
) -> None:
    """Write down that a person changed something of a model, in the transaction that does it."""
    conn.execute(
        model_event.insert().values(
            model=model, kind=kind, author=author, note=note, happened_at=now
        )
    )


def history(engine: sa.Engine, model: str) -> list[Row]:
    """Return what people did to a model, and how its files changed, newest first.

    Returns:
        Mappings of at, kind, author (empty for changes of files) and note.
    """
    e, p = model_event.c, baseline_promotion.c
    with engine.connect() as conn:
        events = conn.execute(sa.select(model_event).where(e.model == model)).mappings().all()
        promoted = conn.execute(sa.select(baseline_promotion).where(p.model == model)).mappings()
        found: list[Row] = [
            {"at": row["happened_at"], **{k: row[k] for k in ("kind", "author", "note")}}
            for row in events
        ]
        for row in promoted:
            span = f"{row['period_start']:%Y-%m-%d} to {row['period_end']:%Y-%m-%d}"
            note = f"{span}; {row['note']}" if row["note"] else span
            found.append(
                {
                    "at": row["promoted_at"],
                    "kind": "baseline promoted",
                    "author": row["author"],
                    "note": note,
                }
            )
            if row["undone_at"]:
                found.append(
                    {
                        "at": row["undone_at"],
                        "kind": "promotion undone",
                        "author": row["undone_by"],
                        "note": span,
                    }
                )
    for seen in changes(engine, model):
        note = f"{seen.stream}: {seen.change.text()}; {seen.path}"
        found.append({"at": seen.seen_at, "kind": "columns changed", "author": "", "note": note})
    return sorted(found, key=lambda row: row["at"], reverse=True)
