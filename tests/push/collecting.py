"""Running collectors, and a client that shows everything of an answer."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlmon_dagster.collect.admission import Access, Pressure
from mlmon_dagster.collect.app import App, Listening, make_server
from mlmon_dagster.collect.collector import Collector, Limits
from mlmon_dagster.collect.landing import Committer, span_targets, targets_of
from mlmon_dagster.collect.otlp import Spans
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.files.loader import Models
from mlmon_dagster.store import Store
from mlmon_dagster.tables.openmetrics import Exporter
from tests.push.worlds import NOW, push_spec

PREDICTIONS = "/v1/models/loan/predictions"
ACTUALS = "/v1/models/loan/actuals"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


@dataclass
class Running:
    """A collector that runs in a thread of this process."""

    port: int
    folder: Path
    spec: ModelSpec
    store: Store
    app: App
    collector: Collector

    def request(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str
    ) -> Answer:
        """Send a request on a connection of its own; bytes one by one have no length."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            kept = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, kept, answer.read())
        finally:
            connection.close()

    def post(self, rows: Any, path: str = PREDICTIONS, **headers: str) -> Answer:
        """Push rows, as JSON unless they are bytes."""
        body = rows if isinstance(rows, bytes) else json.dumps(rows).encode()
        return self.request("POST", path, body, **{"content_type": "application/json", **headers})

    def landed(self, stream: str = "predictions") -> list[dict[str, Any]]:
        """Return the rows of all landing files."""
        return [
            json.loads(line)
            for path in sorted((self.folder / "landing" / stream).glob("*"))
            for line in path.read_text().splitlines()
        ]


@contextmanager
def running(
    store: Store,
    folder: Path,
    *,
    spec: ModelSpec | None = None,
    limits: Limits | None = None,
    host: str = "127.0.0.1",
    max_in_flight: int = 64,
    min_free: int = 0,
    max_files: int = 20_000,
    linger: float = 0.0,
    drain: float = 0.0,
    max_connections: int = 1_000,
    certificate: tuple[Path, Path] | None = None,
    declared: Callable[[], Models] | None = None,
) -> Iterator[Running]:
    """Run a collector."""
    spec = spec or push_spec()
    targets, problems = targets_of([spec], folder)
    assert not problems
    committer = Committer(linger)
    collector = Collector([spec], targets, committer, limits or Limits(), lambda: NOW)
    of_spans = span_targets([spec], folder)
    spans = Spans([spec], of_spans, collector) if of_spans else None
    access = Access(store.state, host, lambda: NOW)
    pressure = Pressure(
        [*targets.values(), *of_spans.values()], store.state, max_in_flight=max_in_flight,
        min_free=min_free, max_files=max_files,
    )  # fmt: skip
    models = declared or (lambda: Models((spec,)))
    exporter = Exporter(store, models, lambda: NOW)
    app = App(collector, access, pressure, exporter.answer, spans)
    head = limits.head_seconds if limits else 10.0
    listening = Listening(
        host, 0, head, max_connections, drain_seconds=drain,
        certificate=certificate[0] if certificate else None,
        key=certificate[1] if certificate else None,
    )  # fmt: skip
    server = make_server(app, listening)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(port, folder, spec, store, app, collector)
    finally:
        server.should_exit = True
        thread.join()


def wait_until(is_so: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


def row(i: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a good prediction."""
    good = {"id": f"p{i}", "at": "2024-02-29T10:00:00Z", "score": 0.5, "age": 30, "region": "a"}
    return {**good, **changes}


def actual(i: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a good actual."""
    return {"id": f"p{i}", "bad": i % 2, "known": "2024-03-01T10:00:00Z", **changes}
