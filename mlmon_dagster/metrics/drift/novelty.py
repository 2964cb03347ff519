"""How much of a window lies outside all that the baseline holds.

A distance saturates: once every row lies above all of the baseline, it is no larger than that of
any other narrow day, and the baseline's own days can be as far from each other. The share of rows
outside the baseline's range does not, and neither does the window's mean among those of the
baseline's windows. Shares are by definition; the mean is tested by Student's prediction of one more
window (Hahn, 1969), with a robust centre and spread.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import special

from mlmon_dagster.metrics import MIN_WINDOWS, Flags, Floats, Ints
from mlmon_dagster.metrics.frames import MetricRows, stack_rows
from mlmon_dagster.metrics.intervals import EFFICIENCY, biweight, rate, wilson
from mlmon_dagster.metrics.statistics import ColumnStatistics, select, select_whole
from mlmon_dagster.spec.metric_registry import AUTO, NOVEL

VERSION = "novel-1"
UNSEEN_VERSION = "unseen-auto-1"
_USUAL = 0.9  # of the baseline's windows are no more novel than what is called usual
_TIMES = 2.0  # of that is far above it
# An outer bin that holds more of the baseline's rows than this does not tell which are beyond it.
_MOST_AT_THE_END = 0.01


def novelty_metrics(
    columns: Mapping[str, ColumnStatistics],
    baseline: Mapping[str, ColumnStatistics],
    *,
    min_rows: int = 30,
) -> pd.DataFrame:
    """Shares of rows outside the baseline's range, of numeric columns at slice `all`.

    Args:
        columns: Columns over C cells; others than numeric ones are left out.
        baseline: The same columns; their cells are the baseline's windows.
        min_rows: Fewest rows with a value, of a window and of a window of the baseline.

    Returns:
        MetricFrame. `novel_rate`: share of the rows with a value that lie below the smallest or
        above the largest of the baseline, 0 to 1, with Wilson's interval; `p_value`: the chance
        of a window whose mean lies as far from those of the baseline's windows (Student's t on
        their biweight centre and scale), NaN with fewer than 14 of these. `novel_rate_auto`: what
        nine of ten of the baseline's windows do not exceed, each against the others; reason
        `few_baseline_windows` with fewer than 14. Reasons of no value: few_rows, all_null,
        no_baseline (nothing but nulls in it).
    """
    found: list[MetricRows] = []
    for name, stats in columns.items():
        if stats.binning.kind != "numeric" or name not in baseline:
            continue
        mine, own = select_whole(stats), select_whole(baseline[name])
        if len(mine):
            found += _of_column(mine, own, min_rows)
    return stack_rows(found)


def _of_column(mine: ColumnStatistics, own: ColumnStatistics, min_rows: int) -> list[MetricRows]:
    n, then = mine.counts.sum(axis=1), own.counts.sum(axis=1)
    windows = select(own, then >= min_rows)
    outside = np.minimum(sum(outside_sides(mine, own)), n)
    lower, upper = wilson(outside, n)
    is_known = len(windows) >= MIN_WINDOWS
    usual = float(np.quantile(own_novelty(windows.counts), _USUAL)) if is_known else np.nan
    total = int(then.sum())
    is_null = (n == 0) & (mine.n >= min_rows)
    reasons = ["no_baseline", "all_null", "few_rows"]
    reason = np.select([np.full(len(n), total == 0), is_null, n < min_rows], reasons, "")
    common = {"column_name": mine.binning.column, "n": n, "n_baseline": total}
    no_usual = np.where((reason == "") & (not is_known), "few_baseline_windows", reason)
    shares = np.where(reason == "", rate(outside, n), np.nan)
    return [
        MetricRows(
            mine.cells, metric=NOVEL, value=shares, lower=lower, upper=upper,
            p_value=place_p(mine, windows), reason=reason, method_version=VERSION, **common,
        ),
        MetricRows(
            mine.cells, metric=f"{NOVEL}{AUTO}", value=np.where(no_usual == "", usual, np.nan),
            reason=no_usual, method_version=VERSION, **common,
        ),
    ]  # fmt: skip


def outside_sides(mine: ColumnStatistics, own: ColumnStatistics) -> tuple[Ints, Ints]:
    """Count rows below and above the range of the baseline, (C,) each, about.

    The outermost bins are open: they hold what lies beyond, and rows on the way to the baseline's
    ends, for which the neighbouring bins of that width stand. Where the baseline itself has many
    rows there (a column with a heap at 0), the bin says nothing, and a side counts only if the
    whole window lies beyond. Where each value has a bin of its own, nothing is estimated.

    Args:
        mine: A numeric column over C cells.
        own: The same column; its cells are the baseline's windows, or the baseline as a whole.
    """
    pooled, n = own.counts.sum(axis=0), mine.counts.sum(axis=1)
    most = _MOST_AT_THE_END * max(int(pooled.sum()), 1)
    low, high = _end(own.minimum, np.fmin), _end(own.maximum, np.fmax)

    def side(some: Flags, every: Flags, code: int, neighbour: int) -> Ints:
        inside = mine.counts[:, neighbour] if mine.binning.fine > 1 else 0
        beyond = np.maximum(mine.counts[:, code] - inside, 0) if pooled[code] <= most else 0
        return np.asarray(np.where(every, n, np.where(some, beyond, 0)), np.int64)

    return (
        side(mine.minimum < low, mine.maximum < low, 0, 1),
        side(mine.maximum > high, mine.minimum > high, -1, -2),
    )


def _end(values: Floats, of: np.ufunc) -> float:
    return float(of.reduce(values)) if len(values) else np.nan


def own_novelty(counts: Ints) -> Floats:
    """Return the share of each window's rows beyond the bins that the other windows fill, (W,).

    Args:
        counts: Rows of the windows per bin, ascending, (W, B).

    Example:
        >>> own_novelty(np.array([[0, 2, 2], [1, 3, 0], [0, 4, 0]])).tolist()
        [0.5, 0.25, 0.0]
    """
    bins = np.arange(counts.shape[1])
    filled = counts.sum(axis=0) - counts > 0
    first = np.where(filled.any(axis=1), filled.argmax(axis=1), counts.shape[1])
    last = counts.shape[1] - 1 - filled[:, ::-1].argmax(axis=1)
    beyond = (bins < first[:, None]) | (bins > last[:, None])
    return np.asarray(rate(np.where(beyond, counts, 0).sum(axis=1), counts.sum(axis=1)))


def unseen_limits(
    mine: ColumnStatistics, own: ColumnStatistics, *, min_rows: int = 30
) -> list[MetricRows]:
    """Return the share of unseen values far above what is usual among the baseline's windows.

    Ids of agents, aeroplanes or customers are new by nature: each of the baseline's windows, too,
    had values that no other one has.

    Args:
        mine: A categorical column over C cells.
        own: The same column; its cells are the baseline's windows.
        min_rows: Fewest rows of a window of the baseline that counts.

    Returns:
        `unseen_rate_auto` at slice `all`: twice what nine of ten of the baseline's windows do not
        exceed, each against the others, at most 1; nothing with fewer than 14 of these.
    """
    mine, own = select_whole(mine), select_whole(own)
    windows = select(own, own.n >= min_rows)
    if len(windows) < MIN_WINDOWS:
        return []
    usual = min(_TIMES * float(np.quantile(own_unseen(windows), _USUAL)), 1.0)
    return [
        MetricRows(
            mine.cells, column_name=mine.binning.column, metric=f"unseen_rate{AUTO}",
            value=np.full(len(mine), usual), n=mine.n, n_baseline=int(own.n.sum()),
            method_version=UNSEEN_VERSION,
        )
    ]  # fmt: skip


def own_unseen(windows: ColumnStatistics) -> Floats:
    """Return the share of each window's rows whose value no other window has, (W,).

    Of the values that are counted together as `other` the profile of a baseline knows that, too:
    it counts those that only one window has as unseen.
    """
    known = windows.counts[:, : len(windows.binning.categories)]
    elsewhere = known.sum(axis=0) - known > 0
    alone = np.where(elsewhere, 0, known).sum(axis=1)
    unseen = windows.counts[:, len(windows.binning.categories) + 1]
    return np.asarray(rate(alone + unseen, windows.n), np.float64)


def place_p(mine: ColumnStatistics, windows: ColumnStatistics) -> Floats:
    """Return the chance of means as far from those of the baseline's windows, (C,).

    Args:
        mine: C windows.
        windows: The baseline's windows that are large enough.

    Returns:
        Two-sided. NaN with fewer than 14 windows of the baseline, for windows without values, and
        for numbers near the largest that there are.
        Where all of the baseline's means are equal: 1 for the same mean, else 0.
    """
    count = len(windows)
    if count < MIN_WINDOWS:
        return np.full(len(mine), np.nan)
    means, noise = _moments(windows)
    if not np.isfinite(means).all():
        return np.full(len(mine), np.nan)
    centre, scale = (float(part) for part in biweight(means))
    values, sampling = _moments(mine)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # Between windows, and what a window of this size shows by chance.
        between = np.fmax(np.float64(scale) ** 2 - np.median(noise), 0.0)
        spread = np.sqrt(np.fmax(between + sampling, np.float64(scale) ** 2) * (1 + 1 / count))
        t = np.abs(values - centre) / spread
        p = 2 * special.stdtr(EFFICIENCY * (count - 1), -t)
    p = np.where(spread > 0, p, np.where(values == centre, 1.0, 0.0))
    return np.asarray(np.where(np.isfinite(values) & np.isfinite(spread), p, np.nan), np.float64)


def _moments(stats: ColumnStatistics) -> tuple[Floats, Floats]:
    """Return means and the squares of their standard errors, (C,), for independent rows."""
    n = stats.counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = stats.total / n
        variance = np.maximum(stats.total_sq / n - mean**2, 0) / n
    return np.where(n > 0, mean, np.nan), np.where(n > 0, variance, np.nan)
