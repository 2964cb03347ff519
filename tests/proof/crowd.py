"""Strangers by the thousand come to `mlmon collect`, and somebody asks meanwhile if it lives."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from mlmon_dagster.collect.app import Listening
from mlmon_dagster.store import open_store
from tests import forked
from tests.push import strangers
from tests.push.collecting import running

STRANGERS: Final = {"silent": strangers.say_nothing, "never reading": strangers.never_read}
PAUSE: Final = 0.2  # seconds between probes
STAY: Final = 15.0  # seconds that strangers stay after all have come


@dataclass(frozen=True)
class Met:
    """What a server did while strangers came.

    Attributes:
        n_came: Strangers.
        n_answers: Probes that were answered.
        n_failed: Probes that were not.
        slowest: Seconds of the slowest answer.
        megabytes: The most memory that the server's process ever had.
    """

    n_came: int
    n_answers: int
    n_failed: int
    slowest: float
    megabytes: float


def serve(folder: Path, pair: tuple[Path, Path] | None, end: Connection) -> None:
    """Run a collector in this process until somebody says that it is over."""
    strangers.allow_files(16_384)
    store = open_store(folder / "store")
    most = Listening().max_connections  # as `mlmon collect` has it, so that all of them can stay
    with running(store, folder, max_connections=most, certificate=pair) as collector:
        end.send(collector.port)
        end.recv()
    store.close()


def meet(folder: Path, kind: str, n: int, *, is_secured: bool) -> Met:
    """Let n strangers of a kind come to a server of its own, and ask it all the while."""
    strangers.allow_files(16_384)
    pair = strangers.make_certificate(folder) if is_secured else None
    context = strangers.trusting(pair[0]) if pair else None
    processes = forked.processes()
    ours, theirs = processes.Pipe()
    server = processes.Process(target=serve, args=(folder, pair, theirs))
    server.start()
    port = ours.recv()
    with ExitStack() as opened, strangers.probing(port, context, PAUSE) as found:
        links = strangers.let_come(n, STRANGERS[kind], port, context, opened)
        time.sleep(STAY)
    status = Path(f"/proc/{server.pid}/status").read_text()
    [peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    ours.send(None)
    server.join()
    return Met(len(links), found.n_answers, len(found.failed), found.slowest, int(peak) / 1024)
