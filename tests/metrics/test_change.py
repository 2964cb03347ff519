"""What changed in a column, told by the plainest of its numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from mlmon_dagster.metrics.binnings import upper_edges
from mlmon_dagster.metrics.drift.column_change import ColumnChange, column_change
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics, merge
from mlmon_dagster.profiles.bin_shapes import discrete_binning, numeric_binning
from tests.metrics.samples import statistics
from tests.metrics.test_novelty import profile

ROWS = 4_000


@pytest.fixture
def rng() -> np.random.Generator:
    """Draws that no other test has a part in."""
    return np.random.default_rng(7)


def changed(window: NDArray[np.float64], baseline: NDArray[np.float64]) -> ColumnChange:
    now, then = (profile(np.atleast_2d(rows), baseline) for rows in (window, baseline))
    return column_change(merge(now, ()), merge(then, ()))


def test_a_median_in_the_last_bin_is_not_guessed_but_told_by_the_means(rng):
    first = rng.lognormal(4, 0.5, ROWS)
    usual, window = np.append(first, first[:100] * 100), rng.lognormal(4, 0.5, ROWS) * 100
    now, then = (profile(np.atleast_2d(rows), first) for rows in (window, usual))
    found = column_change(merge(now, ()), merge(then, ()))
    assert (found.kind, found.is_mean) == ("place", True)
    assert (found.now, found.then) == pytest.approx((window.mean(), usual.mean()))


@pytest.mark.parametrize("share", [0.1, 0.57])
def test_values_in_another_unit_in_a_part_of_the_rows_are_not_called_one_value(rng, share):
    usual = rng.lognormal(7.7, 0.4, 20_000)
    mixed = rng.lognormal(7.7, 0.4, 4_000)
    mixed[: int(share * 4_000)] /= 1_000

    found = changed(mixed, usual)

    assert found.kind != "value"


def test_a_change_within_the_usual_range_is_told_by_the_part_of_it_that_changed_most(rng):
    usual = rng.normal(40, 10, ROWS)
    window = np.where(rng.random(ROWS) < 0.15, rng.uniform(39, 41, ROWS), rng.normal(40, 10, ROWS))
    found = changed(window, usual)
    inside = [((rows > found.low) & (rows <= found.high)).mean() for rows in (window, usual)]
    assert found.kind == "range"
    assert found.low < 39.5 < 40.5 <= found.high
    assert (found.now, found.then) == pytest.approx(inside, abs=0.02)
    assert found.now - found.then > 0.08


@pytest.mark.parametrize(("side", "end"), [(1, "high"), (-1, "low")])
def test_a_fuller_tail_has_no_end_on_its_side(rng, side, end):
    usual = rng.normal(0, 10, ROWS)
    tail = side * rng.uniform(8, 20, ROWS)
    found = changed(np.where(rng.random(ROWS) < 0.12, tail, rng.normal(0, 10, ROWS)), usual)
    assert (found.kind, getattr(found, end)) == ("range", side * np.inf)


def test_equal_sides_changed_in_nothing(rng):
    usual = rng.normal(40, 10, ROWS)
    assert changed(usual, usual).kind == "shape"


def test_an_empty_side_changed_in_nothing_plain(rng):
    usual = profile(np.atleast_2d(rng.normal(40, 10, ROWS)), rng.normal(40, 10, ROWS))
    none = replace(usual, counts=usual.counts * 0, n=usual.n * 0)
    assert column_change(none, usual).kind == "shape"


ODD = {
    "constant": np.full(200, 7.5),
    "largest": np.linspace(-8e307, 8e307, 200),
    "tiny": np.linspace(0, 1e-300, 200),
    "heap": np.append(np.zeros(180), np.arange(1.0, 21.0)),
    "plain": np.linspace(-3, 3, 200),
}


@pytest.mark.parametrize("n", [1, 200])
@pytest.mark.parametrize("usual", ODD)
@pytest.mark.parametrize("window", ODD)
def test_no_numbers_are_too_odd_to_be_described(usual, window, n):
    with np.errstate(all="ignore"):  # the sums of the largest
        binning = numeric_shape("x", ODD[usual])
        now, then = (_counted(binning, rows) for rows in (ODD[window][:n], ODD[usual]))
    found = column_change(now, then, lambda: [("y", then, now)])
    assert (found.kind == "shape") <= (usual == window)


def numeric_shape(column: str, values: NDArray[np.float64]) -> Binning:
    """Quantile bins, or one for each of few values."""
    if len(set(values)) <= 32:
        return discrete_binning(column, sorted(set(values)))
    edges = np.quantile(values, np.arange(1, 20) / 20)
    return numeric_binning(column, edges.tolist(), low=values.min(), high=values.max())


def _counted(binning: Binning, values: NDArray[np.float64]) -> ColumnStatistics:
    codes = np.searchsorted(upper_edges(binning), values)
    return statistics(
        binning, np.bincount(codes, minlength=binning.size)[None],
        minimum=values.min(keepdims=True), maximum=values.max(keepdims=True),
        total=values.sum(keepdims=True),
        total_sq=(values**2).sum(keepdims=True),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("window", "away", "wide"),
    [
        (lambda x: x, 0.0, 1.0),
        (lambda x: x + 20, 2.0, 1.0),
        (lambda x: 2 * x - 40, 0.0, 2.0),
        (lambda x: x + 300, 30.0, 1.0),
        (lambda x: 1000 * x, 3996.0, 1000.0),
        (lambda x: np.full_like(x, 45.0), 0.5, 0.0),
        (lambda x: np.full_like(x, 450.0), 41.0, 0.0),
    ],
    ids=["same", "moved", "wider", "beyond", "another unit", "stuck", "stuck beyond"],
)
def test_of_any_change_it_is_known_how_far_a_column_lies_and_how_wide(rng, window, away, wide):
    usual = rng.normal(40, 10, ROWS)
    found = changed(window(usual), usual)
    assert found.away == pytest.approx(away, rel=0.05, abs=0.2)
    assert found.wide == pytest.approx(wide, rel=0.15, abs=0.05)
