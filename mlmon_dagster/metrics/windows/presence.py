"""When a model usually gets predictions: hours of the week or weekdays, learnt from its windows.

Three weeks tell a usual pause from a fault: of a place in the week that is served in nine weeks of
ten, two of three are empty by chance three times in a hundred. Twelve weeks are looked back over,
of which three may be exceptions: a spring with Easter Monday and two bank holidays has three empty
Mondays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mlmon_dagster.metrics import Flags, Floats, Ints

MIN_WEEKS = 3
WEEKS = 12
SHARE = 0.7
_USUAL = 0.9  # quantile of how long a pause lasts: of twelve, one outage among them does not count
_HOUR = 3600.0
_MIN_DAYS = 5  # from which on waits tell what is usual
_DAYS = 28  # that are looked back over
_DAYS_OF_WEEK, _SATURDAY = 7, 5
_MIN_TOLD = 2  # windows of a baseline that tell whether a place of the week has rows
_TIMES, _LEAST = 2.0, 3  # a silence is unusual from twice the longest usual wait on, in windows


def learn_limit(waits: Floats, days: Ints, window: float, most: float) -> float:
    """Say after how long a silence is longer than usual.

    The longest wait of each day is looked at, and of days so many that a single outage among them
    does not count. The limit is twice that in whole windows, and at least three.

    Args:
        waits: Expected time between the last event that was known and the moment at which the next
            rows came, in seconds, (N,).
        days: The day of each, ascending, (N,). The newest 28 with a wait are looked at.
        window: Length of a window in seconds.
        most: The limit that is never exceeded, in seconds, and that holds below five days.

    Returns:
        Seconds, from ``3 * window`` (or ``most``, if shorter) to ``most``.

    Example:
        >>> learn_limit(np.full(6, 5400.0), np.arange(6), 3600.0, 93600.0) / 3600
        3.0
        >>> learn_limit(np.full(4, 5400.0), np.arange(4), 3600.0, 93600.0) / 3600
        26.0
    """
    known, row = np.unique(days, return_inverse=True)
    if len(known) < _MIN_DAYS:
        return most
    longest = np.zeros(len(known))
    np.maximum.at(longest, row, waits)
    usual = float(np.quantile(longest[-_DAYS:], _USUAL, method="lower"))
    return min(max(math.ceil(_TIMES * usual / window), _LEAST) * window, most)


def expected_windows(
    places: Ints,
    weeks: Ints,
    served: Flags,
    teaches: Flags | None = None,
    before: Flags | None = None,
) -> Flags:
    """Say for each window whether its place in the week usually has predictions.

    A window is judged by earlier weeks alone, the newest `WEEKS` in which anything came: a week
    without a single event says nothing about weekdays. Its place is usually empty if it was served
    in less than `SHARE` of them and one more week, of at least `MIN_WEEKS`, and not in each of the
    newest `MIN_WEEKS`, since service on a new day counts once it is there. The one more, in which
    it would be served, lets one outage of the first weeks pass. Where fewer weeks are known, places
    are usually empty that the baseline never has rows in, see `served_places`; all others are
    expected.

    Args:
        places: Place in the week of each window, (W,), such as the weekday, from 0.
        weeks: Its week, (W,), ascending.
        served: Whether it has predictions, (W,).
        teaches: Which windows are learnt from, (W,); all by default. Holidays, and windows before
            the first prediction, do not say what is usual.
        before: Whether the baseline has rows in a place, of all places, (P,); None if it does not
            tell.

    Returns:
        (W,), true where predictions are expected; empty for no windows.

    Example:
        >>> week, day = np.repeat(np.arange(5), 7), np.tile(np.arange(7), 5)
        >>> expected_windows(day, week, day < 5).reshape(5, 7)[[0, 4]].astype(int).tolist()
        [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]]
    """
    n_places = int(places.max(initial=-1)) + 1
    if before is not None:
        n_places = max(n_places, len(before))
    known = np.ones(len(places), dtype=bool) if teaches is None else teaches
    seen, came = _weekly(places, weeks, known, served, n_places)
    active = np.flatnonzero(came.any(axis=1))
    row = np.unique(weeks, return_inverse=True)[1]
    expected = np.ones((len(seen), n_places), dtype=bool)
    for k in range(len(seen)):
        past = active[active < k][-WEEKS:]
        n, k_served = seen[past].sum(axis=0), came[past].sum(axis=0)
        begins = came[past[-MIN_WEEKS:]].sum(axis=0) >= MIN_WEEKS
        is_usual = (k_served + 1 >= SHARE * (n + 1)) | begins
        unknown = np.ones(n_places, dtype=bool)
        if before is not None:
            unknown[: len(before)] = before
        expected[k] = np.where(n < MIN_WEEKS, unknown, is_usual)
    found: Flags = expected[row, places]
    return found


def served_places(places: Ints, weeks: Ints, n_places: int) -> Flags | None:
    """Say in which places of the week a baseline has rows at all.

    A place, such as the hour of a weekday, is told by its own windows if there are two of them at
    least, from the first row to the last. Where there are fewer, the same hour tells: of all days
    of the same kind (Monday to Friday, or the weekend) if those are two or more, else of any day.
    What fewer than two windows tell is expected.

    Args:
        places: Place in the week of each window with rows, (W,), once each.
        weeks: Its week, (W,).
        n_places: How many places a week has.

    Returns:
        (P,), or None if the baseline does not tell: of the windows in those places fewer than
        `SHARE` have rows, as in a sample of a few rows.
    """
    if not len(places):
        return None
    filled = np.unique(weeks * n_places + places)
    covered = np.arange(filled[0], filled[-1] + 1)
    # By weekday and hour; of days there is one hour a day.
    shape = (_DAYS_OF_WEEK, n_places // _DAYS_OF_WEEK)
    seen = np.bincount(covered % n_places, minlength=n_places).reshape(shape)
    came = np.bincount(filled % n_places, minlength=n_places).reshape(shape)
    is_weekend = np.arange(_DAYS_OF_WEEK) >= _SATURDAY
    served = np.ones(shape, dtype=bool)
    for weekday in range(_DAYS_OF_WEEK):
        same_kind = is_weekend == is_weekend[weekday]
        # The nearest days that tell come last, and so have the last word.
        for days in (slice(None), same_kind, [weekday]):
            is_told = seen[days].sum(axis=0) >= _MIN_TOLD
            has_rows = came[days].sum(axis=0) > 0
            served[weekday] = np.where(is_told, has_rows, served[weekday])
    if len(filled) < SHARE * seen[served].sum():
        return None
    found: Flags = served.ravel()
    return found


def _weekly(
    places: Ints, weeks: Ints, known: Flags, served: Flags, n_places: int
) -> tuple[Flags, Flags]:
    """Return by week and place whether there was such a window, and whether one was served.

    An hour that a week does not have, since clocks were put forward, is as the hour before it.
    """
    names, row = np.unique(weeks, return_inverse=True)
    seen = np.zeros((len(names), n_places), dtype=bool)
    came, exists = np.zeros_like(seen), np.zeros_like(seen)
    exists[row, places] = True
    seen[row[known], places[known]] = True
    came[row[known & served], places[known & served]] = True
    skipped = ~exists[:, 1:-1] & exists[:, :-2] & exists[:, 2:]
    for values in (seen, came):
        values[:, 1:-1] |= skipped & values[:, :-2]
    return seen, came


@dataclass(frozen=True)
class Pauses:
    """Runs of windows in which nothing was expected, (R,) each.

    Attributes:
        ends: When they ended, in seconds since 1970.
        lengths: How long they were, in seconds.
        gaps: From the last event before one to the first after it, in seconds; infinite if unknown.
    """

    ends: Floats
    lengths: Floats
    gaps: Floats

    def longest_within(self, limit: float, before: float) -> float:
        """Return the longest usual pause that a limit in seconds covers with all its silence.

        Pauses of the same length are looked at together, at least `MIN_WEEKS` that ended before a
        moment; 0 if the limit covers none.
        """
        past = self.ends <= before
        hours, gaps = np.round(self.lengths[past] / _HOUR), self.gaps[past]
        longest = 0.0
        for length in np.unique(hours):
            alike = gaps[hours == length]
            if len(alike) < MIN_WEEKS:
                continue
            if np.quantile(alike, _USUAL, method="lower") >= limit:
                break
            longest = float(length) * _HOUR
        return longest


@dataclass(frozen=True)
class Calendar:
    """Windows that follow each other, and in which of them predictions are expected.

    Attributes:
        edges: Their starts and the end of the last, in seconds since 1970, (W + 1,).
        expected: (W,).
        served: Which of them had predictions, (W,).
        first: Time of the first event of each, NaN if there is none or it is not known, (W,).
        last: Time of the last one.
        holidays: Name of the holiday, by the number of the window that lies on one.
    """

    edges: Floats
    expected: Flags
    served: Flags
    first: Floats
    last: Floats
    holidays: Mapping[int, str] = field(default_factory=dict)

    def count_expected(self, start: Floats, end: Floats) -> Floats:
        """Return the expected seconds between moments, pauses left out; windows ahead count too."""
        reached = np.append(0.0, np.cumsum(np.where(self.expected, np.diff(self.edges), 0.0)))
        found: Floats = np.interp(end, self.edges, reached) - np.interp(start, self.edges, reached)
        return found

    def count_missing(self, start: float, end: float) -> int:
        """Count the whole windows between two moments that were expected and have no rows."""
        is_inside = (self.edges[:-1] >= start) & (self.edges[1:] <= end)
        return int((is_inside & self.expected & ~self.served).sum())

    def is_expected(self, start: float) -> bool:
        """Say whether predictions are expected in the window that starts then."""
        i = self._window(start)
        return i is None or bool(self.expected[i])

    def holiday(self, start: float) -> str:
        """Return the name of the holiday on which a window starts; empty for any other."""
        i = self._window(start)
        return "" if i is None else self.holidays.get(i, "")

    def next_expected(self, start: float) -> float:
        """Return the start of the first window from then on in which predictions are expected."""
        i = int(np.searchsorted(self.edges, start))
        ahead = np.flatnonzero(self.expected[i:])
        return float(self.edges[i + ahead[0]]) if len(ahead) else max(start, float(self.edges[-1]))

    def count(self, start: float, end: float, covered: float) -> float:
        """Count the seconds of a silence.

        Expected time counts whole. A pause, a run of windows in which nothing is expected, counts
        up to ``covered``, the longest usual one that the limit is made for: under a limit of three
        days a weekend counts, and of a weekend with two holidays as much as of any other.
        """
        overlap = np.minimum(self.edges[1:], end) - np.maximum(self.edges[:-1], start)
        inside = np.maximum(overlap, 0.0)
        counted = float(inside[self.expected].sum()) + max(end - start, 0.0) - float(inside.sum())
        run = self._runs[~self.expected]
        paused = np.bincount(run, inside[~self.expected]) if len(run) else np.zeros(0)
        return counted + float(np.minimum(paused, covered).sum())

    def paused(self, start: float, end: float) -> list[tuple[float, float]]:
        """Return the runs of windows without an expectation that overlap a silence, clipped."""
        found = []
        for i, j in self._bounds:
            first, last = max(self.edges[i], start), min(self.edges[j], end)
            if first < last:
                found.append((float(first), float(last)))
        return found

    def holidays_within(self, start: float, end: float) -> list[str]:
        """Return the names of the holidays that overlap a silence, in order."""
        names = [
            name
            for i, name in sorted(self.holidays.items())
            if self.edges[i] < end and self.edges[i + 1] > start
        ]
        return list(dict.fromkeys(names))

    @cached_property
    def pauses(self) -> Pauses:
        """The runs in which nothing came, between windows that were served, holidays apart."""
        before = np.concatenate([[-1], np.maximum.accumulate(np.where(self.served, self._n, -1))])
        after = np.append(self.served.nonzero()[0], len(self.served))
        on_holiday = np.zeros(len(self.served), dtype=bool)
        on_holiday[list(self.holidays)] = True
        ends, lengths, gaps = [], [], []
        for i, j in self._bounds:
            left, right = int(before[i]), int(after[np.searchsorted(after, i)])
            if left < 0 or right < j or right >= len(self.served) or on_holiday[i:j].any():
                continue
            gap = self.first[right] - self.last[left]
            ends.append(self.edges[right + 1])
            lengths.append(self.edges[j] - self.edges[i])
            gaps.append(gap if np.isfinite(gap) else np.inf)
        return Pauses(*(np.array(each, dtype=np.float64) for each in (ends, lengths, gaps)))

    @cached_property
    def _n(self) -> Ints:
        return np.arange(len(self.expected))

    @cached_property
    def _runs(self) -> Ints:
        """Number the stretches of windows that are alike, in order."""
        turns: Ints = np.cumsum(np.diff(self.expected.astype(np.int8), prepend=1) != 0)
        return turns

    @cached_property
    def _bounds(self) -> list[tuple[int, int]]:
        """First window of every pause, and the one after its last."""
        steps = np.diff(self.expected.astype(np.int8), prepend=1, append=1)
        return list(zip(np.flatnonzero(steps < 0), np.flatnonzero(steps > 0), strict=True))

    def _window(self, start: float) -> int | None:
        i = int(np.searchsorted(self.edges, start, side="right")) - 1
        return i if 0 <= i < len(self.expected) else None
