"""How much of a window lies outside all that the baseline holds.

A distance saturates: once every row lies above all of the baseline, it is no larger than that of
any other narrow day. And it hardly sees a few rows, however far off. The share of rows outside the
baseline's range is judged by itself: by what each of the baseline's windows has outside the others'
range. A day of extremes moves its ordinary rows, too, so what is compared is the rows outside for
each row at that end. Their count is taken to follow a negative binomial law, a Poisson law whose
rate differs between windows. Where most rows are outside, the window's mean is tested by Student's
prediction of one more window (Hahn, 1969), with a robust centre and spread.

Of embeddings a fifth of the rows of every topic is called unlike it by definition
(`metrics.embeddings`). What is new lies nearest to a few topics and is unlike their rows, so the
unlike rows of each topic are a count of their own: a new kind of a twentieth of the rows is a few
points of all that are unlike, and many times what one topic has. Which topics are common on a day
hardly changes that. These counts follow a negative binomial law, too (Bliss and Fisher, 1953).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from mlmon_dagster.metrics import MIN_WINDOWS, Floats, Ints
from mlmon_dagster.metrics.binnings import upper_edges
from mlmon_dagster.metrics.embeddings import USUAL
from mlmon_dagster.metrics.frames import MetricRows, stack_rows
from mlmon_dagster.metrics.intervals import EFFICIENCY, biweight, rate, wilson
from mlmon_dagster.metrics.statistics import ColumnStatistics, select, select_whole
from mlmon_dagster.spec.metric_registry import AUTO, NOVEL

VERSION = "novel-3"
UNSEEN_VERSION = "unseen-auto-1"
UNLIKE_VERSION = "unlike-2"
_USUAL = 0.9  # of the baseline's windows are no more novel than what is called usual
_TIMES = 2.0  # of that is far above it
_SURE = 1.0  # standard errors of a variance
_MOST_FOLLOWING, _MOST_OF_MEAN = 0.95, 0.6  # by which windows follow each other; see `_widen`
_AT_AN_END = 0.05  # of the baseline's rows, at least
_MOST = 0.5  # of a window's rows: from there on what counts is where its mean is


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
        above the largest of the baseline, 0 to 1, with Wilson's interval; of a baseline with rows
        beyond its bins those that are far above all that it has, at least, see `_far_sides`;
        `p_value`: the chance of as many, see `outside_p`, and of half of the rows or more that of
        such a mean, see `place_p`, NaN with fewer than 14 windows. `novel_rate_auto`: what
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
    beyond = outside_sides(mine.counts, own.counts)
    beyond = beyond + _far_sides(mine, own, beyond)
    outside = beyond.sum(axis=1)
    lower, upper = wilson(outside, n)
    is_known = len(windows) >= MIN_WINDOWS
    usual, p = np.nan, np.full(len(n), np.nan)
    if is_known:
        usual = float(np.quantile(own_novelty(windows), _USUAL))
        few = outside_p(mine.counts, windows, beyond)
        p = np.where(outside < _MOST * n, few, place_p(mine, windows))
    total = int(then.sum())
    is_null = (n == 0) & (mine.n >= min_rows)
    reasons = ["no_baseline", "all_null", "few_rows"]
    reason = np.select([np.full(len(n), total == 0), is_null, n < min_rows], reasons, "")
    no_usual = np.where((reason == "") & (not is_known), "few_baseline_windows", reason)
    shares = np.where(reason == "", rate(outside, n), np.nan)
    rates = MetricRows(
        mine.cells, mine.binning.column, NOVEL, shares, n, VERSION, lower, upper, total,
        np.where(n > 0, p, np.nan), reason=reason,
    )  # fmt: skip
    return _with_limit(rates, np.where(no_usual == "", usual, np.nan), no_usual)


def _with_limit(rates: MetricRows, usual: ArrayLike, reason: ArrayLike) -> list[MetricRows]:
    """Return rates of novel rows, and what is usual of them among the baseline's windows."""
    limit = rates._replace(metric=f"{NOVEL}{AUTO}", value=usual, reason=reason)
    return [rates, limit._replace(lower=np.nan, upper=np.nan, p_value=np.nan)]


def outside_sides(counts: Ints, own: Ints) -> Ints:
    """Count rows below and above all bins that the baseline fills, (C, 2).

    Args:
        counts: Rows of C windows per bin, ascending, (C, B).
        own: The same of the baseline's windows, (W, B).
    """
    filled = np.flatnonzero(own.any(axis=0))
    if not len(filled):
        return np.zeros((len(counts), 2), np.int64)
    below, above = counts[:, : filled[0]], counts[:, filled[-1] + 1 :]
    return np.column_stack([below.sum(axis=1), above.sum(axis=1)])


