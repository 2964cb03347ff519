"""The baseline, from events in a real store to bins and windows and back."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlmon_dagster.errors import BaselineMissingError, StoreError
from mlmon_dagster.metrics.statistics import ColumnStatistics, empty
from mlmon_dagster.profiles import (
    baseline_in_force,
    build_profiles,
    ensure_baseline,
    load_baseline,
    save_profiles,
)
from mlmon_dagster.profiles.in_force import baselines_shared
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.store import Store, baselines
from mlmon_dagster.store.erasure import erase
from tests.conftest import make_events, make_spec, window
from tests.profiles.comparing import assert_equal

NOW = dt.datetime(2024, 2, 1, tzinfo=dt.UTC)
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]


def land(store: Store, dataset: str, days: list[str] = DAYS, n: int = 60, seed: int = 0) -> None:
    log = store.event_log(make_spec())
    for day in days:
        events, actuals = make_events(
            make_spec(), day, n, dataset=dataset, seed=seed, prefix=dataset
        )
        log.append("predictions", events, [f"p-{dataset}-{day}-{seed}"])
        log.append("actuals", actuals, [f"a-{dataset}-{day}-{seed}"])


def profile(
    store: Store, spec: ModelSpec, days: list[str], dataset: str = "validation"
) -> tuple[dict[str, ColumnStatistics], list[Window]]:
    """Store the profiles of some days in the bins of the baseline in force."""
    windows, records = [window(spec, day) for day in days], store.inference_records(spec)
    if dataset == "production":
        records.rebuild(windows)
    source = records.from_sql(windows, [dataset])
    built = build_profiles(store, spec, source, baseline_in_force(store, spec).binnings)
    save_profiles(store, spec, built, windows, dataset)
    return built, windows


def test_without_events_the_missing_baseline_is_explained(store: Store) -> None:
    with pytest.raises(BaselineMissingError, match="dataset 'validation', and there are none"):
        ensure_baseline(store, make_spec(), NOW)
    with pytest.raises(BaselineMissingError, match="no baseline yet"):
        load_baseline(store, make_spec())
    land(store, "production")
    with pytest.raises(BaselineMissingError):
        ensure_baseline(store, make_spec(), NOW)


def test_baseline_has_the_bins_and_windows_of_its_dataset_alone(store: Store) -> None:
    land(store, "validation")
    land(store, "production", ["2024-01-01"])

    baseline = ensure_baseline(store, make_spec(), NOW)

    assert (baseline.kind, baseline.dataset, baseline.n) == ("dataset", "validation", 180)
    assert {name for name in baseline.binnings if not name.startswith(":")} == {
        "age", "region", "score", "prediction", "latency_ms", "status",
    }  # fmt: skip
    age = baseline.windows["age"]
    assert set(age.cells["dataset"]) == {"validation"}
    assert age.n.tolist() == [60, 60, 60]
    assert baseline.pooled("age").n.tolist() == [180]
    assert baseline.pooled("score").counts.reshape(-1, 3).sum(axis=0)[0] == 0  # all labelled


def test_same_rows_give_the_same_baseline_in_any_order_of_arrival(
    store: Store, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from mlmon_dagster.store import open_store

    land(store, "validation")
    first = ensure_baseline(store, make_spec(), NOW)
    other = open_store(tmp_path_factory.mktemp("other"))
    land(other, "validation", DAYS[::-1])
    second = ensure_baseline(other, make_spec(), NOW + dt.timedelta(days=1))
    other.close()

    assert first.baseline_id == second.baseline_id
    assert first.binnings == second.binnings
    for name, stats in first.windows.items():
        assert_equal(stats, second.windows[name], sums=1e-9)


def test_fitting_again_changes_nothing_until_rows_or_spec_change(store: Store) -> None:
    land(store, "validation")
    first = ensure_baseline(store, make_spec(), NOW)
    again = ensure_baseline(store, make_spec(), NOW + dt.timedelta(days=1))
    assert again.baseline_id == first.baseline_id
    for name, stats in first.windows.items():
        assert_equal(stats, again.windows[name])

    ranged = {"age": {"type": "numeric", "min": 30}, "region": {"type": "categorical"}}
    later = NOW + dt.timedelta(days=2)
    changed = ensure_baseline(store, make_spec(features=ranged), later)
    assert changed.baseline_id != first.baseline_id
    for features, wanted in ((None, first), (ranged, changed)):  # at the very same moment
        spec = make_spec(features=features) if features else make_spec()
        ensure_baseline(store, spec, later)
        assert load_baseline(store, spec).baseline_id == wanted.baseline_id
    land(store, "validation", ["2024-01-04"])
    grown = ensure_baseline(store, make_spec(), NOW + dt.timedelta(days=3))
    assert grown.baseline_id != first.baseline_id
    assert grown.n == 240
    assert load_baseline(store, make_spec()).baseline_id == grown.baseline_id


def test_a_late_label_makes_another_baseline(store: Store) -> None:
    spec, log = make_spec(), store.event_log(make_spec())
    events, actuals = make_events(spec, DAYS[0], 60, dataset="validation")
    log.append("predictions", events, ["p"])
    unlabelled = ensure_baseline(store, spec, NOW)
    log.append("actuals", actuals, ["a"])
    labelled = ensure_baseline(store, spec, NOW + dt.timedelta(days=1))

    assert labelled.baseline_id != unlabelled.baseline_id
    assert unlabelled.windows["score"].counts.reshape(-1, 3)[:, 1:].sum() == 0
    assert labelled.windows["score"].counts.reshape(-1, 3)[:, 0].sum() == 0


def test_profiles_of_windows_survive_the_store_and_are_replaced_per_window(store: Store) -> None:
    spec = make_spec(slices=["region"])
    land(store, "validation")
    land(store, "production")
    ensure_baseline(store, spec, NOW)
    built, windows = profile(store, spec, DAYS, "production")
    profile(store, spec, DAYS, "production")  # a repeat replaces
    loaded = baseline_in_force(store, spec).profiles()
    assert list(loaded) == list(built)
    for name, stats in built.items():
        assert_equal(stats, loaded[name])

    nothing = {name: empty(stats.binning) for name, stats in built.items()}
    save_profiles(store, spec, nothing, windows[1:2], "production")
    starts = baseline_in_force(store, spec).profiles()["age"].cells["window_start"].unique()
    assert list(starts) == [windows[0].start, windows[2].start]


def test_loading_narrows_by_time_dataset_column_and_slice(store: Store) -> None:
    spec = make_spec(slices=["region"])
    land(store, "validation")
    ensure_baseline(store, spec, NOW)
    _, windows = profile(store, spec, DAYS)
    some = baseline_in_force(store, spec).profiles(
        start=windows[1].start, end=windows[2].start, columns=["age"], slices=[()]
    )
    assert list(some) == ["age"]
    assert some["age"].cells["window_start"].tolist() == [windows[1].start]
    sliced = baseline_in_force(store, spec).profiles(slices=[("region",)])["age"].cells
    assert set(sliced["slice_value"]) == {"north", "south"}
    assert baseline_in_force(store, spec).profiles(dataset="production") == {}


def test_profiles_of_an_earlier_baseline_are_not_mixed_with_the_present_one(store: Store) -> None:
    spec = make_spec()
    assert baseline_in_force(store, spec).profiles() == {}
    land(store, "validation")
    ensure_baseline(store, spec, NOW)
    profile(store, spec, DAYS[:1])
    assert "age" in baseline_in_force(store, spec).profiles()

    land(store, "validation", ["2024-01-05"], seed=7)
    ensure_baseline(store, spec, NOW + dt.timedelta(days=1))
    left = baseline_in_force(store, spec).profiles()
    assert "age" not in left
    assert "score" in left  # fixed bins are the same for every baseline


def test_a_baseline_whose_file_is_lost_is_fitted_again_to_the_same(store: Store) -> None:
    land(store, "validation")
    spec = make_spec()
    first = ensure_baseline(store, spec, NOW)
    [file] = (store.root.path / "baselines" / spec.model).iterdir()
    file.unlink()
    with pytest.raises(StoreError, match="there is none"):
        load_baseline(store, spec)

    again = ensure_baseline(store, spec, NOW)

    assert (again.baseline_id, again.binnings) == (first.baseline_id, first.binnings)
    assert file.exists()  # equal bins are an equal file
    assert load_baseline(store, spec).binnings == first.binnings


def test_bins_whose_names_were_erased_count_those_names_as_unseen(store: Store) -> None:
    land(store, "validation")
    spec = make_spec()
    before = ensure_baseline(store, spec, NOW)
    names = before.binnings["region"].categories
    baselines.redact_names(store, spec.model, ["validation"], names)

    bins = load_baseline(store, spec).binnings["region"]
    source = store.inference_records(spec).from_sql([window(spec, DAYS[0])], ["validation"])
    counts = build_profiles(store, spec, source, {"region": bins})["region"].counts.sum(axis=0)

    assert bins.categories == ("[erased]", "[erased 2]")
    assert bins.binning_id == before.binnings["region"].binning_id
    assert counts[:4].tolist() == [0, 0, 0, 60]


def test_profiles_of_a_baseline_keep_no_cell_and_no_extreme_of_an_erased_row(store: Store) -> None:
    """A promoted baseline is never fitted again, and profiles of an earlier one stay."""
    spec = make_spec(slices=["region"])
    for dataset in ("validation", "production"):
        events, _ = make_events(spec, DAYS[0], 60, dataset=dataset, prefix=dataset)
        regions = ["Atlantis", *events["region"].to_pylist()[1:]]
        ages = [123.25, *events["age"].to_pylist()[1:]]
        for name, values in (("region", regions), ("age", ages)):
            place = events.schema.get_field_index(name)
            events = events.set_column(place, name, pa.array(values))
        store.event_log(spec).append("predictions", events, [f"p-{dataset}"])
    before = ensure_baseline(store, spec, NOW)
    assert "Atlantis" in set(before.windows["age"].cells["slice_value"])

    erase.erase(store, spec, [f"validation{DAYS[0]}-0", f"production{DAYS[0]}-0"], now=NOW)

    folder = store.root / "baseline_profiles" / spec.model
    files = [Path(f"{folder}/{name}") for name in folder.below() if name.endswith(".parquet")]
    held = pa.concat_tables([pq.read_table(file) for file in files])
    assert "Atlantis" not in held["slice_value"].to_pylist()
    assert 123.25 not in held["maximum"].to_pylist()
    kept = load_baseline(store, spec)
    assert kept.baseline_id == before.baseline_id
    assert kept.pooled("age").n.sum() == 60 + 59


def test_one_command_reads_a_baseline_once_unless_it_is_stored_anew(store: Store) -> None:
    spec = make_spec()
    land(store, "validation")
    ensure_baseline(store, spec, NOW)
    with baselines_shared():
        first = baseline_in_force(store, spec)
        assert load_baseline(store, spec) is first.own is baseline_in_force(store, spec).own
        with baselines_shared():  # a command within another one: its own
            assert baseline_in_force(store, spec) is not first
        assert baseline_in_force(store, spec) is first

        baselines.redact_names(
            store, spec.model, ["validation"], first.binnings["region"].categories
        )
        redacted = load_baseline(store, spec)
        land(store, "validation", ["2024-01-04"])
        fitted = ensure_baseline(store, spec, NOW + dt.timedelta(days=1))

        assert redacted.binnings["region"].categories == ("[erased]", "[erased 2]")
        assert load_baseline(store, spec).baseline_id == fitted.baseline_id
    again = baseline_in_force(store, spec)
    assert again.own is again.own
    assert baseline_in_force(store, spec) is not again


def test_of_the_rarest_names_those_that_one_window_has_count_as_unseen_there(store: Store) -> None:
    """1,000 names have codes; of the 250 further ones each day has 50 alone and 150 with others."""
    spec, log = make_spec(), store.event_log(make_spec())
    common = [f"common {i}" for i in range(1_000)] * 3
    for number, day in enumerate(DAYS[:2]):
        names = [*common, *(f"shared {i}" for i in range(150))]
        names += [f"day {number}, {i}" for i in range(50)]
        events, _ = make_events(spec, day, len(names), dataset="validation")
        place = events.column_names.index("region")
        log.append("predictions", events.set_column(place, "region", [names]), [day])

    region = ensure_baseline(store, spec, NOW).windows["region"]

    assert len(region.binning.tail) == 250
    assert region.counts[:, -2:].tolist() == [[150, 50], [150, 50]]


def test_a_baseline_of_nulls_only_is_defined(store: Store) -> None:
    spec = make_spec()
    events, _ = make_events(spec, DAYS[0], 40, dataset="validation")
    for name in ("age", "region", "score", "latency_ms"):
        place = events.column_names.index(name)
        events = events.set_column(place, name, pa.nulls(40, events.column(name).type))
    store.event_log(spec).append("predictions", events, ["p"])

    baseline = ensure_baseline(store, spec, NOW)

    assert baseline.windows["age"].n_null.tolist() == [40]
    assert np.isnan(baseline.windows["age"].minimum).all()
    assert baseline.binnings["region"].categories == ()
    stored = baselines.load_newest(store.state, spec.model)
    assert stored is not None
    assert stored.created_at == NOW
