"""Likeness of the rows of windows: exact, silent where other rows come, found where they do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlmon_dagster.metrics.statistics import count_whole
from mlmon_dagster.metrics.windows.repeats import BACK, CELLS, RowCells, UsualRepeats, rank_cells
from mlmon_dagster.profiles.bin_shapes import row_binning
from mlmon_dagster.spec.names import ROWS

LEVEL = 0.05 / 365
BASELINE = 30
Days = list[np.ndarray]


def draw(rng: np.random.Generator, n: int, days: int, heap: float, often: float) -> Days:
    """Draw the cells of rows: some of 50 common rows, some of customers who come again."""
    common, known = rng.integers(0, CELLS, 50), rng.integers(0, CELLS, 3 * n)
    found = []
    for _ in range(days):
        cells = rng.integers(0, CELLS, rng.poisson(n))
        lot = rng.random(len(cells))
        cells = np.where(lot < heap, rng.choice(common, len(cells)), cells)
        found.append(np.where(lot > 1 - often, rng.choice(known, len(cells)), cells))
    return found


def windows_of(days: Days) -> RowCells:
    counts = np.stack([np.bincount(day, minlength=CELLS) for day in days])
    starts = pd.date_range("2024-01-01", periods=len(days), tz="UTC")
    cells = pd.DataFrame({"window_start": starts, "dataset": "production", "model_version": "1"})
    return RowCells(count_whole(row_binning(ROWS, CELLS, ["a"]), cells, counts, counts.sum(axis=1)))


def repeat(rng: np.random.Generator, days: Days, back: int, share: float) -> Days:
    """Put rows of an earlier day in place of some of the last day's."""
    *before, last = days
    n = min(round(share * len(last)), len(days[-1 - back]))
    return [*before, np.concatenate([last[n:], rng.choice(days[-1 - back], n, replace=False)])]


def test_likeness_is_the_rank_correlation_of_scipy() -> None:
    windows = windows_of(draw(np.random.default_rng(1), 900, 12, 0.3, 0.2))
    counts = [np.bincount(day, minlength=CELLS)
              for day in draw(np.random.default_rng(1), 900, 12, 0.3, 0.2)]  # fmt: skip
    for one, other in ((0, 1), (3, 9), (10, 11)):
        expected = stats.spearmanr(counts[one], counts[other]).statistic
        assert windows.ranks[one] @ windows.ranks[other] == pytest.approx(expected, abs=1e-12)
    assert not rank_cells(np.ones((1, CELLS), np.int64)).any()


@pytest.mark.parametrize("heap", [0.0, 0.5])
@pytest.mark.parametrize("often", [0.0, 0.4])
@pytest.mark.parametrize("n", [150, 2_000])
def test_days_of_other_rows_are_silent(n: int, heap: float, often: float) -> None:
    """At most one of 800 days; a year of days is to have a false one in twenty years."""
    false = 0
    for seed in range(4):
        windows = windows_of(draw(np.random.default_rng([seed, n]), n, 238, heap, often))
        usual = UsualRepeats(windows.ranks[:BASELINE])
        found = [usual.judge(windows, place, 0.1) for place in range(BASELINE + 8, 238)]
        false += sum(one is not None and one.p_value <= LEVEL for one in found)
    assert false <= 1


@pytest.mark.parametrize(("n", "heap", "share", "least"), [
    (150, 0.0, 0.3, 0.95), (2_000, 0.0, 0.2, 0.95), (20_000, 0.0, 0.2, 0.95),
    (2_000, 0.5, 0.3, 0.9), (2_000, 0.5, 1.0, 1.0),
])  # fmt: skip
def test_rows_of_one_of_seven_days_before_are_found_and_the_day_is_named(
    n: int, heap: float, share: float, least: float
) -> None:
    rng, right = np.random.default_rng(7), 0
    for trial in range(40):
        days, back = draw(rng, n, BASELINE + 8, heap, 0.0), 1 + trial % BACK
        windows = windows_of(repeat(rng, days, back, share))
        found = UsualRepeats(windows.ranks[:BASELINE]).judge(windows, len(days) - 1, 0.1)
        assert found is not None
        is_named = found.start == windows.starts[-1 - back]
        right += found.p_value <= LEVEL and is_named
    assert right >= least * 40


def test_customers_scored_every_week_are_usual_and_yesterday_again_is_not() -> None:
    rng = np.random.default_rng(3)
    groups = [rng.integers(0, CELLS, 800) for _ in range(7)]
    days = [np.where(rng.random(800) < 0.9, groups[day % 7], rng.integers(0, CELLS, 800))
            for day in range(50)]  # fmt: skip
    windows = windows_of(days)
    usual = UsualRepeats(windows.ranks[:BASELINE])
    found = usual.judge(windows, 49, 0.1)
    assert found is not None
    assert found.p_value > LEVEL
    again = windows_of(repeat(rng, days, 1, 0.5))
    found = usual.judge(again, 49, 0.1)
    assert found is not None
    assert (found.p_value <= LEVEL, found.start) == (True, windows.starts[48])


def test_too_few_windows_or_rows_say_nothing() -> None:
    windows = windows_of(draw(np.random.default_rng(5), 300, 20, 0.0, 0.0))
    assert UsualRepeats(windows.ranks[:8]).judge(windows, 19, 0.1) is None
    assert UsualRepeats(windows.ranks[:0]).judge(windows, 19, 0.1) is None
    assert UsualRepeats(windows.ranks[:9]).judge(windows, 19, 0.1) is not None
    assert UsualRepeats(windows.ranks).judge(windows, 0, 0.1) is None
    few = windows_of(draw(np.random.default_rng(5), 60, 20, 0.0, 0.0))
    assert few.find(int(windows.starts[0])) is None
