"""From which moment on a model's rows are kept: what is older was deleted by age."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from mlmon_dagster.store.state.schema import retention_mark
from mlmon_dagster.store.state.upsert import upsert


def rows_from(engine: sa.Engine, model: str) -> dict[str, datetime]:
    """Return dataset -> start of its oldest window that still has all its rows.

    Datasets of which nothing was deleted are absent. Numbers of older windows cannot be computed
    again and stay as they are.
    """
    c = retention_mark.c
    with engine.connect() as conn:
        query = sa.select(c.dataset, c.rows_from).where(c.model == model)
        return {row.dataset: row.rows_from for row in conn.execute(query)}


def move(conn: sa.Connection, model: str, dataset: str, moment: datetime, now: datetime) -> None:
    """Note, before they are deleted, that rows of earlier windows go; a mark never moves back."""
    c = retention_mark.c
    known = conn.scalar(sa.select(c.rows_from).where(c.model == model, c.dataset == dataset))
    if known is None or known < moment:
        row = {"model": model, "dataset": dataset, "rows_from": moment, "deleted_at": now}
        upsert(conn, retention_mark, [row])
