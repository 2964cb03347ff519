"""What breaks in Dagster itself becomes an alert, once, and ends when all is well."""

from __future__ import annotations

import datetime as dt
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.plan.objects import StepFailureData, StepSuccessData
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.alerts.lifecycle.routing import platform_spec
from mlmon_dagster.defs.assets import OVERVIEW_KEY
from mlmon_dagster.defs.delivery import (
    failed_plannings,
    note_planning,
    observe_dagster,
    report_delivery,
)
from mlmon_dagster.defs.instance import MODEL_TAG
from mlmon_dagster.pipeline.ingest import note_backlog
from mlmon_dagster.project import Project
from mlmon_dagster.store.outbox import enqueue
from mlmon_dagster.store.state.manifest import Backlog
from mlmon_dagster.tables.alerts import list_alerts
from tests.alerts.worlds import observe, result, spec_of
from tests.conftest import make_spec

SPECS = [make_spec()]
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    found = Project(tmp_path, str(tmp_path / "store"))
    yield found
    found.store.close()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


def look(project: Project, instance: dg.DagsterInstance) -> dict[str, str]:
    """Look twice, as the dispatcher does, and return the state of each pipeline alert."""
    platform = platform_spec(SPECS)
    assert platform is not None
    for _ in range(2):
        observe_dagster(project, SPECS, instance, NOW)
        fold_results(project.store, [*SPECS, platform], NOW)
    return {e.monitor: e.state for e in list_alerts(project.store) if e.episode}


def add_run(
    instance: dg.DagsterInstance, run_id: str, status: dg.DagsterRunStatus
) -> dg.DagsterRun:
    run = dg.DagsterRun("job", run_id=run_id, status=status, tags={MODEL_TAG: "credit"})
    instance.add_run(run)
    return run


def test_a_failed_run_fires_once_and_the_next_success_ends_it(
    project: Project, instance: dg.DagsterInstance
) -> None:
    run = add_run(instance, "11111111-1111-4111-8111-111111111111", dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(run, "killed")
    failed = look(project, instance)
    time.sleep(0.01)
    good = add_run(instance, "22222222-2222-4222-8222-222222222222", dg.DagsterRunStatus.STARTED)
    instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, "job"), good.run_id
    )

    assert failed == {"pipeline/run": "FIRING"}
    assert look(project, instance) == {"pipeline/run": "RESOLVED"}


def test_a_failed_step_is_not_over_once_a_run_of_other_steps_went_well(
    project: Project, instance: dg.DagsterInstance
) -> None:
    def end(number: int, step: str, kind: dg.DagsterEventType) -> None:
        run_id = f"{number}" * 8 + "-1111-4111-8111-111111111111"
        run = add_run(instance, run_id, dg.DagsterRunStatus.STARTED)
        is_failure = kind is dg.DagsterEventType.STEP_FAILURE
        error = SerializableErrorInfo("ValueError: no", [], "ValueError")
        data = StepFailureData(error, None) if is_failure else StepSuccessData(1.0)
        event = dg.DagsterEvent(
            kind.value, "job", step_key=f"credit__{step}", event_specific_data=data
        )
        instance.report_dagster_event(event, run_id)
        if is_failure:
            instance.report_run_failed(run, "failed")
        else:
            done = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, "job")
            instance.report_dagster_event(done, run_id)
        time.sleep(0.01)

    end(1, "drift", dg.DagsterEventType.STEP_FAILURE)
    assert look(project, instance) == {"pipeline/run": "FIRING"}
    end(2, "event_log", dg.DagsterEventType.STEP_SUCCESS)
    assert look(project, instance) == {"pipeline/run": "FIRING"}
    end(3, "drift", dg.DagsterEventType.STEP_SUCCESS)
    assert look(project, instance) == {"pipeline/run": "RESOLVED"}


def test_a_run_that_does_not_start_is_told_until_it_has_gone(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlmon_dagster.defs import delivery

    run = add_run(instance, "33333333-3333-4333-8333-333333333333", dg.DagsterRunStatus.NOT_STARTED)
    assert look(project, instance) == {}
    monkeypatch.setitem(delivery.STUCK_AFTER, dg.DagsterRunStatus.NOT_STARTED, dt.timedelta(0))
    assert look(project, instance) == {"pipeline/stuck": "FIRING"}
    instance.delete_run(run.run_id)
    assert look(project, instance) == {"pipeline/stuck": "RESOLVED"}


def test_a_backlog_that_does_not_shrink_is_told_with_its_age_until_it_is_gone(
    project: Project, instance: dg.DagsterInstance
) -> None:
    def left(n: int, minutes: int) -> dict[str, Backlog]:
        since = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=minutes)
        return {"predictions": Backlog(0, n, since, since, since)}

    def looked(*looks: dict[str, Backlog]) -> dict[str, str]:
        for before, now in itertools.pairwise(looks):
            note_backlog(project, "credit", before, now)
        return look(project, instance)

    assert looked(left(900, 12), left(700, 12), left(400, 12)) == {}  # it is worked off
    assert looked(left(400, 9), left(800, 9), left(1_600, 9)) == {}  # not for long
    growing = looked(left(800, 12), left(1_500, 13), left(1_900, 14))
    assert growing == {"pipeline/backlog/predictions": "FIRING"}
    [alert] = list_alerts(project.store)
    assert alert.message.startswith(
        "Landing files pile up: 1,900 complete files of predictions wait, the oldest for 14 min"
    )
    assert looked(left(10, 1), {}, {})["pipeline/backlog/predictions"] != "FIRING"


