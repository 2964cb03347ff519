"""The process: slow clients, its end, its kill, its command line, and what it says."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from benchmarks.collect import run
from mlmon_dagster.collect import admission
from mlmon_dagster.collect.admission import is_loopback
from mlmon_dagster.collect.collector import Limits
from mlmon_dagster.collect.landing import prepare, targets_of
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.landing_file import clear_leftovers
from mlmon_dagster.store import Store, open_store
from tests.cli.conftest import Command, mlmon  # noqa: F401 - a fixture
from tests.push.collecting import PREDICTIONS, Running, row, running, wait_until
from tests.push.worlds import NOW, SPEC, push_spec

ROOT = Path(__file__).parents[2]
QUICK = Limits(body_seconds=0.3, head_seconds=0.3)


def test_a_client_that_sends_slowly_is_dropped(store: Store, tmp_path: Path) -> None:
    head = f"POST {PREDICTIONS} HTTP/1.1\r\nHost: localhost\r\n"
    full = f"{head}Content-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    with running(store, tmp_path, limits=QUICK) as collector:
        for sent, answered in ((b"", b""), (head.encode(), b""), (full.encode(), b"HTTP/1.1 408")):
            with socket.create_connection(("127.0.0.1", collector.port), timeout=20) as client:
                client.sendall(sent)
                try:
                    found = client.recv(12)
                except ConnectionResetError:
                    found = b""
                assert found == answered


def test_a_second_request_on_a_connection_has_its_own_time(store: Store, tmp_path: Path) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        running(store, tmp_path, limits=QUICK) as collector,
        socket.create_connection(("127.0.0.1", collector.port), timeout=20) as client,
    ):
        client.sendall(ask)
        assert b"200 OK" in client.recv(1000)
        time.sleep(0.5)  # an idle connection is no slow client
        client.sendall(ask)
        assert b"200 OK" in client.recv(1000)
        client.sendall(ask[:20])
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(12) == b""


def test_no_value_of_a_row_is_ever_logged(
    collector: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.DEBUG, "mlmon_dagster"):
        assert collector.post([row(0, score=None, id="secret")]).status == 422

        hidden = "sec" + "ret"

        def fail(*_: object) -> None:
            raise ValueError(hidden)

        monkeypatch.setattr(collector.collector.judges["loan", "predictions"], "judge", fail)
        answer = collector.post([row(0, id="secret")])
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert "null_required" in caplog.text
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


@contextmanager
def process(
    folder: Path, *options: str, **declared: object
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run ``mlmon collect`` on the loan model; yield the process and its port."""
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models/loan.yaml").write_text(yaml.safe_dump({**SPEC, **declared}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlmon_dagster.cli", "--project", str(folder),
               "--now", NOW.isoformat(), "collect", "--min-free", "0"]  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--port", str(port), *options], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as running_process:  # fmt: skip
        try:
            wait_until(lambda: answers(port) or running_process.poll() is not None, 60)
            yield running_process, port
        finally:
            running_process.kill()


