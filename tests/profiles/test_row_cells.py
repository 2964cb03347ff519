"""Rows by a hash of their features: the same values fall into the same cell, others anywhere."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from scipy import stats

from mlmon_dagster.metrics.windows.repeats import CELLS, hash_rows
from mlmon_dagster.profiles.bin_codes import DUCKDB, STANDARD
from mlmon_dagster.profiles.bin_shapes import categorical_binning, discrete_binning
from mlmon_dagster.profiles.fit import fit_binnings, fit_rows
from mlmon_dagster.spec.names import ROWS
from tests.profiles.records import DuckEngine, make_records, make_spec

FACTOR = 0x9E3779B97F4A7C15


def hashed(*columns: list[float | None]) -> list[int]:
    return hash_rows([np.array(column, float) for column in columns], CELLS).tolist()


def test_a_row_has_the_same_cell_everywhere() -> None:
    """Stored counts are compared with those of later days and other machines."""
    rows = [(1.5, 0.0), (-2.0, 3.0), (float("nan"), 7.0), (0.0, -1.0)]
    expected = []
    for row in rows:
        found = 0
        for value in row:
            found = (found ^ int.from_bytes(struct.pack("<d", value), "little")) * FACTOR % 2**64
            found ^= found >> 32
        expected.append(found * FACTOR % 2**64 >> 53)
    assert hashed(*map(list, zip(*rows, strict=True))) == expected
    assert hashed([0.0, None]) == hashed([-0.0, float("nan")])
    assert hashed([1.0, 2.0], [2.0, 1.0])[0] != hashed([1.0, 2.0], [2.0, 1.0])[1]


@pytest.mark.parametrize("values", [
    np.arange(40_000.0), np.repeat(np.arange(200.0), 200), np.linspace(0, 1, 40_000),
    1e9 + np.arange(40_000.0) / 100,
])  # fmt: skip
def test_different_rows_fall_into_all_cells_alike(values: np.ndarray) -> None:
    other = np.tile(np.arange(200.0), 200)
    cells = hash_rows([values, other], CELLS)
    counts = np.bincount(cells, minlength=CELLS)
    assert len(counts) == CELLS
    assert stats.chisquare(counts).pvalue > 1e-4


def test_the_features_with_the_most_values_tell_rows_apart() -> None:
    features = {f"n{i}": {"type": "numeric"} for i in range(10)} | {"c": {"type": "categorical"}}
    spec = make_spec(features=features, slices=[])
    binnings = {f"n{i}": discrete_binning(f"n{i}", list(map(float, range(i + 1))), centre=0.0)
                for i in range(10)}  # fmt: skip
    binnings["c"] = categorical_binning("c", list("abcdefghijklmnop"))
    [found] = fit_rows(spec, binnings, DUCKDB).values()
    assert found.categories == ("c", *(f"n{i}" for i in range(9, 2, -1)))
    assert found.size == CELLS
    assert fit_rows(spec, binnings, STANDARD) == {}


def test_times_and_texts_are_left_out() -> None:
    spec = make_spec()
    binnings = fit_binnings(DuckEngine(base=make_records(40)), spec, "base")
    kinds = {spec.features[name].type for name in binnings[ROWS].categories}
    assert kinds <= {"numeric", "categorical", "boolean"}
