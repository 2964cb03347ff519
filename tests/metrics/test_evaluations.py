"""Rates from many judgements and few labels: equal to sums by hand, and their intervals hold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.metrics.evaluations import (
    BESIDE_JUDGE,
    CLUSTERED,
    OTHER_JUDGE,
    VERDICTS,
    Evaluated,
    evaluation_metrics,
)
from mlmon_dagster.metrics.intervals import wilson
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles import bin_shapes
from tests.metrics.rows import make_spec, measured
from tests.metrics.samples import statistics

SPEC = make_spec(
    "generation",
    {},
    evaluations={
        "correct": {"by": "human", "good": ["yes"]},
        "faithful": {"by": "judge", "of": "correct", "good": ["yes"]},
        "length": {"by": "code"},
    },
)
RATES = (0.7, 0.9, 0.97)
JUDGES = ((0.9, 0.85), (0.95, 0.8), (0.6, 0.6), (0.97, 0.9))  # sensitivity, specificity


class Calls(NamedTuple):
    """Calls of C windows: by what the judge says and people (nothing, bad, good), (C, 2, 3)."""

    counts: np.ndarray
    good: np.ndarray  # share that really is good, of each


def draw_calls(
    seed: int, rate: float, judge: tuple[float, float], n: int, labels: int, draws: int,
    *, more_of_bad: float = 1.0,
) -> Calls:  # fmt: skip
    """Draw windows of n judged calls; people label some, maybe more of those called bad."""
    rng = np.random.default_rng(seed)
    sensitivity, specificity = judge
    good = rng.binomial(n, rate, draws)
    passed = rng.binomial(good, sensitivity)
    let_by = rng.binomial(n - good, 1 - specificity)
    cells = np.stack([n - good - let_by, good - passed, let_by, passed], axis=1)
    weights = np.array([more_of_bad, more_of_bad, 1.0, 1.0])
    chosen = np.array([
        rng.multivariate_hypergeometric(row, labels) if more_of_bad == 1
        else np.minimum(rng.multinomial(labels, row * weights / (row * weights).sum()), row)
        for row in cells
    ])  # fmt: skip
    counts = np.zeros((draws, 2, 3), np.int64)
    for i in range(4):
        counts[:, i // 2, 1 + i % 2] = chosen[:, i]
        counts[:, i // 2, 0] += cells[:, i] - chosen[:, i]
    return Calls(counts, good / n)


def judged_of(counts: np.ndarray) -> ColumnStatistics:
    """Return the profile of what a judge says beside people, over C windows."""
    names = bin_shapes.categorical_binning(":judged/faithful", VERDICTS)
    flat = np.hstack([counts.reshape(len(counts), 6), np.zeros((len(counts), 2), np.int64)])
    return statistics(names, flat)


def shares_of(n: np.ndarray, ones: np.ndarray, rows: np.ndarray, name: str) -> ColumnStatistics:
    """Return the profile of a column of 0 and 1: how many have a value, and how many are 1."""
    total = ones.astype(float)
    return statistics(
        bin_shapes.loss_binning(name, 1.0), n[:, None], n=rows, n_null=rows - n, total=total,
        total_sq=total,
    )  # fmt: skip


def measure(calls: Calls) -> pd.DataFrame:
    """Return the metrics of drawn calls, by metric and window."""
    counts = calls.counts
    rows, labelled = counts.sum(axis=(1, 2)), counts[:, :, 1:].sum(axis=(1, 2))
    value = shares_of(labelled, counts[:, :, 2].sum(axis=1), rows, ":outcome/correct")
    failed = shares_of(labelled, np.zeros_like(rows), rows, ":unjudged/correct")
    judged = judged_of(counts)
    frame = evaluation_metrics(
        {"correct": Evaluated(value, failed, judged=judged)}, {"faithful": judged}
    )
    return frame.set_index(["metric", "window_start"]).sort_index()


def test_a_rate_is_the_sum_over_answers_of_share_times_rate_among_labelled() -> None:
    counts = np.array([[[300, 30, 10], [500, 8, 152]]])
    found = measure(Calls(counts, np.array([np.nan]))).loc["good_rate"].iloc[0]
    by_hand = 340 / 1000 * 10 / 40 + 660 / 1000 * 152 / 160
    assert found["value"] == pytest.approx(by_hand, rel=1e-12)
    assert found["method_version"] == BESIDE_JUDGE
    assert found["n"] == 200


def test_without_a_judge_a_rate_is_wilsons() -> None:
    rows = np.array([500])
    value = shares_of(np.array([40]), np.array([33]), rows, ":outcome/correct")
    frame = evaluation_metrics({"correct": Evaluated(value, value)}, {})
    found = frame[frame["metric"] == "good_rate"].iloc[0]
    assert [found["lower"], found["upper"]] == pytest.approx([*map(float, wilson(33, 40))])


def test_how_a_judge_errs_is_weighted_back_to_all_calls_that_it_judged() -> None:
    """People looked at more of what the judge called bad, which is no reason to call it worse."""
    counts = np.array([[[100, 60, 40], [780, 2, 18]]])
    frame = measure(Calls(counts, np.array([np.nan]))).reset_index().set_index("metric")
    agreed = 200 / 1000 * 60 / 100 + 800 / 1000 * 18 / 20
    assert frame.loc["judge_agreement", "value"] == pytest.approx(agreed)


@pytest.mark.parametrize(("rate", "labels"), [(0.7, 40), (0.7, 100), (0.9, 100), (0.97, 200)])
def test_how_often_a_judge_errs_is_right_on_average_where_more_of_the_bad_is_looked_at(
    rate: float, labels: int
) -> None:
    """A quotient of two shares that vary would be too low by up to .02 here."""
    sensitivity, specificity = 0.9, 0.85
    found = measure(draw_calls(5, rate, (sensitivity, specificity), 2_000, labels, 1_500,
                               more_of_bad=4.0))  # fmt: skip
    for metric, truth in (
        ("false_pass_rate", 1 - specificity),
        ("false_fail_rate", 1 - sensitivity),
    ):
        assert abs(found.loc[metric]["value"].mean() - truth) < 0.01


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("judge", JUDGES[:2])
@pytest.mark.parametrize("labels", [20, 50, 100, 200])
def test_intervals_hold_the_truth(rate: float, judge: tuple[float, float], labels: int) -> None:
    """.93 to .985 in the long run; of 2,000 draws within three standard errors of that."""
    calls = draw_calls(round(rate * 1e4 + labels), rate, judge, 2_000, labels, 2_000)
    found = measure(calls).loc["good_rate"]
    held = ((found["lower"] <= rate) & (rate <= found["upper"])).mean()
    assert 0.93 - 3 * 0.0057 <= held <= 0.985 + 3 * 0.0027
    assert abs((found["value"] - calls.good).mean()) < 0.01


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("judge", JUDGES[2:])
@pytest.mark.parametrize("labels", [20, 200])
def test_a_useless_or_excellent_judge_makes_no_interval_too_short(
    rate: float, judge: tuple[float, float], labels: int
) -> None:
    calls = draw_calls(round(rate * 1e4 + labels), rate, judge, 2_000, labels, 2_000)
    found = measure(calls).loc["good_rate"]
    assert ((found["lower"] <= rate) & (rate <= found["upper"])).mean() >= 0.915


def test_50_labels_beside_a_judge_are_worth_at_least_80() -> None:
    """A plain rate needs so many labels for an interval as narrow."""
    calls = draw_calls(7, 0.7, (0.9, 0.85), 2_000, 50, 2_000)
    found = measure(calls).loc["good_rate"]
    width = (found["upper"] - found["lower"]).mean()
    plain = {n: np.diff(wilson(round(0.7 * n), n)).item() for n in range(40, 200)}
    assert min(n for n, wide in plain.items() if wide <= width) >= 80


def test_a_rate_by_another_judge_than_the_baselines_is_not_compared() -> None:
    """A changed judge says nothing of the model; its value is shown and judged by nobody."""
    rows = np.array([100, 100])
    value = shares_of(rows, np.array([80, 50]), rows, ":outcome/faithful")
    who = bin_shapes.categorical_binning(":evaluator/faithful", ["judge/1", "judge/2"])
    now = statistics(who, np.array([[100, 0, 0, 0], [0, 100, 0, 0]]))
    then = statistics(who, np.array([[900, 0, 0, 0]]))
    one = Evaluated(value, value, evaluator=now, evaluator_then=then)
    frame = evaluation_metrics({"faithful": one}, {})
    found = frame[frame["metric"] == "good_rate"]
    assert found["value"].tolist() == [0.8, 0.5]
    assert found["reason"].tolist() == ["", OTHER_JUDGE]


def test_every_metric_equals_a_count_of_the_rows() -> None:
    """From rows through the real SQL: shares, means, failures and who judged, by hand in pandas."""
    rng = np.random.default_rng(4)
    n = 900
    rows = pd.DataFrame({"day": rng.integers(0, 3, n), "site": rng.choice(["a", "b"], n)})
    rows["faithful"] = np.where(rng.random(n) < 0.9, (rng.random(n) < 0.7) * 1.0, np.nan)
    rows["faithful.error"] = np.where(rows["faithful"].isna(), "rate limit", None)
    rows["correct"] = np.where(
        rows["faithful"].notna() & (rng.random(n) < 0.1), (rng.random(n) < 0.8) * 1.0, np.nan
    )
    rows["length"] = rng.normal(40, 9, n)
    frame = measured(SPEC, rows, rows, ["performance"])
    whole = frame[frame["slice_key"] == "all"].set_index(["day", "column_name", "metric"])
    for day, mine in rows.groupby("day"):
        found = whole.loc[day]["value"]
        assert found["faithful", "good_rate"] == pytest.approx(mine["faithful"].mean(), rel=1e-12)
        assert found["length", "mean_value"] == pytest.approx(mine["length"].mean(), rel=1e-9)
        assert found["faithful", "evaluated_rate"] == pytest.approx(mine["faithful"].notna().mean())
        assert found["faithful", "failed_rate"] == pytest.approx(mine["faithful"].isna().mean())
        by_answer = mine.groupby("faithful")["correct"]
        share = mine["faithful"].dropna().mean()
        rates = by_answer.mean()
        by_hand = (1 - share) * rates[0.0] + share * rates[1.0]
        assert found["correct", "good_rate"] == pytest.approx(by_hand, rel=1e-12)
        agreed = (1 - share) * (1 - rates[0.0]) + share * rates[1.0]
        assert found["faithful", "judge_agreement"] == pytest.approx(agreed, rel=1e-12)


def test_a_judge_of_whom_people_call_nothing_bad_has_no_false_passes() -> None:
    frame = measure(Calls(np.array([[[0, 0, 0], [90, 0, 10]]]), np.array([np.nan])))
    assert frame.loc["false_pass_rate", "reason"].tolist() == ["no_bad"]
    assert frame.loc["judge_agreement", "value"].tolist() == [1.0]


def sums_over(values: np.ndarray, name: str) -> ColumnStatistics:
    """Return the profile of a number of each conversation, NaN where it has none, (C, M)."""
    n = np.isfinite(values).sum(axis=1)
    return statistics(
        bin_shapes.loss_binning(name, 1.0), n[:, None], n=np.full(len(values), values.shape[1]),
        n_null=values.shape[1] - n, total=np.nansum(values, axis=1),
        total_sq=np.nansum(values**2, axis=1),
    )  # fmt: skip


@pytest.mark.parametrize("rate", [0.7, 0.9])
@pytest.mark.parametrize("alike", [0.0, 0.3, 0.9])
def test_intervals_hold_the_truth_where_calls_of_a_conversation_are_alike(
    rate: float, alike: float
) -> None:
    """Of 150 conversations of four calls on average; as independent calls only where they are."""
    rng = np.random.default_rng(round(100 * rate + 10 * alike))
    calls = rng.geometric(0.25, (2_000, 150)).astype(float)
    spread = (1 - alike) / max(alike, 1e-9)
    chance = rng.beta(rate * spread, (1 - rate) * spread, calls.shape) if alike else rate
    good = rng.binomial(calls.astype(int), chance).astype(float)
    n, ones = calls.sum(axis=1).astype(int), good.sum(axis=1)
    value = shares_of(n, ones, n, ":outcome/correct")
    clusters = tuple(
        sums_over(values, name)
        for name, values in zip(CLUSTERED, (good, calls, good * calls), strict=True)
    )

    def hold(one: Evaluated) -> float:
        found = evaluation_metrics({"correct": one}, {})
        found = found[found["metric"] == "good_rate"]
        return float(((found["lower"] <= rate) & (rate <= found["upper"])).mean())

    assert 0.93 - 3 * 0.0057 <= hold(Evaluated(value, value, clusters=clusters)) <= 0.985
    assert (hold(Evaluated(value, value)) > 0.93) == (alike == 0)


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.9])
def test_intervals_of_a_mean_hold_where_calls_of_a_conversation_are_alike(alike: float) -> None:
    """Numbers of 1 to 5, say; as independent calls they hold only where they are."""
    rng = np.random.default_rng(round(10 * alike))
    calls = rng.geometric(0.25, (2_000, 150)).astype(float)
    among = np.sqrt(alike) * rng.normal(size=calls.shape)
    within = np.sqrt((1 - alike) / calls) * rng.normal(size=calls.shape)
    said = (3.5 + among + within) * calls
    n = calls.sum(axis=1).astype(int)
    # The squares of single calls: of their conversation's mean, and around it.
    around = (1 - alike) * rng.chisquare(calls - 1 + 1e-9)
    squares = (said**2 / calls + around).sum(axis=1)
    value = statistics(
        bin_shapes.loss_binning(":outcome/rating", 1.0), n[:, None], n=n,
        total=said.sum(axis=1), total_sq=squares,
    )  # fmt: skip
    clusters = tuple(
        sums_over(values, name)
        for name, values in zip(CLUSTERED, (said, calls, said * calls), strict=True)
    )

    def hold(one: Evaluated) -> float:
        found = evaluation_metrics({"rating": one}, {})
        found = found[found["metric"] == "mean_value"]
        return float(((found["lower"] <= 3.5) & (found["upper"] >= 3.5)).mean())

    assert 0.93 - 3 * 0.0057 <= hold(Evaluated(value, value, False, clusters=clusters)) <= 0.985
    assert (hold(Evaluated(value, value, False)) > 0.93) == (alike == 0)


def test_conversations_are_counted_from_the_rows_and_a_call_without_one_stands_alone() -> None:
    rows = pd.DataFrame(
        {
            "day": 0,
            "site": ["x", "x", "x", "y", "y", "y", "x"],
            "group": ["c1", "c1", "c1", "c2", "c2", None, None],
            "correct": [1.0, 1, 1, 0, 0, 1, None],
        }
    )
    spec = make_spec(
        "generation", {"group": "talk"}, slices=["site"],
        evaluations={"correct": {"by": "human", "good": ["yes"]}},
    )  # fmt: skip
    found = measured(spec, rows, rows).set_index(["metric", "slice_value"]).loc["good_rate"]
    n, good = np.array([3, 2, 1.0]), np.array([3, 0, 1.0])
    p = 4 / 6
    effect = ((good - p * n) ** 2).sum() * 3 / 2 / (p * (1 - p) * 6)
    expected = [*map(float, wilson(4 / effect, 6 / effect))]
    assert found.loc["all", ["lower", "upper"]].tolist() == pytest.approx(expected)
    of_slice = [*map(float, wilson(1 / effect, 3 / effect))]
    assert found.loc["y", ["lower", "upper"]].tolist() == pytest.approx(of_slice)
    assert found.loc["all", "n"] == 6
