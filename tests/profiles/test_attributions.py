"""Shares of a row's SHAP values, as every engine counts them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles.bin_codes import DUCKDB, STANDARD
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.profiles.loss_columns import share_of
from tests.profiles.records import DuckEngine, make_records, make_spec

FEATURES = ("temp", "hour", "carrier")


def profiled(dialect: Any, *rows: tuple[float | None, ...]) -> dict[str, Any]:
    columns = make_spec().columns.model_dump(exclude_none=True)
    spec = make_spec(slices=[], columns=columns | {"shap": {f: f"shap_{f}" for f in FEATURES}})
    records = make_records(len(rows), days=1, model_version=["1"] * len(rows))
    for i, feature in enumerate(FEATURES):
        values = pa.array([row[i] for row in rows], pa.float64())
        records = records.append_column(f"shap:{feature}", values)
    engine = DuckEngine(records=records)
    binnings = fit_binnings(engine, spec, "records", dialect)
    profiles = build_profiles(engine, spec, "records", binnings, dialect)
    return {feature: profiles[share_of(feature)] for feature in FEATURES}


@pytest.mark.parametrize("dialect", [DUCKDB, STANDARD], ids=lambda d: d.name)
def test_shares_are_of_the_rows_own_sum_of_magnitudes(dialect: Any) -> None:
    found = profiled(dialect, (3.0, -1.0, 0.0), (-0.5, 0.25, 0.25), (0.0, 0.0, 2.0))
    expected = np.array([[0.75, 0.25, 0], [0.5, 0.25, 0.25], [0, 0, 1]])
    for i, feature in enumerate(FEATURES):
        assert found[feature].counts.sum() == 3
        assert found[feature].total[0] == pytest.approx(expected[:, i].sum(), abs=1e-12)
        assert found[feature].total_sq[0] == pytest.approx((expected[:, i] ** 2).sum(), abs=1e-12)


@pytest.mark.parametrize("dialect", [DUCKDB, STANDARD], ids=lambda d: d.name)
@pytest.mark.parametrize("row", [(None, 1.0, 1.0), (0.0, 0.0, 0.0), (None, None, None)])
def test_a_row_without_all_values_or_with_zeros_only_has_no_shares(dialect: Any, row: Any) -> None:
    found = profiled(dialect, row, (1.0, 1.0, 2.0))
    assert {int(found[feature].counts.sum()) for feature in FEATURES} == {1}
    assert {int(found[feature].n_null.sum()) for feature in FEATURES} == {1}


@pytest.mark.parametrize("dialect", [DUCKDB, STANDARD], ids=lambda d: d.name)
def test_the_largest_and_the_smallest_numbers_have_shares(dialect: Any) -> None:
    found = profiled(dialect, (1.7e308, -1.7e308, 1.7e308), (1e-300, 1e-300, 1e-300))
    for stats in found.values():
        assert stats.total[0] == pytest.approx(2 / 3, abs=1e-12)
