"""Whether alerts would have opened, wherever among the windows the fault had begun."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlmon_dagster.alerts.lifecycle.backtest import backtest
from mlmon_dagster.spec import Window

HORIZON = 7  # windows that a fault lasts; what is noticed later counts as not noticed
OFTEN = 0.9  # of the windows that a fault may begin with
Row = dict[str, Any]
Alert = tuple[str, str]


@dataclass(frozen=True)
class Notice:
    """How surely and how fast a fault is noticed.

    Attributes:
        share: Of the windows that the fault may begin with, those from which an alert opens
            within `HORIZON` windows.
        after: Windows until then in the worst of these cases, 1 being the fault's first; 0 if it
            is never noticed.
        monitor: The monitor whose alert opens first, most often.
        slice_name: Of that alert, such as ``origin=JFK``; empty for the whole.
    """

    share: float = 0.0
    after: int = 0
    monitor: str = ""
    slice_name: str = ""

    @property
    def is_sure(self) -> bool:
        """Whether the fault is noticed in nearly all cases."""
        return self.share >= OFTEN


def starts_of(n_windows: int) -> range:
    """Return the places of the windows that a fault may begin with, so that all may last as long.

    Example:
        >>> list(starts_of(14)), list(starts_of(5)), list(starts_of(2))
        ([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2], [0])
    """
    lasts = min(HORIZON, max(n_windows // 2 + 1, 1))
    return range(n_windows - lasts + 1)


def notice(
    windows: Sequence[Window],
    healthy: Sequence[Row],
    faulty: Callable[[int], Sequence[Row]],
) -> Notice:
    """Let a fault begin with one window after the other, and see when an alert opens.

    Alerts that open on the healthy windows already are left out: the fault is not their cause.

    Args:
        windows: Healthy windows, oldest first.
        healthy: Verdicts on them; any others are left out.
        faulty: Returns the verdicts on all of them if the fault begins with the window in a place.
    """
    starts = [window.start for window in windows]
    before = _by_window(healthy, starts)
    anyway = set(_opened([row for rows in before.values() for row in rows]))
    found: list[tuple[int, Alert]] = []
    tried = starts_of(len(windows))
    lasts = len(windows) - len(tried) + 1
    for place in tried:
        after = _by_window(faulty(place), starts[place : place + lasts])
        rows = [row for start in starts[:place] for row in before.get(start, [])]
        rows += [row for mine in after.values() for row in mine]
        opened = {
            alert: min(mine)
            for alert, moments in _opened(rows).items()
            if alert not in anyway and (mine := [m for m in moments if m >= starts[place]])
        }
        if opened:
            alert = min(opened, key=lambda one: (opened[one], one))
            found.append((starts.index(opened[alert]) - place + 1, alert))
    if not found:
        return Notice()
    alerts = [alert for _, alert in found]
    monitor, slice_name = max(sorted(set(alerts)), key=alerts.count)
    share = len(found) / len(tried)
    return Notice(share, max(delay for delay, _ in found), monitor, slice_name)


def _by_window(rows: Sequence[Row], starts: Sequence[dt.datetime]) -> dict[dt.datetime, list[Row]]:
    wanted = set(starts)
    found: dict[dt.datetime, list[Row]] = {}
    for row in rows:
        if row["window_start"] in wanted:
            found.setdefault(row["window_start"], []).append(row)
    return found


def _opened(rows: Sequence[Row]) -> dict[Alert, tuple[dt.datetime, ...]]:
    return {(test.monitor, test.slice_name): test.opened for test in backtest(rows) if test.opened}
