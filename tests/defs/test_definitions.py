"""What Dagster is given: the code location, the models' assets and checks, the component."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.testing import create_defs_folder_sandbox

from mlmon_dagster import MonitoredModel, build_definitions
from mlmon_dagster.defs.assets import model_assets, partitions_of, windows_of
from mlmon_dagster.defs.checks import model_checks
from mlmon_dagster.defs.metadata import safe_metadata
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, complete_windows, spec_from_mapping
from mlmon_dagster.spec.steps import assets_of
from tests.defs.small_model import MODEL, YAML, make_project, write_declaration

ROOT = Path(__file__).parents[2]


def declared(model: str = MODEL, **time: str) -> dict[str, Any]:
    text = YAML.format(model=model, start="2024-03-01", zone="America/New_York")
    mapping: dict[str, Any] = yaml.safe_load(text)
    mapping["time"] |= time
    return mapping


def spec_of(model: str = MODEL, **time: str) -> ModelSpec:
    return spec_from_mapping(declared(model, **time))


ASSETS = assets_of(spec_of())
NAMES = ["landing", *(info.name for info in ASSETS)]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


# The code location


def test_workspace_and_pyproject_name_the_same_module_and_location() -> None:
    [entry] = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    module = entry["python_module"]
    assert module["module_name"] == tool["dagster"]["module_name"]
    assert module["location_name"] == tool["dagster"]["code_location_name"]
    assert module["location_name"] == tool["dg"]["project"]["code_location_name"]
    assert module["module_name"] == tool["dg"]["project"]["code_location_target_module"]


@pytest.mark.slow
def test_dagster_loads_the_workspace_in_an_empty_project_with_a_model(tmp_path: Path) -> None:
    write_declaration(tmp_path)
    command = [sys.executable, "-m", "dagster", "definitions", "validate"]
    environment = os.environ | {"MLMON_PROJECT": str(tmp_path)}
    done = subprocess.run(
        [*command, "-w", str(ROOT / "workspace.yaml")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Validation successful for code location mlmon" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("here", "packaged"),
    [("dagster.yaml", "defs/dagster.yaml"), ("models/flight_delay.yaml", "demo/flight_delay.yaml")],
)
def test_the_files_of_the_repository_are_the_packaged_ones(here: str, packaged: str) -> None:
    shipped = resources.files("mlmon_dagster").joinpath(packaged).read_text()
    assert (ROOT / here).read_text() == shipped


# One model


def test_the_assets_of_a_model_are_its_lineage(project: Project) -> None:
    graph = build_definitions([spec_of()], project).resolve_asset_graph()
    keys = {key.path[-1]: key for key in graph.get_all_asset_keys()}
    assert set(keys) == {*NAMES, "overview", "maintenance"}
    for info in ASSETS:
        parents = graph.get(keys[info.name]).parent_keys
        assert {key.path[-1] for key in parents} == set(info.deps) & set(NAMES)
        assert graph.get(keys[info.name]).key.path == [MODEL, info.name]


def test_every_asset_says_what_it_is_and_whose(project: Project) -> None:
    definitions = build_definitions([spec_of()], project)
    for spec in definitions.resolve_all_asset_specs():
        assert len(spec.description or "") > 20, spec.key
        assert spec.owners == ["team:growth", "oncall@example.com"] or spec.key.path[0] == "mlmon"
        assert spec.kinds, spec.key
        assert spec.tags, spec.key
        assert spec.group_name == spec.key.path[0]
    overview = definitions.resolve_asset_graph().get(dg.AssetKey(["mlmon", "overview"]))
    assert set(overview.owners) == {"team:growth", "oncall@example.com"}


def test_every_check_says_when_it_fails_and_whom_it_concerns(project: Project) -> None:
    graph = build_definitions([spec_of()], project).resolve_asset_graph()
    checks = [graph.get_check_spec(key) for key in graph.asset_check_keys]
    families = {info.family for info in ASSETS if info.family}
    assert {check.name for check in checks} == {*families, "alert_delivery"}
    for check in checks:
        assert any(word in (check.description or "") for word in ("Fails", "Limits"))
        assert check.metadata["owners"] == "team:growth, oncall@example.com"
        assert not check.blocking


def test_a_model_costs_at_most_ten_checks_and_ten_partitioned_assets(project: Project) -> None:
    graph = build_definitions([spec_of()], project).resolve_asset_graph()
    partitioned = [k for k in graph.get_all_asset_keys() if graph.get(k).partitions_def]
    assert len(partitioned) <= 10
    assert len(graph.asset_check_keys) <= 10


def test_all_partitioned_assets_of_a_model_can_be_computed_in_one_run(project: Project) -> None:
    graph = build_definitions([spec_of()], project).resolve_asset_graph()
    nodes = [graph.get(k) for k in graph.get_all_asset_keys() if graph.get(k).partitions_def]
    assert len({node.partitions_def for node in nodes}) == 1
    assert {node.backfill_policy for node in nodes} == {dg.BackfillPolicy.single_run()}


@pytest.mark.parametrize(
    ("environment", "status"), [("production", "RUNNING"), ("pr-7", "STOPPED")]
)
def test_sensors_and_schedules_run_without_being_switched_on_in_production_alone(
    project: Project, environment: str, status: str
) -> None:
    definitions = build_definitions([spec_of()], replace(project, environment=environment))
    sensors = {sensor.name: sensor.default_status for sensor in definitions.sensors or ()}
    assert set(sensors) == {"mlmon_planner", "mlmon_alert_dispatcher"}
    assert set(sensors.values()) == {dg.DefaultSensorStatus(status)}
    [schedule, upkeep] = definitions.schedules or ()
    assert upkeep.name == "mlmon_daily_maintenance"
    for one in (schedule, upkeep):
        assert isinstance(one, dg.ScheduleDefinition)
        assert one.default_status == dg.DefaultScheduleStatus(status)


def test_a_hundred_models_add_no_job_sensor_or_schedule(project: Project) -> None:
    one = build_definitions([spec_of()], project)
    many = build_definitions([spec_of(f"model_{i}") for i in range(100)], project)
    dg.Definitions.validate_loadable(many)

    def counted(definitions: dg.Definitions) -> Counter[str]:
        repository = definitions.get_repository_def()
        return Counter(
            jobs=len(repository.get_all_jobs()),
            sensors=len(repository.sensor_defs),
            schedules=len(repository.schedule_defs),
        )

    assert counted(many) == counted(one)
    assert len(many.resolve_asset_graph().get_all_asset_keys()) == 100 * len(NAMES) + 2


def test_models_of_several_cadences_have_one_schedule_each(project: Project) -> None:
    models = [spec_of("a"), spec_of("b", granularity="week"), spec_of("c", granularity="week")]
    schedules = build_definitions(models, project).schedules or ()
    assert sorted(schedule.name for schedule in schedules) == [
        "mlmon_daily_maintenance",
        "mlmon_newest_day",
        "mlmon_newest_week",
    ]


@pytest.mark.filterwarnings("ignore::dagster.PreviewWarning", "ignore::dagster.BetaWarning")
def test_assets_put_together_from_parts_are_what_the_decorator_makes(project: Project) -> None:
    def body() -> dg.MaterializeResult[None]:
        raise NotImplementedError

    made = [a for a in model_assets(project, spec_of()) if isinstance(a, dg.AssetsDefinition)]
    assert len(made) == len(ASSETS)
    for ours in made:
        [asset], op = ours.specs, ours.op
        theirs = dg.asset(
            key=asset.key,
            deps=list(asset.deps),
            group_name=asset.group_name,
            description=asset.description,
            owners=list(asset.owners),
            kinds=asset.kinds,
            tags={key: said for key, said in asset.tags.items() if "dagster/kind" not in key},
            metadata=asset.metadata,
            code_version=asset.code_version,
            freshness_policy=asset.freshness_policy,
            partitions_def=asset.partitions_def,
            backfill_policy=ours.backfill_policy,
            pool=op.pool,
            op_tags=op.tags,
        )(body)
        assert list(theirs.specs) == [asset]
        assert theirs.keys_by_output_name == ours.keys_by_output_name
        assert told_of(theirs) == told_of(ours)


@pytest.mark.filterwarnings("ignore::dagster.PreviewWarning", "ignore::dagster.BetaWarning")
def test_checks_put_together_from_parts_are_what_the_decorator_makes(project: Project) -> None:
    def body() -> Iterator[dg.AssetCheckEvaluation]:
        raise NotImplementedError

    for ours in model_checks(project, spec_of()):
        [check], op = ours.check_specs, ours.op
        theirs = dg.multi_asset_check(
            name=op.name,
            specs=[check],
            can_subset=True,
            compute_kind="mlmon",
            description=check.description,
            pool=op.pool,
            op_tags=op.tags,
        )(body)
        assert list(theirs.check_specs) == [check]
        assert told_of(theirs) == told_of(ours)


def told_of(made: dg.AssetsDefinition) -> tuple[object, ...]:
    """Return what else a run is told of an asset or a check.

    The names of inputs and outputs are left out: steps of all models share theirs.
    """
    op = made.op
    ins = [(made.keys_by_input_name[one.name], one.dagster_type) for one in op.input_defs]
    outs = [(one.dagster_type, one.is_required) for one in op.output_defs]
    said = (op.name, op.description, op.tags, op.pool, op.retry_policy, sorted(ins, key=str), outs)
    return (*said, made.can_subset, made.backfill_policy)


# Windows and partitions

SUMMER = dt.datetime(2024, 11, 20, tzinfo=dt.UTC)


@pytest.mark.parametrize("grain", ["hour", "day", "week", "month"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Europe/Berlin"])
def test_partitions_are_the_windows_over_both_clock_changes(grain: str, zone: str) -> None:
    spec = spec_of(granularity=grain, zone=zone)
    partitions = partitions_of(spec)
    windows = complete_windows(spec.time, SUMMER)
    with dg.partition_loading_context(SUMMER):
        keys = list(partitions.get_partition_keys())
    assert keys == [window.key for window in windows]
    assert windows_of(spec, keys) == windows
    edges = [partitions.time_window_for_partition_key(key) for key in keys]
    in_utc = [(w.start.astimezone(dt.UTC), w.end.astimezone(dt.UTC)) for w in edges]
    assert in_utc == [(w.start, w.end) for w in windows]


@pytest.mark.parametrize("grain", ["hour", "week", "month"])
def test_a_model_of_any_window_length_loads(grain: str, project: Project) -> None:
    spec = spec_of(granularity=grain)
    dg.Definitions.validate_loadable(build_definitions([spec], project))


# Python object and component

# Dagster itself uses its beta code references for what comes from YAML.
beta_inside = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


def test_a_monitored_model_is_a_python_object(project: Project) -> None:
    by_object = build_definitions([MonitoredModel(**declared())], project)
    by_spec = build_definitions([spec_of()], project)
    dg.Definitions.validate_loadable(by_object)
    assert set(by_object.resolve_asset_graph().get_all_asset_keys()) == set(
        by_spec.resolve_asset_graph().get_all_asset_keys()
    )


@beta_inside
def test_a_monitored_model_is_a_component_with_templates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHURN_FILES", "landing/elsewhere/*.csv")
    monkeypatch.setenv("MLMON_PROJECT", str(tmp_path))
    mapping = declared()
    mapping["source"]["predictions"]["path"] = "{{ env.CHURN_FILES }}"
    contents = {"type": "mlmon_dagster.MonitoredModel", "attributes": mapping}
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(MonitoredModel, defs_yaml_contents=contents)
        with sandbox.load_component_and_build_defs(path) as (component, definitions):
            assert isinstance(component, MonitoredModel)
            assert component.spec.source.predictions.path == "landing/elsewhere/*.csv"
            assert component.spec.monitors.drift.above == 0.25
            dg.Definitions.validate_loadable(definitions)
            keys = {key.path[-1] for key in definitions.resolve_asset_graph().get_all_asset_keys()}
            assert keys == {*NAMES, "overview", "maintenance"}


@beta_inside
def test_components_of_one_project_share_one_planner(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLMON_PROJECT", str(tmp_path))
    with create_defs_folder_sandbox() as sandbox:
        for model in ("fraud", "churn", "credit"):
            contents = {
                "type": "mlmon_dagster.MonitoredModel",
                "attributes": declared(model),
            }
            sandbox.scaffold_component(MonitoredModel, model, defs_yaml_contents=contents)
        with sandbox.build_all_defs() as definitions:
            dg.Definitions.validate_loadable(definitions)
            names = sorted(sensor.name for sensor in definitions.sensors or ())
            assert names == ["mlmon_alert_dispatcher", "mlmon_planner"]
            graph = definitions.resolve_asset_graph()
            overview = graph.get(dg.AssetKey(["mlmon", "overview"]))
            assert {key.path[0] for key in overview.parent_keys} == {"fraud", "churn", "credit"}


def test_a_mistake_in_a_component_names_the_field(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLMON_PROJECT", str(tmp_path))
    mapping = declared() | {"tsak": "binary_classification"}
    contents = {"type": "mlmon_dagster.MonitoredModel", "attributes": mapping}
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(MonitoredModel, defs_yaml_contents=contents)
        with (
            pytest.raises(ComponentTreeException) as raised,
            sandbox.load_component_and_build_defs(path),
        ):
            pass
    assert "tsak" in str(raised.value.__cause__)


# Metadata


def test_metadata_never_surprises_dagster() -> None:
    import numpy as np
    import pandas as pd

    values = {
        "float32": np.float32(0.5),
        "int64": np.int64(3),
        "bool": np.bool_(True),
        "nan": float("nan"),
        "none": None,
        "time": pd.Timestamp("2024-03-01", tz="UTC"),
        "tuple": (1, 2),
    }
    entry = dg.AssetMaterialization("a", metadata=safe_metadata(values))
    assert {key: found.value for key, found in entry.metadata.items()} == {
        "float32": 0.5,
        "int64": 3,
        "bool": True,
        "nan": "n/a",
        "none": "n/a",
        "time": "2024-03-01T00:00:00+00:00",
        "tuple": "(1, 2)",
    }
