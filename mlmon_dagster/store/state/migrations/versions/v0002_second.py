"""The second version of the state database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from mlmon_dagster.store.state.column_types import Id, UtcDateTime
from mlmon_dagster.store.state.migrations import v0002_erasure

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what this version adds."""
    _add_tokens()
    _add_life_of_a_model()
    v0002_erasure.upgrade()
    _add_alert_handling()
    _add_source_cursor()
    with op.batch_alter_table("ingest_path") as batch:
        batch.add_column(_text("mark"))
    _add_backlog()
    with op.batch_alter_table("monitor_result") as batch:
        batch.add_column(sa.Column("excess", sa.Float(), nullable=True))
        batch.add_column(sa.Column("excess_error", sa.Float(), nullable=True))
    with op.batch_alter_table("ingest_file") as batch:
        batch.add_column(_text("kept"))
        batch.add_column(_text("read_with"))
        batch.add_column(sa.Column("again_at", UtcDateTime(), nullable=True))


def downgrade() -> None:
    """Take it away again."""
    with op.batch_alter_table("ingest_path") as batch:
        batch.drop_column("mark")
    with op.batch_alter_table("ingest_file") as batch:
        for name in ("again_at", "read_with", "kept"):
            batch.drop_column(name)
    with op.batch_alter_table("monitor_result") as batch:
        batch.drop_column("excess_error")
        batch.drop_column("excess")
    _drop_baselines_in_files()
    op.drop_table("ingest_backlog")
    op.drop_table("source_cursor")
    v0002_erasure.downgrade()
    _drop_alert_handling()
    _drop_life_of_a_model()
    op.drop_table("collect_token")


def _text(name: str, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default=default, nullable=False)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def _drop_baselines_in_files() -> None:
    """Remove what the first version cannot read; it fits those baselines again.

    ``mlmon downgrade`` has put the bins back into the rows before, so that none are left here.
    """
    baseline = sa.table("baseline", sa.column("payload", sa.Text()))
    in_a_file = baseline.c.payload.startswith('{"sha256"', autoescape=True)
    op.get_bind().execute(sa.delete(baseline).where(in_a_file))


