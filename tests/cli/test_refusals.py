"""What cannot be done is said with what was expected, and nothing is changed."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Command
from tests.defs.small_model import (
    MODEL,
    NOW,
    ROWS,
    customers,
    drop,
    landing,
    write_declaration,
)

AT = ("--now", NOW.isoformat())


@pytest.fixture
def declared(tmp_path: Path, _own_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one model that took nothing in yet."""
    monkeypatch.setenv("USER", "ann")
    write_declaration(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MLMON_MEMORY", "much", "MLMON_MEMORY is 'much'; expected a size such as 512MB or 2GB"),
        ("MLMON_THREADS", "0", "MLMON_THREADS is '0'; expected a whole number, such as 2"),
        ("MLMON_TICK_SECONDS", "soon", "MLMON_TICK_SECONDS is 'soon'; expected a whole number of"),
        ("MLMON_NOW", "noon", "'noon' is not a time"),
    ],
)
def test_a_wrong_variable_is_named_with_what_it_should_be(
    declared: Path,
    mlmon: Command,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(name, value)

    ended = mlmon("--project", declared, "validate")

    assert (ended.code, said in ended.err) == (2, True), ended


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("model", "reopen", MODEL), "A period is needed: --from DAY --to DAY"),
        (("baseline", "promote", MODEL), "A period is needed: --from DAY --to DAY"),
        (("baseline", "undo", MODEL, "--id", "7"), "has no promotion 7 in force"),
        (("alerts", "silence", "--for", "500d"), "A silence lasts at most a year"),
        (("alerts", "silence"), "Say how long, such as --for 2h"),
        (("alerts", "silence", "--model", "credit", "--for", "0h"), "ended already"),
        (("alerts", "silence", "--for", "2h"), "needs a label"),
        (("alerts", "silence", "--model", "credit", "--for", "soon"), "neither a day"),
        (("alerts", "listen"), "MLMON_SLACK_APP_TOKEN is not set"),
        (("alerts", "test", "--model", "other"), "No model 'other'"),
        (("ingest", "--replay", "abc"), "--replay needs the one MODEL whose file it is"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_that_cannot_be_carried_out_says_what_is_missing(
    declared: Path, mlmon: Command, arguments: tuple[str, ...], said: str
) -> None:
    ended = mlmon("--project", declared, *AT, *arguments)

    assert (ended.code, said in ended.err) == (2, True), ended


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("stauts", "No such command 'stauts'; did you mean 'status'?"),
        ("alerts lits", "No such command 'lits'; did you mean 'list'?"),
        ("ack", "No such command 'ack'; did you mean 'alerts ack'?"),
        ("history", "did you mean 'alerts history' or 'model history'?"),
        ("xyzzy", "No such command 'xyzzy'."),
        ("validate --loud", "No such option '--loud'"),
        ("status chrun", f"did you mean '{MODEL}'?"),
        ("run chrun", f"There are: {MODEL}."),
        ("metrics chrun", f"There are: {MODEL}."),
        ("ingest chrun", f"There are: {MODEL}."),
        ("--now yesterday validate", "2013-12-29T06:00:00+00:00"),
        ("run churn --from 2024-02-30", "2024-02-30"),
        ("metrics churn --as-of 2030-01-01 --slice region=west", "such as --metric roc_auc"),
        ("metrics churn --metric roc_acu", "has no metric 'roc_acu'; did you mean 'roc_auc'?"),
        ("backtest churn --from 2030-01-01", "no complete window"),
        ("drill churn --columns agee", "No feature of churn 'agee'; did you mean 'age'?"),
        ("drill churn --faults null", "No fault 'null'; did you mean 'nulls'?"),
        ("trace churn --metric roc_acu", "did you mean 'roc_auc'?"),
        ("trace churn --metric mae", "mae is for regression"),
        ("trace churn --window 2030-01-01", "no complete window '2030-01-01'"),
        ("trace churn --against x..y", "expected baseline, a window, DAY..DAY"),
        ("trace churn --against version:77", "has no ground truth"),
        ("rows nothing", "No alert 'nothing'"),
        ("rows churn --window 2030-01-01", "churn has no complete window '2030-01-01'"),
        ("rows churn --format parquet", "say where to: --output FILE"),
        ("rows churn --show shoe_size", "churn has no such feature"),
        ("rows churn --window 2024-03-01 --from 2024-03-01", "Either --window, or --from and --to"),
        ("rows nothing --window 2024-03-01", "an alert says itself"),
        ("compare churn", "log the shadow's answers with dataset: shadow"),
        ("compare churn --version 3", "Give both --version and --other"),
        ("compare churn --version 3 --other 9", "is of version '9'"),
        ("skew churn", "with dataset: training and the same prediction_id"),
        ("collect --max-body 8X", "'8X' is not a size such as 8M or 1G"),
        ("collect --max-body 1.5G", "'1.5G' is not a size such as 8M or 1G"),
        ("erase churn", ""),
        ("metrics churn --granularity month --as-of 2001-01-01", "leave --granularity out"),
        ("budget churn", "monitors.service.objectives"),
    ],
)
def test_what_is_misspelt_or_is_not_there_is_said_with_what_there_is(
    folder: Path, mlmon: Command, words: str, said: str
) -> None:
    ended = mlmon("--project", folder, *AT, *words.split())

    assert (ended.code, said in ended.err) == (2, True), ended


