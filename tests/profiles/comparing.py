"""Equality of statistics, exact but for the last digits of floating-point sums."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlmon_dagster.metrics.statistics import CELL_KEYS, ColumnStatistics, select

_EXACT = ("counts", "n", "n_null", "n_nan", "n_inf", "n_out_of_range", "minimum", "maximum")


def in_order(stats: ColumnStatistics) -> ColumnStatistics:
    """Sort the cells by their keys."""
    order = stats.cells.sort_values(list(CELL_KEYS), kind="stable").index.to_numpy()
    return select(stats, order)


def assert_equal(
    left: ColumnStatistics, right: ColumnStatistics, *, names: bool = True, sums: float = 0.0
) -> None:
    """Fail unless the two are equal.

    Args:
        left: One side.
        right: The other.
        names: Whether the names of unseen categories count.
        sums: Relative tolerance of the sums, to be used where rows were added in another order.
    """
    assert left.binning == right.binning
    pd.testing.assert_frame_equal(left.cells, right.cells)
    for name in _EXACT:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    for name in ("total", "total_sq"):
        np.testing.assert_allclose(
            getattr(left, name), getattr(right, name), rtol=sums, atol=sums, err_msg=name
        )
    assert len(left.order) == len(right.order)
    for mine, other in zip(left.order, right.order, strict=True):
        np.testing.assert_array_equal(mine, other, err_msg="order")
    if names:
        assert left.unseen == right.unseen


def assert_all_equal(
    found: Mapping[str, ColumnStatistics],
    expected: Mapping[str, ColumnStatistics],
    sums: float = 0.0,
) -> None:
    """Fail unless the same columns have equal statistics."""
    assert found.keys() == expected.keys()
    for name, stats in expected.items():
        assert_equal(found[name], stats, sums=sums)
