"""Levels of performance and business: where predictions lie, beside what came true, as before?

Calibration of scores and bias of a regression have no better side: they should stay what they were.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlmon_dagster.families.family import await_truth
from mlmon_dagster.metrics.frames import MetricSample
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.metrics.performance.multiclass import CLASS
from mlmon_dagster.metrics.windows.clusters import LevelShift, UsualLevel, as_seen, level_shift
from mlmon_dagster.monitors.evidence import (
    OK,
    Case,
    Evidence,
    Excess,
    Window,
    early_text,
    excess,
    finite,
    level_of,
    not_mature,
)
from mlmon_dagster.monitors.wording import (
    NAMES,
    interval_text,
    name_span,
    number,
    told,
    unit_of,
    weighted_text,
    write_limit,
)
from mlmon_dagster.spec.monitors import PerformanceMonitor
from mlmon_dagster.store.state.monitor_results import MonitorResult

_LEVEL = 0.0003  # of the test: a year of days has some 150 independent runs of five
APART, SEEN = 20, 90  # windows: before the newest so many that these say how far windows stray, too
_NEWEST = 3  # windows whose middle one must still be off
_LEAST_MARGIN = 1e-12  # of a window whose values are all equal


class Moved(NamedTuple):
    """How far the newest windows are from the usual level, and what speaks for a verdict."""

    change: LevelShift
    is_large: bool
    is_real: bool
    lasts: bool

    @property
    def failed(self) -> bool:
        """Whether all of it holds."""
        return self.is_large and self.is_real and self.lasts


def measure_shift(rows: Sequence[MetricSample], usual: UsualLevel) -> LevelShift:
    """Return how far windows together are from the baseline's level, and by what chance."""
    values = [row["value"] for row in rows]
    errors = [(row["upper"] - row["lower"]) / (2 * Z95) for row in rows]
    return level_shift(values, [int(row["n"]) for row in rows], usual, errors)


def moved(
    rows: Sequence[MetricSample],
    usual: UsualLevel,
    over: int,
    limit: float,
    tests: int = 1,
    level: float = _LEVEL,
) -> Moved:
    """Judge the newest windows of a metric together; see `judge_level`.

    Args:
        rows: Of at least one window and at most ``over``, newest last.
        usual: The baseline's level.
        over: How many windows are asked for.
        limit: What the shift must reach.
        tests: How many are made of these windows.
        level: Of the test.
    """
    change = measure_shift(rows, usual)
    side = 1 if change.shift > 0 else -1
    away = [side * (row["value"] - usual.mean) for row in rows]
    rest = sorted(away)[:-1] or away
    lasts = (
        len(away) >= min(_NEWEST, over)
        and statistics.mean(rest) >= limit
        and statistics.median(away[-_NEWEST:]) >= limit / 2
    )
    is_large = abs(change.shift) >= limit * (1 - 1e-12)
    return Moved(change, is_large, change.p_value * tests <= level, lasts)


class _Found(NamedTuple):
    """The level of one column: of the model, or of one of its classes."""

    column: str
    rows: list[MetricSample]
    usual: UsualLevel
    moved: Moved
    limit: float

    @property
    def change(self) -> LevelShift:
        return self.moved.change


