"""Choosing bins: quantiles, single values, categories and the degenerate baselines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlmon_dagster.metrics.binnings import just_below, representatives, upper_edges
from mlmon_dagster.profiles import bin_shapes as shapes
from mlmon_dagster.profiles.bin_codes import DUCKDB, STANDARD, Column, code_expression
from mlmon_dagster.profiles.bin_shapes import (
    binning_from_json,
    binning_to_json,
    categorical_binning,
    discrete_binning,
    numeric_binning,
    role_binning,
)
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.spec.names import ROWS
from tests.profiles.records import DuckEngine, make_records, make_spec

SPEC = make_spec(slices=[])


def fit(**columns: Any) -> dict[str, Any]:
    n = len(next(iter(columns.values())))
    return fit_binnings(DuckEngine(base=make_records(n, **columns)), SPEC, "base")


def test_edges_are_values_at_the_twentieths_of_the_baseline_and_its_ends() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1, 1001.0))
    binning = fit(hour=values)["hour"]
    assert binning.edges == (just_below(1.0), *np.arange(50.0, 1000, 50), 1000.0)
    assert (binning.low, binning.high, binning.centre, binning.fine) == (1, 1000, 500, 12)
    assert binning.size == 22 * 12
    coarse = np.bincount(np.searchsorted(binning.edges, values, side="left"), minlength=22)
    assert coarse.tolist() == [0, *[50] * 20, 0]


@pytest.mark.parametrize("heap", [0.0, 40.0, 100.0])
def test_where_most_rows_are_on_a_heap_the_others_have_twentieths_of_their_own(heap: float) -> None:
    rest = np.linspace(1, 99, 300)
    rest = rest[rest != heap]
    binning = fit(hour=[*rest, *[heap] * 700])["hour"]
    assert {just_below(heap), heap} <= set(binning.edges)
    assert set(rest[np.arange(1, 20) * len(rest) // 20 - 1]) <= set(binning.edges)
    codes = np.searchsorted(upper_edges(binning), [just_below(heap), heap, heap + 1e-9])
    assert len({*(codes // binning.fine).tolist()}) == 3
    assert representatives(binning)[codes[1]] == heap


@pytest.mark.parametrize(
    "values",
    [np.linspace(0, 9, 500), [0.0] * 300 + [*np.linspace(0, 9, 99)], [*np.linspace(0, 9, 99)] * 3
     + [9.0] * 300, [0.0] * 300 + [*np.linspace(0, 9, 99)] + [9.0] * 300],
)  # fmt: skip
def test_below_and_above_the_baseline_are_bins_of_their_own(values: Any) -> None:
    binning = fit(hour=values)["hour"]
    low, high = binning.low, binning.high
    outside = [-1e300, -999.0, low - 1e-9, low, high, high + 1e-9, 999.0, 1e300]
    codes = np.searchsorted(upper_edges(binning), outside) // binning.fine
    last = binning.size // binning.fine - 1
    assert codes[:3].tolist() == [0] * 3
    assert codes[-3:].tolist() == [last] * 3
    assert 0 < codes[3] <= codes[4] < last


@pytest.mark.parametrize("n_values", [2, 3, 32])
def test_few_distinct_values_have_a_bin_each_and_open_ends(n_values: int) -> None:
    values = [float(v) for v in range(n_values)]
    binning = fit(hour=values * 3)["hour"]
    assert binning.edges == tuple(np.arange(n_values + 1) - 0.5)
    assert (binning.size, binning.fine) == (n_values + 2, 1)
    assert representatives(binning).tolist() == [-0.5, *values, n_values - 0.5]


def test_a_constants_bin_holds_nothing_else() -> None:
    binning = fit(hour=[5.0] * 10)["hour"]
    codes = np.searchsorted(
        upper_edges(binning), [4.0, math.nextafter(5, 0), 5.0, math.nextafter(5, 9), 6.0]
    )
    assert codes.tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("hour", [[None] * 5, []])
def test_a_baseline_without_values_has_one_bin(hour: list[None]) -> None:
    rows = make_records(len(hour), hour=hour)
    binning = fit_binnings(DuckEngine(base=rows), SPEC, "base")["hour"]
    assert (binning.size, binning.edges, binning.centre) == (1, (), 0.0)
    assert representatives(binning).tolist() == [0.0]
    assert fit_binnings(DuckEngine(base=rows), SPEC, "base")["score"].size == 3072


def test_categories_are_ordered_by_count_then_name() -> None:
    names = ["b"] * 3 + ["c"] * 3 + ["a"] * 2 + [None] * 9
    binning = fit(carrier=names)["carrier"]
    assert binning.categories == ("b", "c", "a")
    assert binning.size == 5


def test_rare_categories_are_other_and_too_many_make_a_column_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shapes, "MAX_CATEGORIES", 2)
    monkeypatch.setattr(shapes, "MAX_TAIL", 2)
    some = fit(carrier=["a", "a", "b", "b", "c", "d"])["carrier"]
    assert (some.categories, some.tail, some.is_open) == (("a", "b"), ("c", "d"), False)
    many = fit(carrier=["a", "a", "b", "b", "c", "d", "e"])["carrier"]
    assert (many.categories, many.tail, many.is_open) == (("a", "b"), (), True)
    engine = DuckEngine()
    for dialect in (DUCKDB, STANDARD):
        for binning, codes in ((some, [0, 2, 2, 3, -1]), (many, [0, 2, 2, 2, -1])):
            sql = code_expression(Column(binning, "x"), dialect)
            rows = engine.query(
                f"SELECT {sql} AS code FROM (VALUES (1,'a'),(2,'c'),(3,'d'),(4,'z'),(5,NULL))"
                " AS v(i, x) ORDER BY i"
            )
            assert rows.column("code").to_pylist() == codes


def test_the_order_of_rows_does_not_matter() -> None:
    rows = make_records(500, seed=3)
    shuffled = rows.take(np.random.default_rng(0).permutation(500))
    first = fit_binnings(DuckEngine(base=rows), SPEC, "base")
    assert first == fit_binnings(DuckEngine(base=shuffled), SPEC, "base")


def test_any_difference_of_bins_is_a_different_id() -> None:
    ids = {
        binning.binning_id
        for binning in (
            numeric_binning("x", [1, 2], low=0, high=3),
            numeric_binning("x", [1, 2], low=0, high=4),
            numeric_binning("x", [1, 2], low=0, high=3, centre=1),
            numeric_binning("y", [1, 2], low=0, high=3),
            numeric_binning("x", [1], low=0, high=3),
            discrete_binning("x", [1, 2]),
            categorical_binning("x", ["1", "2"]),
            categorical_binning("x", ["2", "1"]),
            role_binning("x", "score"),
            role_binning("x", "latency"),
        )
    }
    assert len(ids) == 10


def test_fitted_kinds_are_refused_as_fixed() -> None:
    with pytest.raises(ValueError, match="'numeric' are fitted"):
        role_binning("x", "numeric")


def test_roles_that_the_model_does_not_log_have_no_bins() -> None:
    roles = {"prediction_id": "id", "event_time": "at", "score": "p"}
    spec = make_spec(slices=[], columns=roles)
    found = fit_binnings(DuckEngine(base=make_records(9)), spec, "base")
    assert set(found) - set(spec.features) == {"score", ROWS}


def test_predictions_of_a_regression_are_profiled_like_a_number() -> None:
    roles = {"prediction_id": "id", "event_time": "at", "prediction": "p", "actual": "y"}
    spec = make_spec(slices=[]).model_copy(
        update={
            "task": "regression",
            "columns": make_spec().columns.model_copy(
                update={"score": None, **{k: v for k, v in roles.items() if k != "actual"}}
            ),
        }
    )
    records = make_records(5, prediction=[1, 2, 3, 4, 5])
    assert fit_binnings(DuckEngine(base=records), spec, "base")["prediction"].kind == "numeric"


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(edges=st.lists(FLOATS, max_size=25), ends=st.tuples(FLOATS, FLOATS), x=FLOATS)
@example(edges=[], ends=(0.0, 5e-324), x=0.0)
def test_a_code_divided_by_fine_is_the_exact_coarse_bin(
    edges: list[float], ends: tuple[float, float], x: float
) -> None:
    low, high = min(*ends, *edges), max(*ends, *edges)
    binning = numeric_binning("x", edges, low=low, high=high)
    upper = upper_edges(binning)
    assert len(upper) == binning.size
    assert np.all(upper[:-1] <= upper[1:])
    for value in (x, *binning.edges, low, high):
        code = int(np.searchsorted(upper, value, side="left"))
        assert code // binning.fine == int(np.searchsorted(binning.edges, value, side="left"))
    middles = representatives(binning)
    assert np.isfinite(middles).all()
    assert np.all(np.diff(middles) >= 0)


@settings(max_examples=25, deadline=None)
@given(edges=st.lists(FLOATS, min_size=1, max_size=25), more=st.lists(FLOATS, max_size=30))
def test_both_dialects_find_the_code_that_numpy_finds(
    edges: list[float], more: list[float]
) -> None:
    binning = numeric_binning("x", edges, low=min(edges), high=max([*edges, *more]))
    values = [*edges, *more]
    engine = DuckEngine(v=pa.table({"i": range(len(values)), "x": pa.array(values, pa.float64())}))
    sql = code_expression(Column(binning, "x"), STANDARD)
    found = engine.query(f"SELECT {sql} AS code FROM v ORDER BY i").column("code").to_pylist()
    assert found == np.searchsorted(upper_edges(binning), values, side="left").tolist()


@settings(max_examples=40, deadline=None)
@given(values=st.lists(FLOATS, max_size=32, unique=True), names=st.lists(st.text(), unique=True))
def test_binnings_survive_json(values: list[float], names: list[str]) -> None:
    for binning in (discrete_binning("x", values), categorical_binning("x", names)):
        assert binning_from_json(binning_to_json(binning)) == binning


@settings(max_examples=60, deadline=None)
@given(values=st.lists(FLOATS, min_size=1, max_size=32, unique=True))
def test_every_single_value_is_alone_in_its_bin(values: list[float]) -> None:
    binning = discrete_binning("x", values)
    codes = np.searchsorted(upper_edges(binning), sorted({v + 0.0 for v in values}), side="left")
    assert codes.tolist() == list(range(1, len(set(values)) + 1))
