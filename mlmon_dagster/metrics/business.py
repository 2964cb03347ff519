"""What came of the predictions: outcomes by name, and what the decisions were worth.

The expected value is the mean over rows of the declared value of their cell of the table of
decision by actual, as in cost-sensitive learning (Elkan, 2001).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.binnings import label_counts
from mlmon_dagster.metrics.frames import MetricRows, share_rows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import quantile_ranks, rate, wilson
from mlmon_dagster.metrics.late_truth.means_by_output import Worth, weigh_back
from mlmon_dagster.metrics.late_truth.rectified import METHOD, mean
from mlmon_dagster.metrics.means import (
    FEWEST_BESIDE_ZERO,
    Sizes,
    mean_of,
    skewed_mean_interval,
    t_factor,
)
from mlmon_dagster.metrics.performance.weighted_back import (
    DECIDED,
    by_decision,
    leave_out_exempt,
    replace_rows,
)
from mlmon_dagster.metrics.statistics import ColumnStatistics

QUANTILES = {"median": 0.5, "p95": 0.95}


@dataclass(frozen=True)
class Outcome:
    """What is counted of one outcome.

    Attributes:
        value: It as a loss column, over C cells.
        gain: Of an amount, the values from 0 up in logarithmic bins; None of a rate.
        debit: The sizes of those below 0; None of a rate.
        called: How its metrics' names end: ``outcome`` if more of it is better, else ``cost``.
        by_output: It by group of the model's output; None of a model without any.
    """

    value: ColumnStatistics
    gain: ColumnStatistics | None
    debit: ColumnStatistics | None
    called: Literal["outcome", "cost"] = "outcome"
    by_output: ColumnStatistics | None = None


def business_metrics(
    outcomes: Mapping[str, Outcome],
    costs: Mapping[str, float] | None,
    decisions: Mapping[str, ColumnStatistics],
) -> pd.DataFrame:
    """What came of the predictions, and what decisions were worth, per cell.

    Args:
        outcomes: Name -> what is counted of it.
        costs: Cost of a row by what was predicted and came true (tp, fp, fn, tn), in any unit, a
            gain below 0; without it no expected_value.
        decisions: Of a binary classifier ``prediction``, predictions by actual over C' cells, and
            what `weighted_back.by_decision` takes: ``score``, `DECIDED` and exempt rows.

    Returns:
        MetricFrame. Of each outcome, whose name is the column: mean (see `skewed_mean_interval`; of
        a rate Wilson's), total, which has no interval since all known rows are counted,
        median and p95 within 1 %, with the interval between order statistics,
        outcome_top_share and outcome_coverage; n = rows with one. Of `:table` expected_value in the
        unit of the costs, n = rows with an actual, with Student's interval. `reason` of a NaN:
        no_outcomes, few_rows (a p95 of under 20 rows), no_actuals; of a mean without an interval
        few_rows (under ten that are not 0).
    """
    metrics = [rows for name, outcome in outcomes.items() for rows in _of(name, outcome)]
    if costs is not None and "prediction" in decisions:
        metrics.append(_expected_value(leave_out_exempt(decisions), costs))
    return stack_rows(metrics)


def _of(name: str, outcome: Outcome) -> Iterator[MetricRows]:
    value, called = outcome.value, outcome.called
    mean = mean_of(value)
    n, cells = mean.n, value.cells
    reason = np.where(n == 0, "no_outcomes", "")

    def rows(metric: str, values: Floats, lower: ArrayLike, upper: ArrayLike, how: str,
             why: ArrayLike = reason, counted: Ints = n) -> MetricRows:  # fmt: skip
        return table_rows(cells, metric, values, lower, upper, counted, why, how, name)

    total = np.where(n == 0, np.nan, value.total + value.binning.centre * n)
    if outcome.gain is None or outcome.debit is None:
        lower, upper = wilson(np.clip(total, 0, n), n)
        given = rows(f"mean_{called}", mean.value, lower, upper, "wilson-1")
        yield weigh_back(given, outcome.by_output, Worth(high=1.0))
    else:
        sizes = Sizes.of(outcome.gain, outcome.debit)
        beside = sizes.rows_beside_zero()
        ends = skewed_mean_interval(mean, *sizes.skewness(), sizes.tail(beside), beside)
        unsure = np.where(beside < FEWEST_BESIDE_ZERO, "few_rows", "")
        lower, upper = (np.where(unsure == "", end, np.nan) for end in ends)
        given = rows(f"mean_{called}", mean.value, lower, upper, "skewed-mean-5")
        given = given._replace(unsure=unsure)
        yield weigh_back(given, outcome.by_output, Worth(low=-np.inf, grows=True))
        for quantile, q in QUANTILES.items():
            few = np.where(n < round(1 / (1 - q)), "few_rows", "")
            why = np.where(n == 0, "no_outcomes", few)
            low, high = quantile_ranks(q, n)
            at = np.where(why == "", sizes.at(np.ceil(q * n).astype(np.int64)), np.nan)
            yield rows(f"{quantile}_{called}", at, sizes.at(low), sizes.at(high), "log-bins-1", why)
        yield rows("outcome_top_share", sizes.top_share(n), np.nan, np.nan, "log-bins-1")
    yield rows(f"total_{called}", total, np.nan, np.nan, "sum-1")
    yield share_rows(cells, name, "outcome_coverage", n, value.n)


def _expected_value(
    decisions: Mapping[str, ColumnStatistics], costs: Mapping[str, float]
) -> MetricRows:
    """Mean value of a row: minus its cost; of all rows where labels are of some."""
    confusion = decisions["prediction"]
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
    found = table_rows(
        confusion.cells, "expected_value", value, value - half, value + half, n, reason, version
    )
    for part in by_decision(confusion, decisions.get("score"), decisions.get(DECIDED)):
        d = part.decided
        worth = (
            -costs["tp"] * d - costs["fn"] * (1 - d),
            -costs["fp"] * d - costs["tn"] * (1 - d),
        )
        ends = mean(part.strata, worth, low=-max(costs.values()), high=-min(costs.values()))
        weighed = f"{METHOD}@{version.partition('@')[2]}"
        found = replace_rows(found, part.places, ends, method_version=weighed)
    return found
