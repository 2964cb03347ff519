"""Fitted baselines: a row of the state database, and a file with JSON that profiles writes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.baselines import baseline_files
from mlmon_dagster.store.state.crash_points import reached
from mlmon_dagster.store.state.schema import baseline
from mlmon_dagster.store.state.upsert import upsert

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

PROMOTED = "promoted"


@dataclass(frozen=True)
class StoredBaseline:
    """A row of the table ``baseline``; what its ``payload`` stands for, `payload_of` reads."""

    model: str
    baseline_id: str
    kind: str
    dataset: str
    payload: str
    n: int
    data_version: str
    created_at: datetime


def save(
    store: Store,
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
    """Store a baseline and make it the newest, also if it was stored before.

    First its file, then the row that names the file; killed in between, the file is deleted by
    the next upkeep.
    """
    row = {
        "model": model,
        "baseline_id": baseline_id,
        "kind": kind,
        "dataset": dataset,
        "n": n,
        "data_version": data_version,
        "created_at": now,
    }
    with baseline_files.changing(store, model):
        row["payload"] = baseline_files.write(store, model, payload_json)
        reached("baseline.written")
        with store.state.begin() as conn:
            c = baseline.c
            others = sa.select(sa.func.max(c.created_at))
            others = others.where(c.model == model, c.baseline_id != baseline_id)
            last: datetime | None = conn.scalar(others)
            if last is not None and last >= now:  # at one moment, or the clock went back
                row["created_at"] = last + timedelta(microseconds=1)
            upsert(conn, baseline, [row])
    reached("baseline.named")


def payload_of(store: Store, stored: StoredBaseline) -> str:
    """Return what profiles wrote.

    Raises:
        StoreError: If the file is gone, or has other content than it was written with.
    """
    payload = payload_if_whole(store, stored)
    if payload is not None:
        return payload
    place = baseline_files.place_of(store, stored.model, stored.payload)
    found = "there is none" if place.read() is None else "its content is not what was written"
    again = f"materialize the asset 'baseline' again (mlmon run {stored.model} does)"
    if stored.kind == PROMOTED:
        again = (
            f"promote its period once more (mlmon baseline list {stored.model} shows it, "
            f"mlmon baseline promote {stored.model} --from DAY --to DAY takes it)"
        )
    raise StoreError(
        f"The bins of baseline {stored.baseline_id} of model {stored.model!r} cannot be read. "
        f"Expected the file {place}: {found}. Bring that file back from a backup, or {again}."
    )


def payload_if_whole(store: Store, stored: StoredBaseline | None) -> str | None:
    """Return what profiles wrote; None if there is no such baseline, or its file is not whole."""
    return None if stored is None else baseline_files.read(store, stored.model, stored.payload)


def newest(engine: sa.Engine, model: str, baseline_id: str | None = None) -> StoredBaseline | None:
    """Return the newest baseline of a model, or the one with an id; None if there is none."""
    query = sa.select(baseline).where(baseline.c.model == model)
    if baseline_id is not None:
        query = query.where(baseline.c.baseline_id == baseline_id)
    query = query.order_by(baseline.c.created_at.desc(), baseline.c.baseline_id).limit(1)
    with engine.connect() as conn:
        row = conn.execute(query).mappings().first()
    return None if row is None else StoredBaseline(**row)


def newest_declared(engine: sa.Engine, model: str) -> str | None:
    """Return the id of the newest baseline that the spec declares, not one that was promoted."""
    c = baseline.c
    query = sa.select(c.baseline_id).where(c.model == model, c.kind != PROMOTED)
    query = query.order_by(c.created_at.desc(), c.baseline_id).limit(1)
    with engine.connect() as conn:
        found: str | None = conn.scalar(query)
    return found
