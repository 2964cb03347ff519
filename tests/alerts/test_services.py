"""PagerDuty and Apprise against servers over HTTP, which fail now and then."""

from __future__ import annotations

import datetime as dt
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

import pytest

from mlmon_dagster.alerts.lifecycle.routing import every_destination
from mlmon_dagster.alerts.receivers.apprise import AppriseReceiver
from mlmon_dagster.alerts.receivers.base import (
    Delivery,
    NotPosted,
    Posted,
    Receiver,
    Refused,
    Unclear,
)
from mlmon_dagster.alerts.receivers.pagerduty import PagerDutyReceiver
from mlmon_dagster.alerts.receivers.webhook import Endpoint
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import outbox
from tests.alerts.worlds import IMPATIENT, day, deliver, result, rows_of, settle, spec_of

ROUTES = {
    "pagerduty": {"key_env": "PLACE"},
    "apprise": {"url_env": "PLACE"},
}
TOKEN = "hidden5Token"
HOSTILE = "[free](http://evil) *b* <at>all</at>"


@dataclass
class Service:
    """A server that takes JSON: what it took, and in what share of requests it fails, and how."""

    url: str = ""
    faults: float = 0.0
    taken: list[Any] = field(default_factory=list)
    rng: random.Random = field(default_factory=lambda: random.Random(3))
    n_faults: Counter[str] = field(default_factory=Counter)
    status: int = 202


@contextmanager
def running() -> Iterator[Service]:
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kinds = ("503", "lost answer", "429", "no answer")
            fault = ""
            if service.rng.random() < service.faults:
                fault = service.rng.choice(kinds)
                service.n_faults[fault] += 1
            if fault in ("", "lost answer"):
                service.taken.append(json.loads(body))
            if fault in ("lost answer", "no answer"):
                self.close_connection = True
                self.connection.close()
                return
            self.send_response(int(fault or service.status))
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ValueError:  # its connection was closed on purpose
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_args: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    with running() as found:
        yield found


def specs_of(kind: str) -> list[ModelSpec]:
    return [spec_of(slack=None, repeat="1d", group_interval="0s", **{kind: ROUTES[kind]})]


def receiver_of(kind: str, url: str) -> Receiver:
    if kind == "pagerduty":
        return PagerDutyReceiver({"$PLACE": Endpoint(url, "R" * 32)})
    return AppriseReceiver({"$PLACE": Endpoint(url.replace("http://", f"json://user:{TOKEN}@"))})


def live(store: Store, service: Service, kind: str, days: list[str]) -> None:
    """Let days go by, with a look and deliveries after each, a minute apart, until none waits."""
    receiver = receiver_of(kind, service.url)
    minutes = count()
    for number, status in enumerate(days, start=1):
        rows = [
            result(number, status, column_name=column, monitor=f"{family}/psi/{column}",
                   family=family, message=HOSTILE)
            for family, column in (("drift", "age"), ("quality", "plan"))
        ]  # fmt: skip
        settle(store, specs_of(kind), day(number + 1), *rows)
        until = time.monotonic() + 60
        while any(row["status"] != "sent" for row in rows_of(store, outbox)):
            ahead = dt.timedelta(minutes=next(minutes))
            deliver(
                store,
                {kind: receiver},
                policy=IMPATIENT,
                max_messages=200,
                clock=lambda ahead=ahead: dt.datetime.now(dt.UTC) + ahead,
            )
            assert time.monotonic() < until


LIFE = ["ERROR", "ERROR", "ERROR", "OK", "ERROR", "OK"]  # opened, reminded, resolved, and again


@pytest.mark.parametrize("faults", [0.0, 0.3])
def test_pagerduty_opens_and_resolves_each_incident_once(
    faults: float, store: Store, service: Service
) -> None:
    service.faults = faults
    live(store, service, "pagerduty", LIFE * 4)

    is_open: Counter[str] = Counter()
    n_incidents: Counter[str] = Counter()
    for event in service.taken:
        assert event["routing_key"] == "R" * 32
        key = event["dedup_key"]
        if event["event_action"] == "trigger":
            n_incidents[key] += not is_open[key]
            assert event["payload"]["severity"] == "error"
        is_open[key] = event["event_action"] == "trigger"
    assert list(n_incidents.values()) == [8]  # of both families, as often as their alerts opened
    assert set(is_open.values()) == {False}
    assert (sum(service.n_faults.values()) > 3) == (faults > 0)


@pytest.mark.parametrize("faults", [0.0, 0.3])
def test_a_place_without_keys_gets_every_message_and_twice_only_what_lost_its_answer(
    faults: float, store: Store, service: Service
) -> None:
    service.faults = faults
    live(store, service, "apprise", LIFE * 4)

    told = [row["kind"] for row in rows_of(store, outbox) if row["kind"] != "head"]
    assert {"opened", "repeated", "resolved"} <= set(told)
    posted = Counter(json.dumps(card) for card in service.taken)
    n_lost = service.n_faults["lost answer"]
    assert len(told) <= len(service.taken) <= len(told) + n_lost
    assert TOKEN not in json.dumps(rows_of(store, outbox), default=str)
    assert (n_lost > 0) == (faults > 0)
    assert sum(n - 1 for n in posted.values()) <= n_lost + (len(told) - len(posted))


def test_apprise_says_what_is_wrong_without_its_address_and_mentions_nobody(
    store: Store,
    service: Service,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    receiver = receiver_of("apprise", service.url)
    event = {"kind": "opened", "severity": "ERROR"}
    told = Delivery("k", "$PLACE", "", {"event": event, "plain": "ERROR @here\n- <!all> a@b.org"})
    outcomes = []
    for status in (401, 404, 429, 503, 200):
        service.status = status
        outcomes.append(receiver.send(told))
    assert [type(o) for o in outcomes] == [Refused, Refused, NotPosted, Unclear, Posted]
    assert service.taken[-1]["title"] == "ERROR @\u200bhere"
    assert service.taken[-1]["message"] == "- <\u200b!all> a@b.org"
    assert service.taken[-1]["type"] == "failure"
    lost = AppriseReceiver({"$PLACE": Endpoint(f"json://user:{TOKEN}@127.0.0.1:1")}).send(told)
    unknown = AppriseReceiver({"$PLACE": Endpoint(f"nosuch://{TOKEN}")}).send(told)
    assert (type(lost), type(unknown)) == (Unclear, Refused)
    assert "does not hold one address that Apprise knows" in str(unknown)
    said = f"{outcomes} {lost} {unknown} {capfd.readouterr()}"
    assert TOKEN not in f"{said} {caplog.text}"
    assert "127.0.0.1" not in said


@pytest.mark.parametrize("kind", ROUTES)
def test_a_variable_that_is_not_set_is_named(kind: str) -> None:
    (place,) = every_destination(specs_of(kind))
    assert tuple(place) == (kind, "$PLACE")
    receiver = receiver_of(kind, "")
    places = {"$PLACE": Endpoint("", missing=("PLACE",))}
    receiver = type(receiver)(places)  # type: ignore[call-arg]
    event = {"kind": "opened"}
    outcome = receiver.send(Delivery("k", "$PLACE", "", {"event": event}))
    assert isinstance(outcome, Refused)
    assert "set PLACE where the dispatcher runs" in outcome.error
