"""Each asset says in Dagster's UI what automates it, and what is asked for still runs."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.target import ANONYMOUS_ASSET_JOB_PREFIX

from mlmon_dagster import build_definitions
from mlmon_dagster.defs.assets import OVERVIEW_KEY, asset_key, keys_of, range_tags
from mlmon_dagster.spec import read_models
from mlmon_dagster.spec.steps import windowed_of
from tests.defs.graphql import ui_of
from tests.defs.small_model import (
    FIRST,
    NOW,
    land_days,
    land_validation,
    make_project,
    windows_of_days,
    write_declaration,
)

AUTOMATIONS = """{ assetNodes { assetKey { path } targetingInstigators {
    ... on Sensor { name } ... on Schedule { name } } } }"""
SELECTED = """{ repositoriesOrError { ... on RepositoryConnection { nodes { schedules {
    name assetSelection { assets { key { path } } } } } } } }"""
OWN = """
@dg.asset(key=["credit", "mine"], group_name="credit")
def mine(): ...
"""


def declare_two(folder: Path) -> None:
    """Declare a model of days and one of hours, which begin on different days."""
    write_declaration(folder)
    hourly = folder / "models" / "credit.yaml"
    write_declaration(folder, "credit", FIRST + dt.timedelta(days=3))
    hourly.write_text(hourly.read_text().replace("granularity: day", "granularity: hour"))


def test_every_asset_names_the_planner_and_the_schedule_of_its_windows(tmp_path: Path) -> None:
    """As the UI asks for it; what the user has in the same group names neither."""
    declare_two(tmp_path)
    with ui_of(tmp_path, own=OWN, assets="mine") as (ask, _):
        shown = {
            tuple(node["assetKey"]["path"]): {one["name"] for one in node["targetingInstigators"]}
            for node in ask(AUTOMATIONS)["assetNodes"]
        }
        [location] = ask(SELECTED)["repositoriesOrError"]["nodes"]
    selected = {
        one["name"]: {tuple(asset["key"]["path"]) for asset in one["assetSelection"]["assets"]}
        for one in location["schedules"]
    }

    external = {("churn", "landing"), ("credit", "landing")}
    for key, grain in (("churn", "day"), ("credit", "hour")):
        mine = {path for path in shown if path[0] == key} - external - {("credit", "mine")}
        assert len(mine) == 11
        names = {"mlmon_planner", f"mlmon_newest_{grain}"}
        assert {frozenset(shown[path]) for path in mine} == {frozenset(names)}
        assert selected[f"mlmon_newest_{grain}"] == mine | {("mlmon", "overview")}
    assert shown["credit", "mine"] == shown["churn", "landing"] == set()
    assert shown["mlmon", "maintenance"] == {"mlmon_daily_maintenance"}
    assert shown["mlmon", "overview"] == {
        "mlmon_planner", "mlmon_newest_day", "mlmon_newest_hour"
    }  # fmt: skip


@pytest.mark.parametrize(
    "job",
    [
        "__ASSET_JOB",
        pytest.param(f"{ANONYMOUS_ASSET_JOB_PREFIX}_mlmon_newest_day", marks=pytest.mark.proof),
    ],
)
def test_a_run_for_models_that_begin_on_different_days_computes_both(
    tmp_path: Path, job: str
) -> None:
    """Their partitions differ, which Dagster allows in no job of a user's."""
    write_declaration(tmp_path)
    write_declaration(tmp_path, "credit", FIRST - dt.timedelta(days=30))
    land_validation(tmp_path)
    land_days(tmp_path, FIRST)
    project = make_project(tmp_path)
    models = read_models(project.models_folder, NOW)
    definitions = build_definitions(models, project)
    wanted = [key for spec in models.specs for key in keys_of(spec, ("event_log", "baseline"))]
    wanted += [key for spec in models.specs for key in keys_of(spec, windowed_of(spec))]
    [churn, credit] = models.specs

    with dg.instance_for_test() as instance:
        done = definitions.resolve_job_def(job).execute_in_process(
            instance=instance,
            asset_selection=[*wanted, OVERVIEW_KEY],
            tags=range_tags(windows_of_days(churn, [FIRST])),
        )

        assert done.success
        assert done.asset_materializations_for_node("mlmon__overview")
        for spec in (churn, credit):
            shown = instance.get_materialized_partitions(asset_key(spec, "drift"))
            assert shown == {FIRST.isoformat()}
        assert len(done.get_asset_check_evaluations()) > 10


def test_a_job_of_a_schedule_holds_no_steps_but_the_overview(tmp_path: Path) -> None:
    """One more job over all assets would double what a thousand models take to load."""
    declare_two(tmp_path)
    project = make_project(tmp_path)
    repository = build_definitions(
        read_models(project.models_folder, NOW), project
    ).get_repository_def()
    ours = [job for job in repository.get_all_jobs() if "mlmon_newest" in job.name]
    assert len(ours) == 2
    assert {node.name for job in ours for node in job.nodes} == {"mlmon__overview"}
