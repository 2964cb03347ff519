"""Days that a person names, as windows of a model."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec, Window, complete_windows


def moments_of(
    spec: ModelSpec, first: dt.date | None, last: dt.date | None
) -> tuple[dt.datetime | None, dt.datetime | None]:
    """Return the UTC start of the first day and the UTC end of the last, in the model's zone."""
    zone = ZoneInfo(spec.time.zone)
    start = dt.datetime.combine(first, dt.time(), zone).astimezone(dt.UTC) if first else None
    if last is None:
        return start, None
    after = last + dt.timedelta(days=1)
    return start, dt.datetime.combine(after, dt.time(), zone).astimezone(dt.UTC)


def complete_period(
    spec: ModelSpec, first: dt.date, last: dt.date, now: dt.datetime
) -> list[Window]:
    """Return the windows of a period that are over, oldest first.

    Raises:
        ConfigError: If there are none.
    """
    start, end = moments_of(spec, first, last)
    assert start is not None
    assert end is not None
    windows = [w for w in complete_windows(spec.time, now) if w.start >= start and w.end <= end]
    if not windows:
        raise ConfigError(
            f"Model {spec.model!r} has no complete window from {first} to {last}; it begins on "
            f"{spec.time.start} and it is {now.isoformat(timespec='seconds')}."
        )
    return windows
