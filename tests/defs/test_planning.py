"""What the planner and the schedule request: exactly what is out of date, and nothing else."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
import sqlalchemy as sa

from mlmon_dagster.defs import sensors
from mlmon_dagster.defs.assets import OVERVIEW_KEY, RANGE_END, RANGE_START, asset_key
from mlmon_dagster.defs.instance import PROCESS_TAG
from mlmon_dagster.ingest import cycle
from mlmon_dagster.pipeline import plan
from mlmon_dagster.pipeline.plan import REVISED_EVERY
from mlmon_dagster.spec.steps import REPORTED, windowed_of
from mlmon_dagster.store.state import manifest, monitor_results, schema, window_state
from mlmon_dagster.store.state.sql import read_frame
from tests.defs.small_model import (
    DAYS,
    LATE,
    MODEL,
    NOW,
    SILENT,
    customers,
    drop,
    land_truth,
    land_truth_again,
    landing,
    windows_of_days,
    write_declaration,
)
from tests.defs.worlds import World, copied_fortnight, opened

pytestmark = pytest.mark.slow

SOME_DAY = dt.date(2024, 3, 3)


def asked(requests: Sequence[dg.RunRequest]) -> list[tuple[str, str, set[str]]]:
    """Return first window, last window and assets of some requests."""
    return [
        (
            request.tags[RANGE_START],
            request.tags[RANGE_END],
            {key.path[-1] for key in request.asset_selection or []},
        )
        for request in requests
    ]


def test_once_all_is_computed_no_window_waits_not_even_those_of_the_baseline(
    own_fortnight: World,
) -> None:
    state = own_fortnight.project.store.state
    assert [row["n_waiting"] for row in window_state.load_newest_windows(state)] == [0]
    told = read_frame(state, sa.select(schema.mlmon_window.c.maturity, schema.mlmon_window.c.n))
    assert set(told[told["n"] > 0]["maturity"]) <= {"provisional", "mature", "closed"}


def test_late_ground_truth_recomputes_its_own_window_alone(own_fortnight: World) -> None:
    before = own_fortnight.metrics()
    own_fortnight.clock.moment = NOW + dt.timedelta(hours=1)
    land_truth(own_fortnight.folder, LATE[0])
    requests = own_fortnight.requests()
    assert asked(requests) == [(str(LATE[0]), str(LATE[0]), set(windowed_of(own_fortnight.spec)))]
    own_fortnight.run(requests)
    assert own_fortnight.requests() == []
    after = own_fortnight.metrics()
    start = windows_of_days(own_fortnight.spec, [LATE[0]])[0].start
    untouched = after["window_start"] != start
    assert (
        after[untouched]
        .reset_index(drop=True)
        .equals(before[before["window_start"] != start].reset_index(drop=True))
    )
    assert (after.loc[~untouched, "computed_at"] == own_fortnight.clock.moment).all()
    assert set(own_fortnight.verdicts("performance", LATE[0])["status"]) == {"OK"}


@pytest.mark.parametrize(
    ("rows_again", "runs"),
    [
        (plan.MAX_ROWS_AGAIN, [(1, 10)]),
        (0, [(1, 2), (10, 10)]),
    ],
)
def test_ground_truth_of_days_apart_is_one_run_unless_many_rows_lie_between(
    own_fortnight: World,
    monkeypatch: pytest.MonkeyPatch,
    rows_again: int,
    runs: list[tuple[int, int]],
) -> None:
    monkeypatch.setattr(plan, "MAX_ROWS_AGAIN", rows_again)
    for day in (DAYS[1], DAYS[2], DAYS[10]):
        land_truth_again(own_fortnight.folder, day)
    requests = own_fortnight.requests()
    assert [(first, last) for first, last, _ in asked(requests)] == [
        (str(DAYS[first]), str(DAYS[last])) for first, last in runs
    ]
    own_fortnight.run(requests)
    assert own_fortnight.requests() == []


def test_what_was_tried_before_is_tried_alone(own_fortnight: World) -> None:
    for day in (DAYS[1], DAYS[3]):
        land_truth_again(own_fortnight.folder, day)
    assert len(asked(own_fortnight.requests())) == 1  # and nobody runs it
    again = asked(own_fortnight.requests())
    assert [(first, last) for first, last, _ in again] == [
        (str(day), str(day)) for day in (DAYS[1], DAYS[3])
    ]


def test_what_waited_for_its_ground_truth_is_computed_when_time_ends_that(
    own_fortnight: World,
) -> None:
    # A third of the ground truth comes, and nobody waits for the rest after three days.
    _, actuals = customers(LATE[0])
    part = landing(own_fortnight.folder, "actuals") / "part.parquet"
    drop(actuals.head(50), part)
    own_fortnight.work()
    assert set(own_fortnight.verdicts("performance", LATE[0])["reason"]) == {"labels_still_coming"}
    own_fortnight.clock.moment = NOW + dt.timedelta(days=2)
    requests = own_fortnight.requests()
    # Its labels were counted as they came, and nothing was computed from them.
    assert asked(requests) == [(str(LATE[0]), str(LATE[0]), {*windowed_of(own_fortnight.spec)})]
    own_fortnight.run(requests)
    assert set(own_fortnight.verdicts("performance", LATE[0])["status"]) == {"OK"}
    assert own_fortnight.requests() == []


def test_the_run_key_is_new_for_every_maturity(own_fortnight: World) -> None:
    keys = []
    for moment in (NOW + dt.timedelta(days=31), NOW + dt.timedelta(days=50)):
        own_fortnight.clock.moment = moment
        for request in own_fortnight.requests():
            keys.append(request.run_key)
            own_fortnight.launcher.run(dict(request.tags), request.asset_selection or [])
    assert keys
    assert len(set(keys)) == len(keys)
    assert own_fortnight.requests() == []


@pytest.mark.proof
def test_a_failing_window_is_tried_three_times_and_new_inputs_begin_anew(
    own_fortnight: World,
) -> None:
    log = own_fortnight.project.store.folder / "profiles"
    hidden = log.rename(log.with_name("hidden"))
    log.write_text("in the way of the table")
    land_truth(own_fortnight.folder, LATE[0])
    reports = own_fortnight.work()
    assert [report.is_success for report in reports] == [False] * 3
    assert len({request.run_key for request in own_fortnight.ran}) == 3
    assert own_fortnight.requests() == []
    land_truth(own_fortnight.folder, LATE[1])
    assert not any(report.is_success for report in own_fortnight.work())
    # New events of the same window, and the table is back: it is tried again and goes well.
    log.unlink()
    hidden.rename(log)
    land_truth_again(own_fortnight.folder, LATE[0])
    [report] = own_fortnight.work()
    assert report.is_success
    assert set(own_fortnight.verdicts("performance", LATE[0])["status"]) == {"OK"}


def test_a_model_with_a_run_going_on_is_left_alone(own_fortnight: World) -> None:
    land_truth(own_fortnight.folder, LATE[0])
    run = start_run(own_fortnight, os.getpid())
    assert own_fortnight.requests() == []
    own_fortnight.instance.report_run_canceled(run)
    assert len(own_fortnight.requests()) == 1


def test_a_run_whose_process_was_killed_does_not_block_its_model(own_fortnight: World) -> None:
    land_truth(own_fortnight.folder, LATE[0])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    run = start_run(own_fortnight, ended.pid)
    assert len(own_fortnight.requests()) == 1
    found = own_fortnight.instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.FAILURE


def start_run(world: World, pid: int) -> dg.DagsterRun:
    """Record a run of the model that a process of this machine is executing."""
    import socket

    tags = {"mlmon/model": world.spec.model, PROCESS_TAG: f"{socket.gethostname()}:{pid}"}
    return world.instance.create_run_for_job(
        world.launcher.definitions.resolve_implicit_global_asset_job_def(),
        tags=tags,
        status=dg.DagsterRunStatus.STARTED,
    )


def test_a_quarantined_file_is_told_though_it_touches_no_window(own_fortnight: World) -> None:
    path = landing(own_fortnight.folder, "predictions") / "broken.parquet"
    path.write_bytes(b"PAR1 and nothing that belongs there PAR1")
    assert own_fortnight.requests() == []
    newest = own_fortnight.verdicts("schema", DAYS[-1])
    newest = newest[newest["metric"] == "bad_rate"]
    assert list(newest["status"]) == ["ERROR"]
    assert newest["message"].iloc[0].startswith("1 file was refused")
    assert "broken.parquet: damaged Parquet" in newest["message"].iloc[0]


def test_refused_rows_of_no_window_are_told_in_the_window_before_they_came(
    own_fortnight: World,
) -> None:
    """A time that cannot be believed names no window, and ground truth has none of its own."""
    predictions, actuals = customers(NOW.date(), n=3)
    predictions["at"] = [pd.NaT, pd.Timestamp("2098-01-01", tz="UTC"), pd.NaT]
    predictions.loc[2, "score"] = 7.0  # two reasons, and one row
    drop(predictions, landing(own_fortnight.folder, "predictions") / "clock.parquet")
    drop(
        actuals.head(2).assign(left=[5, 6]), landing(own_fortnight.folder, "actuals") / "b.parquet"
    )

    own_fortnight.work()

    newest = own_fortnight.verdicts("schema", DAYS[-1])
    (told,) = newest[newest["metric"] == "bad_rate"].to_dict("records")
    assert told["status"] == "ERROR"
    assert "5 of 155 rows" in told["message"]
    assert told["message"].endswith(
        "These rows came with landing/churn/actuals/b.parquet and 1 other file, and their day is "
        "not known."
    )
    before = own_fortnight.verdicts("schema", DAYS[-2])
    assert set(before["status"]) == {"OK"}


def test_silence_is_told_though_nothing_is_requested(own_fortnight: World) -> None:
    own_fortnight.clock.moment = NOW + dt.timedelta(days=2)
    requests = own_fortnight.requests()
    assert all("event_log" not in assets for _, _, assets in asked(requests))
    newest = monitor_results.newest(
        own_fortnight.project.store.state,
        own_fortnight.spec.model,
        windows_of_days(own_fortnight.spec, [DAYS[-1]])[0].end,
        family="freshness",
    )
    silence = newest[newest["metric"] == "no_data_for"]
    assert list(silence["status"]) == ["ERROR", "ERROR"]
    assert set(newest["n"]) == {0}


def test_events_that_wait_to_be_computed_are_no_silence(own_fortnight: World) -> None:
    own_fortnight.clock.moment = NOW + dt.timedelta(days=1)
    predictions, _ = customers(NOW.date())
    drop(predictions, landing(own_fortnight.folder, "predictions") / "new.parquet")
    assert len(own_fortnight.requests()) == 1
    newest = monitor_results.newest(
        own_fortnight.project.store.state,
        own_fortnight.spec.model,
        windows_of_days(own_fortnight.spec, [DAYS[-1]])[0].end,
        family="freshness",
    )
    found = dict(zip(newest["metric"], newest["status"], strict=True))
    # No silence; whether ground truth is overdue is told once the rows are counted.
    assert found == {"no_data_for": "OK", "actuals_missing": "NO_DATA"}


def test_silence_waits_for_the_files_that_were_there_and_for_no_later_ones(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path / "project"
    with copied_fortnight(tmp_path_factory.getbasetemp(), folder) as world:
        world.requests()  # the copied files are others than the originals
    declaration = folder / "models" / f"{MODEL}.yaml"
    declaration.write_text(declaration.read_text().replace("settle: 0s", "settle: 1h"))
    predictions, _ = customers(NOW.date())
    older, newer = (landing(folder, "predictions") / f"{n}.parquet" for n in ("older", "newer"))
    with opened(folder, NOW + dt.timedelta(days=2)) as world:

        def judged() -> list[tuple[str, str]]:
            world.requests()
            start = windows_of_days(world.spec, [DAYS[-1]])[0].end
            newest = monitor_results.newest(
                world.project.store.state, MODEL, start, family="freshness"
            )
            newest = newest[newest["monitor"] == "freshness/no_data_for"]
            return list(zip(newest["status"], newest["reason"], strict=True))

        drop(predictions, older)
        ten_minutes_ago = time.time() - 600
        os.utime(older, (ten_minutes_ago, ten_minutes_ago))
        assert judged() == [("NO_DATA", "files_unread")] * 2
        older.unlink()
        drop(predictions, newer)
        assert judged() == [("ERROR", "")] * 2
        drop(predictions, older)
        os.utime(older, (ten_minutes_ago, ten_minutes_ago))
        assert judged() == [("ERROR", "")] * 2


def test_every_window_is_judged_for_freshness_however_old(own_fortnight: World) -> None:
    silent_day = own_fortnight.verdicts("freshness", SILENT)
    assert dict(zip(silent_day["monitor"], silent_day["status"], strict=True)) == {
        "freshness/no_data_for": "ERROR",
        "freshness/actuals_missing": "NO_DATA",
    }
    own_fortnight.clock.moment = NOW + dt.timedelta(days=60)
    predictions, _ = customers(SILENT)
    drop(predictions, landing(own_fortnight.folder, "predictions") / "found.parquet")
    own_fortnight.work()
    assert set(own_fortnight.verdicts("freshness", SILENT)["status"]) == {"OK", "ERROR"}
    newest = monitor_results.newest(
        own_fortnight.project.store.state, MODEL, family="freshness"
    ).set_index("monitor")
    silence = newest.loc["freshness/no_data_for"]
    assert list(silence["status"]) == ["OK"] * 14 + ["ERROR"] * 60
    assert silence["message"].iloc[-1] == (
        "No prediction since Thursday 2024-03-14 17:47 (America/New_York); the limit is 26 hours."
    )
    overdue = newest.loc[["freshness/actuals_missing"]]
    assert set(overdue["window_start"]) >= {windows_of_days(own_fortnight.spec, [SILENT])[0].start}


def test_a_tick_without_time_left_hands_on_the_models_it_did_not_reach(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    with copied_fortnight(tmp_path_factory.getbasetemp(), folder):
        write_declaration(folder, "second")
    with opened(folder) as world:
        world.requests()  # the copied files are others than the originals
        monkeypatch.setattr(sensors, "TICK_SECONDS", 0.0)
        sensor = world.launcher.definitions.resolve_sensor_def("mlmon_planner")

        def known() -> dict[str, int]:
            engine = world.project.store.state
            return {
                s.model: len(manifest.load_paths(engine, s.model, "actuals")) for s in world.specs
            }

        reached, cursor = [], None
        for n in range(3):
            for model in (MODEL, "second"):
                some = landing(folder, "actuals", model) / f"{n}.parquet"
                drop(customers(SOME_DAY, n=5 + n)[1], some)
            before = known()
            context = dg.build_sensor_context(
                instance=world.instance,
                definitions=world.launcher.definitions,
                sensor_name="mlmon_planner",
                cursor=cursor,
            )
            sensor.evaluate_tick(context)
            cursor = context.cursor
            reached.append([model for model, count in known().items() if count > before[model]])
        assert reached == [[MODEL], ["second"], [MODEL]]


def test_a_window_computed_a_moment_ago_waits_while_more_files_come(
    own_fortnight: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_fortnight.requests()  # the copied files are others than the originals
    monkeypatch.setattr(cycle, "HURRIED_FILES", 1)
    monkeypatch.setattr(sensors, "TICK_SECONDS", 0.0)
    _, actuals = customers(LATE[0])
    for n in range(4):
        drop(actuals[n::4], landing(own_fortnight.folder, "actuals") / f"{n}.parquet")
    day = [(str(LATE[0]), str(LATE[0]), set(windowed_of(own_fortnight.spec)))]
    assert own_fortnight.requests() == []  # the first of four files
    own_fortnight.clock.moment = NOW + REVISED_EVERY
    [request] = own_fortnight.requests()
    assert asked([request]) == day
    assert own_fortnight.launcher.run(dict(request.tags), request.asset_selection or []).is_success
    assert own_fortnight.requests() == []  # the third
    assert asked(own_fortnight.requests()) == day  # the last: nothing more to wait for


def test_what_failed_is_tried_again_while_more_files_come(
    own_fortnight: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    land_truth(own_fortnight.folder, LATE[0])
    assert len(own_fortnight.requests()) == 1  # its run comes to nothing
    monkeypatch.setattr(cycle, "HURRIED_FILES", 1)
    monkeypatch.setattr(sensors, "TICK_SECONDS", 0.0)
    for n in range(2):
        some = landing(own_fortnight.folder, "actuals") / f"{n}.parquet"
        drop(customers(LATE[1], n=5 + n)[1], some)
    assert [(first, last) for first, last, _ in asked(own_fortnight.requests())] == [
        (str(LATE[0]), str(LATE[0]))
    ]


def test_a_large_file_is_taken_in_by_a_run_of_its_own(
    own_fortnight: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_fortnight.requests()  # the copied files are others than the originals
    monkeypatch.setattr(sensors, "LARGE_FILE", 100)
    land_truth(own_fortnight.folder, LATE[0])
    [request] = own_fortnight.requests()
    assert request.asset_selection == [asset_key(own_fortnight.spec, "event_log")]
    assert own_fortnight.launcher.run(dict(request.tags), request.asset_selection).is_success
    assert asked(own_fortnight.requests()) == [
        (str(LATE[0]), str(LATE[0]), set(windowed_of(own_fortnight.spec)))
    ]


def test_taking_in_files_is_on_the_event_log_in_the_ui(own_fortnight: World) -> None:
    land_truth(own_fortnight.folder, LATE[0])
    own_fortnight.requests()
    key = asset_key(own_fortnight.spec, "event_log")
    [record] = own_fortnight.instance.fetch_materializations(key, limit=1).records
    metadata = record.asset_materialization.metadata
    assert (metadata["n_new"].value, metadata["n_windows"].value) == (150, 1)


def test_the_schedule_requests_the_newest_window_unless_it_is_computed(
    own_fortnight: World,
) -> None:
    definitions = own_fortnight.launcher.definitions
    schedule = definitions.resolve_schedule_def("mlmon_newest_day")

    def requests() -> list[dg.RunRequest]:
        context = dg.build_schedule_context(
            instance=own_fortnight.instance,
            scheduled_execution_time=own_fortnight.clock.moment,
            repository_def=definitions.get_repository_def(),
        )
        *mine, overview = schedule.evaluate_tick(context).run_requests or []
        assert overview.asset_selection == [OVERVIEW_KEY]
        return mine

    def run(request: dg.RunRequest) -> None:
        tags, selection = dict(request.tags), request.asset_selection or []
        assert own_fortnight.launcher.run(tags, selection).is_success

    [reports] = requests()
    assert {key.path[-1] for key in reports.asset_selection or []} == set(REPORTED)
    run(reports)
    assert requests() == []  # nothing is newer than the report
    own_fortnight.clock.moment += dt.timedelta(days=1)  # of which no data came
    [request] = requests()
    [(first, last, wanted)] = asked([request])
    assert (first, last) == (str(DAYS[-1] + dt.timedelta(days=1)),) * 2
    assert wanted >= {"event_log", "baseline", *windowed_of(own_fortnight.spec), *REPORTED}


@pytest.mark.proof
def test_labels_of_a_window_that_waits_are_counted_and_nothing_else_is_computed(
    own_fortnight: World,
) -> None:
    _, actuals = customers(LATE[0])
    drop(actuals.head(20), landing(own_fortnight.folder, "actuals") / "first.parquet")
    own_fortnight.work()
    numbers, verdicts = own_fortnight.metrics(), own_fortnight.verdicts("performance", LATE[0])
    own_fortnight.clock.moment += dt.timedelta(hours=1)
    drop(actuals.iloc[20:50], landing(own_fortnight.folder, "actuals") / "more.parquet")
    own_fortnight.work()
    window = windows_of_days(own_fortnight.spec, [LATE[0]])[0]
    state = window_state.load(own_fortnight.project.store.state, MODEL, window.start, window.end)
    assert state[window.start].n_actual == 50
    assert own_fortnight.metrics().equals(numbers)
    assert own_fortnight.verdicts("performance", LATE[0]).equals(verdicts)
    assert own_fortnight.requests() == []
    # The one that a person asks for is computed from all that there is.
    own_fortnight.compute([LATE[0]])
    assert set(own_fortnight.metrics(LATE[0])["computed_at"]) == {own_fortnight.clock.moment}


@pytest.mark.proof
def test_a_prediction_of_a_window_that_waits_has_all_of_it_computed(own_fortnight: World) -> None:
    predictions, actuals = customers(LATE[0])
    drop(actuals.head(20), landing(own_fortnight.folder, "actuals") / "first.parquet")
    own_fortnight.work()
    own_fortnight.clock.moment += dt.timedelta(hours=1)
    predictions["id"] = "again-" + predictions["id"]
    drop(predictions.head(5), landing(own_fortnight.folder, "predictions") / "more.parquet")
    own_fortnight.work()
    assert set(own_fortnight.metrics(LATE[0])["computed_at"]) == {own_fortnight.clock.moment}


@pytest.mark.proof
def test_windows_between_those_with_news_are_left_until_a_person_asks(
    own_fortnight: World,
) -> None:
    before = own_fortnight.metrics(DAYS[2])["value"]
    with own_fortnight.project.store.state.begin() as conn:  # so that computing it shows
        conn.execute(sa.update(schema.sample).values(value=schema.sample.c.value + 1))
    own_fortnight.clock.moment += dt.timedelta(hours=1)
    for day in (DAYS[1], DAYS[3]):
        land_truth_again(own_fortnight.folder, day)
    own_fortnight.work()
    assert own_fortnight.metrics(DAYS[2])["value"].equals(before + 1)
    for day in (DAYS[1], DAYS[3]):
        assert set(own_fortnight.metrics(day)["computed_at"]) == {own_fortnight.clock.moment}
    [request] = own_fortnight.ran[-1:]
    tags = {**request.tags, "dagster/parent_run_id": "the-first"}  # as Dagster executes it again
    own_fortnight.launcher.run(tags, request.asset_selection or [])
    pd.testing.assert_series_equal(own_fortnight.metrics(DAYS[2])["value"], before)


def test_dagster_shows_a_window_that_was_left_with_the_numbers_that_it_had(
    own_fortnight: World,
) -> None:
    for day in (DAYS[1], DAYS[3]):
        land_truth_again(own_fortnight.folder, day)
    own_fortnight.work()
    for asset in ("inference_store", "profiles", "performance"):
        found = own_fortnight.instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=asset_key(own_fortnight.spec, asset), asset_partitions=[str(DAYS[2])]
            ),
            limit=2,
        ).records
        new, old = (record.asset_materialization for record in found)
        assert new is not None
        assert old is not None
        assert new.metadata == old.metadata


def test_the_first_labels_of_a_window_that_waits_are_no_number_of_it(own_fortnight: World) -> None:
    """Whoever computes it, and when: neither its verdicts nor those of later windows have any."""
    _, actuals = customers(LATE[0])
    drop(actuals.head(50), landing(own_fortnight.folder, "actuals") / "part.parquet")
    own_fortnight.work()
    own_fortnight.compute([LATE[0]])
    measured = own_fortnight.metrics(LATE[0])
    assert measured.loc[measured["metric"] == "roc_auc", "n"].max() == 50
    for family in ("performance", "estimated_performance"):
        found = own_fortnight.verdicts(family, LATE[0])
        waits = found["reason"] == "labels_still_coming"
        assert waits.any()
        assert found.loc[waits, "value"].isna().all()