def _add_tokens() -> None:
    op.create_table(
        "collect_token",
        sa.Column("id", sa.Text(), server_default="", nullable=False),
        *(_text(name) for name in ("model", "sha256", "note")),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("revoked_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )


def _add_source_cursor() -> None:
    op.create_table(
        "source_cursor",
        sa.Column("model", sa.Text(), server_default="", nullable=False, primary_key=True),
        sa.Column("stream", sa.Text(), server_default="", nullable=False, primary_key=True),
        _text("position", "{}"),
        _text("pending"),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
    )


def _add_backlog() -> None:
    op.create_table(
        "ingest_backlog",
        sa.Column("model", sa.Text(), server_default="", nullable=False, primary_key=True),
        sa.Column("stream", sa.Text(), server_default="", nullable=False, primary_key=True),
        *(_count(name) for name in ("n_waiting", "n_left")),
        *(
            sa.Column(name, UtcDateTime(), nullable=True)
            for name in ("oldest_at", "newest_at", "left_since")
        ),
    )


def _add_life_of_a_model() -> None:
    with op.batch_alter_table("window_state") as batch:
        batch.add_column(_count("n_exempt"))
        batch.add_column(_count("n_late_after_close"))
        batch.add_column(sa.Column("first_input_at", UtcDateTime(), nullable=True))
        batch.add_column(sa.Column("reopened_at", UtcDateTime(), nullable=True))
        batch.add_column(_text("lags", "{}"))
    op.create_table(
        "baseline_promotion",
        sa.Column("id", Id, primary_key=True, autoincrement=True),
        _text("model"),
        sa.Column("period_start", UtcDateTime(), nullable=False),
        sa.Column("period_end", UtcDateTime(), nullable=False),
        *(_text(name) for name in ("baseline_id", "author", "note")),
        sa.Column("promoted_at", UtcDateTime(), nullable=False),
        sa.Column("undone_at", UtcDateTime(), nullable=True),
        _text("undone_by"),
    )
    op.create_index("baseline_promotion_model", "baseline_promotion", ["model", "period_end"])
    op.create_table(
        "schema_change",
        sa.Column("id", Id, primary_key=True, autoincrement=True),
        *(_text(name) for name in ("model", "stream", "kind", "column_name", "before", "after")),
        *(_text(name) for name in ("sha256", "path")),
        sa.Column("window_start", UtcDateTime(), nullable=True),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.UniqueConstraint(
            "model", "stream", "sha256", "kind", "column_name", name="schema_change_once"
        ),
    )
    op.create_table(
        "declared_key",
        sa.Column("model", sa.Text(), server_default="", nullable=False, primary_key=True),
        sa.Column("key", sa.Text(), server_default="", nullable=False, primary_key=True),
        _text("value"),
        sa.Column("since", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "model_event",
        sa.Column("id", Id, primary_key=True, autoincrement=True),
        *(_text(name) for name in ("model", "kind", "other", "author", "note")),
        _text("detail", "{}"),
        sa.Column("happened_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
    )
    op.create_index("model_event_model", "model_event", ["model", "happened_at"])


def _drop_life_of_a_model() -> None:
    for table in ("model_event", "declared_key", "schema_change", "baseline_promotion"):
        op.drop_table(table)
    with op.batch_alter_table("window_state") as batch:
        for name in ("lags", "reopened_at", "first_input_at", "n_late_after_close", "n_exempt"):
            batch.drop_column(name)


def _add_alert_handling() -> None:
    with op.batch_alter_table("alert") as batch:
        batch.add_column(_text("acked_by"))
        batch.add_column(sa.Column("acked_at", UtcDateTime(), nullable=True))
    with op.batch_alter_table("channel_gate") as batch:
        batch.add_column(sa.Column("n_failures", sa.Integer(), server_default="0", nullable=False))
    with op.batch_alter_table("silence") as batch:
        batch.add_column(_text("ended_by"))
    op.create_table(
        "heartbeat",
        sa.Column("name", sa.Text(), primary_key=True, server_default="", nullable=False),
        sa.Column("beat_at", UtcDateTime(), nullable=False),
        _text("note"),
    )

    _add_outbox_indexes()
    _add_what_was_told()


def _add_what_was_told() -> None:
    with op.batch_alter_table("alert_group") as batch:
        batch.add_column(_text("owed", "[]"))
        batch.add_column(sa.Column("n_reminders", sa.Integer(), server_default="0", nullable=False))
    with op.batch_alter_table("alert_event") as batch:
        batch.add_column(_text("message_key"))
    # Which message told what is not known of the past; it is not told again.
    op.execute("UPDATE alert_event SET message_key = 'unknown'")
    where = sa.text("message_key = '' AND muted_reason = '' AND kind <> 'acknowledged'")
    op.create_index(
        "alert_event_untold",
        "alert_event",
        ["fingerprint"],
        sqlite_where=where,
        postgresql_where=where,
    )


def _add_outbox_indexes() -> None:
    op.drop_index("outbox_due", "outbox")
    op.create_index("outbox_group", "outbox", ["group_key", "id"])
    op.create_index("outbox_head", "outbox", ["head_key"])
    for name, column, statuses in (
        ("outbox_waiting", "id", "'queued', 'sending', 'unknown'"),
        ("outbox_unclear", "channel", "'sending', 'unknown'"),
    ):
        where = sa.text(f"status IN ({statuses})")
        op.create_index(name, "outbox", [column], sqlite_where=where, postgresql_where=where)


def _drop_alert_handling() -> None:
    op.drop_index("alert_event_untold", "alert_event")
    with op.batch_alter_table("alert_event") as batch:
        batch.drop_column("message_key")
    with op.batch_alter_table("alert_group") as batch:
        batch.drop_column("n_reminders")
        batch.drop_column("owed")
    for name in ("outbox_unclear", "outbox_waiting", "outbox_head", "outbox_group"):
        op.drop_index(name, "outbox")
    op.create_index("outbox_due", "outbox", ["status", "next_at"])
    op.drop_table("heartbeat")
    with op.batch_alter_table("silence") as batch:
        batch.drop_column("ended_by")
    with op.batch_alter_table("channel_gate") as batch:
        batch.drop_column("n_failures")
    with op.batch_alter_table("alert") as batch:
        batch.drop_column("acked_at")
        batch.drop_column("acked_by")
