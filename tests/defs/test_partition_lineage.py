"""Partitions of the user's assets and the windows of a model line up, in the UI and backfills."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster_graphql.test.utils import execute_dagster_graphql

from mlmon_dagster import build_definitions
from mlmon_dagster.defs.assets import asset_key, partitions_of
from mlmon_dagster.defs.mapping import choose_mapping
from mlmon_dagster.spec import load_model
from tests.defs.graphql import LOCATION, Ask, ui_of
from tests.defs.small_model import DAYS, land_validation, make_project
from tests.defs.test_lineage import declared_with_assets

NEW_YORK = 'timezone="America/New_York"'
OWN = """
@dg.asset(key=["dwh", "scores"], partitions_def={partitions})
def scores(): ...

@dg.asset(partitions_def={partitions})
def outcomes(): ...
"""
BESIDE = ", beside=dg.Definitions([scores, outcomes])"
PREVIEW = """query($p: AssetBackfillPreviewParams!) { assetBackfillPreview(params: $p) {
    assetKey { path } partitions { ranges { start end } partitionKeys } } }"""
SELECTED = (("dwh", "scores"), ("churn", "event_log"), ("churn", "inference_store"))


def declare(folder: Path, grain: str = "day") -> None:
    declared_with_assets(folder)
    path = folder / "models" / "churn.yaml"
    path.write_text(path.read_text().replace("granularity: day", f"granularity: {grain}"))


def windows_below(ask: Ask, *partitions: str) -> list[tuple[str, str]]:
    """Return the ranges of windows that the UI would backfill with partitions of the user's."""
    found = ask(
        PREVIEW,
        p={
            "partitionNames": list(partitions),
            "assetSelection": [{"path": list(path)} for path in SELECTED],
        },
    )["assetBackfillPreview"]
    by_key = {tuple(one["assetKey"]["path"]): one["partitions"] for one in found}
    assert by_key["churn", "event_log"] is None  # it has no partitions, and is in the backfill
    shown = by_key["churn", "inference_store"]
    return [(one["start"], one["end"]) for one in (shown or {}).get("ranges") or []]


@pytest.mark.parametrize("beside", ["", BESIDE], ids=["not known", "known"])
@pytest.mark.parametrize(
    "partitions",
    [
        f'dg.DailyPartitionsDefinition("2024-03-01", {NEW_YORK})',
        f'dg.DailyPartitionsDefinition("2024-01-15", {NEW_YORK})',
        f'dg.DailyPartitionsDefinition("2024-03-08", {NEW_YORK})',
        'dg.DailyPartitionsDefinition("2024-01-15")',  # in UTC
    ],
    ids=["same", "earlier", "later", "UTC"],
)
def test_a_day_of_the_users_is_the_day_of_ours(
    tmp_path: Path, partitions: str, beside: str
) -> None:
    """On the day of 23 hours and the day after it, whether or not we know of the user's asset."""
    declare(tmp_path)
    own = OWN.format(partitions=partitions)
    with ui_of(tmp_path, own=own, assets="scores, outcomes", options=beside) as (ask, _):
        assert windows_below(ask, "2024-03-10") == [("2024-03-10", "2024-03-10")]
        both = windows_below(ask, "2024-03-10", "2024-03-11")
        assert both == [("2024-03-10", "2024-03-11")]


