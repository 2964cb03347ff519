"""Time windows of a model: buckets of its own zone, stored as UTC, keyed as Dagster keys them.

A day is a calendar day of the zone, so it has 23 or 25 hours when clocks change. All functions
are pure: the present moment is an argument.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.model import MAX_HOURLY_WINDOWS, Granularity, TimeSpec

_HOUR = dt.timedelta(hours=1)
_DAY = dt.timedelta(days=1)
_FORMATS: dict[Granularity, str] = {
    "hour": "%Y-%m-%d-%H:%M",
    "day": "%Y-%m-%d",
    "week": "%Y-%m-%d",
    "month": "%Y-%m-%d",
}
_FIRST, _LAST = dt.date(1, 1, 8), dt.date(9998, 12, 31)


@dataclass(frozen=True, order=True)
class Window:
    """A half-open time bucket ``[start, end)`` in UTC, and its partition key."""

    start: dt.datetime
    end: dt.datetime
    key: str


def key_format(granularity: Granularity) -> str:
    """Return the ``strftime`` format of partition keys, the one Dagster uses by default."""
    return _FORMATS[granularity]


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
    """Return the moment at which production windows end, or None if they go on."""
    return None if time.end is None else _midnight(time.end, ZoneInfo(time.zone))


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
    """Refuse hourly windows once there are more of them than Dagster copes with.

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
