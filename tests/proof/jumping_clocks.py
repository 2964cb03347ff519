"""Histories of a model under clocks that jump, beside the same histories under a calm clock.

A history is some days of landing files and of commands: a look of the planner, a dispatch, upkeep,
the watchdog and the doctor. Jumps go back and ahead by an hour, a day or a year; they last for some
commands, or happen between two readings of the clock within one. Meanwhile Slack fails, and locks
are left by processes of other machines that died. At the end the clock is right.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
import yaml

from mlmon_dagster.alerts.dispatching import dispatch
from mlmon_dagster.alerts.messages.incidents import count_untold, something_waits
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.alerts.receivers.worker import DeliveryPolicy
from mlmon_dagster.commands.alerts import watchdog
from mlmon_dagster.commands.doctor import retention
from mlmon_dagster.errors import StoreError
from mlmon_dagster.pipeline.quiet_models import QuietModels
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, spec_from_mapping
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.clocks import LONGEST_LEASE, LONGEST_PAUSE
from mlmon_dagster.store.outbox import outbox_health
from mlmon_dagster.store.state import metric_log, model_history, schema
from mlmon_dagster.store.state.writing import BusyError, writer_lock
from mlmon_dagster.store.upkeep.integrity import repair_model
from mlmon_dagster.store.upkeep.maintenance import find_first_dates, maintain
from tests.alerts.fake_slack import FakeSlack, fake_slack
from tests.conftest import new_database
from tests.pipeline.looking import look
from tests.proof import world

BEGIN: Final = dt.datetime(2024, 1, 2, 6, tzinfo=dt.UTC)
N_DAYS: Final = 6
HOUR, DAY, YEAR = dt.timedelta(hours=1), dt.timedelta(days=1), dt.timedelta(days=365)
SIZES: Final = (HOUR, DAY, YEAR)
COMMANDS: Final = ("look", "deliver", "maintain", "watchdog", "doctor")
KINDS: Final = (
    "untold", "told twice", "deleted too early", "never computed", "silent waits above 5 s",
)  # fmt: skip
_POLICY: Final = DeliveryPolicy(pace_seconds=0, idle_seconds=0)
# The waits of PostgreSQL's server pass in real time.
_IMPATIENT: Final = DeliveryPolicy(
    first_backoff_seconds=0.01, longest_backoff_seconds=0.02, settle_seconds=0, pace_seconds=0,
    longest_pause_seconds=0.02,
)  # fmt: skip


def declare() -> dict[str, Any]:
    """Return the declaration of the tiny model, with alerts and rows that go by age."""
    declared = world.make_spec().model_dump(mode="json", exclude_unset=True)
    del declared["columns"]["score"]
    declared |= {
        "alerts": {"slack": {"channel": "#ml-alerts"}, "group_wait": "5m"},
        "actuals": {"expected_within": "1d", "closed_after": "3d", "min_coverage": 0.9},
        "retention": {"production": "4d"},
        "features": {"age": {"type": "numeric", "nullable": True}},
        "monitors": {
            "drift": {"columns": ["age"]},
            "quality": {"null_rate": {"above": 0.3}},
            "performance": [{"metric": "accuracy", "drop": 0.1}],
        },
    }
    return declared


@dataclass
class Clock:
    """A clock that is off by some time, or by another time at each reading.

    Attributes:
        right: What it would say if it were right.
        off: By how much it is ahead, at one reading after the other; the last one stays.
    """

    right: dt.datetime = BEGIN
    off: list[dt.timedelta] = field(default_factory=lambda: [dt.timedelta()])

    def __call__(self) -> dt.datetime:
        """Read it."""
        return self.right + (self.off.pop(0) if len(self.off) > 1 else self.off[0])


@dataclass(frozen=True)
class Step:
    """A command of a history.

    Attributes:
        moment: When it is given.
        command: One of `COMMANDS`.
        lands: Files that land before it, by name: their lines.
        off: By how much the clock is ahead, reading by reading.
        is_slack_down: Whether Slack fails meanwhile.
        leaves_lock: Whether a process of another machine dies before it, holding the lock.
    """

    moment: dt.datetime
    command: str
    lands: dict[str, list[dict[str, Any]]]
    off: tuple[dt.timedelta, ...] = (dt.timedelta(),)
    is_slack_down: bool = False
    leaves_lock: bool = False


def draw_days(rng: random.Random, n_days: int) -> list[Step]:
    """Draw a history under a calm clock, with a Slack and processes that never fail."""
    bad = set(rng.sample(range(1, n_days), min(2, n_days - 1)))
    steps = []
    for day in range(n_days):
        for part, command in enumerate(("look", "deliver", *rng.choices(COMMANDS, k=2))):
            lands = _files_of(day, is_bad=day in bad) if part == 0 else {}
            moment = BEGIN + day * DAY + part * dt.timedelta(hours=3)
            steps.append(Step(moment, command, lands))
    return steps


def with_jumps(steps: Sequence[Step], rng: random.Random, n_jumps: int) -> list[Step]:
    """Return a history under a clock that jumps so often, with failures meanwhile."""
    off = [step.off for step in steps]
    for start in rng.sample(range(len(steps)), n_jumps):
        jump = rng.choice(SIZES) * rng.choice((1, -1))
        if rng.random() < 0.3:  # within the command, to stay there or to come back
            before = [dt.timedelta()] * rng.randrange(4)
            off[start] = (
                *before,
                *[jump] * rng.randrange(1, 6),
                rng.choice((jump, dt.timedelta())),
            )
        else:
            for place in range(start, min(start + rng.randrange(1, 4), len(steps))):
                off[place] = (jump,)
    return [
        replace(
            step,
            off=off[n],
            is_slack_down=off[n] != step.off and rng.random() < 0.5,
            leaves_lock=rng.random() < 0.05,
        )
        for n, step in enumerate(steps)
    ]


def _files_of(day: int, *, is_bad: bool) -> dict[str, list[dict[str, Any]]]:
    """Return what lands on the morning after a day: its predictions, and ground truth."""
    date = (BEGIN + (day - 1) * DAY).date()
    at = dt.datetime.combine(date, dt.time(12), dt.UTC)
    predictions = [
        {
            "id": f"p{day}-{n}", "dataset": "production", "score": (n % 10) / 10 + 0.05,
            "decision": int(n % 10 > 4), "at": (at + n * dt.timedelta(minutes=1)).isoformat(),
            "age": None if is_bad and n % 2 else 30.0 + n % 4,
        }
        for n in range(20)
    ]  # fmt: skip
    known = (at + dt.timedelta(hours=3)).isoformat()
    truths = [
        {"id": f"p{of}-{n}", "truth": int(n % 10 > 4), "known_at": known}
        for of in (day - 1, day)
        for n in range(20)
    ]
    return {f"predictions/{day}": predictions} | ({f"actuals/{day}": truths} if day % 2 else {})


@dataclass
class History:
    """A model in a store of its own, and the commands that it is given."""

    folder: Path
    slack: FakeSlack
    db_url: str | None = None
    n_silent_waits: int = 0
    too_early: set[Row] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Open the store with a clock that can be put forward and back."""
        self.spec, self.clock = spec_from_mapping(declare()), Clock()
        self.home = self.folder / "project"
        (self.home / "models").mkdir(parents=True)
        (self.home / "models" / "tiny.yaml").write_text(yaml.safe_dump(declare()))
        self.store = open_store(self.folder / "store", self.db_url, clock=self.clock)
        self._land("predictions/training", [world._trained(n) for n in range(60)])
        self.project = Project(
            self.home, str(self.store.folder), self.db_url, now=self.clock, clock=self.clock
        )
        self.project.__dict__["store"] = self.store
        self.receiver = SlackReceiver(self.slack.token, base_url=self.slack.url)
        self.quiet = QuietModels(self.project)

    def play(self, steps: Sequence[Step]) -> None:
        """Give all commands, then put the clock right and wait as long as anything may wait."""
        for step in steps:
            self.clock.right, self.clock.off = step.moment, list(step.off)
            for name, rows in step.lands.items():
                self._land(name, rows)
            self.slack.fall_silent(step.is_slack_down)
            if step.leaves_lock:
                self._leave_lock()
            self._pass_lock()
            self.clock.off = list(step.off)
            self._give(step.command)
        self.slack.fall_silent(False)
        self.clock.off = [dt.timedelta()]
        self._pass_lock()
        if not retention(self.project).is_fine:
            repair_model(self.store, self.spec, self.home, self.clock())
        for command in ("look", "maintain", "look", "deliver"):
            self.clock.right += dt.timedelta(hours=2)
            self._give(command)
        ends = self.clock.right + LONGEST_PAUSE
        while something_waits(self.store) and self.clock.right < ends:
            self.clock.right += dt.timedelta(minutes=5)
            self._give("deliver")

    def _land(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        path = self.home / "landing" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def _give(self, command: str) -> None:
        match command:
            case "look":
                self._look()
            case "deliver":
                policy = _POLICY if self.db_url is None else _IMPATIENT
                dispatch(
                    self.store, [self.spec], self.clock(), {"slack": self.receiver}, policy=policy
                )
                model_history.note_beat(
                    self.store.state, model_history.DISPATCHER, self.store.clock()
                )
            case "maintain":
                before = rows_of(self.store, self.spec)
                maintain(self.store, self.spec, self.clock())
                first = find_first_dates(self.spec, self.clock.right)[world.PRODUCTION]
                gone = before - rows_of(self.store, self.spec)
                self.too_early |= {row for row in gone if row.date >= first}
            case "watchdog":
                said = io.StringIO()
                with redirect_stderr(said), redirect_stdout(said), suppress(SystemExit):
                    watchdog.main([], obj=self.project, standalone_mode=False)
            case "doctor":
                retention(self.project)

    def _look(self) -> None:
        progress, folders = self.quiet.progress(), self.quiet.folders(self.spec)
        if self.quiet.is_quiet(self.spec, progress):
            return
        try:
            look(self.project, self.spec, "proof")
        except StoreError as error:  # a mark that lies ahead of a clock that is behind
            if "mlmon store repair" not in str(error):
                raise
            return
        self.quiet.note(self.spec, folders, progress)

    def _leave_lock(self) -> None:
        """Let a process of another machine die whose lease the present clock gave."""
        row = {
            "name": f"ingest/{self.spec.model}", "owner": "dead", "host": "elsewhere", "pid": 42,
            "expires_at": self.store.clock() + LONGEST_LEASE,
        }  # fmt: skip
        with self.store.state.begin() as conn:
            conn.execute(sa.insert(schema.writer_lock).values(row))

    def _pass_lock(self) -> None:
        """Wait for a lock as a command does, in virtual time: told of its holder, and a minute."""
        name, last = f"ingest/{self.spec.model}", self.clock.off[-1]
        self.clock.off = [last]
        for is_first in (True, False):
            try:
                with writer_lock(self.store.state, name, wait_seconds=0):
                    return
            except BusyError as error:
                self.n_silent_waits += "held by process 42 on elsewhere" not in str(error)
                self.n_silent_waits += not is_first and self.db_url is None
            self.clock.right += LONGEST_LEASE
        with self.store.state.begin() as conn:  # PostgreSQL's own clock has not gone on
            conn.execute(sa.delete(schema.writer_lock))


class Row(NamedTuple):
    """A row of the event log."""

    stream: str
    prediction_id: str
    date: str


def rows_of(store: Store, spec: ModelSpec) -> set[Row]:
    """Return the rows of the event log."""
    log = store.event_log(spec)
    return {
        Row(stream, row["prediction_id"], row["window_date"])
        for stream in ("predictions", "actuals")
        for row in log.rows(stream, ["prediction_id", "window_date"]).to_pylist()
    }


class Episode(NamedTuple):
    """An episode that was told: its monitor, its first and its last failing window."""

    monitor: str
    first: dt.datetime
    last: dt.datetime

    def is_of(self, other: Episode) -> bool:
        """Tell whether it is, at least partly, the same."""
        return (
            self.monitor == other.monitor and self.first <= other.last and other.first <= self.last
        )


@dataclass(frozen=True)
class Left:
    """What a history leaves.

    Attributes:
        rows: The rows that are younger than their age, by a right clock.
        too_early: Those that upkeep deleted though they were younger.
        numbers: The numbers of each window.
        told: The episodes that a message tells.
        n_untold: Events and messages that nobody has been told.
        n_twice: How much was told twice.
    """

    rows: set[Row]
    too_early: set[Row]
    numbers: dict[tuple[str, ...], tuple[object, ...]]
    told: set[Episode]
    n_untold: int
    n_twice: int


def left_by(history: History) -> Left:
    """Read what a history left."""
    store, spec = history.store, history.spec
    first = find_first_dates(spec, history.clock.right)[world.PRODUCTION]
    rows = {row for row in rows_of(store, spec) if row.date >= first}
    frame = metric_log.newest(store.state, spec.model, dataset=world.PRODUCTION)
    keys = ["window_start", "metric", "column_name", "slice_key", "slice_value", "model_version"]
    numbers = {
        tuple(str(row[key]) for key in keys): (row["n"], f"{row['value']:.9g}")
        for row in frame.to_dict("records")
        if row["value"] is not None
    }
    told, n_twice = _told(store, history.slack)
    waiting = outbox_health(store.state).n_waiting
    untold = count_untold(store, [spec], history.clock() + YEAR)
    return Left(rows, history.too_early, numbers, told, waiting + untold, n_twice)


def _told(store: Store, slack: FakeSlack) -> tuple[set[Episode], int]:
    """Return the episodes that were told, and how much was told twice.

    That is a message that is there twice, or an episode that two messages tell as new.
    """
    e, a, o = schema.alert_event.c, schema.alert.c, schema.outbox.c
    with store.state.connect() as conn:
        query = sa.select(
            e.fingerprint, e.episode, a.monitor, e.first_window, e.last_window, e.is_late,
            sa.case((e.episode == a.episode, a.failed_window)).label("newest"),
        ).join(schema.alert, a.fingerprint == e.fingerprint)  # fmt: skip
        events = {
            (f"{row.fingerprint}:{row.episode}", row.is_late): Episode(
                row.monitor, row.first_window, row.newest or row.last_window
            )
            for row in conn.execute(query.order_by(e.id))
        }
        sent = conn.execute(sa.select(o.kind, o.payload).where(o.status == "sent")).all()
    as_new, told = Counter[str](), set[str]()
    for kind, payload in sent:
        episodes = {":".join(key.split(":")[:2]) for key in json.loads(payload)["tells"]}
        told |= episodes
        # What was told before is in a summary of an outage if there is late news of it.
        late = {episode for episode in episodes if kind == "outage" and (episode, True) in events}
        as_new.update(episodes - late if kind in ("opened", "summary", "outage") else ())
    copies = Counter(message.key for message in slack.messages)
    twice = [n - 1 for n in (*as_new.values(), *copies.values())]
    return {one for (episode, _), one in events.items() if episode in told}, sum(twice)


def compare(calm_one: Left, jumping: Left) -> Counter[str]:
    """Count what a history under jumping clocks lacks, or has twice."""
    deleted = (calm_one.rows - jumping.rows) | jumping.too_early
    wrong = [key for key, found in calm_one.numbers.items() if jumping.numbers.get(key) != found]
    untold = [one for one in calm_one.told if not any(map(one.is_of, jumping.told))]
    return Counter({
        "untold": len(untold) + jumping.n_untold,
        "told twice": jumping.n_twice,
        "deleted too early": len(deleted),
        "never computed": len({key[0] for key in wrong}),
        "episodes told": len(calm_one.told),
        "rows": len(calm_one.rows),
        "windows": len({key[0] for key in calm_one.numbers}),
    })  # fmt: skip


def play_beside_calm(
    folder: Path, seed: int, jumps: Sequence[int], url: str | None = None, n_days: int = N_DAYS
) -> Counter[str]:
    """Play a drawn history without jumps, and some times with jumps; compare each with the first.

    Args:
        folder: Where the stores are made.
        seed: What everything is drawn from.
        jumps: How many there are in each history that has any.
        url: A server of PostgreSQL, on which each fifth of these gets a database; none by default.
        n_days: How long a history is.
    """
    days = draw_days(random.Random(seed), n_days)
    calm_one, _ = _play(folder / "calm", days, None)
    found = Counter[str]()
    for n, n_jumps in enumerate(jumps):
        rng = random.Random(f"{seed} {n}")
        with new_database(url) if url and n % 5 == 4 else nullcontext() as db_url:
            left, n_silent = _play(folder / f"jumping{n}", with_jumps(days, rng, n_jumps), db_url)
        of_it = compare(calm_one, left) + Counter({KINDS[-1]: n_silent})
        if wrong := {kind: of_it[kind] for kind in KINDS if of_it[kind]}:
            sys.stderr.write(f"history {seed} {n} with {n_jumps} jumps: {wrong}\n")
        found += of_it + Counter({"jumps": n_jumps, "histories": 1})
    return found


def _play(folder: Path, steps: Sequence[Step], url: str | None) -> tuple[Left, int]:
    with fake_slack() as slack:
        history = History(folder, slack, url)
        try:
            history.play(steps)
            return left_by(history), history.n_silent_waits
        finally:
            history.store.close()
