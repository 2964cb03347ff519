"""How late each model's ground truth comes, as learnt: one row a model, which every step reads."""

from __future__ import annotations

import json
from dataclasses import astuple
from datetime import datetime, timedelta

import sqlalchemy as sa

from mlmon_dagster.spec.windows import UNKNOWN_TIMING, EarlyAge, TruthTiming
from mlmon_dagster.store.state.schema import arrival_curve
from mlmon_dagster.store.state.statements import upsert


def save_timing(
    engine: sa.Engine, model: str, timing: TruthTiming, curves: str, now: datetime
) -> None:
    """Store how late a model's ground truth comes, in place of what was known before."""
    row = {
        "model": model,
        "due_seconds": _seconds(timing.due),
        "least_share": timing.least_share,
        "closes_seconds": _seconds(timing.closes),
        "early_ages": _encode(timing),
        "curves": curves,
        "learnt_at": now,
    }
    with engine.begin() as conn:
        upsert(conn, arrival_curve, [row])


def load_timing(conn: sa.Connection, model: str) -> TruthTiming:
    """Return how late a model's ground truth comes, without the curves."""
    c = arrival_curve.c
    query = sa.select(c.due_seconds, c.least_share, c.closes_seconds, c.early_ages).where(
        c.model == model
    )
    row = conn.execute(query).first()
    if row is None:
        return UNKNOWN_TIMING
    return TruthTiming(
        _duration(row.due_seconds),
        row.least_share,
        _duration(row.closes_seconds),
        tuple(EarlyAge(*early) for early in json.loads(row.early_ages)),
    )


def _encode(timing: TruthTiming) -> str:
    return json.dumps([astuple(early) for early in timing.early], separators=(",", ":"))


def timing_of(engine: sa.Engine, model: str) -> TruthTiming:
    """Return how late a model's ground truth comes, as `load_timing` does."""
    with engine.connect() as conn:
        return load_timing(conn, model)


def load_curves(engine: sa.Engine, model: str) -> str | None:
    """Return a model's arrival curves, as JSON; None if nothing was learnt yet."""
    c = arrival_curve.c
    with engine.connect() as conn:
        found: str | None = conn.scalar(sa.select(c.curves).where(c.model == model))
    return found


def _seconds(duration: timedelta | None) -> int | None:
    return None if duration is None else round(duration.total_seconds())


def _duration(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
