"""Are the rows whose actual has arrived like the rest, and early actuals like late ones?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import special

from mlmon_dagster.metrics.arrays import Ints
from mlmon_dagster.metrics.frames import MetricRows, table_rows
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.metrics.performance.loss_means import mean_of
from mlmon_dagster.metrics.performance.roc import MIN_RARER, roc_auc
from mlmon_dagster.metrics.statistics import ColumnStatistics


def coverage_bias(cells: pd.DataFrame, outputs: Sequence[tuple[Ints, Ints]]) -> MetricRows:
    """Chance that a row with an actual has a higher output than one without, less a half.

    0 if actuals arrive regardless of what the model said; above 0 if rows with high outputs get
    theirs first, so that what is known so far is about them. The interval is DeLong's.

    Args:
        cells: C cells.
        outputs: For one or more ordered outputs (one score; the decision for each class): rows
            without and with an actual per ascending bin, both (C, B). Of several the largest bias
            counts, with intervals at 95 % for all of them together (Bonferroni).

    Returns:
        Rows of ``actual_coverage_bias``, -1/2 to 1/2, n = rows with an actual; `reason` of
        a NaN: no_actuals, fully_covered (no row is without an actual), few_rows (under 10 on a
        side).
    """
    without, with_actual = outputs[0]
    n0, n1 = without.sum(axis=1), with_actual.sum(axis=1)
    reason = np.select(
        [n1 == 0, n0 == 0, np.minimum(n0, n1) < MIN_RARER],
        ["no_actuals", "fully_covered", "few_rows"],
        "",
    )
    found = [roc_auc(*pair) for pair in outputs]
    value = np.array([area.value - 0.5 for area in found])
    place = np.argmax(np.abs(np.nan_to_num(value)), axis=0)
    widen = special.ndtri(1 - 0.025 / len(outputs)) / Z95
    lower = np.array([area.value - 0.5 - widen * (area.value - area.lower) for area in found])
    upper = np.array([area.value - 0.5 + widen * (area.upper - area.value) for area in found])
    at = (place, np.arange(len(cells)))
    shown = np.where(reason == "", value[at], np.nan)
    return table_rows(
        cells, "actual_coverage_bias", shown, np.maximum(lower[at], -0.5),
        np.minimum(upper[at], 0.5), n1, reason, "delong-1",
    )  # fmt: skip


def early_actual_gap(early: ColumnStatistics, late: ColumnStatistics) -> MetricRows:
    """Mean loss of rows whose actual came early, less that of rows whose actual came late.

    Early is within the median lag of the baseline's actuals. Below 0: the early ones flatter. The
    interval is Welch's.

    Returns:
        Rows of ``early_actual_gap``, n = rows of both; few_rows under 10 on a side.
    """
    a, b = mean_of(early), mean_of(late)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total = a.error**2 + b.error**2
        degrees = total**2 / (a.error**4 / (a.n - 1) + b.error**4 / (b.n - 1))
        half = special.stdtrit(np.maximum(np.nan_to_num(degrees, nan=1), 1), 0.975) * np.sqrt(total)
    n = a.n + b.n
    reason = np.select([n == 0, np.minimum(a.n, b.n) < MIN_RARER], ["no_actuals", "few_rows"], "")
    value = np.where(reason == "", a.value - b.value, np.nan)
    return table_rows(
        early.cells, "early_actual_gap", value, value - half, value + half, n, reason, "welch-1"
    )
