"""Data quality of one column: shares of rows null, not a number, unseen or out of range.

Shares by definition, with Wilson's interval (1927).
"""

from __future__ import annotations

import pandas as pd

from mlmon_dagster.metrics.frames import MetricRows, stack_rows
from mlmon_dagster.metrics.intervals import rate, wilson
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.names import ALL

VERSION = "rate-1"


def quality_metrics(*columns: ColumnStatistics) -> pd.DataFrame:
    """Quality rates of columns.

    Args:
        columns: Each over its own C cells.

    Returns:
        MetricFrame with null_rate for every column; nan_rate, inf_rate and out_of_range_rate for
        numeric ones; unseen_rate for categorical ones that the baseline has values of. Each is a
        share of all rows of the cell, 0 to 1, with Wilson's interval and `n` rows; NaN with the
        reason `no_rows` for an empty cell.
    """
    return stack_rows([rates for stats in columns for rates in _rates(stats)])


def _rates(stats: ColumnStatistics) -> list[MetricRows]:
    counted = {"null_rate": stats.n_null}
    if stats.binning.kind == "numeric":
        counted["nan_rate"] = stats.n_nan
        counted["inf_rate"] = stats.n_inf
        counted["out_of_range_rate"] = stats.n_out_of_range
    # A baseline that holds no value of the column cannot say what is unseen.
    if stats.binning.kind == "categorical" and stats.binning.categories:
        counted["unseen_rate"] = stats.counts[:, len(stats.binning.categories) + 1]
    metrics = []
    for metric, count in counted.items():
        lower, upper = wilson(count, stats.n)
        metrics.append(
            MetricRows(
                stats.cells,
                column_name=stats.binning.column,
                metric=metric,
                value=rate(count, stats.n),
                lower=lower,
                upper=upper,
                n=stats.n,
                reason="no_rows",
                method_version=VERSION,
            )
        )
    return metrics


def unseen_values(stats: ColumnStatistics) -> dict[tuple[str, pd.Timestamp], dict[str, int]]:
    """Commonest unseen values of each window, over its cells at slice `all`.

    Returns:
        (column, window start) -> name -> rows; windows without any are left out.
    """
    cells = stats.cells
    whole = (cells["slice_key"] == ALL).to_numpy()
    if len(stats.unseen) != len(cells):
        return {}
    found: dict[tuple[str, pd.Timestamp], dict[str, int]] = {}
    for start, wanted, names in zip(cells["window_start"], whole, stats.unseen, strict=True):
        if wanted and names:
            mine = found.setdefault((stats.binning.column, pd.Timestamp(start)), {})
            for name, n in names.items():
                mine[name] = mine.get(name, 0) + n
    return found