def _outside_others(own: ColumnStatistics) -> Floats:
    """Count each window's rows below and above the range of the others, (W, 2), about.

    Of a bin in which the range of the others ends, that part of a window's rows in it is outside
    that has its part of the window's range in it.
    """
    counts = own.counts
    bins, last = np.arange(counts.shape[1]), counts.shape[1] - 1
    filled = counts.sum(axis=0) - counts > 0
    is_any = filled.any(axis=1)
    ends = np.column_stack([filled.argmax(axis=1), last - filled[:, ::-1].argmax(axis=1)])
    ends[~is_any] = [last + 1, last]
    sides = bins < ends[:, :1], bins > ends[:, 1:]
    found = np.column_stack([np.where(side, counts, 0).sum(axis=1) for side in sides])
    if own.binning.values or len(own) < 2:
        return found.astype(np.float64)
    upper, at = upper_edges(own.binning), np.minimum(ends, last)
    lower = np.append(-np.inf, upper[:-1])
    begin = np.maximum(own.minimum, lower[at[:, 0]])
    end = np.minimum(own.maximum, upper[at[:, 1]])
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        below = (_least_of_others(own.minimum) - begin) / (upper[at[:, 0]] - begin)
        above = (end + _least_of_others(-own.maximum)) / (end - lower[at[:, 1]])
    parts = np.clip(np.nan_to_num(np.column_stack([below, above]), posinf=0.0), 0.0, 1.0)
    return np.asarray(found + parts * np.take_along_axis(counts, at, axis=1), np.float64)


def _least_of_others(values: Floats) -> Floats:
    """Return the smallest of the other values, of each of at least two, (W,)."""
    known = np.where(np.isnan(values), np.inf, values)
    least, next_one = np.partition(known, 1)[:2]
    return np.asarray(np.where(known == least, next_one, least), np.float64)


def own_novelty(own: ColumnStatistics) -> Floats:
    """Return the share of each window's rows outside the range of the other windows, (W,)."""
    return np.asarray(rate(_outside_others(own).sum(axis=1), own.counts.sum(axis=1)))


