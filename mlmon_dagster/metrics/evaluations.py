"""What is thought of a language model's answers: rates of good ones, and judges beside people.

People label a few calls and a judge nearly all. So a rate is post-stratified by what the judge
says: the sum over its answers of (share of all calls) x (rate among those of it that people
labelled), as in a stratified survey (Cochran, 1977, chapter 5A). A judge alone says what it thinks,
and is off by its own errors (Rogan and Gladen, 1978); those are measured on the same labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlmon_dagster.metrics import Flags, Floats
from mlmon_dagster.metrics.drift.attribution import same_explainer
from mlmon_dagster.metrics.frames import MetricRows, share_rows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import Z95, rate, wilson
from mlmon_dagster.metrics.late_truth.rectified import (
    METHOD,
    Interval,
    Strata,
    Worth,
    ratio,
    strata_by_answer,
)
from mlmon_dagster.metrics.means import Mean, mean_interval, mean_of, measure_ratio
from mlmon_dagster.metrics.performance.weighted_back import COMPLETE, replace_rows
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.names import ALL

# What a judge says, then what people say of the same call; of a call without a label the first.
VERDICTS = ("bad", "bad bad", "bad good", "good", "good bad", "good good")
OTHER_JUDGE = "other_judge"
BESIDE_JUDGE = f"{METHOD}@judge"
# Begin the names of what is counted of a conversation: good calls, calls, and both multiplied.
CLUSTERED = (":sum_of_calls/", ":calls/", ":sum_by_calls/")
_FEWEST_CLUSTERS = 2


@dataclass(frozen=True)
class Evaluated:
    """What is counted of one evaluation.

    Attributes:
        value: 1 of each good one and 0 of each bad one, or its numbers, over C cells.
        failed: 1 of each that failed and 0 of each that has a value.
        is_rate: Whether it is good or bad.
        judged: What its first judge says of the same calls, in the codes of `VERDICTS`; None if
            there is no judge.
        evaluator: Who gave it, over the cells; None where nobody says so.
        evaluator_then: The same of the baseline.
        clusters: What is counted of conversations, see `CLUSTERED`; () where calls are independent.
    """

    value: ColumnStatistics
    failed: ColumnStatistics
    is_rate: bool = True
    judged: ColumnStatistics | None = None
    evaluator: ColumnStatistics | None = None
    evaluator_then: ColumnStatistics | None = None
    clusters: tuple[ColumnStatistics, ...] = ()


def evaluation_metrics(
    evaluations: Mapping[str, Evaluated], judges: Mapping[str, ColumnStatistics]
) -> pd.DataFrame:
    """Measure evaluations by cell.

    Args:
        evaluations: Name -> what is counted of it.
        judges: Name of a judge's evaluation -> what it says beside people, in the same codes.

    Returns:
        MetricFrame; the evaluation is the column. good_rate with Wilson's interval, post-stratified
        where a judge spoke of more calls than people did; mean_value with Student's;
        evaluated_rate, failed_rate; of a judge judge_agreement, false_pass_rate and
        false_fail_rate, weighted back to all calls that it judged. n = evaluations, of a judge
        those that people labelled too. `reason` of a NaN: no_evaluations, no_bad (nothing that
        people call bad), no_good; `unsure` of a value: `OTHER_JUDGE`, given by another evaluator
        than the baseline's.
    """
    found = [rows for name, one in evaluations.items() for rows in _measure(name, one)]
    for judge, judged in judges.items():
        found += _measure_judge(judge, judged)
    return stack_rows(found)


def _measure(name: str, one: Evaluated) -> Iterator[MetricRows]:
    cells, known = one.value.cells, mean_of(one.value)
    n = known.n
    reason = np.where(n == 0, "no_evaluations", "")
    good = np.where(n > 0, np.clip(known.value * n, 0, n), 0.0)
    share = rate(good, n)
    variance = share * (1 - share) if one.is_rate else known.error**2 * n
    effect = _find_effect(cells, variance, one.clusters)
    if one.is_rate:
        lower, upper = wilson(good / effect, n / effect)
        found = table_rows(cells, "good_rate", share, lower, upper, n, reason, "wilson-1", name)
        if one.judged is not None:
            found = _weigh_back(found, one.judged, effect)
    else:
        # So many calls as `effect` says tell as much as one.
        n_alike = np.asarray(n / effect, np.int64)
        alike = Mean(known.value, known.error * np.sqrt(effect), n_alike)
        lower, upper = mean_interval(alike, -np.inf, np.inf)
        found = table_rows(cells, "mean_value", known.value, lower, upper, n, reason, "t-1", name)
    if one.evaluator is not None and one.evaluator_then is not None:
        found = found._replace(unsure=_other_judge(one.evaluator, one.evaluator_then))
    yield found
    yield share_rows(cells, name, "evaluated_rate", n, one.value.n)
    failed = mean_of(one.failed)
    bad = np.where(failed.n > 0, np.clip(failed.value * failed.n, 0, failed.n), 0.0)
    yield share_rows(one.failed.cells, name, "failed_rate", bad, failed.n, reason="no_evaluations")


def find_clusters(
    profiles: Mapping[str, ColumnStatistics], name: str
) -> tuple[ColumnStatistics, ...]:
    """Return what is counted of the conversations of an evaluation; () without conversations."""
    names = [f"{part}{name}" for part in CLUSTERED]
    return tuple(profiles[one] for one in names) if profiles.keys() >= set(names) else ()


def _find_effect(
    cells: pd.DataFrame, variance: Floats, clusters: tuple[ColumnStatistics, ...]
) -> Floats:
    """Return how many calls tell as much as one independent call, at least 1, of each cell.

    That is the design effect of a sample of conversations (Kish, 1965): the variance of a ratio of
    sums over conversations by that of as many independent calls. It is that of the whole window,
    also of slices. Where all calls are good, or none is, calls of one conversation may be alike.

    Args:
        cells: Of the calls, (C,).
        variance: Of what one call says, (C,).
        clusters: See `CLUSTERED`; () where calls are independent.
    """
    if not clusters:
        return np.ones(len(cells))
    said, calls, product = clusters
    m, n = calls.counts.sum(axis=1), calls.total
    _, squares = measure_ratio(said, calls, product)
    keys = ["window_start", "dataset", "model_version"]
    among = {"m": m, "among": rate(squares * rate(m, m - 1), n), "size": rate(calls.total_sq, n)}
    of_conversations = calls.cells.assign(**among)[calls.cells["slice_key"] == ALL]
    of_calls = cells[keys].assign(variance=variance)[cells["slice_key"] == ALL]
    matched = cells[keys]
    for known in (of_conversations[[*keys, *among]], of_calls):
        matched = matched.merge(known, on=keys, how="left")
    found = np.where(
        matched["variance"] > 0, rate(matched["among"], matched["variance"]), matched["size"]
    )
    effect: Floats = np.where(matched["m"] >= _FEWEST_CLUSTERS, np.fmax(found, 1.0), 1.0)
    return effect


def _other_judge(now: ColumnStatistics, then: ColumnStatistics) -> np.ndarray:
    """Say of which cells another evaluator spoke than the baseline's only one."""
    whole: Flags = np.asarray((now.cells["slice_key"] == ALL).to_numpy(), bool)
    is_other = np.zeros(len(now), bool)
    is_other[whole] = ~same_explainer(now, then)
    return np.where(is_other, OTHER_JUDGE, "")