@pytest.mark.parametrize(
    ("grain", "partitions", "asked", "windows"),
    [
        (
            "hour",
            f'dg.DailyPartitionsDefinition("2024-03-01", {NEW_YORK})',
            ["2024-03-10"],
            [("2024-03-10-00:00", "2024-03-10-23:00")],
        ),
        (
            "day",
            f'dg.HourlyPartitionsDefinition("2024-03-01-00:00", {NEW_YORK})',
            ["2024-03-10-01:00", "2024-03-10-03:00"],
            [("2024-03-10", "2024-03-10")],
        ),
        (
            "week",
            f'dg.DailyPartitionsDefinition("2024-03-01", {NEW_YORK})',
            ["2024-03-10", "2024-03-11"],
            [("2024-03-04", "2024-03-11")],
        ),
        (
            "month",
            f'dg.DailyPartitionsDefinition("2024-03-01", {NEW_YORK})',
            ["2024-03-31"],
            [("2024-03-01", "2024-03-01")],
        ),
    ],
)
def test_windows_of_another_length_take_the_partitions_that_overlap_them(
    tmp_path: Path, grain: str, partitions: str, asked: list[str], windows: list[tuple[str, str]]
) -> None:
    declare(tmp_path, grain)
    own = OWN.format(partitions=partitions)
    with ui_of(tmp_path, own=own, assets="scores, outcomes", options=BESIDE) as (ask, _):
        assert windows_below(ask, *asked) == windows


@pytest.mark.parametrize("beside", ["", BESIDE], ids=["not known", "known"])
@pytest.mark.parametrize(
    "partitions",
    [
        'dg.StaticPartitionsDefinition(["de", "fr"])',
        'dg.HourlyPartitionsDefinition("2024-03-01-00:00")',
        'dg.DynamicPartitionsDefinition(name="files")',
        "None",
    ],
    ids=["list", "hours in UTC", "dynamic", "none"],
)
def test_partitions_that_fit_no_window_break_neither_the_location_nor_its_backfills(
    tmp_path: Path, partitions: str, beside: str
) -> None:
    declare(tmp_path)
    own = OWN.format(partitions=partitions)
    with ui_of(tmp_path, own=own, assets="scores, outcomes", options=beside) as (ask, _):
        of_ours = ask(
            PREVIEW,
            p={
                "partitionNames": ["2024-03-09", "2024-03-10"],
                "assetSelection": [{"path": list(path)} for path in SELECTED[1:]],
            },
        )["assetBackfillPreview"]
    [windows] = [one["partitions"] for one in of_ours if one["partitions"]]
    assert windows["ranges"] == [{"start": "2024-03-09", "end": "2024-03-10"}]


def test_a_model_that_ends_lines_up_by_the_names_of_its_windows(tmp_path: Path) -> None:
    declare(tmp_path)
    path = tmp_path / "models" / "churn.yaml"
    path.write_text(
        path.read_text().replace("granularity: day,", "granularity: day, end: 2024-04-01,")
    )
    theirs = dg.DailyPartitionsDefinition("2024-02-01", timezone="America/New_York")
    ours = partitions_of(load_model(path))
    mapping = choose_mapping(theirs, ours)
    assert mapping is not None
    mapping.validate_partition_mapping(theirs, ours)
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(
        ours.subset_with_partition_keys(["2024-03-10"]), ours, theirs
    )
    assert list(found.partitions_subset.get_partition_keys()) == ["2024-03-10"]


# Backfills

WRITTEN = """
import datetime as dt
from tests.defs.small_model import land_days

@dg.asset(key=["dwh", "scores"], partitions_def={partitions})
def scores(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    land_days(Path({folder!r}), dt.date.fromisoformat(context.partition_key))
    return dg.MaterializeResult()

@dg.asset(partitions_def={partitions})
def outcomes(): ...
"""
LAUNCH = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""


@contextmanager
def daemon_of(folder: Path) -> Iterator[tuple[WorkspaceProcessContext, dg.DagsterInstance]]:
    """Load a location for Dagster's daemon, whose runs are executed at once in this process."""
    at_once = {
        "run_launcher": {
            "module": "dagster._core.launcher.sync_in_memory_run_launcher",
            "class": "SyncInMemoryRunLauncher",
        },
        "run_coordinator": {
            "module": "dagster._core.run_coordinator.default_run_coordinator",
            "class": "DefaultRunCoordinator",
        },
    }
    origin = LoadableTargetOrigin(python_file=str(folder / "location.py"), attribute="defs")
    target = InProcessWorkspaceLoadTarget(InProcessCodeLocationOrigin(origin))
    with (
        dg.instance_for_test(overrides=at_once) as instance,
        WorkspaceProcessContext(instance, target) as context,
    ):
        yield context, instance


