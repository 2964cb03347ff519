"""Shifts that stay: found by the newest windows together, and rare where nothing has changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.sustained import A_YEAR, LEVEL, WORLDS, Column, found_in, windows_of
from mlmon_dagster.metrics.drift.sustained import ColumnParts, SustainedBaseline
from mlmon_dagster.metrics.statistics import select
from mlmon_dagster.metrics.windows.law import level_of_newest

LEAST = 0.15
QUIET = WORLDS["independent"]


def baseline_of(column: Column, is_moving: bool = False) -> SustainedBaseline:
    return SustainedBaseline({"x": ColumnParts(column.baseline, 30)}, A_YEAR, is_moving=is_moving)


def shift_of(column: Column, until: int = 28) -> float:
    """Return the p-value of the newest windows up to one."""
    return found_in(column, until, LEAST).p_value


@pytest.mark.parametrize("kind", ["numeric", "categories"])
def test_a_small_shift_is_found_within_fourteen_windows(kind: str) -> None:
    rng = np.random.default_rng(3)
    column = windows_of(rng, QUIET, kind, moved=0.3)

    shift = found_in(column, 14, LEAST)

    assert shift.p_value < LEVEL
    assert shift.part == ("place" if kind == "numeric" else "share")
    assert abs(shift.by) == pytest.approx(0.3, abs=0.06)
    assert shift.as_far == 0
    assert shift.n == shift.run * QUIET.rows


def test_nothing_is_judged_of_few_windows() -> None:
    column = windows_of(np.random.default_rng(4), QUIET, "numeric")

    few = replace(column, baseline=select(column.baseline, np.arange(13)))

    assert not baseline_of(few).columns
    assert baseline_of(column).columns


def test_a_shift_that_is_over_says_so() -> None:
    """The newest three are usual again while the newest 28 still hold it."""
    rng = np.random.default_rng(5)
    moved, usual = (windows_of(rng, QUIET, "numeric", moved=move) for move in (0.4, 0.0))
    counts = np.concatenate([moved.newest.counts[:25], usual.newest.counts[25:]])

    shift = found_in(replace(moved, newest=replace(moved.newest, counts=counts)), 28, LEAST)

    assert shift.p_value < LEVEL
    assert shift.newest * np.sign(shift.by) < LEAST / 2


def test_a_baseline_of_the_same_days_is_compared_by_the_place_in_the_week() -> None:
    column = windows_of(np.random.default_rng(6), WORLDS["weeks"], "numeric", moved=0.5)
    cells = column.newest.cells
    same = cells.assign(window_start=cells["window_start"] - pd.Timedelta(days=63))
    moved = replace(column.newest, cells=same)

    both = np.log10([shift_of(replace(column, newest=moved)), shift_of(column)])

    assert both[0] == pytest.approx(both[1], abs=1.5)
    assert both.max() < -6


def test_a_baseline_of_every_other_day_is_one_of_days() -> None:
    column = windows_of(np.random.default_rng(7), QUIET, "numeric", moved=0.4)
    sparse = select(column.baseline, np.arange(0, 60, 2))

    shift = found_in(replace(column, baseline=sparse), 14, LEAST)

    assert (shift.p_value < LEVEL, shift.run) == (True, 14)


def test_a_year_of_any_windows_has_as_many_looks() -> None:
    assert level_of_newest(8_766) * 8_766 == pytest.approx(level_of_newest(365.25) * 365.25)
    assert level_of_newest(12) == 0.01


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(WORLDS)), st.integers(0, 2**20))
def test_healthy_windows_are_hardly_ever_called(world: str, seed: int) -> None:
    """One look at ten columns: a year has hardly one that fails."""
    rng = np.random.default_rng(seed)
    columns = [windows_of(rng, WORLDS[world], "numeric") for _ in range(10)]

    called = [shift_of(column) < LEVEL for column in columns]

    assert sum(called) <= 1
