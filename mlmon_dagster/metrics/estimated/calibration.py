"""What a baseline's labelled score bins teach: the chance of being positive, and how sure it is.

Calibration by isotonic regression is that of Zadrozny and Elkan (2002), how sure it is by a
jackknife over blocks of windows (Kunsch, 1989).

Metrics come from counts that need not be whole, realized or expected. Beside each value stands its
slope: by how much it changes if one negative row of a score bin turns out positive. With
independent actuals the variance of the realized value, given the scores, is the sum of
``rows * p * (1 - p) * slope^2`` over the bins (delta method: a row's actual is a Bernoulli variable
of variance p (1 - p), and moves the metric by its slope).

A band says where the realized value will lie while scores mean what they meant in the baseline.
Whether they do, no input tells; the windows whose ground truth has come do. So where one of the
newest 30 of these lay outside, a later window's band is made a fifth wider than the farthest
needed. Were they alike, one more would lie farther than all of them with a chance of one in 31
(split conformal prediction; Vovk, Gammerman and Shafer, 2005). They are the newest, since the law
wanders (Gibbs and Candes, 2021, move the level instead), and the fifth is for where it wanders
next. A claim that held for all of them is kept as it is.
"""

from __future__ import annotations

import datetime as dt
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from mlmon_dagster.metrics import MIN_WINDOWS, Flags, Floats, Positions
from mlmon_dagster.metrics.binnings import label_counts, score_midpoints
from mlmon_dagster.metrics.drift.between_windows import Persistence, correlation
from mlmon_dagster.metrics.frames import MetricRows, MetricSample, table_rows
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.metrics.performance.roc import MIN_RARER, count_from_top
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.metric_registry import METRICS
from mlmon_dagster.spec.tasks import estimated, residual


class Table(NamedTuple):
    """Rows per cell and score bin, (C, S), by actual; `hit` and `false` are the decided ones.

    Attributes:
        positives: With actual 1.
        negatives: With actual 0.
        hit: Of the positives, those that were decided positive; None if no decision is logged.
        false: Of the negatives, those that were decided positive.
    """

    positives: Floats
    negatives: Floats
    hit: Floats | None = None
    false: Floats | None = None


def expected_table(rows: Floats, decided: Floats | None, curve: Floats) -> Table:
    """Share out rows by the chance of being positive.

    Args:
        rows: Rows per cell and bin, (C, S).
        decided: Of these, the rows that were decided positive.
        curve: P(positive) per bin, (S,) or (C, S).
    """
    table = Table(rows * curve, rows * (1 - curve))
    if decided is None:
        return table
    return table._replace(hit=decided * curve, false=decided * (1 - curve))


def values_of(table: Table, middles: Floats) -> dict[str, Floats]:
    """Return metric -> value per cell, NaN where it is undefined.

    Args:
        table: The counts.
        middles: A typical score per bin, (S,).
    """
    pos, neg = table.positives, table.negatives
    p, n = pos.sum(axis=1), neg.sum(axis=1)
    total = p + n
    with np.errstate(invalid="ignore", divide="ignore"):
        below = np.cumsum(neg, axis=1) - neg / 2
        seen, precision = count_from_top(pos), count_from_top(pos + neg)
        precision = np.where(precision > 0, seen / precision, 0)
        found = {
            "roc_auc": np.einsum("cs,cs->c", pos, below) / (p * n),
            "pr_auc": np.einsum("cs,cs->c", pos, precision) / p,
            "brier": (pos @ (1 - middles) ** 2 + neg @ middles**2) / total,
            "log_loss": -(pos @ np.log(middles) + neg @ np.log1p(-middles)) / total,
            "actual_rate": p / total,
        }
        if table.hit is not None and table.false is not None:
            found |= _of_decisions(table.hit.sum(axis=1), table.false.sum(axis=1), p, n)
    return found


def _of_decisions(tp: Floats, fp: Floats, p: Floats, n: Floats) -> dict[str, Floats]:
    recall, specificity = tp / p, 1 - fp / n
    return {
        "accuracy": (tp + n - fp) / (p + n),
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": tp / (tp + fp),
        "recall": recall,
        "specificity": specificity,
        "f1": 2 * tp / (tp + fp + p),
    }