def _weigh_back(rows: MetricRows, judged: ColumnStatistics, effect: Floats) -> MetricRows:
    """Replace the rate among labelled calls by that of all calls which the judge spoke of.

    Where nearly all labelled calls were judged, and more calls than these. So many calls as
    `effect` says tell as much as one.
    """
    strata = strata_of(judged)
    n = np.asarray(rows.n, np.int64)
    labelled, total = strata.labelled.sum(axis=1), strata.rows.sum(axis=1)
    fit = (labelled > 0) & (labelled >= COMPLETE * n) & (labelled < COMPLETE * total)
    places = np.flatnonzero(fit)
    counts = (strata.rows, strata.labelled, strata.successes)
    ends = rate_of_all(*((x / effect[:, None])[places] for x in counts))
    return replace_rows(rows, places, ends, method_version=BESIDE_JUDGE)


def rate_of_all(rows: Floats, labelled: Floats, successes: Floats) -> Interval:
    """Return a rate of all calls from those that people labelled, by what a judge says of them.

    Wilson's interval of each answer, combined by square-and-add (MOVER; Zou and Donner, 2008), and
    beside it the noise of the answers' shares. An answer that nobody labelled counts as one half,
    and may be anything from 0 to 1.

    Args:
        rows: Calls by answer of the judge, (C, G).
        labelled: Of these, those that people labelled.
        successes: Of these, those that count.

    Returns:
        NaN of cells without a label, (C,).
    """
    total = rows.sum(axis=1)
    share = np.nan_to_num(rate(rows, total[:, None]))
    is_known = labelled > 0
    mean = np.where(is_known, np.nan_to_num(rate(successes, labelled)), 0.5)
    ends = wilson(successes, np.maximum(labelled, 1))
    lower, upper = (
        np.where(is_known, end, bare) for end, bare in zip(ends, (0.0, 1.0), strict=True)
    )
    value = (share * mean).sum(axis=1)
    noise = Z95**2 * rate((share * (mean - value[:, None]) ** 2).sum(axis=1), total)
    down, up = (
        np.sqrt(((share * (end - mean)) ** 2).sum(axis=1) + noise) for end in (lower, upper)
    )
    known = np.where(is_known.any(axis=1), value, np.nan)
    return Interval(known, np.maximum(known - down, 0.0), np.minimum(known + up, 1.0))


