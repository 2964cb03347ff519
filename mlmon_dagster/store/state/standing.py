"""What stands: of each family of a model the verdicts that hold until there are newer ones.

Every surface asks here: the UI's checks, pages, the overview, ``/metrics``, gates and commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.baseline import GRAINS, PRODUCTION
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.tasks import families_of
from mlmon_dagster.store.state.monitor_results import (
    IDENTITY,
    StoredResult,
    fetch_results,
    newest_ids,
)
from mlmon_dagster.store.state.schema import IS_WHOLE, monitor_result

NOT_JUDGED = "-"  # instead of a status: there is nothing to judge
PIPELINE = "pipeline"  # the family of what fails outside the data
LOOK_BACK = 40  # windows before a family's newest one in which a verdict is looked for
_MODELS_AT_ONCE = 500
_C = monitor_result.c
_Chosen = dict[tuple[str, str], datetime]  # model and family -> window


def load_standing(
    engine: sa.Engine, specs: Sequence[ModelSpec], now: datetime
) -> dict[str, list[StoredResult]]:
    """Return the verdicts that stand of some models.

    Of each family those on the newest window that it could judge; a newer window that waits for
    its ground truth does not hide it. Of a family that could judge none of its newest 40 windows,
    those on the newest one, which say NO_DATA. A family keeps its last verdicts when its data has
    ended. What failed outside the data (family ``pipeline``) comes on top until it is well again.

    Args:
        engine: The state database.
        specs: The models; families that one does not have are left out.
        now: Windows that start before this moment. What failed outside the data has no window,
            and counts whenever it was.

    Returns:
        Model -> rows of ``monitor_result`` about production, those about everything before those
        of slices.
    """
    found: dict[str, list[StoredResult]] = {spec.model: [] for spec in specs}
    with engine.connect() as conn:
        for place in range(0, len(specs), _MODELS_AT_ONCE):
            some = specs[place : place + _MODELS_AT_ONCE]
            for row in [
                *_load_verdicts(conn, _choose_windows(conn, some, now)),
                *_load_failures(conn, some),
            ]:
                found[row["model"]].append(row)
    for rows in found.values():
        rows.sort(
            key=lambda r: (r["slice_key"] != ALL, r["monitor"], r["slice_key"], r["slice_value"])
        )
    return found


def _choose_windows(conn: sa.Connection, specs: Sequence[ModelSpec], now: datetime) -> _Chosen:
    """Return the window of each family whose verdicts stand."""
    asked = sa.values(sa.column("model", sa.Text), sa.column("family", sa.Text), name="asked").data(
        [(spec.model, family) for spec in specs for family in families_of(spec)]
    )
    pairs = asked.cte("asked")
    # One descent of the index a family: to group all verdicts of a year would read them all.
    newest = (
        sa.select(_C.window_start)
        .where(IS_WHOLE, _C.model == pairs.c.model, _C.family == pairs.c.family)
        .where(_C.window_start < now)
        .order_by(_C.window_start.desc())
        .limit(1)
    )
    later = monitor_result.alias("later")
    is_judged_again = sa.exists().where(
        *(later.c[name] == _C[name] for name in IDENTITY), later.c.id > _C.id
    )
    judged = newest.where(_C.status != "NO_DATA", ~is_judged_again)
    query = sa.select(pairs, newest.scalar_subquery(), judged.scalar_subquery())
    back = {spec.model: LOOK_BACK * GRAINS[spec.time.granularity] for spec in specs}
    return {
        (model, family): said if last is None or last < said - back[model] else last
        for model, family, said, last in conn.execute(query)
        if said is not None
    }


def _load_verdicts(conn: sa.Connection, chosen: _Chosen) -> Iterator[StoredResult]:
    """Yield the last verdict of each monitor and slice on the chosen windows."""
    alike: dict[datetime, set[str]] = {}
    for (model, _), start in chosen.items():
        alike.setdefault(start, set()).add(model)
    for start, models in alike.items():
        mine = (_C.dataset == PRODUCTION, _C.model.in_(models), _C.window_start == start)
        ids = newest_ids(mine)
        for row in fetch_results(conn, sa.select(monitor_result).where(_C.id.in_(ids))):
            if chosen.get((row["model"], row["family"])) == start:
                yield row


def _load_failures(conn: sa.Connection, specs: Sequence[ModelSpec]) -> list[StoredResult]:
    """Return what failed outside the data and has not gone well since."""
    place = sa.func.row_number().over(
        partition_by=(_C.model, _C.monitor), order_by=(_C.window_start.desc(), _C.id.desc())
    )
    ranked = (
        sa.select(_C.id, place.label("place"))
        .where(IS_WHOLE, _C.family == PIPELINE, _C.model.in_([spec.model for spec in specs]))
        .subquery()
    )
    last = sa.select(ranked.c.id).where(ranked.c.place == 1)
    query = sa.select(monitor_result).where(_C.id.in_(last), _C.status != "OK")
    return fetch_results(conn, query)
