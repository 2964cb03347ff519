"""Which windows freshness judges, and what it must know of them beside their counts."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence

from mlmon_dagster.pipeline.work import Work, is_waiting
from mlmon_dagster.spec import ModelSpec, Window, complete_windows
from mlmon_dagster.store.state import manifest, monitor_results, window_state
from mlmon_dagster.store.state.manifest import Backlog
from mlmon_dagster.store.state.window_state import WindowInputs

ALWAYS = 30  # newest windows that every look judges; older ones where their verdict is out of date
SILENCE, OVERDUE = "freshness/no_data_for", "freshness/actuals_missing"
ARRIVED, SILENT = "arrived", "silent"
_OPEN = (  # verdicts that files may still change
    "", "unread", "actuals:unread", "actuals:not_due", "actuals:uncounted", "actuals:no_rows",
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
    windows = complete_windows(work.spec.time, work.now)
    older, newest = windows[:-ALWAYS], windows[-ALWAYS:]
    if not older:
        return tuple(newest)
    engine, spec = work.project.store.state, work.spec
    states = window_state.load(engine, spec.model, older[0].start, older[-1].end)
    known = monitor_results.versions(
        engine, spec.model, [SILENCE, OVERDUE], older[0].start, older[-1].end
    )
    for i, window in enumerate(older):
        due = _versions(spec, window, states.get(window.start, _NEVER), work.now)
        if any(known.get((m, window.start), ("", ""))[0] != v for m, v in due.items()):
            return tuple(windows[i:])
    return tuple(newest)


def arrived(state: WindowInputs) -> int:
    """Count the rows of a window: events that still wait to be computed are there."""
    return max(state.n, 1) if is_waiting(state) else state.n


def _versions(
    spec: ModelSpec, window: Window, state: WindowInputs, now: dt.datetime
) -> dict[str, str]:
    """Return the data versions that a window's verdicts should have."""
    found = {SILENCE: ARRIVED if arrived(state) else SILENT}
    n, wait = state.n_expected, spec.actuals.expected_within + spec.time.allowed_lateness
    is_overdue = spec.has_actuals and spec.monitors.freshness.actuals_missing is not None
    if is_overdue and n and not is_waiting(state):
        is_due = window.end + wait <= now
        found[OVERDUE] = f"actuals:{state.n_actual}:{n}" if is_due else "actuals:not_due"
    return found


def last_before(work: Work, first: Window) -> dt.datetime | None:
    """Return the start of the last window before a window that has predictions."""
    return window_state.last_with_rows(work.project.store.state, work.spec.model, first.start)


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
