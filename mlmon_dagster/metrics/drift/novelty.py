"""How much of a window lies outside all that the baseline holds, and what changed most plainly.

A distance saturates: once every row lies above all of the baseline, it is no larger than that of
any other narrow day, and the baseline's own days can be as far from each other. The share of rows
outside the baseline's range does not, and neither does the window's mean among those of the
baseline's windows. Shares are by definition; the mean is tested by Student's prediction of one more
window (Hahn, 1969), with a robust centre and spread.

A distance also does not say that rows are fifteen years older. So `column_change` chooses the most
telling of a few plain numbers, in the order in which they explain the others: rows that lie outside
everything seen before, missing values, one value, place, width. Place and width are the median and
the distance of two percentiles, which a few odd rows do not move (Tukey, 1977).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import special

from mlmon_dagster.metrics import MIN_WINDOWS, Flags, Floats, Ints
from mlmon_dagster.metrics.drift.distances import positions_of, quantiles
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


Kind = Literal["above", "below", "missing", "unseen", "other", "value", "place", "width", "range",
               "shape"]  # fmt: skip
_MOST = 0.5  # of the rows of a window
_HALF_OF_IT = 0.5  # of the change
_TENTHS = 10
_LEAST_SHARE = 0.05
_LEAST_MOVE = 0.25  # of the spread of the baseline's rows
_LEAST_WIDENING = 1.25
_TAILS = (0.1, 0.5, 0.9)
_PER_SPREAD = 2.563  # from the 10th to the 90th percentile, in standard deviations of a normal law


@dataclass(frozen=True)
class ColumnChange:
    """The plainest number of a change.

    Attributes:
        kind: What the numbers are. ``above``, ``below``: the share of the rows with a value that
            lie beyond all of the baseline. ``missing``, ``unseen``, ``other`` (of rare categories),
            ``value`` (of one value): its share of the rows. ``place``: the median. ``width``: from
            the 10th to the 90th percentile. ``range``: the share of the rows with a value that
            lie between two values, where it changed most. ``shape``: a side has no rows, or none
            of these changed; no numbers.
        now: Of the window.
        then: Of the baseline.
        value: Which value, of kind ``value``.
        spread: Of the baseline's rows, of kind ``place``; 0 if all are equal.
        low: Of kind ``range``, where it begins; ``-inf`` for the lowest values.
        high: Where it ends; ``inf`` for the highest.
    """

    kind: Kind
    now: float = 0.0
    then: float = 0.0
    value: str = ""
    spread: float = 0.0
    low: float = 0.0
    high: float = 0.0


def column_change(now: ColumnStatistics, then: ColumnStatistics) -> ColumnChange:
    """Say what changed most plainly in a column.

    Args:
        now: One cell: a window.
        then: One cell: the baseline, in the same bins.

    Returns:
        Kind ``shape`` where a side has no rows or nothing changed.
    """
    if not now.n[0] or not then.n[0]:
        return ColumnChange("shape")
    values = _of_numbers(now, then) if positions_of(now) else _of_categories(now, then)
    missing = ColumnChange("missing", _missing(now), _missing(then))
    moved = abs(missing.now - missing.then)
    if moved >= _LEAST_SHARE and moved >= _HALF_OF_IT * _distance(now, then):
        return missing
    return values


def _missing(stats: ColumnStatistics) -> float:
    return 1 - float(stats.counts[0].sum() / stats.n[0])


def _distance(now: ColumnStatistics, then: ColumnStatistics) -> float:
    """Return the total variation, with missing values as a value of its own."""
    apart = np.abs(now.counts[0] / now.n[0] - then.counts[0] / then.n[0]).sum()
    return float(apart + abs(_missing(now) - _missing(then))) / 2


def _of_numbers(now: ColumnStatistics, then: ColumnStatistics) -> ColumnChange:
    found, before = positions_of(now), positions_of(then)
    assert found is not None
    assert before is not None
    positions, mine, theirs = found[0], found[1][0], before[1][0]
    if not mine.sum() or not theirs.sum():
        return ColumnChange("shape")
    if now.binning.kind == "numeric":
        below, above = (side[0] / mine.sum() for side in outside_sides(now, then))
        if max(below, above) >= _MOST:
            return ColumnChange("above", above) if above > below else ColumnChange("below", below)
        if (value := _one_value(now, mine, theirs)) is not None:
            return value
    low, median, high = (float(quantiles(positions, mine[None], q)[0]) for q in _TAILS)
    lower, usual, higher = (float(quantiles(positions, theirs[None], q)[0]) for q in _TAILS)
    width, usual_width = high - low, higher - lower
    spread = usual_width / _PER_SPREAD
    if abs(median - usual) > _LEAST_MOVE * spread:
        return ColumnChange("place", median, usual, spread=spread)
    if max(width, usual_width) >= _LEAST_WIDENING * min(width, usual_width) and usual_width > 0:
        return ColumnChange("width", width, usual_width)
    return _range(now, positions, mine, theirs)


def _range(now: ColumnStatistics, positions: Floats, mine: Ints, theirs: Ints) -> ColumnChange:
    """Return the run of tenths of the baseline's rows whose share changed most (Kuiper, 1960)."""
    shares, before = mine / mine.sum(), theirs / theirs.sum()
    tenth = np.minimum((np.cumsum(before) - before / 2) * _TENTHS, _TENTHS - 1).astype(np.intp)
    used = np.flatnonzero((mine > 0) | (theirs > 0))
    moved = np.cumsum(np.bincount(tenth, shares - before, _TENTHS))
    steps = np.concatenate([[0.0], moved])
    first, last = sorted((int(np.argmin(steps)), int(np.argmax(steps))))
    if first == 0 and last > _TENTHS / 2:  # rather the end of it that is left
        first, last = last, _TENTHS
    elif last == _TENTHS and first < _TENTHS / 2:
        first, last = 0, first
    inside = used[(tenth[used] >= first) & (tenth[used] < last)]
    if first == last or not inside.size:
        return ColumnChange("shape")
    begin, end = int(inside[0]), int(inside[-1])
    held = slice(begin, end + 1)
    return ColumnChange(
        "range",
        float(shares[held].sum()),
        float(before[held].sum()),
        low=_border(now, positions, begin, used, -1),
        high=_border(now, positions, end, used, 1),
    )


