"""What becomes of a model's alerts when it gets another name, or goes."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping

import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.apply_results import end_all
from mlmon_dagster.alerts.lifecycle.identity import fingerprint
from mlmon_dagster.alerts.messages.incidents import flush_groups
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.alerting import alert_state
from mlmon_dagster.store.state.schema import alert, alert_event, alert_group, outbox


def rename_alerts(conn: sa.Connection, old: str, new: str) -> int:
    """Give the alerts of a model the identity they have under another name.

    Episodes, history and threads go on; nobody is told anything. Repeating it changes nothing.

    Returns:
        How many alerts there were.
    """
    rows = conn.execute(sa.select(alert).where(alert.c.model == old)).mappings().all()
    keys = {row["fingerprint"]: fingerprint({**row, "model": new}, row["environment"])
            for row in rows}  # fmt: skip
    for before, after in keys.items():
        for table in (alert, alert_event):
            conn.execute(
                sa.update(table).where(table.c.fingerprint == before).values(fingerprint=after)
            )
    for group in conn.execute(sa.select(alert_group).where(alert_group.c.model == old)).mappings():
        before = group["group_key"]
        after = "|".join((group["receiver"], group["channel"], new, group["family"]))
        told = {name: _renamed(group[name], keys) for name in ("firing", "resolved")}
        mine = alert_group.c.group_key == before
        conn.execute(sa.update(alert_group).where(mine).values(group_key=after, **told))
        queued = sa.update(outbox).where(outbox.c.group_key == before)
        conn.execute(queued.values(group_key=after))
    return len(keys)


def _renamed(told: str, keys: Mapping[str, str]) -> str:
    parts = [key.split(":") for key in json.loads(told)]
    return json.dumps(sorted(":".join((keys.get(p[0], p[0]), *p[1:])) for p in parts))


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
