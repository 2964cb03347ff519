"""What cannot be done is said with what was expected, and nothing is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.defs.small_model import MODEL, NOW, write_declaration

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
