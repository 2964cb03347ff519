"""Commands where one of two declarations does not load, and the process that reloads Dagster."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.defs.small_model import MODEL, NOW, write_declaration
from tests.http_server import served

AT = ("--now", (NOW + dt.timedelta(hours=1)).isoformat())


@pytest.fixture
def half(folder: Path) -> Path:
    """A project of two declarations, the second with a mistake in its ninth line."""
    write_declaration(folder, "second")
    path = folder / "models" / "second.yaml"
    path.write_text(path.read_text().replace("score: score", "scor: score"))
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("validate",), 2, "second.yaml:9: columns.scor: unknown key"),
        (("doctor",), 1, "not monitored, since they do not load"),
        (("status",), 1, "BROKEN  second  does not load"),
        (("ingest",), 1, "left out, does not load: models/second.yaml:9"),
        (("store", "describe"), 1, "left out, does not load: models/second.yaml:9"),
        (("alerts", "deliver"), 1, "A model does not load and is not monitored"),
        (("ingest", "second"), 2, "second does not load:"),
        (("run", "second"), 2, "second.yaml:9: columns.scor: unknown key"),
        (("run", "third"), 2, "There are: churn. Not loaded: second.yaml."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_concerns_a_broken_model_says_so_and_ends_with_its_code(
    half: Path, mlmon: Command, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ended = mlmon("--project", half, *AT, *arguments)

    assert ended.code == code, ended
    assert said in ended.out + ended.err
    if code < 2 or arguments == ("validate",):
        assert MODEL in ended.out or arguments == ("alerts", "deliver")


@pytest.mark.parametrize(
    "arguments",
    [("ingest", MODEL), ("run", MODEL), ("status", MODEL), ("metrics", MODEL)],
    ids=" ".join,
)
def test_what_concerns_another_model_works_as_if_nothing_were_broken(
    half: Path, mlmon: Command, arguments: tuple[str, ...]
) -> None:
    ended = mlmon("--project", half, *AT, *arguments)

    assert ended.code == 0, ended
    assert "second" not in ended.out + ended.err


@pytest.mark.parametrize(
    "arguments",
    [("run", MODEL, "--from", "2024-03-01", "--to", "2024-03-02"), ("ingest",), ("metrics", MODEL)],
    ids=" ".join,
)
def test_another_zone_after_the_first_events_is_refused_with_the_way_to_do_it(
    folder: Path, mlmon: Command, arguments: tuple[str, ...]
) -> None:
    write_declaration(folder, zone="UTC")

    ended = mlmon("--project", folder, *AT, *arguments)

    assert ended.code == 2, ended
    assert "time.zone is 'UTC', but events are stored with 'America/New_York'" in ended.err
    assert "mlmon model rebuild" in ended.err


def test_a_change_that_the_stored_events_do_not_allow_is_told_before_anything_runs(
    folder: Path, mlmon: Command
) -> None:
    write_declaration(folder, zone="UTC")
    lines = (folder / "models" / f"{MODEL}.yaml").read_text().splitlines()
    at = next(i for i, line in enumerate(lines, 1) if "zone: UTC" in line)

    ended = mlmon("--project", folder, *AT, "validate")
    shutil.rmtree(folder / ".mlmon")
    new = mlmon("--project", folder, *AT, "validate")

    assert ended.code == 2, ended
    assert f"{MODEL}.yaml:{at}: time.zone: is 'UTC', but events are stored with" in ended.err
    assert new.code == 0, new
    assert not (folder / ".mlmon" / "store").exists()


def test_a_model_that_does_not_load_can_be_removed(half: Path, mlmon: Command) -> None:
    path = half / "models" / f"{MODEL}.yaml"
    at = ("--project", half, *AT)
    path.write_text(path.read_text().replace("score: score", "scor: score"))

    removed = mlmon(*at, "model", "remove", MODEL, "--author", "ann", "--yes")

    assert removed.code == 0, removed
    assert "churn is deleted." in removed.out
    assert not path.exists()


@pytest.fixture
def web_server() -> Iterator[tuple[str, list[str]]]:
    """A web server that answers as Dagster's does after a reload, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(f"{self.path} {json.loads(body)['query'].split()[2]}")
            entry = {"name": "mlmon", "locationOrLoadError": {"__typename": "RepositoryLocation"}}
            data = {"reloadWorkspace": {"__typename": "Workspace", "locationEntries": [entry]}}
            answer = json.dumps({"data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with served(Handler) as url:
        yield url, asked


def test_a_changed_declaration_reaches_a_running_dagster_by_itself(
    tmp_path: Path, web_server: tuple[str, list[str]]
) -> None:
    url, asked = web_server
    write_declaration(tmp_path)
    folder = tmp_path / "models"
    arguments = [sys.executable, "-m", "mlmon_dagster.commands.dev", str(folder), url]
    with subprocess.Popen(
        [*arguments, str(os.getpid())], stderr=subprocess.PIPE, text=True
    ) as watcher:
        assert watcher.stderr is not None
        try:
            said = ""
            while "changed" not in said:  # until it has begun to look
                (folder / "churn.yaml").write_text(f"model: [  # {time.monotonic_ns()}")
                time.sleep(1.6)
                if asked:
                    said = watcher.stderr.readline()
            assert said == "mlmon: churn.yaml changed; reloaded.\n"
            assert "does not load: models/churn.yaml" in watcher.stderr.readline()
        finally:
            watcher.kill()  # where the shell that runs us ignores SIGTERM, so does what we start
    assert set(asked) == {"/graphql reloadWorkspace"}
