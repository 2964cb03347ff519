"""What waits in the outbox and what was refused for good."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.store.alerting.outbox import AT_ONCE, UNSETTLED
from mlmon_dagster.store.state.frames import Row, fetch
from mlmon_dagster.store.state.schema import outbox


@dataclass(frozen=True)
class OutboxHealth:
    """What waits and what failed.

    Attributes:
        n_waiting: Rows not yet settled.
        n_dead: Rows that were refused for good.
        oldest_waiting_at: When the oldest of the waiting rows was written; None if none waits.
        last_error: Error of the newest dead row, else of the oldest waiting row with one.
        last_sent_at: Real time of the last success.
    """

    n_waiting: int
    n_dead: int
    oldest_waiting_at: dt.datetime | None
    last_error: str
    last_sent_at: dt.datetime | None


def dead_letters(engine: sa.Engine) -> list[Row]:
    """Return the messages that were refused for good, newest first."""
    query = sa.select(outbox).where(outbox.c.status == "dead").order_by(outbox.c.id.desc())
    with engine.connect() as conn:
        return fetch(conn, query)


def requeue_dead(conn: sa.Connection, ids: Sequence[int]) -> int:
    """Give dead messages another chance as they are; return how many."""
    values = {"status": "queued", "next_at": AT_ONCE, "attempts": 0}
    return _settle_dead(conn, ids, values)


def supersede_dead(conn: sa.Connection, ids: Sequence[int]) -> int:
    """Take dead messages out of the way, for others say what they said; return how many."""
    return _settle_dead(conn, ids, {"status": "superseded"})


def _settle_dead(conn: sa.Connection, ids: Sequence[int], values: dict[str, Any]) -> int:
    o, n = outbox.c, 0
    for row_id in ids:
        dead = outbox.update().where(o.id == row_id, o.status == "dead")
        n += conn.execute(dead.values(values)).rowcount
    return n


def outbox_health(engine: sa.Engine) -> OutboxHealth:
    """Return what waits and what failed, for a check that people see."""
    o = outbox.c
    waiting, dead = o.status.in_(UNSETTLED), o.status == "dead"
    counts = sa.select(
        sa.func.count().filter(waiting),
        sa.func.count().filter(dead),
        sa.func.min(o.created_at).filter(waiting),
        sa.func.max(o.sent_at),
    )
    error = (
        sa.select(o.error)
        .where(o.error != "", sa.or_(waiting, dead))
        .order_by(dead.desc(), sa.case((dead, -o.id), else_=o.id))
        .limit(1)
    )
    with engine.connect() as conn:
        n_waiting, n_dead, oldest, last_sent = conn.execute(counts).one()
        return OutboxHealth(n_waiting, n_dead, oldest, conn.scalar(error) or "", last_sent)
