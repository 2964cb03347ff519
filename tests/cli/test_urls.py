"""A database URL that is wrong is one sentence and exit code 2, without the secrets in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command


@pytest.mark.parametrize("command", [("watchdog",), ("ingest",), ("doctor",), ("alerts", "list")])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h.invalid/db?password=CANARY1",
        "postgresql://me:pa/CANARY1@h.invalid/db",
        "postgresql://me:p@ss/CANARY1@h.invalid/db",
        "postgresql://me:CANARY1@h.invalid:port/db",
        "postgresql://me:x%2FCANARY1@127.0.0.1:99999/db?connect_timeout=CANARY1",
    ],
)
def test_no_command_prints_the_secrets_of_the_database_s_url(
    mlmon: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, command: list[str]
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("MLMON_DB_URL", url)

    ended = mlmon("--project", tmp_path, *command)

    assert "CANARY1" not in ended.out + ended.err
    assert "MLMON_DB_URL" in ended.out + ended.err or command == ("ingest",)
    assert ended.code == (1 if command == ("doctor",) else 2)


def test_the_address_that_messages_link_to_holds_no_secret(
    mlmon: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLMON_UI_URL", "https://me:CANARY1@dagster.example.com/x")

    ended = mlmon("--project", tmp_path, "validate")

    assert ended.code == 2
    assert "MLMON_UI_URL (https://dagster.example.com/…)" in ended.err
    assert "CANARY1" not in ended.err


@pytest.mark.parametrize("name", ["MLMON_SLACK_API_URL", "MLMON_HEARTBEAT_URL"])
def test_an_address_with_a_user_is_refused_before_a_name_server_is_asked_for_it(
    mlmon: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://CANARY1:CANARY2@127.0.0.1:1/CANARY3?k=CANARY4")

    ended = mlmon("--project", tmp_path, "validate")

    assert ended.code == 2
    assert f"{name} (http://127.0.0.1:1/…)" in ended.err
    assert "CANARY" not in ended.err
