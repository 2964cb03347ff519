"""What is remembered of the sources: how far a table was read, and which files were left."""

from __future__ import annotations

import sqlalchemy as sa

from mlmon_dagster.store.column_types import METADATA, count, text, time

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
