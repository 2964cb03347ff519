"""What people do with alerts: find one, take it on, end those of a model that is removed."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.apply_results import end_all
from mlmon_dagster.alerts.messages.incidents import flush_groups
from mlmon_dagster.alerts.messages.message import Message
from mlmon_dagster.alerts.messages.outbox_rows import outbox_row
from mlmon_dagster.alerts.messages.view import view_of
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.alerting import alert_state, outbox
from mlmon_dagster.store.state.frames import Row
from mlmon_dagster.store.state.schema import alert_group

SHORT_ID = 8
LONGEST_SILENCE = dt.timedelta(days=366)


def find_alert(store: Store, short_id: str) -> Row:
    """Return the alert whose id begins with some characters.

    Raises:
        ConfigError: If there is none, or more than one.
    """
    with store.state.connect() as conn:
        rows = alert_state.all_alerts(conn, None)
    found = [row for key, row in rows.items() if short_id and key.startswith(short_id.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"No alert {short_id!r}. mlmon alerts list shows the ids.")
    listed = ", ".join(row["fingerprint"][: SHORT_ID + 4] for row in found[:5])
    raise ConfigError(f"{short_id!r} begins {len(found)} alerts: {listed}. Write more of it.")


def acknowledge(
    store: Store, short_id: str, author: str, now: dt.datetime, comment: str = ""
) -> Row:
    """Take an alert on: no reminders until it gets worse or ends. Its thread is told.

    Args:
        store: Where the state database is.
        short_id: The beginning of the alert's id.
        author: Who takes it on.
        now: When.
        comment: What they say.

    Returns:
        The alert.

    Raises:
        ConfigError: If there is no such alert, or it does not fire.
    """
    found = find_alert(store, short_id)
    model, fingerprint = found["model"], found["fingerprint"]
    with alert_state.exclusive(store.state, f"alerts:{model}") as conn:
        row = alert_state.load_alerts(conn, model, states=(), fingerprints=[fingerprint])[
            fingerprint
        ]
        if row["state"] not in alert_state.ACTIVE:
            raise ConfigError(
                f"Alert {short_id} is {row['state']}; only what fires is acknowledged."
            )
        row = {**row, "acked_by": author, "acked_at": now}
        said = f"{author}: {comment}" if comment else author
        alert_state.save_alerts(conn, [row])
        alert_state.append_events(
            conn,
            [
                {
                    "fingerprint": fingerprint,
                    "episode": row["episode"],
                    "kind": "acknowledged",
                    "window_start": row["last_window_start"],
                    "data_version": now.isoformat(),
                    "severity": row["severity"],
                    "value": None,
                    "message": said,
                    "muted_reason": row["muted_reason"],
                    "created_at": now,
                }
            ],
        )
        outbox.enqueue(conn, _replies(alert_state.load_groups(conn, model).values(), row, said))
    return row


def count_open(store: Store, model: str) -> int:
    """Return how many alerts of a model fire."""
    with store.state.connect() as conn:
        return len(alert_state.load_alerts(conn, model, states=alert_state.ACTIVE))


def end_alerts(store: Store, spec: ModelSpec, now: dt.datetime) -> int:
    """End the open alerts of a model that is being removed, and write what that says to people.

    Returns:
        How many ended.
    """
    model = spec.model
    with alert_state.exclusive(store.state, f"alerts:{model}") as conn:
        n = end_all(conn, model, "model_removed", now)
        # The last word cannot wait for the group's interval: nobody flushes the group later.
        mine = alert_group.c.model == model
        conn.execute(sa.update(alert_group).where(mine).values(next_flush_at=None))
    flush_groups(store, [spec], now)
    return n


def _replies(groups: Iterable[Row], row: Row, said: str) -> list[dict[str, Any]]:
    told = f"{row['fingerprint']}:{row['episode']}:"
    text = Message(
        title=f"{row['model']}: acknowledged by {said}",
        mood="ERROR" if row["severity"] == "ERROR" else "WARN",
        notes=(("Alert", view_of(row).sentence),),
    )
    now = row["acked_at"]
    replies = []
    for group in groups:
        if group["head_key"] and any(k.startswith(told) for k in json.loads(group["firing"])):
            mark = "|".join((group["group_key"], "ack", told, now.isoformat()))
            key = hashlib.sha256(mark.encode()).hexdigest()
            head = group["head_key"]
            replies.append(
                outbox_row(
                    group, key, "acknowledged", text, head_key=head, now=now, tells=[told[:-1]]
                )
            )
    return replies
