"""Time windows of a model: buckets of its own zone, stored as UTC, keyed as Dagster keys them.

Also which earlier windows one is compared with, and how far its ground truth has arrived.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.baseline import GRAINS, BaselineSpec
from mlmon_dagster.spec.declaration import SHORTEST_CLOSING, Granularity, TimeSpec
from mlmon_dagster.spec.holidays import name_holidays
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.scalars import MAX_HOURLY_WINDOWS

_HOUR = dt.timedelta(hours=1)
_DAY = dt.timedelta(days=1)
_FORMATS: dict[Granularity, str] = {
    "hour": "%Y-%m-%d-%H:%M",
    "day": "%Y-%m-%d",
    "week": "%Y-%m-%d",
    "month": "%Y-%m-%d",
}
_FIRST, _LAST = dt.date(1, 1, 8), dt.date(9998, 12, 31)
MOST_OF_A_VERSION = 366  # windows of a model version to look back over
_WEEK = dt.timedelta(weeks=1)
PLACES: Mapping[Granularity, int] = {"hour": 168, "day": 7}  # of a week, where it has several
FINE = 32  # up to this age of a window a step of its arrivals is one unit; above it, a sixteenth
Maturity = Literal["provisional", "early", "mature", "closed"]


@dataclass(frozen=True, order=True)
class Window:
    """A half-open time bucket ``[start, end)`` in UTC, and its partition key."""

    start: dt.datetime
    end: dt.datetime
    key: str


def window_containing(
    time: TimeSpec, moment: dt.datetime, granularity: Granularity | None = None
) -> Window:
    """Return the window that holds a moment.

    Args:
        time: The model's time settings.
        moment: Any timezone-aware time in the years 1 to 9998, also before ``time.start``.
        granularity: Another granularity than the model's, for roll-ups.

    Raises:
        ValueError: If ``moment`` is naive or outside those years.
    """
    zone, grain = ZoneInfo(time.zone), granularity or time.granularity
    local = _utc(moment).astimezone(zone)
    if not _FIRST <= local.date() <= _LAST:
        raise ValueError(f"{moment.isoformat()} is outside the years 1 to 9998")
    if grain == "hour":
        past_the_hour = dt.timedelta(
            minutes=local.minute, seconds=local.second, microseconds=local.microsecond
        )
        start = _utc(moment) - past_the_hour
        return Window(start, start + _HOUR, _hour_key(start, zone))
    return _calendar_window(_floor(local.date(), grain), grain, zone)


def windows_between(
    time: TimeSpec,
    start: dt.datetime,
    end: dt.datetime,
    granularity: Granularity | None = None,
) -> list[Window]:
    """Return the windows with ``start <= window.start < end``, oldest first.

    Consecutive windows touch, so the starts can be used to place many moments at once.

    Args:
        time: The model's time settings.
        start: Timezone-aware lower bound of window starts, inclusive.
        end: Timezone-aware upper bound of window starts, exclusive.
        granularity: Another granularity than the model's, for roll-ups.
    """
    start, end = _utc(start), _utc(end)
    if start >= end:
        return []
    found = []
    for window in _windows_from(time, start, granularity or time.granularity):
        if window.start >= end:
            break
        if window.start >= start:
            found.append(window)
    return found


def granularity_windows(
    time: TimeSpec, granularity: Granularity, start: dt.datetime, end: dt.datetime
) -> list[Window]:
    """Return every window of another granularity that overlaps ``[start, end)``.

    Unlike `windows_between` this includes the window that ``start`` falls into, so a month of a
    half-covered period is returned whole.
    """
    if _utc(start) >= _utc(end):
        return []
    first = window_containing(time, start, granularity)
    return windows_between(time, first.start, end, granularity)


def window_from_key(time: TimeSpec, key: str) -> Window:
    """Return the window of a partition key.

    Raises:
        ConfigError: If no window of this model has that key.
    """
    zone, grain = ZoneInfo(time.zone), time.granularity
    try:
        if grain == "hour":
            moment = _parse_hour_key(key, zone)
        else:
            moment = _midnight(dt.datetime.strptime(key, _FORMATS[grain]).date(), zone)  # noqa: DTZ007
        window = window_containing(time, moment)
    except (ValueError, OverflowError):
        window = None
    if window is None or window.key != key:
        raise ConfigError(
            f"{key!r} is not the key of a {grain} window in {time.zone}. "
            f"Expected the form {_FORMATS[grain]}, the start of the {grain}."
        )
    return window


def first_window(time: TimeSpec) -> Window:
    """Return the first production window: the one that ``time.start`` lies in.

    A week or month that begins before ``time.start`` holds the events from then on.
    """
    return window_containing(time, _midnight(time.start, ZoneInfo(time.zone)))


def production_end(time: TimeSpec) -> dt.datetime | None:
    """Return the moment at which production windows end, or None if they go on.

    A week or month that ``time.end`` lies in is none of production.
    """
    if time.end is None:
        return None
    return window_containing(time, _midnight(time.end, ZoneInfo(time.zone))).start


def start_of_date(time: TimeSpec, date: str) -> dt.datetime:
    """Return the start of the window that holds the beginning of a local date."""
    local = dt.datetime.combine(dt.date.fromisoformat(date), dt.time(), ZoneInfo(time.zone))
    return window_containing(time, local.astimezone(dt.UTC)).start


def complete_windows(time: TimeSpec, now: dt.datetime) -> list[Window]:
    """Return the production windows that have ended by ``now``, oldest first.

    These are the keys that Dagster's partitions definition with the same start, end, zone and
    granularity lists at that moment.
    """
    last = production_end(time)
    limit = _utc(now) if last is None else min(_utc(now), last)
    windows = windows_between(time, first_window(time).start, limit)
    return [window for window in windows if window.end <= limit]


def check_window_count(time: TimeSpec, now: dt.datetime) -> None:
    """Refuse hourly windows of which there are too many for Dagster.

    Raises:
        ConfigError: If more than 25,000 hourly windows have passed since ``time.start``.
    """
    if time.granularity != "hour":
        return
    limit = production_end(time) or _utc(now)
    count = int((limit - first_window(time).start) / _HOUR)
    if count > MAX_HOURLY_WINDOWS:
        latest = (limit - MAX_HOURLY_WINDOWS * _HOUR).date() + _DAY
        raise ConfigError(
            f"time: {count:,} hourly windows since {time.start} are more than "
            f"{MAX_HOURLY_WINDOWS:,}. Move time.start to {latest} or later, or use days."
        )


def window_date(time: TimeSpec, window: Window) -> str:
    """Return the local date, ``YYYY-MM-DD``, on which a window starts."""
    # Where a day begins with a gap in the clock its start reads 01:00, still of the same date.
    return window.start.astimezone(ZoneInfo(time.zone)).date().isoformat()


def place_in_week(time: TimeSpec, start: dt.datetime) -> tuple[int, int]:
    """Return which of a week's windows one is, and a number of its week.

    Hours and days are those of the model's zone: 0 to 167 from Monday at 00:00, or 0 to 6. Of
    weeks and months there is one place, and each is a week of its own.
    """
    local = start.astimezone(ZoneInfo(time.zone))
    if time.granularity not in PLACES:
        return 0, local.toordinal()
    hour = local.weekday() * 24 + local.hour
    place = hour if time.granularity == "hour" else local.weekday()
    return place, (local.toordinal() - 1) // 7  # the first day of year 1 was a Monday


def holidays_of_windows(time: TimeSpec, windows: Sequence[Window]) -> dict[int, str]:
    """Return the names of holidays by the number of the window, of hours or days, on each."""
    if not time.holidays or not windows or time.granularity not in PLACES:
        return {}
    zone = ZoneInfo(time.zone)
    days = [window.start.astimezone(zone).date() for window in windows]
    names = name_holidays(time.holidays, days[0], days[-1])
    return {i: names[day] for i, day in enumerate(days) if day in names}


def _windows_from(time: TimeSpec, start: dt.datetime, grain: Granularity) -> Iterator[Window]:
    zone, window = ZoneInfo(time.zone), window_containing(time, start, grain)
    if grain == "hour":
        while True:
            yield window
            begin = window.end
            window = Window(begin, begin + _HOUR, _hour_key(begin, zone))
    day = _floor(window.start.astimezone(zone).date(), grain)
    while True:
        window = _calendar_window(day, grain, zone)
        # A zone that crossed the date line skipped a whole day: that day has no duration.
        if window.start < window.end:
            yield window
        day = _next(day, grain)


def _calendar_window(day: dt.date, grain: Granularity, zone: ZoneInfo) -> Window:
    return Window(_midnight(day, zone), _midnight(_next(day, grain), zone), day.isoformat())


def _floor(day: dt.date, grain: Granularity) -> dt.date:
    if grain == "week":
        return day - day.weekday() * _DAY
    return day.replace(day=1) if grain == "month" else day


def _next(day: dt.date, grain: Granularity) -> dt.date:
    if grain == "month":
        return (day.replace(day=1) + 32 * _DAY).replace(day=1)
    return day + (7 if grain == "week" else 1) * _DAY


def _midnight(day: dt.date, zone: ZoneInfo) -> dt.datetime:
    # fold=0 gives the first of two midnights, and the end of the gap where there is none.
    return dt.datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(dt.UTC)


def _hour_key(start: dt.datetime, zone: ZoneInfo) -> str:
    local = start.astimezone(zone)
    return local.strftime(_FORMATS["hour"] + ("%z" if local.fold else ""))


def _parse_hour_key(key: str, zone: ZoneInfo) -> dt.datetime:
    plain = len("2013-04-01-00:00")
    if len(key) > plain:
        return dt.datetime.strptime(key, _FORMATS["hour"] + "%z")  # noqa: DTZ007  (it has %z)
    return dt.datetime.strptime(key, _FORMATS["hour"]).replace(tzinfo=zone)


def _utc(moment: dt.datetime) -> dt.datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; pass a timezone-aware datetime")
    return moment.astimezone(dt.UTC)


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


def begin_reading(start: dt.datetime, end: dt.datetime, n_windows: int) -> dt.datetime:
    """Return from when on is read what a window is judged by, if that is of several windows.

    Args:
        start: Of the window.
        end: Of the window.
        n_windows: How many, its own included.
    """
    return start if n_windows == 1 else start - (n_windows - 1) * (end - start) - _HOUR


def actual_coverage(n: int, n_actual: int) -> float | None:
    """Return the share of a window's predictions with ground truth, None for an empty window."""
    return n_actual / n if n else None


