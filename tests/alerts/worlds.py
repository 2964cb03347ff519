"""Small worlds for the alert tests: a model, its days and what its monitors say of them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.alerts.messages.incidents import flush_groups
from mlmon_dagster.alerts.receivers.base import Receiver
from mlmon_dagster.alerts.receivers.worker import DeliveryPolicy, DeliveryReport, deliver
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import alert, monitor_result, outbox
from mlmon_dagster.store.state.sql import insert_or_ignore
from tests.conftest import make_spec

DAY = dt.timedelta(days=1)
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
IMPATIENT = DeliveryPolicy(
    first_backoff_seconds=0.01,
    longest_backoff_seconds=0.05,
    settle_seconds=0.0,
    pace_seconds=0.0,
)


def spec_of(model: str = "credit", **alerts: Any) -> ModelSpec:
    policy = {"slack": {"channel": "#ml-alerts", "mention": "@here"}, **alerts}
    return make_spec(model=model, alerts=policy)


def day(number: int) -> dt.datetime:
    return START + (number - 1) * DAY


def result(number: int, status: str = "ERROR", **changes: Any) -> dict[str, Any]:
    """Return a monitor result of day ``number`` of January 2024: PSI of the column age."""
    start = day(number)
    family = changes.get("family", "drift")
    row = {
        "model": "credit",
        "family": family,
        "metric": "psi",
        "column_name": "age",
        "dataset": "production",
        "slice_key": "all",
        "slice_value": "all",
        "window_start": start,
        "window_end": start + DAY,
        "granularity": "day",
        "status": status,
        "value": 0.4 if status in ("WARN", "ERROR") else 0.01,
        "baseline_value": 0.0,
        "lower": None,
        "upper": None,
        "excess": None,
        "excess_error": None,
        "n": 1200,
        "threshold": "above 0.1",
        "message": "psi of age is high" if status in ("WARN", "ERROR") else "",
        "details": "{}",
        "k": 1,
        "of_n": 1,
        "owner": "team:risk",
        "runbook": "",
        "data_version": "v1",
        "run_id": "run",
        "is_backfill": False,
        "created_at": start + DAY,
        **changes,
    }
    if isinstance(row["details"], dict):
        row["details"] = json.dumps(row["details"])
    row.setdefault("monitor", f"{family}/{row['metric']}/{row['column_name']}")
    return row


def observe(store: Store, *rows: dict[str, Any]) -> None:
    with store.state.begin() as conn:
        insert_or_ignore(conn, monitor_result, rows)


def settle(
    store: Store, specs: Sequence[ModelSpec], now: dt.datetime, *rows: dict[str, Any], **kw: Any
) -> int:
    """Write results, fold them and flush; return the number of messages written."""
    observe(store, *rows)
    fold_results(store, specs, now)
    return flush_groups(store, specs, now, **kw)


def send(store: Store, receiver: Receiver, **kw: Any) -> DeliveryReport:
    return deliver(store, {"slack": receiver}, policy=IMPATIENT, **kw)


def rows_of(store: Store, table: sa.Table) -> list[dict[str, Any]]:
    order = table.c.id if "id" in table.c else next(iter(table.primary_key))
    with store.state.connect() as conn:
        return [dict(row) for row in conn.execute(sa.select(table).order_by(order)).mappings()]


def kinds(store: Store) -> list[str]:
    return [row["kind"] for row in rows_of(store, outbox)]


def alerts_of(store: Store) -> list[dict[str, Any]]:
    """Return the alerts, without those of families that could always judge."""
    rows = rows_of(store, alert)
    return [row for row in rows if row["metric"] != "no_verdict" or row["n_episodes"]]


def only_alert(store: Store) -> dict[str, Any]:
    (row,) = alerts_of(store)
    return row
