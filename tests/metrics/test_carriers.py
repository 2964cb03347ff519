"""Which slices carry a change: few that carry far more than their part, and nobody else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.metrics.binnings import upper_edges
from mlmon_dagster.metrics.drift.carriers import Carriers, SlicedBaseline, _Split, find_carriers
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics
from tests.metrics.samples import cells, numeric_binning, statistics

PARTS = {"north": 0.4, "south": 0.3, "west": 0.2, "east": 0.1}
Day = dict[str, np.ndarray]


def draw_day(
    rng: np.random.Generator,
    rows: int,
    own: float,
    moved: Mapping[str, float],
    parts: Mapping[str, float] = PARTS,
) -> Day:
    """Rows of a day by slice: they share the day, and within it their slice's own part of it."""
    day = rng.normal(0, 0.2)
    return {
        name: rng.normal(
            day + rng.normal(0, own) + moved.get(name, 0.0), 1, rng.binomial(rows, part)
        )
        for name, part in parts.items()
    }


def count_days(binning: Binning, days: list[Day]) -> ColumnStatistics:
    edges = upper_edges(binning)
    counts = [
        np.bincount(np.searchsorted(edges, values), minlength=binning.size)
        for day in days
        for values in day.values()
    ]
    starts = cells(len(days))["window_start"]
    frame = pd.concat([cells(len(days[0]), key="region")] * len(days), ignore_index=True)
    frame["window_start"] = np.repeat(starts.to_numpy(), len(days[0]))
    frame["slice_value"] = [name for day in days for name in day]
    return statistics(binning, np.array(counts), cells=frame)


def carriers(
    seed: int,
    moved: Mapping[str, float],
    *,
    rows: int = 400,
    own: float = 0.1,
    n_windows: int = 30,
    parts: Mapping[str, float] = PARTS,
) -> Carriers | None:
    rng = np.random.default_rng(seed)
    days = [draw_day(rng, rows, own, {}) for _ in range(n_windows)]
    binning = numeric_binning(np.concatenate([v for day in days for v in day.values()])[None])
    now = count_days(binning, [draw_day(rng, rows, own, moved, parts)])
    return find_carriers(now, SlicedBaseline(count_days(binning, days)))


@pytest.mark.parametrize("own", [0.0, 0.3])
@pytest.mark.parametrize("moved", [0.0, 1.0, 2.5])
def test_what_all_slices_have_in_common_names_at_most_one_in_fifty(
    moved: float, own: float
) -> None:
    found = [carriers(seed, dict.fromkeys(PARTS, moved), own=own) for seed in range(50)]
    assert sum(one is not None for one in found) <= 1


@pytest.mark.parametrize(
    ("moved", "values"), [({"north": 2.0}, "north"), ({"west": 3.0}, "west"),
                          ({"west": 2.5, "east": 2.5}, "west,east")]
)  # fmt: skip
def test_a_change_of_few_slices_names_them_in_eight_of_ten(
    moved: dict[str, float], values: str
) -> None:
    found = [carriers(seed, moved) for seed in range(40)]
    named = Counter(",".join(one.values) if one else "" for one in found)
    assert named[values] >= 32, named
    assert sum(named[name] for name in named if not set(name.split(",")) <= {*moved, ""}) <= 1
    shares = [one.share for one in found if one]
    assert min(shares) >= 0.5
    assert all(one.rows < one.share and not one.is_mix for one in found if one)


@pytest.mark.parametrize("usual", [0.1, 0.0])
def test_more_rows_of_an_odd_slice_or_a_new_one_are_told_as_that(usual: float) -> None:
    rng = np.random.default_rng(3)

    def day(west: float) -> Day:
        n = rng.multinomial(600, [1 - west, west])
        return {"others": rng.normal(0, 1, n[0]), "west": rng.normal(3, 1, n[1])}

    days = [day(usual) for _ in range(30)]
    binning = numeric_binning(np.concatenate([v for one in days for v in one.values()])[None])
    found = find_carriers(
        count_days(binning, [day(0.5)]), SlicedBaseline(count_days(binning, days))
    )
    assert found is not None
    assert (found.values, found.is_mix) == (("west",), True)
    assert found.rows == pytest.approx(0.5, abs=0.06)
    assert found.usual_rows == pytest.approx(usual, abs=0.02)


def test_too_few_windows_or_rows_of_a_slice_name_nobody() -> None:
    assert carriers(1, {"north": 3.0}) is not None
    assert carriers(1, {"north": 3.0}, n_windows=7) is None
    assert carriers(1, {"east": 6.0}, rows=150) is None  # 15 rows


counts_of = st.lists(
    st.lists(st.integers(0, 50), min_size=4, max_size=4), min_size=3, max_size=3
).map(np.array)


@settings(max_examples=300)
@given(now=counts_of, then=st.lists(counts_of, min_size=1, max_size=4).map(np.array))
def test_what_slices_carry_adds_up_to_the_change(now: np.ndarray, then: np.ndarray) -> None:
    if not now.sum() or not then.sum():
        return
    split = _Split(now, then)
    shares = [a.sum(axis=0) / a.sum() for a in (now, then.sum(axis=0))]
    distance = np.abs(shares[0] - shares[1]).sum() / 2  # total variation
    assert split.within.sum() + split.mix.sum() == pytest.approx(distance, abs=1e-12)
