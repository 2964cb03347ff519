"""Tables of alerts and of what was told to whom; see schema.py."""

from __future__ import annotations

import sqlalchemy as sa

from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state.column_types import METADATA, Id, text, time

alert = sa.Table(
    "alert",
    METADATA,
    text("fingerprint", primary_key=True),
    text("environment"),
    text("model"),
    text("monitor"),
    text("family"),
    text("metric"),
    text("column_name"),
    text("dataset", PRODUCTION),
    text("slice_key", ALL),
    text("slice_value", ALL),
    text("state", "OK"),  # OK | PENDING | FIRING | RECOVERING
    text("severity"),
    sa.Column("episode", sa.Integer, nullable=False, server_default="0"),
    text("recent", "[]"),  # JSON: the verdicts of the last windows, oldest first
    time("last_window_start"),
    text("last_data_version"),
    time("opened_window"),
    time("opened_at"),
    time("resolved_at"),
    text("resolved_reason"),
    text("muted_reason"),  # '' | backfill | silence:<id> | suppressed:<monitor>
    sa.Column("value", sa.Float),
    text("message"),
    text("details", "{}"),
    text("owner"),
    text("runbook"),
    text("acked_by"),  # who has taken it on; no reminders until it escalates or ends
    time("acked_at"),
    time("updated_at", nullable=False),
)

# Written out, for a database uses a partial index only where it can read the condition.
UNTOLD = sa.text("message_key = '' AND muted_reason = '' AND kind <> 'acknowledged'")

# Every transition of every alert: the history that `mlmon alerts list` shows.
alert_event = sa.Table(
    "alert_event",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("fingerprint"),
    sa.Column("episode", sa.Integer, nullable=False),
    text("kind"),  # opened | escalated | revised | resolved | acknowledged
    time("window_start", nullable=False),
    text("data_version"),
    text("severity"),
    sa.Column("value", sa.Float),
    text("message"),
    text("muted_reason"),
    text("message_key"),  # the outbox row that first told it; '' while nobody has been told
    time("created_at", nullable=False),
    sa.Index("alert_event_untold", "fingerprint", sqlite_where=UNTOLD, postgresql_where=UNTOLD),
    sa.UniqueConstraint(
        "fingerprint", "episode", "kind", "window_start", "data_version", name="alert_event_once"
    ),
)

# The notification log: what a receiver was last told about a group (model and family).
alert_group = sa.Table(
    "alert_group",
    METADATA,
    text("group_key", primary_key=True),
    text("receiver"),
    text("channel"),
    text("model"),
    text("family"),
    text("head_key"),  # idempotency key of the outbox row that opened the thread
    sa.Column("version", sa.Integer, nullable=False, server_default="0"),
    text("firing", "[]"),
    text("resolved", "[]"),
    text("owed", "[]"),  # episodes that this place must still hear of, also when they are over
    sa.Column("n_reminders", sa.Integer, nullable=False, server_default="0"),  # of the thread
    time("last_sent_at"),
    time("first_dirty_at"),
    time("next_flush_at"),
)

WAITING = sa.text("status IN ('queued', 'sending', 'unknown')")
UNCLEAR = sa.text("status IN ('sending', 'unknown')")

outbox = sa.Table(
    "outbox",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("idempotency_key", unique=True),
    text("group_key"),
    text("receiver"),
    text("channel"),
    text("head_key"),  # the row that opened the thread; '' for a row that opens one itself
    text(
        "kind"
    ),  # opened | updated | repeated | resolved | summary | outage | digest | head | test | plot
    text("payload", "{}"),  # JSON: rendered and frozen
    text("status", "queued"),  # queued | sending | unknown | sent | dead | superseded
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    time("next_at", nullable=False),
    text("lease_owner"),
    time("lease_until"),
    time("attempt_at"),
    text("error"),
    text("slack_ts"),
    text("slack_channel"),  # the channel's id, which updates and history ask for
    time("created_at", nullable=False),
    time("sent_at"),
    sa.Index("outbox_group", "group_key", "id"),
    sa.Index("outbox_head", "head_key"),
    # What waits, in the order in which it goes: a claim walks it and stops at the first that may.
    sa.Index("outbox_waiting", "id", sqlite_where=WAITING, postgresql_where=WAITING),
    sa.Index("outbox_unclear", "channel", sqlite_where=UNCLEAR, postgresql_where=UNCLEAR),
)

channel_gate = sa.Table(
    "channel_gate",
    METADATA,
    text("channel", primary_key=True),
    time("not_before", nullable=False),
    sa.Column("n_failures", sa.Integer, nullable=False, server_default="0"),  # in a row
)

silence = sa.Table(
    "silence",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("matcher", "{}"),
    text("author"),
    text("comment"),
    time("starts_at", nullable=False),
    time("ends_at", nullable=False),
    text("ended_by"),  # who ended it before its time
)

# When each part of the machinery last did its work, in real time.
heartbeat = sa.Table(
    "heartbeat",
    METADATA,
    text("name", primary_key=True),
    time("beat_at", nullable=False),
    text("note"),
)
