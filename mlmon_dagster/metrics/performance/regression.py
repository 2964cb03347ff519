"""Realized performance of a regression, from sums over rows and bins of the errors.

Means of errors, absolute, squared and relative errors are by definition, with Student's intervals.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import special

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.binnings import latency_representatives
from mlmon_dagster.metrics.frames import MetricRows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import Z95, quantile_ranks, rate
from mlmon_dagster.metrics.late_truth.means_by_output import BY_OUTPUT, Worth, weigh_back
from mlmon_dagster.metrics.late_truth.rectified import METHOD
from mlmon_dagster.metrics.means import (
    mean_of,
    mean_rows,
    positive_interval,
)
from mlmon_dagster.metrics.performance.weighted_back import leave_out_exempt
from mlmon_dagster.metrics.statistics import ColumnStatistics

Profiles = Mapping[str, ColumnStatistics]
_MEANS = {
    "me": (":error", -np.inf, np.inf),
    "mae": (":absolute_error", 0.0, np.inf),
    "smape": (":symmetric_error", 0.0, 2.0),
    "quantile_loss": (":quantile_loss", 0.0, np.inf),
}
_QUANTILES = {"median_absolute_error": 0.5, "p90_absolute_error": 0.9}
MIN_ROWS = 10
# What is weighed back where labels are of some: of squares of normal errors the variance is twice
# the square of the mean.
OF_ALL = {
    "me": Worth(low=-np.inf),
    "mae": Worth(of=np.abs, grows=True),
    "rmse": Worth(of=np.square, is_root=True, grows=True, least_spread=2.0),
}


def regression_metrics(profiles: Profiles, quantile: float = 0.5) -> pd.DataFrame:
    """Every metric of realized performance of a regression, per cell.

    Args:
        profiles: `residual` and the loss columns of the task, all over the same C cells.
        quantile: That the model predicts, for quantile_loss.

    Returns:
        MetricFrame, column `:table`, n = rows with an actual and a prediction. Intervals: Student's
        for means, on a logarithmic scale for rmse, by the delta method for wape and r2, between
        order statistics for quantiles. `reason` of a NaN: no_actuals, zero_actuals (mape and wape
        where every actual is 0), constant_actuals (r2), few_rows (r2 under 10 rows).
    """
    if ":error" not in profiles:
        return stack_rows([])
    profiles = leave_out_exempt(profiles)
    pinball = Worth(of=lambda e: np.maximum((1 - quantile) * e, -quantile * e), grows=True)
    of_all = OF_ALL | {"quantile_loss": pinball}
    by_output = profiles.get(f"{BY_OUTPUT}:error")
    plain = [
        *(
            mean_rows(metric, profiles[column], low=low, high=high)
            for metric, (column, low, high) in _MEANS.items()
        ),
        rmse_rows(profiles[":squared_error"]),
    ]
    found = {
        str(rows.metric): weigh_back(rows, by_output, of_all[str(rows.metric)])
        if rows.metric in of_all
        else rows
        for rows in plain
    }
    metrics = [*found.values(), _bias(found["me"], found["mae"])]
    metrics += [_mape(profiles), _wape(profiles), _r2(profiles)]
    metrics += [_quantile(m, profiles[":error_size"], q) for m, q in _QUANTILES.items()]
    return stack_rows(metrics)


def _bias(error: MetricRows, size: MetricRows) -> MetricRows:
    """Mean error in mean absolute errors; the interval of the former, the latter as known."""
    mean, lower, upper, typical = (
        np.asarray(x, np.float64) for x in (error.value, error.lower, error.upper, size.value)
    )
    exact = typical == 0
    value, lower, upper = (
        np.where(exact, 0.0, np.clip(rate(x, typical), -1, 1)) for x in (mean, lower, upper)
    )
    weighed = np.asarray(error.method_version, object) == METHOD
    method = np.where(weighed, METHOD, "mean-1").tolist()
    return table_rows(error.cells, "bias", value, lower, upper, error.n, error.reason, method)


def _mape(profiles: Profiles) -> MetricRows:
    found = mean_rows("mape", profiles[":percentage_error"])
    known = profiles[":error"].counts[:, 0] > 0
    return found._replace(reason=np.where(known, "zero_actuals", "no_actuals"))


def rmse_rows(squared: ColumnStatistics) -> MetricRows:
    """Return the root of the mean of squared errors, its interval on a logarithmic scale."""
    mean = mean_of(squared)
    lower, upper = positive_interval(mean.value, mean.error, mean.n)
    value = np.sqrt(mean.value)
    reason = np.where(mean.n == 0, "no_actuals", "")
    return table_rows(
        squared.cells, "rmse", value, np.sqrt(lower), np.sqrt(upper), mean.n, reason, "log-1"
    )


def _raw(stats: ColumnStatistics) -> Floats:
    return mean_of(stats).value


def _wape(profiles: Profiles) -> MetricRows:
    """Sum of |error| / sum of |actual|, a ratio of means (Cochran, 1977, section 6.4).

    A row moves it by (|error| - ratio |actual|) / mean |actual|.
    """
    size, error = profiles[":actual_size"], profiles[":absolute_error"]
    n = size.counts[:, 0]
    below, above = _raw(size), _raw(error)
    value = rate(above, below)
    with np.errstate(invalid="ignore", over="ignore"):
        spread = (
            rate(error.total_sq, n)
            - 2 * value * _raw(profiles[":error_by_size"])
            + value**2 * rate(size.total_sq, n)
        )
        half = Z95 * rate(np.sqrt(np.maximum(spread, 0) / np.maximum(n - 1, 1)), below)
    reason = np.select([n == 0, below == 0], ["no_actuals", "zero_actuals"], "")
    lower, upper = np.maximum(value - half, 0), value + half
    return table_rows(size.cells, "wape", value, lower, upper, n, reason, "ratio-1")


def _r2(profiles: Profiles) -> MetricRows:
    """1 - MSE / variance; the variance of its influence function from moments of both.

    With e an error, a an actual, m their mean, s = MSE / variance: a row moves s by
    (e^2 - s (a - m)^2) / variance (delta method), so its square's mean needs E e^4, E e^2 (a - m)^2
    and E (a - m)^4.
    """
    away, squared = profiles[":away"], profiles[":squared_error"]
    n = away.counts[:, 0]
    mean, mse = _raw(away), _raw(squared)
    second, third = _raw(profiles[":away_squared"]), _raw(profiles[":away_cubed"])
    fourth = rate(profiles[":away_squared"].total_sq, n)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        variance = second - mean**2
        # Sums are of rows rounded to the baseline's unit, so that less than this is their rounding.
        flat = variance <= 1e-9 * second
        share = mse / variance
        # About the window's own mean: (a - m)^2 for a measured from the baseline's.
        central4 = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
        cross = (
            _raw(profiles[":error_away_squared"])
            - 2 * mean * _raw(profiles[":error_away"])
            + mean**2 * mse
        )
        fourth_error = rate(squared.total_sq, n)
        spread = (fourth_error - 2 * share * cross + share**2 * central4) / variance**2
        error = np.sqrt(np.maximum(spread, 0) / np.maximum(n - 1, 1))
        half = special.stdtrit(np.maximum(n - 1, 1), 0.975) * error / share
        lower, upper = 1 - share * np.exp(half), 1 - share * np.exp(-half)
    value = 1 - share
    reason = np.select(
        [n == 0, n < MIN_ROWS, flat], ["no_actuals", "few_rows", "constant_actuals"], ""
    )
    value = np.where(reason == "", value, np.nan)
    return table_rows(away.cells, "r2", value, lower, np.minimum(upper, 1), n, reason, "delta-1")


def _quantile(metric: str, sizes: ColumnStatistics, q: float) -> MetricRows:
    """Quantile of the absolute error from logarithmic bins, within 1 % of the row's own value."""
    n = sizes.counts.sum(axis=1)
    low, high = quantile_ranks(q, n)
    reached = np.cumsum(sizes.counts, axis=1)
    middles = latency_representatives(sizes.binning)

    def at(rank: Ints) -> Floats:
        place = np.minimum((reached < rank[:, None]).sum(axis=1), len(middles) - 1)
        # What is below the lowest bin, an error of 0 above all, is not in its middle.
        value = np.where(place == 0, sizes.minimum, middles[place])
        found: Floats = np.clip(value, sizes.minimum, sizes.maximum)
        return found

    reason = np.where(n == 0, "no_actuals", "")
    value = at(np.ceil(q * n).astype(np.int64))
    return table_rows(sizes.cells, metric, value, at(low), at(high), n, reason, "log-bins-1")
