"""What the UI's checks show is what stands, whichever run ended last and whatever it was asked."""

from __future__ import annotations

import datetime as dt
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from mlmon_dagster.defs.assets import asset_key
from mlmon_dagster.defs.checks import StandingChecks
from mlmon_dagster.spec.steps import BY_NAME, windowed_of
from mlmon_dagster.tables.standing import NOT_JUDGED, standing_of
from tests.defs.graphql import ui_of
from tests.defs.small_model import DAYS, NOW, SILENT, customers, drop, landing
from tests.defs.worlds import World

UI = """query Checks { assetNodes { assetKey { path } assetChecksOrError { ... on AssetChecks {
  checks { name executionForLatestMaterialization { status evaluation {
    severity success description } } partitionStatuses { __typename } } } } } }"""
BAD = DAYS[-3]  # before the days that wait for their ground truth


def shown(world: World) -> dict[str, tuple[str, str]]:
    """Return what the UI shows of each check: a status, and what it says."""
    with ui_of(world.folder, instance=world.instance) as (ask, _):
        nodes = ask(UI)["assetNodes"]
    found = {}
    for node in nodes:
        for check in node["assetChecksOrError"].get("checks", ()):
            if node["assetKey"]["path"][0] == world.spec.model:
                found[check["name"]] = in_words(check["executionForLatestMaterialization"])
    return found


def in_words(execution: dict[str, Any] | None) -> tuple[str, str]:
    if execution is None:
        return "none", ""
    said = execution["evaluation"]
    if said is None:
        return execution["status"], ""
    return "OK" if said["success"] else said["severity"], said["description"]


def expected(world: World) -> dict[str, str]:
    found = standing_of(world.project.store, world.spec, world.project.now())
    status = {s.family: s.status for s in found if s.status != NOT_JUDGED}
    return {f: "WARN" if one == "NO_DATA" else one for f, one in status.items()}


def statuses(world: World) -> dict[str, str]:
    return {f: status for f, (status, _) in shown(world).items() if f in expected(world)}


def invert_actuals(world: World, day: dt.date) -> None:
    """Land corrected ground truth of a day that turns the model's ranking around."""
    _, actuals = customers(day)
    actuals["left"] = 1 - actuals["left"]
    actuals["known_at"] = pd.Timestamp(NOW)
    drop(actuals, landing(world.folder, "actuals") / f"corrected-{day}.parquet")
    world.clock.moment = NOW + dt.timedelta(hours=1)
    assert world.launcher.materialize(world.spec, ("event_log",)).is_success


def test_an_error_that_fires_is_red_while_newer_windows_wait_for_their_truth(
    own_fortnight: World,
) -> None:
    invert_actuals(own_fortnight, BAD)
    assert own_fortnight.compute(DAYS).is_success
    status, said = shown(own_fortnight)["performance"]
    assert status == "ERROR", said
    assert statuses(own_fortnight) == expected(own_fortnight)


def test_what_a_run_that_ended_late_covered_is_shown_again_by_the_dispatcher(
    own_fortnight: World,
) -> None:
    check = dg.AssetCheckKey(asset_key(own_fortnight.spec, "inference_store"), "schema")
    storage = own_fortnight.instance.event_log_storage
    own_fortnight.requests("mlmon_alert_dispatcher")  # freshness is judged after its check, too
    before = shown(own_fortnight)
    # The older run is asked for last, so that Dagster holds its evaluation for the latest.
    late = dg.AssetCheckEvaluation(
        asset_key=check.asset_key, check_name="schema", passed=False, partition=str(DAYS[4]),
        severity=dg.AssetCheckSeverity.ERROR, description="75 of 150 rows were refused.",
    )  # fmt: skip
    own_fortnight.instance.report_runless_asset_event(late)
    assert shown(own_fortnight)["schema"][0] in ("ERROR", "none")

    # As when the daemon starts: this one compares every model, not those whose runs just ended.
    project, instance, specs = own_fortnight.project, own_fortnight.instance, [own_fortnight.spec]
    assert StandingChecks(project).report(instance, specs) == 1
    assert shown(own_fortnight) == before
    n = len(storage.get_asset_check_execution_history(check, limit=1_000))
    assert StandingChecks(project).report(instance, specs) == 0
    assert len(storage.get_asset_check_execution_history(check, limit=1_000)) == n


def test_checks_run_without_a_partition_say_what_stands(own_fortnight: World) -> None:
    before = statuses(own_fortnight)
    world = own_fortnight
    job = world.launcher.definitions.resolve_implicit_global_asset_job_def()
    keys = [
        dg.AssetCheckKey(asset_key(world.spec, BY_NAME[name].name), BY_NAME[name].family)
        for name in windowed_of(world.spec)
        if BY_NAME[name].family
    ]
    job = world.launcher.definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection=set(), asset_check_selection=set(keys)
    )
    result = job.execute_in_process(
        instance=world.instance, run_config={"loggers": {"console": {}}}
    )
    assert result.success
    said = result.get_asset_check_evaluations()
    assert {one.check_name for one in said} == {key.name for key in keys}
    assert statuses(world) == before == expected(world)


@pytest.mark.parametrize("asset", ["inference_store", "profiles", "performance", "drift"])
def test_a_materialization_told_again_has_the_entries_of_the_computed_one(
    own_fortnight: World, asset: str
) -> None:
    key = asset_key(own_fortnight.spec, asset)

    def newest() -> tuple[str | None, dict[str, Any]]:
        [record] = own_fortnight.instance.fetch_materializations(key, limit=1).records
        metadata = record.asset_materialization.metadata
        return record.partition_key, {k: v.value for k, v in metadata.items() if k != "mlmon"}

    before = newest()
    assert before[0] == str(DAYS[-1])
    assert before[1]
    assert own_fortnight.compute([SILENT]).is_success
    partition, entries = newest()
    assert (partition, entries.keys()) == (before[0], before[1].keys())
    assert entries == pytest.approx(before[1], nan_ok=True)
