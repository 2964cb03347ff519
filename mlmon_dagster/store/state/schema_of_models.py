"""Tables of a model's life: promoted baselines, changes of its files, and what people did to it."""

from __future__ import annotations

import sqlalchemy as sa

from mlmon_dagster.store.state.column_types import METADATA, Id, count, text, time

# A period whose events are the new normal for the windows after it; undone ones are kept.
baseline_promotion = sa.Table(
    "baseline_promotion",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("model"),
    time("period_start", nullable=False),
    time("period_end", nullable=False),  # windows that start here or later are compared with it
    text("baseline_id"),
    text("author"),
    text("note"),
    time("promoted_at", nullable=False),
    time("undone_at"),
    text("undone_by"),
    sa.Index("baseline_promotion_model", "model", "period_end"),
)

# The first file in which a stream's columns were seen to differ from the files before it.
schema_change = sa.Table(
    "schema_change",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("model"),
    text("stream"),
    text("kind"),  # layout, or what `schema_changes.Change` lists
    text("column_name"),
    text("before"),
    text("after"),
    text("sha256"),
    text("path"),
    time("window_start"),  # the first window of that file
    time("seen_at", nullable=False),
    sa.UniqueConstraint(
        "model", "stream", "sha256", "kind", "column_name", name="schema_change_once"
    ),
)

# Keys of the spec that the model's stored events rest on, as they were when events came first.
declared_key = sa.Table(
    "declared_key",
    METADATA,
    text("model", primary_key=True),
    text("key", primary_key=True),
    text("value"),
    time("since", nullable=False),
)

# What people did to a model's windows.
model_event = sa.Table(
    "model_event",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("model"),
    text("kind"),  # reopened | closed
    text("author"),
    text("note"),
    time("happened_at", nullable=False),
    sa.Index("model_event_model", "model", "happened_at"),
)


# The token itself is never stored, only the SHA-256 of its random part.
collect_token = sa.Table(
    "collect_token",
    METADATA,
    text("id", primary_key=True),
    text("model"),  # the one model it is for, or *
    text("sha256"),
    text("note"),
    time("created_at", nullable=False),
    time("expires_at"),
    time("revoked_at"),
)


# `pending` is where `position` will be once the batches read up to there are settled.
source_cursor = sa.Table(
    "source_cursor",
    METADATA,
    text("model", primary_key=True),
    text("stream", primary_key=True),
    text("position", "{}"),  # JSON
    text("pending"),  # JSON: the next position, and the batches in between
    time("updated_at", nullable=False),
)

# What the last look at a stream's landing files left unread; see `backlog`.
ingest_backlog = sa.Table(
    "ingest_backlog",
    METADATA,
    text("model", primary_key=True),
    text("stream", primary_key=True),
    count("n_waiting"),
    count("n_left"),
    time("oldest_at"),
    time("newest_at"),
    time("left_since"),
)
