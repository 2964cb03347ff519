"""Days that a person names, as windows of a model."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

from mlmon_dagster.spec import ModelSpec


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
