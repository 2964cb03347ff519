"""The table that remembers how far each table of a source database was read."""

from __future__ import annotations

import sqlalchemy as sa

from mlmon_dagster.store.column_types import METADATA, text, time

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
