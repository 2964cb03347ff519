"""One project that lives through some faults, one after the other, with recovery after each."""

from __future__ import annotations

import datetime as dt
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd

from benchmarks.drill.faults import Fault
from benchmarks.drill.feed import Feed
from benchmarks.drill.feed_faults import FAULTS
from benchmarks.drill.passes import Inbox, take_in
from benchmarks.drill.traffic import (
    BASELINE_DAYS,
    DAY,
    MODEL,
    START,
    declare,
    make_day,
    volume,
)
from mlmon_dagster.project import Project
from mlmon_dagster.store import alert_state

WARM_UP, WATCHED = 28, 14  # days before the first fault, and of these night by night
RECOVERY = 12  # days after a fault, more than what is judged together at once
BUSY = 600
HEALTHY = Fault("none", "nothing goes wrong", ())
OnDay = Callable[[str], None]


@dataclass(frozen=True)
class Event:
    """An alert that opened or ended.

    Attributes:
        at: When, by the lane's clock.
        kind: ``opened`` or ``resolved``.
        monitor: The monitor, and after ``@`` the slice key, such as ``performance/roc_auc@all``.
        window: Its window's date.
        is_told: Whether messages are sent about it, rather than suppressed.
    """

    at: dt.datetime
    kind: str
    monitor: str
    window: dt.date
    is_told: bool


@dataclass
class Episode:
    """A stretch of days with one fault, and its recovery.

    Attributes:
        fault: The fault's name, ``none`` for the warm-up.
        start: First day of the fault.
        end: First day of the recovery.
        until: First day of what comes next.
        threads: Threads opened meanwhile.
        messages: Messages sent meanwhile.
        unresolved: Monitors that still fire when it ends.
    """

    fault: str
    start: dt.date
    end: dt.date
    until: dt.date
    threads: int = 0
    messages: int = 0
    unresolved: list[str] = field(default_factory=list)


@dataclass
class Lane:
    """What one project lived through."""

    episodes: list[Episode]
    events: list[Event]


class _Clock:
    moment = dt.datetime.combine(START, dt.time(3), dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.moment


def live(
    names: Sequence[str],
    seed: int,
    *,
    busy: int = BUSY,
    warm_up: int = WARM_UP,
    on_day: OnDay = lambda _text: None,
) -> Lane:
    """Let a project in a temporary folder live through some faults.

    Args:
        names: Faults, in order.
        seed: Of all randomness.
        busy: Rows of a weekday.
        warm_up: Healthy days before the first fault; 14 or more for the volume to have a past.
        on_day: Told before each fault.
    """
    faults = {fault.name: fault for fault in FAULTS}
    with tempfile.TemporaryDirectory(prefix="mlmon-drill-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        world = World(Path(folder), seed, busy)
        world.warm_up(warm_up)
        episodes = [Episode("none", START, START, world.today)]
        _note(world, episodes[0])
        for name in names:
            on_day(name)
            fault = faults[name]
            start = world.today
            for nth in range(fault.days):
                world.live_a_day(start + nth * DAY, fault, nth)
            world.recover(RECOVERY)
            episode = Episode(name, start, start + fault.days * DAY, world.today)
            _note(world, episode)
            episodes.append(episode)
        return Lane(episodes, world.events())


def _note(world: World, episode: Episode) -> None:
    episode.threads, episode.messages = world.inbox.n_threads, world.inbox.n_messages
    world.inbox.n_threads = world.inbox.n_messages = 0
    episode.unresolved = world.firing()


class World:
    """A project in a folder of its own, with a clock of its own, that receives traffic."""

    def __init__(self, folder: Path, seed: int, busy: int = BUSY) -> None:
        self.seed, self.busy, self.today = seed, busy, START
        self.clock, self.inbox, self.feed = _Clock(), Inbox(), Feed(folder)
        self.project = Project(folder, str(folder / ".mlmon" / "store"), now=self.clock)
        self.spec = declare(folder)

    def rng(self, date: dt.date) -> np.random.Generator:
        """Return the randomness of a day."""
        return np.random.default_rng([self.seed, date.toordinal(), crc32(MODEL.encode())])

    def warm_up(self, days: int) -> None:
        """Send the baseline and some healthy days; the last ones come night by night.

        What came at once does not tell how often ground truth is delivered.
        """
        first = START - (BASELINE_DAYS + 7) * DAY
        made = []
        for i in range(BASELINE_DAYS):
            date = first + i * DAY
            rng = self.rng(date)
            made.append(make_day(date, volume(date, rng, BUSY), rng, dataset="validation"))
        self.feed.send("predictions", first, pd.concat([d.predictions for d in made]), part="-all")
        self.feed.send("actuals", first, pd.concat([d.actuals for d in made]), part="-all")
        at_once = max(days - WATCHED, min(days, 1))
        for i in range(at_once):
            self.send(START + i * DAY, HEALTHY, 0)
        self.pass_night(START + at_once * DAY)
        for _ in range(days - at_once):
            self.live_a_day(self.today, HEALTHY, 0)

    def live_a_day(self, date: dt.date, fault: Fault, nth: int) -> None:
        """Send a day's traffic, and look at it in the night after it."""
        self.send(date, fault, nth)
        self.pass_night(date + DAY)

    def recover(self, days: int) -> None:
        """Live some healthy days, night by night.

        Nights in which nobody looked would be lateness of ground truth that the product learns.
        """
        for _ in range(days):
            self.live_a_day(self.today, HEALTHY, 0)

    def send(self, date: dt.date, fault: Fault, nth: int, n: int | None = None) -> None:
        """Send a day's traffic: predictions in the night, ground truth a night later."""
        rng = self.rng(date)
        size = volume(date, rng, self.busy) if n is None else n
        day = make_day(date, size, rng, features=fault.features, truth=fault.truth, nth=nth)
        broken = np.random.default_rng([self.seed, date.toordinal(), 1])
        fault.send(self.feed, date, fault.rows(day.predictions, broken, nth))
        if fault.actuals_delay is not None:
            actuals = fault.actuals(day.actuals, broken, nth)
            self.feed.send("actuals", date, actuals, delay=1 + fault.actuals_delay)

    def pass_night(self, today: dt.date) -> None:
        """Let files arrive and the project look at them, at three in the morning."""
        self.today = today
        self.clock.moment = dt.datetime.combine(today, dt.time(3), dt.UTC)
        self.feed.arrive(today)
        take_in(self.project, self.spec, self.inbox)

    def firing(self) -> list[str]:
        """Return the monitors that fire now."""
        with self.project.store.state.connect() as conn:
            rows = alert_state.load_alerts(conn, MODEL, states=alert_state.ACTIVE)
        return sorted(f"{row['monitor']}@{row['slice_key']}" for row in rows.values())

    def events(self) -> list[Event]:
        """Return when which alerts opened and ended."""
        with self.project.store.state.connect() as conn:
            alerts = alert_state.all_alerts(conn, MODEL)
            history = alert_state.all_events(conn, MODEL)
        return [
            Event(
                at=row["created_at"],
                kind=row["kind"],
                monitor=f"{alerts[key]['monitor']}@{alerts[key]['slice_key']}",
                window=row["window_start"].date(),
                is_told=not row["muted_reason"],
            )
            for key, rows in history.items()
            for row in rows
            if row["kind"] in ("opened", "resolved")
        ]


def live_lane(task: tuple[Sequence[str], int]) -> Lane:
    """Do `live` in a process of its own: (faults, seed)."""
    names, seed = task
    return live(names, seed, on_day=lambda text: print(f"  {text}", file=sys.stderr, flush=True))