def age_unit(time: TimeSpec) -> dt.timedelta:
    """Return the unit in which the ages of ground truth are counted."""
    return _HOUR if time.granularity == "hour" else _DAY


def age_step(age: float) -> int:
    """Return the end of the step that an age falls into: the grid on which arrivals are counted.

    Args:
        age: In units since the window's end; negative ones count as 0.

    Returns:
        0, 1, 2 ... 32, 34 ... 64, 68 ... 128 and so on: 16 steps for each doubling.

    Example:
        >>> [age_step(age) for age in (-3, 0.2, 32, 33, 64.5, 1000)]
        [0, 1, 32, 34, 68, 1024]
    """
    whole = max(math.ceil(age), 0)
    width = step_width(whole)
    return -(-whole // width) * width


def step_width(age: int) -> int:
    """Return how many units the step has that ends at an age, or that a whole age falls into."""
    return 1 if age <= FINE else 1 << ((age - 1).bit_length() - 5)


@dataclass(frozen=True)
class EarlyAge:
    """An age at which the labelled rows of windows are a random part of those that ever come.

    Attributes:
        age: Of the grid of `age_step`, in units.
        fewest: Labelled rows from which a window of that age is judged.
        most: Labelled rows up to which a bias that was not ruled out is small beside an interval.
        least_share: Share of the predictions that windows had ground truth of at that age, at
            least; a window with less or more than any before it is not like them.
        most_share: The same at most.
    """

    age: int
    fewest: int
    most: int
    least_share: float
    most_share: float


@dataclass(frozen=True)
class TruthTiming:
    """How late a model's ground truth comes, as far as it was learnt; what is declared wins.

    Attributes:
        due: Age of a window, from its end, by which nearly all of every class has come.
        least_share: Share of its predictions that must have ground truth by then; with less, the
            rest is late and may be a special part of it.
        closes: Age at which what ever comes has long come.
        early: Ages up to `due` at which what is missing is missing at random, ascending.
    """

    due: dt.timedelta | None = None
    least_share: float = 0.0
    closes: dt.timedelta | None = None
    early: tuple[EarlyAge, ...] = ()


UNKNOWN_TIMING = TruthTiming()
_CLOSES_UNLEARNT = dt.timedelta(days=365)


def closing_age(spec: ModelSpec, timing: TruthTiming) -> dt.timedelta:
    """Return how long after its end a window waits for ground truth.

    It is what `actuals.closed_after` says; else twice as long as ground truth was seen to take,
    and at least 90 days; until that is learnt a year, but no longer than rows are kept.
    """
    if spec.actuals.closed_after is not None:
        return spec.actuals.closed_after
    learnt = _CLOSES_UNLEARNT if timing.closes is None else timing.closes
    kept = spec.retention.production
    return max(SHORTEST_CLOSING, learnt if kept is None else min(learnt, kept))


def due_age(spec: ModelSpec, timing: TruthTiming) -> dt.timedelta | None:
    """Return the age at which a window's ground truth should be there; None if nobody knows yet."""
    if spec.actuals.expected_within is not None:
        return spec.actuals.expected_within + truth_slack(spec)
    return timing.due


def truth_slack(spec: ModelSpec) -> dt.timedelta:
    """Return how long after it is known ground truth is waited for: the events' lateness.

    Unless that is declared it is two windows at most: who counts by the hour does not wait days.
    """
    declared, is_said = spec.time.allowed_lateness, "allowed_lateness" in spec.time.model_fields_set
    return declared if is_said else min(declared, 2 * GRAINS[spec.time.granularity])


def maturity_of(
    spec: ModelSpec,
    window: Window,
    n: int,
    n_actual: int,
    now: dt.datetime,
    timing: TruthTiming = UNKNOWN_TIMING,
) -> Maturity:
    """Tell whether a window's realized performance may be trusted yet.

    - ``provisional``: the window is still running, or ground truth is still expected;
    - ``early``: it is, and what has come is enough, about as much as windows had at that age, and
      what was missing of those at that age was missing at random (`EarlyAge`);
    - ``mature``: all of it has arrived, or the declared `actuals.min_coverage`; or it should have
      arrived by now, at least ``actuals.min_rows`` did, and (unless the coverage is declared) about
      as much as usual: a window whose ground truth is late may lack a special part of it;
    - ``closed``: nobody waits for what comes later, and it does not change the window any more
      (`closes_at`).

    A model without ground truth has nothing to wait for: its windows are mature once they end.

    Args:
        spec: The monitored model.
        window: The window in question.
        n: Its predictions that ground truth is expected for, 0 or more.
        n_actual: Those of them with ground truth, 0 to ``n``.
        now: The present moment, timezone-aware.
        timing: How late ground truth comes, as learnt.
    """
    if now < window.end:
        return "provisional"
    if now >= window.end + closing_age(spec, timing):
        return "closed"
    declared = spec.actuals
    share = n_actual / n if n else 0.0
    enough = 1.0 if declared.min_coverage is None else declared.min_coverage
    if not spec.has_actuals or (n and share >= enough):
        return "mature"
    due = due_age(spec, timing)
    if due is None or n_actual < declared.min_rows:
        return "provisional"
    if now < window.end + due:
        age = (now - window.end) / age_unit(spec.time)
        return "early" if _is_random_part(timing, age, n, n_actual) else "provisional"
    in_line = declared.min_coverage is not None or share >= timing.least_share
    return "mature" if in_line else "provisional"


def name_wait(
    spec: ModelSpec,
    window_end: dt.datetime,
    n_actual: int,
    now: dt.datetime,
    timing: TruthTiming,
) -> str:
    """Name what a window waits for whose ground truth is not judged yet.

    Returns:
        ``arrival_unknown``: nobody knows how late it comes; ``labels_still_coming``: it is not due;
        ``labels_late``: more was due; ``no_actuals``: some was due, and there is none.
    """
    due = due_age(spec, timing)
    if due is None:
        return "arrival_unknown"
    if now < window_end + due:
        return "labels_still_coming"
    return "labels_late" if n_actual else "no_actuals"


def _is_random_part(timing: TruthTiming, age: float, n: int, n_actual: int) -> bool:
    """Tell whether a window may be judged by what it has: at the steps before and after its age."""
    known = {early.age: early for early in timing.early}
    until = age_step(age)
    since = until if until <= age else until - step_width(until)
    before, after = known.get(since), known.get(until)
    if before is None or after is None:
        return False
    is_enough = max(before.fewest, after.fewest) <= n_actual <= min(before.most, after.most)
    return is_enough and before.least_share <= n_actual / n <= after.most_share


def closes_at(
    spec: ModelSpec,
    window_end: dt.datetime,
    first_input_at: dt.datetime | None,
    timing: TruthTiming = UNKNOWN_TIMING,
) -> dt.datetime:
    """Return when a window is frozen: what arrives later is stored and counted, not computed.

    Args:
        spec: The monitored model.
        window_end: The window's end.
        first_input_at: When its first rows came; a history that is imported later has as much
            time for its ground truth as one that was watched live.
        timing: How late ground truth comes, as learnt.
    """
    return max(window_end, first_input_at or window_end) + closing_age(spec, timing)


def is_imported(
    spec: ModelSpec,
    window_end: dt.datetime,
    first_input_at: dt.datetime | None,
    monitored_from: dt.datetime | None,
) -> bool:
    """Tell whether a window's rows came so long after its end that nobody could have been told.

    A week, or two windows, beyond the declared lateness is an outage of whatever runs this: what
    is computed after it is late news. What came later than that was imported.

    Args:
        spec: The monitored model.
        window_end: The window's end.
        first_input_at: When its first rows came; None if none ever did.
        monitored_from: When a model that began with a history got its first rows: what had ended
            by then belongs to that history. None for a model that was watched from its beginning.
    """
    if monitored_from is not None and window_end <= monitored_from:
        return True
    return first_input_at is not None and first_input_at > window_end + _longest_outage(spec)


def monitored_from(
    spec: ModelSpec, first_end: dt.datetime, first_input_at: dt.datetime
) -> dt.datetime | None:
    """Return when a model that began with a history got its first rows; None without a history.

    Args:
        spec: The monitored model.
        first_end: The end of its first window with rows.
        first_input_at: When the first rows of any window came.
    """
    began_late = first_input_at > first_end + _longest_outage(spec)
    return first_input_at if began_late else None


def _longest_outage(spec: ModelSpec) -> dt.timedelta:
    length = max(dt.timedelta(days=7), 2 * GRAINS[spec.time.granularity])
    return length + spec.time.allowed_lateness
