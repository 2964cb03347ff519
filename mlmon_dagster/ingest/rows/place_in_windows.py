"""Place many events in their windows at once."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.spec import TimeSpec, Window, window_containing, window_date, windows_between

Times = NDArray[np.datetime64]
_GAP = np.timedelta64(40, "D")  # longer than any window


@dataclass(frozen=True)
class Placed:
    """The windows of n events.

    Attributes:
        windows: The distinct windows, ascending.
        positions: Shape (n,), the index into ``windows`` of each event.
    """

    windows: tuple[Window, ...]
    positions: NDArray[np.int64]

    def starts(self) -> Times:
        """Return the window start of each event, UTC microseconds."""
        return as_times([w.start for w in self.windows])[self.positions]

    def dates(self, time: TimeSpec) -> NDArray[np.object_]:
        """Return the local date of the window's start of each event, ``YYYY-MM-DD``."""
        names = np.array([window_date(time, w) for w in self.windows], dtype=object)
        found: NDArray[np.object_] = names[self.positions]
        return found


def place(time: TimeSpec, moments: Times) -> Placed:
    """Find the window of each moment; right also where clocks change.

    Args:
        time: The model's time settings.
        moments: UTC microseconds in the years 1 to 9998, none missing.
    """
    if not len(moments):
        return Placed((), np.zeros(0, dtype=np.int64))
    # Runs of near days: one stray event of another century must not list all windows between.
    days = np.unique(moments.astype("datetime64[D]"))
    breaks = np.flatnonzero(np.diff(days) > _GAP) + 1
    candidates: list[Window] = []
    for run in np.split(days, breaks):
        first = window_containing(time, _utc(run[0])).start
        candidates += windows_between(time, first, _utc(run[-1]) + dt.timedelta(days=1))
    edges = as_times([w.start for w in candidates])
    found = np.searchsorted(edges, moments, side="right") - 1
    used, positions = np.unique(found, return_inverse=True)
    return Placed(tuple(candidates[i] for i in used), positions.astype(np.int64))


def as_times(moments: list[dt.datetime]) -> Times:
    """Return aware datetimes as UTC microseconds of numpy."""
    naive = [m.astimezone(dt.UTC).replace(tzinfo=None) for m in moments]
    return np.array(naive, dtype="datetime64[us]")


def _utc(day: np.datetime64) -> dt.datetime:
    moment: dt.datetime = day.astype("datetime64[us]").item()
    return moment.replace(tzinfo=dt.UTC)
