"""Values that cannot be, and rows beside a heap: found on the first day, and no healthy year."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from mlmon_dagster.metrics.binnings import drift_bins, upper_edges
from mlmon_dagster.metrics.drift.novelty import novelty_metrics
from mlmon_dagster.metrics.drift.off_heap import off_heap_baseline, off_heap_drift
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics
from mlmon_dagster.profiles import fit
from mlmon_dagster.profiles.bin_codes import DUCKDB
from mlmon_dagster.profiles.bin_shapes import discrete_binning
from tests.metrics.samples import statistics
from tests.monitors.cases import DAY, metric, verdicts, window
from tests.profiles.records import DuckEngine

Rows = NDArray[np.float64]
Law = Callable[[np.random.Generator, tuple[int, int]], Rows]
Fault = Callable[[np.random.Generator, Rows], Rows]
DAYS, ROWS = 30, 2_000


def heap(value: float, share: float, law: Law) -> Law:
    return lambda rng, size: np.where(rng.random(size) < share, value, law(rng, size))


def money(rng: np.random.Generator, size: tuple[int, int]) -> Rows:
    return rng.lognormal(3, 1, size).round(2)


def number(rng: np.random.Generator, size: tuple[int, int]) -> Rows:
    return np.ceil(rng.lognormal(2, 1, size))


def levels(rng: np.random.Generator, size: tuple[int, int]) -> Rows:
    return rng.normal(50, 3, (size[0], 1)) + rng.normal(0, 10, size)


LAWS: dict[str, Law] = {
    "small counts": lambda rng, size: rng.poisson(1.1, size).astype(float),
    "counts, 0 in 47 %": heap(0.0, 0.47, number),
    "ages": lambda rng, size: rng.normal(42, 14, size).clip(18, 95).round(),
    "money": money,
    "money, 0 in 93 %": heap(0.0, 0.93, money),
    "a heap at the maximum": heap(100.0, 0.7, lambda rng, size: rng.uniform(1, 100, size)),
    "heaps at both ends": heap(
        0.0, 0.3, heap(100.0, 0.4, lambda rng, size: rng.uniform(0, 100, size))
    ),
    "-999 in 10 %": heap(-999.0, 0.1, money),
    "whole numbers": lambda rng, size: rng.integers(0, 1000, size).astype(float),
    "all equal": lambda rng, size: np.full(size, 7.0),
    "days that differ": levels,
}


def put(value: float, share: float) -> Fault:
    return lambda rng, rows: np.where(rng.random(rows.shape) < share, value, rows)


def times(factor: float, share: float = 1.0) -> Fault:
    return lambda rng, rows: np.where(rng.random(rows.shape) < share, rows * factor, rows)


FAULTS: dict[str, tuple[Fault, set[str]]] = {
    "-1 in 8 %": (put(-1.0, 0.08), set(LAWS) - {"-999 in 10 %", "days that differ"}),
    "x1000 in 10 %": (times(1000, 0.1), set(LAWS) - {"money, 0 in 93 %"}),
    "1 % outliers": (put(1e6, 0.01), set(LAWS)),
    "-9999 in 1 %": (put(-9999.0, 0.01), set(LAWS)),
    "x100 of what is not 0": (times(100), {"money, 0 in 93 %"}),
}


def profile(binning: Binning, rows: Rows) -> ColumnStatistics:
    codes = np.searchsorted(upper_edges(binning), rows, side="left")
    counts = np.stack([np.bincount(day, minlength=binning.size) for day in codes])
    return statistics(binning, counts, minimum=rows.min(axis=1), maximum=rows.max(axis=1))


def sides(
    law: Law, days: int, rng: np.random.Generator, fault: Fault | None = None
) -> tuple[ColumnStatistics, ColumnStatistics]:
    """Draw days and a baseline of 30, and profile both by the bins of the baseline."""
    then, now = law(rng, (DAYS, ROWS)), law(rng, (days, ROWS))
    engine = DuckEngine(base=pa.table({"age": then.ravel()}))
    ordered = fit.order_statistics(engine, "base", {"age": "age"}, DUCKDB)["age"]
    binning = fit._numeric_binning("age", ordered, personal=False)
    planted = now if fault is None else fault(rng, now)
    return profile(binning, planted), profile(binning, then)


def count_found(law: Law, days: int, rng: np.random.Generator, fault: Fault | None = None) -> int:
    """Count the days on which a column fails for what lies outside its baseline of 30 days."""
    mine, own = sides(law, days, rng, fault)
    found = novelty_metrics({"age": mine}, {"age": own})
    rate, usual = (found[found["metric"] == f"novel_rate{end}"] for end in ("", "_auto"))
    known = zip(rate["value"], rate["p_value"], usual["value"], strict=True)
    rows, windows = [], []
    for number, (share, p, most) in enumerate(known):
        if share > 0:
            day = {"window_start": DAY + pd.Timedelta(days=number)}
            windows.append(window(day["window_start"]))
            rows += [
                metric("psi", 0.0, "age", p_value=1.0, **day),
                metric("novel_rate", share, "age", p_value=p, **day),
                metric("novel_rate_auto", most, "age", **day),
            ]
    judged = verdicts("drift", rows, windows) if rows else []
    return sum(row["monitor"] == "drift/psi/age" and row["status"] == "WARN" for row in judged)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_is_found_on_the_first_day_in_nine_of_ten(fault):
    rng, (planted, columns) = np.random.default_rng(5), FAULTS[fault]
    found = {name: count_found(LAWS[name], 20, rng, planted) for name in sorted(columns)}
    assert {name: days for name, days in found.items() if days < 18} == {}


def off_heap(
    law: Law, days: int, rng: np.random.Generator, fault: Fault | None = None
) -> pd.DataFrame:
    mine, own = sides(law, days, rng, fault)
    then = off_heap_baseline({"age": own}, seed=1)
    return off_heap_drift({"age": mine}, then)


HEAPED = ("money, 0 in 93 %", "a heap at the maximum", "heaps at both ends")


def test_rows_off_a_heap_have_the_psi_of_a_column_of_their_own():
    """Exactly: a heap's bin is empty on both sides, and such bins are one."""
    rng = np.random.default_rng(7)
    law = heap(-5.0, 0.6, money)
    mine, own = sides(law, 5, rng)
    found = off_heap_drift({"age": mine}, off_heap_baseline({"age": own}, seed=1))
    codes = drift_bins(own).counts.sum(axis=0)
    at = int(codes.argmax())
    for day, value in zip(drift_bins(mine).counts, found["value"], strict=True):
        p, q = (np.delete(rows, [0, at, len(rows) - 1]) for rows in (day, codes))
        p, q = ((rows + 0.5) / (rows.sum() + (len(rows) + 2) / 2) for rows in (p, q))
        assert value == pytest.approx(((p - q) * np.log(p / q)).sum(), abs=0.005)
    assert found["n"].tolist() == [day.sum() - day[at] for day in drift_bins(mine).counts]


