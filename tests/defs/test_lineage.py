"""A model hangs under the user's assets, and theirs may depend on what monitoring says."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import dagster as dg
import pytest

from mlmon_dagster import MonitoringResource, build_definitions, mlmon_checks
from mlmon_dagster.defs.resource import report_on_assets
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.pipeline.gate import gate_of
from mlmon_dagster.spec import ModelSpec, load_model
from mlmon_dagster.store.state import manifest
from tests.defs.small_model import (
    FIRST,
    NOW,
    land_days,
    land_validation,
    landing,
    make_project,
    write_declaration,
)
from tests.defs.worlds import World, opened

FAMILIES = ("schema", "performance")


def declared_with_assets(folder: Path, *, settle: str = "0s") -> ModelSpec:
    """Declare the model of the fortnight as written by assets of the user's project."""
    write_declaration(folder)
    path = folder / "models" / "churn.yaml"
    text = path.read_text().replace("settle: 0s", f"settle: {settle}")
    text = text.replace("predictions/*.parquet,", "predictions/*.parquet, asset: dwh/scores,")
    text = text.replace("actuals/*.parquet,", "actuals/*.parquet, asset: outcomes,")
    path.write_text(text + "baseline: {dataset: validation, asset: training_set}\n")
    return load_model(path)


def test_the_users_assets_are_the_parents_of_ours(tmp_path: Path) -> None:
    definitions = build_definitions([declared_with_assets(tmp_path)], make_project(tmp_path))
    graph = definitions.resolve_asset_graph()

    def parents(name: str) -> set[str]:
        node = graph.get(dg.AssetKey(["churn", name]))
        return {key.to_user_string() for key in node.parent_keys}

    assert parents("event_log") == {"dwh/scores", "outcomes"}
    assert parents("baseline") == {"training_set", "churn/event_log"}
    assert not graph.has(dg.AssetKey(["churn", "landing"]))


def test_a_stream_without_an_asset_still_hangs_under_the_landing_folder(tmp_path: Path) -> None:
    spec = declared_with_assets(tmp_path)
    path = tmp_path / "models" / "churn.yaml"
    path.write_text(path.read_text().replace(", asset: outcomes", ""))
    spec = load_model(path)
    graph = build_definitions([spec], make_project(tmp_path)).resolve_asset_graph()
    keys = graph.get(dg.AssetKey(["churn", "event_log"])).parent_keys
    assert {key.to_user_string() for key in keys} == {"dwh/scores", "churn/landing"}
    assert "actuals" in (graph.get(dg.AssetKey(["churn", "landing"])).description or "")


def test_what_is_no_key_of_an_asset_is_refused(tmp_path: Path) -> None:
    declared_with_assets(tmp_path)
    path = tmp_path / "models" / "churn.yaml"
    path.write_text(path.read_text().replace("dwh/scores", "dwh scores"))
    with pytest.raises(ConfigError, match="'dwh scores' is not the key of an asset"):
        load_model(path)


def test_a_new_materialization_wakes_the_planner(tmp_path: Path) -> None:
    """Files that would have to settle for an hour are read as soon as their asset is done."""
    spec = declared_with_assets(tmp_path, settle="1h")
    land_validation(tmp_path)
    land_days(tmp_path, FIRST)
    with opened(tmp_path) as mine:
        assert mine.requests() == []
        for key in (["dwh", "scores"], ["outcomes"]):
            mine.instance.report_runless_asset_event(dg.AssetMaterialization(key))
        land_days(tmp_path, FIRST + dt.timedelta(days=1))  # after the assets said to be done
        [request] = mine.requests()
        read = manifest.load_paths(mine.project.store.state, spec.model, "predictions")

    assert request.asset_selection == [dg.AssetKey([spec.model, "baseline"])]
    landed = {path.name for path in landing(tmp_path, "predictions").iterdir()}
    assert landed == {"validation.parquet", "2024-03-01.parquet", "2024-03-02.parquet"}
    assert {Path(name).name for name in read} == landed - {"2024-03-02.parquet"}


# What their assets ask


def test_a_failing_verdict_closes_the_gate_and_a_good_one_does_not(fortnight: World) -> None:
    def look(*families: str, **how: object) -> bool:
        return gate_of(fortnight.project, fortnight.spec, families, **how).is_open  # type: ignore[arg-type]

    closed = gate_of(fortnight.project, fortnight.spec, ("schema", "quality", "drift"))
    statuses = {standing.family: standing.status for standing in closed.families}
    assert set(statuses) == {"schema", "quality", "drift"}
    for family, status in statuses.items():
        assert look(family) == (status in ("OK", "WARN"))
        assert look(family, closed_at="WARN") == (status == "OK")


def test_what_was_not_judged_closes_the_gate_unless_that_is_asked_for(tmp_path: Path) -> None:
    spec = write_declaration(tmp_path)
    project = make_project(tmp_path)
    gate = gate_of(project, spec, ("performance",))
    assert (gate.is_open, gate.status) == (False, "NO_DATA")
    assert "performance is NO_DATA" in gate.text()
    assert gate_of(project, spec, ("performance",), no_data="open").is_open
    assert not gate_of(project, spec).is_open
    unwatched = gate_of(project, spec, ("versions",)).text()
    assert unwatched.endswith("versions is NO_DATA: the spec does not have it watched")
    with pytest.raises(ConfigError, match="did you mean 'drift'"):
        gate_of(project, spec, ("drfit",))


@pytest.mark.parametrize("family", ["schema", "performance"])
def test_an_asset_goes_on_only_while_the_gate_is_open(
    fortnight: World, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLMON_NOW", NOW.isoformat())
    is_open = gate_of(fortnight.project, fortnight.spec, (family,)).is_open

    @dg.asset(deps=[dg.AssetKey(["churn", "performance"])])
    def rollout(monitoring: MonitoringResource) -> None:
        monitoring.gate("churn", family)

    resources = {"monitoring": MonitoringResource(project=str(fortnight.folder))}
    result = dg.materialize([rollout], resources=resources, raise_on_error=False)
    assert result.success == is_open


def test_verdicts_are_shown_on_the_users_asset_and_again_when_they_change(
    own_fortnight: World,
) -> None:
    project = own_fortnight.project

    @dg.asset
    def scores() -> None: ...

    checks = mlmon_checks(scores, "churn", FAMILIES, project=project)
    result = dg.materialize([scores, checks], instance=own_fortnight.instance)
    shown = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    gates = {f: gate_of(project, own_fortnight.spec, (f,)).status for f in FAMILIES}
    assert shown == {f"mlmon_churn_{f}": status == "OK" for f, status in gates.items()}
    assert result.success

    repository = dg.Definitions([scores], asset_checks=[checks]).get_repository_def()
    assert report_on_assets(own_fortnight.instance, repository, project) == 0
    with dg.DagsterInstance.ephemeral() as empty:
        job = dg.Definitions(
            [scores], asset_checks=[checks]
        ).resolve_implicit_global_asset_job_def()
        empty.create_run_for_job(job)  # planned, and not evaluated yet
        assert report_on_assets(empty, repository, project) == 2
        assert report_on_assets(empty, repository, project) == 0
