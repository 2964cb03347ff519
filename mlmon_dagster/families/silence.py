"""Which windows freshness judges, and what it must know of them beside their counts."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from mlmon_dagster.families.ground_truth import compare_truth
from mlmon_dagster.metrics.windows.presence import (
    MIN_WEEKS,
    WEEKS,
    Calendar,
    expected_windows,
    learn_limit,
    served_places,
)
from mlmon_dagster.spec import (
    ModelSpec,
    Window,
    complete_windows,
    first_window,
    windows_between,
)
from mlmon_dagster.spec.baseline import GRAINS
from mlmon_dagster.spec.names import FRESHNESS
from mlmon_dagster.spec.windows import PLACES, holidays_of_windows, place_in_week
from mlmon_dagster.store.state import manifest, monitor_results, window_state
from mlmon_dagster.store.state.manifest import Backlog
from mlmon_dagster.store.state.window_state import ServedWindow, WindowInputs
from mlmon_dagster.work import Work, is_waiting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlmon_dagster.metrics.late_truth.arrivals import Arrivals

_WEEK, _DAY = dt.timedelta(weeks=1), 86_400.0
ALWAYS = 30  # newest windows that every look judges; older ones where their verdict is out of date
SILENCE, OVERDUE = f"{FRESHNESS}/no_data_for", f"{FRESHNESS}/actuals_missing"
ARRIVED, SILENT = "arrived", "silent"
_OPEN = (  # verdicts that files may still change
    "", "unread", "actuals:unread", "actuals:not_due", "actuals:uncounted", "actuals:no_rows",
    "actuals:unknown", "actuals:too_few",
)  # fmt: skip
_NEVER = WindowInputs(dt.datetime.max.replace(tzinfo=dt.UTC), 0, 0, 0, 0)


def newest_windows(work: Work) -> tuple[Window, ...]:
    """Return the windows that freshness judges at every look."""
    return tuple(complete_windows(work.spec.time, work.now)[-ALWAYS:])


def unjudged_windows(work: Work) -> tuple[Window, ...]:
    """Return the newest windows, and all from the oldest on whose verdict is out of date.

    Older windows change when files are taken in late, or all at once; what was judged before and
    has not changed since needs no second look.
    """
    from mlmon_dagster.profiles.arrivals import load_arrivals

    windows = complete_windows(work.spec.time, work.now)
    older, newest = windows[:-ALWAYS], windows[-ALWAYS:]
    if not older:
        return tuple(newest)
    engine, spec = work.project.store.state, work.spec
    states = window_state.load(engine, spec.model, older[0].start, older[-1].end)
    arrivals = load_arrivals(work.project.store.state, spec) if spec.has_actuals else None
    known = monitor_results.versions(
        engine, spec.model, [SILENCE, OVERDUE], older[0].start, older[-1].end
    )
    for i, window in enumerate(older):
        state = states.get(window.start, _NEVER)
        due = _versions(spec, window, state, arrivals, work.now)
        if any(known.get((m, window.start), ("", ""))[0] != v for m, v in due.items()):
            return tuple(windows[i:])
    return tuple(newest)


def arrived(state: WindowInputs) -> int:
    """Count the rows of a window: events that still wait to be computed are there."""
    return max(state.n, 1) if is_waiting(state) else state.n


def _versions(
    spec: ModelSpec,
    window: Window,
    state: WindowInputs,
    arrivals: Arrivals | None,
    now: dt.datetime,
) -> dict[str, str]:
    """Return the data versions that a window's verdicts should have."""
    found = {SILENCE: ARRIVED if arrived(state) else SILENT}
    n, k = state.n_expected, state.n_actual
    is_overdue = spec.has_actuals and spec.monitors.freshness.actuals_missing is not None
    if is_overdue and n and not is_waiting(state):
        seen = compare_truth(spec, arrivals, window.end, n, k, now).state
        is_told = seen in ("late", "fine")
        found[OVERDUE] = f"actuals:{k}:{n}:{seen}" if is_told else f"actuals:{seen}"
    return found


def silence_facts(work: Work, windows: Sequence[Window]) -> list[dict[str, object]]:
    """Return for each window when its events were, and what is known of the silence around it.

    Returns:
        ``first_event_time`` and ``last_event_time`` of windows with records. If any has none, also
        ``last_before`` and ``next_after``, the events around all of these windows, ``is_followed``
        if rows have come after them that are not counted yet, the `Calendar`, where hours or
        weekdays tell, and ``silence_limit``, where it is learnt and not declared.
    """
    engine, spec = work.project.store.state, work.spec
    first, end = windows[0].start, windows[-1].end
    served = {s.window_start: s for s in window_state.load_served(engine, spec.model, first, end)}
    around: dict[str, object] = {}
    if len(served) < len(windows):
        last = window_state.load_last_served(engine, spec.model, first)
        following = window_state.find_next_touched(engine, spec.model, end)
        since = first if last is None else last.window_start
        calendar, limit = _learn_usual(work, since)
        around = {
            "last_before": None if last is None else last.last_event_time or last.window_start,
            "next_after": None if following is None else following.first_event_time,
            "is_followed": following is not None and following.first_event_time is None,
            "calendar": calendar,
            "silence_limit": limit,
        }
    return [
        {
            **around,
            **({"first_event_time": own.first_event_time, "last_event_time": own.last_event_time}
               if (own := served.get(window.start)) else {}),
        }
        for window in windows
    ]  # fmt: skip


