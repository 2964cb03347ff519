"""What service levels are judged by: the volumes before a window, and budgets of bad requests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlmon_dagster.pipeline.serving.declared import answers_of
from mlmon_dagster.pipeline.work import Work
from mlmon_dagster.spec import Window, windows_between
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.windows import holidays_of_windows, place_in_week, production_end
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.state.sql import quote_identifier

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mlmon_dagster.spec.monitors import Objective


# Windows to look back: four weeks of hours or days, a season of weeks, a year of months.
_LOOK_BACK = {
    "hour": dt.timedelta(days=28),
    "day": dt.timedelta(days=28),
    "week": dt.timedelta(weeks=26),
    "month": dt.timedelta(days=3 * 366),
}


def served(work: Work, windows: Sequence[Window]) -> list[dict[str, object]]:
    """Return for each window the volumes before it, its budgets, and what Prometheus said."""
    known = zip(
        volumes(work, windows), budgets(work, windows), answers_of(work, windows), strict=True
    )
    return [{**volume, "burned": budget, "answers": answers} for volume, budget, answers in known]


def budgets(work: Work, windows: Sequence[Window]) -> list[dict[str, dict[str, object]]]:
    """Return for each window, by the name of an objective, what `monitors.service` judges.

    Requests are counted in buckets of five minutes, from the records of the windows and of the
    objectives' time before them; one that is not good, or of which that is not known, is bad.
    """
    objectives = work.spec.monitors.service.objectives
    if not objectives:
        return [{} for _ in windows]
    from mlmon_dagster.metrics.objectives import BUCKET, LOOK_BACK, budget_left, burned

    counts = counted_requests(work, windows, objectives)
    found: list[dict[str, dict[str, object]]] = []
    for window in windows:
        own: dict[str, dict[str, object]] = {}
        for objective in objectives:
            back = max(objective.over, LOOK_BACK)
            n, bad = (
                _buckets(counts, name, window.end - back, window.end)
                for name in ("n", objective.name)
            )
            first = len(n) - round((window.end - window.start) / BUCKET)
            looked = max(first - round(LOOK_BACK / BUCKET), 0)
            burn = burned(n[looked:], bad[looked:], objective.target, first - looked)
            period = round(objective.over / BUCKET)
            total, lost = int(n[-period:].sum()), int(bad[-period:].sum())
            start = window.end - BUCKET * (len(n) - looked)
            own[objective.name] = {
                "burn": burn,
                "since": start + BUCKET * burn.first,
                "until": start + BUCKET * (burn.last + 1),
                "left": budget_left(total, lost, objective.target),
            }
        found.append(own)
    return found


def counted_requests(
    work: Work, windows: Sequence[Window], objectives: Sequence[Objective]
) -> pd.DataFrame:
    """Count requests by bucket of five minutes: all, and those not good for each objective.

    Args:
        work: The model.
        windows: Which windows; the objectives' time before the first is counted, too.
        objectives: Of the spec.

    Returns:
        Columns ``bucket`` (its start, in buckets since 1970), ``n`` and the objectives' names.
        Buckets without requests are not in it.
    """
    from mlmon_dagster.metrics.objectives import BUCKET, LOOK_BACK
    from mlmon_dagster.tables.budgets import count_bad

    spec, store = work.spec, work.project.store
    back = max(LOOK_BACK, *(objective.over for objective in objectives))
    read = windows_between(spec.time, windows[0].start - back, windows[-1].end)
    lost = ", ".join(f"{count_bad(spec, o)} AS {quote_identifier(o.name)}" for o in objectives)
    counted: pd.DataFrame = store.query(
        f"SELECT CAST(floor(epoch(event_time) / {BUCKET.total_seconds()}) AS BIGINT) AS bucket, "
        f"count(*) AS n, {lost} "
        f"FROM {store.inference_records(spec).from_sql(read, [PRODUCTION])} GROUP BY 1"
    ).to_pandas()
    return counted


def _buckets(
    counts: pd.DataFrame, name: str, start: dt.datetime, end: dt.datetime
) -> NDArray[np.int64]:
    """Return a column's counts by bucket from a start to an end, empty buckets as 0."""
    from mlmon_dagster.metrics.objectives import BUCKET

    first = round(start.timestamp() / BUCKET.total_seconds())
    filled = np.zeros(round((end - start) / BUCKET), dtype=np.int64)
    places = counts["bucket"].to_numpy(np.int64) - first
    inside = (places >= 0) & (places < len(filled))
    filled[places[inside]] = counts[name].to_numpy(np.int64)[inside]
    return filled


def volumes(work: Work, windows: Sequence[Window]) -> list[dict[str, object]]:
    """Return for each window its place in the week, and places and sizes of the earlier ones.

    Holidays are not among the earlier ones. In the last window of a production that has ended,
    ``covered`` is the share of it until its last event: an export may end in the middle of a week.
    """
    spec = work.spec
    back = _LOOK_BACK[spec.time.granularity]
    states = window_state.load(
        work.project.store.state, spec.model, windows[0].start - back, windows[-1].end
    )
    known = sorted((s for s in states.values() if s.n), key=lambda s: s.window_start)
    holidays: dict[dt.datetime, str] = {}
    if spec.time.holidays:
        around = windows_between(spec.time, windows[0].start - back, windows[-1].end)
        named = holidays_of_windows(spec.time, around)
        holidays = {around[i].start: name for i, name in named.items()}
    known = [state for state in known if state.window_start not in holidays]
    ended = production_end(spec.time)
    starts = [state.window_start for state in known]
    places = np.array([place_in_week(spec.time, start)[0] for start in starts], dtype=np.int64)
    sizes = np.array([state.n for state in known], dtype=np.int64)
    found = []
    for window in windows:
        mine = np.array([window.start - back <= s < window.start for s in starts], dtype=bool)
        last = state.last_event_time if (state := states.get(window.start)) else None
        length = window.end - window.start
        found.append(
            {
                "holiday": holidays.get(window.start, ""),
                "covered": max((last - window.start) / length, 0.01)
                if last is not None and ended is not None and window.end >= ended
                else 1.0,
                "place": place_in_week(spec.time, window.start)[0],
                "earlier_places": places[mine],
                "earlier_sizes": sizes[mine],
            }
        )
    return found
