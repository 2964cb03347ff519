"""Ground truth that comes late: which windows miss some that usually has come at their age.

Part of family freshness. Also the sentence of a window that waits for its ground truth.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from mlmon_dagster.monitors.evidence import (
    NO_DATA,
    OK,
    Evidence,
    Window,
    excess,
    production,
    result_row,
)
from mlmon_dagster.monitors.wording import no_verdict, threshold
from mlmon_dagster.spec.baseline import GRAINS
from mlmon_dagster.spec.declaration import SHORTEST_CLOSING
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.monitors import Condition
from mlmon_dagster.spec.names import counted
from mlmon_dagster.spec.windows import TruthTiming, closing_age, due_age, name_wait
from mlmon_dagster.store.state.monitor_results import MonitorResult, name_window

if TYPE_CHECKING:
    from mlmon_dagster.metrics.late_truth.arrivals import ArrivalCurve, Arrivals

MOST = 0.5  # share of predictions with ground truth that no young window has by chance
CHANCE = 1e-4  # below which so little ground truth is no chance
MIN_ROWS = 30  # without a curve only windows of this size, and without any ground truth, fail
SLACK = dt.timedelta(days=7)  # in which it reaches this store, where only its own times are known
STILL_COMING, UNKNOWN = "labels_still_coming", "arrival_unknown"
_NOT_JUDGED = {
    "uncounted": "Rows of this {grain} have come that are not counted yet.",
    "not_due": "Ground truth is not due yet.",
    "no_rows": "No prediction of this {grain} waits for ground truth.",
    "unknown": "How late ground truth usually comes is not known yet.",
    "too_few": "So soon there may be no ground truth at all by chance, so whether it is late is "
    "not known.",
}
_REASONS = {"no_rows": "no_rows", "unknown": UNKNOWN}


@dataclass(frozen=True)
class Compared:
    """A window's ground truth beside what usually has come at its age.

    Attributes:
        state: ``late``, ``fine``, or why nothing can be said: ``not_due``, ``unknown``,
            ``too_few``.
        missing: Share of the usual ground truth that is missing; 0 if nothing can be said.
        usual: Share of predictions that usually have it at this age; None if that is not known.
    """

    state: str
    missing: float = 0.0
    usual: float | None = None


def compare_truth(
    spec: ModelSpec,
    arrivals: Arrivals | None,
    window_end: dt.datetime,
    n: int,
    k: int,
    now: dt.datetime,
) -> Compared:
    """Compare the ground truth of a window with what windows have at the same age.

    The age is counted `time.allowed_lateness` short, at most two windows, so that a day's delay of
    the label job is no alarm. The curve of watched windows speaks where enough were watched at that
    age. Before that a window without any is late a week after `actuals.expected_within`, or after
    90 days, and one is that has less than the times of ground truth itself tell, a week later:
    neither says how often it is delivered.

    Args:
        spec: The model.
        arrivals: What is known of when its ground truth comes.
        window_end: The window's end.
        n: Its predictions that ground truth is expected for, at least one.
        k: Those of them that have it.
        now: The present moment.
    """
    condition = spec.monitors.freshness.actuals_missing
    assert condition is not None
    grain = GRAINS[spec.time.granularity]
    age = now - window_end - min(spec.time.allowed_lateness, 2 * grain)
    if age < dt.timedelta(0):
        return Compared("not_due")
    watched = arrivals.watched if arrivals is not None and arrivals.watched.is_watched else None
    if (found := _compare_with(watched, condition, age, n, k)) is not None:
        return found
    declared = spec.actuals.expected_within
    latest = SHORTEST_CLOSING if declared is None else declared + SLACK
    if age >= latest and not k and n >= MIN_ROWS:
        return Compared("late", 1.0)
    dated = arrivals.prior if arrivals is not None and arrivals.is_dated else None
    if (found := _compare_with(dated, condition, age - SLACK, n, k)) is not None:
        return found
    if k == n or (k and declared is not None and age >= declared):
        return Compared("fine")
    is_known = declared is not None or (dated is not None and dated.ages)
    return Compared("not_due" if is_known else "unknown")


def _compare_with(
    curve: ArrivalCurve | None, condition: Condition, age: dt.timedelta, n: int, k: int
) -> Compared | None:
    """Compare with a curve at an age; None where there is none, or it says nothing of that age.

    Where no ground truth at all could be chance, a window is no evidence that ground truth comes.
    Without that a young window would end the alert of older ones that miss theirs. One that has all
    that is usual is evidence nevertheless, if that is most of it: after windows that never got any,
    the curve holds none to be possible at every age.
    """
    if curve is None or age < dt.timedelta(0):
        return None
    units = age / dt.timedelta(hours=curve.unit_hours)
    usual, chance = curve.share_by(units), curve.chance_of_so_few(k, n, units)
    if usual is None or chance is None:
        return None
    missing = 1 - k / n / usual if usual else 0.0
    none = curve.chance_of_so_few(0, n, units)
    if none is None or none >= CHANCE:
        is_complete = usual >= MOST and missing <= 0
        return Compared("fine", missing, usual) if is_complete else Compared("too_few", 0.0, usual)
    is_late = chance < CHANCE and condition.fails(missing)
    return Compared("late" if is_late else "fine", missing, usual)


def judge_ground_truth(evidence: Evidence) -> list[MonitorResult]:
    """Fail windows that have far less ground truth than windows usually have at their age.

    The value is the missing share of what is usual; it fails past `actuals_missing`, unless so few
    can be chance, see `compare_truth`. Windows of which nothing can be said are NO_DATA; so is one
    that would fail while rows of it are not counted yet, or files of actuals are not read.
    """
    spec = evidence.spec
    if not spec.has_actuals or spec.monitors.freshness.actuals_missing is None:
        return []
    return [_judge(evidence, window) for window in production(evidence)]


def _judge(evidence: Evidence, window: Window) -> MonitorResult:
    # A row in any case: a monitor without one in several windows counts as taken away, which ends
    # its alert.
    spec, monitor = evidence.spec, evidence.spec.monitors.freshness
    condition = monitor.actuals_missing
    assert condition is not None
    n, k = int(window["n_expected"]), int(window["n_actual"])
    if not n:
        return _not_judged(evidence, window, n, "uncounted" if window["is_waiting"] else "no_rows")
    end = window["window_end"].to_pydatetime()
    found = compare_truth(spec, evidence.arrivals, end, n, k, evidence.now)
    if found.state in _NOT_JUDGED:
        return _not_judged(evidence, window, n, found.state)
    failed = found.state == "late"
    if failed and window["is_waiting"]:
        return _not_judged(evidence, window, n, "uncounted")
    if failed and window["n_unread_actuals"]:
        return _row(
            evidence,
            window,
            "unread",
            status=NO_DATA,
            reason="files_unread",
            message=no_verdict("ground truth", "files_unread", n),
            n=n,
            details={"unread_until": window["unread_actuals_until"]},
        )
    day = name_window(spec, window["window_start"])  # an alert's "since" is another one
    has = f"{k:,} of {n:,} predictions of {day} have it{_usual(found.usual)}."
    if failed and (refused := int(window["n_refused_actuals"])):
        has += f" {counted(refused, 'file')} of ground truth refused since then. "
        has += str(window["refused_actuals_because"])
    return _row(
        evidence,
        window,
        f"{k}:{n}:{found.state}",
        status=monitor.severity if failed else OK,
        message=f"Ground truth is late: {has}" if failed else f"Ground truth comes: {has}",
        value=found.missing,
        **excess(found.missing, condition.bound),
        n=n,
        threshold=threshold(condition),
    )


def _usual(share: float | None) -> str:
    return "" if share is None else f", usually {share * 100:.0f} % at this age"


def _not_judged(evidence: Evidence, window: Window, n: int, why: str) -> MonitorResult:
    grain = evidence.spec.time.granularity
    note = evidence.arrivals.note if why == "unknown" and evidence.arrivals else ""
    return _row(
        evidence,
        window,
        why,
        status=NO_DATA,
        reason=_REASONS.get(why, STILL_COMING),
        message=f"{_NOT_JUDGED[why].format(grain=grain)} {note}".strip(),
        n=n,
    )


def _row(evidence: Evidence, window: Window, seen: str, **fields: Any) -> MonitorResult:
    """Return a verdict on ground truth, whose version is that of what was seen of it."""
    return result_row(
        evidence,
        window,
        evidence.spec.monitors.freshness,
        metric="actuals_missing",
        data_version=f"actuals:{seen}",
        method_version="actuals-2",
        **fields,
    )


def explain_waiting(
    spec: ModelSpec,
    arrivals: Arrivals | None,
    timing: TruthTiming,
    window_end: dt.datetime,
    n: int,
    k: int,
    now: dt.datetime,
) -> tuple[str, str]:
    """Say why a window's ground truth is not judged yet, and by when it will be.

    Returns:
        The reason, ``labels_still_coming``, ``arrival_unknown`` or, if it is due and there is none,
        ``no_actuals``; and the sentence.
    """
    from mlmon_dagster.metrics import MIN_SEEN

    curve = arrivals.whole if arrivals is not None else None
    unit = dt.timedelta(hours=curve.unit_hours) if curve else dt.timedelta(days=1)
    usual = curve.share_by((now - window_end) / unit) if curve else None
    # What comes until then changes nothing that is judged, so the verdict stands as of this day.
    has = f"{k:,} of {n:,} predictions had it on {name_day(spec, now, now)}{_usual(usual)}."
    due, waits = due_age(spec, timing), name_wait(spec, window_end, k, now, timing)
    if due is None:
        note = f" {arrivals.note}" if arrivals is not None and arrivals.note else ""
        return UNKNOWN, (
            f"Ground truth is still coming: {has} How late it usually comes is learnt from at "
            f"least {MIN_SEEN} {spec.time.granularity}s that have it.{note}"
        )
    if waits == STILL_COMING:
        day = name_day(spec, window_end + due, now)
        return STILL_COMING, f"Ground truth is still coming: {has} It is usually judged by {day}."
    closing = name_day(spec, window_end + closing_age(spec, timing), now)
    return STILL_COMING if k else waits, (
        f"Ground truth is late: {has} It will be judged once more of it is there, or on {closing}."
    )


def name_day(spec: ModelSpec, moment: dt.datetime, now: dt.datetime) -> str:
    """Write a local day, of hourly windows with the hour."""
    zone = ZoneInfo(spec.time.zone)
    local, today = moment.astimezone(zone), now.astimezone(zone)
    year = "" if local.year == today.year else f" {local.year}"
    hour = f", {local:%H:%M}" if spec.time.granularity == "hour" else ""
    return f"{local.day} {local:%B}{year}{hour}"