def _learn_usual(work: Work, since: dt.datetime) -> tuple[Calendar | None, float | None]:
    """Learn when predictions come, and which silence is too long, from twelve weeks before on.

    Args:
        work: The model.
        since: The last event before what is looked at, or the first window of it.

    Returns:
        The calendar, None for windows that have none; and the limit as of `_learn_limit`.
    """
    engine, spec = work.project.store.state, work.spec
    n_places = PLACES.get(spec.time.granularity)
    if n_places is None:
        return None, None
    production_start = first_window(spec.time).start
    start = max(since - (WEEKS + 1) * _WEEK, production_start)
    windows = windows_between(spec.time, start, work.now + _WEEK)
    served = window_state.load_served(engine, spec.model, start, windows[-1].end)
    before: list[dt.datetime] = []
    if start < production_start + MIN_WEEKS * _WEEK:
        most = (WEEKS + 1) * n_places
        before = window_state.list_touched_before(engine, spec.model, production_start, most)
    calendar = build_calendar(spec, windows, served, before, work.now)
    return calendar, _learn_limit(spec, calendar, [s for s in served if s.window_start < since])


def build_calendar(
    spec: ModelSpec,
    windows: Sequence[Window],
    served: Sequence[ServedWindow],
    before: Sequence[dt.datetime],
    now: dt.datetime,
) -> Calendar:
    """Return in which windows predictions are expected, each told by those before it.

    Args:
        spec: The model, with windows of hours or days.
        windows: Windows that follow each other, also ones to come.
        served: Those of production that have records, in order.
        before: Starts of windows of the baseline that have rows.
        now: The present moment.
    """
    found = {each.window_start: each for each in served}
    places, weeks = _places(spec, [window.start for window in windows])
    has_rows = np.array([window.start in found for window in windows], dtype=bool)
    teaches = np.array([window.end <= now for window in windows], dtype=bool)
    if windows[0].start <= first_window(spec.time).start:
        # Before its first prediction of all a model was not there to be silent.
        teaches &= np.maximum.accumulate(has_rows)
    holidays = holidays_of_windows(spec.time, windows)
    teaches[list(holidays)] = False
    in_baseline = served_places(*_places(spec, before), PLACES[spec.time.granularity])
    events = [found.get(window.start) for window in windows]
    expected = expected_windows(places, weeks, has_rows, teaches, in_baseline)
    expected[list(holidays)] = False
    return Calendar(
        edges=np.array([*(w.start.timestamp() for w in windows), windows[-1].end.timestamp()]),
        expected=expected,
        served=has_rows,
        first=np.array([_seconds(each and each.first_event_time) for each in events]),
        last=np.array([_seconds(each and each.last_event_time) for each in events]),
        holidays=holidays,
    )


def _learn_limit(
    spec: ModelSpec, calendar: Calendar, served: Sequence[ServedWindow]
) -> float | None:
    """Return after how many seconds hourly windows are silent too long; None if it is declared."""
    monitor = spec.monitors.freshness
    if "no_data_for" in monitor.model_fields_set or spec.time.granularity != "hour":
        return None
    known = [
        (last.timestamp(), now.came_at.timestamp())
        for before, now in pairwise(served)
        if (last := before.last_event_time) is not None and now.came_at is not None
    ]
    last_event, came = np.array(known, dtype=np.float64).reshape(-1, 2).T
    return learn_limit(
        calendar.count_expected(last_event, came),
        (came // _DAY).astype(np.int64),
        GRAINS["hour"].total_seconds(),
        monitor.no_data_for.total_seconds(),
    )


def _places(
    spec: ModelSpec, starts: Sequence[dt.datetime]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    known = np.array([place_in_week(spec.time, start) for start in starts], dtype=np.int64)
    places, weeks = known.reshape(-1, 2).T
    return places, weeks


def _seconds(moment: dt.datetime | None) -> float:
    return math.nan if moment is None else moment.timestamp()


def unread_files(work: Work, windows: Sequence[Window]) -> dict[dt.datetime, dict[str, object]]:
    """Return for each window how many landing files its verdict waits for.

    Files that have landed and are not read yet may hold the rows that a window misses. A window's
    verdict waits for those that were there when it was first judged, and for no later ones: a
    stream of new files would otherwise put it off for ever. What was decided once stays so.
    """
    left = manifest.load_backlog(work.project.store.state, work.spec.model)
    if not left:
        return {}
    known = monitor_results.versions(
        work.project.store.state,
        work.spec.model,
        [SILENCE, OVERDUE],
        windows[0].start,
        windows[-1].end,
    )
    return {
        window.start: {
            **_waits(left.get("predictions"), known.get((SILENCE, window.start)), "n_unread",
                     "unread_until"),
            **_waits(left.get("actuals"), known.get((OVERDUE, window.start)), "n_unread_actuals",
                     "unread_actuals_until"),
        }
        for window in windows
    }  # fmt: skip


def _waits(
    left: Backlog | None, known: tuple[str, str] | None, count: str, until: str
) -> Mapping[str, object]:
    """Return how many files a verdict waits for, and the last change of the newest of them."""
    if left is None or left.newest_at is None:
        return {}
    version, details = known or ("", "{}")
    if version not in _OPEN:
        return {}
    first = json.loads(details).get("unread_until") if known else None
    moment = dt.datetime.fromisoformat(first) if first else left.newest_at
    return {count: left.n, until: moment.isoformat()} if left.holds_any_until(moment) else {}