def test_a_silent_daemon_is_told_until_it_is_heard_again(
    project: Project, instance: dg.DagsterInstance
) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 3600, "SENSOR", "id", []))
    silent = look(project, instance)
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "id", []))

    assert silent == {"pipeline/daemon/SENSOR": "FIRING"}
    assert look(project, instance) == {"pipeline/daemon/SENSOR": "RESOLVED"}


def add_tick(
    instance: dg.DagsterInstance, state: InstigatorState, status: TickStatus, when: float
) -> None:
    error = (
        SerializableErrorInfo("boom", [], "ValueError") if status == TickStatus.FAILURE else None
    )
    data = TickData(
        instigator_origin_id=state.instigator_origin_id,
        instigator_name="mlmon_planner",
        instigator_type=InstigatorType.SENSOR,
        status=status,
        timestamp=when,
        selector_id=state.selector_id,
        error=error,
    )
    instance.create_tick(data)


def test_a_sensor_that_fails_twice_in_a_row_is_told_until_it_ticks_again(
    project: Project, instance: dg.DagsterInstance
) -> None:
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="m"))
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "r"), "mlmon_planner")
    state = InstigatorState(
        origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, SensorInstigatorData()
    )
    instance.add_instigator_state(state)
    now = time.time()
    add_tick(instance, state, TickStatus.SKIPPED, now - 120)
    add_tick(instance, state, TickStatus.FAILURE, now - 90)
    once = look(project, instance)
    add_tick(instance, state, TickStatus.FAILURE, now - 60)
    twice = look(project, instance)
    add_tick(instance, state, TickStatus.SKIPPED, now - 30)

    assert once == {}
    assert twice == {"pipeline/tick/mlmon_planner": "FIRING"}
    assert look(project, instance) == {"pipeline/tick/mlmon_planner": "RESOLVED"}


def test_new_data_that_cannot_be_looked_at_is_told_after_the_second_time(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_planning(project, "credit", ValueError("no such folder"))
    assert look(project, instance) == {}
    assert failed_plannings(project) == {"credit": "PENDING"}
    time.sleep(1.1)  # a second look is another second
    note_planning(project, "credit", ValueError("no such folder"))
    assert look(project, instance) == {"pipeline/planning": "FIRING"}
    note_planning(project, "credit", None)
    assert look(project, instance) == {"pipeline/planning": "RESOLVED"}


def test_events_without_a_message_fail_the_check(
    project: Project, instance: dg.DagsterInstance
) -> None:
    specs = [spec_of()]
    observe(project.store, result(1), result(2, "OK"))
    fold_results(project.store, specs, project.now() - dt.timedelta(days=1))

    said = report_delivery(instance, project, specs, None)
    assert said.startswith("2 events of alerts are in no message, though nothing mutes them.")


def test_a_refused_message_fails_a_check_that_is_evaluated_on_change_only(
    project: Project, instance: dg.DagsterInstance
) -> None:
    key = dg.AssetCheckKey(OVERVIEW_KEY, "alert_delivery")

    def evaluations() -> list[bool]:
        records = instance.event_log_storage.get_asset_check_execution_history(key, limit=9)
        return [
            bool(r.event and r.event.dagster_event and r.status.value == "SUCCEEDED")
            for r in records
        ]

    fine = report_delivery(instance, project, [], None)
    row = {"idempotency_key": "k", "group_key": "g", "receiver": "slack", "channel": "#c"}
    with project.store.state.begin() as conn:
        enqueue(
            conn,
            [{**row, "kind": "test", "status": "dead", "error": "is_archived", "created_at": NOW}],
        )
    bad = report_delivery(instance, project, [], fine)
    assert report_delivery(instance, project, [], bad) == bad

    assert fine == "delivered"
    assert "mlmon alerts requeue" in bad
    assert evaluations() == [False]
