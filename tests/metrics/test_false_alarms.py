"""Single-window drift verdicts with default settings: quiet without a change, awake with one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from benchmarks.drift_laws import drift_metrics
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.monitors import DriftMonitor
from tests.metrics.samples import (
    CATEGORICAL_LAWS,
    NUMERIC_LAWS,
    Law,
    categorical_binning,
    count,
    numeric_binning,
)

pytestmark = pytest.mark.slow
MONITOR = DriftMonitor()
LAWS: dict[str, Law] = NUMERIC_LAWS | CATEGORICAL_LAWS
WINDOWS = 200
Columns = dict[str, ColumnStatistics]


def profile_baseline(laws: dict[str, Law], windows: int, rows: int) -> Columns:
    rng = np.random.default_rng(20240101)
    found = {}
    for name, law in laws.items():
        values = law(rng, (windows, rows))
        make = categorical_binning if name in CATEGORICAL_LAWS else numeric_binning
        found[name] = count(make(values, name), values)
    return found


def alarms(
    baseline: Columns, laws: dict[str, Law], rows: int, windows: int = WINDOWS
) -> pd.DataFrame:
    """Verdict per window (row) and column: real after Benjamini-Hochberg, and large."""
    rng = np.random.default_rng(rows)
    frames = []
    for name, law in laws.items():
        current = count(baseline[name].binning, law(rng, (windows, rows)))
        frame = drift_metrics(current, baseline[name], seed=7, min_rows=MONITOR.min_rows)
        frames.append(frame[frame["metric"] == MONITOR.method])
    table = pd.concat(frames)
    p = table.pivot(index="window_start", columns="column_name", values="p_value")
    effect = table.pivot(index="window_start", columns="column_name", values="value")
    ranks = p.rank(axis=1, method="max")
    passed = p.where(p <= MONITOR.q * ranks / p.shape[1])
    real = p.le(passed.max(axis=1), axis=0)
    return real & (effect > MONITOR.above)


@pytest.fixture(scope="module")
def baseline() -> Callable[[int, int], Columns]:
    known: dict[tuple[int, int], Columns] = {}

    def get(windows: int, rows: int) -> Columns:
        if (windows, rows) not in known:
            known[windows, rows] = profile_baseline(LAWS, windows, rows)
        return known[windows, rows]

    return get


@pytest.mark.proof
@pytest.mark.parametrize(("rows", "windows"), [(50, 200), (200, 200), (1000, 200), (10_000, 60)])
@pytest.mark.parametrize("shape", [(60, 1000), (1, 60_000)], ids=["windows", "no_windows"])
def test_unchanged_windows_alarm_in_at_most_5_percent(baseline, shape, rows, windows):
    assert alarms(baseline(*shape), LAWS, rows, windows).any(axis=1).mean() <= 0.05


@pytest.mark.parametrize("shape", [(60, 1000), (1, 60_000)], ids=["windows", "no_windows"])
def test_a_half_sigma_shift_of_one_column_is_caught(baseline, shape):
    laws = LAWS | {"normal": lambda rng, size: rng.normal(0.5, 1, size)}
    assert alarms(baseline(*shape), laws, 1000)["normal"].mean() >= 0.95
