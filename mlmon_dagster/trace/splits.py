"""Exact splits of a change between two sets of windows, each with an interval between windows.

Three questions, three ways to take the change of a metric apart, all from counts and none from
rows. Each adds up to the change, and swapping the sides swaps every sign.

- *Which slices?* Of a ratio of two sums over rows `decompose`; every slice key cuts the rows into
  disjoint parts. Part i has numerator k_i and denominator m_i in the window, k'_i and m'_i in the
  baseline; its value is r_i = k_i / m_i and its weight w_i = m_i / sum of m.
  within_i = (w_i + w'_i) / 2 * (r_i - r'_i): the part itself got better or worse;
  mix_i = (w_i - w'_i) * ((r_i + r'_i) / 2 - (R + R') / 2): the part became more or less common, and
  it is better or worse than the whole. Summed over the parts they are R - R', with nothing left
  over and no part that comes first: the two sides change places by changing the sign (Kitagawa,
  1955). A part that exists on one side only has no value of its own to compare; it counts with the
  same value on both sides, so all its effect is mix.
- *Which slices?* of ROC AUC: `area_effects`. It is a ratio of sums over pairs of slices, that of
  the positive and that of the negative of a pair.
- *What became of the decisions?* `decision_effects`: whatever is computed from a confusion table
  has three players, the share of positives, recall and the share of false alarms; Shapley's values
  (1953) share the change out among them.
- *Other scores, or scores that mean something else?* `score_effects`: ROC AUC is a function of the
  scores' law and of the chance that a score comes true, again by Shapley's values. The first is
  what an estimate without ground truth can see; the second is concept drift given the score.

`measured` turns any of them into effects with margins: rows of a window share more than they show,
so windows are left out one at a time (see `metrics.windows.clusters`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from mlmon_dagster.metrics import FEWEST_TO_CHOOSE, Floats, Ints
from mlmon_dagster.metrics.binnings import class_counts, label_counts
from mlmon_dagster.metrics.intervals import benjamini_hochberg, rate
from mlmon_dagster.metrics.late_truth.means_by_output import OUTCOME
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.metrics.windows.clusters import change
from mlmon_dagster.spec.metric_registry import MEANS_OF_VALUES

# Ints of both sides, each with any leading axes that go together -> effects on the last axis.
Effects = Callable[[Floats, Floats], Floats]
Rates = Callable[[Floats], Floats]  # base rate, recall, false alarms on the last axis -> metric
PLAYERS = ("positives", "recall", "false_alarms")
GROUPS = 40  # of scores; their area is within .0005 of that of 1,024 bins
FEW_IN_GROUP = 5  # rows of a side; fewer do not say what a score means there
_STAND_OUT = 0.05  # chance that any of windows that are alike is said to stand out
NO_OVERLAP = 0.9  # area under the curve of what tells the sides apart by the score, from where on


@dataclass(frozen=True)
class Split:
    """The parts of a change.

    Attributes:
        parts: Their names.
        effects: (P,), in the unit of the metric.
        margins: Half of each one's 95 % interval; NaN where a side has fewer than eight windows,
            which do not say how far windows stray.
        p_adjusted: Two-sided chance of so large an effect without any, corrected for the number of
            parts (Benjamini and Hochberg); NaN likewise.
        change: Their sum, the change of the metric. margin: Half of its interval.
    """

    parts: tuple[str, ...]
    effects: Floats
    margins: Floats
    p_adjusted: Floats
    change: float
    margin: float

    @property
    def named(self) -> dict[str, float]:
        """Part -> its effect."""
        return dict(zip(self.parts, self.effects.tolist(), strict=True))


def measured(effects: Effects, now: ArrayLike, then: ArrayLike, parts: Sequence[str]) -> Split:
    """Return effects with their margins between windows.

    Args:
        effects: One of the splits of this module.
        now: Ints of each window of one side, (W, ...), as the split takes them.
        then: Ints of each window of the other side, (V, ...).
        parts: Names of the effects.

    Returns:
        The effects of all windows together. The margin is of Student's t over the jackknife's
        variances of both sides; NaN where an effect is undefined without one of the windows.
    """
    one, other = np.asarray(now, np.float64), np.asarray(then, np.float64)
    whole, whole0 = one.sum(axis=0), other.sum(axis=0)
    found = _with_sum(effects(whole, whole0))
    errors = [
        _jackknife(_with_sum(effects(whole[None] - one, whole0[None])), found),
        _jackknife(_with_sum(effects(whole[None], whole0[None] - other)), found),
    ]
    sizes = [np.full(found.shape, len(side), np.float64) for side in (one, other)]
    tested = change(found, errors[0], sizes[0], errors[1], sizes[1])
    return Split(
        tuple(parts),
        found[:-1],
        tested.margin[:-1],
        np.array(benjamini_hochberg(tested.p_value[:-1].tolist())),
        float(found[-1]),
        float(tested.margin[-1]),
    )


def _with_sum(effects: Floats) -> Floats:
    return np.concatenate([effects, effects.sum(axis=-1, keepdims=True)], axis=-1)


def _jackknife(without: Floats, whole: Floats) -> Floats:
    """Return the standard error of effects (P,) of W windows, each left out once, (W, P)."""
    n = len(without)
    found: Floats = np.sqrt((n - 1) / n * ((without - whole) ** 2).sum(axis=0))
    return found


def area_effects(now: Floats, then: Floats) -> Floats:
    """Split the change of ROC AUC over S slices, by pairs of them.

    A pair of slices a (of the positive) and b (of the negative) has the weight W = P_a N_b / (P N)
    and its own area A; ROC AUC is the sum of W A. What a pair's weight did is its mix, what its
    area did is within; half of each counts for a, half for b. A pair that one side lacks has the
    other side's area.

    Args:
        now: Negatives and positives per slice and score bin, ascending scores, (..., 2, S, B).
        then: Of the other side.

    Returns:
        Mix and within of each slice together, (..., S). NaN where a side lacks a class.

    Example:
        >>> now = np.array([[[3.0, 1.0]], [[1.0, 3.0]]])  # one slice, two bins
        >>> then = np.array([[[4.0, 0.0]], [[0.0, 4.0]]])
        >>> area_effects(now, then).tolist()
        [-0.25]
    """
    (weight, part), (weight0, part0) = _pairs(now), _pairs(then)
    area = (weight * part).sum(axis=(-1, -2), keepdims=True)
    area0 = (weight0 * part0).sum(axis=(-1, -2), keepdims=True)
    part, part0 = np.where(weight > 0, part, part0), np.where(weight0 > 0, part0, part)
    mix = (weight - weight0) * ((part + part0) / 2 - (area + area0) / 2)
    within = (weight + weight0) / 2 * (part - part0)
    pairs = mix + within
    found: Floats = (pairs.sum(axis=-1) + pairs.sum(axis=-2)) / 2
    return found


def _pairs(counts: Floats) -> tuple[Floats, Floats]:
    """Return weight and area of every pair of slices, (..., S, S): that of the positive first."""
    negatives, positives = counts[..., 0, :, :], counts[..., 1, :, :]
    of_slice, against = positives.sum(axis=-1), negatives.sum(axis=-1)
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    pairs = of_slice[..., :, None] * against[..., None, :]
    area = rate(positives @ np.swapaxes(below, -1, -2), pairs)
    weight = rate(pairs, pairs.sum(axis=(-1, -2), keepdims=True))
    return weight, np.where(pairs > 0, area, 0.0)


def decision_effects(metric: Rates) -> Effects:
    """Return the split of a metric of decisions among `PLAYERS`.

    Args:
        metric: Gives it of base rate, recall and share of false alarms, see `DECISIONS`.

    Returns:
        A function of confusion tables (..., 2, 2), predicted x actual, of both sides -> (..., 3).
        Recall of a side without positives, which nothing rests on there, counts as the other
        side's; so do false alarms without negatives.
    """

    def effects(now: Floats, then: Floats) -> Floats:
        one, other = np.broadcast_arrays(rates_of(now), rates_of(then))
        return _shapley(metric, _as_the_other(one, other), _as_the_other(other, one))

    return effects


def _as_the_other(one: Floats, other: Floats) -> Floats:
    """Fill rates that a side does not have."""
    filled = np.where(np.isnan(one), np.nan_to_num(other), one)
    return np.concatenate([one[..., :1], filled[..., 1:]], axis=-1)


def rates_of(table: Floats) -> Floats:
    """Return base rate, recall and share of false alarms of tables predicted x actual, (..., 3)."""
    positives, negatives = table[..., :, 1].sum(axis=-1), table[..., :, 0].sum(axis=-1)
    return np.stack(
        [
            rate(positives, positives + negatives),
            rate(table[..., 1, 1], positives),
            rate(table[..., 1, 0], negatives),
        ],
        axis=-1,
    )


def _shapley(value: Callable[[Floats], Floats], now: Floats, then: Floats) -> Floats:
    """Share the change of a value out among its arguments, which are on the last axis.

    Each argument's share is what it changes, averaged over all orders in which the arguments go
    from then to now.
    """
    n = now.shape[-1]
    found = []
    for player in range(n):
        others = [i for i in range(n) if i != player]
        effect = np.zeros(now.shape[:-1])
        for size in range(n):
            weight = factorial(size) * factorial(n - size - 1) / factorial(n)
            for moved in combinations(others, size):
                before = np.where(np.isin(np.arange(n), moved), now, then)
                after = np.where(np.isin(np.arange(n), (*moved, player)), now, then)
                effect = effect + weight * (value(after) - value(before))
        found.append(effect)
    return np.stack(found, axis=-1)


def _f1(rates: Floats) -> Floats:
    share, recall, alarms = np.moveaxis(rates, -1, 0)
    return rate(2 * share * recall, share * (1 + recall) + (1 - share) * alarms)


def _accuracy(rates: Floats) -> Floats:
    share, recall, alarms = np.moveaxis(rates, -1, 0)
    found: Floats = share * recall + (1 - share) * (1 - alarms)
    return found


def _precision(rates: Floats) -> Floats:
    share, recall, alarms = np.moveaxis(rates, -1, 0)
    return rate(share * recall, share * recall + (1 - share) * alarms)


def value_of(tp: float, fp: float, fn: float, tn: float) -> Rates:
    """Return the mean value of a decision at what each case costs; a gain is a negative cost."""

    def value(rates: Floats) -> Floats:
        share, recall, alarms = np.moveaxis(rates, -1, 0)
        found: Floats = -(
            share * (recall * tp + (1 - recall) * fn)
            + (1 - share) * (alarms * fp + (1 - alarms) * tn)
        )
        return found

    return value


DECISIONS: dict[str, Rates] = {"f1": _f1, "accuracy": _accuracy, "precision": _precision}


def score_groups(now: ArrayLike, then: ArrayLike, groups: int = GROUPS) -> Ints:
    """Choose groups of neighbouring score bins that hold equal shares of both sides together.

    Args:
        now: Rows per bin, (B,).
        then: Of the other side.
        groups: At most so many.

    Returns:
        First bin of each group, ascending, as `score_effects` takes them.
    """
    one, other = np.asarray(now, np.float64), np.asarray(then, np.float64)
    mass = rate(one, np.full_like(one, one.sum())) + rate(other, np.full_like(other, other.sum()))
    upto = np.cumsum(np.nan_to_num(mass))
    if not upto[-1] > 0:
        return np.zeros(1, np.int64)
    place = np.minimum((upto - np.nan_to_num(mass) / 2) / upto[-1] * groups, groups - 1e-9)
    starts: Ints = np.flatnonzero(np.diff(np.floor(place), prepend=-1.0) > 0).astype(np.int64)
    return starts


def score_effects(starts: Ints) -> Effects:
    """Return the split of the change of ROC AUC into the scores' law and what scores mean.

    Args:
        starts: First bin of each group of scores, see `score_groups`.

    Returns:
        A function of negatives and positives per score bin, (..., 2, B), of both sides -> (..., 2):
        the effect of the law of the scores, then that of the chance that a score comes true. Their
        sum is the change of the groups' area. Where a side has fewer than `FEW_IN_GROUP` rows, the
        other side's rows count as meaning what they mean on their own side.
    """

    def effects(now: Floats, then: Floats) -> Floats:
        one, other = (np.add.reduceat(side, starts, axis=-1) for side in (now, then))
        rows, law, meaning = _law_and_meaning(one)
        rows0, law0, meaning0 = _law_and_meaning(other)
        own, own0 = _area(law, meaning), _area(law0, meaning0)
        as_then = _area(law, np.where(rows0 >= FEW_IN_GROUP, meaning0, meaning))
        as_now = _area(law0, np.where(rows >= FEW_IN_GROUP, meaning, meaning0))
        of_law = (as_then - own0) + (own - as_now)
        of_meaning = (own - as_then) + (as_now - own0)
        return np.stack([of_law / 2, of_meaning / 2], axis=-1)

    return effects


def _law_and_meaning(counts: Floats) -> tuple[Floats, Floats, Floats]:
    """Return rows, their share and the share that came true, of each group."""
    rows = counts.sum(axis=-2)
    law = rate(rows, np.broadcast_to(rows.sum(axis=-1, keepdims=True), rows.shape))
    return rows, law, counts[..., 1, :] / np.maximum(rows, 1)


def _area(law: Floats, meaning: Floats) -> Floats:
    """Return the area under the curve of scores of a law that come true with some chances."""
    return area_of(np.stack([law * (1 - meaning), law * meaning], axis=-2))


def told_apart(now: ArrayLike, then: ArrayLike) -> float:
    """Return how well the score alone tells the sides apart, as an area under the curve.

    It is that of the likelihood ratio of `score_groups`, which nothing made of the score exceeds
    (Neyman and Pearson, 1933), wherever on the scale the sides differ: scores that moved from the
    middle to both ends are told apart, though none are higher on average.

    Args:
        now: Rows per score bin, (B,).
        then: Of the other side.

    Returns:
        .5 (not at all) to 1; NaN if a side is empty. From `NO_OVERLAP` on the sides share too few
        scores to say what a score means on both. A little high where sides have few rows.
    """
    one, other = np.asarray(now, np.float64), np.asarray(then, np.float64)
    starts = score_groups(one, other)
    one, other = np.add.reduceat(one, starts), np.add.reduceat(other, starts)
    order = np.argsort(rate(one, one + other), kind="stable")  # empty groups count for nothing
    return float(area_of(np.stack([other[order], one[order]])))


def window_effects(value: Callable[[Floats], Floats], counts: ArrayLike) -> Floats:
    """Return what each window adds to a metric of all of them: its value less that without it.

    Args:
        value: Gives the metric of counts with any leading axes.
        counts: Of each window, (W, ...).

    Returns:
        (W,); NaN where the metric is undefined without the window.
    """
    every = np.asarray(counts, np.float64)
    whole = every.sum(axis=0)
    return value(whole) - value(whole[None] - every)


def count_standing_out(harms: ArrayLike, most: int) -> int:
    """Return how many of some windows add more harm than windows like the others do.

    Rosner's generalized extreme studentized deviate (1983), on the side of harm, at 5 % of all
    windows together: so many of the worst ones stand out that the last of them is still too far
    from the rest to be one of them.

    Args:
        harms: What each window adds to a change for the worse, (W,).
        most: At most so many are looked at.

    Returns:
        0 where none stands out, or a window's harm is not known.

    Example:
        >>> count_standing_out([0.9, 0.1, -0.1, 0.05, -0.05, 0.0, 0.02, -0.02], 3)
        1
    """
    ordered = np.sort(np.asarray(harms, np.float64))[::-1]
    if np.isnan(ordered).any():
        return 0
    found = 0
    for place in range(min(most, len(ordered) - 3)):
        rest = ordered[place:]
        n, spread = len(rest), float(rest.std(ddof=1))
        t = float(special.stdtrit(n - 2, 1 - _STAND_OUT / n))
        limit = (n - 1) * t / np.sqrt((n - 2 + t**2) * n)
        if spread > 0 and (rest[0] - rest.mean()) / spread > limit:
            found = place + 1
    return found


def area_of(counts: Floats) -> Floats:
    """Return ROC AUC of negatives and positives per score bin, (..., 2, B); ties count half."""
    negatives, positives = counts[..., 0, :], counts[..., 1, :]
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    found: Floats = rate(
        (positives * below).sum(axis=-1), positives.sum(axis=-1) * negatives.sum(axis=-1)
    )
    return found


# Metrics that are the mean of a loss column.
LOSS_OF = {
    "brier": ":brier", "log_loss": ":log_loss", "top_k_accuracy": ":top_k", "me": ":error",
    "mae": ":absolute_error", "mape": ":percentage_error", "smape": ":symmetric_error",
    "quantile_loss": ":quantile_loss", "ndcg": ":ndcg", "mrr": ":reciprocal_rank",
    "map": ":average_precision", "hit_rate": ":hit", "precision_at_k": ":precision_at_k",
    "recall_at_k": ":recall_at_k", "ipw_precision_at_k": ":ipw_precision_at_k",
}  # fmt: skip
_RIGHT = ("accuracy", "micro_precision", "micro_recall", "micro_f1")
Parts = tuple[Floats, Floats]


class Decomposition(NamedTuple):
    """The change of a ratio from the baseline, by part.

    Attributes:
        value: R, the ratio of all parts together in the window; NaN if its denominator is 0. One
            number, or shape (...) with leading axes, as all below have them too.
        baseline_value: R' of the baseline.
        mix: Shape (S,); all NaN if R or R' is.
        within: Shape (S,); ``mix.sum() + within.sum()`` is ``value - baseline_value``.
        weight: Share of the window's denominator, shape (S,).
        baseline_weight: Share of the baseline's, shape (S,).
    """

    value: Floats
    baseline_value: Floats
    mix: Floats
    within: Floats
    weight: Floats
    baseline_weight: Floats


def decompose(
    numerator: ArrayLike,
    denominator: ArrayLike,
    baseline_numerator: ArrayLike,
    baseline_denominator: ArrayLike,
) -> Decomposition:
    """Split the change of a ratio of sums over S parts exactly.

    Args:
        numerator: Of each part in the window, shape (S,), or (..., S) with any leading axes.
        denominator: Of each part in the window, not negative; 0 where the part is absent.
        baseline_numerator: As ``numerator``, of the baseline.
        baseline_denominator: As ``denominator``, of the baseline.

    Returns:
        See `Decomposition`. A part absent on both sides has no effect. Without parts, or with a
        denominator of 0 altogether, there is no change to explain and every effect is NaN.

    Example:
        Two carriers with accuracies .9 and .5; only the second one's share grew.

        >>> found = decompose([45, 25], [50, 50], [72, 10], [80, 20])
        >>> round(found.value - found.baseline_value, 3)
        -0.12
        >>> found.mix.round(3).tolist(), found.within.round(3).tolist()
        ([-0.042, -0.078], [0.0, 0.0])
    """
    k, m = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    k0 = np.asarray(baseline_numerator, np.float64)
    m0 = np.asarray(baseline_denominator, np.float64)
    total, total0 = m.sum(axis=-1, keepdims=True), m0.sum(axis=-1, keepdims=True)
    weight, weight0 = rate(*np.broadcast_arrays(m, total)), rate(*np.broadcast_arrays(m0, total0))
    value = rate(k.sum(axis=-1, keepdims=True), total)
    value0 = rate(k0.sum(axis=-1, keepdims=True), total0)
    own, own0 = rate(k, m), rate(k0, m0)
    own, own0 = np.where(m > 0, own, own0), np.where(m0 > 0, own0, own)
    middle = (value + value0) / 2
    mix = (weight - weight0) * (np.nan_to_num((own + own0) / 2) - middle)
    within = (weight + weight0) / 2 * np.nan_to_num(own - own0)
    within = np.where(np.isnan(middle), np.nan, within)
    return Decomposition(value[..., 0], value0[..., 0], mix, within, weight, weight0)


def ratio_parts(
    metric: str,
    score: ColumnStatistics | None,
    confusion: ColumnStatistics | None,
    losses: Mapping[str, ColumnStatistics] | None = None,
) -> Parts | None:
    """Return numerator and denominator of a metric per cell.

    F1 is 2 TP / (2 TP + FP + FN), so a slice weighs as much as it has predicted and actual
    positives; for precision and recall it weighs by predicted and by actual positives.

    Args:
        metric: accuracy, precision, recall, specificity, f1, actual_rate, predicted_rate, brier,
            log_loss; of several classes accuracy; and every mean of a loss column.
        score: Score bins by actual, C cells; None if the model logs no score.
        confusion: Predictions by actual, C cells; None if the model logs no prediction.
        losses: Loss columns by name; what else it holds is left alone.

    Returns:
        Two arrays (C,); None if the metric is no ratio of sums (roc_auc, calibration_error) or
        what it is made from was not logged.
    """
    losses = losses or {}
    if confusion is not None and confusion.binning.kind == "classes" and metric in _RIGHT:
        table, _ = class_counts(confusion.binning, confusion.counts)
        return _floats(np.trace(table, axis1=1, axis2=2)), _floats(table.sum(axis=(1, 2)))
    if metric == "wape" and ":actual_size" in losses:
        return _sum(losses[":absolute_error"]), _sum(losses[":actual_size"])
    of_all, _, outcome = metric.partition("/")
    loss = f"{OUTCOME}{outcome}" if of_all in MEANS_OF_VALUES else LOSS_OF.get(metric, "")
    if (stats := losses.get(loss)) is not None:
        return _sum(stats), _floats(stats.counts.sum(axis=1))
    if confusion is None and score is None:
        return None
    return _binary_parts(metric, score, confusion)


def _sum(stats: ColumnStatistics) -> Floats:
    found: Floats = stats.total + stats.binning.centre * stats.counts.sum(axis=1)
    return found


def _binary_parts(
    metric: str, score: ColumnStatistics | None, confusion: ColumnStatistics | None
) -> Parts | None:
    if confusion is not None and confusion.binning.kind != "confusion":
        return None
    if metric in _FROM_SCORE and score is not None:
        counts = label_counts(score.counts)
        negatives, positives = counts[:, :, 1].sum(axis=1), counts[:, :, 2].sum(axis=1)
        return _FROM_SCORE[metric](score, positives), _floats(negatives + positives)
    if metric in _FROM_CONFUSION and confusion is not None:
        above, below = (
            (label_counts(confusion.counts) * np.array(weights)).sum(axis=(1, 2))
            for weights in _FROM_CONFUSION[metric]
        )
        return _floats(above), _floats(below)
    return None


def _floats(counts: Ints) -> Floats:
    return counts.astype(np.float64)


# Of decisions, the rows above and below the line: weights of predicted 0 and 1 by label state.
_FROM_CONFUSION = {
    "accuracy": ([[0, 1, 0], [0, 0, 1]], [[0, 1, 1], [0, 1, 1]]),
    "precision": ([[0, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 1]]),
    "recall": ([[0, 0, 0], [0, 0, 1]], [[0, 0, 1], [0, 0, 1]]),
    "specificity": ([[0, 1, 0], [0, 0, 0]], [[0, 1, 0], [0, 1, 0]]),
    "f1": ([[0, 0, 0], [0, 0, 2]], [[0, 0, 1], [0, 1, 2]]),
    "predicted_rate": ([[0, 0, 0], [1, 1, 1]], [[1, 1, 1], [1, 1, 1]]),
    "actual_rate": ([[0, 0, 1], [0, 0, 1]], [[0, 1, 1], [0, 1, 1]]),
}
_FROM_SCORE: dict[str, Callable[[ColumnStatistics, Ints], Floats]] = {
    "actual_rate": lambda _score, positives: _floats(positives),
    "brier": lambda score, _positives: score.total_sq,
    "log_loss": lambda score, _positives: score.total,
}


@dataclass(frozen=True)
class Threshold:
    """Another threshold for the decisions of a binary model.

    Attributes:
        now: Lowest score that was decided positive.
        better: The threshold that would have been better.
        value: The metric as it was, at `now`.
        would_be: The metric at the other threshold, in windows that did not choose it.
        gain: How much more that is than the same windows have at `now`.
    """

    now: float
    better: float
    value: float
    would_be: float
    gain: float


def better_threshold(
    metric: Rates, counts: ArrayLike, scores: ArrayLike, now: float
) -> Threshold | None:
    """Find the threshold that would have served some windows best, and say what it is worth.

    It is chosen on every other window and measured on the others, and the other way round, so that
    the gain is not that of hindsight.

    Args:
        metric: Of base rate, recall and false alarms; higher is better.
        counts: Negatives and positives per window and ascending score bin, (W, 2, B).
        scores: Lowest score of each bin, (B,).
        now: The threshold in use: scores from it on are decided positive.

    Returns:
        The mean of both directions; None with fewer than `FEWEST_TO_CHOOSE`, or where the metric is
        not defined.
    """
    every, low = np.asarray(counts, np.float64), np.asarray(scores, np.float64)
    if len(every) < FEWEST_TO_CHOOSE:
        return None
    place = int(np.searchsorted(low, now, side="left"))
    sides = every[::2].sum(axis=0), every[1::2].sum(axis=0)
    chosen, gains, values = [], [], []
    for choosing, measuring in (sides, sides[::-1]):
        best = _best(metric(rates_of(_tables(choosing))))
        if best is None:
            return None
        there = metric(rates_of(_tables(measuring)))
        at = min(place, len(there) - 1)
        chosen.append(best)
        values.append(there[best])
        gains.append(there[best] - there[at])
    whole = metric(rates_of(_tables(every.sum(axis=0))))
    together = _best(whole)
    found = Threshold(
        now,
        float(np.append(low, 1.0)[together if together is not None else chosen[0]]),
        float(whole[min(place, len(whole) - 1)]),
        float(np.mean(values)),
        float(np.mean(gains)),
    )
    return found if np.isfinite([found.value, found.would_be, found.gain]).all() else None


def _best(values: Floats) -> int | None:
    known = np.flatnonzero(np.isfinite(values))
    return int(known[np.argmax(values[known])]) if len(known) else None


def _tables(counts: Floats) -> Floats:
    """Return predicted x actual at each threshold, the bins from it on decided positive.

    Args:
        counts: (2, B).

    Returns:
        (B + 1, 2, 2); at the last one nothing is decided positive.
    """
    above = np.concatenate([counts[:, ::-1].cumsum(axis=1)[:, ::-1], np.zeros((2, 1))], axis=1)
    below = counts.sum(axis=1, keepdims=True) - above
    return np.moveaxis(np.stack([below, above]), -1, 0)
