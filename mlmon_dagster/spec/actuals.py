"""When ground truth is expected, and which predictions never get any."""

from __future__ import annotations

import datetime as dt

from pydantic import Field

from mlmon_dagster.spec.scalars import Declared, Duration


class ActualsPolicy(Declared):
    """When ground truth is expected, and when a window is closed."""

    expected_within: Duration = dt.timedelta(days=1)
    closed_after: Duration = dt.timedelta(days=90)
    min_coverage: float = Field(default=0.9, gt=0, le=1)
    min_rows: int = Field(default=30, ge=1)
    no_actual_when: str | None = None
    unmatched_after: Duration = dt.timedelta(days=90)