def answers(port: int) -> bool:
    """Say whether the server listens."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def pushed(client: Running, i: int) -> int:
    """Push a row; return the status, 0 if nobody answers."""
    try:
        return client.post([row(i)]).status
    except OSError:
        return 0


def client_of(folder: Path, port: int) -> Running:
    """Return a client of a server in another process."""
    return Running(port, folder, push_spec(), None, None, None)  # type: ignore[arg-type]


def test_sigterm_finishes_what_is_at_work_and_turns_new_requests_away(tmp_path: Path) -> None:
    with process(tmp_path, "--drain", "4", "--linger", "0") as (server, port):
        client = client_of(tmp_path, port)
        assert pushed(client, 0) == 202
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: pushed(client, 1) != 202)
        answer = client.post([row(2)])
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert client.request("GET", "/readyz").status == 503
        assert client.request("GET", "/healthz").status == 200
        assert server.wait(30) in (0, -signal.SIGTERM)
        assert server.stdout
        said = server.stdout.read()
    assert "Traceback" not in said
    assert "p0" in {r["id"] for r in client.landed()}


def test_what_was_answered_202_is_there_after_sigkill(tmp_path: Path) -> None:
    answered = []
    with process(tmp_path) as (server, port):
        client = client_of(tmp_path, port)
        for i in range(20):
            assert pushed(client, i) == 202
            answered.append(f"p{i}")
        server.kill()
    assert {r["id"] for r in client.landed()} >= set(answered)


def test_the_landing_path_must_find_collected_files() -> None:
    def problem(path: str, **options: str) -> str:
        sources = {"predictions": {"path": path, **options}}
        columns = {"prediction_id": "id", "event_time": "at", "score": "score"}
        spec = push_spec(source=sources, columns=columns, monitors={})
        targets, problems = targets_of([spec], Path("/project"))
        return problems[0] if problems else next(iter(targets.values())).below

    assert problem("landing/*.jsonl") == "landing"
    assert problem("landing/**/*") == "landing"
    assert problem("landing/*/x/*.json*") == "landing/collect/x"
    assert "Write 'landing/a/*' or 'landing/a/*.jsonl'" in problem("landing/a/*.parquet")
    assert "day-*" in problem("landing/day-*/*.jsonl")
    assert "format" in problem("landing/*", format="csv")


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.1.2.3", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.com", False)],
)  # fmt: skip
def test_only_loopback_addresses_are_local(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local


def test_a_project_is_collected_as_far_as_its_paths_fit(mlmon: Command, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "models").mkdir()
    other = {**SPEC, "source": {"predictions": {"path": "landing/x/*.parquet"}}, "model": "x"}
    other["columns"] = {"prediction_id": "id", "event_time": "at", "score": "score"}
    (tmp_path / "models/x.yaml").write_text(yaml.safe_dump(other))
    nowhere = mlmon("--project", tmp_path, "collect")
    assert (nowhere.code, "Write 'landing/x/*'" in nowhere.err) == (2, True)
    with process(tmp_path) as (_, port):
        assert pushed(client_of(tmp_path, port), 1) == 202
    chosen = mlmon("--project", tmp_path, "collect", "--model", "x", "--model", "loan")
    assert (chosen.code, "landing/x/*.parquet" in chosen.err) == (2, True)


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with process(tmp_path, "--port", str(port)) as (server, _):
            assert server.wait(60) == 2
            assert server.stdout
            assert f"Cannot listen on 127.0.0.1:{port}" in server.stdout.read()


def test_a_landing_folder_that_cannot_be_made_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "landing").write_text("in the way")
    targets, _ = targets_of([push_spec()], tmp_path)
    with pytest.raises(ConfigError, match=r"landing/predictions cannot be written to: .*\. Give"):
        prepare(targets.values())


def test_what_killed_processes_left_is_cleared_once_it_is_old(tmp_path: Path) -> None:
    old, young, other = (
        tmp_path / name for name in (".a.jsonl.7.tmp", ".b.jsonl.8.tmp", "c.jsonl")
    )
    for path in (old, young, other):
        path.write_text("{}")
    os.utime(old, (0, 0))
    clear_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == [young, other]


def test_a_head_without_an_end_is_cut_off(collector: Running) -> None:
    piece, n_sent = b"x" * 65_536, 0
    with (
        socket.create_connection(("127.0.0.1", collector.port), timeout=20) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        while n_sent < 1 << 24:
            client.sendall(piece)
            n_sent += len(piece)
    assert n_sent < 1 << 24


def test_tokens_are_made_listed_and_revoked_by_command(
    mlmon: Command, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    (tmp_path / "models").mkdir()
    (tmp_path / "models/loan.yaml").write_text(yaml.safe_dump(SPEC))
    command = ("--project", tmp_path, "--now", NOW.isoformat(), "collect")
    refused = mlmon(*command, "--host", "0.0.0.0")
    assert (refused.code, "token create" in refused.err) == (2, True)

    made = mlmon(*command, "token", "create", "--model", "loan", "--expires", "90d", "--note", "ci")
    assert re.fullmatch(r"mlmon_[0-9a-f]{12}_[\w-]{43}\n", made.out)
    assert mlmon(*command, "token", "create", "--model", "other").code == 2
    assert mlmon(*command, "token", "create", "--model", "*", "--expires", "2020-01-01").code == 2
    assert mlmon(*command, "token", "create", "--model", "*", "--expires", "soon").code == 2
    listed = mlmon(*command, "token", "list").out
    assert re.search(r"active +loan +2024-05-30 12:00 +ci$", listed.strip())
    assert made.out.strip().split("_", 2)[2] not in listed

    assert mlmon(*command, "token", "revoke", made.out.strip()).code == 0
    assert mlmon(*command, "token", "revoke", made.out.split("_")[1]).code == 1
    store = open_store(tmp_path / ".mlmon/store")
    assert [t.state(NOW) for t in admission.load_tokens(store.state)] == ["revoked"]
    store.close()


@pytest.mark.proof
@pytest.mark.parametrize("kill", [False, True], ids=["undisturbed", "killed"])
def test_what_is_accepted_under_load_is_what_is_stored(tmp_path: Path, kill: bool) -> None:
    found = run(tmp_path / "project", 1.0, 4, 20, kill=kill)

    assert found.load.odd == []
    assert found.n_accepted > 0
    assert (found.n_missing, found.n_unasked, found.n_repeated) == (0, 0, 0)
    assert found.n_stored == found.n_accepted
    assert (found.load.n_again > 0) is kill
