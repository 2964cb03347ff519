"""The whole way from monitor results to delivered messages, and a test message."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mlmon_dagster.alerts.deliver import DeliveryReport, deliver
from mlmon_dagster.alerts.fold import fold_results
from mlmon_dagster.alerts.grouping import flush_groups
from mlmon_dagster.alerts.identity import DEFAULT_ENVIRONMENT
from mlmon_dagster.alerts.links import Links
from mlmon_dagster.alerts.message import Message
from mlmon_dagster.alerts.outgoing import outbox_row
from mlmon_dagster.alerts.receivers import Receiver
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store import Store, outbox


@dataclass(frozen=True)
class DispatchReport:
    """What one dispatch did."""

    n_folded: int
    n_written: int
    delivery: DeliveryReport

    def text(self) -> str:
        """Say it in one line."""
        d = self.delivery
        line = (
            f"{self.n_folded} results taken in, {self.n_written} messages written, "
            f"{d.n_sent} delivered, {d.n_waiting} waiting, {d.n_dead} refused"
        )
        return f"{line}: {'; '.join(d.errors)}" if d.errors else line


def dispatch(
    store: Store,
    specs: Sequence[ModelSpec],
    now: dt.datetime,
    receivers: Mapping[str, Receiver],
    *,
    environment: str = DEFAULT_ENVIRONMENT,
    links: Links | None = None,
    backfilling: Collection[str] = (),
    budget_seconds: float = 40.0,
    max_messages: int = 20,
) -> DispatchReport:
    """Fold new results, write the messages that are due, deliver what waits."""
    n_folded = fold_results(store, specs, now, environment=environment)
    n_written = flush_groups(store, specs, now, links=links, backfilling=backfilling)
    report = deliver(store, receivers, budget_seconds=budget_seconds, max_messages=max_messages)
    return DispatchReport(n_folded, n_written, report)


def send_test(
    store: Store,
    spec: ModelSpec,
    now: dt.datetime,
    receivers: Mapping[str, Receiver],
) -> DeliveryReport:
    """Send a test message the way an alert of the model would go."""
    slack = spec.alerts.slack
    receiver, channel = ("slack", slack.channel) if slack else ("console", "terminal")
    group = {
        "receiver": receiver,
        "channel": channel,
        "group_key": f"{receiver}|{channel}|{spec.model}|test|{now.isoformat()}",
    }
    message = Message(
        title=f"{spec.model}: this is a test, alerts arrive here",
        mood="OK",
        notes=(("Owner", ", ".join(spec.owners)),),
        mention=(slack.mention or "") if slack else "",
    )
    key = hashlib.sha256(group["group_key"].encode()).hexdigest()
    with store.state.begin() as conn:
        outbox.enqueue(conn, [outbox_row(group, key, "test", message, head_key="", now=now)])
    return deliver(store, receivers)