def _far_sides(mine: ColumnStatistics, own: ColumnStatistics, outside: Ints) -> Ints:
    """Count rows that are far outside the baseline's range, in its last filled bins, (C, 2).

    Bins are made once. Where windows are compared with earlier ones, these have rows beyond the
    bins, and of a window's rows there it is not known how far out they are. Rows that are off by
    about the same have the sum of what they are off by, squared, divided by the sum of its squares,
    as their number; if they are off by different amounts that is too few.

    Args:
        mine: C windows.
        own: The baseline's windows.
        outside: Rows of the windows in bins that the baseline does not fill, (C, 2).

    Returns:
        0 where no row is farther out than the baseline's range is wide.
    """
    filled, rows = np.flatnonzero(own.counts.any(axis=0)), float(own.counts.sum())
    if not rows:
        return np.zeros((len(mine), 2), np.int64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        low, high = np.nanmin(own.minimum), np.nanmax(own.maximum)
        width = high - low
        is_far = np.column_stack([low - mine.minimum > width, mine.maximum - high > width])
        n = mine.counts.sum(axis=1)
        off_by = mine.total - n * (own.total.sum() / rows)
        squares = mine.total_sq - n * (own.total_sq.sum() / rows)
        # What most of it comes from is so far out, and not the many that are higher by a little.
        is_large = squares > width * np.abs(off_by)
        alike = np.where(is_large, off_by**2 / squares, 0.0)
    is_side = np.column_stack([off_by < 0, off_by > 0])
    few = np.where(is_far & is_side & np.isfinite(alike)[:, None], alike[:, None], 0.0)
    at_ends = mine.counts[:, [filled[0], filled[-1]]]
    return np.asarray(np.clip(few - outside, 0, at_ends), np.int64)


def outside_p(counts: Ints, windows: ColumnStatistics, outside: Ints) -> Floats:
    """Return the chance of as many rows outside the baseline's range in an unchanged window, (C,).

    Args:
        counts: Rows of C windows per bin, ascending, (C, B).
        windows: Those of the baseline, with rows.
        outside: Rows of the C windows below and above the range, (C, 2).

    Returns:
        Twice the smaller chance of both sides, at most 1.
    """
    own, pooled = windows.counts, windows.counts.sum(axis=0)
    ends = _ends(pooled, _AT_AN_END)
    found, seen = _outside_others(windows), own @ ends
    total, rows = float(found.sum()) + 0.5, float(seen.sum())
    expected = total / rows * seen
    # Beyond chance, and half a row that might have been seen: squares of the relative errors.
    strays = max(float(((found - expected) ** 2).sum() - total), 0.0)
    shape = 1 / (strays / float((expected**2).sum()) + 1 / total)
    mean = total / rows * (counts @ ends)
    mean = np.maximum(mean, counts.sum(axis=1)[:, None] * _reach(counts, pooled, ends))
    tail = special.betainc(np.maximum(outside, 1), shape, mean / (mean + shape))
    both = 2 * np.where(outside > 0, tail, 1.0).min(axis=1)
    return np.asarray(np.minimum(both, 1.0), np.float64)


def _reach(counts: Ints, pooled: Ints, ends: Ints) -> Floats:
    """Return the shares that place and width of windows carry outside the range, (C, 2).

    Where the ranks of the baseline's rows are drawn as a normal law, a window has a normal law,
    too; its place and width are those of its share at the end and of that beyond the median.
    """
    total, n = int(pooled.sum()), np.maximum(counts.sum(axis=1), 1)[:, None]
    at, halves = (
        (_depth(pooled @ part, total), _depth(counts @ part, n))
        for part in (ends, _ends(pooled, 0.5))
    )
    apart = at[0] - halves[0]
    slope = np.where(apart > 0, (at[1] - halves[1]) / np.where(apart > 0, apart, 1.0), 1.0)
    range_ends = _depth(np.zeros(2), total)
    return np.asarray(special.ndtr(-(at[1] + slope * (range_ends - at[0]))), np.float64)


def _depth(rows: Ints | Floats, n: Ints | int) -> Floats:
    """Return how far out such shares of n rows begin, in standard deviations."""
    return np.asarray(-special.ndtri((rows + 0.5) / (n + 1)), np.float64)


def _ends(pooled: Ints, share: float) -> Ints:
    """Return 1 for the bins that hold a share at the lower and the upper end, else 0, (B, 2)."""
    below, above = np.cumsum(pooled) - pooled, np.cumsum(pooled[::-1])[::-1] - pooled
    most = share * pooled.sum()
    return np.column_stack([below < most, above < most]).astype(np.int64)


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


def unlike_metrics(
    columns: Mapping[str, ColumnStatistics],
    baseline: Mapping[str, ColumnStatistics],
    *,
    min_rows: int = 30,
) -> pd.DataFrame:
    """Share of rows that are unlike the baseline's and new, at slice `all`.

    Args:
        columns: What says of each row whether it is unlike its topic, over C cells.
        baseline: The same columns; their cells are the baseline's windows.
        min_rows: Fewest rows with a value, of a window and of a window of the baseline.

    Returns:
        MetricFrame. `novel_rate`: the share of the rows with a value by which more are unlike than
        the baseline has, 0 to 1, of one topic or of all together, whichever is least by chance,
        with Wilson's interval; `p_value`: the chance of that, see `find_surest`. `novel_rate_auto`:
        what nine of ten of the baseline's windows do not exceed there. Reasons of no value:
        few_rows, all_null, no_baseline (nothing but nulls in it), few_baseline_windows (fewer than
        14).
    """
    found: list[MetricRows] = []
    for name, stats in columns.items():
        mine, own = select_whole(stats), select_whole(baseline[name])
        if len(mine):
            found += _measure_unlike(mine, own, min_rows)
    return stack_rows(found)


def _measure_unlike(
    mine: ColumnStatistics, own: ColumnStatistics, min_rows: int
) -> list[MetricRows]:
    n, then = mine.counts.sum(axis=1), own.counts.sum(axis=1)
    windows = select(own, then >= min_rows)
    conditions = {
        "no_baseline": np.full(len(n), not then.sum()),
        "all_null": (n == 0) & (mine.n >= min_rows),
        "few_rows": n < min_rows,
        "few_baseline_windows": np.full(len(n), len(windows) < MIN_WINDOWS),
    }
    reason = np.select(list(conditions.values()), list(conditions), "")
    is_usual = np.array([name == USUAL for name in mine.binning.categories])
    topics = np.flatnonzero(~np.append(is_usual, [False, False]))
    shares, lower, upper, usual, p = (np.full(len(n), np.nan) for _ in range(5))
    if len(windows) >= MIN_WINDOWS and len(topics):
        size = windows.counts.sum(axis=1)
        now, before = (_with_total(side[:, topics]) for side in (mine.counts, windows.counts))
        surest = find_surest(now, n, before, size)
        p, which = surest.p_value, surest.place
        expected = (before.sum(axis=0) / size.sum())[which]
        of_it = np.take_along_axis(now, which[:, None], axis=1)[:, 0]
        ends = (rate(of_it, n), *wilson(of_it, n))
        shares, lower, upper = (np.maximum(end - expected, 0.0) for end in ends)
        beyond = rate(before, size[:, None]) - before.sum(axis=0) / size.sum()
        usual = np.maximum(np.quantile(beyond, _USUAL, axis=0), 0.0)[which]
    is_known = reason == ""
    shares, p, usual = (np.where(is_known, x, np.nan) for x in (shares, p, usual))
    rates = MetricRows(
        mine.cells, mine.binning.column, NOVEL, shares, n, UNLIKE_VERSION, lower, upper,
        int(then.sum()), p, reason=reason,
    )  # fmt: skip
    return _with_limit(rates, usual, reason)


def _with_total(counts: Ints) -> Ints:
    """Return the unlike rows of each topic and, last, of all together, (C, T + 1)."""
    return np.column_stack([counts, counts.sum(axis=1)])


class Surest(NamedTuple):
    """What of each window's unlike rows is least by chance, (C,) each.

    Attributes:
        place: Which topic; behind the last one, all together.
        p_value: Chance that any of them has so many, at most 1.
    """

    place: Ints
    p_value: Floats


def find_surest(counts: Ints, n: Ints, before: Ints, rows: Ints) -> Surest:
    """Find the topic in which most rows beyond chance are unlike.

    The rate of a topic differs between windows by its own squares beyond chance in the baseline, or
    by those of all topics, whichever is more: what one topic shows in thirty windows is little. For
    the same reason that is raised by a standard error, and where windows hang together by what they
    then hide of it, see `_widen`. The chances are those of `scipy.stats.nbinom`, times their number
    (Bonferroni).

    Args:
        counts: Unlike rows of T topics, and of all together, in C windows, (C, T + 1).
        n: Rows of the windows, (C,).
        before: The same of the baseline's W windows, in time, (W, T + 1).
        rows: Their rows, (W,), all above 0.
    """
    # Half a row that might have been seen: no topic is impossible.
    total = before.sum(axis=0) + 0.5
    share = total / rows.sum()
    expected = share * rows[:, None]
    off = before - expected
    strays = (off**2).sum(axis=0) - total
    squares = (expected**2).sum(axis=0)
    least = np.append(np.full(len(share) - 1, strays[:-1].sum() / squares[:-1].sum()), 0.0)
    uneven = np.maximum(np.maximum(strays / squares, least), 0.0)
    wider = _widen(off[:, :-1], strays[:-1])
    shape = 1 / (uneven * wider * (1 + _SURE * np.sqrt(2 / len(rows))) + 1 / total)
    mean = share * n[:, None]
    chance = special.betainc(np.maximum(counts, 1), shape, mean / (mean + shape))
    chance = np.where(counts > 0, chance, 1.0)
    place = chance.argmin(axis=1)
    p = np.take_along_axis(chance, place[:, None], axis=1)[:, 0] * len(share)
    return Surest(place.astype(np.int64), np.asarray(np.minimum(p, 1.0), np.float64))


def _widen(off: Floats, strays: Floats) -> float:
    """Return by how much another window strays more than those of the baseline from their mean.

    Where windows follow each other by r, the mean of W of them is itself off by (1 + r) / (1 - r) /
    W variances of a window (Bartlett, 1946). Another window strays by as much more, and those of
    the baseline from their own mean by as much less. r is that of all topics together.

    Args:
        off: How many rows more than expected each window has of each topic, in time, (W, T).
        strays: Sums of their squares beyond chance, (T,).

    Returns:
        At least 1.
    """
    size, squares = len(off), float(strays.sum())
    next_to = float((off[1:] * off[:-1]).sum()) * size / (size - 1)
    follows = min(max(next_to / squares, 0.0), _MOST_FOLLOWING) if squares > 0 else 0.0
    of_mean = min((1 + follows) / (1 - follows) / size, _MOST_OF_MEAN)
    return (1 + of_mean) / (1 - of_mean)
