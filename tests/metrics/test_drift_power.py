"""Changes that must be seen, as surely as by an exact test of the rows themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.drift_laws import drift_metrics
from mlmon_dagster.metrics.intervals import benjamini_hochberg
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.monitors import DriftMonitor
from tests.metrics.samples import CATEGORICAL_LAWS, categorical_binning, count, numeric_binning

MONITOR = DriftMonitor()
NORMAL = np.random.default_rng(29).normal(size=(30, 500))
BASELINE = count(numeric_binning(NORMAL), NORMAL)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(31)


def verdict(
    current: ColumnStatistics, baseline: ColumnStatistics = BASELINE
) -> tuple[float, float]:
    """Value and p-value of one window by the default method."""
    frame = drift_metrics(current, baseline, seed=1)
    row = frame[frame["metric"] == MONITOR.method].iloc[0]
    return float(row["value"]), float(row["p_value"])


def alarms(value: float, p: float) -> bool:
    return value > MONITOR.above and p <= MONITOR.q


def test_a_shift_of_3_sigma_beside_one_outlier_of_a_million_is_caught(rng):
    values = rng.normal(3, 1, size=(1, 500))
    values[0, 0] = 1e6
    value, p = verdict(count(BASELINE.binning, values))
    assert value > 1
    assert p < 1e-6


def test_nulls_that_grow_from_3_to_60_percent_are_caught(rng):
    def with_nulls(shape: tuple[int, int], share: float) -> np.ndarray:
        return np.where(rng.random(shape) < share, np.nan, rng.normal(size=shape))

    then = with_nulls((30, 500), 0.03)
    baseline = count(numeric_binning(then), then)
    assert alarms(*verdict(count(baseline.binning, with_nulls((1, 500), 0.6)), baseline))
    assert not alarms(*verdict(count(baseline.binning, with_nulls((1, 500), 0.03)), baseline))


def test_nine_moved_columns_of_twenty_are_caught_and_the_others_are_not(rng):
    moved = [count(BASELINE.binning, rng.normal(1, 1, size=(1, 500))) for _ in range(9)]
    same = [count(BASELINE.binning, rng.normal(size=(1, 500))) for _ in range(11)]
    found = [verdict(column) for column in [*moved, *same]]
    adjusted = benjamini_hochberg([p for _, p in found])
    failed = [alarms(value, p) for (value, _), p in zip(found, adjusted, strict=True)]
    assert failed == [True] * 9 + [False] * 11


def test_one_row_of_an_unseen_category_among_700_is_no_alarm(rng):
    then = CATEGORICAL_LAWS["twelve"](rng, (30, 700))
    baseline = count(categorical_binning(then), then)
    now = CATEGORICAL_LAWS["twelve"](rng, (1, 700))
    now[0, 0] = 9999
    frame = drift_metrics(count(baseline.binning, now), baseline, seed=1)
    assert not ((frame["value"] > MONITOR.above) & (frame["p_value"] <= MONITOR.q)).any()


SHARES = 1 / np.arange(1, 13)
SHARES /= SHARES.sum()


def categories(rng: np.random.Generator, shape: tuple[int, int], moved: float) -> np.ndarray:
    return rng.choice(12, shape, p=SHARES + moved * (np.arange(12) == 6) - moved * np.eye(12)[0])


# Of 200 windows each: three standard errors of a difference at a power of one half are 0.15. Beyond
# that, rows are not known to be independent as exact tests assume, which costs some power.
@pytest.mark.slow
@pytest.mark.parametrize(("rows", "by"), [(50, 0.6), (200, 0.3), (500, 0.2)])
def test_a_shifted_mean_is_seen_as_often_as_by_the_exact_ks_test(rng, rows, by):
    values = rng.normal(by, 1, size=(200, rows))
    frame = drift_metrics(count(BASELINE.binning, values), BASELINE, seed=1)
    found = {name: (part["p_value"] <= 0.01).mean() for name, part in frame.groupby("metric")}
    exact = np.mean([stats.ks_2samp(row, NORMAL.ravel()).pvalue <= 0.01 for row in values])
    assert found["ks"] >= exact - 0.15
    assert found["psi"] >= exact - 0.25  # the two tests of psi share alpha


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "by"), [(50, 0.15), (200, 0.07), (500, 0.05)])
def test_a_moved_share_is_seen_nearly_as_often_as_by_the_exact_chi_square_test(rng, rows, by):
    found, exact = [], []
    for _ in range(4):
        then, now = categories(rng, (30, 500), 0), categories(rng, (60, rows), by)
        baseline = count(categorical_binning(then), then)
        frame = drift_metrics(count(baseline.binning, now), baseline, seed=1)
        found += (frame.loc[frame["metric"] == "chi_square", "p_value"] <= 0.01).tolist()
        known = np.bincount(then.ravel(), minlength=12)
        tables = [np.stack([known, np.bincount(row, minlength=12)]) for row in now]
        exact += [stats.chi2_contingency(table).pvalue <= 0.01 for table in tables]
    assert np.mean(found) >= np.mean(exact) - 0.2
