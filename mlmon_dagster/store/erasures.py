"""Requests for erasure: ids whose rows must not be seen again, late arrivals included."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from mlmon_dagster.store.schema import ALL, erasure
from mlmon_dagster.store.upsert import insert_or_ignore

if TYPE_CHECKING:
    import pyarrow as pa


def request(
    engine: sa.Engine,
    model: str,
    prediction_ids: Sequence[str],
    *,
    now: datetime,
    dataset: str = ALL,
) -> int:
    """Note ids to be erased, in one dataset or in all; return how many were not yet noted.

    The records forget them when their windows are rebuilt.
    """
    rows = [
        {"model": model, "dataset": dataset, "prediction_id": id_, "requested_at": now}
        for id_ in prediction_ids
    ]
    with engine.begin() as conn:
        return insert_or_ignore(conn, erasure, rows)


def ids(engine: sa.Engine, model: str) -> pa.Table:
    """Return the erased (dataset, prediction_id) of a model; dataset may be ``all``."""
    import pyarrow as pa

    query = sa.select(erasure.c.dataset, erasure.c.prediction_id).where(erasure.c.model == model)
    with engine.connect() as conn:
        rows = conn.execute(query).all()
    return pa.table(
        {"dataset": [row[0] for row in rows], "prediction_id": [row[1] for row in rows]},
        schema=pa.schema([("dataset", pa.string()), ("prediction_id", pa.string())]),
    )