def sampling_variances(
    table: Table, spread: Floats, decided_spread: Floats | None, middles: Floats
) -> dict[str, Floats]:
    """Return metric -> variance of the realized value around the expected one, per cell.

    Args:
        table: Expected counts.
        spread: ``rows * p * (1 - p)`` per cell and bin.
        decided_spread: The same of the rows that were decided positive.
        middles: A typical score per bin.
    """
    total = (table.positives + table.negatives).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "roc_auc": _squares(spread, _roc_slope(table)),
            "pr_auc": _squares(spread, _pr_slope(table)),
            "brier": spread @ (1 - 2 * middles) ** 2 / total**2,
            "log_loss": spread @ np.log(middles / (1 - middles)) ** 2 / total**2,
            "actual_rate": spread.sum(axis=1) / total**2,
        }
        if decided_spread is not None:
            found |= _decision_variances(table, spread, decided_spread)
    return found


def _squares(spread: Floats, slope: Floats) -> Floats:
    return np.asarray(np.einsum("cs,cs,cs->c", spread, slope, slope))


def _roc_slope(table: Table) -> Floats:
    pos, neg = table.positives, table.negatives
    p, n = pos.sum(axis=1)[:, None], neg.sum(axis=1)[:, None]
    below = (np.cumsum(neg, axis=1) - neg / 2) / n
    above = 1 - (np.cumsum(pos, axis=1) - pos / 2) / p
    area = (pos * below).sum(axis=1, keepdims=True) / p
    return np.asarray((below - area) / p - (above - area) / n)


def _pr_slope(table: Table) -> Floats:
    """As the influence function of average precision; see `performance.binary`."""
    pos, neg = table.positives, table.negatives
    p = pos.sum(axis=1)[:, None]
    rows = count_from_top(pos + neg)
    precision = np.where(rows > 0, count_from_top(pos) / rows, 0)
    area = (pos * precision).sum(axis=1, keepdims=True) / p
    share = np.where(rows > 0, pos / rows, 0)
    # A positive instead of a negative raises the precision at every threshold up to its score.
    return np.asarray((precision - area + np.cumsum(share, axis=1)) / p)


def _decision_variances(table: Table, spread: Floats, decided_spread: Floats) -> dict[str, Floats]:
    assert table.hit is not None
    assert table.false is not None
    tp, fp = table.hit.sum(axis=1), table.false.sum(axis=1)
    p, n = table.positives.sum(axis=1), table.negatives.sum(axis=1)
    yes = decided_spread.sum(axis=1)
    no = spread.sum(axis=1) - yes
    value = _of_decisions(tp, fp, p, n)
    # Slopes where the decision was positive, and where it was negative.
    recall = (1 - value["recall"]) / p, -value["recall"] / p
    specificity = value["specificity"] / n, (value["specificity"] - 1) / n
    f1 = value["f1"]
    slopes = {
        "accuracy": (1 / (p + n), -1 / (p + n)),
        "balanced_accuracy": tuple((a + b) / 2 for a, b in zip(recall, specificity, strict=True)),
        "precision": (1 / (tp + fp), 0 * p),
        "recall": recall,
        "specificity": specificity,
        "f1": ((2 - f1) / (tp + fp + p), -f1 / (tp + fp + p)),
    }
    return {name: yes * a**2 + no * b**2 for name, (a, b) in slopes.items()}


Reasons = NDArray[np.str_]
MIN_ROWS = 30
MIN_BASELINE_RARER = 20
# Of the sampling variance. Bands that were exact would miss half of the time what they promise, for
# what they leave out: weights that are learnt, metrics that bend. With independent rows this holds
# 98 %, so that of any hundred baselines nearly all hold 95 % and all together 97 %.
LEAST_STRETCH = 1.45
HELD = 0.97  # of the baseline's own windows, held out
_RANKED = ("roc_auc", "pr_auc")


class Scored(NamedTuple):
    """Rows by score bin and actual, over C cells.

    Attributes:
        cells: Frame of C rows with the cells' keys.
        rows: (C, S, 3): unlabelled, negative, positive.
        decided: Of these, the rows that were decided positive; None without decisions.
        middles: A typical score per bin, (S,).
    """

    cells: pd.DataFrame
    rows: Floats
    decided: Floats | None
    middles: Floats

    def part(self, chosen: Flags | slice) -> Scored:
        """Keep some cells."""
        cells = self.cells[chosen].reset_index(drop=True)
        decided = None if self.decided is None else self.decided[chosen]
        return Scored(cells, self.rows[chosen], decided, self.middles)


