"""The sums of columns taken together: from rows to profiles, and back from the store."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlmon_dagster.metrics.drift.joint import JOINT, joint_sums
from mlmon_dagster.metrics.statistics import merge
from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles.bin_codes import POSTGRES, STANDARD
from mlmon_dagster.profiles.bin_shapes import decode_binnings, encode_binnings
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.profiles.joint import MOST_ROWS
from mlmon_dagster.profiles.storage import from_rows, to_rows
from tests.profiles.comparing import assert_equal
from tests.profiles.records import DuckEngine, make_records, make_spec

JOINTLY = {"drift": {"multivariate": True}}


def declared(**changes):
    return make_spec(monitors=JOINTLY, **changes)


def with_ids(rows: pa.Table) -> pa.Table:
    ids = pa.array([f"id-{i}" for i in range(rows.num_rows)])
    return rows.append_column("prediction_id", ids)


@pytest.fixture(scope="module")
def fitted():
    engine = DuckEngine(records=with_ids(make_records(3000)))
    spec = declared()
    binnings = fit_binnings(engine, spec, "records")
    return spec, binnings, build_profiles(engine, spec, "records", binnings)


def test_nothing_is_read_or_kept_where_it_is_not_declared():
    engine = DuckEngine(records=make_records(300))
    binnings = fit_binnings(engine, make_spec(), "records")
    assert JOINT not in binnings
    assert JOINT not in build_profiles(engine, make_spec(), "records", binnings)


def test_every_feature_has_a_score_and_numbers_a_folded_one(fitted):
    spec, binnings, _ = fitted
    assert set(binnings[JOINT].tail) == set(spec.features)
    names = set(binnings[JOINT].categories)
    assert {"temp", "|temp|", "carrier", "origin", "is_holiday"} <= names
    assert "|carrier|" not in names


def test_cells_are_those_of_the_whole_and_all_rows_are_in(fitted):
    _, _, profiles = fitted
    whole = profiles["temp"].cells["slice_key"] == "all"
    joint = profiles[JOINT]
    pd.testing.assert_frame_equal(
        joint.cells, profiles["temp"].cells[whole].reset_index(drop=True), check_dtype=False
    )
    assert joint.n.tolist() == profiles["temp"].n[whole].tolist()
    assert joint.counts[:, 0].tolist() == joint.n.tolist()


def test_windows_profiled_apart_add_up_to_all_of_them(fitted):
    spec, binnings, profiles = fitted
    rows = with_ids(make_records(3000))
    parts = [rows.slice(0, 1100), rows.slice(1100)]
    found = [build_profiles(DuckEngine(records=p), spec, "records", binnings) for p in parts]
    apart = sum(profile[JOINT].counts.sum(axis=0) for profile in found)
    assert (apart == merge(profiles[JOINT], ()).counts[0]).all()


@pytest.mark.parametrize("dialect", [STANDARD, POSTGRES], ids=lambda d: d.name)
def test_all_dialects_give_the_same_sums(fitted, dialect):
    spec, binnings, profiles = fitted
    engine = DuckEngine(records=with_ids(make_records(3000)))
    other = build_profiles(engine, spec, "records", binnings, dialect)
    assert (other[JOINT].counts == profiles[JOINT].counts).all()


def test_bins_and_sums_survive_storage(fitted):
    _, binnings, profiles = fitted
    assert decode_binnings(encode_binnings(binnings))[JOINT] == binnings[JOINT]
    back = from_rows(to_rows(profiles), binnings)
    assert_equal(back[JOINT], profiles[JOINT])


def test_a_large_window_is_sampled_by_id_whatever_the_order_of_its_rows():
    rows = with_ids(make_records(4 * MOST_ROWS, days=1))
    shuffled = rows.take(np.random.default_rng(0).permutation(rows.num_rows))
    spec = declared(slices=[])
    binnings = fit_binnings(DuckEngine(records=rows), spec, "records")
    one, two = (
        build_profiles(DuckEngine(records=table), spec, "records", binnings)[JOINT]
        for table in (rows, shuffled)
    )
    assert (one.counts == two.counts).all()
    assert MOST_ROWS / 2 < one.n.sum() <= MOST_ROWS * 1.1


def test_categories_are_ordered_by_the_column_they_tell_about():
    """In no order of their names or numbers: the mean temperature of a carrier is."""
    rows = make_records(3000).to_pandas()
    offset = rows["carrier"].map({"UA": 40.0, "AA": -40.0, "D,L": 0.0}).fillna(80.0)
    rows["temp"] = rows["temp"] / 10 + offset
    engine = DuckEngine(records=pa.Table.from_pandas(rows, preserve_index=False))
    binnings = fit_binnings(engine, declared(), "records")
    joint = binnings[JOINT]
    sizes = [binnings[c].size // binnings[c].fine for c in joint.tail]
    at = joint.categories.index("carrier")
    scores = np.split(np.array(joint.values), np.cumsum(sizes)[:-1])[at]
    by_name = dict(zip(binnings["carrier"].categories, scores, strict=False))
    order = [by_name[name] for name in ("AA", "D,L", "UA", "B'6")]
    assert np.argsort(order).tolist() in ([0, 1, 2, 3], [3, 2, 1, 0])


def test_a_null_counts_as_the_baselines_mean(fitted):
    spec, binnings, _ = fitted
    rows = with_ids(make_records(50, temp=[None] * 50, days=1))
    found = build_profiles(DuckEngine(records=rows), spec, "records", binnings)[JOINT]
    position = binnings[JOINT].categories.index("temp")
    assert (found.counts[:, 1 + position] == 0).all()
    assert joint_sums(np.zeros((50, 1), np.int8))[1] == 0


def test_no_rows_give_no_cells(fitted):
    spec, binnings, _ = fitted
    empty = with_ids(make_records(5)).slice(0, 0)
    assert len(build_profiles(DuckEngine(records=empty), spec, "records", binnings)[JOINT]) == 0
