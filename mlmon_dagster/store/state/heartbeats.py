"""When each part of the machinery last did its work, in real time."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from mlmon_dagster.store.state.schema import heartbeat
from mlmon_dagster.store.state.upsert import upsert

DISPATCHER = "dispatcher"


def beat(engine: sa.Engine, name: str, at: dt.datetime, note: str = "") -> None:
    """Record that a part has just done its work."""
    with engine.begin() as conn:
        upsert(conn, heartbeat, [{"name": name, "beat_at": at, "note": note}])


def last_beat(engine: sa.Engine, name: str) -> dt.datetime | None:
    """Return when a part last did its work; None if it never did."""
    with engine.connect() as conn:
        return conn.scalar(sa.select(heartbeat.c.beat_at).where(heartbeat.c.name == name))
