"""Tables of the state database (SQLAlchemy Core); created and changed by Alembic migrations only.

Times are UTC and timezone-aware in Python; `UtcDateTime` keeps them so on SQLite too.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

METADATA = sa.MetaData()
ALL = "all"


class UtcDateTime(sa.TypeDecorator[dt.datetime]):
    """A timezone-aware UTC instant; ISO text on SQLite, timestamptz on PostgreSQL."""

    impl = sa.String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Pick the column type of the dialect."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.DateTime(timezone=True))
        return dialect.type_descriptor(sa.String(32))

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> Any:
        """Refuse naive times; write fixed-width text on SQLite so that it sorts."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive time {value!r} given to the state database; pass UTC")
        value = value.astimezone(dt.UTC)
        return value if dialect.name == "postgresql" else value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def process_result_value(self, value: Any, dialect: Dialect) -> dt.datetime | None:
        """Return an aware UTC datetime."""
        if value is None or isinstance(value, dt.datetime):
            return value if value is None else value.astimezone(dt.UTC)
        return dt.datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=dt.UTC)


def _text(name: str, default: str = "", **kw: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default=default, **kw)


def _time(name: str, nullable: bool = True, **kw: Any) -> sa.Column[Any]:
    return sa.Column(name, UtcDateTime, nullable=nullable, **kw)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


# One row per distinct content of a landing file and stream; `path` is where it was seen first.
ingest_file = sa.Table(
    "ingest_file", METADATA,
    _text("model", primary_key=True), _text("stream", primary_key=True), _text("sha256", primary_key=True),
    _text("path"), _count("size_bytes"), sa.Column("mtime_ns", sa.BigInteger, nullable=False, server_default="0"),
    _text("status", "discovered"),            # discovered | loading | done | quarantined
    _text("reason"), _text("error"),          # why it was quarantined: code and full message
    _count("rows_in"), _count("n_new"), _count("n_duplicate"), _count("n_conflict"), _count("n_bad"),
    _text("schema_report", "{}"),             # JSON: the Great Expectations result in short
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    _time("first_seen", nullable=False), _time("finished_at"),
)

# Every (path, size, mtime) ever listed, so that a file already known is not hashed again.
ingest_path = sa.Table(
    "ingest_path", METADATA,
    _text("model", primary_key=True), _text("stream", primary_key=True), _text("path", primary_key=True),
    _count("size_bytes"), sa.Column("mtime_ns", sa.BigInteger, nullable=False, server_default="0"), _text("sha256"),
)

# One row per refused row; values are kept only as a hash.
dead_letter = sa.Table(
    "dead_letter", METADATA,
    _text("model", primary_key=True), _text("stream", primary_key=True), _text("sha256", primary_key=True),
    sa.Column("row_number", sa.BigInteger, primary_key=True), _text("reason", primary_key=True),
    _text("column_name", primary_key=True), _text("message"), _text("row_hash"),
    _time("window_start"), _time("created_at", nullable=False),
)