def scored(score: ColumnStatistics, decided: ColumnStatistics | None) -> Scored:
    """Return what estimates are made of: a score, and the same of rows decided positive."""
    both = None if decided is None else label_counts(decided.counts).astype(np.float64)
    rows = label_counts(score.counts).astype(np.float64)
    return Scored(score.cells, rows, both, score_midpoints(score.binning))


@dataclass(frozen=True)
class Calibration:
    """What a baseline says about scores.

    Attributes:
        curves: P(positive) per bin.
        held_out: Metric -> how far the realized values of the baseline's own windows lie from
            their estimates. Each half of the baseline is estimated with the curve of the other.
        table: The baseline's own expected counts, each half with the curve of the other, (1, S).
        n: Labelled rows of the baseline.
        reason: Why nothing can be estimated; empty if something can.
        method: Version of the method.
    """

    curves: Curves
    held_out: Mapping[str, HeldOut]
    table: Table
    n: int
    reason: str = ""
    method: str = "cbpe-4"

    def weighted(self, curves: Curves) -> Calibration:
        """Return the same with curves of rows that are weighted like each cell."""
        return replace(self, curves=curves, method="iw-cbpe-6")


def calibrate(whole: Scored, half: Scored, seed: int) -> Calibration:
    """Learn from a baseline what its scores mean.

    Args:
        whole: The baseline by window.
        half: A random half of the same rows; windows may be missing.
        seed: Of the replicates, where there are too few windows for a jackknife.

    Returns:
        With a `reason` where the baseline has fewer than 20 actuals of the rarer class, of one
        class only, or none at all.
    """
    first = aligned(half, whole)
    rest = less(whole, first)
    pos, neg = whole.rows[:, :, 2], whole.rows[:, :, 1]
    n_pos, n_neg = pos.sum(), neg.sum()
    curves = learn_curves(pos, neg, seed)
    reason = ""
    if min(n_pos, n_neg) < MIN_BASELINE_RARER:
        one_class = "few_baseline_rarer" if min(n_pos, n_neg) > 0 else "baseline_single_class"
        reason = one_class if n_pos + n_neg > 0 else "baseline_no_actuals"
    halves = crossed(whole, first, rest)
    one = _mapped(lambda c: c.sum(axis=0, keepdims=True), halves[0])
    held_out = {} if reason else _hold_out(whole, *halves)
    return Calibration(curves, held_out, one, int(n_pos + n_neg), reason)


def aligned(half: Scored, whole: Scored) -> Scored:
    """Return a part's counts over the windows of the whole; 0 where it has none."""
    place = pd.Index(whole.cells["window_start"]).get_indexer(half.cells["window_start"])
    rows = np.zeros_like(whole.rows)
    rows[place] = half.rows
    decided = None
    if whole.decided is not None and half.decided is not None:
        decided = np.zeros_like(whole.decided)
        decided[place] = half.decided
    return Scored(whole.cells, rows, decided, whole.middles)


def less(whole: Scored, part: Scored) -> Scored:
    """Return what is left of the whole without a part over the same windows."""
    decided = None
    if whole.decided is not None and part.decided is not None:
        decided = whole.decided - part.decided
    return whole._replace(rows=whole.rows - part.rows, decided=decided)


def _curve_of(part: Scored) -> Floats:
    return isotonic_curve(part.rows[:, :, 2].sum(axis=0), part.rows[:, :, 1].sum(axis=0))


def labelled(counts: Floats) -> Floats:
    """Count the rows that have an actual, (C, S, 3) -> (C, S)."""
    return np.asarray(counts[:, :, 1] + counts[:, :, 2])


def crossed(whole: Scored, first: Scored, rest: Scored) -> tuple[Table, Floats, Floats | None]:
    """Expected counts of the labelled rows per window, each half by the other half's curve."""
    parts = []
    for mine, other in ((first, rest), (rest, first)):
        curve = _curve_of(other)
        rows = labelled(mine.rows)
        decided = None if mine.decided is None else labelled(mine.decided)
        parts.append((rows, decided, curve, expected_table(rows, decided, curve)))
    tables = [part[3] for part in parts]
    table = _mapped(np.add, *tables)
    spread = sum((r * c * (1 - c) for r, _, c, _ in parts), np.zeros(()))
    decided_spread = None
    if whole.decided is not None:
        both = (d * c * (1 - c) for _, d, c, _ in parts if d is not None)
        decided_spread = sum(both, np.zeros(()))
    return table, spread, decided_spread


