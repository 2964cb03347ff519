"""What came of the predictions: the mean outcome, and what the decisions were worth.

The expected value is the mean over rows of the declared value of their cell of the table of
decision by actual, as in cost-sensitive learning (Elkan, 2001).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlmon_dagster.metrics.binnings import label_counts
from mlmon_dagster.metrics.frames import MetricRows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import rate
from mlmon_dagster.metrics.performance.loss_means import mean_rows, t_factor
from mlmon_dagster.metrics.statistics import ColumnStatistics


def business_metrics(
    outcome: ColumnStatistics | None,
    confusion: ColumnStatistics | None,
    costs: Mapping[str, float] | None,
) -> pd.DataFrame:
    """Mean outcome and expected value per cell.

    Args:
        outcome: The outcomes as a loss column, over C cells; None if the model logs none.
        confusion: Predictions by actual of a binary classifier, over C' cells; None without.
        costs: Cost of a row by what was predicted and came true (tp, fp, fn, tn), in any unit, a
            gain below 0; without it no expected_value.

    Returns:
        MetricFrame, column `:table`. mean_outcome in the unit of the outcomes, n = rows with one;
        expected_value in the unit of the costs, n = rows with an actual. Both with Student's
        interval of a mean; outcomes with a heavy tail need many rows for it to hold. `reason` of a
        NaN: no_outcomes, no_actuals.
    """
    metrics = []
    if outcome is not None:
        metrics.append(mean_rows("mean_outcome", outcome, low=-np.inf, empty="no_outcomes"))
    if confusion is not None and costs is not None:
        metrics.append(_expected_value(confusion, costs))
    return stack_rows(metrics)


def _expected_value(confusion: ColumnStatistics, costs: Mapping[str, float]) -> MetricRows:
    """Mean value of a row: minus its cost."""
    counts = label_counts(confusion.counts)
    by_case = {
        "tn": counts[:, 0, 1],
        "fp": counts[:, 1, 1],
        "fn": counts[:, 0, 2],
        "tp": counts[:, 1, 2],
    }
    n = np.sum(list(by_case.values()), axis=0)
    total = sum((-costs[name] * count for name, count in by_case.items()), np.zeros(len(n)))
    squares = sum((costs[name] ** 2 * count for name, count in by_case.items()), np.zeros(len(n)))
    value = rate(total, n)
    variance = rate(np.maximum(squares - value * total, 0), n - 1)
    half = t_factor(n) * np.sqrt(rate(variance, n))
    reason = np.where(n == 0, "no_actuals", "")
    version = "mean-1@" + ",".join(f"{name}={cost:g}" for name, cost in sorted(costs.items()))
    return table_rows(
        confusion.cells, "expected_value", value, value - half, value + half, n, reason, version
    )
