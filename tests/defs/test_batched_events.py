"""Dagster's events of many windows: all there, in order, in few transactions, also after a kill."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from mlmon_dagster.defs.assets import range_tags
from mlmon_dagster.defs.batched_events import BatchedSqliteEventLogStorage
from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.spec import complete_windows
from tests import forked
from tests.conftest import make_spec, window
from tests.defs.small_model import make_project

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]
SPEC = make_spec()
WINDOWS = complete_windows(SPEC.time, window(SPEC, "2024-01-31").end)[:12]
DAYS = dg.DailyPartitionsDefinition(WINDOWS[0].key, timezone=SPEC.time.zone)
KEY = dg.AssetKey(["m", "drift"])
CHECK = dg.AssetCheckKey(KEY, "drift")
SUCCEEDED, PLANNED = (
    AssetCheckExecutionRecordStatus.SUCCEEDED,
    AssetCheckExecutionRecordStatus.PLANNED,
)


def job(*, killed_at: int | None = None) -> dg.JobDefinition:
    """Return a job of one asset and its check; its process is killed before an evaluation."""

    @dg.asset(key=KEY, partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def drift(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        for n, key in enumerate(context.partition_keys):
            context.add_asset_metadata({"psi": n / 10}, partition_key=key)
        return dg.MaterializeResult()

    check = dg.AssetCheckSpec("drift", asset=KEY, partitions_def=DAYS)

    @dg.multi_asset_check(name="drift_check", specs=[check], can_subset=True)
    def judged(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckEvaluation]:
        for n, key in enumerate(context.partition_keys):
            if n == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield dg.AssetCheckEvaluation(
                asset_key=KEY, check_name="drift", partition=key, passed=True
            )

    return dg.Definitions(
        assets=[drift], asset_checks=[judged], executor=dg.in_process_executor
    ).resolve_implicit_global_asset_job_def()


def run(folder: Path, killed_at: int | None = None) -> str:
    """Run the job over all windows; return the run's id."""
    with open_instance(make_project(folder)) as instance:
        tags = range_tags(WINDOWS)
        done = job(killed_at=killed_at).execute_in_process(instance=instance, tags=tags)
    return done.run_id


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose Dagster keeps its events in either database."""
    if request.param == "postgres":
        monkeypatch.setenv("MLMON_DB_URL", request.getfixturevalue("pg_url"))
    return tmp_path


@pytest.mark.proof
@pytest.mark.parametrize("batch", ["0", "5", "500"])
def test_events_are_the_same_however_many_are_written_at_once(
    home: Path, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every window has its materialization and its evaluation, the newest window's last."""
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch)
    run_id = run(home)
    with open_instance(make_project(home)) as instance:
        told = Counter(entry.dagster_event_type for entry in instance.all_logs(run_id))
        found = instance.fetch_materializations(KEY, limit=100).records
        history = instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=100)
        [record] = instance.get_asset_records([KEY])
    keys = [w.key for w in reversed(WINDOWS)]
    assert told[dg.DagsterEventType.ASSET_MATERIALIZATION] == len(WINDOWS)
    assert told[dg.DagsterEventType.ASSET_CHECK_EVALUATION] == len(WINDOWS)
    assert told[dg.DagsterEventType.STEP_SUCCESS] == 2
    assert [r.partition_key for r in found] == keys
    assert [h.status for h in history] == [SUCCEEDED] * len(WINDOWS)
    assert sorted(str(h.partition) for h in history) == sorted(keys)
    newest = record.asset_entry.last_materialization_record
    assert newest is not None
    assert newest.partition_key == keys[0]
    assert newest.storage_id == found[0].storage_id


def test_an_evaluation_is_stored_before_its_step_ends(home: Path) -> None:
    """What is held is written first, so the order of a run's events is that of its work."""
    run_id = run(home)
    with open_instance(make_project(home)) as instance:
        order = [
            entry.dagster_event_type
            for entry in instance.all_logs(run_id)
            if entry.step_key == "drift_check"
        ]
    evaluation = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    first = order.index(evaluation)
    assert order[first : first + len(WINDOWS)] == [evaluation] * len(WINDOWS)
    assert dg.DagsterEventType.STEP_SUCCESS in order[first + len(WINDOWS) :]


