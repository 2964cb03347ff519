"""Which earlier windows of production a window is compared with; arithmetic on the calendar."""

from __future__ import annotations

import datetime as dt
import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from zoneinfo import ZoneInfo

from mlmon_dagster.spec.baseline import BaselineSpec
from mlmon_dagster.spec.model import TimeSpec
from mlmon_dagster.spec.windows import Window

MOST_OF_A_VERSION = 366  # windows of a model version to look back over
_WEEK = dt.timedelta(weeks=1)


class EarlierWindows:
    """The windows that may be compared with, and which of them a given one is compared with.

    Days, weeks and hours are counted on the clock of the model's zone, so that a change of clocks
    moves no window out of its 28 days or away from its hour.

    Args:
        choice: A rolling baseline.
        time: The model's windows.
        windows: Those that have rows, oldest first.
    """

    def __init__(self, choice: BaselineSpec, time: TimeSpec, windows: Sequence[Window]) -> None:
        self.choice, self._zone = choice, ZoneInfo(time.zone)
        self.needed = choice.windows_needed(time.granularity)
        self._windows = windows
        self._starts = [self._local(w.start) for w in windows]
        self._ends = [self._local(w.end) for w in windows]

    def _local(self, moment: dt.datetime) -> dt.datetime:
        return moment.astimezone(self._zone).replace(tzinfo=None)

    def before(self, start: dt.datetime) -> Sequence[Window]:
        """Return what the window that starts then is compared with, oldest first; maybe nothing."""
        at, choice = self._local(start), self.choice
        until = bisect_right(self._ends, at - choice.gap)
        if choice.previous:
            return self._windows[max(until - 1, 0) : until]
        if choice.model_version is not None:
            return self._windows[max(until - MOST_OF_A_VERSION, 0) : until]
        span = choice.moving if choice.moving is not None else choice.weeks * _WEEK
        since = bisect_left(self._starts, at - choice.gap - span)
        if choice.same is None:
            return self._windows[since:until]
        by_weekday = choice.same == "weekday"
        return [
            self._windows[i]
            for i in range(since, until)
            if self._starts[i].time() == at.time()
            and (not by_weekday or self._starts[i].weekday() == at.weekday())
        ]


def mark_of_windows(windows: Sequence[Window], versions: Mapping[dt.datetime, str]) -> str:
    """Return a fingerprint of some windows and the versions of their profiles, 16 characters."""
    text = ";".join(f"{w.start.isoformat()}={versions.get(w.start, '')}" for w in windows)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
