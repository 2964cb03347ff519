"""Adding up statistics: any order, any grouping, never across different bins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.errors import StoreError
from mlmon_dagster.metrics.binnings import (
    representatives,
    upper_edges,
)
from mlmon_dagster.metrics.statistics import (
    CELL_KEYS,
    UNSEEN_KEPT,
    Binning,
    ColumnStatistics,
    commonest,
    concat,
    empty,
    merge,
    merge_columns,
    select,
)
from mlmon_dagster.spec.names import ALL

BINNING = Binning("x", "categorical", 4, "id-1", categories=("a", "b"))
START = pd.Timestamp("2026-01-01", tz="UTC").as_unit("us")


def make_statistics(cells: int, seed: int = 0) -> ColumnStatistics:
    """Return random statistics; keys repeat, some cells have no values."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 50, (cells, 4)) * rng.integers(0, 2, (cells, 1))
    no_value = counts.sum(axis=1) == 0
    low = np.where(no_value, np.nan, rng.normal(size=cells))
    frame = pd.DataFrame(
        {
            "window_start": START + pd.to_timedelta(rng.integers(0, 3, cells), "D"),
            "dataset": "production",
            "model_version": rng.choice(["1", "2"], cells),
            "slice_key": ALL,
            "slice_value": ALL,
        }
    )
    frame["window_start"] = frame["window_start"].astype("datetime64[us, UTC]")
    extra = rng.integers(0, 5, (4, cells))
    return ColumnStatistics(
        BINNING, frame, counts, counts.sum(axis=1) + extra.sum(axis=0), *extra,
        minimum=low, maximum=low + 1, total=rng.normal(size=cells) * 1e6,
        total_sq=rng.random(cells), unseen=[{f"u{v}": int(v)} for v in rng.integers(1, 30, cells)],
    )  # fmt: skip


def assert_identical(left: ColumnStatistics, right: ColumnStatistics) -> None:
    pd.testing.assert_frame_equal(left.cells, right.cells)
    for name in ("counts", "n", "n_null", "n_nan", "n_inf", "n_out_of_range", "minimum", "maximum",
                 "total", "total_sq"):  # fmt: skip
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    assert left.unseen == right.unseen


@settings(max_examples=60, deadline=None)
@given(cells=st.integers(1, 40), seed=st.integers(0, 999), by=st.sampled_from([
    (), ("window_start",), ("model_version", "window_start"), CELL_KEYS]))  # fmt: skip
def test_merging_does_not_depend_on_order_to_the_last_bit(
    cells: int, seed: int, by: tuple[str, ...]
) -> None:
    stats = make_statistics(cells, seed)
    shuffled = select(stats, np.random.default_rng(seed).permutation(cells))
    assert_identical(merge(stats, by), merge(shuffled, by))


@settings(max_examples=40, deadline=None)
@given(cells=st.integers(1, 40), cut=st.integers(0, 40), seed=st.integers(0, 999))
def test_merging_merged_parts_is_merging_the_whole(cells: int, cut: int, seed: int) -> None:
    stats = make_statistics(cells, seed)
    first = np.arange(cells) < cut
    parts = [merge(select(stats, first), CELL_KEYS), merge(select(stats, ~first), CELL_KEYS)]
    once, twice = merge(stats, ("window_start",)), merge(concat(parts), ("window_start",))
    pd.testing.assert_frame_equal(once.cells, twice.cells)
    np.testing.assert_array_equal(once.counts, twice.counts)
    np.testing.assert_array_equal(once.n_out_of_range, twice.n_out_of_range)
    np.testing.assert_array_equal(once.minimum, twice.minimum)
    np.testing.assert_array_equal(once.maximum, twice.maximum)
    np.testing.assert_allclose(once.total, twice.total, rtol=1e-9, atol=1e-6)


