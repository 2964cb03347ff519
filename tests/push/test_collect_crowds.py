"""Many slow, idle or greedy clients: the others are served, and memory stays bounded."""

from __future__ import annotations

import contextlib
import socket
import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from mlmon_dagster.collect import body
from mlmon_dagster.collect.admission import Pressure
from mlmon_dagster.collect.app import Listening, make_server
from mlmon_dagster.collect.collector import Limits
from mlmon_dagster.collect.landing import Target
from mlmon_dagster.collect.problem import Problem
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.store import Store
from tests.push import strangers
from tests.push.collecting import PREDICTIONS, Running, row, running, wait_until

HEAD = (
    f"POST {PREDICTIONS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    "Content-Length: 5000\r\n\r\n"
)


def connected(collector: Running) -> socket.socket:
    """Open a connection."""
    return socket.create_connection(("127.0.0.1", collector.port), timeout=30)


def test_idle_connections_do_not_shut_out_a_new_client(store: Store, tmp_path: Path) -> None:
    with running(store, tmp_path, max_connections=10) as collector, ExitStack() as opened:
        idle = [opened.enter_context(connected(collector)) for _ in range(40)]
        for i in range(3):
            assert collector.post(row(i)).status == 202
        # The one that waited longest was closed.
        assert idle[0].recv(1) == b""


def test_bodies_that_trickle_are_not_requests_at_work(store: Store, tmp_path: Path) -> None:
    with running(store, tmp_path, max_in_flight=2) as collector, ExitStack() as opened:
        for _ in range(16):
            slow = opened.enter_context(connected(collector))
            slow.sendall(HEAD.encode() + b"[")
        wait_until(lambda: collector.app._pressure._n_held.total() == 16)
        assert collector.post(row()).status == 202
    assert collector.app._pressure._n_held.total() == 0


def pressure_of(store: Store, tmp_path: Path) -> tuple[Pressure, Target]:
    """Return one with room for 4 requests and 100 bytes, and a target."""
    target = Target("loan", "predictions", tmp_path, "landing", 10, 10)
    return Pressure(
        [target], store.state, max_in_flight=4, min_free=0, max_files=9, max_held=100
    ), target


def test_one_caller_leaves_room_for_the_others(store: Store, tmp_path: Path) -> None:
    pressure, target = pressure_of(store, tmp_path)
    with ExitStack() as at_work:
        for _ in range(3):
            at_work.enter_context(pressure.room_for(target, "greedy"))
        with pytest.raises(Problem, match="overloaded"), pressure.room_for(target, "greedy"):
            pass
        at_work.enter_context(pressure.room_for(target, "other"))
        with pytest.raises(Problem, match="overloaded"), pressure.room_for(target, "third"):
            pass
    with pressure.room_for(target, "greedy"):
        pass


def test_bodies_in_memory_are_bounded_in_all_and_for_each_caller(
    store: Store, tmp_path: Path
) -> None:
    pressure, _ = pressure_of(store, tmp_path)
    with pressure.receiving("a") as first, pressure.receiving("a") as second:
        first(40)
        with pytest.raises(Problem, match="overloaded"):
            second(20)
        with pressure.receiving("b") as other:
            other(45)
            with pytest.raises(Problem, match="overloaded"), pressure.receiving("c") as third:
                third(20)
    with pressure.receiving("a") as alone:
        alone(400)  # whatever the limit is, one body can come


@pytest.mark.parametrize("name", ["read_array", "read_lines"])
def test_no_more_rows_are_made_than_are_taken(name: str) -> None:
    text = "[" + ",".join(["{}"] * 500_000) + "]" if name == "read_array" else "{}\n" * 500_000
    tracemalloc.start()
    rows = getattr(body, name)(text, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(rows) == 11
    assert peak < 100_000


@pytest.mark.parametrize("stranger", [strangers.say_nothing, strangers.never_read])
@pytest.mark.parametrize("is_secured", [False, True])
def test_strangers_shut_out_nobody_and_are_let_go(
    store: Store,
    tmp_path: Path,
    is_secured: bool,
    stranger: strangers.Stranger,
) -> None:
    pair = strangers.make_certificate(tmp_path) if is_secured else None
    context = strangers.trusting(pair[0]) if pair else None
    limits = Limits(head_seconds=2.0)
    with (
        running(store, tmp_path, limits=limits, max_connections=20, certificate=pair) as collector,
        ExitStack() as opened,
    ):
        links = strangers.let_come(60, stranger, collector.port, context, opened)
        for _ in range(3):
            assert b"200 OK" in strangers.ask_health(collector.port, context)
        assert all(map(strangers.was_let_go, links))


def test_requests_that_come_before_answers_are_read_are_few(store: Store, tmp_path: Path) -> None:
    with running(store, tmp_path) as collector, connected(collector) as client:
        asked = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        client.sendall(asked * 8)
        answers = b""
        while answers.count(b'"ok"') < 8:
            answers += client.recv(65_536)
        client.sendall(asked * 200)
        with contextlib.suppress(ConnectionError):
            while client.recv(65_536):
                pass


def test_the_document_is_made_once_for_all_who_ask(store: Store, tmp_path: Path) -> None:
    with running(store, tmp_path) as collector:
        first = collector.request("GET", "/openapi.json").body
        assert collector.request("GET", "/openapi.json").body == first
        assert collector.request("GET", "/docs").status == 200
        assert len(collector.app._descriptions) == 1


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("none")
    with pytest.raises(ConfigError, match=r"cert\.pem cannot be used"):
        make_server(cast("Any", None), Listening(certificate=tmp_path / "cert.pem"))
