"""How far windows stray: against scikit-learn, Welch's test and the equation that defines it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from mlmon_dagster.metrics import FEWEST_WINDOWS
from mlmon_dagster.metrics.frames import stack_rows
from mlmon_dagster.metrics.means import mean_rows
from mlmon_dagster.metrics.performance.binary import performance_metrics
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics, concat
from mlmon_dagster.metrics.windows.clusters import (
    SERIES,
    USUAL,
    beyond_usual,
    change,
    margin_beside,
    standard_errors,
    usual_windows,
)
from tests.metrics.samples import cells, confusion_statistics, score_statistics, statistics

EXACT = 1e-12
BINS = 8


def binary(profiles):
    return performance_metrics(profiles.get("score"), profiles.get("prediction"))


def of_all(frame: pd.DataFrame, metric: str, slice_value: str = "all"):
    return frame.xs((metric, slice_value), level=("metric", "slice_value")).iloc[0]


def scored(rng: np.random.Generator, windows: int) -> tuple[dict, pd.DataFrame]:
    """Windows of unequal size whose rows share a shift, and the rows."""
    rows = pd.DataFrame({"window": np.repeat(np.arange(windows), rng.integers(40, 200, windows))})
    shift = rng.normal(0, 0.5, windows)[rows["window"]]
    rows["actual"] = rng.random(len(rows)) < 0.4
    place = 3.5 + rows["actual"] + shift + rng.normal(0, 1.2, len(rows))
    rows["bin"] = np.clip(np.round(place), 0, BINS - 1).astype(int)
    rows["decided"] = rows["bin"] > 4
    tables = [
        np.array([np.bincount(part.loc[part["actual"] == state, "bin"], minlength=BINS)
                  for _, part in rows.groupby("window")])
        for state in (False, True)
    ]  # fmt: skip
    negatives, positives = tables
    decisions = confusion_statistics(
        tn=negatives[:, :5].sum(axis=1), fp=negatives[:, 5:].sum(axis=1),
        fn=positives[:, :5].sum(axis=1), tp=positives[:, 5:].sum(axis=1),
    )  # fmt: skip
    return {"score": score_statistics(negatives, positives), "prediction": decisions}, rows


def test_the_error_of_any_metric_is_that_of_leaving_out_a_window():
    profiles, rows = scored(np.random.default_rng(1), 12)
    found = standard_errors(profiles, binary)
    oracles = {
        "roc_auc": lambda part: roc_auc_score(part["actual"], part["bin"]),
        "f1": lambda part: f1_score(part["actual"], part["decided"]),
        "accuracy": lambda part: (part["actual"] == part["decided"]).mean(),
    }
    for metric, oracle in oracles.items():
        left = [oracle(rows[rows["window"] != window]) for window in range(12)]
        error = np.sqrt(11 / 12 * np.sum((np.array(left) - oracle(rows)) ** 2))
        assert of_all(found, metric)["error"] == pytest.approx(error, rel=EXACT * 1e3)
        assert of_all(found, metric)["n_windows"] == 12


def losses(values: np.ndarray, **fields) -> ColumnStatistics:
    """A loss column of (windows, rows)."""
    n = np.full((len(values), 1), values.shape[1])
    sums = {"total": values.sum(axis=1), "total_sq": (values**2).sum(axis=1)}
    return statistics(Binning(":loss", "loss", 1, "id-loss"), n, **(sums | fields))


def means(profiles):
    return stack_rows([mean_rows("mae", profiles[":loss"])])


def test_a_change_between_windows_of_equal_size_is_welchs_t_of_their_means_at_the_fewer_windows():
    rng = np.random.default_rng(2)
    sides = rng.gamma(2, 1, (14, 1)) + rng.random((14, 50)), rng.random((30, 50)) + 1
    errors = [standard_errors({":loss": losses(side)}, means).iloc[0] for side in sides]
    difference = sides[0].mean() - sides[1].mean()
    found = change(
        [difference], errors[0]["error"], errors[0]["n_windows"],
        errors[1]["error"], errors[1]["n_windows"],
    )  # fmt: skip
    oracle = stats.ttest_ind(*(side.mean(axis=1) for side in sides), equal_var=False)
    assert found.p_value[0] == pytest.approx(2 * stats.t.sf(abs(oracle.statistic), 13), rel=1e-9)
    half = stats.t.ppf(0.975, 13) * abs(difference / oracle.statistic)
    assert found.margin == pytest.approx(half, abs=EXACT)


def test_windows_without_rows_of_a_slice_are_none_of_it():
    rng = np.random.default_rng(3)
    whole = losses(rng.random((9, 20)))
    part = losses(rng.random((4, 20)), cells=cells(4, key="region", value="north"))
    found = standard_errors({":loss": concat([whole, part])}, means)
    assert of_all(found, "mae")["n_windows"] == 9
    assert of_all(found, "mae", "north")["n_windows"] == 4
    assert of_all(found, "mae", "north")["error"] == pytest.approx(
        (part.total / 20).std(ddof=1) / 2, rel=1e-9
    )


def test_a_metric_that_is_undefined_without_a_window_has_no_error():
    confusion = confusion_statistics(tn=[5, 5, 5], tp=[0, 3, 0])
    found = standard_errors({"prediction": confusion}, binary)
    assert np.isnan(of_all(found, "recall")["error"])
    assert of_all(found, "accuracy")["error"] == 0


@pytest.mark.parametrize("windows", [1, FEWEST_WINDOWS - 1])
def test_few_windows_are_not_tested(windows: int):
    found = change([0.5], [0.01], [windows], [0.01], [30])
    assert np.isnan(found.p_value[0])
    assert np.isnan(found.margin[0])


def test_nothing_changed_without_any_spread_is_no_change():
    assert change([0.0], [0.0], [9], [0.0], [9]).p_value[0] == 1
    assert change([0.1], [0.0], [9], [0.0], [9]).p_value[0] == 0


def metric_rows(value: np.ndarray, half: np.ndarray, n: np.ndarray) -> pd.DataFrame:
    """MetricFrame of one metric, a row per window."""
    return cells(len(value)).assign(
        column_name=":table", metric="accuracy", value=value, lower=value - half,
        upper=value + half, n=n,
    )  # fmt: skip


def test_usual_is_what_paule_and_mandel_define():
    rng = np.random.default_rng(5)
    n = rng.integers(50, 2000, 25)
    value = rng.normal(0.8, 0.03, 25)
    found = usual_windows(metric_rows(value, 0.4 / np.sqrt(n), n)).iloc[0]
    error = 0.4 / stats.norm.ppf(0.975) / np.sqrt(n)
    weight = 1 / (error**2 + found["spread"] ** 2)
    assert found["usual"] == pytest.approx((weight * value).sum() / weight.sum(), rel=1e-9)
    assert found["usual_error"] == pytest.approx(weight.sum() ** -0.5, rel=1e-9)
    # The spread explains the windows' distances exactly.
    assert (weight * (value - found["usual"]) ** 2).sum() == pytest.approx(24, rel=1e-6)
    assert found["n_windows"] == 25


def test_one_window_more_is_students_prediction_where_rows_are_many():
    value = np.random.default_rng(6).normal(0.8, 0.05, 20)
    usual = usual_windows(metric_rows(value, np.full(20, 1e-9), np.full(20, 10**6)))
    found = beyond_usual([0.6], [0.0], usual)
    t = abs(0.6 - value.mean()) / (value.std(ddof=1) * np.sqrt(1 + 1 / 20))
    assert found.p_value[0] == pytest.approx(2 * stats.t.sf(t, 19), rel=1e-6)


def test_windows_that_differ_as_their_rows_say_have_no_spread():
    value = 0.8 + 0.001 * np.arange(-5, 6)
    usual = usual_windows(metric_rows(value, np.full(11, 0.05), np.full(11, 200)))
    assert usual["spread"].iloc[0] == 0
    assert usual["usual_error"].iloc[0] == pytest.approx(
        0.05 / stats.norm.ppf(0.975) / np.sqrt(11), rel=1e-9
    )


def test_what_an_interval_of_an_outcome_adds_for_rows_not_drawn_is_no_distance_windows_stray():
    value = np.random.default_rng(7).normal(1, 0.1, 30)
    windows = metric_rows(value, np.full(30, 0.1), np.full(30, 300)).assign(upper=value + 2)
    [rate], [outcome] = (
        usual_windows(windows.assign(metric=metric)).to_dict("records")
        for metric in ("accuracy", "mean_outcome")
    )
    assert outcome["row_error"] == pytest.approx(0.1 / stats.norm.ppf(0.975))
    assert outcome["spread"] > 0 == rate["spread"]
    low, drop = ([0.6], [0.05])
    assert beyond_usual(low, drop, outcome).p_value[0] < 0.01


def test_beside_windows_a_mean_outcomes_long_side_counts_half_its_way_and_its_short_one_whole():
    assert margin_beside([8.0, 0.5, 1.0], [0.5, 8.0, 1.0]).tolist() == [2.0, 0.5, 1.0]


def test_small_windows_say_less_of_a_large_one():
    value = np.random.default_rng(7).normal(0.8, 0.05, 12)
    small = usual_windows(metric_rows(value, np.full(12, 0.098), np.full(12, 50)))
    large = usual_windows(metric_rows(value, np.full(12, 0.001), np.full(12, 50_000)))
    assert small["spread"].iloc[0] < large["spread"].iloc[0]
    found = beyond_usual([0.7], [0.001], small)
    assert found.p_value[0] > 0.05  # twelve windows of 50 rows cannot tell how far 50,000 stray


def test_fewer_than_eight_windows_say_nothing():
    value = np.full(FEWEST_WINDOWS - 1, 0.8)
    found = usual_windows(metric_rows(value, value / 10, np.full(len(value), 100)))
    assert found.empty
    assert tuple(found.columns) == USUAL
    assert tuple(found.index.names) == SERIES


def test_changes_of_days_with_effects_of_their_own_are_held_and_not_called():
    rng = np.random.default_rng(8)
    draws, n = 300, 50
    share = rng.beta(0.8 * 19, 0.2 * 19, (draws, 44))  # rows of a day correlate by .05
    right = rng.binomial(n, share).astype(np.float64)
    sides = []
    for part in (right[:, :14], right[:, 14:]):
        frame = pd.concat([cells(part.shape[1])] * draws, ignore_index=True)
        number = np.repeat([f"{i:03d}" for i in range(draws)], part.shape[1])
        frame = frame.assign(slice_key="draw", slice_value=number)
        column = losses(np.ones((part.size, n)), cells=frame, total=part.ravel())
        sides.append(standard_errors({":loss": column}, means))
    now, then = sides
    difference = (right[:, :14].mean(axis=1) - right[:, 14:].mean(axis=1)) / n
    found = change(difference, now["error"], now["n_windows"], then["error"], then["n_windows"])
    assert 0.93 <= (np.abs(difference) <= found.margin).mean() <= 0.97
    assert (found.p_value <= 0.01).mean() <= 0.02
