"""Realized performance of a ranking: means over the groups that were ranked together."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from mlmon_dagster.metrics.frames import stack_rows
from mlmon_dagster.metrics.performance.loss_means import Scale, mean_rows
from mlmon_dagster.metrics.statistics import ColumnStatistics

_COLUMNS: dict[str, tuple[str, Scale]] = {
    "ndcg": (":ndcg", "mean"),
    "mrr": (":reciprocal_rank", "mean"),
    "map": (":average_precision", "mean"),
    "hit_rate": (":hit", "share"),
}


def ranking_metrics(profiles: Mapping[str, ColumnStatistics]) -> pd.DataFrame:
    """NDCG, mean reciprocal rank, mean average precision and hit rate, per cell.

    Rows of one group are not independent, so n counts groups, and the interval is Student's over
    them (Wilson's for the hit rate).

    Args:
        profiles: The loss columns of the groups.

    Returns:
        MetricFrame, column `:table`; `reason` of a NaN: no_actuals (no group has any).
    """
    return stack_rows(
        [
            mean_rows(metric, profiles[column], high=1.0, scale=scale)
            for metric, (column, scale) in _COLUMNS.items()
            if column in profiles
        ]
    )