def _measure_judge(name: str, judged: ColumnStatistics) -> Iterator[MetricRows]:
    """Measure how a judge errs on calls that people labelled, weighted back to all of its calls."""
    strata = strata_of(judged)
    says_good = np.array([0.0, 1.0])
    says_bad = 1 - says_good
    agreed = np.where(says_good > 0, strata.successes, strata.labelled - strata.successes)
    n = strata.labelled.sum(axis=1)
    ends = rate_of_all(strata.rows, strata.labelled, agreed)
    reason = np.where(n == 0, "no_evaluations", "")
    yield table_rows(
        judged.cells, "judge_agreement", *ends, n.astype(np.int64), reason, METHOD, name
    )
    asked: dict[str, tuple[Worth, Worth, str]] = {
        "false_pass_rate": ((0.0, says_good), (0.0, 1.0), "no_bad"),
        "false_fail_rate": ((says_bad, 0.0), (1.0, 0.0), "no_good"),
    }
    bad, good = strata.labelled - strata.successes, strata.successes
    of = {"no_bad": bad.sum(axis=1), "no_good": good.sum(axis=1)}
    for metric, (above, below, lacking) in asked.items():
        is_known = of[lacking] > 0
        ends = Interval(*(np.where(is_known, x, np.nan) for x in ratio(strata, above, below)))
        why = np.where(n == 0, "no_evaluations", lacking)
        yield table_rows(judged.cells, metric, *ends, n.astype(np.int64), why, METHOD, name)


def strata_of(judged: ColumnStatistics) -> Strata:
    """Return the calls by what the judge said of them, each of its two answers a stratum."""
    counts: Floats = judged.counts[:, : len(VERDICTS)].reshape(len(judged), 2, 3).astype(np.float64)
    return strata_by_answer(counts.sum(axis=2), counts[:, :, 1:].sum(axis=2), counts[:, :, 2])
