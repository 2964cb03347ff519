"""Create the tables."""

import sqlalchemy as sa
from alembic import op

from mlmon_dagster.store.state.schema import Id, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UNTOLD = sa.text("message_key = '' AND muted_reason = '' AND kind <> 'acknowledged'")
WAITING = sa.text("status IN ('queued', 'sending', 'unknown')")
UNCLEAR = sa.text("status IN ('sending', 'unknown')")
_FULL = {"fillfactor": 100}


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "alert",
        sa.Column("fingerprint", sa.Text(), server_default="", nullable=False),
        sa.Column("environment", sa.Text(), server_default="", nullable=False),
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("monitor", sa.Text(), server_default="", nullable=False),
        sa.Column("family", sa.Text(), server_default="", nullable=False),
        sa.Column("metric", sa.Text(), server_default="", nullable=False),
        sa.Column("column_name", sa.Text(), server_default="", nullable=False),
        sa.Column("dataset", sa.Text(), server_default="production", nullable=False),
        sa.Column("slice_key", sa.Text(), server_default="all", nullable=False),
        sa.Column("slice_value", sa.Text(), server_default="all", nullable=False),
        sa.Column("state", sa.Text(), server_default="OK", nullable=False),
        sa.Column("severity", sa.Text(), server_default="", nullable=False),
        sa.Column("episode", sa.Integer(), server_default="0", nullable=False),
        sa.Column("recent", sa.Text(), server_default="[]", nullable=False),
        sa.Column("last_window_start", UtcDateTime(), nullable=True),
        sa.Column("last_data_version", sa.Text(), server_default="", nullable=False),
        sa.Column("opened_window", UtcDateTime(), nullable=True),
        sa.Column("opened_at", UtcDateTime(), nullable=True),
        sa.Column("resolved_at", UtcDateTime(), nullable=True),
        sa.Column("resolved_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("muted_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("details", sa.Text(), server_default="{}", nullable=False),
        sa.Column("owner", sa.Text(), server_default="", nullable=False),
        sa.Column("runbook", sa.Text(), server_default="", nullable=False),
        sa.Column("acked_by", sa.Text(), server_default="", nullable=False),
        sa.Column("acked_at", UtcDateTime(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint"),
    )
    op.create_table(
        "alert_event",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("fingerprint", sa.Text(), server_default="", nullable=False),
        sa.Column("episode", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="", nullable=False),
        sa.Column("window_start", UtcDateTime(), nullable=False),
        sa.Column("data_version", sa.Text(), server_default="", nullable=False),
        sa.Column("severity", sa.Text(), server_default="", nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("muted_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("message_key", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "fingerprint",
            "episode",
            "kind",
            "window_start",
            "data_version",
            name="alert_event_once",
        ),
    )
    op.create_index(
        "alert_event_untold",
        "alert_event",
        ["fingerprint"],
        sqlite_where=UNTOLD,
        postgresql_where=UNTOLD,
    )
    op.create_table(
        "alert_group",
        sa.Column("group_key", sa.Text(), server_default="", nullable=False),
        sa.Column("receiver", sa.Text(), server_default="", nullable=False),
        sa.Column("channel", sa.Text(), server_default="", nullable=False),
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("family", sa.Text(), server_default="", nullable=False),
        sa.Column("head_key", sa.Text(), server_default="", nullable=False),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("firing", sa.Text(), server_default="[]", nullable=False),
        sa.Column("resolved", sa.Text(), server_default="[]", nullable=False),
        sa.Column("owed", sa.Text(), server_default="[]", nullable=False),
        sa.Column("n_reminders", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_sent_at", UtcDateTime(), nullable=True),
        sa.Column("first_dirty_at", UtcDateTime(), nullable=True),
        sa.Column("next_flush_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("group_key"),
    )
    op.create_table(
        "baseline",
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("baseline_id", sa.Text(), server_default="", nullable=False),
        sa.Column("kind", sa.Text(), server_default="", nullable=False),
        sa.Column("dataset", sa.Text(), server_default="", nullable=False),
        sa.Column("payload", sa.Text(), server_default="{}", nullable=False),
        sa.Column("n", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("data_version", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("model", "baseline_id"),
    )
    op.create_table(
        "baseline_promotion",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("period_start", UtcDateTime(), nullable=False),
        sa.Column("period_end", UtcDateTime(), nullable=False),
        sa.Column("baseline_id", sa.Text(), server_default="", nullable=False),
        sa.Column("author", sa.Text(), server_default="", nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("promoted_at", UtcDateTime(), nullable=False),
        sa.Column("undone_at", UtcDateTime(), nullable=True),
        sa.Column("undone_by", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("baseline_promotion_model", "baseline_promotion", ["model", "period_end"])
    op.create_table(
        "channel_gate",
        sa.Column("channel", sa.Text(), server_default="", nullable=False),
        sa.Column("not_before", UtcDateTime(), nullable=False),
        sa.Column("n_failures", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("channel"),
    )
    op.create_table(
        "collect_token",
        sa.Column("id", sa.Text(), server_default="", nullable=False),
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("sha256", sa.Text(), server_default="", nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("revoked_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "dead_letter",
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("stream", sa.Text(), server_default="", nullable=False),
        sa.Column("sha256", sa.Text(), server_default="", nullable=False),
        sa.Column("row_number", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("column_name", sa.Text(), server_default="", nullable=False),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("row_hash", sa.Text(), server_default="", nullable=False),
        sa.Column("id_hash", sa.Text(), server_default="", nullable=False),
        sa.Column("window_start", UtcDateTime(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("model", "stream", "sha256", "row_number", "reason", "column_name"),
    )
    op.create_table(
        "declared_key",
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("key", sa.Text(), server_default="", nullable=False),
        sa.Column("value", sa.Text(), server_default="", nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("model", "key"),
    )
    op.create_table(
        "erasure",
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("dataset", sa.Text(), server_default="all", nullable=False),
        sa.Column("id_hash", sa.Text(), server_default="", nullable=False),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.Column("receipt", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("model", "dataset", "id_hash"),
    )
    op.create_index("erasure_receipt", "erasure", ["receipt"])
    op.create_table(
        "erasure_key",
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("salt", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("model"),
    )
    op.create_table(
        "erasure_request",
        sa.Column("receipt", sa.Text(), server_default="", nullable=False),
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("dataset", sa.Text(), server_default="all", nullable=False),
        sa.Column("author", sa.Text(), server_default="", nullable=False),
        sa.Column("chosen_by", sa.Text(), server_default="", nullable=False),
        sa.Column("n_ids", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("recompute", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("found", sa.Text(), server_default="{}", nullable=False),
        sa.Column("steps", sa.Text(), server_default="[]", nullable=False),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("receipt"),
    )
    op.create_table(
        "heartbeat",
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("beat_at", UtcDateTime(), nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "ingest_backlog",
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("stream", sa.Text(), server_default="", nullable=False),
        sa.Column("n_waiting", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_left", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("oldest_at", UtcDateTime(), nullable=True),
        sa.Column("newest_at", UtcDateTime(), nullable=True),
        sa.Column("left_since", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("model", "stream"),
    )
    op.create_table(
        "ingest_file",
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("stream", sa.Text(), server_default="", nullable=False),
        sa.Column("sha256", sa.Text(), server_default="", nullable=False),
        sa.Column("path", sa.Text(), server_default="", nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("status", sa.Text(), server_default="discovered", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("rows_in", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_new", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_duplicate", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_conflict", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_bad", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("schema_report", sa.Text(), server_default="{}", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("first_seen", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("kept", sa.Text(), server_default="", nullable=False),
        sa.Column("read_with", sa.Text(), server_default="", nullable=False),
        sa.Column("again_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("model", "stream", "sha256"),
    )
    op.create_table(
        "ingest_path",
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("stream", sa.Text(), server_default="", nullable=False),
        sa.Column("path", sa.Text(), server_default="", nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sha256", sa.Text(), server_default="", nullable=False),
        sa.Column("mark", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("model", "stream", "path"),
    )
    op.create_table(
        "metric_window",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("window_start", UtcDateTime(), nullable=False),
        sa.Column("window_end", UtcDateTime(), nullable=False),
        sa.Column("granularity", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "model", "window_start", "window_end", "granularity", name="metric_window_once"
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "model_event",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("kind", sa.Text(), server_default="", nullable=False),
        sa.Column("author", sa.Text(), server_default="", nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("happened_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("model_event_model", "model_event", ["model", "happened_at"])
    op.create_table(
        "monitor_result",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("monitor", sa.Text(), server_default="", nullable=False),
        sa.Column("family", sa.Text(), server_default="", nullable=False),
        sa.Column("metric", sa.Text(), server_default="", nullable=False),
        sa.Column("column_name", sa.Text(), server_default=":table", nullable=False),
        sa.Column("dataset", sa.Text(), server_default="production", nullable=False),
        sa.Column("slice_key", sa.Text(), server_default="all", nullable=False),
        sa.Column("slice_value", sa.Text(), server_default="all", nullable=False),
        sa.Column("window_start", UtcDateTime(), nullable=False),
        sa.Column("window_end", UtcDateTime(), nullable=False),
        sa.Column("granularity", sa.Text(), server_default="", nullable=False),
        sa.Column("status", sa.Text(), server_default="", nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("lower", sa.Float(), nullable=True),
        sa.Column("upper", sa.Float(), nullable=True),
        sa.Column("baseline_value", sa.Float(), nullable=True),
        sa.Column("n", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("threshold", sa.Text(), server_default="", nullable=False),
        sa.Column("excess", sa.Float(), nullable=True),
        sa.Column("excess_error", sa.Float(), nullable=True),
        sa.Column("p_value", sa.Float(), nullable=True),
        sa.Column("p_adjusted", sa.Float(), nullable=True),
        sa.Column("family_size", sa.Integer(), server_default="1", nullable=False),
        sa.Column("maturity", sa.Text(), server_default="", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("details", sa.Text(), server_default="{}", nullable=False),
        sa.Column("k", sa.Integer(), server_default="1", nullable=False),
        sa.Column("of_n", sa.Integer(), server_default="1", nullable=False),
        sa.Column("owner", sa.Text(), server_default="", nullable=False),
        sa.Column("runbook", sa.Text(), server_default="", nullable=False),
        sa.Column("method_version", sa.Text(), server_default="", nullable=False),
        sa.Column("data_version", sa.Text(), server_default="", nullable=False),
        sa.Column("run_id", sa.Text(), server_default="", nullable=False),
        sa.Column("is_backfill", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("folded_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
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
    )
    op.create_index("monitor_result_pending", "monitor_result", ["folded_at", "model"])
    op.create_index("monitor_result_window", "monitor_result", ["model", "window_start", "family"])
    op.create_table(
        "outbox",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("idempotency_key", sa.Text(), server_default="", nullable=False),
        sa.Column("group_key", sa.Text(), server_default="", nullable=False),
        sa.Column("receiver", sa.Text(), server_default="", nullable=False),
        sa.Column("channel", sa.Text(), server_default="", nullable=False),
        sa.Column("head_key", sa.Text(), server_default="", nullable=False),
        sa.Column("kind", sa.Text(), server_default="", nullable=False),
        sa.Column("payload", sa.Text(), server_default="{}", nullable=False),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_at", UtcDateTime(), nullable=False),
        sa.Column("lease_owner", sa.Text(), server_default="", nullable=False),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.Column("attempt_at", UtcDateTime(), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("slack_ts", sa.Text(), server_default="", nullable=False),
        sa.Column("slack_channel", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("sent_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("idempotency_key"),
    )
    op.create_index("outbox_group", "outbox", ["group_key", "id"])
    op.create_index("outbox_head", "outbox", ["head_key"])
    op.create_index(
        "outbox_unclear", "outbox", ["channel"], sqlite_where=UNCLEAR, postgresql_where=UNCLEAR
    )
    op.create_index(
        "outbox_waiting", "outbox", ["id"], sqlite_where=WAITING, postgresql_where=WAITING
    )
    op.create_table(
        "provenance",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("window_id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("baseline", sa.Integer(), nullable=False),
        sa.Column("baseline_kind", sa.Text(), server_default="none", nullable=False),
        sa.Column("data_version", sa.Text(), server_default="", nullable=False),
        sa.Column("maturity", sa.Text(), server_default="", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("actual_coverage", sa.Float(), nullable=True),
        sa.Column("computed_at", UtcDateTime(), nullable=False),
        sa.Column("n", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_baseline", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("provenance_window", "provenance", ["window_id"], postgresql_with=_FULL)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX provenance_pkey SET (fillfactor = 100)")
    op.create_table(
        "registry_state",
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("server", sa.Text(), server_default="", nullable=False),
        sa.Column("looked_at", UtcDateTime(), nullable=False),
        sa.Column("problem", sa.Text(), server_default="", nullable=False),
        sa.Column("is_away", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("known", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("model"),
    )
    op.create_table(
        "retention_mark",
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("dataset", sa.Text(), server_default="", nullable=False),
        sa.Column("rows_from", UtcDateTime(), nullable=False),
        sa.Column("deleted_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("model", "dataset"),
    )
    _create_samples("sample")
    op.create_index("sample_series", "sample", ["series_id"], postgresql_with=_FULL)
    _create_samples("sample_history", sa.Column("replaced_at", UtcDateTime(), nullable=False))
    op.create_table(
        "schema_change",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("stream", sa.Text(), server_default="", nullable=False),
        sa.Column("kind", sa.Text(), server_default="", nullable=False),
        sa.Column("column_name", sa.Text(), server_default="", nullable=False),
        sa.Column("before", sa.Text(), server_default="", nullable=False),
        sa.Column("after", sa.Text(), server_default="", nullable=False),
        sa.Column("sha256", sa.Text(), server_default="", nullable=False),
        sa.Column("path", sa.Text(), server_default="", nullable=False),
        sa.Column("window_start", UtcDateTime(), nullable=True),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "model", "stream", "sha256", "kind", "column_name", name="schema_change_once"
        ),
    )
    op.create_table(
        "series",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("metric", sa.Text(), server_default="", nullable=False),
        sa.Column("column_name", sa.Text(), server_default=":table", nullable=False),
        sa.Column("slice_key", sa.Text(), server_default="all", nullable=False),
        sa.Column("slice_value", sa.Text(), server_default="all", nullable=False),
        sa.Column("dataset", sa.Text(), server_default="", nullable=False),
        sa.Column("model_version", sa.Text(), server_default="all", nullable=False),
        sa.Column("method_version", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "model",
            "metric",
            "column_name",
            "slice_key",
            "slice_value",
            "dataset",
            "model_version",
            "method_version",
            name="series_once",
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "shared_text",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("text", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("text"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "silence",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("matcher", sa.Text(), server_default="{}", nullable=False),
        sa.Column("author", sa.Text(), server_default="", nullable=False),
        sa.Column("comment", sa.Text(), server_default="", nullable=False),
        sa.Column("starts_at", UtcDateTime(), nullable=False),
        sa.Column("ends_at", UtcDateTime(), nullable=False),
        sa.Column("ended_by", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "source_cursor",
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("stream", sa.Text(), server_default="", nullable=False),
        sa.Column("position", sa.Text(), server_default="{}", nullable=False),
        sa.Column("pending", sa.Text(), server_default="", nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("model", "stream"),
    )
    op.create_table(
        "window_state",
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("window_start", UtcDateTime(), nullable=False),
        sa.Column("window_end", UtcDateTime(), nullable=False),
        sa.Column("input_revision", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("input_at", UtcDateTime(), nullable=True),
        sa.Column("computed_revision", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("computed_at", UtcDateTime(), nullable=True),
        sa.Column("data_version", sa.Text(), server_default="", nullable=False),
        sa.Column("n", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_actual", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_exempt", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_late_after_close", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("first_input_at", UtcDateTime(), nullable=True),
        sa.Column("reopened_at", UtcDateTime(), nullable=True),
        sa.Column("lags", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("model", "window_start"),
    )
    op.create_table(
        "window_step",
        sa.Column("model", sa.Text(), server_default="", nullable=False),
        sa.Column("step", sa.Text(), server_default="", nullable=False),
        sa.Column("window_start", UtcDateTime(), nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("data_version", sa.Text(), server_default="", nullable=False),
        sa.Column("maturity", sa.Text(), server_default="", nullable=False),
        sa.Column("computed_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("model", "step", "window_start"),
    )
    op.create_table(
        "writer_lock",
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("owner", sa.Text(), server_default="", nullable=False),
        sa.Column("host", sa.Text(), server_default="", nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _create_samples(name: str, *more: sa.Column[object]) -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        name,
        sa.Column("series_id", sa.Integer(), nullable=False),
        sa.Column("provenance_id", sa.Integer(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=True),
        sa.Column("n_baseline", sa.BigInteger(), nullable=True),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("lower", sa.Float(), nullable=True),
        sa.Column("upper", sa.Float(), nullable=True),
        sa.Column("p_value", sa.Float(), nullable=True),
        *more,
        *([sa.PrimaryKeyConstraint("provenance_id", "series_id")] if is_sqlite else []),
        sqlite_with_rowid=False,
    )
    if not is_sqlite:
        op.create_index(f"{name}_provenance", name, ["provenance_id"], postgresql_with=_FULL)