def _border(now: ColumnStatistics, positions: Floats, at: int, used: Ints, side: int) -> float:
    """Return where a bin ends on a side: at its value, or half-way to the next bin."""
    if at == used[0 if side < 0 else -1]:
        return side * float(np.inf)
    if now.binning.values:
        return float(positions[at])
    return float(positions[at] / 2 + positions[at + side] / 2)


def _one_value(now: ColumnStatistics, mine: Ints, theirs: Ints) -> ColumnChange | None:
    """Return the one value that all rows have, or that far more or fewer rows have than before."""
    if now.minimum[0] == now.maximum[0]:
        return ColumnChange("value", 1.0, 0.0, value=f"{now.minimum[0]:g}")
    if not now.binning.values:
        return None
    shares, before = mine / mine.sum(), theirs / theirs.sum()
    most = int(np.argmax(np.abs(shares - before)))
    moved = abs(float(shares[most] - before[most]))
    is_it = moved >= _HALF_OF_IT * _apart(shares, before) * 2 and moved >= _LEAST_SHARE
    is_inner = 0 < most < len(shares) - 1  # the ends hold what is beyond them, too
    if not (is_it and is_inner):
        return None
    value = f"{now.binning.values[most]:g}"
    return ColumnChange("value", float(shares[most]), float(before[most]), value=value)


def _apart(shares: Floats, before: Floats) -> float:
    return float(np.abs(shares - before).sum() / 2)


def _of_categories(now: ColumnStatistics, then: ColumnStatistics) -> ColumnChange:
    shares, before = now.counts[0] / now.n[0], then.counts[0] / then.n[0]
    names = now.binning.categories
    if now.binning.kind != "categorical":
        return ColumnChange("shape")
    most = int(np.argmax(np.abs(shares - before)))
    share, usual = float(shares[most]), float(before[most])
    if share == usual:
        return ColumnChange("shape")
    if most < len(names):
        return ColumnChange("value", share, usual, value=names[most])
    return ColumnChange("other" if most == len(names) else "unseen", share, usual)
