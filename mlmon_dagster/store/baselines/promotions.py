"""Periods that people accepted as the new normal, and which baseline each window has by them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from mlmon_dagster.store.baselines import fitted_baselines
from mlmon_dagster.store.state.schema_of_models import baseline_promotion

_BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Promotion:
    """A row of the table ``baseline_promotion``."""

    id: int
    model: str
    period_start: datetime
    period_end: datetime
    baseline_id: str
    author: str
    note: str
    promoted_at: datetime
    undone_at: datetime | None
    undone_by: str


def promote(
    conn: sa.Connection,
    model: str,
    period: tuple[datetime, datetime],
    baseline_id: str,
    *,
    author: str,
    note: str,
    now: datetime,
) -> int:
    """Note that windows from the end of a period on are compared with it; return the row's id."""
    statement = baseline_promotion.insert().values(
        model=model,
        period_start=period[0],
        period_end=period[1],
        baseline_id=baseline_id,
        author=author,
        note=note,
        promoted_at=now,
    )
    return int(conn.execute(statement.returning(baseline_promotion.c.id)).scalar_one())


def undo(conn: sa.Connection, promotion_id: int, *, author: str, now: datetime) -> bool:
    """Take a promotion back; return whether it was in force."""
    c = baseline_promotion.c
    statement = baseline_promotion.update().where(c.id == promotion_id, c.undone_at.is_(None))
    return conn.execute(statement.values(undone_at=now, undone_by=author)).rowcount == 1


def list_promotions(engine: sa.Engine, model: str) -> list[Promotion]:
    """Return every promotion of a model, undone ones too, oldest first."""
    query = sa.select(baseline_promotion).where(baseline_promotion.c.model == model)
    with engine.connect() as conn:
        rows = conn.execute(query.order_by(baseline_promotion.c.id)).mappings().all()
    return [Promotion(**row) for row in rows]


class BaselinesInForce:
    """Which baseline each window of a model is compared with.

    Before the first promotion that is the one the spec declares; after the end of a promoted
    period, that period. Of two promotions that end at the same time the later one counts.
    """

    def __init__(self, declared: str | None, promotions: Sequence[Promotion]) -> None:
        ends = {p.period_end: p.baseline_id for p in promotions if p.undone_at is None}
        self.declared = declared
        self._from = [_BEGINNING, *sorted(ends)]
        self._ids = [declared, *(ends[end] for end in sorted(ends))]

    def at(self, window_start: datetime) -> str | None:
        """Return the id of the baseline of a window; None while there is none."""
        return self._ids[bisect_right(self._from, window_start) - 1]

    @property
    def newest(self) -> str | None:
        """The id of the baseline of windows to come."""
        return self._ids[-1]


def in_force(engine: sa.Engine, model: str) -> BaselinesInForce:
    """Return which baseline each window of a model is compared with."""
    declared = fitted_baselines.newest_declared(engine, model)
    return BaselinesInForce(declared, list_promotions(engine, model))
