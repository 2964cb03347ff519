"""One dispatcher process that is killed or frozen at a named step."""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from mlmon_dagster.alerts.dispatching import dispatch
from mlmon_dagster.alerts.messages import incidents, outage
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.alerts.receivers.worker import DeliveryPolicy
from mlmon_dagster.errors import MlmonError
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state import writing
from tests.alerts.worlds import day as start_of
from tests.alerts.worlds import spec_of

CHANNELS = {f"#c{i}": f"C100000{i}" for i in range(2)}
TIMEOUT_SECONDS = 1
LEASE = dt.timedelta(seconds=4)
LAST = 400  # a day after all that are judged: verdicts on what has not been are not believed
AFTERWARDS = "dispatch.written"  # where a worker dies that was frozen once
OVER = 0  # the round that ends the processes
ABSENT = -1  # nobody looks
POLICY = DeliveryPolicy(
    lease=LEASE,
    first_backoff_seconds=0.05,
    longest_backoff_seconds=0.5,
    settle_seconds=1.5,
    pace_seconds=0.0,
    idle_seconds=0.3,
)


@dataclass(frozen=True)
class Place:
    """Where a dispatcher works.

    Attributes:
        folder: Of the store, and of the files by which the processes talk.
        db_url: The state database.
        slack_url: The fake Slack.
        n_models: How many models there are.
        forgets: Whether the dispatchers follow the rule of old: what began and ended between two
            looks is not told. To show that the harness sees that.
    """

    folder: Path
    db_url: str
    slack_url: str
    n_models: int
    forgets: bool = False

    @property
    def round(self) -> int:
        """The day that is being played."""
        try:
            return int((self.folder / "round").read_text() or OVER)
        except FileNotFoundError:
            return OVER

    def play(self, day: int) -> None:
        """Tell every process which day it is."""
        staged = self.folder / "round.new"
        staged.write_text(str(day))
        staged.replace(self.folder / "round")

    def written(self, day: int) -> Path:
        """Return the file that says that a dispatcher wrote all the messages of a day."""
        return self.folder / f"written-{day}"

    def looking(self, pid: int) -> Path:
        """Return the file that is there while a dispatcher may look."""
        return self.folder / f"looking-{pid}"

    def specs(self) -> list[ModelSpec]:
        """Return the models, spread over the channels, each message due at once."""
        channels = list(CHANNELS)
        return [
            spec_of(
                f"m{i:02d}",
                slack={"channel": channels[i % len(channels)]},
                group_wait="0s",
                group_interval="0s",
            )
            for i in range(self.n_models)
        ]


def look_of(moment: dt.datetime) -> int:
    """Return the day that an injected time stands for."""
    return round((moment - start_of(LAST)) / dt.timedelta(seconds=5))


def now_of(day: int) -> dt.datetime:
    """Return the injected time: days in seconds, so that nothing repeats."""
    return start_of(LAST) + day * dt.timedelta(seconds=5)


OUTAGE_AFTER = now_of(10) - now_of(0)


def count_outages_in_days() -> None:
    """Let a Slack that is silent for ten injected days be an outage."""
    outage.OUTAGE_AFTER = OUTAGE_AFTER


@dataclass
class Fate:
    """What becomes of a process: ``kill`` or ``freeze`` when it reaches a step the nth time."""

    action: str = ""
    step: str = ""
    nth: int = 1
    count: int = field(default=0)

    def meet(self, reached: str, folder: Path) -> None:
        """Die or freeze without any clean-up if the moment has come."""
        if reached != self.step:
            return
        self.count += 1
        if self.count != self.nth:
            return
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / f"frozen-{os.getpid()}").write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGSTOP)
        # Woken again it ends what it was at, and makes room for one with a fate of its own.
        self.action, self.step, self.nth, self.count = "kill", AFTERWARDS, 1, 0


def forget_the_unseen() -> None:
    """Put the rule of old in force: only what fires when somebody looks is told."""
    incidents.note_owed = lambda _state: None  # type: ignore[assignment]


def run(place: Place, fate: Fate) -> None:
    """Dispatch until the run is over; an error ends one dispatch, as it ends one tick."""
    written: list[Callable[[], None]] = []

    def reached(step: str) -> None:
        if step == "dispatch.written":
            written[-1]()
        fate.meet(step, place.folder)

    writing.on_reached = reached
    count_outages_in_days()
    if place.forgets:
        forget_the_unseen()
    receiver = SlackReceiver(
        "xoxb-right", base_url=place.slack_url, timeout_seconds=TIMEOUT_SECONDS
    )
    store: Store | None = None
    specs, looking = place.specs(), place.looking(os.getpid())
    looking.touch()
    while (day := place.round) != OVER:
        if day == ABSENT:
            looking.unlink(missing_ok=True)
            time.sleep(0.02)
            looking.touch()
            continue
        written.append(place.written(day).touch)
        try:
            store = store or open_store(place.folder / "store", place.db_url or None)
            report = dispatch(
                store,
                specs,
                now_of(day),
                {"slack": receiver},
                policy=POLICY,
                budget_seconds=2.0,
            )
        except (SQLAlchemyError, MlmonError):  # the database is down: the next tick tries again
            time.sleep(0.2)
            continue
        if not (report.n_folded or report.n_written or report.delivery.n_sent):
            time.sleep(0.2)
