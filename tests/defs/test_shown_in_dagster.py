"""What Dagster's pages show of a model: columns, addresses, versions, and the newest window."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from mlmon_dagster import build_definitions
from mlmon_dagster.defs import metadata
from mlmon_dagster.defs.assets import asset_key
from mlmon_dagster.spec import read_models
from mlmon_dagster.spec.steps import BY_NAME
from tests.defs.small_model import (
    BROKEN,
    DAYS,
    NOW,
    customers,
    drop,
    land_days,
    land_validation,
    landing,
    make_project,
    write_declaration,
)
from tests.defs.worlds import World, opened


def specs_of(folder: Path) -> dict[str, dg.AssetSpec]:
    write_declaration(folder)
    project = make_project(folder)
    definitions = build_definitions(read_models(project.models_folder, NOW), project)
    return {spec.key.path[-1]: spec for spec in definitions.resolve_all_asset_specs()}


def test_tables_show_their_columns_and_where_they_are(tmp_path: Path) -> None:
    specs = specs_of(tmp_path)
    for name, below in (
        ("event_log", "event_log/churn/predictions"),
        ("inference_store", "inference_records/churn"),
    ):
        shown = specs[name].metadata
        assert shown["dagster/uri"] == f"{(tmp_path / '.mlmon' / 'store').as_uri()}/{below}"
        columns = {column.name: column for column in shown["dagster/column_schema"].columns}
        assert columns["age"].type == "double"
        assert columns["age"].description == "at least 0"
        assert not columns["age"].constraints.nullable
        assert columns["balance"].constraints.nullable
    assert "actual" in {
        c.name for c in specs["inference_store"].metadata["dagster/column_schema"].columns
    }


def test_every_asset_refers_to_the_file_that_declares_its_model(tmp_path: Path) -> None:
    specs = specs_of(tmp_path)
    for name in BY_NAME.keys() & specs.keys():
        if name != "landing":
            [reference] = specs[name].metadata["dagster/code_references"].code_references
            assert reference.file_path == str(tmp_path / "models" / "churn.yaml")


def test_the_code_version_of_an_asset_is_that_of_its_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = specs_of(tmp_path)
    measured = {name for name, info in BY_NAME.items() if info.formulas} & specs.keys()
    assert measured == {
        "data_quality", "drift", "performance", "estimated_performance", "service_health"
    }  # fmt: skip
    assert len({specs[name].code_version for name in measured}) == len(measured)
    before = metadata.code_version(BY_NAME["drift"])
    known = metadata._method_versions("drift")
    assert 'VERSION = "novel-3"' in known
    monkeypatch.setattr(metadata, "_method_versions", lambda path: known | {'"psi-99"'})
    assert metadata.code_version(BY_NAME["drift"]) != before


def test_the_method_versions_of_the_store_are_those_of_the_code_version(fortnight: World) -> None:
    formulas = {path for info in BY_NAME.values() for path in info.formulas}
    known = " ".join(text for path in formulas for text in metadata._method_versions(path))
    stored = {re.split("[:@]", str(v))[0] for v in fortnight.metrics()["method_version"]}
    assert len(stored) > 10
    for version in stored:
        assert f'"{version}"' in known or f'VERSION = "{version.rpartition("-")[2]}"' in known


def test_a_model_has_a_freshness_policy_by_its_cadence_until_it_ends(tmp_path: Path) -> None:
    specs = specs_of(tmp_path)
    policy = specs["inference_store"].freshness_policy
    assert policy == dg.FreshnessPolicy.time_window(
        fail_window=dt.timedelta(days=2), warn_window=dt.timedelta(hours=36)
    )
    path = tmp_path / "models" / "churn.yaml"
    path.write_text(
        path.read_text().replace("granularity: day,", "granularity: day, end: 2024-04-01,")
    )
    project = make_project(tmp_path)
    ended = build_definitions(read_models(project.models_folder, NOW), project)
    assert not any(spec.freshness_policy for spec in ended.resolve_all_asset_specs())


def stale(world: World, name: str) -> tuple[str, list[str]]:
    graph = world.launcher.definitions.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(
        world.instance, graph, LoadingContextForTest(world.instance)
    )
    key = asset_key(world.spec, name)
    return resolver.get_status(key).value, [c.reason for c in resolver.get_stale_causes(key)]


@pytest.mark.proof
def test_the_baseline_is_out_of_date_only_when_its_own_events_came(tmp_path: Path) -> None:
    write_declaration(tmp_path)
    land_validation(tmp_path)
    land_days(tmp_path, DAYS[0])
    with opened(tmp_path) as world:
        world.work()
        assert stale(world, "baseline")[0] == "FRESH"
        land_days(tmp_path, DAYS[1])
        assert world.requests()  # the planner took production's events in
        assert stale(world, "baseline") == ("FRESH", [])
        assert world.launcher.materialize(world.spec, ("event_log",)).is_success
        assert stale(world, "baseline") == ("FRESH", [])
        more, _ = customers(dt.date(2024, 2, 25), "validation")
        drop(more, landing(tmp_path, "predictions") / "more.parquet")
        assert world.requests()
        assert stale(world, "baseline")[0] == "STALE"
        world.work()
        world.launcher.materialize(world.spec, ("baseline",))
        assert stale(world, "baseline") == ("FRESH", [])


def newest_shown(world: World, name: str) -> tuple[str | None, dict[str, object]]:
    [record] = world.instance.fetch_materializations(asset_key(world.spec, name), limit=1).records
    found = record.asset_materialization
    return record.partition_key, {k: v.value for k, v in found.metadata.items()}


def test_what_is_shown_last_is_the_newest_window_whatever_was_computed_last(
    own_fortnight: World,
) -> None:
    before = {name: newest_shown(own_fortnight, name) for name in ("inference_store", "drift")}
    assert {key for key, _ in before.values()} == {str(DAYS[-1])}
    assert before["inference_store"][1]["dagster/partition_row_count"] == 150

    assert own_fortnight.compute([BROKEN]).is_success

    for name, (key, numbers) in before.items():
        again, shown = newest_shown(own_fortnight, name)
        assert again == key
        assert shown.pop("mlmon") == "reported from the store, not computed"
        assert shown == {n: v for n, v in numbers.items() if n in shown}
        assert len(shown) > 1
    check = dg.AssetCheckKey(asset_key(own_fortnight.spec, "inference_store"), "schema")
    storage = own_fortnight.instance.event_log_storage
    latest = storage.get_latest_asset_check_execution_by_key([check])[check]
    assert latest.partition == str(DAYS[-1])
    assert latest.status.value == "SUCCEEDED"
    performance = dg.AssetCheckKey(asset_key(own_fortnight.spec, "performance"), "performance")
    latest = storage.get_latest_asset_check_execution_by_key([performance])[performance]
    assert latest.partition == "2024-03-12"  # the newest whose ground truth is there
