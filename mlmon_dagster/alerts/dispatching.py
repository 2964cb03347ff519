"""The whole way from monitor results to delivered messages, and a test message."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results, retire_undeclared
from mlmon_dagster.alerts.lifecycle.routing import (
    PLATFORM,
    Destination,
    collect_mentions,
    default_destinations,
    platform_spec,
    stand_in,
)
from mlmon_dagster.alerts.lifecycle.transitions import DEFAULT_ENVIRONMENT
from mlmon_dagster.alerts.messages.digest import Describe, say_nothing, write_digests
from mlmon_dagster.alerts.messages.incidents import flush_groups
from mlmon_dagster.alerts.messages.message import Message, name_group, outbox_row
from mlmon_dagster.alerts.messages.outage import summarize_outages
from mlmon_dagster.alerts.messages.view import Links
from mlmon_dagster.alerts.receivers.base import Receiver
from mlmon_dagster.alerts.receivers.worker import DeliveryPolicy, DeliveryReport, deliver
from mlmon_dagster.spec.alerting import AlertPolicy
from mlmon_dagster.spec.files.loader import BrokenModel
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import counted
from mlmon_dagster.store import Store, outbox
from mlmon_dagster.store.state import writing


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
            f"{counted(self.n_folded, 'verdict')} read, "
            f"{counted(self.n_written, 'message')} written, "
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
    ops_channel: str | None = None,
    broken: Sequence[BrokenModel] = (),
    with_plots: bool = False,
    budget_seconds: float = 40.0,
    max_messages: int = 20,
    policy: DeliveryPolicy | None = None,
    describe: Describe = say_nothing,
) -> DispatchReport:
    """Fold new results, write the messages that are due, deliver what waits.

    Args:
        store: Where the state database is.
        specs: All the models of the project.
        now: The time of windows, repeats and silences.
        receivers: By name.
        environment: Part of an alert's identity.
        links: Addresses shown for an alert.
        backfilling: Models of which a backfill is known to run still.
        ops_channel: Slack channel of alerts about Dagster itself; None for that of most models.
        broken: Declarations that do not load; their models' alerts wait, and do not end.
        with_plots: Whether messages get plots; the receivers must be able to draw them.
        budget_seconds: Real time after which no further message is begun.
        max_messages: Attempts after which delivering ends.
        policy: Waiting times of the delivery.
        describe: Says in a digest what happened in its period, and what that was worth.
    """
    platform = platform_spec(specs, ops_channel, broken)
    specs = [*specs, *([platform] if platform else [])]
    n_folded = fold_results(store, specs, now, environment=environment)
    retired = retire_undeclared(store, specs, now, waiting={b.name for b in broken})
    # Where nothing is declared any more, what is over is told in the threads that there are.
    nobody = None if specs else AlertPolicy()
    gone = [stand_in(model, specs, nobody) for model in retired]
    n_written = flush_groups(
        store,
        [*specs, *gone],
        now,
        links=links,
        backfilling=backfilling,
        with_plots=with_plots,
    )
    n_written += write_digests(store, [s for s in specs if s.model != PLATFORM], now, describe)
    n_written += summarize_outages(store, specs, now)
    writing.reached("dispatch.written")
    report = deliver(
        store,
        receivers,
        budget_seconds=budget_seconds,
        max_messages=max_messages,
        policy=policy,
    )
    return DispatchReport(n_folded, n_written, report)


def send_test(
    store: Store,
    spec: ModelSpec,
    now: dt.datetime,
    receivers: Mapping[str, Receiver],
    destination: Destination | None = None,
    mentions: Sequence[str] | None = None,
) -> DeliveryReport:
    """Send a test message the way an alert of the model would go.

    A test that cannot be delivered now is withdrawn: nobody wants to read it tomorrow.

    Args:
        store: Where the state database is.
        spec: The model.
        now: The time written into the message's key.
        receivers: By name.
        destination: Where to; by default the model's first default place.
        mentions: Who is notified; by default whom the model mentions there.
    """
    destination = destination or next(iter(default_destinations(spec)))
    if mentions is None:
        mentions = collect_mentions([spec], destination)
    group = name_group(destination, spec.model, "test", now.isoformat(), model=spec.model)
    message = Message(
        title=f"{spec.model}: this is a test, alerts arrive here",
        mood="OK",
        notes=(("Owner", ", ".join(spec.owners)),),
        mentions=tuple(mentions),
    )
    key = hashlib.sha256(group["group_key"].encode()).hexdigest()
    with store.state.begin() as conn:
        outbox.enqueue(conn, [outbox_row(group, key, "test", message, head_key="", now=now)])
    report = deliver(store, receivers)
    outbox.withdraw_test(store.state, key)
    return report