def _mapped(function: Callable[..., Floats], *tables: Table) -> Table:
    """Apply a function to the counts of some tables, side by side."""
    first = tables[0]
    positives = function(*(t.positives for t in tables))
    negatives = function(*(t.negatives for t in tables))
    if first.hit is None:
        return Table(positives, negatives)
    hit, false = (function(*(t[i] for t in tables)) for i in (2, 3))
    return Table(positives, negatives, hit, false)


class HeldOut(NamedTuple):
    """Estimates of a baseline's windows by what other rows taught, beside the truth.

    Attributes:
        cells: Of W windows that are large enough.
        off: Estimated less realized value of each, (W,), without `habit`.
        error: Its standard error by sampling alone.
        n: Rows with an actual.
        habit: What they are off by on average, as far as that is more than chance. Later estimates
            are made without it: by what windows share, and by what a curve learns of its own rows,
            they may promise too much by habit.
        factor: Of the sampling variance, as the windows ask for, see `stretch`.
    """

    cells: pd.DataFrame
    off: Floats
    error: Floats
    n: Floats
    habit: float
    factor: float


def correct_by(held_out: Mapping[str, HeldOut], metric: str) -> float:
    """Return what estimates of a metric are too large by, by habit; 0 if that is not known."""
    found = held_out.get(metric)
    return 0.0 if found is None else found.habit


def widen_by(held_out: Mapping[str, HeldOut], metric: str) -> float:
    """Return the factor of the sampling variance that bands of a metric need."""
    found = held_out.get(metric)
    return LEAST_STRETCH if found is None else found.factor


def list_held_out(held_out: Mapping[str, HeldOut], version: str) -> list[MetricRows]:
    """Return a baseline's windows as residuals, with bands as those of later windows.

    Args:
        held_out: Metric -> its windows.
        version: Of the method.
    """
    rows = []
    for metric, one in held_out.items():
        half = Z95 * one.error * math.sqrt(one.factor)
        ends, reason = (one.off - half, one.off + half), np.full(len(one.off), "")
        rows.append(table_rows(one.cells, residual(metric), one.off, *ends, one.n, reason, version))
    return rows


def hold_out(cells: pd.DataFrame, off: Floats, variance: Floats, n: Floats, used: Flags) -> HeldOut:
    """Return what windows were off by, and how much wider bands have to be for it.

    Args:
        cells: Of C windows.
        off: Estimated less realized value, (C,).
        variance: Of it, by sampling.
        n: Rows with an actual.
        used: The windows that are large enough.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(variance)
        kept = used & np.isfinite(off / error)
    mine, away, error = cells[kept].reset_index(drop=True), off[kept], error[kept]
    habit = _find_habit(away, error)
    away = away - habit
    factor = stretch(-away / error, mine["window_start"])
    return HeldOut(mine, away, error, n[kept], habit, factor)


def _find_habit(off: Floats, error: Floats) -> float:
    """Return the mean of what windows are off by, shrunk by its chance (James and Stein, 1961).

    0 with fewer than 14 windows.
    """
    if len(off) < MIN_WINDOWS:
        return 0.0
    weight = error**-2 / (error**-2).sum()
    mean = float(weight @ off)
    chance = float(weight**2 @ (off - mean) ** 2)
    return mean * max(1 - chance / mean**2, 0.0) if mean else 0.0


def _hold_out(
    whole: Scored, table: Table, spread: Floats, decided_spread: Floats | None
) -> dict[str, HeldOut]:
    """Return how far truth and estimate are apart in the baseline's windows."""
    truth = values_of(realized(whole), whole.middles)
    guess = values_of(table, whole.middles)
    variances = sampling_variances(table, spread, decided_spread, whole.middles)
    n = labelled(whole.rows).sum(axis=1)
    return {
        metric: hold_out(
            whole.cells,
            guess[metric] - truth[metric],
            variance,
            n,
            few(metric, realized(whole)) == "",
        )
        for metric, variance in variances.items()
    }


class LaterSquares(NamedTuple):
    """Squared distances of truth and estimate, in sampling variances, of windows to come.

    Attributes:
        mean: Their mean.
        times: How many times that of the baseline's own windows it is, at least 1.
        degrees: Degrees of freedom that it is known with.
    """

    mean: float
    times: float
    degrees: float