@pytest.mark.parametrize("name", HEAPED)
def test_rows_off_a_heap_that_move_are_found_in_nine_of_ten(name):
    """Three times as much, or a narrower range. A year has no two such days of three together."""
    rng = np.random.default_rng(8)
    fault = times(3) if name.startswith("money") else _to_the_middle
    moved, same = off_heap(LAWS[name], 20, rng, fault), off_heap(LAWS[name], 365, rng)
    fails = [
        (rows["value"] - rows["by_chance"] > 0.1) & (rows["p_value"] <= 0.01)
        for rows in (moved, same)
    ]
    assert fails[0].sum() >= 18
    assert fails[1].rolling(3).sum().max() <= 1
    assert fails[1].sum() <= 2


def _to_the_middle(rng: np.random.Generator, rows: Rows) -> Rows:
    return np.where((rows > 0) & (rows < 100), 50 + (rows - 50) * 0.7, rows)


def test_rows_off_a_heap_on_few_days_only_have_no_verdict():
    """Rain: 13 of 30 days have some, and its rows share it."""
    rng = np.random.default_rng(10)
    rain = rng.lognormal(0, 1, (DAYS, 1)).round(2) * (rng.random((DAYS, ROWS)) < 0.2)
    rain[13:] = 0.0
    own = profile(discrete_binning("age", np.unique(rain).tolist()), rain)
    assert len(own.binning.values) > 10
    assert off_heap_drift({"age": own}, off_heap_baseline({"age": own}, seed=1)).empty


def test_healthy_years_are_silent():
    rng = np.random.default_rng(6)
    assert {name: n for name, law in LAWS.items() if (n := count_found(law, 365, rng))} == {}
