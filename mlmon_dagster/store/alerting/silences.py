"""Silences: which alerts a person does not want to hear of, and until when."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from mlmon_dagster.store.state.frames import Row, fetch
from mlmon_dagster.store.state.schema import silence


def in_force(conn: sa.Connection, now: dt.datetime) -> list[Row]:
    """Return the silences in force."""
    s = silence.c
    query = sa.select(silence).where(s.starts_at <= now, s.ends_at > now).order_by(s.id)
    return fetch(conn, query)


def add(
    engine: sa.Engine,
    *,
    matcher: str,
    author: str,
    comment: str,
    starts_at: dt.datetime,
    ends_at: dt.datetime,
) -> int:
    """Silence the alerts that a JSON matcher names; return the silence's id."""
    values = {"matcher": matcher, "author": author, "comment": comment}
    statement = silence.insert().values(**values, starts_at=starts_at, ends_at=ends_at)
    with engine.begin() as conn:
        return int(conn.execute(statement.returning(silence.c.id)).scalar_one())


def end(engine: sa.Engine, silence_id: int, now: dt.datetime, author: str = "") -> bool:
    """End a silence; return whether it was in force or still to come."""
    s = silence.c
    statement = silence.update().where(s.id == silence_id, s.ends_at > now)
    with engine.begin() as conn:
        return conn.execute(statement.values(ends_at=now, ended_by=author)).rowcount == 1


def every(engine: sa.Engine, since: dt.datetime | None = None) -> list[Row]:
    """Return the silences, the newest first.

    Args:
        engine: The state database.
        since: Only those that had not ended at this time; all of them if None.
    """
    query = sa.select(silence).order_by(silence.c.id.desc())
    if since is not None:
        query = query.where(silence.c.ends_at > since)
    with engine.connect() as conn:
        return fetch(conn, query)