def judge_level(evidence: Evidence, window: Window, monitor: PerformanceMonitor) -> MonitorResult:
    """Fail a window when the newest `over` windows lie really and largely elsewhere.

    Largely: their mean is at least `shift` from the mean of the baseline's windows, either way; or
    `of_rate` of how often the rarer outcome comes in the baseline, if that is less.
    Really: at the level .0003, under all spreads and autocorrelations that the baseline's windows
    may have (`windows.clusters`), and the windows before the newest 20, which a fault may be in.
    And it lasts: there are three windows, they are off by the limit without the one that is
    furthest off, and the middle one of the newest three by half of it; so one odd window does not
    fail, and what is over is forgotten.

    Of several classes each is judged, at .0003 over their number; the row is of the one that is
    furthest off. Provisional windows, and baselines of fewer than eight windows, are NO_DATA.
    """
    row = evidence.whole(window, monitor.metric, monitor.column)
    limit = _limit(evidence, window, monitor)
    said = f"shift {write_limit(limit)}"
    case = Case(evidence, window, monitor, monitor.metric, monitor.column, row, said)
    found = [] if row is None else _levels(evidence, window, monitor, limit)
    reason = _no_data(evidence, window, row, found)
    if row is None or reason:
        return await_truth(case, reason, NAMES.get(monitor.metric, monitor.metric))
    worst = max(found, key=lambda one: abs(one.change.shift))
    change, of_several = worst.change, len(found)
    text = _sentence(evidence, window, monitor, worst)
    failed = worst.moved.failed
    if worst.moved.is_large and not failed:
        why = "not in the newest windows alike" if worst.moved.is_real else "this may be chance"
        text = f"{text[:-1]}, but {why}."
    n = sum(int(one["n"]) for one in worst.rows)
    return case.result(
        _status(monitor, change) if failed else OK,
        text,
        value=change.value,
        lower=change.value - change.margin,
        upper=change.value + change.margin,
        n=n,
        baseline_value=worst.usual.mean,
        p_value=change.p_value,
        p_adjusted=min(change.p_value * of_several, 1.0),
        family_size=of_several,
        method_version="level-4",
        details={
            "shift": change.shift,
            "margin": change.margin,
            "n_windows": len(worst.rows),
            "n_baseline_windows": worst.usual.windows,
            "spread": worst.usual.spread,
            "class": worst.column.removeprefix(CLASS) if worst.column.startswith(CLASS) else None,
        },
        **_excess(worst),
    )


def _excess(worst: _Found) -> Excess:
    """Say how far past the limit the newest two windows are, whether the shift is over or not.

    The ones before them do not say that. Of one alone the interval is too often clear of the limit
    by chance while a fault lasts, a weekend of few rows above all; so it is the error of the newest
    with the mean of both.
    """
    usual, side = worst.usual, 1 if worst.change.shift > 0 else -1
    newest = worst.rows[-2:]
    margins = [math.hypot((r["upper"] - r["lower"]) / 2, Z95 * usual.spread) for r in newest]
    weights = [1 / max(margin, _LEAST_MARGIN) ** 2 for margin in margins]
    total = math.fsum(w * r["value"] for w, r in zip(weights, newest, strict=True))
    away = side * (total / math.fsum(weights) - usual.mean)
    return excess(away, worst.limit, margins[-1])


def _status(monitor: PerformanceMonitor, change: LevelShift) -> str:
    is_error = monitor.error_at is not None and abs(change.shift) >= monitor.error_at
    return "ERROR" if is_error else monitor.severity


def _levels(
    evidence: Evidence, window: Window, monitor: PerformanceMonitor, limit: float
) -> list[_Found]:
    columns = [c for c in evidence.columns_with(window, monitor.metric) if c.startswith(CLASS)]
    columns = columns or [monitor.column]
    found, level = list[_Found](), level_of(window, _LEVEL)
    for column in columns:
        rows = evidence.recent(window, monitor.metric, monitor.over, column)
        usual = evidence.usual_level(monitor.metric, column)
        if usual is not None and rows and rows[-1]["window_start"] == window["window_start"]:
            judged = moved(rows, usual, monitor.over, limit, len(columns), level)
            if judged.is_large:
                before = evidence.recent(window, monitor.metric, _apart(monitor) + SEEN, column)
                usual = _seen(usual, before[: -_apart(monitor)])
                judged = moved(rows, usual, monitor.over, limit, len(columns), level)
            found.append(_Found(column, rows, usual, judged, limit))
    return found


def _apart(monitor: PerformanceMonitor) -> int:
    return max(APART, monitor.over)


