"""Messages that pile up while a channel is down, and taking them back before anyone sees them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import sqlalchemy as sa

from mlmon_dagster.store.alerting.outbox import FAILING, OUTAGE
from mlmon_dagster.store.state.frames import Row, fetch
from mlmon_dagster.store.state.schema import alert_group, channel_gate, outbox

_NEWS = ("opened", "resolved", "summary", OUTAGE)


def channels_down(engine: sa.Engine, since: dt.datetime) -> list[tuple[str, str]]:
    """Return (receiver, channel) of what fails and has a message waiting since a time."""
    o, gate = outbox.c, channel_gate.c
    query = (
        sa.select(o.receiver, o.channel)
        .join(channel_gate, gate.channel == o.channel)
        .where(gate.n_failures >= FAILING, o.status == "queued", o.kind.in_(_NEWS))
        .group_by(o.receiver, o.channel)
        .having(sa.func.min(o.created_at) <= since)
    )
    with engine.connect() as conn:
        return sorted((row[0], row[1]) for row in conn.execute(query))


def models_waiting(conn: sa.Connection, receiver: str, channel: str) -> list[str]:
    """Return the models with a group at a place."""
    g = alert_group.c
    query = sa.select(g.model).where(g.receiver == receiver, g.channel == channel).distinct()
    return sorted(conn.scalars(query))


def unseen_threads(conn: sa.Connection, receiver: str, channel: str) -> list[Row]:
    """Return the queued messages that would open a thread at a place, oldest first."""
    o = outbox.c
    query = sa.select(outbox).where(
        o.receiver == receiver,
        o.channel == channel,
        o.status == "queued",
        o.head_key == "",
        o.kind.in_(_NEWS),
    )
    return fetch(conn, query.order_by(o.id))


def waiting_replies(conn: sa.Connection, head_keys: Sequence[str]) -> list[Row]:
    """Return the queued answers in some threads, oldest first; plots are none."""
    o = outbox.c
    query = sa.select(outbox).where(
        o.head_key.in_(head_keys), o.status == "queued", o.kind != "plot"
    )
    return fetch(conn, query.order_by(o.id))


def kind_of(conn: sa.Connection, idempotency_key: str) -> str:
    """Return the kind of a message; empty if there is none of that key."""
    query = sa.select(outbox.c.kind).where(outbox.c.idempotency_key == idempotency_key)
    return conn.scalar(query) or ""
