"""What people did to a model: the history that `mlmon model history` shows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.store.state import schema_changes
from mlmon_dagster.store.state.schema_of_models import baseline_promotion, model_event


def note_event(
    conn: sa.Connection, model: str, kind: str, *, author: str, note: str, now: datetime
) -> None:
    """Write down that a person changed something of a model, in the transaction that does it."""
    conn.execute(
        model_event.insert().values(
            model=model, kind=kind, author=author, note=note, happened_at=now
        )
    )


def history(engine: sa.Engine, model: str) -> list[Mapping[str, Any]]:
    """Return what people did to a model, and how its files changed, newest first.

    Returns:
        Mappings of at, kind, author (empty for changes of files) and note.
    """
    e, p = model_event.c, baseline_promotion.c
    with engine.connect() as conn:
        events = conn.execute(sa.select(model_event).where(e.model == model)).mappings().all()
        promoted = conn.execute(sa.select(baseline_promotion).where(p.model == model)).mappings()
        found: list[dict[str, Any]] = [
            {"at": row["happened_at"], **{k: row[k] for k in ("kind", "author", "note")}}
            for row in events
        ]
        for row in promoted:
            span = f"{row['period_start']:%Y-%m-%d} to {row['period_end']:%Y-%m-%d}"
            note = f"{span}; {row['note']}" if row["note"] else span
            found.append(
                {
                    "at": row["promoted_at"],
                    "kind": "baseline promoted",
                    "author": row["author"],
                    "note": note,
                }
            )
            if row["undone_at"]:
                found.append(
                    {
                        "at": row["undone_at"],
                        "kind": "promotion undone",
                        "author": row["undone_by"],
                        "note": span,
                    }
                )
    for seen in schema_changes.changes(engine, model):
        note = f"{seen.stream}: {seen.change.text()}; {seen.path}"
        found.append({"at": seen.seen_at, "kind": "columns changed", "author": "", "note": note})
    return sorted(found, key=lambda row: row["at"], reverse=True)
