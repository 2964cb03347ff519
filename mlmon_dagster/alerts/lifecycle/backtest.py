"""Which alerts a spec's monitors would have opened in a period; a pure fold, nothing is sent."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlmon_dagster.alerts.lifecycle.apply_results import join_columns
from mlmon_dagster.alerts.lifecycle.transitions import AlertState, Verdict, failed, step
from mlmon_dagster.monitors.evidence import finite
from mlmon_dagster.monitors.wording import BEYOND_CHANCE, as_judged
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state.monitor_results import MonitorResult, Status

WEEK = dt.timedelta(weeks=1)
TOLERABLE = 4 * WEEK  # one alert of a monitor in so long is what a person will still read


@dataclass(frozen=True)
class Backtest:
    """What one alert, a monitor on one column and slice, would have done.

    Attributes:
        n_judged: Windows with a verdict.
        n_no_data: Windows without.
        n_failed: Windows past the threshold.
        opened: Starts of the windows in which it would have opened, oldest first.
        firing: Starts of the windows after which it would have been open.
        threshold: As declared, such as ``above 0.1``.
        worst: The value furthest towards the failing side; None if there is no value.
        suggested: A threshold under which it opens at most once in four weeks; None if it does
            already, or if the monitor has no threshold on a value.
    """

    monitor: str
    slice_name: str
    n_judged: int
    n_no_data: int
    n_failed: int
    opened: tuple[dt.datetime, ...]
    firing: tuple[dt.datetime, ...]
    threshold: str
    worst: float | None
    suggested: float | None

    def fields(self) -> dict[str, object]:
        """Return what programs get: moments written out."""
        return vars(self) | {
            "opened": [start.isoformat() for start in self.opened],
            "firing": [start.isoformat() for start in self.firing],
        }


def backtest(results: Iterable[MonitorResult]) -> list[Backtest]:
    """Run the state machine over verdicts as if each window had just ended.

    Args:
        results: Rows of ``monitor_result``, in any order; one per monitor, slice and window.

    Returns:
        One entry per alert, the ones that would have opened most often first; [] for no rows.
    """
    by_alert: dict[tuple[str, str], list[MonitorResult]] = {}
    for row in join_columns(results):
        name = "" if row["slice_key"] == ALL else f"{row['slice_key']}={row['slice_value']}"
        by_alert.setdefault((row["monitor"], name), []).append(row)
    found = [
        _test_monitor(monitor, name, sorted(rows, key=lambda r: r["window_start"]))
        for (monitor, name), rows in by_alert.items()
    ]
    return sorted(found, key=lambda b: (-len(b.opened), -b.n_failed, b.monitor, b.slice_name))


def opened_by_week(tests: Sequence[Backtest], start: dt.datetime, end: dt.datetime) -> list[int]:
    """Count the alerts opened in each week from a start on; the last week may be a part."""
    weeks = [0] * max(math.ceil((end - start) / WEEK), 1)
    for test in tests:
        for moment in test.opened:
            weeks[min(int((moment - start) / WEEK), len(weeks) - 1)] += 1
    return weeks


def _test_monitor(monitor: str, name: str, rows: Sequence[MonitorResult]) -> Backtest:
    starts = [row["window_start"] for row in rows]
    statuses = [str(row["status"]) for row in rows]
    opened, firing = _fold_windows([(row, _read_verdict(row, i)) for i, row in enumerate(rows)])
    scored = [(row, _rate_badness(row)) for row in rows]
    known = [(row, bad) for row, bad in scored if bad is not None]
    side, _ = _read_threshold(rows[-1])
    sign = -1 if side == "below" else 1
    return Backtest(
        monitor=monitor,
        slice_name=name,
        n_judged=sum(status != "NO_DATA" for status in statuses),
        n_no_data=statuses.count("NO_DATA"),
        n_failed=sum(map(failed, statuses)),
        opened=opened,
        firing=firing,
        threshold=str(rows[-1]["threshold"]),
        worst=sign * max(bad for _, bad in known) if known else None,
        suggested=_suggest_limit(known, opened, starts, sign),
    )


def _read_verdict(row: MonitorResult, position: int) -> Verdict:
    return Verdict(
        row["window_start"],
        row["status"],
        position,
        finite(row["excess"]),
        finite(row["excess_error"]),
    )


def _fold_windows(
    judged: Sequence[tuple[MonitorResult, Verdict]],
) -> tuple[tuple[dt.datetime, ...], tuple[dt.datetime, ...]]:
    state, opened, firing = AlertState(), [], []
    for row, verdict in judged:
        taken = step(state, verdict, k=row["k"], n=row["of_n"])
        state = taken.after
        if "opened" in taken.events:
            opened.append(verdict.window_start)
        if state.active:
            firing.append(verdict.window_start)
    return tuple(opened), tuple(firing)


def _read_threshold(row: MonitorResult) -> tuple[str, float | None]:
    side, _, bound = str(row["threshold"]).removesuffix(BEYOND_CHANCE).partition(" ")
    try:
        return side, float(bound.replace(",", ""))
    except ValueError:
        return side, None


def _rate_badness(row: MonitorResult) -> float | None:
    """Return what is compared with the threshold, larger being worse; None if there is nothing."""
    side, bound = _read_threshold(row)
    if row["status"] == "NO_DATA" or bound is None:
        return None
    worse_by = json.loads(row["details"]).get("worse_by")
    value = worse_by if side == "drop" else as_judged(row)["value"]
    if value is None or not math.isfinite(value):
        return None
    if side == "below":
        return -float(value)
    # Shifts are judged in either direction.
    return abs(float(value)) if row["monitor"].startswith("drift/") else float(value)


def _suggest_limit(
    known: Sequence[tuple[MonitorResult, float]],
    opened: Sequence[dt.datetime],
    starts: Sequence[dt.datetime],
    sign: int,
) -> float | None:
    allowed = max(int((starts[-1] - starts[0]) / TOLERABLE), 1)
    if len(opened) <= allowed or not known:
        return None
    for limit in sorted(_round_up(bad) for _, bad in known):
        judged = [(row, _judge_under(limit, row, bad, i)) for i, (row, bad) in enumerate(known)]
        if len(_fold_windows(judged)[0]) <= allowed:
            return sign * limit
    return None


def _judge_under(limit: float, row: MonitorResult, bad: float, position: int) -> Verdict:
    """Return the verdict that a window would have had under another limit."""
    before = _read_verdict(row, position)
    excess = None if before.excess is None else (bad - limit) / (abs(limit) or 1.0)
    status: Status = "OK" if bad <= limit else before.status
    return before._replace(status=status, excess=excess, excess_error=None)


def _round_up(value: float) -> float:
    """Round up to the two digits that a person would write."""
    if value == 0:
        return 0.0
    digits = 1 - math.floor(math.log10(abs(value)))
    scale = 10.0**digits
    return round(math.ceil(value * scale) / scale, max(digits, 0))
