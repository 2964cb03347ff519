"""Days that a person names, as windows of a model."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
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
    spec: ModelSpec, first: dt.date | None, last: dt.date | None, now: dt.datetime
) -> tuple[Window, ...]:
    """Return the windows of a period that are over, oldest first; an end left out is open.

    Raises:
        ConfigError: If there are none.
    """
    start, end = moments_of(spec, first, last)
    complete = complete_windows(spec.time, now)
    windows = tuple(
        w for w in complete if (not start or w.start >= start) and (not end or w.end <= end)
    )
    if not windows:
        known = window_range(complete) if complete else "none yet"
        raise ConfigError(
            f"Model {spec.model!r} has no complete window from {first or 'its start'} to "
            f"{last or 'now'}; complete by {now.isoformat(timespec='seconds')}: {known}."
        )
    return windows


def window_range(windows: Sequence[Window]) -> str:
    """Name the first and the last of some windows."""
    return f"{windows[0].key} to {windows[-1].key}"
