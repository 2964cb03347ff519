"""Metrics of spans: which requests have any, whether those are like the others, and their stages.

A sampler that keeps the slow and the failed makes every quantile and rate of what it kept wrong. So
stages have numbers only where sampling is declared unbiased; coverage and bias are told always.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlmon_dagster.metrics.arrays import Floats
from mlmon_dagster.metrics.frames import MetricRows, stack_rows
from mlmon_dagster.metrics.intervals import rate, wilson
from mlmon_dagster.metrics.service import latency_quantile
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.names import TABLE

STAGE_QUANTILES = {"p50_stage_ms": 0.5, "p95_stage_ms": 0.95, "p99_stage_ms": 0.99}
TOKEN_QUANTILES = {"p50_tokens": 0.5, "p95_tokens": 0.95}
SAMPLED = "sampled"


def coverage_metrics(
    traced: ColumnStatistics,
    latency: tuple[ColumnStatistics, ColumnStatistics] | None,
    status: tuple[ColumnStatistics, ColumnStatistics] | None,
    told: Mapping[str, ColumnStatistics] | None = None,
) -> pd.DataFrame:
    """Share of requests that have spans, and how those differ from all.

    Args:
        traced: 1 for a request with spans, else 0, over C cells.
        latency: Of all requests and of those with spans, of the same cells; None if not logged.
        status: The same of ok and error.
        told: Column -> 1 for a request whose spans tell it, else 0, of the same cells.

    Returns:
        MetricFrame: span_coverage (Wilson's interval), of each column as well; of `:table` alone
        span_error_bias, the coverage of failed requests less that of the others; and
        span_latency_bias, the largest distance of the two distributions of latency (0 to 1), which
        is 0 where every request has spans.
    """
    rows = []
    for column, stats in {TABLE: traced, **(told or {})}.items():
        n, total = stats.n, np.rint(stats.total).astype(np.int64)
        lower, upper = wilson(total, n)
        rows.append(
            MetricRows(stats.cells, column, "span_coverage", rate(total, n), n, "wilson-1", lower,
                       upper, reason="no_rows")
        )  # fmt: skip
    if status is not None:
        every, mine = (side.counts for side in status)
        share = rate(mine, every)
        gap = share[:, 1] - share[:, 0]
        low, high = wilson(mine, every)
        # Newcombe's interval (1998, method 10) of a difference of two shares.
        below = np.hypot(share[:, 1] - low[:, 1], high[:, 0] - share[:, 0])
        above = np.hypot(high[:, 1] - share[:, 1], share[:, 0] - low[:, 0])
        rows.append(
            MetricRows(traced.cells, TABLE, "span_error_bias", gap, every.sum(axis=1),
                       "newcombe-1", gap - below, gap + above, reason="one_status")
        )  # fmt: skip
    if latency is not None:
        sides = [np.cumsum(side.counts, axis=1).astype(np.float64) for side in latency]
        sizes = [side[:, -1] for side in sides]
        none = (sizes[0] == 0) | (sizes[1] == 0)
        shares: list[Floats] = [
            side / np.maximum(size, 1)[:, None] for side, size in zip(sides, sizes, strict=True)
        ]
        far = np.abs(shares[0] - shares[1]).max(axis=1)
        rows.append(
            MetricRows(traced.cells, TABLE, "span_latency_bias", np.where(none, np.nan, far),
                       sizes[1].astype(np.int64), "ks-bins-1",
                       reason="no_spans")
        )  # fmt: skip
    return stack_rows(rows)


def stage_metrics(
    stages: Mapping[str, tuple[ColumnStatistics, ColumnStatistics, ColumnStatistics]],
    *,
    unbiased: bool,
) -> pd.DataFrame:
    """Time and endings of each stage.

    Args:
        stages: Column -> log-spaced bins of its time, and of requests that have it 1 for an error,
            and 1 for a timeout, else 0.
        unbiased: Whether spans are those of all requests, or of requests chosen by chance.

    Returns:
        MetricFrame, one column per stage: p50/p95/p99_stage_ms, at most 1 % off, and
        stage_error_rate and stage_timeout_rate. All are NaN with the reason sampled where spans
        are not unbiased.
    """
    rows = []
    for column, (times, errors, timeouts) in stages.items():
        rows += [latency_quantile(times, name, q, column) for name, q in STAGE_QUANTILES.items()]
        for name, bad in (("stage_error_rate", errors), ("stage_timeout_rate", timeouts)):
            n, k = bad.counts.sum(axis=1), np.rint(bad.total).astype(np.int64)
            lower, upper = wilson(k, n)
            rows.append(
                MetricRows(bad.cells, column, name, rate(k, n), n, "wilson-1", lower, upper,
                           reason="no_spans")
            )  # fmt: skip
    return _unless_sampled(stack_rows(rows), unbiased=unbiased)


def token_metrics(tokens: Mapping[str, ColumnStatistics], *, unbiased: bool) -> pd.DataFrame:
    """Tokens of requests to and from a language model.

    Args:
        tokens: Column -> log-spaced bins of a request's tokens.
        unbiased: Whether spans are those of all requests, or of requests chosen by chance.

    Returns:
        MetricFrame, one column each of input and output: p50_tokens and p95_tokens, at most 1 %
        off, and sum_tokens of the requests that have spans. All are NaN with the reason sampled
        where spans are not unbiased.
    """
    rows = []
    for column, mine in tokens.items():
        rows += [latency_quantile(mine, name, q, column) for name, q in TOKEN_QUANTILES.items()]
        n = mine.counts.sum(axis=1)
        total = np.where(n > 0, mine.total, np.nan)
        rows.append(
            MetricRows(mine.cells, column, "sum_tokens", total, n, "sum-1", reason="no_spans")
        )
    return _unless_sampled(stack_rows(rows), unbiased=unbiased)


def _unless_sampled(frame: pd.DataFrame, *, unbiased: bool) -> pd.DataFrame:
    if unbiased or not len(frame):
        return frame
    return frame.assign(value=np.nan, lower=np.nan, upper=np.nan, reason=SAMPLED)
