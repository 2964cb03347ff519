"""In a user's own Dagster project: found by dg, scaffolded, merged, and in nobody's way."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster.components.component_scaffolding import scaffold_object
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.testing import create_defs_folder_sandbox

from mlmon_dagster import MonitoredModel, MonitoredModels, build_definitions
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec, load_model
from tests.defs.small_model import (
    FIRST,
    YAML,
    ZONE,
    land_days,
    make_project,
    write_declaration,
)

ROOT = Path(__file__).parents[2]
KINDS = ("mlmon_dagster.MonitoredModel", "mlmon_dagster.MonitoredModels")
# Dagster itself uses its beta code references for what comes from YAML.
beta_inside = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


def scaffold(project: Path, kind: str, **options: object) -> Path:
    """Scaffold a model churn, as ``dg scaffold defs`` does; return its folder."""
    folder = project / "src" / "proj" / "defs" / "churn"
    scaffold_object(folder, kind, json.dumps(options), "yaml", project)
    return folder


def spec_in(project: Path, folder: Path) -> ModelSpec:
    """Return the spec that was scaffolded, into ``models/`` or the component."""
    path = project / "models" / "churn.yaml"
    if path.exists():
        return load_model(path)
    document = yaml.safe_load((folder / "defs.yaml").read_text())
    assert document["type"] in KINDS
    return ModelSpec.model_validate(document["attributes"])


def test_dg_finds_the_components_by_the_entry_point_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared == {"dagster_dg_cli.registry_modules": {"mlmon_dagster": "mlmon_dagster"}}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_scaffolded_from_nothing_loads_as_it_is(kind: str, tmp_path: Path) -> None:
    spec = spec_in(tmp_path, scaffold(tmp_path, kind, owner="team:growth"))
    assert spec.model == "churn"
    assert spec.owners == ("team:growth",)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_scaffolded_from_events_declares_their_columns(kind: str, tmp_path: Path) -> None:
    land_days(tmp_path, FIRST)
    files = {s: [str(next(tmp_path.glob(f"landing/*/{s}/*")))] for s in ("predictions", "actuals")}

    folder = scaffold(tmp_path, kind, **{"from": files["predictions"]}, actuals=files["actuals"])

    spec = spec_in(tmp_path, folder)
    assert set(spec.features) == {"age", "balance", "region"}
    assert spec.columns.prediction == "decision"  # cut from the score
    assert spec.columns.actual == "left"
    assert spec.source.predictions.label == "landing/churn/predictions/*.parquet"


def test_a_scaffolded_folder_never_overwrites_a_declaration(tmp_path: Path) -> None:
    path = tmp_path / "models" / "churn.yaml"
    write_declaration(tmp_path)
    before = path.read_text()
    land_days(tmp_path, FIRST)
    files = [str(file) for file in tmp_path.glob("landing/*/predictions/*")]

    scaffold(tmp_path, KINDS[1])  # what is there is loaded
    with pytest.raises(ConfigError, match=r"churn\.yaml exists"):
        scaffold(tmp_path, KINDS[1], **{"from": files})

    assert path.read_text() == before


def test_everything_merges_into_a_project_that_has_the_same_names(tmp_path: Path) -> None:
    @dg.asset
    def overview() -> None: ...

    @dg.asset
    def maintenance() -> None: ...

    @dg.sensor(target="*")
    def planner() -> None: ...

    @dg.sensor(target="*")
    def alert_dispatcher() -> None: ...

    own = dg.Definitions(
        assets=[overview, maintenance],
        sensors=[planner, alert_dispatcher],
        executor=dg.multiprocess_executor,
        resources={"warehouse": dg.ResourceDefinition.hardcoded_resource("dsn")},
    )
    ours = build_definitions([write_declaration(tmp_path)], make_project(tmp_path))

    merged = dg.Definitions.merge(own, ours)

    dg.Definitions.validate_loadable(merged)
    assert ours.executor is None
    keys = {key.to_user_string() for key in merged.resolve_asset_graph().get_all_asset_keys()}
    assert {"overview", "mlmon/overview", "maintenance", "mlmon/maintenance"} <= keys


def test_a_project_with_an_io_manager_of_its_own_runs_our_assets_beside_its_own(
    tmp_path: Path,
) -> None:
    """Ours hand nothing on: they are read from the store."""
    handed: list[object] = []

    class Noting(dg.IOManager):
        def handle_output(self, context: dg.OutputContext, obj: object) -> None:
            handed.append((context.asset_key.to_user_string(), obj))

        def load_input(self, context: dg.InputContext) -> object:
            raise AssertionError(context.asset_key)

    @dg.asset
    def scores(warehouse: dg.ResourceParam[str]) -> str:
        return warehouse

    spec = write_declaration(tmp_path)
    land_days(tmp_path, FIRST)
    own = dg.Definitions(
        assets=[scores],
        resources={
            "io_manager": dg.IOManagerDefinition.hardcoded_io_manager(Noting()),
            "warehouse": dg.ResourceDefinition.hardcoded_resource("dsn"),
        },
    )
    merged = dg.Definitions.merge(own, build_definitions([spec], make_project(tmp_path)))

    done = merged.resolve_implicit_global_asset_job_def().execute_in_process(
        asset_selection=[dg.AssetKey("scores"), dg.AssetKey([spec.model, "event_log"])]
    )

    assert done.success
    assert handed == [("scores", "dsn")]


def test_runs_go_in_process_only_where_the_project_has_no_executor(tmp_path: Path) -> None:
    from mlmon_dagster.defs.sensors import in_process

    request = dg.RunRequest(run_key="churn")
    ours = build_definitions([write_declaration(tmp_path)], make_project(tmp_path))
    own = dg.Definitions(executor=dg.multiprocess_executor)

    def config(definitions: dg.Definitions) -> object:
        context = dg.build_sensor_context(definitions=definitions)
        return in_process(context, [request])[0].run_config

    assert config(ours) == {"execution": {"config": {"in_process": {}}}}
    assert not config(dg.Definitions.merge(ours, own))


@beta_inside
def test_one_component_loads_every_file_of_the_projects_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLMON_PROJECT", str(tmp_path))
    for model in ("churn", "fraud"):
        write_declaration(tmp_path, model)
    (tmp_path / "models" / "wrong.yaml").write_text("model: [")
    with create_defs_folder_sandbox() as sandbox:
        contents = {"type": KINDS[1], "attributes": {}}
        sandbox.scaffold_component(MonitoredModels, defs_yaml_contents=contents)
        with sandbox.build_all_defs() as definitions:
            dg.Definitions.validate_loadable(definitions)
            groups = {spec.group_name for spec in definitions.resolve_all_asset_specs()}
            assert groups == {"churn", "fraud", "wrong", "mlmon"}


@beta_inside
def test_models_are_declared_in_one_place_of_a_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLMON_PROJECT", str(tmp_path))
    write_declaration(tmp_path, "fraud")
    declared = yaml.safe_load(YAML.format(model="churn", start=FIRST, zone=ZONE.key))
    with create_defs_folder_sandbox() as sandbox:
        for component, name, attributes in (
            (MonitoredModels, "every", {}),
            (MonitoredModel, "churn", declared),
        ):
            contents = {"type": f"mlmon_dagster.{component.__name__}", "attributes": attributes}
            sandbox.scaffold_component(component, name, defs_yaml_contents=contents)
        with pytest.raises(ComponentTreeException), sandbox.build_all_defs():
            pass
