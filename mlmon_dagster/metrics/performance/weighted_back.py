"""Performance of a binary classifier whose labels are a chosen subset, of all its predictions.

A cell with labels for less than `COMPLETE` of its predictions is post-stratified: by the score and
the decision, or by the decision alone where there is no score (see `late_truth.rectified`). If
labels come at random this changes nothing but chance; if they were chosen by the score it takes
away what the choice did. Areas weigh every labelled row by how many rows of its stratum it stands
for; their intervals count as many rows as have the weights' effective size (Kish, 1965).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from mlmon_dagster.metrics import Flags, Floats, Ints
from mlmon_dagster.metrics.binnings import label_counts, score_midpoints
from mlmon_dagster.metrics.frames import MetricRows
from mlmon_dagster.metrics.intervals import rate
from mlmon_dagster.metrics.late_truth.rectified import (
    METHOD,
    WHOLE,
    Asked,
    Interval,
    Strata,
    correlate,
    mean,
    ratio,
    ratios,
    strata_by_answer,
    strata_by_score,
)
from mlmon_dagster.metrics.performance.roc import RocAuc, roc_auc
from mlmon_dagster.metrics.statistics import CELL_KEYS, ColumnStatistics

COMPLETE = 0.95  # share of predictions with a label from which on the rest can change little
DECIDED = ":decided_score"  # the score of the rows that were decided positive
EXEMPT = ":exempt/"  # begins the names of outputs of the rows that ground truth never comes for
Classes = tuple[Ints, Ints] | tuple[Floats, Floats]  # rows per bin of negatives and positives
UNLABELLED_SCORES = "unlabelled_scores"
_FINE = 50  # strata of an area, whose rows are weighed by nothing else
_MOST_UNLABELLED = 0.05  # share of the rows, in strata without a label, that an area does without
_MOST_CORRELATED = 1 - 1e-9
_EDGE = 1e-6  # how near an area comes to 0 and 1 on a logit scale
FEWEST = 20  # rows of the rarer class that labels must tell as much as, for what hangs on it
# Below, a row or two that stand for many others decide, and their intervals are too short.
OF_RARER = (
    "precision", "recall", "specificity", "f1", "balanced_accuracy", "mcc", "brier", "log_loss",
)  # fmt: skip
_DECISIONS_DIFFER = 0.01  # share of the rows with a decision and no score, or the other way round


# What a score was worth of a row that came true, and of one that did not.
WORTHS: dict[str, Callable[[Floats], tuple[Floats, Floats]]] = {
    "brier": lambda score: ((1 - score) ** 2, score**2),
    "log_loss": lambda score: (-np.log(score), -np.log1p(-score)),
    "calibration_gap": lambda score: (score - 1, score),
}
_POSITIVE = 0.0, np.inf
_ENDS = {"calibration_gap": (-1.0, 1.0)}  # between which a mean lies, if not anywhere above 0
_BOTH = "decided and true"


def leave_out_exempt(profiles: Mapping[str, ColumnStatistics]) -> dict[str, ColumnStatistics]:
    """Return the columns without the rows of which no ground truth is ever expected.

    These are neither missing nor what labelled rows stand for.

    Args:
        profiles: Column -> statistics, and of some the same of exempt rows, see `EXEMPT`.
    """
    found = {name: stats for name, stats in profiles.items() if not name.startswith(EXEMPT)}
    for name, stats in found.items():
        exempt = profiles.get(EXEMPT + name)
        if exempt is not None:
            found[name] = replace(
                stats, counts=stats.counts - exempt.counts, n=stats.n - exempt.counts.sum(axis=1)
            )
    return found


def is_partly_labelled(counts: Ints) -> Flags:
    """Say which cells have labels for some rows, but for too few to count as all, (C,).

    Args:
        counts: Rows by bin and label state, (C, B, 3).
    """
    n = counts.sum(axis=(1, 2))
    labelled = n - counts[:, :, 0].sum(axis=1)
    return np.asarray((labelled > 0) & (labelled < COMPLETE * n))


@dataclass(frozen=True)
class PartlyLabelled:
    """The cells among C whose labels may be a chosen subset.

    Attributes:
        places: Which they are, ascending, (P,).
        strata: Their rows.
        scores: A typical score of each bin of the strata, (B,).
        decided: Whether rows of a bin were decided positive, (B,), 0 or 1; all 0 if not split.
    """

    places: Ints
    strata: Strata
    scores: Floats
    decided: Floats

    def has_few_of_rarer(self) -> Flags:
        """Say where labels tell as much as fewer than `FEWEST` rows of the rarer class, (P,)."""
        rows = [side.sum(axis=1) for side in effective_counts(self.strata).each]
        return np.asarray(np.minimum(*rows) < FEWEST)

    def gaps(self) -> tuple[Floats, Floats]:
        """Return by how much scores are above the rate of each stratum, and the noise of that.

        Both (P, G), weighted by the stratum's share of the rows that labels speak for; the noise
        is that of calibrated scores.
        """
        known = self.strata.with_labels_only()
        rows, n = known.add(known.rows), known.add(known.labelled)
        share = rate(rows, rows.sum(axis=1, keepdims=True))
        s = self.scores
        expected = rate(known.add(known.rows * s), rows)
        variance = rate(known.add(known.rows * s * (1 - s)), rows)
        gap = share * np.nan_to_num(expected - known.rates())
        return gap, share * np.nan_to_num(np.sqrt(rate(variance, n)))


def by_score(score: ColumnStatistics) -> PartlyLabelled | None:
    """Return the partly labelled cells of a score; None if there are none."""
    counts = label_counts(score.counts)
    places = np.flatnonzero(is_partly_labelled(counts))
    return _stratified(places, [counts[places]], score_midpoints(score.binning))


def by_decision(
    confusion: ColumnStatistics, score: ColumnStatistics | None, decided: ColumnStatistics | None
) -> list[PartlyLabelled]:
    """Return the partly labelled cells of decisions, by score where that is known of all of them.

    Args:
        confusion: Decisions by actual.
        score: Score bins by actual, of the same or other cells.
        decided: Of these, the rows that were decided positive.
    """
    counts = label_counts(confusion.counts)
    places = np.flatnonzero(is_partly_labelled(counts))
    if not len(places):
        return []
    scored = np.zeros(len(places), bool)
    found = []
    if score is not None and decided is not None:
        where = [_positions(confusion.cells, stats.cells, places) for stats in (score, decided)]
        has_both = (where[0] >= 0) & (where[1] >= 0)
        rows = [
            label_counts(stats.counts)[np.maximum(at, 0)]
            for stats, at in zip((score, decided), where, strict=True)
        ]
        mine = counts[places]
        n = mine.sum(axis=(1, 2))
        apart = np.abs(rows[0].sum(axis=(1, 2)) - n)
        apart = apart + np.abs(rows[1].sum(axis=(1, 2)) - mine[:, 1].sum(axis=1))
        scored = has_both & (apart <= _DECISIONS_DIFFER * n)
        sides = [(rows[0] - rows[1])[scored], rows[1][scored]]
        one = _stratified(places[scored], sides, score_midpoints(score.binning))
        found += [one] if one is not None else []
    rest = counts[places[~scored]].astype(np.float64)
    if len(rest):
        strata = strata_by_answer(rest.sum(axis=2), rest[:, :, 1:].sum(axis=2), rest[:, :, 2])
        sides_of = np.array([0.0, 1.0])
        found.append(PartlyLabelled(places[~scored], strata, sides_of, sides_of))
    return found


def _positions(cells: pd.DataFrame, others: pd.DataFrame, places: Ints) -> Ints:
    if cells is others:
        return places
    keys = list(CELL_KEYS)
    known = pd.MultiIndex.from_frame(others[keys])
    return np.asarray(known.get_indexer(pd.MultiIndex.from_frame(cells[keys].iloc[places])))


def _stratified(places: Ints, sides: Sequence[Ints], scores: Floats) -> PartlyLabelled | None:
    if not len(places):
        return None
    rows = np.stack(sides, axis=1).astype(np.float64)  # (P, D, S, 3)
    strata = strata_by_score(rows.sum(axis=3), rows[..., 1:].sum(axis=3), rows[..., 2], scores)
    decided = np.repeat(np.arange(len(sides), dtype=np.float64), len(scores))
    return PartlyLabelled(places, strata, np.tile(scores, len(sides)), decided)


def weigh_back(
    metrics: Sequence[MetricRows], part: PartlyLabelled, values: Mapping[str, Interval]
) -> list[MetricRows]:
    """Return metrics of C cells with those of all rows in place of those of the labelled ones.

    Args:
        metrics: Of all cells, a partly labelled one's from its labelled rows.
        part: The partly labelled cells.
        values: Metric -> its value over all their rows; a metric without stays as it is.
    """
    few = part.has_few_of_rarer()
    return [
        replace_rows(rows, part.places, values[metric], few & (metric in OF_RARER))
        if (metric := str(rows.metric)) in values
        else rows
        for rows in metrics
    ]


def score_metrics(found: PartlyLabelled, plain: Mapping[str, Floats]) -> dict[str, Interval]:
    """Return the means over all rows of what scores were worth.

    Args:
        found: By score.
        plain: Mean of ``brier``, ``log_loss`` and ``calibration_gap`` over the labelled rows of the
            cells, (P,), exact: what bins say of the same rows is off by a little, which is taken
            off.
    """
    # Where no label speaks for a score, nothing is known of how far off it is.
    known = found.strata.with_labels_only()
    asked = {
        metric: Asked(WORTHS[metric](found.scores), WHOLE, *_ENDS.get(metric, _POSITIVE))
        for metric in plain
    }
    of_all = {metric: one for metric, one in asked.items() if metric != "calibration_gap"}
    of_all["actual_rate"] = Asked((1.0, 0.0))
    results = dict(zip(of_all, ratios(found.strata, list(of_all.values())), strict=True))
    if "calibration_gap" in asked:
        results["calibration_gap"] = ratio(known, *asked["calibration_gap"])
    labelled, successes = found.strata.labelled, found.strata.successes
    n = labelled.sum(axis=1)
    for metric, exact in plain.items():
        above, _, low, high = asked[metric]
        true, false = (np.asarray(worth, np.float64) for worth in above)
        off = exact - rate(successes @ true + (labelled - successes) @ false, n)
        results[metric] = Interval(*(np.clip(x + off, low, high) for x in results[metric]))
    return results


def decision_metrics(found: PartlyLabelled) -> dict[str, Interval]:
    """Return the metrics of decisions over all rows."""
    d = found.decided
    none, one = np.zeros_like(d), np.ones_like(d)
    strata = found.strata
    asked = {
        "accuracy": Asked((d, 1 - d)),
        "actual_rate": Asked((one, none)),
        "precision": Asked((d, none), (d, d)),
        "recall": Asked((d, none), (one, none)),
        "specificity": Asked((none, 1 - d), (none, one)),
        "f1": Asked((2 * d, none), (1 + d, d)),
        _BOTH: Asked((d, none)),
    }
    results = dict(zip(asked, ratios(strata, list(asked.values())), strict=True))
    recall, specificity = results["recall"], results["specificity"]
    value = (recall.value + specificity.value) / 2
    together = correlate(strata, asked["recall"], asked["specificity"])
    down, up = (
        np.sqrt(x**2 + y**2 + 2 * together * x * y) / 2
        for x, y in (
            (recall.value - recall.lower, specificity.value - specificity.lower),
            (recall.upper - recall.value, specificity.upper - specificity.value),
        )
    )
    results["balanced_accuracy"] = Interval(value, value - down, value + up)
    results["mcc"] = _correlation(found, results["actual_rate"].value, results.pop(_BOTH).value)
    return results


def _correlation(found: PartlyLabelled, base: Floats, both: Floats) -> Interval:
    """Matthews' correlation of decision and truth, by the delta method on Fisher's scale.

    With P decided positive, Q true and T both it is (T - P Q) / root of P (1 - P) Q (1 - Q).
    """
    d, rows = found.decided, found.strata.rows
    decided = rate((rows * d).sum(axis=1), rows.sum(axis=1))
    scale = np.sqrt(decided * (1 - decided) * base * (1 - base))
    value = np.clip(rate(both - decided * base, scale), -_MOST_CORRELATED, _MOST_CORRELATED)
    p, q, r = decided[:, None], base[:, None], value[:, None]
    of_both = rate(1.0, scale)[:, None]
    of_decided = -q * of_both - r * rate(1 - 2 * p, 2 * p * (1 - p))
    of_true = -p * of_both - r * rate(1 - 2 * q, 2 * q * (1 - q))
    worth = (
        np.nan_to_num(d * of_both + of_true + of_decided * d),
        np.nan_to_num(of_decided * d),
    )
    middle, lower, upper = mean(found.strata, worth, -np.inf, np.inf)
    steep = 1 - value**2
    ends = (np.tanh(np.arctanh(value) + (end - middle) / steep) for end in (lower, upper))
    return Interval(value, *ends)


class Effective(NamedTuple):
    """Negatives and positives of each bin, as many as tell as much, (P, B) each.

    A labelled row stands for all rows of its stratum over the labelled ones. The sum of these
    weights is brought down to their effective size, (sum of w) ** 2 / sum of w ** 2.

    Attributes:
        negatives: In proportion to `positives`, by the class in which the effective size is less.
        positives: See `negatives`.
        each: Both, each brought down to its own effective size; for what is of no proportion.
    """

    negatives: Floats
    positives: Floats
    each: tuple[Floats, Floats]


def effective_counts(strata: Strata) -> Effective:
    """Weigh the labelled rows of each class by stratum."""
    weights = strata.weights()
    classes = [(strata.labelled - strata.successes) * weights, strata.successes * weights]
    factors = [
        np.nan_to_num(rate(side.sum(axis=1), (side * weights).sum(axis=1)))[:, None]
        for side in classes
    ]
    has_both = np.minimum(*factors) > 0
    least = np.where(has_both, np.minimum(*factors), np.maximum(*factors))
    negatives, positives = (side * factor for side, factor in zip(classes, factors, strict=True))
    return Effective(classes[0] * least, classes[1] * least, (negatives, positives))


def areas_known(found: PartlyLabelled) -> Flags:
    """Say where areas are those of all rows but few: labels are among all scores, (P,)."""
    return np.asarray(found.strata.unlabelled_share() <= _MOST_UNLABELLED)


def area_counts(score: ColumnStatistics, places: Ints) -> Effective:
    """Return what areas of the partly labelled cells are computed from, see `effective_counts`."""
    return effective_counts(_fine_strata(score, places))


def _fine_strata(score: ColumnStatistics, places: Ints) -> Strata:
    rows = label_counts(score.counts)[places].astype(np.float64)[:, None]
    scores = score_midpoints(score.binning)
    return strata_by_score(rows.sum(axis=3), rows[..., 1:].sum(axis=3), rows[..., 2], scores, _FINE)


def centre_areas(area: RocAuc, score: ColumnStatistics, places: Ints) -> RocAuc:
    """Return the areas of partly labelled cells over all their rows, and those of other cells.

    A labelled row that stands for many others stands at its own score alone: labels of a narrow
    stretch of scores would bring classes nearer than they are. So negatives and positives are what
    the score, recalibrated, lets expect of all rows of each bin, and what labelled rows differ from
    that, weighed; with every row labelled these are the rows themselves.

    The interval is that of the mean over all rows of what a row does to the area, by its score and
    whether it comes true (the delta method; DeLong, DeLong and Clarke-Pearson, 1988, have the same
    of rows that are all labelled), on a logit scale. It is at least as long as that of as many rows
    as the labelled tell as much as: of few rows and areas near 1 the delta method's is too short.

    Args:
        area: Of all cells, of weighed rows.
        score: Score bins by actual.
        places: The partly labelled cells.
    """
    strata = _fine_strata(score, places)
    e, weights = strata.expected, strata.weights()
    failures = strata.labelled - strata.successes
    positives = strata.rows * e + weights * (strata.successes - strata.labelled * e)
    negatives = strata.rows * (1 - e) + weights * (failures - strata.labelled * (1 - e))
    found = np.clip(roc_auc(negatives, positives).value, _EDGE, 1 - _EDGE)
    middle, *ends = _mean_effect(strata, negatives, positives, found)
    value, lower, upper = (np.array(x) for x in area[:3])
    centre = special.logit(np.clip(value[places], _EDGE, 1 - _EDGE))
    at, steep = special.logit(found), found * (1 - found)
    for target, end, choose in ((lower, ends[0], np.fmin), (upper, ends[1], np.fmax)):
        by_rows = special.logit(np.clip(target[places], _EDGE, 1 - _EDGE)) - centre
        by_strata = (end - middle) / steep
        target[places] = special.expit(at + choose(by_rows, by_strata))
    value[places] = np.where(np.isfinite(value[places]), found, np.nan)
    return RocAuc(value, lower, upper, area.bound)


def _mean_effect(strata: Strata, negatives: Floats, positives: Floats, area: Floats) -> Interval:
    """Return the mean of what rows do to an area, which is 0, and its interval, each (P,)."""
    n, p = (side.sum(axis=1, keepdims=True) for side in (negatives, positives))
    below = rate(np.cumsum(negatives, axis=1) - negatives / 2, n)
    above = 1 - rate(np.cumsum(positives, axis=1) - positives / 2, p)
    total = strata.rows.sum(axis=1, keepdims=True)
    worth = (
        np.nan_to_num(rate((below - area[:, None]) * total, p)),
        np.nan_to_num(rate((above - area[:, None]) * total, n)),
    )
    return mean(strata, worth, -np.inf, np.inf)


def with_rows(classes: Classes, part: PartlyLabelled, others: Classes) -> Classes:
    """Put other rows of negatives and positives, by bin, in the place of those of some cells."""
    negatives, positives = (np.array(side, np.float64) for side in classes)
    negatives[part.places], positives[part.places] = others
    return negatives, positives


def replace_rows(
    rows: MetricRows,
    places: Ints,
    found: Interval,
    has_few: Flags | None = None,
    method_version: str = METHOD,
) -> MetricRows:
    """Return one metric of C cells with other values at some places, (P,).

    What has no value stays without one, for its own reason.

    Args:
        rows: The metric.
        places: Whose values are others.
        found: These.
        has_few: Which of them rest on too few rows of the rarer class to be judged, (P,).
        method_version: How they were computed.
    """
    size = len(rows.cells)
    value, lower, upper = (
        np.array(np.broadcast_to(np.asarray(x, np.float64), size))
        for x in (rows.value, rows.lower, rows.upper)
    )
    method, unsure = (
        np.array(np.broadcast_to(np.asarray(x, object), size))
        for x in (rows.method_version, rows.unsure)
    )
    has_value = np.isfinite(value[places]) & np.isfinite(found.value)
    chosen = places[has_value]
    for target, ends in zip((value, lower, upper), found, strict=True):
        target[chosen] = ends[has_value]
    method[chosen] = method_version
    if has_few is not None:
        bare = places[has_value & has_few]
        lower[bare] = upper[bare] = np.nan
        unsure[bare] = "few_of_rarer_class"
    return rows._replace(
        value=value, lower=lower, upper=upper, method_version=method.tolist(),
        unsure=unsure.astype(str),
    )  # fmt: skip
