"""Every command, from its arguments to its exit code."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mlmon_dagster.cli import cli
from mlmon_dagster.pipeline.plan import MAX_ATTEMPTS, plan
from mlmon_dagster.spec import load_models
from tests.alerts.fake_slack import fake_slack
from tests.cli.conftest import Command
from tests.defs.small_model import (
    LATE,
    MODEL,
    NOW,
    NULLED,
    customers,
    drop,
    land_truth,
    landing,
    make_project,
    write_declaration,
)
from tests.defs.worlds import made_once, opened, processed_fortnight

AT = ("--now", NOW.isoformat())


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_every_command_shows_an_example_of_itself(path: tuple[str, ...], mlmon: Command) -> None:
    ended = mlmon(*path, "--help")
    assert ended.code == 0
    assert f"  mlmon {' '.join(path)}" in ended.out.partition("Example")[2]


@pytest.mark.parametrize("path", [(), *commands()], ids=" ".join)
def test_no_line_of_help_is_wider_than_a_narrow_terminal(
    path: tuple[str, ...], mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert [line for line in mlmon(*path, "--help").out.splitlines() if len(line) > 80] == []


def test_the_exit_codes_are_in_the_help(mlmon: Command) -> None:
    assert "Exit codes:" in mlmon("--help").out


def test_the_command_starts_without_dagster_pandas_or_the_store() -> None:
    script = (
        "import sys, mlmon_dagster.cli\n"
        "print([m for m in ('dagster', 'pandas', 'sqlalchemy', 'duckdb') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# validate


def test_validate_says_which_metric_of_ones_own_cannot_be_used(
    tmp_path: Path, mlmon: Command
) -> None:
    write_declaration(tmp_path)
    path = tmp_path / "models" / f"{MODEL}.yaml"
    own = "metrics:\n  - nowhere_at_all:gini\n  - {of: math:sqrt, columns: [age]}\n  - math:floor\n"
    path.write_text(path.read_text() + own)

    ended = mlmon("--project", tmp_path, "validate")

    first = len(path.read_text().splitlines()) - 2
    said = "metrics.0: nowhere_at_all:gini cannot be imported: ModuleNotFoundError"
    assert ended.code == 2
    assert f"{MODEL}.yaml:{first}: {said}" in ended.err
    assert f"{MODEL}.yaml:{first + 2}: metrics.2: math:floor reads no columns" in ended.err
    assert "math:sqrt" not in ended.err


def test_validate_says_what_was_read(folder: Path, mlmon: Command) -> None:
    ended = mlmon("--project", folder, "validate")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        f"{MODEL}: ok (binary_classification, 3 features, day windows from 2024-03-01)\n"
    )


def test_validate_says_what_makes_very_many_numbers(
    folder: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = mlmon(
        "--project", folder, "metrics", MODEL, "--by", "all", "--format", "json"
    ).out.splitlines()
    rows = [json.loads(line) for line in stored]
    newest = [row for row in rows if row["window"] == max(row["window"] for row in rows)]
    n, of_slices = len(newest), sum(row["slice_key"] != "all" for row in newest)
    assert 0 < of_slices < n
    path = folder / "models" / f"{MODEL}.yaml"
    path.write_text(path.read_text().replace("{above: 0.25,", "{above: 0.25, slices: true,"))
    monkeypatch.setattr("mlmon_dagster.cli.MOST_SAMPLES", n)
    few = mlmon("--project", folder, "validate")
    monkeypatch.setattr("mlmon_dagster.cli.MOST_SAMPLES", n - 1)
    many = mlmon("--project", folder, "validate")

    assert (few.code, few.err) == (0, "")
    assert many.code == 0
    assert f"{MODEL} stores {n} numbers of a window, {of_slices} of them of slices" in many.err
    assert "monitors.drift.slices stores a distance of 3 features in every slice" in many.err


def test_validate_tells_every_mistake_with_its_line(folder: Path, mlmon: Command) -> None:
    path = folder / "models" / f"{MODEL}.yaml"
    text = (
        path.read_text().replace("min: 0", "mni: 0").replace("granularity: day", "granularity: dy")
    )
    path.write_text(text)
    ended = mlmon("--project", folder, "validate")
    assert ended.code == 2
    lines = text.splitlines()
    for mistake in ("granularity: dy", "mni: 0"):
        number = next(i for i, line in enumerate(lines, 1) if mistake in line)
        assert f"{MODEL}.yaml:{number}: " in ended.err


def test_validate_tells_what_is_wrong_with_expectations_by_line(
    folder: Path, mlmon: Command
) -> None:
    path = folder / "models" / f"{MODEL}.yaml"
    first = len(path.read_text().splitlines()) + 1
    path.write_text(
        path.read_text() + "expectations:\n"
        "  - expect: expect_column_values_to_match_regexp\n"
        "    arguments: {column: region, regex: x}\n"
        "  - expect: expect_column_mean_to_be_between\n"
        "    arguments:\n"
        "      column: agee\n"
        "      max_value: 3\n"
        "    severity: refuse\n"
    )

    ended = mlmon("--project", folder, "validate")

    assert (ended.code, ended.out) == (2, "")
    typo, column, severity = ended.err.splitlines()
    assert f"{MODEL}.yaml:{first + 1}: expectations.0.expect: " in typo
    assert "closest are expect_column_values_to_match_regex, " in typo
    assert f"{MODEL}.yaml:{first + 5}: expectations.1.arguments.column: " in column
    assert "did you mean 'age'?" in column
    assert f"{MODEL}.yaml:{first + 7}: expectations.1.severity: " in severity


def test_a_project_without_models_is_an_error_of_the_project(
    tmp_path: Path, mlmon: Command
) -> None:
    ended = mlmon("--project", tmp_path, "validate")
    assert ended.code == 2
    assert "models" in ended.err


def test_the_project_comes_from_the_environment_too(
    folder: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLMON_PROJECT", str(folder))
    assert mlmon("validate").code == 0
    assert mlmon("--project", folder.parent, "validate").code == 2  # the option is stronger


# ingest and run


def test_ingest_takes_in_what_is_new_once(folder: Path, mlmon: Command) -> None:
    land_truth(folder, LATE[0])
    first = mlmon("--project", folder, *AT, "ingest", MODEL)
    assert first.code == 0
    assert "150" in first.out
    again = mlmon("--project", folder, *AT, "ingest")
    assert again.code == 0
    assert "150" not in again.out


def test_a_file_in_quarantine_is_code_1_and_says_why(folder: Path, mlmon: Command) -> None:
    (landing(folder, "predictions") / "broken.parquet").write_bytes(b"PAR1 and no more")
    ended = mlmon("--project", folder, *AT, "ingest")
    assert ended.code == 1
    assert "broken.parquet" in ended.out


@pytest.mark.proof
@pytest.mark.parametrize("command", ["ingest", "run"])
def test_refused_rows_are_code_1_until_the_spec_is_mended(
    folder: Path, mlmon: Command, command: str
) -> None:
    landed = landing(folder, "predictions")
    rows, _ = customers(LATE[1], n=3)
    rows.assign(id=["a", "b", "c"], balance="none").to_parquet(landed / "late.parquet")
    refused = mlmon("--project", folder, *AT, "ingest")
    assert (refused.code, "3 bad rows" in refused.out) == (1, True)
    model = folder / "models" / f"{MODEL}.yaml"
    model.write_text(
        model.read_text().replace("max_bad_rate: 0.2", "max_bad_rate: 0.2, null_tokens: [none]")
    )

    mended = mlmon("--project", folder, *AT, command, MODEL)

    assert "reading again what was refused, since the spec changed" in mended.out
    said = "late.parquet, refused rows read again: 3 rows = 3 new"
    assert (said in mended.out) == (command == "ingest")
    after = mlmon("--project", folder, *AT, "ingest")
    assert (after.code, "reading again" in after.out) == (0, False)
    retried = mlmon("--project", folder, *AT, "ingest", "--retry")
    assert "reading again what was refused, as asked" in retried.out  # of the broken day


def test_files_that_no_source_matches_are_named(folder: Path, mlmon: Command) -> None:
    assert "no source matches" not in mlmon("--project", folder, *AT, "ingest").out
    landed = landing(folder, "predictions")
    for path in (landed / "x\x1b[31m.csv", landed / "deep" / "y.parquet", landed.parent / "z.csv"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("id\n1\n")
    (landed / ".hidden.csv").touch()
    (landed.parent / "notes.txt").touch()

    said = [
        mlmon("--project", folder, *AT, *command)
        for command in (("ingest",), ("run", MODEL), ("doctor",))
    ]

    for ended in said:
        (line,) = [line for line in ended.out.splitlines() if "no source matches" in line]
        assert "3 files are not read" in line
        assert "\x1b" not in ended.out
        assert "predictions/deep/y.parquet'" in line
        assert "x1b[31m.csv'" in line


@pytest.mark.proof
def test_run_computes_what_is_out_of_date_even_if_the_planner_gave_it_up_and_then_nothing(
    folder: Path, mlmon: Command
) -> None:
    land_truth(folder, LATE[0])
    assert mlmon("--project", folder, *AT, "ingest").code == 0
    project = make_project(folder)
    [spec] = load_models(project.models_folder)
    for _ in range(MAX_ATTEMPTS):
        assert plan(project, spec, NOW)
    assert plan(project, spec, NOW) == []

    first = mlmon("--project", folder, *AT, "run", MODEL)
    assert first.code == 0
    assert f"{MODEL}: {LATE[0]} to {LATE[0]}, 1 window\n" in first.out
    assert "  health_report" in first.out
    again = mlmon("--project", folder, *AT, "run", MODEL)
    assert again.code == 0
    assert "every window is computed from its newest inputs" in again.out
    assert "reading new files" not in again.out  # that is what a run of Dagster begins with

    for file in (folder / ".mlmon" / "store" / "baselines" / MODEL).glob("*"):
        file.unlink()
    mended = mlmon("--project", folder, *AT, "run", MODEL)
    assert mended.code == 0
    assert "  baseline" in mended.out.splitlines()


def test_files_that_a_first_run_left_for_later_are_not_asked_for_again(
    tmp_path: Path, mlmon: Command
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "churn.yaml").write_text(
        "model: churn\ntask: binary_classification\nowners: [team:growth]\n"
        "time: {zone: UTC, start: 2026-03-01}\nsource: {predictions: {path: landing/*.csv}}\n"
        "columns: {prediction_id: id, event_time: at, dataset: dataset, score: p}\n"
        "features: {age: {type: numeric}}\n"
    )
    at = ("--project", tmp_path, "--now", "2026-03-02T12:00:00Z")
    assert "Model 'churn' has no baseline yet" in mlmon(*at, "run").out
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "old.csv").write_text(
        "id,at,dataset,p,age\na,2026-02-01T00:00:00Z,validation,0.5,40\n"
    )
    ended = mlmon(*at, "run")
    assert "  1 file left for later: changed less than 1m ago (settle)" in ended.out
    assert "no baseline yet" not in ended.out


def test_run_says_which_files_it_left_because_they_may_not_be_complete(
    folder: Path, mlmon: Command
) -> None:
    mlmon("--project", folder, *AT, "ingest")  # the copied files are others than the originals
    path = folder / "models" / f"{MODEL}.yaml"
    path.write_text(path.read_text().replace("settle: 0s", "settle: 1h", 1))
    predictions, _ = customers(LATE[0])
    drop(predictions, landing(folder, "predictions") / "just_now.parquet")
    later = ("--now", "2024-03-26T16:00:00Z")  # nothing but this file has come since the 15th
    ended = mlmon("--project", folder, *later, "run", MODEL)
    assert ended.code == 0
    assert "  1 file left for later: changed less than 1h ago (settle) and perhaps" in ended.out
    told = mlmon("--project", folder, *later, "alerts", "deliver")
    assert told.code == 0
    assert "Ground truth is late" in told.out
    assert "No prediction on this day" not in told.out


@pytest.mark.proof
def test_run_with_a_period_computes_it_again(folder: Path, mlmon: Command) -> None:
    period = ("--from", "2024-03-11", "--to", NULLED)
    ended = mlmon("--project", folder, *AT, "run", MODEL, *period)
    assert ended.code == 0
    assert f"{MODEL}: 2024-03-11 to {NULLED}, 2 windows" in ended.out
    assert "  14 checks: 0 errors, " in ended.out
    assert "mlmon alerts deliver, then mlmon alerts list" in ended.out


def test_a_period_without_windows_changes_nothing(folder: Path, mlmon: Command) -> None:
    land_truth(folder, LATE[0])
    ended = mlmon("--project", folder, *AT, "run", MODEL, "--from", "2030-01-01")
    assert ended.code == 2
    assert "2024-03-01 to 2024-03-14" in ended.err
    assert "150" in mlmon("--project", folder, *AT, "ingest").out


def test_a_failed_run_is_code_1_and_says_which_step(folder: Path, mlmon: Command) -> None:
    profiles = folder / ".mlmon" / "store" / "profiles"
    profiles.rename(profiles.with_name("hidden"))
    profiles.write_text("in the way of the table")
    ended = mlmon("--project", folder, *AT, "run", MODEL, "--from", NULLED, "--to", NULLED)
    assert ended.code == 1
    assert "failed: profiles: " in ended.err


# metrics


def test_metrics_are_a_table_for_people(folder: Path, mlmon: Command) -> None:
    only = ("--metric", "null_rate", "--column", "balance", "--slice", "all=all")
    period = ("--from", "2024-03-11", "--to", NULLED)
    ended = mlmon("--project", folder, "metrics", MODEL, *only, *period)
    lines = ended.out.splitlines()
    assert ended.code == 0
    assert lines[0].split() == [
        "window", "slice", "column", "metric", "value", "lower", "upper", "n", "reason",
    ]  # fmt: skip
    assert [line.split()[:5] for line in lines[1:]] == [
        ["2024-03-11", "all", "balance", "null_rate", "0.00"],
        [str(NULLED), "all", "balance", "null_rate", "1.00"],
    ]


def test_a_table_of_metrics_is_of_the_newest_windows_that_fit(folder: Path, mlmon: Command) -> None:
    wanted = ("--project", folder, "metrics", MODEL)
    of_one = (*wanted, "--metric", "n", "--slice", "all=all")
    every = mlmon(*of_one, "--limit", 0)
    newest = mlmon(*of_one, "--limit", 3)
    cut = mlmon(*wanted, "--limit", 5)

    assert len(every.out.splitlines()) > 12
    assert "there are more" not in every.err
    assert newest.out.splitlines()[1:] == every.out.splitlines()[-3:]
    assert "3 rows of 2024-03-12 to 2024-03-14, the newest; there are more" in newest.err
    # One window has more than five; the whole comes before its parts.
    assert [line.split()[:2] for line in cut.out.splitlines()[1:]] == [["2024-03-14", "all"]] * 5
    assert "--format csv" in cut.err


def test_metrics_are_of_the_whole_model_unless_slices_are_asked_for(
    folder: Path, mlmon: Command
) -> None:
    wanted = ("--project", folder, "metrics", MODEL, "--metric", "n", "--from", "2024-03-14")

    def slices(*options: str) -> list[str]:
        rows = mlmon(*wanted, *options).out.splitlines()[1:]
        return sorted({row.split()[1] for row in rows})

    of_key = slices("--by", "region")
    assert slices() == ["all"]
    assert len(of_key) > 1
    assert {name.partition("=")[0] for name in of_key} == {"region"}
    assert slices("--by", "all") == ["all", *of_key]
    assert slices("--slice", of_key[0]) == [of_key[0]]
    both = mlmon(*wanted, "--by", "region", "--slice", of_key[0])
    assert (both.code, "not both" in both.err) == (2, True)


def test_a_metric_without_a_value_is_no_row_of_the_table_and_is_counted(
    folder: Path, mlmon: Command
) -> None:
    wanted = ("--project", folder, "metrics", MODEL, "--from", NULLED, "--to", NULLED)
    stored = csv.DictReader(io.StringIO(mlmon(*wanted, "--format", "csv").out))
    values = [row["value"] for row in stored]
    shown = mlmon(*wanted)

    assert 0 < values.count("") < len(values)
    assert len(shown.out.splitlines()) - 1 == len(values) - values.count("")
    assert f"{values.count('')} metrics without a value left out (" in shown.err


def test_every_metric_is_in_the_csv_whatever_fits_a_table(folder: Path, mlmon: Command) -> None:
    wanted = ("--project", folder, "metrics", MODEL, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(mlmon(*wanted, "--limit", 1).out)))
    parts = [
        row
        for day in sorted({row["window"] for row in rows})
        for row in csv.DictReader(io.StringIO(mlmon(*wanted, "--from", day, "--to", day).out))
    ]

    assert len({row["window"] for row in rows}) > 12
    assert rows == parts


def test_metrics_of_a_month_are_merged_from_its_days(folder: Path, mlmon: Command) -> None:
    wanted = ("--project", folder, "metrics", MODEL, "--metric", "n", "--slice", "all=all")
    month = mlmon(*wanted, "--granularity", "month", "--format", "json")
    [record] = [json.loads(line) for line in month.out.splitlines()]
    assert (record["window"], record["value"]) == ("2024-03-01", 13 * 150 - 75)


# alerts


TOMORROW = NOW + dt.timedelta(days=1)


def fail_a_day(folder: Path) -> None:
    """Compute a day on which a column is null, after the fortnight."""
    shutil.copytree(processed_fortnight(folder.parent), folder)
    predictions, _ = customers(NOW.date())
    predictions["balance"] = float("nan")
    drop(predictions, landing(folder, "predictions") / "null.parquet")
    with opened(folder, TOMORROW) as world:
        world.work()


@pytest.mark.parametrize("is_refused", [False, True], ids=["arrives", "is refused"])
def test_a_new_failure_is_listed_and_delivered_to_slack_or_that_it_was_not_is_code_1(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    mlmon: Command,
    monkeypatch: pytest.MonkeyPatch,
    is_refused: bool,
) -> None:
    failed = made_once(tmp_path_factory.getbasetemp(), "fortnight-and-null-day", fail_a_day)
    folder = shutil.copytree(failed, tmp_path / "project")
    deliver = ("--project", folder, "--now", TOMORROW.isoformat(), "alerts", "deliver")
    with fake_slack() as slack:
        monkeypatch.setenv("MLMON_SLACK_TOKEN", slack.token)
        monkeypatch.setenv("MLMON_SLACK_API_URL", slack.url)
        if is_refused:
            slack.script("chat.postMessage", "channel_not_found", "channel_not_found")
            assert mlmon(*deliver).code == 1
        else:
            assert mlmon(*deliver).code == 0
            told = [message.text for message in slack.heads()]
            assert any("balance is missing in every row (n 150)" in text for text in told)
            assert mlmon(*deliver).code == 0
            assert [message.text for message in slack.heads()] == told  # and not a second time
    listed = mlmon("--project", folder, "alerts", "list", "--model", MODEL, "--firing")
    assert listed.code == 0
    assert "quality: Null share of balance" in listed.out


def test_status_says_what_fires_and_since_when(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, mlmon: Command
) -> None:
    failed = made_once(tmp_path_factory.getbasetemp(), "fortnight-and-null-day", fail_a_day)
    folder = shutil.copytree(failed, tmp_path / "project")
    project = ("--project", folder, "--now", TOMORROW.isoformat())
    mlmon(*project, "alerts", "deliver")
    told = mlmon(*project, "alerts", "list", "--firing", "--format", "json").out.splitlines()
    firing = [one for one in map(json.loads, told) if not one["muted_reason"]]
    [found] = map(json.loads, mlmon(*project, "status", "--format", "json").out.splitlines())

    assert (found["model"], found["firing"]) == (MODEL, len(firing))
    assert firing
    assert found["sentence"] in [one["message"] for one in firing]
    shown = mlmon(*project, "status")
    assert shown.code == 0
    assert f"{found['since']}  {found['sentence'].splitlines()[0][:60]}" in shown.out
    path = folder / "models" / f"{MODEL}.yaml"
    declared = path.read_text()
    path.write_text(declared.replace("balance: {", "balance: {pii: true, ", 1))
    assert path.read_text() != declared
    for asked in ((), (MODEL,)):  # a sentence that may hold personal values is told without them
        hidden = mlmon(*project, "status", *asked)
        assert (hidden.code, firing[0]["message"][:30] in hidden.out) == (0, False), hidden
    path.write_text(declared)
    families = mlmon(*project, "status", MODEL).out
    assert "1 of 2 verdicts failed" in families or "failed: " in families


def test_a_test_message_arrives(
    folder: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = mlmon("--project", folder, "alerts", "test").out
    assert shown.endswith(
        "Delivered to the terminal; "
        "in #ml-alerts it notifies @here (everybody active in the channel).\n"
    )
    with fake_slack() as slack:
        monkeypatch.setenv("MLMON_SLACK_TOKEN", slack.token)
        monkeypatch.setenv("MLMON_SLACK_API_URL", slack.url)
        ended = mlmon("--project", folder, "alerts", "test")
        assert ended.code == 0
        assert ended.out == (
            "Slack: Connected to Team as mlmon.\n"
            "Delivered to #ml-alerts, notifying @here (everybody active in the channel).\n"
        )
        assert slack.messages[0].text.startswith("<!here> ")
        assert "this is a test" in slack.messages[0].text
        lost = mlmon("--project", folder, "alerts", "test", "--channel", "#ghost")
        assert lost.code == 1
        assert "Not delivered to #ghost: " in lost.err


def test_no_alerts_are_said_to_be_none(folder: Path, mlmon: Command) -> None:
    ended = mlmon("--project", folder, "alerts", "list", "--firing")
    assert (ended.code, ended.out) == (0, "No alerts.\n")


# doctor


def test_the_doctor_finds_nothing_wrong_on_sqlite(folder: Path, mlmon: Command) -> None:
    ended = mlmon("--project", folder, "doctor")
    assert ended.code == 0
    assert "FIX" not in ended.out
    assert "state in sqlite" in ended.out
    assert "SqliteEventLogStorage" in ended.out


def test_the_doctor_finds_nothing_wrong_on_postgresql(
    folder: Path, mlmon: Command, pg_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(folder / ".mlmon" / "store")  # an empty database beside it would be a FIX
    # As hosting services hand it out, without a driver.
    monkeypatch.setenv("MLMON_DB_URL", pg_url.replace("postgresql+psycopg2", "postgres"))
    ended = mlmon("--project", folder, "doctor")
    assert ended.code == 0, ended.out
    assert "state in postgresql" in ended.out
    assert "PostgresEventLogStorage" in ended.out
    assert "s from the database server's" in ended.out


def test_a_database_that_is_not_there_is_said_with_what_to_check(
    folder: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLMON_DB_URL", "postgresql://someone:secret@127.0.0.1:1/none")
    doctor = mlmon("--project", folder, "doctor")
    assert doctor.code == 1
    assert "FIX  store" in doctor.out
    assert "Check MLMON_DB_URL" in doctor.out
    assert "secret" not in doctor.out + doctor.err
    for command in (("run", MODEL), ("metrics", MODEL), ("alerts", "deliver")):
        ended = mlmon("--project", folder, *command)
        assert ended.code == 2
        assert "Check MLMON_DB_URL" in ended.err


def test_a_wrong_slack_token_is_said_with_what_to_do(
    folder: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_slack() as slack:
        monkeypatch.setenv("MLMON_SLACK_TOKEN", "xoxb-wrong")
        monkeypatch.setenv("MLMON_SLACK_API_URL", slack.url)
        ended = mlmon("--project", folder, "doctor")
    assert ended.code == 1
    assert "FIX  slack" in ended.out
    assert "ok   places: messages go to " in ended.out
    assert "MLMON_SLACK_TOKEN" in ended.out
    assert "xoxb-wrong" not in ended.out


@pytest.mark.skipif(sys.platform != "linux", reason="faults are counted as Linux counts them")
def test_calls_in_a_loop_take_no_memory_anew_wherever_a_piece_of_frames_ends() -> None:
    code = """if True:
        import resource
        from mlmon_dagster import cli

        def nothing(): pass

        def called(depth):
            if depth:
                return called(depth - 1)
            for _ in range(200):
                nothing()

        def faults(**_):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for depth in range(300):
                called(depth)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

        faults()
        cli.cli = faults
        cli.main()
    """
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    anywhere, within = map(int, found.stdout.split())
    assert within < 50 < 200 < anywhere
