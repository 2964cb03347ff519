"""Tables of the state database (SQLAlchemy Core); created and changed by Alembic migrations only.

Times are UTC and timezone-aware in Python; `UtcDateTime` keeps them so on SQLite too.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.names import ALL, TABLE
from mlmon_dagster.store.state.column_types import METADATA, Id, UtcDateTime, count, text, time
from mlmon_dagster.store.state.schema_of_alerts import (
    alert,
    alert_event,
    alert_group,
    channel_gate,
    heartbeat,
    outbox,
    silence,
)
from mlmon_dagster.store.state.schema_of_models import (
    baseline_promotion,
    collect_token,
    declared_key,
    ingest_backlog,
    model_event,
    schema_change,
    source_cursor,
)

__all__ = [
    "METADATA",
    "METRIC_KEYS",
    "UtcDateTime",
    "alert",
    "alert_event",
    "alert_group",
    "baseline",
    "baseline_promotion",
    "channel_gate",
    "collect_token",
    "dead_letter",
    "declared_key",
    "erasure",
    "erasure_key",
    "erasure_request",
    "heartbeat",
    "ingest_backlog",
    "ingest_file",
    "ingest_path",
    "metric",
    "metric_history",
    "model_event",
    "monitor_result",
    "outbox",
    "retention_mark",
    "schema_change",
    "silence",
    "source_cursor",
    "window_state",
    "window_step",
    "writer_lock",
]

# One row per distinct content of a landing file and stream; `path` is where it was seen first.
ingest_file = sa.Table(
    "ingest_file",
    METADATA,
    text("model", primary_key=True),
    text("stream", primary_key=True),
    text("sha256", primary_key=True),
    text("path"),
    count("size_bytes"),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False, server_default="0"),
    text("status", "discovered"),  # discovered | loading | done | quarantined
    text("reason"),
    text("error"),  # why it was quarantined: code and full message
    count("rows_in"),
    count("n_new"),
    count("n_duplicate"),
    count("n_conflict"),
    count("n_bad"),
    text("schema_report", "{}"),  # JSON: the Great Expectations result in short
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    time("first_seen", nullable=False),
    time("finished_at"),
    text("kept"),  # name of the file with its refused rows, see kept_rows; empty without
    text("read_with"),  # digest of the declarations it was read with last
    time("again_at"),  # when it, or its refused rows, began to be read again; null once settled
)

# What every path ever listed looked like, so that a file already known is not hashed again.
ingest_path = sa.Table(
    "ingest_path",
    METADATA,
    text("model", primary_key=True),
    text("stream", primary_key=True),
    text("path", primary_key=True),
    count("size_bytes"),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False, server_default="0"),
    text("sha256"),
    text("mark"),  # inode and change time, or ETag and version: what a writer does not set
)

# One row per refused row and reason; its values are kept only as keyed hashes.
dead_letter = sa.Table(
    "dead_letter",
    METADATA,
    text("model", primary_key=True),
    text("stream", primary_key=True),
    text("sha256", primary_key=True),
    sa.Column("row_number", sa.BigInteger, primary_key=True),
    text("reason", primary_key=True),
    text("column_name", primary_key=True),
    text("message"),
    text("row_hash"),
    text("id_hash"),  # keyed hash of the prediction's id, by which an erasure finds the row
    time("window_start"),
    time("created_at", nullable=False),
)

# Level-triggered bookkeeping: which inputs a window has, and which of them were computed.
window_state = sa.Table(
    "window_state",
    METADATA,
    text("model", primary_key=True),
    time("window_start", nullable=False, primary_key=True),
    time("window_end", nullable=False),
    count("input_revision"),
    time("input_at"),  # raised whenever an event or actual touches it
    count("computed_revision"),
    time("computed_at"),  # the input revision the metrics come from
    text("maturity"),  # provisional | mature | closed, as computed
    text("data_version"),
    count("n"),
    count("n_actual"),
    count("n_bad"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    count("n_exempt"),  # predictions without ground truth that never get one
    count("n_late_after_close"),  # arrivals after the window closed; not in its numbers
    time("first_input_at"),  # null in windows that never had rows
    time("reopened_at"),
    text("lags", "{}"),  # JSON: quantiles in hours of how late ground truth is known and arrives
)

# How far each step of a window has come: the revision and version of the inputs it was made from.
window_step = sa.Table(
    "window_step",
    METADATA,
    text("model", primary_key=True),
    text("step", primary_key=True),  # the asset's name
    time("window_start", nullable=False, primary_key=True),
    count("revision"),
    text("data_version"),
    text("maturity"),
    time("computed_at"),
)

# A held lock: one writer per model; a dead holder on the same host is displaced.
writer_lock = sa.Table(
    "writer_lock",
    METADATA,
    text("name", primary_key=True),
    text("owner"),
    text("host"),
    sa.Column("pid", sa.BigInteger),
    time("expires_at", nullable=False),
)

METRIC_KEYS = (
    "model",
    "model_version",
    "dataset",
    "window_start",
    "granularity",
    "slice_key",
    "slice_value",
    "column_name",
    "metric",
    "baseline_id",
    "method_version",
    "data_version",
)


def _metric_columns(has_history: bool = False) -> list[sa.Column[Any]]:
    return [
        text("model", primary_key=True),
        text("model_version", ALL, primary_key=True),
        text("dataset", primary_key=True),
        time("window_start", nullable=False, primary_key=True),
        text("granularity", primary_key=True),
        text("slice_key", ALL, primary_key=True),
        text("slice_value", ALL, primary_key=True),
        text("column_name", TABLE, primary_key=True),
        text("metric", primary_key=True),
        text("baseline_id", "none", primary_key=True),
        text("method_version", primary_key=True),
        text("data_version", primary_key=True),
        time("window_end", nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("lower", sa.Float),
        sa.Column("upper", sa.Float),
        count("n"),
        count("n_baseline"),
        text("baseline_kind", "none"),
        sa.Column("p_value", sa.Float),
        sa.Column("actual_coverage", sa.Float),
        text("maturity"),
        text("reason"),
        text("run_id"),
        time("computed_at", nullable=False, primary_key=has_history),
        count("sequence"),  # tells versions apart that have the same computed_at; later is higher
    ]


metric = sa.Table("metric", METADATA, *_metric_columns(), sqlite_with_rowid=False)

# Rows of `metric` that a later computation under the same key replaced, for looking back.
metric_history = sa.Table(
    "metric_history", METADATA, *_metric_columns(has_history=True), sqlite_with_rowid=False
)

# The verdict of one monitor on one window; a new data_version is a new row.
monitor_result = sa.Table(
    "monitor_result",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("model"),
    text("monitor"),  # monitor: <family>/<metric>[/<column>]
    text("family"),
    text("metric"),
    text("column_name", TABLE),
    text("dataset", PRODUCTION),
    text("slice_key", ALL),
    text("slice_value", ALL),
    time("window_start", nullable=False),
    time("window_end", nullable=False),
    text("granularity"),
    text("status"),  # OK | WARN | ERROR | NO_DATA
    sa.Column("value", sa.Float),
    sa.Column("lower", sa.Float),
    sa.Column("upper", sa.Float),
    sa.Column("baseline_value", sa.Float),
    count("n"),
    text("threshold"),
    # How far past the limit, in units of it (0: at it, 1: twice as far, -1: nothing), and half the
    # 95 % interval of that; null where nothing is measured, or what is measured is chance.
    sa.Column("excess", sa.Float),
    sa.Column("excess_error", sa.Float),
    sa.Column("p_value", sa.Float),
    sa.Column("p_adjusted", sa.Float),
    sa.Column("family_size", sa.Integer, nullable=False, server_default="1"),
    text("maturity"),
    text("reason"),
    text("message"),  # message: one plain sentence
    text("details", "{}"),  # JSON: explaining slices, unseen values, files
    sa.Column("k", sa.Integer, nullable=False, server_default="1"),
    sa.Column("of_n", sa.Integer, nullable=False, server_default="1"),
    text("owner"),
    text("runbook"),
    text("method_version"),
    text("data_version"),
    text("run_id"),
    sa.Column("is_backfill", sa.Boolean, nullable=False, server_default=sa.false()),
    time("created_at", nullable=False),
    time("folded_at"),  # folded_at: when the alert state took it in
    sa.UniqueConstraint(
        "model",
        "monitor",
        "dataset",
        "slice_key",
        "slice_value",
        "window_start",
        "data_version",
        "method_version",
        name="monitor_result_once",
    ),
    sa.Index("monitor_result_pending", "folded_at", "model"),
    sa.Index("monitor_result_window", "model", "window_start", "family"),
)

# A fitted baseline; the newest one is what windows are compared with.
baseline = sa.Table(
    "baseline",
    METADATA,
    text("model", primary_key=True),
    text("baseline_id", primary_key=True),
    text("kind"),
    text("dataset"),
    text("payload", "{}"),  # JSON: the SHA-256 of the file with its bins, see baseline_files
    count("n"),
    text("data_version"),
    time("created_at", nullable=False),
)


# A key per model, which makes the hashes of its erased ids useless without this database.
erasure_key = sa.Table(
    "erasure_key",
    METADATA,
    text("model", primary_key=True),
    text("salt"),
)

# Ids whose rows must never be seen again, late arrivals included; only their keyed hashes.
erasure = sa.Table(
    "erasure",
    METADATA,
    text("model", primary_key=True),
    text("dataset", ALL, primary_key=True),
    text("id_hash", primary_key=True),
    time("requested_at", nullable=False),
    text("receipt"),
    sa.Index("erasure_receipt", "receipt"),
)

# Who asked for what to be erased, when, and how far it has come; never an id.
erasure_request = sa.Table(
    "erasure_request",
    METADATA,
    text("receipt", primary_key=True),
    text("model"),
    text("dataset", ALL),
    text("author"),
    text("chosen_by"),  # prediction_id | where
    count("n_ids"),
    sa.Column("recompute", sa.Boolean, nullable=False, server_default=sa.false()),
    text("found", "{}"),  # JSON: rows and files per place when it was asked for
    text("steps", "[]"),  # JSON: what was done, in order
    time("requested_at", nullable=False),
    time("finished_at"),
)

# Rows of windows that started before this were deleted by age; their numbers stay as they are.
retention_mark = sa.Table(
    "retention_mark",
    METADATA,
    text("model", primary_key=True),
    text("dataset", primary_key=True),
    time("rows_from", nullable=False),
    time("deleted_at", nullable=False),
)