def later_squares(strays: Floats, starts: pd.Series) -> LaterSquares:
    """Say how far windows to come stray, by the baseline's own, held out.

    What is beyond sampling goes on from window to window where the world wanders. Then the
    baseline's windows are alike, their curve has what they share, and later windows are farther
    away: by the correlation of neighbouring windows, see `drift.between_windows.Persistence`.

    Args:
        strays: Distance of truth and estimate in standard deviations of sampling, one per window
            of the baseline, held out, (W,), W at least 1.
        starts: When these windows start.
    """
    order = np.argsort(starts.to_numpy(), kind="stable")
    ordered, away = starts.iloc[order], (strays - strays.mean())[order, None]
    coefficient = correlation(away, np.ones(len(strays)), ordered)
    found = Persistence.of(coefficient, ordered, np.zeros(len(strays), np.int64))
    mean = float((strays**2).mean())
    later = mean + max(mean - 1, 0) * (float(found.widening) - 1)
    degrees = max(min(float(found.effective), len(strays)) - 1, 1.0)
    return LaterSquares(later, later / mean if mean > 0 else 1.0, degrees)


def stretch(strays: Floats, starts: pd.Series) -> float:
    """Return the factor of the sampling variance that bands need, at least 1.45.

    Args:
        strays: Distance of truth and estimate in standard deviations of sampling, one per window
            of the baseline, held out.
        starts: When these windows start.

    Returns:
        The larger of their mean square and of what makes the band hold 97 % of them, counted as if
        one more window were to come (conformal prediction; Vovk, Gammerman and Shafer, 2005): the
        windows may have heavy tails. Both are those of later windows (`later_squares`). The mean is
        of so many windows only, so it counts by Student's quantile instead of the normal one, and
        1.45 times like any variance here. The least factor with fewer than 14 windows, which say
        too little.

    Example:
        >>> days = pd.Series(pd.date_range("2024-01-01", periods=20, tz="UTC"))
        >>> stretch(np.tile([-0.7, 0.7], 10), days), stretch(np.full(3, 8.0), days[:3])
        (1.45, 1.45)
    """
    n = len(strays)
    if n < MIN_WINDOWS:
        return LEAST_STRETCH
    later = later_squares(strays, starts)
    rank = min(int(np.ceil(HELD * (n + 1))), n)
    quantile = later.times * float(np.sort(strays**2)[rank - 1]) / Z95**2
    mean = later.mean * float(special.stdtrit(later.degrees, 0.975) / Z95) ** 2
    return max(LEAST_STRETCH, LEAST_STRETCH * mean, quantile)


def realized(counts: Scored) -> Table:
    """Return the counts by actual."""
    decided = counts.decided
    return Table(
        counts.rows[:, :, 2],
        counts.rows[:, :, 1],
        None if decided is None else decided[:, :, 2],
        None if decided is None else decided[:, :, 1],
    )


def few(metric: str, table: Table) -> Reasons:
    """Say per cell why a metric cannot be trusted, or is not defined."""
    p, n = table.positives.sum(axis=1), table.negatives.sum(axis=1)
    conditions: list[tuple[Flags, str]] = [
        (p + n <= 0, "no_rows"),
        (p + n < MIN_ROWS, "few_rows"),
    ]
    if metric in _RANKED:
        conditions.append((np.minimum(p, n) < MIN_RARER, "few_of_rarer_class"))
    if metric in ("recall", "balanced_accuracy"):
        conditions.append((p < 1, "no_actual_positives"))
    if metric in ("specificity", "balanced_accuracy"):
        conditions.append((n < 1, "no_actual_negatives"))
    if table.hit is not None and table.false is not None:
        decided = table.hit.sum(axis=1) + table.false.sum(axis=1)
        if metric == "precision":
            conditions.append((decided < 1, "no_predicted_positives"))
        if metric == "f1":
            conditions.append((decided + p <= 0, "no_positives"))
    return np.select([c for c, _ in conditions], [reason for _, reason in conditions], "")


MIN_BLOCKS = 10
_REDRAWN = 40


