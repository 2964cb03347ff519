"""How far the ground truth of a window has arrived."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.windows import Window

Maturity = Literal["provisional", "mature", "closed"]


def actual_coverage(n: int, n_actual: int) -> float | None:
    """Return the share of a window's predictions with ground truth, None for an empty window."""
    return n_actual / n if n else None


def maturity_of(
    spec: ModelSpec, window: Window, n: int, n_actual: int, now: dt.datetime
) -> Maturity:
    """Tell whether a window's realized performance may be trusted yet.

    - ``provisional``: the window is still running, or ground truth is still expected;
    - ``mature``: enough of it has arrived, or it should all have arrived by now and at least
      ``actuals.min_rows`` did (`has_low_coverage` then tells that this is what happened);
    - ``closed``: ``actuals.closed_after`` has passed; nobody waits for what comes later, and it
      does not change the window any more (`closes_at`).

    A model without ground truth has nothing to wait for: its windows are mature once they end.

    Args:
        spec: The monitored model.
        window: The window in question.
        n: Its predictions that ground truth is expected for, 0 or more.
        n_actual: Those of them with ground truth, 0 to ``n``.
        now: The present moment, timezone-aware.
    """
    if now < window.end:
        return "provisional"
    if now >= window.end + spec.actuals.closed_after:
        return "closed"
    if not spec.has_actuals or (n and n_actual / n >= spec.actuals.min_coverage):
        return "mature"
    due = window.end + spec.actuals.expected_within + spec.time.allowed_lateness
    return "mature" if now >= due and n_actual >= spec.actuals.min_rows else "provisional"


def closes_at(
    spec: ModelSpec, window_end: dt.datetime, first_input_at: dt.datetime | None
) -> dt.datetime:
    """Return when a window is frozen: what arrives later is stored and counted, not computed.

    Args:
        spec: The monitored model.
        window_end: The window's end.
        first_input_at: When its first rows came; a history that is imported later has as much
            time for its ground truth as one that was watched live.
    """
    return max(window_end, first_input_at or window_end) + spec.actuals.closed_after


def has_low_coverage(spec: ModelSpec, n: int, n_actual: int) -> bool:
    """Tell whether less ground truth has come than ``actuals.min_coverage`` asks for.

    False for a model without ground truth and for an empty window.
    """
    return spec.has_actuals and bool(n) and n_actual / n < spec.actuals.min_coverage
