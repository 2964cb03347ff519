"""What stands: of each family of a model the verdicts that hold until there are newer ones.

Every surface asks here: the UI's checks, pages, the overview, ``/metrics``, gates and commands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

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
WORST_FIRST = ("ERROR", "WARN", "OK")
LOOK_BACK = 40  # windows before a family's newest one in which a verdict is looked for
_MODELS_AT_ONCE = 500
_C = monitor_result.c
_LATER = monitor_result.alias("later")
_JUDGED = (
    _C.status != "NO_DATA",
    ~sa.exists().where(*(_LATER.c[n] == _C[n] for n in IDENTITY), _LATER.c.id > _C.id),
)
_Chosen = dict[tuple[str, str], datetime]  # model, and family or monitor -> window


def load_standing(
    engine: sa.Engine, specs: Sequence[ModelSpec], now: datetime
) -> dict[str, list[StoredResult]]:
    """Return the verdicts that stand of some models.

    Of each family the monitors of the newest window in which it could judge anything, and of each
    of them the verdict on the newest window that it could judge itself: a window that waits for its
    ground truth hides none. What could judge none of the family's newest 40 windows is NO_DATA. A
    family keeps its last verdicts when its data has ended. What failed outside the data (family
    ``pipeline``) comes on top until it is well again.

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
            chosen = _choose_windows(conn, some, now)
            verdicts = list(_load_verdicts(conn, chosen))
            earlier = _find_earlier(conn, some, verdicts)
            for row in [
                *(row for row in verdicts if (row["model"], row["monitor"]) not in earlier),
                *_load_earlier(conn, earlier),
                *_load_failures(conn, some),
            ]:
                found[row["model"]].append(row)
    for rows in found.values():
        rows.sort(
            key=lambda r: (r["slice_key"] != ALL, r["monitor"], r["slice_key"], r["slice_value"])
        )
    return found


def worst_of(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the worst verdict of a family, slices included; NO_DATA if it judged nothing whole."""
    failed = {row["status"] for row in rows} & {"ERROR", "WARN"}
    judged = {row["status"] for row in rows if row["slice_key"] == ALL} & {"OK"}
    return next((status for status in WORST_FIRST if status in failed | judged), "NO_DATA")


def name_window(spec: ModelSpec, start: datetime) -> str:
    """Write the start of a window in the model's zone: a date, with the time for hours."""
    local = start.astimezone(ZoneInfo(spec.time.zone))
    return local.strftime("%Y-%m-%d %H:%M" if spec.time.granularity == "hour" else "%Y-%m-%d")


def _choose_windows(conn: sa.Connection, specs: Sequence[ModelSpec], now: datetime) -> _Chosen:
    """Return the newest window in which each family could judge, or said that it could not."""
    pairs = _as_table([(spec.model, family) for spec in specs for family in families_of(spec)])
    mine = (_C.model == pairs.c.model, _C.family == pairs.c.name, _C.window_start < now)
    # One descent of the index a family: to group all verdicts of a year would read them all.
    query = sa.select(pairs, _newest(*mine), _newest(*mine, *_JUDGED))
    back = _look_back(specs)
    return {
        (model, family): said if last is None or last < said - back[model] else last
        for model, family, said, last in conn.execute(query)
        if said is not None
    }


def _find_earlier(
    conn: sa.Connection, specs: Sequence[ModelSpec], verdicts: Sequence[StoredResult]
) -> _Chosen:
    """Return, of monitors that wait while others of their family judge, what they judged last."""
    judged = {(r["model"], r["family"]) for r in verdicts if r["status"] != "NO_DATA"}
    waiting = {
        (row["model"], row["monitor"]): row["window_start"]
        for row in verdicts
        if row["status"] == "NO_DATA"
        and row["slice_key"] == ALL
        and (row["model"], row["family"]) in judged
    }
    if not waiting:
        return {}
    pairs, back = _as_table(waiting), _look_back(specs)
    mine = (_C.model == pairs.c.model, _C.monitor == pairs.c.name)
    newest = max(waiting.values())
    query = sa.select(pairs, _newest(*mine, *_JUDGED, _C.window_start <= newest))
    return {
        (model, monitor): last
        for model, monitor, last in conn.execute(query)
        if last is not None and last >= waiting[model, monitor] - back[model]
    }


def _load_earlier(conn: sa.Connection, earlier: _Chosen) -> Iterator[StoredResult]:
    """Yield the last verdicts of some monitors on a window each, those of slices included."""
    alike: dict[datetime, list[tuple[str, str]]] = {}
    for pair, start in earlier.items():
        alike.setdefault(start, []).append(pair)
    for start, named in alike.items():
        models, monitors = ({pair[place] for pair in named} for place in (0, 1))
        ids = newest_ids(
            (
                _C.dataset == PRODUCTION,
                _C.model.in_(models),
                _C.monitor.in_(monitors),
                _C.window_start == start,
            )
        )
        for row in fetch_results(conn, sa.select(monitor_result).where(_C.id.in_(ids))):
            if earlier.get((row["model"], row["monitor"])) == start:
                yield row


def _as_table(pairs: Iterable[tuple[str, str]]) -> sa.CTE:
    """Return pairs of a model and another name as a table of a query."""
    columns = (sa.column("model", sa.Text), sa.column("name", sa.Text))
    return sa.values(*columns, name="asked").data(list(pairs)).cte("asked")


def _newest(*wanted: sa.ColumnElement[bool] | sa.TextClause) -> sa.ScalarSelect[datetime]:
    """Return the start of the newest window with such a verdict on everything."""
    found = sa.select(_C.window_start).where(IS_WHOLE, *wanted)
    return found.order_by(_C.window_start.desc()).limit(1).scalar_subquery()


def _look_back(specs: Sequence[ModelSpec]) -> dict[str, timedelta]:
    return {spec.model: LOOK_BACK * GRAINS[spec.time.granularity] for spec in specs}


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