def isotonic_curve(positives: Floats, negatives: Floats) -> Floats:
    """Share of positives per score bin, never falling with the score (pool adjacent violators).

    After Ayer et al. (1955). Not by scipy.optimize, which takes as long to import as all estimates
    of a small window to compute.

    Args:
        positives: Rows with actual 1 per bin, ascending scores, shape (..., S); may be weighted.
        negatives: Rows with actual 0.

    Returns:
        Shape (..., S), inside (0, 1): a pooled share of 0 or 1 is moved in by half a row of the
        whole. Bins without rows lie on the line between their neighbours. NaN without any rows.

    Example:
        >>> isotonic_curve(np.array([1.0, 0.0, 9.0]), np.array([9.0, 10.0, 1.0])).round(3).tolist()
        [0.05, 0.05, 0.9]
    """
    size = positives.shape[-1]
    rows = (positives + negatives).reshape(-1, size)
    curve, filled = np.full(rows.shape, np.nan), np.flatnonzero(rows > 0)
    pooled = _pooled(positives.ravel()[filled], rows.ravel()[filled], filled // size)
    ends = np.searchsorted(filled, np.arange(len(rows) + 1) * size)
    for one, first, end in zip(curve, ends[:-1], ends[1:], strict=True):
        if end > first:
            one[:] = np.interp(np.arange(size), filled[first:end] % size, pooled[first:end])
    least = 0.5 / (rows.sum(axis=1, keepdims=True) + 1)
    return np.asarray(np.clip(curve, least, 1 - least), np.float64).reshape(positives.shape)


def _pooled(positives: Floats, rows: Floats, curves: Positions) -> Floats:
    """Return the shares of bins that have rows, pooled until none is below the one before it.

    All that fall are pooled at once, since the order makes no difference; bins of another curve
    are never neighbours.
    """
    starts, n_bins = np.arange(len(rows)), len(rows)
    while True:
        shares = positives / rows
        is_first = np.ones(len(shares), dtype=bool)
        is_first[1:] = (shares[1:] >= shares[:-1]) | (curves[1:] != curves[:-1])
        if is_first.all():
            return np.repeat(shares, np.diff(starts, append=n_bins))
        firsts = np.flatnonzero(is_first)
        starts, curves, rows = starts[firsts], curves[firsts], np.add.reduceat(rows, firsts)
        positives = np.add.reduceat(positives, firsts)


class Curves(NamedTuple):
    """A curve and replicates of it.

    Attributes:
        curve: P(positive) per bin, (S,).
        replicates: The same from other samples of the baseline, (R, S).
        scale: The variance of anything computed from the curve is ``scale`` times the sum of the
            squared deviations of its replicates from their mean.
    """

    curve: Floats
    replicates: Floats
    scale: float

    def variance(self, replicated: Floats) -> Floats:
        """Return the variance of what was computed once per replicate, (R, C) -> (C,)."""
        away = replicated - replicated.mean(axis=0)
        return np.asarray(self.scale * (away**2).sum(axis=0))


def per_cell(curves: Sequence[Curves]) -> Curves:
    """Put the curves of C cells side by side: curve (C, S), replicates (R, C, S).

    Args:
        curves: At least one, all with as many replicates.
    """
    replicates = np.stack([one.replicates for one in curves], axis=1)
    return Curves(np.array([one.curve for one in curves]), replicates, curves[0].scale)


def learn_curves(positives: Floats, negatives: Floats, seed: int) -> Curves:
    """Learn the curve from the windows of a baseline.

    With ten windows or more the replicates leave out every tenth window in turn (a jackknife over
    blocks), so that rows which are alike within a window count for what they are worth. With
    fewer, rows are drawn again, as if they were independent.

    Args:
        positives: Rows with actual 1 per window and bin, (W, S).
        negatives: Rows with actual 0.
        seed: Of the drawing.
    """
    filled = np.flatnonzero((positives + negatives).sum(axis=1) > 0)
    if len(filled) >= MIN_BLOCKS:
        parts = [filled[block::MIN_BLOCKS] for block in range(MIN_BLOCKS)]
        counts = [[some[part].sum(axis=0) for some in (negatives, positives)] for part in parts]
        return block_curves(np.array(counts))
    all_pos, all_neg = positives.sum(axis=0), negatives.sum(axis=0)
    curve = isotonic_curve(all_pos, all_neg)
    total = int(all_pos.sum() + all_neg.sum())
    if total == 0:
        return Curves(curve, curve[None], 1.0)
    shares = np.concatenate([all_pos, all_neg])
    drawn = np.random.default_rng(seed).multinomial(total, shares / shares.sum(), size=_REDRAWN)
    pos, neg = np.split(drawn * 1.0, 2, axis=1)
    return Curves(curve, isotonic_curve(pos, neg), 1 / (_REDRAWN - 1))


def block_curves(counts: Floats) -> Curves:
    """Return P(positive) per bin, with a jackknife over ten blocks of windows.

    Args:
        counts: Rows by block, actual (0, 1) and score bin, (10, 2, S).
    """
    total = counts.sum(axis=0, keepdims=True)
    rows = np.concatenate([total, total - counts])
    curves = isotonic_curve(rows[:, 1], rows[:, 0])
    return Curves(curves[0], curves[1:], (MIN_BLOCKS - 1) / MIN_BLOCKS)


def t_of(curves: Curves) -> float:
    """Return Student's 97.5 % quantile at the replicates' degrees of freedom."""
    return float(special.stdtrit(max(len(curves.replicates) - 1, 1), 0.975))


VERSION = "learnt-2"
RECORD = 30  # newest windows with ground truth that a width is learnt from
MARGIN = 1.2  # as many times as wide as they needed
_TINY = 1e-12


class LearntWidth(NamedTuple):
    """What a record asks of a band.

    Attributes:
        factor: As many times as wide as claimed, at least 1.
        n: Windows that it is learnt from, at most 30.
    """

    factor: float
    n: int


def learnt_width(record: Sequence[MetricSample]) -> LearntWidth:
    """Learn a width from residuals of earlier windows.

    Args:
        record: Rows of ``<metric>_residual``, oldest first: estimated - realized, and its band as
            claimed. Rows without a value are left out. The caller leaves out windows whose
            ground truth was not due yet.

    Returns:
        A fifth more than the factor by which all bands of the newest 30 would have held; 1 if they
        held, and without windows: few hold by chance, so that none is made narrower.

    Example:
        >>> row = {"value": -0.06, "lower": -0.10, "upper": -0.02}
        >>> round(learnt_width([row]).factor, 3), learnt_width([])
        (1.8, LearntWidth(factor=1.0, n=0))
    """
    needed = [_needed(row) for row in record if np.isfinite(row["value"])][-RECORD:]
    return LearntWidth(factor_of(needed), len(needed))


def factor_of(needed: Sequence[float]) -> float:
    """Return the factor for bands of which the newest would just have held by these factors."""
    most = max(needed, default=0.0)
    return MARGIN * most if most > 1 else 1.0


def _needed(row: MetricSample) -> float:
    """Return by which factor a band would just have held."""
    value = row["value"]
    claimed = value - row["lower"] if value > 0 else row["upper"] - value
    return abs(value) / max(claimed, _TINY)


def reaching(metric: str, row: MetricSample, width: LearntWidth) -> MetricSample:
    """Return an estimate's row with ends as many times as far from it, within the metric's range.

    Args:
        metric: What is estimated.
        row: Of ``estimated_<metric>``.
        width: How wide it must be; the row itself if no wider than claimed.
    """
    if width.factor == 1:
        return row
    value, info = row["value"], METRICS[metric]
    lower = max(value - width.factor * (value - row["lower"]), info.low)
    upper = min(value + width.factor * (row["upper"] - value), info.high)
    version = f"{row['method_version']}+{VERSION}"
    return {**row, "lower": lower, "upper": upper, "method_version": version}


def widened(
    estimates: Sequence[MetricSample], residuals: Sequence[MetricSample], wait: dt.timedelta
) -> list[tuple[MetricSample, LearntWidth]]:
    """Widen the bands of one metric's estimates, each by the record before it.

    Args:
        estimates: Rows of ``estimated_<metric>``.
        residuals: Rows of ``<metric>_residual`` that have a value, oldest first, also of the 30
            windows before; all of one dataset.
        wait: How long ground truth takes: windows that started less than so long before an
            estimate's are not part of its record, since they had none when it was made.
    """
    starts = [row["window_start"] for row in residuals]
    found = []
    for row in estimates:
        until = bisect_right(starts, row["window_start"] - wait)
        width = learnt_width(residuals[max(until - RECORD, 0) : until])
        metric = row["metric"].removeprefix(estimated(""))
        found.append((reaching(metric, row, width), width))
    return found
