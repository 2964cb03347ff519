"""How wide the bands of estimates must be by a model's own record: claims against what came true.

A band says where the realized value will lie while scores mean what they meant in the baseline.
Whether they do, no input tells; the windows whose ground truth has come do. So where one of the
newest 30 of these lay outside, a later window's band is made a fifth wider than the farthest
needed. Were they alike, one more would lie farther than all of them with a chance of one in 31
(split conformal prediction; Vovk, Gammerman and Shafer, 2005). They are the newest, since the law
wanders (Gibbs and Candes, 2021, move the level instead), and the fifth is for where it wanders
next. A claim that held for all of them is kept as it is.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlmon_dagster.metrics.frames import MetricSample
from mlmon_dagster.spec.metric_registry import METRICS
from mlmon_dagster.spec.tasks import estimated

VERSION = "learnt-2"
RECORD = 30  # newest windows with ground truth that a width is learnt from
MARGIN = 1.2  # as many times as wide as they needed
_TINY = 1e-12


class LearntWidth(NamedTuple):
    """What a record asks of a band.

    Attributes:
        factor: As many times as wide as claimed, at least 1.
        n: Windows that it is learnt from, at most 30.
    """

    factor: float
    n: int


def learnt_width(record: Sequence[MetricSample]) -> LearntWidth:
    """Learn a width from residuals of earlier windows.

    Args:
        record: Rows of ``<metric>_residual``, oldest first: estimated - realized, and its band as
            claimed. Rows without a value are left out. The caller leaves out windows whose
            ground truth was not due yet.

    Returns:
        A fifth more than the factor by which all bands of the newest 30 would have held; 1 if they
        held, and without windows: few hold by chance, so that none is made narrower.

    Example:
        >>> row = {"value": -0.06, "lower": -0.10, "upper": -0.02}
        >>> round(learnt_width([row]).factor, 3), learnt_width([])
        (1.8, LearntWidth(factor=1.0, n=0))
    """
    needed = [_needed(row) for row in record if np.isfinite(row["value"])][-RECORD:]
    return LearntWidth(factor_of(needed), len(needed))


def factor_of(needed: Sequence[float]) -> float:
    """Return the factor for bands of which the newest would just have held by these factors."""
    most = max(needed, default=0.0)
    return MARGIN * most if most > 1 else 1.0


def _needed(row: MetricSample) -> float:
    """Return by which factor a band would just have held."""
    value = row["value"]
    claimed = value - row["lower"] if value > 0 else row["upper"] - value
    return abs(value) / max(claimed, _TINY)


def reaching(metric: str, row: MetricSample, width: LearntWidth) -> MetricSample:
    """Return an estimate's row with ends as many times as far from it, within the metric's range.

    Args:
        metric: What is estimated.
        row: Of ``estimated_<metric>``.
        width: How wide it must be; the row itself if no wider than claimed.
    """
    if width.factor == 1:
        return row
    value, info = row["value"], METRICS[metric]
    lower = max(value - width.factor * (value - row["lower"]), info.low)
    upper = min(value + width.factor * (row["upper"] - value), info.high)
    version = f"{row['method_version']}+{VERSION}"
    return {**row, "lower": lower, "upper": upper, "method_version": version}


def widened(
    estimates: Sequence[MetricSample], residuals: Sequence[MetricSample], wait: dt.timedelta
) -> list[tuple[MetricSample, LearntWidth]]:
    """Widen the bands of one metric's estimates, each by the record before it.

    Args:
        estimates: Rows of ``estimated_<metric>``.
        residuals: Rows of ``<metric>_residual`` that have a value, oldest first, also of the 30
            windows before; all of one dataset.
        wait: How long ground truth takes: windows that started less than so long before an
            estimate's are not part of its record, since they had none when it was made.
    """
    starts = [row["window_start"] for row in residuals]
    found = []
    for row in estimates:
        until = bisect_right(starts, row["window_start"] - wait)
        width = learnt_width(residuals[max(until - RECORD, 0) : until])
        metric = row["metric"].removeprefix(estimated(""))
        found.append((reaching(metric, row, width), width))
    return found
