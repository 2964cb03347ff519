"""Tables of erasure and retention: what must never be seen again, and what was let go by age."""

from __future__ import annotations

import sqlalchemy as sa

from mlmon_dagster.store.column_types import ALL, METADATA, count, text, time

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