def _seen(usual: UsualLevel, rows: Sequence[MetricSample]) -> UsualLevel:
    fields = np.array([(row["value"], row["lower"], row["upper"], row["n"]) for row in rows])
    return as_seen(usual, *fields.T) if rows else usual


def _limit(evidence: Evidence, window: Window, monitor: PerformanceMonitor) -> float:
    """Return what a shift must reach: `shift`, or a share of how often the rarer outcome comes.

    Where two in a thousand are positive, scores that are all doubled are off by .002.
    """
    assert monitor.shift is not None
    rate = evidence.baseline_row("actual_rate", evidence.whole(window, "actual_rate"))
    if monitor.of_rate is None or rate is None or finite(rate["value"]) is None:
        return monitor.shift
    rarer = min(rate["value"], 1 - rate["value"])
    return min(monitor.shift, monitor.of_rate * rarer) or monitor.shift


def _no_data(
    evidence: Evidence, window: Window, row: MetricSample | None, found: Sequence[_Found]
) -> str:
    if reason := not_mature(window, row):
        return reason
    if found:
        return ""
    return "learning" if evidence.baseline_windows is None else "few_windows"


def _sentence(
    evidence: Evidence, window: Window, monitor: PerformanceMonitor, worst: _Found
) -> str:
    """What is off in plain words, then by how much more than usual, then the statistics."""
    change, usual, rows, limit = worst.change, worst.usual, worst.rows, worst.limit
    n = sum(int(row["n"]) for row in rows)
    low, high = sorted((change.shift - change.margin, change.shift + change.margin))
    of_error = " of the mean absolute error" if monitor.metric == "bias" else ""
    weighted = weighted_text(rows[-1]["method_version"], window.get("actual_coverage"))
    return told(
        _level(evidence, window, monitor, worst),
        f"{NAMES.get(monitor.metric, monitor.metric)} is {_signed(change.value, limit)}{of_error}, "
        f"in the baseline {_signed(usual.mean, limit)} (n {n:,}); "
        f"{interval_text(low, high, of='of the change ')}, limit {number(limit)}"
        + "".join(f". {text}" for text in (weighted, early_text(window)) if text),
    )


def _level(evidence: Evidence, window: Window, monitor: PerformanceMonitor, worst: _Found) -> str:
    span = name_span(len(worst.rows), evidence.spec.time.granularity)
    return f"{span[0].upper()}{span[1:]} {_tell_level(evidence, window, monitor, worst)}"


def _tell_level(
    evidence: Evidence, window: Window, monitor: PerformanceMonitor, worst: _Found
) -> str:
    value, over = worst.change.value, monitor.over
    if worst.column.startswith(CLASS):
        much = "too often" if value > 0 else "too rarely"
        name = worst.column.removeprefix(CLASS)
        return f"the model expects {name!r} {_points(value)} {much}"
    if monitor.metric == "calibration_gap":
        came = _mean(evidence.recent(window, "actual_rate", over))
        if came is not None:
            expected = min(max(came + value, 0.0), 1.0)
            return (
                f"the model expects {_percent(expected)} on average where {_percent(came)} "
                "come true"
            )
    if monitor.metric == "bias":
        error = _mean(evidence.recent(window, "me", over))
        if error is not None:
            side = "too high" if error > 0 else "too low"
            unit = unit_of(evidence.spec, "me")
            return f"predictions are {number(abs(error))}{unit} {side} on average"
        side = "too high" if value > 0 else "too low"
        return f"predictions are {side} by {_percent(abs(value))} of their mean absolute error"
    side = "above" if value > 0 else "below"
    return f"the mean score is {_points(value)} {side} the share that came true"


def _mean(rows: Sequence[MetricSample]) -> float | None:
    n = sum(row["n"] for row in rows)
    return sum(row["value"] * row["n"] for row in rows) / n if n else None


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _points(share: float) -> str:
    return f"{100 * abs(share):.2g} points"


def _signed(value: float, limit: float) -> str:
    return "0" if abs(value) < limit / 40 else f"{'-' if value < 0 else '+'}{number(abs(value))}"