# Level-triggered bookkeeping: which inputs a window has, and which of them were computed.
window_state = sa.Table(
    "window_state", METADATA,
    _text("model", primary_key=True), _time("window_start", nullable=False, primary_key=True),
    _time("window_end", nullable=False),
    _count("input_revision"), _time("input_at"),        # raised whenever an event or actual touches it
    _count("computed_revision"), _time("computed_at"),  # the input revision the metrics come from
    _text("maturity"),                                  # provisional | mature | closed, as computed
    _text("data_version"), _count("n"), _count("n_actual"), _count("n_bad"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
)

# A held lock: one writer per model; a dead holder on the same host is displaced.
writer_lock = sa.Table(
    "writer_lock", METADATA,
    _text("name", primary_key=True), _text("owner"), _text("host"), sa.Column("pid", sa.BigInteger),
    _time("expires_at", nullable=False),
)

METRIC_KEYS = ("model", "model_version", "dataset", "window_start", "granularity", "slice_key",
               "slice_value", "column_name", "metric", "baseline_id", "method_version", "data_version")
metric = sa.Table(
    "metric", METADATA,
    _text("model", primary_key=True), _text("model_version", ALL, primary_key=True),
    _text("dataset", primary_key=True), _time("window_start", nullable=False, primary_key=True),
    _text("granularity", primary_key=True), _text("slice_key", ALL, primary_key=True),
    _text("slice_value", ALL, primary_key=True), _text("column_name", ":table", primary_key=True),
    _text("metric", primary_key=True), _text("baseline_id", "none", primary_key=True),
    _text("method_version", primary_key=True), _text("data_version", primary_key=True),
    _time("window_end", nullable=False),
    sa.Column("value", sa.Float), sa.Column("lower", sa.Float), sa.Column("upper", sa.Float),
    _count("n"), _count("n_baseline"), _text("baseline_kind", "none"), sa.Column("p_value", sa.Float),
    sa.Column("actual_coverage", sa.Float), _text("maturity"), _text("reason"),
    _text("run_id"), _time("computed_at", nullable=False),
    sqlite_with_rowid=False,
)

# The verdict of one monitor on one window; a new data_version is a new row.
monitor_result = sa.Table(
    "monitor_result", METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    _text("model"), _text("monitor"),         # monitor: <family>/<metric>[/<column>]
    _text("family"), _text("metric"), _text("column_name", ":table"),
    _text("dataset", "production"), _text("slice_key", ALL), _text("slice_value", ALL),
    _time("window_start", nullable=False), _time("window_end", nullable=False), _text("granularity"),
    _text("status"),                          # OK | WARN | ERROR | NO_DATA
    sa.Column("value", sa.Float), sa.Column("lower", sa.Float), sa.Column("upper", sa.Float),
    sa.Column("baseline_value", sa.Float), _count("n"), _text("threshold"),
    sa.Column("p_value", sa.Float), sa.Column("p_adjusted", sa.Float),
    sa.Column("family_size", sa.Integer, nullable=False, server_default="1"),
    _text("maturity"), _text("reason"), _text("message"),   # message: one plain sentence
    _text("details", "{}"),                   # JSON: explaining slices, unseen values, files
    sa.Column("k", sa.Integer, nullable=False, server_default="1"),
    sa.Column("of_n", sa.Integer, nullable=False, server_default="1"),
    _text("owner"), _text("runbook"), _text("method_version"), _text("data_version"), _text("run_id"),
    sa.Column("is_backfill", sa.Boolean, nullable=False, server_default=sa.false()),
    _time("created_at", nullable=False), _time("folded_at"),  # folded_at: when the alert state took it in
    sa.UniqueConstraint("model", "monitor", "dataset", "slice_key", "slice_value", "window_start",
                        "data_version", "method_version", name="monitor_result_once"),
    sa.Index("monitor_result_pending", "folded_at", "model"),
    sa.Index("monitor_result_window", "model", "window_start", "family"),
)

alert = sa.Table(
    "alert", METADATA,
    _text("fingerprint", primary_key=True), _text("environment"), _text("model"), _text("monitor"),
    _text("family"), _text("metric"), _text("column_name"), _text("slice_key", ALL), _text("slice_value", ALL),
    _text("state", "OK"),                     # OK | PENDING | FIRING | RECOVERING
    _text("severity"), sa.Column("episode", sa.Integer, nullable=False, server_default="0"),
    _text("recent", "[]"),                    # JSON: statuses of the last n windows, oldest first
    _time("last_window_start"), _text("last_data_version"), _text("last_status"),
    _time("opened_window"), _time("opened_at"), _time("resolved_at"), _text("resolved_reason"),
    _text("muted_reason"),                    # '' | backfill | silence:<id> | suppressed:<monitor>
    sa.Column("value", sa.Float), _text("message"), _text("details", "{}"), _text("owner"), _text("runbook"),
    _time("updated_at", nullable=False),
)

# Every transition of every alert: the history that `mlmon alerts list` shows.
alert_event = sa.Table(
    "alert_event", METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    _text("fingerprint"), sa.Column("episode", sa.Integer, nullable=False), _text("kind"),  # opened | escalated | revised | resolved
    _time("window_start", nullable=False), _text("data_version"), _text("severity"), sa.Column("value", sa.Float),
    _text("message"), _text("muted_reason"), _time("created_at", nullable=False),
    sa.UniqueConstraint("fingerprint", "episode", "kind", "window_start", "data_version", name="alert_event_once"),
)

# The notification log: what a receiver was last told about a group (model and family).
alert_group = sa.Table(
    "alert_group", METADATA,
    _text("group_key", primary_key=True), _text("receiver"), _text("channel"), _text("model"), _text("family"),
    _text("thread_ts"), sa.Column("version", sa.Integer, nullable=False, server_default="0"),
    _text("firing", "[]"), _text("resolved", "[]"),
    _time("last_sent_at"), _time("first_dirty_at"), _time("next_flush_at"),
)

outbox = sa.Table(
    "outbox", METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    _text("idempotency_key", unique=True), _text("group_key"), _text("receiver"), _text("channel"),
    _text("kind"),                            # opened | updated | repeated | resolved | summary | test
    _text("payload", "{}"),                   # JSON: rendered and frozen
    _text("status", "queued"),                # queued | sending | unknown | sent | dead | superseded
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    _time("next_at", nullable=False), _text("lease_owner"), _time("lease_until"), _time("attempt_at"),
    _text("error"), _text("slack_ts"), _time("created_at", nullable=False), _time("sent_at"),
    sa.Index("outbox_due", "status", "next_at"),
)

channel_gate = sa.Table(
    "channel_gate", METADATA,
    _text("channel", primary_key=True), _time("not_before", nullable=False),
)

silence = sa.Table(
    "silence", METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    _text("matcher", "{}"), _text("author"), _text("comment"),
    _time("starts_at", nullable=False), _time("ends_at", nullable=False),
)

erasure = sa.Table(
    "erasure", METADATA,
    _text("model", primary_key=True), _text("dataset", ALL, primary_key=True),
    _text("prediction_id", primary_key=True), _time("requested_at", nullable=False),
)
