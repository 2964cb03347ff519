"""One look at the landing folder, as the planner and the dispatcher take it, without Dagster.

The same functions that assets, checks and sensors call, in the same order, in this process: the
drill is about what is noticed, not about the runs' bookkeeping.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.alerts.messages.incidents import flush_groups
from mlmon_dagster.alerts.receivers.base import Delivery, NotPosted, Outcome, Posted
from mlmon_dagster.alerts.receivers.worker import DeliveryPolicy, deliver
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec
from tests.pipeline.looking import look

_UNPACED = DeliveryPolicy(pace_seconds=0.0)


@dataclass
class Inbox:
    """A channel that only counts.

    Attributes:
        n_threads: Messages that opened a thread.
        n_messages: Messages in all; a first message brought up to date is not a new one.
        titles: First lines, in order.
    """

    n_threads: int = 0
    n_messages: int = 0
    titles: list[str] = field(default_factory=list)

    def send(self, delivery: Delivery) -> Outcome:
        """Take a message."""
        if not delivery.update_ts:
            self.n_messages += 1
            self.n_threads += not delivery.thread_ts
            self.titles.append(str(delivery.payload["plain"]).splitlines()[0])
        return Posted(ts=delivery.update_ts or f"{self.n_messages}.0", channel_id="C1")

    def look_up(self, delivery: Delivery, since: float) -> Outcome:
        """Nothing is ever unclear here."""
        return NotPosted("not asked for")

    def retract(self, delivery: Delivery, posted: Posted) -> Outcome:
        """Nothing is posted twice."""
        return NotPosted("nothing is posted twice")


def take_in(project: Project, spec: ModelSpec, inbox: Inbox) -> None:
    """Ingest what is new, compute and judge what that touches, and send what is due."""
    look(project, spec, "drill")
    send_due(project, spec, inbox)


def send_due(project: Project, spec: ModelSpec, inbox: Inbox) -> None:
    """Turn verdicts into alerts and messages, and deliver them to the inbox."""
    store, now = project.store, project.now()
    fold_results(store, [spec], now)
    flush_groups(store, [spec], now)
    deliver(store, {"slack": inbox}, max_messages=100, policy=_UNPACED)
