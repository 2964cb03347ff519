"""One chaos run: feed days, keep dispatchers alive as long as fate lets them, judge the channel."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from mlmon_dagster.alerts.dispatching import dispatch
from mlmon_dagster.alerts.messages.incidents import count_untold
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.errors import MlmonError
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.outbox import OUTAGE, outbox_health
from mlmon_dagster.store.state.schema import outbox
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.worlds import observe, result, rows_of
from tests.chaos.dispatching import (
    ABSENT,
    AFTERWARDS,
    LEASE,
    OVER,
    POLICY,
    Fate,
    Place,
    look_of,
    now_of,
    run,
)
from tests.chaos.verdicts import ERROR, Arriving, Verdict


@dataclass
class Toll:
    """What the dispatchers went through."""

    kills: Counter[str] = field(default_factory=Counter)
    freezes: Counter[str] = field(default_factory=Counter)
    n_restarts: int = 0
    n_crashed: int = 0


@dataclass
class Dispatchers:
    """The processes, each replaced when it dies."""

    place: Place
    deal: Callable[[], Fate]
    toll: Toll
    context: Any
    running: list[tuple[Any, Fate]] = field(default_factory=list)

    def start(self, n: int) -> None:
        """Start the first ones."""
        self.running = [self._one(self.deal()) for _ in range(n)]

    def _one(self, fate: Fate) -> tuple[Any, Fate]:
        process = self.context.Process(target=run, args=(self.place, fate), daemon=True)
        process.start()
        return process, fate

    def look_after(self, *, spare: bool = False) -> None:
        """Replace the dead and wake the frozen; with ``spare`` no new one is doomed."""
        for i, (process, fate) in enumerate(self.running):
            if process.is_alive():
                continue
            if process.exitcode == -signal.SIGKILL:
                self.toll.kills[fate.step if fate.action == "kill" else AFTERWARDS] += 1
            else:
                self.toll.n_crashed += 1
            self.running[i] = self._one(Fate() if spare else self.deal())
        for note in self.place.folder.glob("frozen-*"):
            text = note.read_text()
            # Past the lease, so that somebody else has taken the message over.
            if text and time.time() - float(text) > LEASE.total_seconds() + 1.0:
                pid = int(note.name.split("-")[1])
                note.unlink()
                os.kill(pid, signal.SIGCONT)
                self.toll.freezes[next(f.step for p, f in self.running if p.pid == pid)] += 1

    def wait_until_nobody_looks(self) -> None:
        """Wait for those that began before all were sent away; what comes is not theirs to see."""
        while any(
            process.is_alive()
            and self.place.looking(process.pid).exists()
            and not (self.place.folder / f"frozen-{process.pid}").exists()
            for process, _ in self.running
        ):
            self.look_after()
            time.sleep(0.02)

    def end(self) -> None:
        """Let all finish."""
        self.place.play(OVER)
        for process, _ in self.running:
            process.join(20)
            if process.is_alive():
                process.kill()
                process.join()


def play(
    place: Place,
    arriving: Arriving,
    looked: Sequence[int],
    deal: Callable[[], Fate],
    *,
    n_dispatchers: int = 4,
    n_kills: int = 100,
    restart: Callable[[float], None] | None = None,
    pauses: Sequence[float] = (),
    silence: Callable[[bool], None] = lambda _is_silent: None,
    silent: range = range(0),
    patience_seconds: float = 8.0,
    limit_seconds: float = 1200.0,
) -> Toll:
    """Feed all days and wait until nothing waits.

    Args:
        place: Where everything is.
        arriving: The verdicts by day.
        looked: The days on which dispatchers look; they take in all days since the last at once.
        deal: What gives the next process its fate.
        n_dispatchers: Processes at once.
        n_kills: How many are to be killed, spread over the days.
        restart: Stops the database at once and starts it after some seconds.
        pauses: Those seconds, one restart each, spread over the days.
        silence: Lets Slack answer nothing, or answer again.
        silent: The looks, counted from 0, at which it answers nothing.
        patience_seconds: Longest wait for one day's share of kills.
        limit_seconds: After so long what is left counts as lost.
    """
    deadline = time.monotonic() + limit_seconds
    toll, days = Toll(), list(looked)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.chaos.dispatching", "psycopg2", "alembic.command"])
    down = {days[len(days) * (i + 1) // (len(pauses) + 1)]: p for i, p in enumerate(pauses)}
    crew = Dispatchers(place, deal, toll, context)
    place.play(ABSENT)
    crew.start(n_dispatchers)
    for i, (before, day) in enumerate(pairwise([0, *days])):
        place.play(ABSENT)
        crew.wait_until_nobody_looks()
        _feed(place, [v for late in range(before + 1, day + 1) for v in arriving[late]])
        silence(i in silent)
        place.play(day)
        if day in down and restart:
            restart(down[day])
            toll.n_restarts += 1
        share, patience = n_kills * i / len(days), time.monotonic()
        while time.monotonic() < deadline:
            crew.look_after()
            waited = time.monotonic() - patience > patience_seconds
            if place.written(day).exists() and (toll.kills.total() >= share or waited):
                break
            time.sleep(0.02)
    while time.monotonic() < deadline and (_waiting(place) or list(place.folder.glob("frozen-*"))):
        crew.look_after(spare=toll.kills.total() >= n_kills)
        time.sleep(0.1)
    crew.end()
    return toll


def look_through(
    store: Store,
    place: Place,
    arriving: Arriving,
    looked: Sequence[int],
    silence: Callable[[bool], None] = lambda _is_silent: None,
    silent: range = range(0),
) -> None:
    """Play the looks one after the other in this process; nothing breaks but Slack, as in play."""
    receiver = SlackReceiver("xoxb-right", base_url=place.slack_url, timeout_seconds=10)
    policy = replace(POLICY, settle_seconds=0.0, longest_backoff_seconds=0.05)
    for i, (before, day) in enumerate(pairwise([0, *looked])):
        silence(i in silent)
        late = range(before + 1, day + 1)
        observe(store, *(_row(v) for of_day in late for v in arriving[of_day]))
        dispatch(
            store,
            place.specs(),
            now_of(day),
            {"slack": receiver},
            policy=policy,
            budget_seconds=0.2 if i in silent else 40.0,
            max_messages=1000,
        )


def _feed(place: Place, verdicts: Sequence[Verdict]) -> None:
    """Write verdicts the way checks do, and once more, as a run that is tried again does."""
    rows = [_row(verdict) for verdict in verdicts]
    while True:
        try:
            store = open_store(place.folder / "store", place.db_url or None)
            observe(store, *rows)
            observe(store, *rows)
            store.close()
        except (SQLAlchemyError, MlmonError):
            time.sleep(0.2)
        else:
            return


def _row(verdict: Verdict) -> dict[str, Any]:
    failed = verdict.status in ("WARN", "ERROR")
    return result(
        verdict.day,
        verdict.status,
        model=verdict.model,
        column_name=verdict.column,
        message=verdict.mark if failed else "",
        data_version=verdict.version,
        k=verdict.k,
        of_n=verdict.n,
        excess=verdict.excess,
        excess_error=None if verdict.excess is None else ERROR,
    )


def _waiting(place: Place) -> int:
    store = open_store(place.folder / "store", place.db_url or None)
    n = outbox_health(store.state).n_waiting
    store.close()
    return n


def looks_of(place: Place) -> dict[str, int]:
    """Return at which look each message was written, by its key."""
    store = open_store(place.folder / "store", place.db_url or None)
    found = written_at(store)
    store.close()
    return found


def written_at(store: Store) -> dict[str, int]:
    """Return at which look each message was written; a summary bears the date of what it replaces,
    and was written no earlier than the messages before it.
    """
    found, newest = dict[str, int](), 0
    for row in rows_of(store, outbox):
        newest = max(newest, look_of(row["created_at"]))
        found[row["idempotency_key"]] = (
            newest if row["kind"] == OUTAGE else look_of(row["created_at"])
        )
    return found


def untold(place: Place) -> int:
    """Count the unmuted events without a message, as the product does."""
    store = open_store(place.folder / "store", place.db_url or None)
    n = count_untold(store, place.specs(), now_of(10**6))
    store.close()
    return n


def prepare(
    folder: Path, db_url: str, slack: FakeSlack, n_models: int, *, forgets: bool = False
) -> Place:
    """Make the folder and the database of a run."""
    place = Place(folder, db_url, slack.url, n_models, forgets)
    open_store(place.folder / "store", db_url or None).close()
    return place