def test_what_was_never_done_is_said_as_such(declared: Path, mlmon: Command) -> None:
    history = mlmon("--project", declared, *AT, "model", "history", MODEL)
    baselines = mlmon("--project", declared, *AT, "baseline", "list", MODEL)
    tokens = mlmon("--project", declared, *AT, "collect", "token", "list")

    assert f"Nobody has changed anything of {MODEL} yet." in history.out
    assert "events of dataset 'validation', and there are none" in baselines.out
    assert "no tokens; 'mlmon collect token create' makes one" in tokens.out + tokens.err


def test_a_silence_of_one_slice_matches_it(declared: Path, mlmon: Command) -> None:
    silence = ("--project", declared, *AT, "alerts", "silence", "--for", "2h")
    made = mlmon(*silence, "--slice", "region=north")
    listed = mlmon("--project", declared, *AT, "alerts", "silences")
    wrong = mlmon(*silence, "--slice", "north")

    assert made.code == listed.code == 0, made
    assert "north" in listed.out
    assert wrong.code == 2, wrong
    assert "KEY=VALUE" in wrong.err


def test_who_changes_something_must_have_a_name(
    declared: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("USER")
    monkeypatch.delenv("USERNAME", raising=False)

    ended = mlmon("--project", declared, *AT, "baseline", "undo", MODEL)

    assert (ended.code, "say who you are: --author NAME" in ended.err) == (2, True), ended


@pytest.mark.proof
def test_rows_after_the_end_are_told_with_their_file_and_read_once_the_end_is_deleted(
    folder: Path, mlmon: Command
) -> None:
    path = folder / "models" / "churn.yaml"
    declared, end = path.read_text(), NOW.date()
    path.write_text(declared.replace("start:", f"end: {end}, start:"))
    later = [customers(end + n * dt.timedelta(days=1))[0] for n in range(3)]
    drop(pd.concat(later), landing(folder, "predictions") / "newest.parquet")
    at = ("--project", folder, "--now", (NOW + 40 * dt.timedelta(days=1)).isoformat())

    ran = mlmon(*at, "run", "churn")
    status = mlmon(*at, "status", "churn").out

    assert f"{3 * ROWS} rows refused, such as landing/churn/predictions/newest.parquet" in ran.out
    assert f"expected before {end}T00:00:00-04:00, the 'end' under 'time'" in ran.out
    assert "Delete 'end' under 'time' if the model goes on" in ran.out
    assert "Share of refused rows" in status

    path.write_text(declared)
    again = mlmon(*at, "run", "churn")

    assert f"{3 * ROWS} new rows" in again.out
    assert "refused" not in mlmon(*at, "status", "churn").out