def test_merge_sums_what_pandas_sums() -> None:
    stats = make_statistics(30)
    merged = merge(stats, ("window_start", "model_version"))
    frame = stats.cells.assign(n=stats.n, low=stats.minimum, high=stats.maximum)
    expected = frame.groupby(["window_start", "model_version"]).agg(
        n=("n", "sum"), low=("low", "min"), high=("high", "max")
    )
    assert merged.n.tolist() == expected["n"].tolist()
    np.testing.assert_array_equal(merged.minimum, expected["low"])
    np.testing.assert_array_equal(merged.maximum, expected["high"])
    assert merged.counts.sum() == stats.counts.sum()


@pytest.mark.parametrize("by", [(), ("window_start",), ("model_version", "window_start")])
def test_columns_that_share_their_cells_share_them_once_merged(by: tuple[str, ...]) -> None:
    one, two = make_statistics(30, 1), make_statistics(30, 2)
    unique = one.cells.assign(slice_value=[str(i % 7) for i in range(30)], dataset=one.cells.index)
    for cells in (one.cells, unique.astype({"dataset": str})):
        columns = {"one": replace(one, cells=cells), "two": replace(two, cells=cells)}
        merged = merge_columns(columns, by)
        assert merged["one"].cells is merged["two"].cells
        for name, stats in columns.items():
            assert_identical(merged[name], merge(stats, by))


def test_keys_that_were_merged_away_read_all_and_the_earliest_start() -> None:
    merged = merge(make_statistics(20), ("dataset",))
    assert merged.cells.to_dict("records") == [
        {"window_start": START, "dataset": "production", "model_version": ALL,
         "slice_key": ALL, "slice_value": ALL}
    ]  # fmt: skip
    assert str(merged.cells["window_start"].dtype) == "datetime64[us, UTC]"


def test_each_group_keeps_its_own_earliest_start() -> None:
    stats = make_statistics(2)
    cells = stats.cells.assign(
        window_start=[START + pd.Timedelta(days=5), START], model_version=["1", "2"]
    )
    merged = merge(replace(stats, cells=cells), ("model_version",))
    assert merged.cells["window_start"].tolist() == [START + pd.Timedelta(days=5), START]


def test_no_cells_merge_to_no_cells() -> None:
    nothing = empty(BINNING)
    assert len(merge(nothing, ())) == 0
    assert nothing.counts.shape == (0, 4)
    stats = make_statistics(4)
    assert_identical(concat([nothing, stats]), stats)


def test_unseen_names_are_added_up_and_bounded() -> None:
    stats = make_statistics(2)
    names = [{f"u{i:02d}": 1 for i in range(15)}, {"u14": 3, "v": 2}]
    merged = merge(replace(stats, unseen=names), ())
    assert len(merged.unseen[0]) == UNSEEN_KEPT
    assert list(merged.unseen[0].items())[:3] == [("u14", 4), ("v", 2), ("u00", 1)]
    assert commonest({"b": 1, "a": 1, "c": 2}, keep=2) == {"c": 2, "a": 1}


def test_other_bins_refuse_to_be_added() -> None:
    other = replace(make_statistics(2), binning=replace(BINNING, binning_id="id-2"))
    with pytest.raises(StoreError, match=r"'x' were made with different bins \(id-1 and id-2"):
        concat([make_statistics(2), other])


def test_select_takes_masks_and_positions() -> None:
    stats = make_statistics(5)
    mask = np.array([False, True, False, False, True])
    assert_identical(select(stats, mask), select(stats, np.array([1, 4])))
    assert select(stats, np.array([4, 1])).n.tolist() == [stats.n[4], stats.n[1]]
    assert len(select(stats, np.zeros(5, bool))) == 0


NUMERIC = Binning("x", "numeric", 6, "n", edges=(0.0, 10.0), fine=2, low=-4.0, high=30.0)


def test_upper_edges_halve_each_coarse_bin_and_end_open() -> None:
    assert upper_edges(NUMERIC).tolist() == [-2, 0, 5, 10, 20, np.inf]
    assert representatives(NUMERIC).tolist() == [-3, -1, 2.5, 7.5, 15, 25]


def test_a_coarse_bin_of_one_value_gives_its_rows_to_the_first_sub_bin() -> None:
    binning = replace(NUMERIC, low=0.0)
    assert np.searchsorted(upper_edges(binning), [-1.0, 0.0, 1.0]).tolist() == [0, 0, 2]
