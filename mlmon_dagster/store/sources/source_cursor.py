"""How far a table of a source database was read, kept with the manifest of what was read."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.store.state.schema_of_models import source_cursor
from mlmon_dagster.store.state.upsert import upsert

Position = Mapping[str, Any]


@dataclass(frozen=True)
class SourceCursor:
    """A position that is sure, and one that will be once its batches are settled.

    Attributes:
        position: Everything before it is in the log, or was refused; {} at the beginning.
        pending: The position after the batches; None if none are on their way.
        batches: Content hashes of the batches between the two.
    """

    position: Position
    pending: Position | None = None
    batches: tuple[str, ...] = ()


def load(engine: sa.Engine, model: str, stream: str) -> SourceCursor:
    """Return the cursor of a stream; at the beginning if there is none."""
    table = source_cursor
    query = sa.select(table.c.position, table.c.pending).where(
        table.c.model == model, table.c.stream == stream
    )
    with engine.connect() as conn:
        row = conn.execute(query).first()
    if row is None:
        return SourceCursor({})
    pending = json.loads(row.pending) if row.pending else None
    if pending is None:
        return SourceCursor(json.loads(row.position))
    return SourceCursor(
        json.loads(row.position), pending["position"], tuple(pending["batches"])
    )  # fmt: skip


def save(
    conn: sa.Connection,
    model: str,
    stream: str,
    position: Position,
    now: dt.datetime,
    *,
    pending: Position | None = None,
    batches: Sequence[str] = (),
) -> None:
    """Replace the cursor of a stream, in the transaction that notes the batches."""
    on_its_way = {"position": pending, "batches": list(batches)}
    row = {
        "model": model,
        "stream": stream,
        "position": json.dumps(position),
        "pending": "" if pending is None else json.dumps(on_its_way),
        "updated_at": now,
    }
    upsert(conn, source_cursor, [row])
