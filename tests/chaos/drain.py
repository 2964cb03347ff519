"""An outbox that has grown long drains at a steady pace, in memory that does not grow with it."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

from mlmon_dagster.alerts.messages.message import Item, Message, outbox_row, row_key
from mlmon_dagster.alerts.receivers.base import Delivery, NotPosted, Outcome, Posted
from mlmon_dagster.alerts.receivers.worker import deliver
from mlmon_dagster.store import open_store, outbox
from tests.alerts.worlds import IMPATIENT, day

GROUPS = 100


@dataclass
class Taking:
    """A receiver that takes everything at once and remembers the order of each group."""

    n: int = 0
    n_wrong: int = 0

    def send(self, delivery: Delivery) -> Outcome:
        number = int(delivery.payload["plain"].split("number ")[1].split()[0])
        self.n_wrong += number < self.n
        self.n = number
        return Posted()

    def look_up(self, _delivery: Delivery, _since: float) -> Outcome:
        return Posted()

    def retract(self, _delivery: Delivery, _posted: Posted) -> Outcome:
        return NotPosted("nothing is posted twice")


@dataclass(frozen=True)
class Drained:
    """What it took: ``peak_mb`` is the most that Python held at once, in megabytes."""

    n_messages: int
    seconds: float
    peak_mb: float
    n_wrong: int


def drain(folder: Path, n_rows: int, n_messages: int = 150) -> Drained:
    """Fill an outbox and deliver the first messages of it in one call."""
    store = open_store(folder)
    with store.state.begin() as conn:
        for first in range(0, n_rows, 1000):
            outbox.enqueue(conn, [_row(i) for i in range(first, min(first + 1000, n_rows))])
    receiver = Taking()
    deliver(store, {"slack": receiver}, policy=IMPATIENT, max_messages=1)
    tracemalloc.start()
    began = time.monotonic()
    report = deliver(
        store, {"slack": receiver}, policy=IMPATIENT, budget_seconds=600, max_messages=n_messages
    )
    seconds, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    store.close()
    return Drained(report.n_sent + 1, seconds, peak / 1e6, receiver.n_wrong)


def _row(number: int) -> dict[str, object]:
    group = {
        "group_key": f"slack|#c|m{number % GROUPS}|drift",
        "receiver": "slack",
        "model": f"m{number % GROUPS}",
        "family": "drift",
        "channel": f"#c{number % GROUPS}",
        "version": number,
    }
    text = Message(f"number {number} of many", "WARN", (Item("what is wrong"),) * 6)
    return outbox_row(group, row_key(group), "opened", text, head_key="", now=day(1))
