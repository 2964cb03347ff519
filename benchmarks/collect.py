"""Push to `mlmon collect` as fast as it answers, then ingest: accepted must equal stored.

With --kill the server is killed in the middle and started again; its clients try again what was
not answered, as clients do.
"""

from __future__ import annotations

import argparse
import datetime as dt
import http.client
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc

from benchmarks.table import Goal, Row, render
from mlmon_dagster.ingest import ingest_new, readers
from mlmon_dagster.spec import load_model
from mlmon_dagster.store import open_store

SPEC = """
model: load
task: binary_classification
owners: [team:load]
time: {start: 2024-01-01}
source:
  predictions: {path: landing/predictions/*.jsonl, settle: 0s}
columns: {prediction_id: id, event_time: at, score: score, model_version: version}
features:
"""
N_FEATURES = 20
PATH = "/v1/models/load/predictions"
HEADERS = {"content-type": "application/json"}
_RETRIED = (429, 503)


@dataclass
class Load:
    """What the clients sent and were answered.

    Attributes:
        accepted: Ids of rows answered 202.
        seconds: Of every request that was answered 202, from its first try that was answered.
        n_again: Tries that were not answered, or answered 429 or 503.
        odd: Answers that should not be.
    """

    accepted: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    n_again: int = 0
    odd: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """A run, checked against the store.

    Attributes:
        n_accepted: Rows answered 202.
        n_stored: Rows in the event log.
        n_missing: Rows answered 202 that are not in the log.
        n_unasked: Rows in the log that were not answered 202.
        n_repeated: Rows of the log beyond one per id.
        n_duplicates: Rows that ingest dropped, since a client sent them again.
    """

    load: Load
    elapsed: float
    n_accepted: int
    n_stored: int
    n_missing: int
    n_unasked: int
    n_repeated: int
    n_duplicates: int
    n_files: int
    ingest_seconds: float


def declare(folder: Path) -> None:
    """Write the model that is pushed to."""
    (folder / "models").mkdir(parents=True)
    features = "".join(f"  f{i}: {{type: numeric}}\n" for i in range(N_FEATURES))
    (folder / "models/load.yaml").write_text(SPEC + features)


def run(folder: Path, seconds: float, connections: int, rows: int, *, kill: bool) -> Outcome:
    """Start a server, load it, stop it, ingest, compare."""
    declare(folder)
    port, load, over = free_port(), Load(), threading.Event()
    with serving(folder, port) as server:
        begun = time.monotonic()
        clients = [
            threading.Thread(target=_client, args=(port, f"c{i}", rows, over, load))
            for i in range(connections)
        ]
        for client in clients:
            client.start()
        time.sleep(seconds / 2)
        if kill:
            server.send_signal(signal.SIGKILL)
            server.wait()
        with serving(folder, port) if kill else nullcontext():
            time.sleep(seconds / 2)
            over.set()
            for client in clients:
                client.join()
    return _compared(folder, load, time.monotonic() - begun)


def _client(port: int, name: str, rows: int, over: threading.Event, load: Load) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with closing(connection):
        _push(connection, name, rows, over, load)


def _push(
    connection: http.client.HTTPConnection,
    name: str,
    rows: int,
    over: threading.Event,
    load: Load,
) -> None:
    n = 0
    while not over.is_set():
        ids = [f"{name}-{n + i}" for i in range(rows)]
        n += rows
        body = json.dumps([_row(i) for i in ids]).encode()
        while True:
            begun = time.perf_counter()
            try:
                connection.request("POST", PATH, body, HEADERS)
                answer = connection.getresponse()
                told = answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                load.n_again += 1
                time.sleep(0.05)
                continue
            if answer.status not in _RETRIED:
                break
            load.n_again += 1
            time.sleep(0.05)
        if answer.status != 202:
            load.odd.append(f"{answer.status}: {told[:300]!r}")
            return
        load.seconds.append(time.perf_counter() - begun)
        load.accepted.update(ids)


