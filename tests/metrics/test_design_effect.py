"""Rows that share values: how many count as one, and what that does to p-values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.drift_laws import drift_metrics
from mlmon_dagster.metrics.binnings import drift_bins
from mlmon_dagster.metrics.drift.between_windows import Independence
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.monitors import DriftMonitor
from tests.metrics.samples import categorical_binning, count, numeric_binning, zipf

MONITOR = DriftMonitor()
Values = NDArray[Any]


def shared(law: str, windows: int, rows: int, size: int, seed: int, by: float = 0.0) -> Values:
    """Windows in which `size` rows in turn have the same value."""
    rng = np.random.default_rng(seed)
    shape = (windows, -(-rows // size))
    draws = {
        "normal": lambda: rng.normal(by, 1, shape),
        "zeros": lambda: np.where(rng.random(shape) < 0.8, 0.0, rng.exponential(size=shape)),
        "two": lambda: (rng.random(shape) < 0.3).astype(int),
        "twenty": lambda: zipf(20, 1.0)(rng, shape),
    }
    return np.repeat(draws[law](), size, axis=1)[:, :rows]


def profile(law: str, values: Values) -> ColumnStatistics:
    make = categorical_binning if law in ("two", "twenty") else numeric_binning
    return count(make(values), values)


def fit(law: str, size: int, windows: int = 60, rows: int = 1_000) -> Independence:
    stats = profile(law, shared(law, windows, rows, size, seed=3))
    return Independence.fit(drift_bins(stats).counts, ordered=law in ("normal", "zeros"))


@pytest.mark.parametrize("size", [5, 40])
@pytest.mark.parametrize(("law", "within"), [("normal", 0.15), ("zeros", 0.3), ("twenty", 0.15)])
def test_the_design_effect_of_shared_values_is_how_many_rows_share_one(law, within, size):
    assert fit(law, size).rows_per_value == pytest.approx(size, rel=within)


def test_the_design_effect_of_two_levels_is_right_within_a_factor_of_two():
    assert 20 < fit("two", 40).rows_per_value < 80  # one degree of freedom a window


@pytest.mark.parametrize("law", ["normal", "twenty", "two"])
def test_independent_rows_all_count(law):
    found = fit(law, 1)
    assert not found.is_shared
    assert found.rows(np.array([7_000]))[0] == pytest.approx(7_000, rel=0.2)
    assert not found.too_few(np.array([1])).any()


def test_one_bad_day_of_the_baseline_shares_no_values():
    values = shared("normal", 60, 1_000, 1, seed=4)
    counts = drift_bins(count(numeric_binning(values), values)).counts
    counts[7] = np.roll(counts[7], 9) + np.arange(counts.shape[1])
    assert not Independence.fit(counts, ordered=True).is_shared


def test_a_small_window_of_a_few_shared_values_gets_no_verdict():
    baseline = profile("normal", shared("normal", 60, 1_000, 40, seed=3))
    small = count(baseline.binning, shared("normal", 3, 100, 40, seed=5))
    frame = drift_metrics(small, baseline, seed=1)
    assert set(frame["reason"]) == {"few_independent_rows"}
    assert frame["p_value"].isna().all()


def alarm_share(law: str, size: int, rows: int, *, metric: str = "psi", by: float = 0.0) -> float:
    """Share of windows that alarm alone, over three baselines of 40 windows of 1,000 rows."""
    found = []
    for seed in range(3):
        baseline = profile(law, shared(law, 40, 1_000, size, seed=10 + seed))
        windows = count(baseline.binning, shared(law, 100, rows, size, seed=20 + seed, by=by))
        frame = drift_metrics(windows, baseline, seed=1)
        mine = frame[frame["metric"] == metric]
        found.append(
            (mine["p_value"] <= MONITOR.q) & (mine["value"] - mine["by_chance"] > MONITOR.above)
        )
    return float(np.mean(found))


# Of 300 windows; 0.01 and three standard errors.
@pytest.mark.slow
@pytest.mark.parametrize("law", ["normal", "zeros", "two", "twenty"])
@pytest.mark.parametrize(("size", "rows"), [(5, 100), (5, 1_000), (40, 400), (40, 5_000)])
def test_unchanged_windows_of_shared_values_do_not_alarm(law, size, rows):
    assert alarm_share(law, size, rows) <= 0.027


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["ks", "jensen_shannon", "chi_square"])
@pytest.mark.parametrize(("size", "rows"), [(5, 100), (40, 1_000)])
def test_no_distance_alarms_for_shared_values_alone(metric, size, rows):
    assert alarm_share("normal", size, rows, metric=metric) <= 0.027


@pytest.mark.slow
@pytest.mark.parametrize(("size", "rows", "by"), [(5, 200, 1.2), (40, 1_000, 1.5)])
def test_a_shift_of_shared_values_is_seen_among_so_few(size, rows, by):
    assert alarm_share("normal", size, rows, by=by) >= 0.9
