"""Until when nobody may post to a channel, and how often it has failed in a row."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from mlmon_dagster.store.alerting.outbox import AT_ONCE
from mlmon_dagster.store.state.schema import channel_gate
from mlmon_dagster.store.state.upsert import upsert


def count_outcome(engine: sa.Engine, channel: str, *, is_failure: bool) -> int:
    """Count a channel's failures in a row; return how many they are now.

    Args:
        engine: The state database.
        channel: The channel.
        is_failure: Whether the call failed; an answer of any kind ends the row.
    """
    gate = channel_gate.c
    query = sa.select(gate.n_failures).where(gate.channel == channel)
    if not is_failure:
        with engine.connect() as conn:
            if not conn.scalar(query):
                return 0  # nearly always: no need to wait for the right to write
    with engine.begin() as conn:
        known = conn.scalar(query)
        if known is None:
            if not is_failure:
                return 0
            upsert(conn, channel_gate, [{"channel": channel, "not_before": AT_ONCE}])
        after = (known or 0) + 1 if is_failure else 0
        if after != known:
            statement = channel_gate.update().where(gate.channel == channel)
            conn.execute(statement.values(n_failures=after))
        return after


def close_gate(engine: sa.Engine, channel: str, until: dt.datetime) -> None:
    """Let no worker post to a channel before a real time; an earlier opening time is ignored."""
    with engine.begin() as conn:
        gate = sa.select(channel_gate.c.not_before).where(channel_gate.c.channel == channel)
        known = conn.scalar(gate)
        if known is None or known < until:
            upsert(conn, channel_gate, [{"channel": channel, "not_before": until}])
