"""An HTTP answer has a deadline as a whole: a server that drips is not waited for."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from threading import Event

import pytest

from mlmon_dagster.alerts.receivers.base import Outcome, Unclear
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.alerts.receivers.webhook import post
from mlmon_dagster.alerts.receivers.worker import ping
from mlmon_dagster.store.bounded_http import open_within
from mlmon_dagster.store.mlflow_registry import MlflowRegistry, RegistryAwayError
from mlmon_dagster.store.prometheus_source import UNREACHABLE, PrometheusServer
from tests.alerts.test_slack import delivery
from tests.http_server import served

NOW = dt.datetime(2026, 3, 5, tzinfo=dt.UTC)


class Dripping(BaseHTTPRequestHandler):
    """Sends a byte now and then, never a whole answer, as long as somebody listens."""

    status = 200
    ended = Event()

    def do_POST(self) -> None:
        """Drip."""
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.ended.wait(0.05):
                self.wfile.write(b" ")
                self.wfile.flush()

    do_GET = do_POST

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture(params=[200, 500])
def dripping(request: pytest.FixtureRequest) -> Iterator[str]:
    ended = Event()
    handler = type("Handler", (Dripping,), {"status": request.param, "ended": ended})
    with served(handler) as url:
        yield url
        ended.set()


def test_a_request_ends_with_its_deadline(dripping: str) -> None:
    request = urllib.request.Request(dripping)
    with pytest.raises(TimeoutError, match=r"within 0\.5 s"), open_within(request, 0.5) as answer:
        answer.read()


def test_every_receiver_and_source_gives_up_a_server_that_drips(dripping: str) -> None:
    slack = SlackReceiver("xoxb-a", base_url=f"{dripping}/", timeout_seconds=1)
    outcomes: list[Outcome] = [
        slack.send(delivery()), post("webhook", dripping, b"{}", {}, timeout_seconds=0.5)
    ]  # fmt: skip
    assert [type(outcome) for outcome in outcomes] == [Unclear, Unclear]
    asked = PrometheusServer(dripping, timeout_seconds=0.2).ask("up", NOW)
    assert asked.reason == UNREACHABLE
    assert ping(dripping, 0.5) == "the heartbeat's address cannot be reached: TimeoutError"
    with pytest.raises(RegistryAwayError, match="cannot be reached"):
        MlflowRegistry(dripping, timeout_seconds=0.5).aliases("churn")


def test_a_whole_answer_comes_as_it_is_and_so_does_one_of_failure() -> None:
    class Handler(Dripping):
        def do_GET(self) -> None:
            body = json.dumps({"said": "x" * 300_000}).encode()
            self.send_response(200 if self.path == "/" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with served(Handler) as url:
        with open_within(urllib.request.Request(f"{url}/"), 30) as answer:
            assert len(json.load(answer)["said"]) == 300_000
        with (
            pytest.raises(urllib.error.HTTPError) as found,
            open_within(urllib.request.Request(f"{url}/none"), 30),
        ):
            raise AssertionError
        assert len(json.load(found.value)["said"]) == 300_000
