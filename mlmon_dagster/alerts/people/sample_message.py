"""A test message, sent the way alerts go."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping

from mlmon_dagster.alerts.lifecycle.routing import Destination, default_destinations
from mlmon_dagster.alerts.messages.message import Message
from mlmon_dagster.alerts.messages.outbox_rows import outbox_row
from mlmon_dagster.alerts.receivers.base import Receiver
from mlmon_dagster.alerts.receivers.deliver import deliver
from mlmon_dagster.alerts.receivers.worker import DeliveryReport
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.alerting import outbox


def send_test(
    store: Store,
    spec: ModelSpec,
    now: dt.datetime,
    receivers: Mapping[str, Receiver],
    destination: Destination | None = None,
) -> DeliveryReport:
    """Send a test message the way an alert of the model would go.

    A test that cannot be delivered now is withdrawn: nobody wants to read it tomorrow.

    Args:
        store: Where the state database is.
        spec: The model.
        now: The time written into the message's key.
        receivers: By name.
        destination: Where to; by default the model's first default place.
    """
    declared = default_destinations(spec)
    destination = destination or next(iter(declared))
    mention = declared.get(destination, "")
    group = {
        "receiver": destination.receiver,
        "channel": destination.channel,
        "group_key": "|".join((*destination, spec.model, "test", now.isoformat())),
        "model": spec.model,
    }
    message = Message(
        title=f"{spec.model}: this is a test, alerts arrive here",
        mood="OK",
        notes=(("Owner", ", ".join(spec.owners)),),
        mentions=(mention,) if mention else (),
    )
    key = hashlib.sha256(group["group_key"].encode()).hexdigest()
    with store.state.begin() as conn:
        outbox.enqueue(conn, [outbox_row(group, key, "test", message, head_key="", now=now)])
    report = deliver(store, receivers)
    outbox.withdraw_test(store.state, key)
    return report
