"""The table of tokens that may push events."""

from __future__ import annotations

import sqlalchemy as sa

from mlmon_dagster.store.column_types import METADATA, text, time

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
