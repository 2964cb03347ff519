"""What greedy, idle and slow clients cost `mlmon collect`, and whether others are still served."""

from __future__ import annotations

import gzip
import http.client
import json
import resource
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

import psutil

from benchmarks.collect import HEADERS, PATH, declare, free_port, serving
from benchmarks.table import Goal, Row, render

N_IDLE, N_SLOW, N_LARGE = 1_100, 64, 8
ROW = {"id": "a", "at": "2024-02-01T00:00:00Z", "score": 0.5, "version": "1"}


def _ask(port: int, body: bytes, **headers: str) -> tuple[int, float]:
    begun = time.monotonic()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as client:
        client.request("POST", PATH, body, HEADERS | headers)
        status = client.getresponse().status
    return status, time.monotonic() - begun


def _good(port: int, name: str) -> tuple[int, float]:
    row = ROW | {"id": name} | {f"f{i}": 0.5 for i in range(20)}
    return _ask(port, json.dumps([row]).encode())


def _inflating(
    process: psutil.Process, port: int, row: bytes, n: int
) -> tuple[float, float, float, Counter[int]]:
    """Send bodies that are small and inflate to just below the limit, all at once."""
    plain = b"[" + b",".join([row] * n) + b"]"
    body = gzip.compress(plain, 6)
    assert 28 << 20 < len(plain) < 32 << 20
    assert len(body) < 200_000
    before, peak, over = process.memory_info().rss, 0, threading.Event()
    statuses: Counter[int] = Counter()

    def look() -> None:
        nonlocal peak
        while not over.wait(0.01):
            peak = max(peak, process.memory_info().rss)

    def send() -> None:
        statuses[_ask(port, body, **{"content-encoding": "gzip"})[0]] += 1

    looking = threading.Thread(target=look)
    senders = [threading.Thread(target=send) for _ in range(N_LARGE)]
    for thread in (looking, *senders):
        thread.start()
    for thread in senders:
        thread.join()
    time.sleep(2)
    over.set()
    looking.join()
    return before / 2**20, peak / 2**20, process.memory_info().rss / 2**20, statuses


def main() -> int:
    """Measure, print the table."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4_096), hard), hard))
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        port = free_port()
        declare(Path(name))
        server = opened.enter_context(serving(Path(name), port))
        process = psutil.Process(server.pid)
        first = _good(port, "first")
        # Rows that are refused for their number, and as many whole ones as are taken.
        whole = json.dumps(ROW | {f"f{i}": 0.5 for i in range(20)} | {"id": "a" * 14}).encode()
        inflated = [
            _inflating(process, port, row, n) for row, n in ((b"{}", 10_500_000), (whole, 99_000))
        ]
        address = ("127.0.0.1", port)
        with ExitStack() as idle:
            for _ in range(N_IDLE):
                idle.enter_context(socket.create_connection(address, timeout=10))
            beside_idle = _good(port, "idle")
        with ExitStack() as slow:
            for _ in range(N_SLOW):
                client = slow.enter_context(socket.create_connection(address, timeout=10))
                head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n"
                client.sendall(f"{head}Content-Type: application/json\r\n\r\n[".encode())
            time.sleep(1)
            beside_slow = _good(port, "slow")

    def row(text: str, found: tuple[int, float]) -> Row:
        goal = Goal(int(found[0] != 202), 0)
        return Row(text, (str(found[0]), f"{found[1] * 1000:,.0f} ms"), goal)

    rows = [row("a request, nobody else there", first)]
    for text, (before, peak, after, statuses) in zip(("empty", "whole"), inflated, strict=True):
        answers = ", ".join(f"{n} x {status}" for status, n in sorted(statuses.items()))
        rows += [
            Row(f"{N_LARGE} small bodies of 30 MiB of {text} rows", (answers,)),
            Row("  memory before", (f"{before:,.0f} MiB",)),
            Row("  peak", (f"{peak:,.0f} MiB",)),
            Row("  2 s later", (f"{after:,.0f} MiB",)),
        ]
    rows.append(row(f"a request beside {N_IDLE:,} idle connections", beside_idle))
    rows.append(row(f"a request beside {N_SLOW} bodies that trickle", beside_slow))
    sys.stdout.write(render("Crowds at mlmon collect", ("measured", ""), rows, seed="none") + "\n")
    return sum(r.goal is not None and not r.goal.is_met for r in rows)


if __name__ == "__main__":
    sys.exit(main())