def test_a_killed_process_loses_no_event_of_a_step_that_had_ended(tmp_path: Path) -> None:
    """Its materializations are there; the check that was cut off is planned, and told again."""
    assert forked.ended(run, tmp_path, 7) == -signal.SIGKILL
    with open_instance(make_project(tmp_path)) as instance:
        [cut_off] = instance.get_run_records()
        found = instance.fetch_materializations(KEY, limit=100).records
        told = Counter(e.dagster_event_type for e in instance.all_logs(cut_off.dagster_run.run_id))
        history = instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=100)
    assert [r.partition_key for r in found] == [w.key for w in reversed(WINDOWS)]
    assert told[dg.DagsterEventType.STEP_SUCCESS] == 1
    assert told[dg.DagsterEventType.ASSET_MATERIALIZATION] == len(WINDOWS)
    assert {h.status for h in history} == {PLANNED}

    again = run(tmp_path)
    with open_instance(make_project(tmp_path)) as instance:
        history = instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=100)
    assert [h.status for h in history if h.run_id == again] == [SUCCEEDED] * len(WINDOWS)


def test_a_batch_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both databases are rolled back, so that Dagster's second try, one by one, adds no event."""
    known = SqliteEventLogStorage._store_asset_event
    failures = iter([True])

    def fails_once(
        self: SqliteEventLogStorage, conn: sa.Connection, event: dg.EventLogEntry, event_id: int
    ) -> None:
        written = event.dagster_event_type is dg.DagsterEventType.ASSET_MATERIALIZATION
        if written and next(failures, False):
            raise OSError("disk full")
        known(self, conn, event, event_id)

    monkeypatch.setattr(SqliteEventLogStorage, "_store_asset_event", fails_once)
    run_id = run(tmp_path)
    with open_instance(make_project(tmp_path)) as instance:
        told = Counter(entry.dagster_event_type for entry in instance.all_logs(run_id))
        found = instance.fetch_materializations(KEY, limit=100).records
    assert next(failures, None) is None
    assert told[dg.DagsterEventType.ASSET_MATERIALIZATION] == len(found) == len(WINDOWS)


def test_the_database_of_a_run_is_the_one_that_dagster_makes(tmp_path: Path) -> None:
    def tables(storage: SqliteEventLogStorage) -> list[tuple[str, ...]]:
        with storage.run_connection("r") as run:
            made = run.exec_driver_sql("SELECT name, sql FROM sqlite_master ORDER BY name").all()
            of = run.exec_driver_sql("SELECT version_num FROM alembic_version").all()
            mode = run.exec_driver_sql("PRAGMA journal_mode").all()
        storage.dispose()
        return [tuple(map(str, row)) for row in (*made, *of, *mode)]

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    expected = tables(SqliteEventLogStorage(str(theirs)))
    assert tables(BatchedSqliteEventLogStorage(str(ours))) == expected
    assert (ours / "r.db").stat().st_mode == (theirs / "r.db").stat().st_mode
    kept = f"empty-{dg.__version__}.sqlite"
    assert sorted(p.name for p in ours.iterdir()) == [kept, "index.db", "r.db"]


def test_a_process_takes_the_empty_database_that_an_earlier_one_made(tmp_path: Path) -> None:
    def make(run_id: str) -> bytes:
        with BatchedSqliteEventLogStorage(str(tmp_path)).run_connection(run_id):
            return (tmp_path / f"{run_id}.db").read_bytes()

    first = make("first")
    kept = tmp_path / f"empty-{dg.__version__}.sqlite"
    made = kept.stat()
    assert make("second") == first == kept.read_bytes()
    assert kept.stat() == made
    known = BatchedSqliteEventLogStorage(str(tmp_path)).get_all_run_ids()
    assert sorted(known) == ["first", "second"]
