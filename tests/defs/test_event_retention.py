"""Dagster's old events are ended, and what its pages say of partitions and checks stays."""

import datetime as dt
import signal
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from mlmon_dagster.commands.store import maintain
from mlmon_dagster.defs.event_retention import EndedEvents, end_old_events
from mlmon_dagster.defs.instance import open_instance
from tests import forked
from tests.defs.small_model import make_project, write_declaration
from tests.defs.test_batched_events import CHECK, DAYS, KEY, WINDOWS, home, job, run

__all__ = ["home"]
pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]
NONE = EndedEvents(0, 0, 0, 0)
HOUR = dt.timedelta(hours=1)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def shown(instance: dg.DagsterInstance) -> dict[str, object]:
    """Return what Dagster's pages say of the asset, its partitions and its check."""
    storage = instance.event_log_storage
    newest = {}
    for record in instance.fetch_materializations(KEY, limit=1_000).records:
        newest.setdefault(record.partition_key, (record.run_id, record.storage_id))
    latest = storage.get_latest_asset_check_execution_by_key([CHECK])[CHECK]
    told = {}
    for one in storage.get_asset_check_execution_history(CHECK, limit=1_000):
        told.setdefault(one.partition, (one.status, one.run_id))
    [asset] = instance.get_asset_records([KEY])
    last = asset.asset_entry.last_materialization_record
    assert last is not None
    return {
        "partitions": instance.get_materialized_partitions(KEY),
        "status": instance.get_status_by_partition(KEY, [w.key for w in WINDOWS], DAYS),
        "newest": newest,
        "check": (latest.id, latest.status, latest.run_id),
        "told": told,
        "last": (last.partition_key, last.storage_id),
        "runs": sorted(r.dagster_run.run_id for r in instance.get_run_records()),
    }


def count_rows(instance: dg.DagsterInstance) -> Counter[str]:
    found: Counter[str] = Counter()
    with instance.event_log_storage.index_connection() as conn:  # type: ignore[attr-defined]
        for table in ("event_logs", "asset_check_executions", "asset_event_tags"):
            found[table] = conn.execute(sa.text(f"SELECT COUNT(*) FROM {table}")).scalar_one()
    return found


def test_partitions_and_checks_are_shown_as_before_and_the_rest_is_gone(home: Path) -> None:
    old, newer = run(home), run(home)
    with open_instance(make_project(home)) as instance:
        before, rows = shown(instance), count_rows(instance)
        is_sqlite = "sqlite" in type(instance.event_log_storage).__name__.lower()
        planned = end_old_events(instance, now(), dry_run=True)
        assert (shown(instance), count_rows(instance)) == (before, rows)

        ended = end_old_events(instance, now())
        assert shown(instance) == before
        left = count_rows(instance)
        assert rows["event_logs"] - left["event_logs"] == ended.n_events > len(WINDOWS)
        assert rows["asset_check_executions"] - left["asset_check_executions"] == len(WINDOWS)
        assert ended.n_checks == planned.n_checks == len(WINDOWS)
        assert planned.n_events <= ended.n_events
        assert (ended.n_runs, ended.size > 0) == ((2, True) if is_sqlite else (0, False))
        assert end_old_events(instance, now()) == NONE
        assert {e.dagster_event_type for e in instance.all_logs(old)} == set()

        # Runs go on, and are shown.
    third = run(home)
    with open_instance(make_project(home)) as instance:
        after = shown(instance)
        assert {run_id for run_id, _ in after["newest"].values()} == {third}  # type: ignore[attr-defined]
        assert set(after["runs"]) == {old, newer, third}  # type: ignore[call-overload]
        assert instance.all_logs(third)


def test_what_is_newer_stays_whole(home: Path) -> None:
    run_id = run(home)
    with open_instance(make_project(home)) as instance:
        rows, logs = count_rows(instance), len(instance.all_logs(run_id))
        assert end_old_events(instance, now() - HOUR) == NONE
        assert (count_rows(instance), len(instance.all_logs(run_id))) == (rows, logs)


def test_a_run_that_goes_on_keeps_its_events(home: Path) -> None:
    run(home)
    with open_instance(make_project(home)) as instance:
        going_on = instance.create_run_for_job(job(), status=dg.DagsterRunStatus.STARTED)
        instance.report_engine_event("going on", going_on)
        logs = [entry.message for entry in instance.all_logs(going_on.run_id)]
        assert logs[-1] == "going on"
        end_old_events(instance, now())
        assert [entry.message for entry in instance.all_logs(going_on.run_id)] == logs


def test_a_check_that_was_only_planned_replaces_no_evaluation(tmp_path: Path) -> None:
    """As of a run that was killed: what the check said before is all that is known."""
    run(tmp_path)
    assert forked.ended(run, tmp_path, 7) == -signal.SIGKILL
    with open_instance(make_project(tmp_path)) as instance:
        [killed] = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        instance.report_run_failed(killed)
        storage = instance.event_log_storage
        before = storage.get_asset_check_execution_history(CHECK, limit=100)
        assert {one.status.value for one in before} == {"PLANNED", "SUCCEEDED"}
        assert end_old_events(instance, now()).n_checks == 0
        assert storage.get_asset_check_execution_history(CHECK, limit=100) == before


def test_the_command_says_what_it_removed_and_refuses_what_is_too_short(home: Path) -> None:
    run(home)
    project = make_project(home)
    write_declaration(home)
    said = CliRunner().invoke(maintain, ["--dagster", "90d", "--dry-run"], obj=project)
    assert "Dagster: would be removed: 0 events, 0 evaluations of checks" in said.output
    said = CliRunner().invoke(maintain, ["--dagster", "1h"], obj=project)
    assert said.exit_code == 2
    assert "at least 2d" in said.output
    said = CliRunner().invoke(maintain, ["--dagster", "soon"], obj=project)
    assert said.exit_code == 2
