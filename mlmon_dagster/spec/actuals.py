"""When ground truth is expected, and which predictions never get any."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from pydantic import Field

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.scalars import Declared, Duration

if TYPE_CHECKING:
    from mlmon_dagster.spec.model import ModelSpec


class ActualsPolicy(Declared):
    """When ground truth is expected, and when a window is closed."""

    expected_within: Duration = dt.timedelta(days=1)
    closed_after: Duration = dt.timedelta(days=90)
    min_coverage: float = Field(default=0.9, gt=0, le=1)
    min_rows: int = Field(default=30, ge=1)
    no_actual_when: str | None = None
    unmatched_after: Duration = dt.timedelta(days=90)


def no_actual_problem(spec: ModelSpec) -> str | None:
    """Say what is wrong with ``no_actual_when``; None if nothing is."""
    text = spec.actuals.no_actual_when
    if text is None:
        return None
    # The parser reads whole specs, so it is imported once they exist.
    from mlmon_dagster.spec.predicate_parser import parse_predicate, predicate_columns

    columns = predicate_columns(spec)
    for role in ("actual", "actual_time", "outcome"):  # known only where there is ground truth
        columns.pop(role, None)
    try:
        parse_predicate(text, columns, spec.time.zone)
    except ConfigError as error:
        return str(error)
    return None
