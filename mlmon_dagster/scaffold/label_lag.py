"""How late ground truth was in the files that a spec is written from."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from mlmon_dagster.scaffold.roles import Roles
from mlmon_dagster.scaffold.sample import moments_of
from mlmon_dagster.spec.scalars import format_duration

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 100  # rows of ground truth with a time that tell a lag
NEARLY_ALL = 0.97  # of the slower class, by which a window is to be judged
_FEWEST_OF_CLASS, _MOST_CLASSES = 20, 10
_DAY, _HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)


@dataclass(frozen=True)
class LabelLag:
    """How long after their predictions ground truth was known.

    Attributes:
        median: Of all rows.
        late: By then 95 % of the slower class was known.
        expected_within: By then nearly all of it was, in whole days, or hours below two days.
        slower: The class that is known last, if classes differ; else empty.
    """

    median: dt.timedelta
    late: dt.timedelta
    expected_within: dt.timedelta
    slower: str = ""

    def text(self) -> str:
        """Return the lines of the spec."""
        seen = f"median {_rounded(self.median)}, 95 %"
        seen += f" of {self.slower}" if self.slower else ""
        return (
            f"actuals: {{expected_within: {format_duration(self.expected_within)}}}"
            f"  # seen: {seen} within {_rounded(self.late)}; without the line it is learnt"
        )


def measure_label_lag(events: pa.Table, truth: pa.Table, roles: Roles) -> LabelLag | None:
    """Measure how late ground truth was known, in a sample.

    Predictions so new that the slowest ground truth could still be missing are left out, if enough
    are left: of those only the fast ones are known.

    Args:
        events: Predictions.
        truth: Rows with ground truth; the same table where it is in the predictions.
        roles: Of both.

    Returns:
        None without times of ground truth, with fewer than 100 of them, or if they are not after
        the predictions: then they are not when it was known.
    """
    found = _lags(events, truth, roles)
    if found is None or len(found) < FEWEST:
        return None
    lag = (found["known"] - found["at"]).dt.total_seconds()
    if (lag < 0).mean() > 0.01 or found["known"].dt.floor("D").nunique() < 3:
        return None
    settled = found["at"] <= found["at"].max() - dt.timedelta(seconds=float(lag.max()))
    if settled.sum() >= FEWEST:
        found, lag = found[settled], lag[settled]
    groups = lag.groupby(found["actual"])
    sizes = groups.size()
    slow = groups.quantile(0.95)[sizes >= _FEWEST_OF_CLASS]
    slower, late = "", float(lag.quantile(0.95))
    mine = lag
    if 2 <= len(slow) <= _MOST_CLASSES and slow.max() > 1.25 * slow.min():
        slower, late = str(slow.idxmax()), float(slow.max())
        mine = groups.get_group(slow.idxmax())
    waited = max(_duration(float(mine.quantile(NEARLY_ALL))), _HOUR)
    unit = _DAY if waited > 2 * _DAY else _HOUR
    return LabelLag(
        _duration(float(lag.median())),
        _duration(late),
        math.ceil(waited / unit) * unit,
        slower,
    )


def _duration(seconds: float) -> dt.timedelta:
    return dt.timedelta(seconds=seconds)


def _lags(events: pa.Table, truth: pa.Table, roles: Roles) -> pd.DataFrame | None:
    wanted = ("prediction_id", "event_time", "actual", "actual_time")
    if any(role not in roles.found for role in wanted):
        return None
    keys = list(roles.found["prediction_id"].columns)
    at, actual, known = (roles.found[role].columns[0] for role in wanted[1:])
    if not {*keys, at} <= {*events.column_names} or not {*keys, actual, known} <= {
        *truth.column_names
    }:
        return None
    import pandas as pd

    left = events.select(keys).to_pandas().assign(at=moments_of(events.column(at)))
    right = truth.select(keys).to_pandas()
    right = right.assign(
        actual=truth.column(actual).to_pandas(), known=moments_of(truth.column(known))
    )
    try:
        both = pd.merge(left, right.dropna(), on=keys)
    except ValueError:  # an id of another type than here
        return None
    return both.dropna(subset=["at", "known", "actual"])


def _rounded(lag: dt.timedelta) -> str:
    """Write a lag with two digits, in minutes, hours or days."""
    for unit, name in ((_DAY, "d"), (_HOUR, "h")):
        if lag >= 2 * unit:
            return f"{lag / unit:.0f} {name}"
    return f"{lag / dt.timedelta(minutes=1):.0f} min"