# A mutation of Dagster's GraphQL leaves a coroutine of its event loop behind.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.proof
@pytest.mark.parametrize(
    "partitions",
    [
        f'dg.DailyPartitionsDefinition("2024-03-02", {NEW_YORK})',  # later than our first window
        'dg.DailyPartitionsDefinition("2024-02-15")',
    ],
    ids=["same zone", "UTC"],
)
def test_a_backfill_of_the_users_asset_and_ours_computes_the_days_that_it_wrote(
    tmp_path: Path, partitions: str
) -> None:
    """The user's days first, then the event log once, then the windows of these days."""
    declare(tmp_path)
    land_validation(tmp_path)
    spec = load_model(tmp_path / "models" / "churn.yaml")
    own = WRITTEN.format(partitions=partitions, folder=str(tmp_path))
    text = LOCATION.format(folder=str(tmp_path), own=own, assets="scores, outcomes", options=BESIDE)
    (tmp_path / "location.py").write_text(text)
    days = [day.isoformat() for day in DAYS[2:4]]
    names = ("event_log", "baseline", "inference_store", "profiles", "drift")
    keys = [dg.AssetKey(["dwh", "scores"]), *(asset_key(spec, name) for name in names)]
    with daemon_of(tmp_path) as (context, instance):
        params = {"partitionNames": days, "assetSelection": [{"path": key.path} for key in keys]}
        asked: Any = execute_dagster_graphql(
            context.create_request_context(), LAUNCH, {"p": params}
        ).data
        backfill_id = asked["launchPartitionBackfill"]["backfillId"]
        for _ in range(12):
            list(execute_backfill_iteration(context, logging.getLogger("backfill")))
            backfill = instance.get_backfill(backfill_id)
            assert backfill is not None
            if backfill.status.value.startswith("COMPLETED"):
                break
        assert backfill.status.value == "COMPLETED_SUCCESS", backfill.error
        for key in (keys[0], asset_key(spec, "drift")):
            assert instance.get_materialized_partitions(key) == set(days)
        runs = instance.get_runs(ascending=True)
        order = [{key.path[-1] for key in run.asset_selection or ()} for run in runs]
        assert [{"scores"}] * 2 == order[:2]
        assert sum("event_log" in one for one in order) == 1


def test_a_window_is_out_of_date_when_its_own_partition_of_the_users_is_written_again(
    tmp_path: Path,
) -> None:
    """And no other window is, until the planner has had them computed."""
    declare(tmp_path)
    land_validation(tmp_path)
    spec = load_model(tmp_path / "models" / "churn.yaml")
    project = make_project(tmp_path)

    @dg.asset(
        key=["dwh", "scores"],
        partitions_def=dg.DailyPartitionsDefinition("2024-03-01", timezone="America/New_York"),
    )
    def scores() -> None: ...

    mine = dg.Definitions([scores])
    definitions = dg.Definitions.merge(mine, build_definitions([spec], project, beside=mine))
    job = definitions.resolve_implicit_global_asset_job_def()
    graph = definitions.resolve_asset_graph()
    ours = asset_key(spec, "inference_store")
    days = [day.isoformat() for day in DAYS[:2]]

    def ages(instance: dg.DagsterInstance) -> list[str]:
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        return [resolver.get_status(ours, day).value for day in days]

    with dg.instance_for_test() as instance:
        for day in days:
            done = job.execute_in_process(
                instance=instance,
                asset_selection=[scores.key, asset_key(spec, "event_log"), ours],
                partition_key=day,
            )
            assert done.success
        before = ages(instance)
        job.execute_in_process(
            instance=instance, asset_selection=[scores.key], partition_key=days[1]
        )
        assert before == ["FRESH", "FRESH"]
        assert ages(instance) == ["FRESH", "STALE"]
