"""Prometheus and Alertmanager as processes of a test, where they are installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="prometheus and promtool are not installed",
)
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def prometheus_in(folder: Path) -> Iterator[str]:
    """Run Prometheus with a folder's ``prometheus.yml`` and ``data``; yield its address."""
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
               "--storage.tsdb.retention.time=100y"]  # fmt: skip
    with _running(folder, command) as url:
        yield url


@contextmanager
def alertmanager_in(folder: Path) -> Iterator[str]:
    """Run Alertmanager with a folder's ``alertmanager.yml``; yield its address."""
    assert ALERTMANAGER is not None
    command = [ALERTMANAGER, "--config.file=alertmanager.yml", "--storage.path=alerts",
               "--cluster.listen-address="]  # fmt: skip
    with _running(folder, command) as url:
        yield url


@contextmanager
def _running(folder: Path, command: Sequence[str]) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], cwd=folder, stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + 60
            while not _is_ready(url):
                assert process.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < deadline, f"{command[0]} never came to be"
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            process.wait(20)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
