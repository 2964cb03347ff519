"""Service metrics: volume, latency quantiles and error rate."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.binnings import latency_representatives
from mlmon_dagster.metrics.frames import MetricRows, stack_rows
from mlmon_dagster.metrics.intervals import quantile_ranks, rate, wilson
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.names import TABLE

QUANTILES = {"p50_latency_ms": 0.5, "p95_latency_ms": 0.95, "p99_latency_ms": 0.99}


def service_metrics(
    latency: ColumnStatistics | None, status: ColumnStatistics | None
) -> pd.DataFrame:
    """Volume, latency and errors per cell.

    Args:
        latency: Log-spaced latency bins over C cells; None if latency is not logged.
        status: Counts of ok and error over C' cells; None if status is not logged.

    Returns:
        MetricFrame, column `:table`: n (rows, from either); p50/p95/p99_latency_ms in
        milliseconds, relative error of the bins at most 1 %, with order-statistic intervals;
        error_rate (0 to 1, of rows with a status) with Wilson's. `reason` of a NaN: no_rows,
        no_latency, no_status, few_rows (a p95 of under 20 rows is only the maximum, p99: 100).
    """
    metrics = []
    source = latency if latency is not None else status
    if source is not None:
        metrics.append(
            MetricRows(
                source.cells,
                column_name=TABLE,
                metric="n",
                value=source.n.astype(np.float64),
                n=source.n,
                method_version="count-1",
            )
        )
    if latency is not None:
        metrics += [_quantile_rows(latency, name, q) for name, q in QUANTILES.items()]
    if status is not None:
        metrics.append(_error_rows(status))
    return stack_rows(metrics)


def _quantile_rows(latency: ColumnStatistics, metric: str, q: float) -> MetricRows:
    n = latency.counts.sum(axis=1)
    fewest = round(1 / (1 - q))
    reason = np.select(
        [latency.n == 0, n == 0, n < fewest], ["no_rows", "no_latency", "few_rows"], ""
    )
    middles = latency_representatives(latency.binning)
    cumulative = np.cumsum(latency.counts, axis=1)

    def at(rank: Ints) -> Floats:
        place = (cumulative < rank[:, None]).sum(axis=1)
        value: Floats = middles[np.minimum(place, len(middles) - 1)]
        return np.clip(value, latency.minimum, latency.maximum)

    low, high = quantile_ranks(q, n)
    return MetricRows(
        latency.cells,
        column_name=TABLE,
        metric=metric,
        value=np.where(reason == "", at(np.ceil(q * n).astype(np.int64)), np.nan),
        lower=at(low),
        upper=at(high),
        n=n,
        reason=reason,
        method_version="log-bins-1",
    )


def _error_rows(status: ColumnStatistics) -> MetricRows:
    n, errors = status.counts.sum(axis=1), status.counts[:, 1]
    lower, upper = wilson(errors, n)
    return MetricRows(
        status.cells,
        column_name=TABLE,
        metric="error_rate",
        value=rate(errors, n),
        lower=lower,
        upper=upper,
        n=n,
        reason=np.where(status.n == 0, "no_rows", "no_status"),
        method_version="wilson-1",
    )
