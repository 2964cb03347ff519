"""Fitted baselines, kept as JSON that profiles writes and reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from mlmon_dagster.store.schema import baseline
from mlmon_dagster.store.upsert import upsert


@dataclass(frozen=True)
class StoredBaseline:
    """A row of the table ``baseline``; ``payload`` is JSON text."""

    model: str
    baseline_id: str
    kind: str
    dataset: str
    payload: str
    n: int
    data_version: str
    created_at: datetime


def save(
    engine: sa.Engine,
    model: str,
    baseline_id: str,
    kind: str,
    payload_json: str,
    now: datetime,
    *,
    dataset: str = "",
    n: int = 0,
    data_version: str = "",
) -> None:
    """Store a baseline and make it the newest, also if it was stored before."""
    row = {
        "model": model,
        "baseline_id": baseline_id,
        "kind": kind,
        "dataset": dataset,
        "payload": payload_json,
        "n": n,
        "data_version": data_version,
        "created_at": now,
    }
    with engine.begin() as conn:
        upsert(conn, baseline, [row])


def newest(engine: sa.Engine, model: str, baseline_id: str | None = None) -> StoredBaseline | None:
    """Return the newest baseline of a model, or the one with an id; None if there is none."""
    query = sa.select(baseline).where(baseline.c.model == model)
    if baseline_id is not None:
        query = query.where(baseline.c.baseline_id == baseline_id)
    query = query.order_by(baseline.c.created_at.desc(), baseline.c.baseline_id).limit(1)
    with engine.connect() as conn:
        row = conn.execute(query).mappings().first()
    return None if row is None else StoredBaseline(**row)


PROMOTED = "promoted"


def newest_declared(engine: sa.Engine, model: str) -> str | None:
    """Return the id of the newest baseline that the spec declares, not one that was promoted."""
    c = baseline.c
    query = sa.select(c.baseline_id).where(c.model == model, c.kind != PROMOTED)
    query = query.order_by(c.created_at.desc(), c.baseline_id).limit(1)
    with engine.connect() as conn:
        found: str | None = conn.scalar(query)
    return found