def _row(row_id: str) -> dict[str, object]:
    value = (hash(row_id) % 1000) / 1000
    cells = {f"f{i}": value + i for i in range(N_FEATURES)}
    return {"id": row_id, "at": "2024-06-01T12:00:00Z", "score": value, "version": "1", **cells}


def _compared(folder: Path, load: Load, elapsed: float) -> Outcome:
    store = open_store(folder / ".mlmon/store")
    spec = load_model(folder / "models/load.yaml")
    landing = folder / "landing/predictions"
    n_files = len(list(landing.glob("*.jsonl"))) if landing.exists() else 0
    begun = time.monotonic()
    report = ingest_new(store, spec, folder, readers(), now=dt.datetime.now(dt.UTC))
    took = time.monotonic() - begun
    bad = [f"{file.path}: {file.status}" for file in report.files if file.status != "done"]
    load.odd.extend(bad)
    stored = store.event_log(spec).rows("predictions", ["prediction_id"])["prediction_id"]
    distinct = set(pc.unique(stored).to_pylist())
    store.close()
    return Outcome(
        load, elapsed, len(load.accepted), len(stored), len(load.accepted - distinct),
        len(distinct - load.accepted), len(stored) - len(distinct),
        sum(file.n_duplicate for file in report.files), n_files, took,
    )  # fmt: skip


@contextmanager
def serving(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server of the model that `declare` wrote."""
    command = [sys.executable, "-m", "mlmon_dagster.cli", "--project", str(folder), "collect"]
    command += ["--port", str(port), "--min-free", "100M", "--drain", "0"]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for(port, process)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError("the server did not start")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rows", type=int, default=100, help="of a request")
    parser.add_argument("--kill", action="store_true", help="SIGKILL in the middle, and restart")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = run(
            Path(name), options.seconds, options.connections, options.rows, kill=options.kill
        )
    sys.stdout.write(_table(found, options) + "\n")
    for line in found.load.odd[:10]:
        sys.stdout.write(f"  odd: {line}\n")
    wrong = found.n_missing + found.n_unasked + found.n_repeated + len(found.load.odd)
    return 1 if wrong else 0


def _table(found: Outcome, options: argparse.Namespace) -> str:
    cuts = statistics.quantiles(found.load.seconds, n=100)
    rows = [
        Row("accepted rows", (f"{found.n_accepted:,}",)),
        Row("stored rows", (f"{found.n_stored:,}",)),
        Row("accepted, not stored", (f"{found.n_missing:,}",), Goal(found.n_missing, 0)),
        Row("stored, not accepted", (f"{found.n_unasked:,}",), Goal(found.n_unasked, 0)),
        Row("stored twice", (f"{found.n_repeated:,}",), Goal(found.n_repeated, 0)),
        Row("sent again and dropped by ingest", (f"{found.n_duplicates:,}",)),
        Row("tries without an acceptance", (f"{found.load.n_again:,}",)),
        Row("accepted rows a second", (f"{found.n_accepted / found.elapsed:,.0f}",)),
        Row("requests a second", (f"{len(found.load.seconds) / found.elapsed:,.0f}",)),
        Row("median of an answer, ms", (f"{cuts[49] * 1000:.1f}",)),
        Row("99th percentile, ms", (f"{cuts[98] * 1000:.1f}",)),
        Row("landing files", (f"{found.n_files:,}",)),
        Row("seconds to ingest them", (f"{found.ingest_seconds:.1f}",)),
    ]
    how = "killed in the middle" if options.kill else "undisturbed"
    title = (
        f"mlmon collect, {how}: {options.connections} connections, {options.seconds:g} s, "
        f"{options.rows} rows x {N_FEATURES + 4} columns a request"
    )
    return render(title, ("measured",), rows, seed="none")


if __name__ == "__main__":
    sys.exit(main())
