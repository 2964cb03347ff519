"""Profiles against an oracle in plain pandas, and their exact merging."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlmon_dagster.errors import StoreError
from mlmon_dagster.metrics.binnings import latency_representatives
from mlmon_dagster.metrics.performance.roc import SCORE_ORDER
from mlmon_dagster.metrics.statistics import CELL_KEYS, ColumnStatistics, concat, merge
from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles import compiler as cells_module
from mlmon_dagster.profiles.bin_codes import DUCKDB, STANDARD, Dialect
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.spec.names import ROWS
from mlmon_dagster.store.state import erased_ids
from tests.profiles import oracle
from tests.profiles.comparing import assert_all_equal, assert_equal, in_order
from tests.profiles.records import START, DuckEngine, make_records, make_spec

SPEC = make_spec()
RECORDS = make_records(1200, seed=2)
BASELINE = make_records(1500, seed=1)


def profiles_of(
    records: pa.Table,
    baseline: pa.Table = BASELINE,
    dialect: Dialect = DUCKDB,
    spec: Any = SPEC,
    key: str = "",
) -> dict[str, ColumnStatistics]:
    engine = DuckEngine(records=records, baseline=baseline)
    binnings = fit_binnings(engine, spec, "baseline", key=key)
    return build_profiles(engine, spec, "records", binnings, dialect, key)


@pytest.fixture(scope="module")
def profiles() -> dict[str, ColumnStatistics]:
    return profiles_of(RECORDS)


@pytest.fixture(scope="module")
def cells() -> dict[tuple[Any, ...], Any]:
    return oracle.cells_of(oracle.rows_of(RECORDS), SPEC)


def check_counts(stats: ColumnStatistics, cells: dict[Any, Any], code: Any) -> None:
    """Compare counts and nulls with a code per row (None for a null)."""
    for i, (key, part) in enumerate(cells.items()):
        codes = [code(row, key[3] != "all") for _, row in part.iterrows()]
        known = [c for c in codes if c is not None]
        np.testing.assert_array_equal(
            stats.counts[i], oracle.count(known, stats.binning.size), err_msg=str(key)
        )
        missing = stats.n_null[i] + stats.n_nan[i] + stats.n_inf[i]
        assert (stats.n[i], missing) == (len(part), len(codes) - len(known))


def test_cells_are_window_version_and_slice_sorted_and_shared_by_all_columns(
    profiles: Any, cells: Any
) -> None:
    frame = profiles["temp"].cells
    assert list(frame.columns) == list(CELL_KEYS)
    assert [tuple(row) for row in frame.itertuples(index=False)] == list(cells)
    assert str(frame["window_start"].dtype) == "datetime64[us, UTC]"
    of_whole = (SCORE_ORDER, ROWS)
    assert all(profiles[name].cells is frame for name in profiles if name not in of_whole)
    whole = frame[frame["slice_key"] == "all"].reset_index(drop=True)
    for name in of_whole:
        pd.testing.assert_frame_equal(profiles[name].cells, whole)
    assert profiles[ROWS].counts.sum(axis=1).tolist() == profiles[ROWS].n.tolist()
    assert {"EWR,D\\,L", "L\\\\GA,<null>", "<null>,"} <= set(frame["slice_value"])


READ: dict[str, Any] = {
    "booked_at": lambda row: (row["event_time"] - row["booked_at"]).total_seconds(),
    "note": lambda row: len(row["note"]),
    "is_holiday": lambda row: "true" if row["is_holiday"] else "false",
}
ROLES: dict[str, Any] = {
    "prediction": lambda row: row["prediction"] * 3 + oracle.label_state(row["actual"]),
    "score": lambda row: oracle.score_code(row["score"], row["actual"]),
    "status": lambda row: int(row["status"] != "ok"),
}


@pytest.mark.parametrize("name", [*SPEC.features, *ROLES])
def test_every_row_is_counted_in_its_bin(name: str, profiles: Any, cells: Any) -> None:
    """Numbers in fine bins of the whole, coarse ones of slices; times by age, texts by length."""
    binning = profiles[name].binning

    def code(row: Any, coarse: bool) -> Any:
        if row[name] is None:
            return None
        if name in ROLES:
            return ROLES[name](row)
        value = READ.get(name, lambda row: row[name])(row)
        if binning.kind == "numeric":
            return oracle.numeric_code(binning, value, coarse_only=coarse)
        return oracle.category_code(binning, value)

    check_counts(profiles[name], cells, code)


def test_moments_match_pandas_cell_by_cell(profiles: Any, cells: Any) -> None:
    stats = profiles["temp"]
    for i, part in enumerate(cells.values()):
        x = np.array([v for v in part["temp"] if v is not None], dtype=float)
        assert stats.minimum[i] == pytest.approx(x.min() if len(x) else np.nan, nan_ok=True, rel=0)
        assert stats.maximum[i] == pytest.approx(x.max() if len(x) else np.nan, nan_ok=True, rel=0)
        centred = x - stats.binning.centre
        assert stats.total[i] == pytest.approx(centred.sum(), rel=1e-9, abs=1e-9)
        assert stats.total_sq[i] == pytest.approx((centred**2).sum(), rel=1e-9, abs=1e-9)
        assert stats.n_out_of_range[i] == ((x < -20) | (x > 100)).sum()


def test_not_a_number_infinite_and_missing_are_told_apart(profiles: Any, cells: Any) -> None:
    stats = profiles["temp"]
    for i, part in enumerate(cells.values()):
        entries = Counter(entry for row in part["nonfinite"] for entry in row or [])
        assert stats.n_nan[i] == entries["temp:nan"]
        assert stats.n_inf[i] == entries["temp:inf"]
        assert stats.n_null[i] == part["temp"].isna().sum() - entries.total()
    assert stats.n_nan.sum() > 0
    assert stats.n_inf.sum() > 0
    assert profiles["hour"].n_nan.sum() == 0


def test_infinities_of_both_signs_count_as_infinite() -> None:
    records = make_records(4, nonfinite=[["hour:inf"], ["hour:-inf"], ["hour:nan"], None])
    whole = merge(profiles_of(records, spec=make_spec(slices=[]))["hour"], ())
    assert (whole.n_inf[0], whole.n_nan[0]) == (2, 1)


def test_sums_of_the_score_are_its_losses(profiles: Any, cells: Any) -> None:
    stats = profiles["score"]
    for i, part in enumerate(cells.values()):
        labelled = part[part["actual"].notna() & part["score"].notna()]
        pairs = list(zip(labelled["score"], labelled["actual"], strict=True))
        assert stats.total[i] == pytest.approx(sum(oracle.log_loss(s, a) for s, a in pairs))
        assert stats.total_sq[i] == pytest.approx(sum((s - a) ** 2 for s, a in pairs))


def test_a_latency_is_within_one_percent_of_its_bin_and_beyond_the_scale_in_an_outer_one() -> None:
    values = [-1.0, 0.0, 1e-3, 0.0011, 0.5, 1.0, 7.7, 99.99, 250.0, 3_600_000.0, 9.99e6, 1e12]
    n = len(values)
    records = make_records(n, days=1, latency_ms=values, model_version=["1"] * n)
    stats = profiles_of(records, spec=make_spec(slices=[]))["latency_ms"]
    codes = np.repeat(np.arange(stats.binning.size), stats.counts[0])
    assert codes[[0, 1, -1]].tolist() == [0, 0, stats.binning.size - 1]
    found = latency_representatives(stats.binning)[codes[2:-1]]
    assert found == pytest.approx(values[2:-1], rel=0.0101)
    assert (stats.minimum[0], stats.maximum[0]) == (-1, 1e12)


def test_both_dialects_give_equal_statistics(profiles: Any) -> None:
    portable = profiles_of(RECORDS, dialect=STANDARD)
    assert profiles.keys() - portable.keys() == {ROWS}
    assert_all_equal(portable, {name: profiles[name] for name in portable}, 1e-9)


def test_no_rows_give_no_cells() -> None:
    for name, stats in profiles_of(RECORDS.slice(0, 0)).items():
        assert len(stats) == 0
        assert stats.counts.shape == (0, stats.binning.size), name


def test_all_null_columns_have_cells_and_no_values() -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ("temp", "hour", "carrier", "score", "prediction", "latency_ms", "status", "note"),
        [None] * 50,
    )
    records = make_records(50, days=1, nonfinite=[None] * 50, **nothing)
    for name in nothing:
        stats = merge(profiles_of(records, spec=make_spec(slices=[]))[name], ())
        assert stats.counts.sum() == 0
        assert (stats.n[0], stats.n_null[0]) == (50, 50)
        assert np.isnan(stats.minimum[0])
        assert stats.total[0] == 0


def test_values_beyond_the_baseline_fall_into_the_open_outer_bins() -> None:
    records = make_records(
        4, days=1, model_version=["1"] * 4, temp=[-1e308, 1e308, -1e9, 1e9], nonfinite=[None] * 4
    )
    stats = profiles_of(records, spec=make_spec(slices=[]))["temp"]
    assert (stats.counts[0, 0], stats.counts[0, -1]) == (2, 2)


def test_a_value_on_an_edge_belongs_to_the_bin_below_it() -> None:
    edges = profiles_of(RECORDS)["temp"].binning.edges
    n = len(edges)
    for dialect in (DUCKDB, STANDARD):
        for values, first in (
            (list(edges), 0),
            ([float(np.nextafter(edge, np.inf)) for edge in edges], 1),
        ):
            records = make_records(
                n, days=1, temp=values, model_version=["1"] * n, nonfinite=[None] * n
            )
            stats = profiles_of(records, dialect=dialect, spec=make_spec(slices=[]))["temp"]
            coarse = stats.counts.reshape(-1, stats.binning.fine).sum(axis=1)
            assert np.flatnonzero(coarse).tolist() == list(range(first, first + n))


def test_commonest_unseen_names_are_kept_for_the_whole_only() -> None:
    names = ["new"] * 5 + [f"x{i:02d}" for i in range(20)] + ["UA"] * 5
    records = make_records(30, days=1, carrier=names, model_version=["1"] * 30)
    for dialect in (DUCKDB, STANDARD):
        stats = profiles_of(records, dialect=dialect)["carrier"]
        whole = (stats.cells["slice_key"] == "all").to_numpy()
        expected = {"new": 5} | {f"x{i:02d}": 1 for i in range(9)}
        assert [u for u, w in zip(stats.unseen, whole, strict=True) if w] == [expected]
        assert not any(u for u, w in zip(stats.unseen, whole, strict=True) if not w)
        assert stats.counts[whole, -1].tolist() == [25]


def test_many_rows_are_counted_in_fewer_statements_to_the_same(
    monkeypatch: pytest.MonkeyPatch, profiles: dict[str, ColumnStatistics]
) -> None:
    engine = DuckEngine(records=RECORDS, baseline=BASELINE)
    binnings = fit_binnings(engine, SPEC, "baseline")
    asked = []
    for few in (len(RECORDS) + 1, len(RECORDS)):
        monkeypatch.setattr(cells_module, "_FEW_ROWS", few)
        engine.statements.clear()
        found = build_profiles(engine, SPEC, "records", binnings)
        asked.append(len(engine.statements))
        assert_all_equal(found, profiles)
    assert asked == [7, 6]


def test_unseen_values_of_personal_columns_are_counted_but_never_named() -> None:
    features = make_spec().model_dump(mode="json")["features"]
    features["carrier"]["pii"] = True
    spec = make_spec(features=features, slices=[])
    records = make_records(30, carrier=["secret"] * 30)
    stats = profiles_of(records, spec=spec, key="k")["carrier"]
    assert stats.counts[:, -1].sum() == 30
    assert not any(stats.unseen)


@pytest.mark.parametrize("n", [1, 7, 400])
@pytest.mark.parametrize("column", ["temp", "hour", "booked_at", "note"])
def test_no_number_of_a_personal_column_is_one_persons_value(column: str, n: int) -> None:
    features = make_spec().model_dump(mode="json")["features"]
    features[column]["pii"] = True
    spec = make_spec(features=features)
    open_spec = make_spec()
    random = np.random.default_rng(n)
    values: Any = {
        "temp": (random.normal(40, 9, n) + 0.123456).tolist(),
        "hour": (random.integers(1, 7, n) + 0.123456).tolist(),
        "booked_at": [START + pd.Timedelta(seconds=int(s)) for s in random.integers(0, 10**6, n)],
        "note": ["x" * (10 * int(i) + 7) for i in random.integers(10, 99, n)],
    }
    rows = make_records(n, **{column: values[column]})
    kept, exact = (profiles_of(rows, baseline=rows, spec=s)[column] for s in (spec, open_spec))
    people = set(exact.minimum[np.isfinite(exact.minimum)]) | set(exact.maximum) | {
        *exact.binning.edges, *exact.binning.values, exact.binning.low, exact.binning.high
    }  # fmt: skip
    bins = kept.binning
    shown = [kept.minimum, kept.maximum, kept.total + bins.centre, bins.edges, bins.values,
             [bins.low, bins.high, bins.centre]]  # fmt: skip

    assert not people & {float(number) for numbers in shown for number in numbers} - {0.0}
    assert (kept.minimum <= kept.maximum).all()
    assert kept.counts.sum() == exact.counts.sum()
    whole = merge(kept, ("slice_key", "slice_value"))
    mean = whole.total[-1] / whole.counts[-1].sum() + kept.binning.centre
    step = max(kept.binning.high - kept.binning.low, 1.0)
    truth = merge(exact, ("slice_key", "slice_value"))
    assert abs(mean - truth.total[-1] / truth.counts[-1].sum() - exact.binning.centre) <= step


def test_the_digest_of_a_personal_category_has_a_key() -> None:
    features = make_spec().model_dump(mode="json")["features"]
    features["carrier"]["pii"] = True
    spec = make_spec(features=features, slices=[])
    names = ["anna", "bert", "carl", "dora", "emil"]
    engine = DuckEngine(baseline=make_records(50, carrier=names * 10))
    with pytest.raises(ValueError, match="expected the model's key"):
        fit_binnings(engine, spec, "baseline")
    kept, other = (fit_binnings(engine, spec, "baseline", key=k)["carrier"] for k in ("k", "l"))

    assert set(kept.categories) == {erased_ids.digest_personal("k", name) for name in names}
    assert not set(kept.categories) & set(other.categories)
    guesses = {
        make(f"{before}{name}".encode()).hexdigest()[:32]
        for name in names
        for before in ("", "late:", "late")
        for make in (hashlib.md5, hashlib.sha256)
    }
    assert not guesses & set(kept.categories)


def test_hostile_names_and_values_are_data_not_sql() -> None:
    hostile = "x'); DROP TABLE records; --"
    name = 'a"b; --'
    features = {name: {"type": "categorical"}, "origin": {"type": "categorical"}}
    spec = make_spec(slices=[]).model_copy(
        update={
            "features": {key: make_spec().features["origin"] for key in features},
            "slices": ((name,),),
        }
    )
    base = make_records(40).append_column(name, pa.array([hostile, "é\n\t", "", None] * 10))
    stats = profiles_of(base, baseline=base, spec=spec)[name]
    whole = merge(stats, ("slice_key", "slice_value"))
    assert stats.binning.categories[0] in (hostile, "é\n\t", "")
    assert whole.counts[-1].tolist() == [10, 10, 10, 0, 0]  # slice `all`, the last key
    assert hostile in set(whole.cells["slice_value"])


def test_a_slice_with_too_many_values_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cells_module, "MAX_CELLS", 10)
    with pytest.raises(StoreError, match="has too many values; remove it from the spec"):
        profiles_of(RECORDS)


def test_columns_without_bins_are_left_out() -> None:
    engine = DuckEngine(records=RECORDS, baseline=BASELINE)
    binnings = fit_binnings(engine, SPEC, "baseline")
    del binnings["temp"]
    assert binnings[ROWS].categories[0] == "temp"  # rows are counted by all they are hashed by
    found = build_profiles(engine, SPEC, "records", binnings)
    assert list(found) == [name for name in binnings if name != ROWS]
    assert build_profiles(engine, SPEC, "records", {}) == {}


def test_several_datasets_and_windows_come_from_one_pass() -> None:
    both = pa.concat_tables([RECORDS, make_records(300, seed=5, dataset="shadow")])
    together = profiles_of(both)["temp"]
    alone = profiles_of(RECORDS)["temp"]
    production = (together.cells["dataset"] == "production").to_numpy()
    assert set(together.cells["dataset"]) == {"production", "shadow"}
    np.testing.assert_array_equal(together.counts[production], alone.counts)


SHARED = DuckEngine(baseline=BASELINE)
BINNINGS = fit_binnings(SHARED, SPEC, "baseline")


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    parts=st.lists(st.integers(0, 3), min_size=1200, max_size=1200).map(np.array),
    seed=st.integers(0, 2**16),
)
def test_whole_is_the_merge_of_any_parts_in_any_order(profiles: Any, parts: Any, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(parts))
    built = []
    for part in range(4):
        mine = order[parts[order] == part]
        if len(mine):
            engine = DuckEngine(records=RECORDS.take(mine))
            built.append(build_profiles(engine, SPEC, "records", BINNINGS))
    for name, whole in profiles.items():
        merged = merge(concat([some[name] for some in built]), CELL_KEYS)
        assert_equal(in_order(merged), whole, sums=1e-9, names=False)


def test_a_month_is_the_merge_of_its_days(profiles: Any) -> None:
    same = [START.to_pydatetime()] * len(RECORDS)
    whole = profiles_of(RECORDS.set_column(0, "window_start", pa.array(same, RECORDS[0].type)))
    for name, stats in profiles.items():
        merged = merge(stats, CELL_KEYS[1:])
        merged = replace(merged, cells=merged.cells.assign(window_start=START))
        assert_equal(in_order(merged), whole[name], sums=1e-9, names=False)


def test_windows_keep_their_starts_when_days_are_23_hours_long() -> None:
    starts = [
        dt.datetime(2026, 3, 8, 5, tzinfo=dt.UTC),  # midnight in New York before the change
        dt.datetime(2026, 3, 9, 4, tzinfo=dt.UTC),
    ]
    records = make_records(2, window_start=starts, model_version=["1"] * 2)
    cells = profiles_of(records, spec=make_spec(slices=[]))["temp"].cells
    assert cells["window_start"].tolist() == starts
