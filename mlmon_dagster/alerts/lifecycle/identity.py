"""What makes two failures the same alert, and how an alert is kept as a row."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import Any

from mlmon_dagster.alerts.lifecycle.transitions import AlertState, Verdict
from mlmon_dagster.store.state.frames import Row

DEFAULT_ENVIRONMENT = "production"


def fingerprint(result: Row, environment: str) -> str:
    """Hash what an alert is about: not how bad it is, whose it is or which version served."""
    identity = {
        "environment": environment,
        "model": result["model"],
        "stream": result["dataset"],
        "monitor": result["monitor"],
        "metric": result["metric"],
        "column": result["column_name"],
        "slice_key": result["slice_key"],
        "slice_value": result["slice_value"],
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def new_row(result: Row, environment: str, now: dt.datetime) -> dict[str, Any]:
    """Return the row of an alert that has not seen a window yet."""
    same = ("model", "monitor", "family", "metric", "column_name", "dataset")
    return {
        "fingerprint": fingerprint(result, environment),
        "environment": environment,
        **{name: result[name] for name in (*same, "slice_key", "slice_value")},
        "state": "OK",
        "severity": "",
        "episode": 0,
        "recent": "[]",
        "last_window_start": None,
        "last_data_version": "",
        "opened_window": None,
        "opened_at": None,
        "resolved_at": None,
        "resolved_reason": "",
        "muted_reason": "",
        "value": None,
        "message": "",
        "details": "{}",
        "owner": result["owner"],
        "runbook": result["runbook"],
        "acked_by": "",
        "acked_at": None,
        "updated_at": now,
    }


def state_of(row: Row) -> AlertState:
    """Read the state machine's part of an alert row."""
    recent = tuple(
        Verdict(dt.datetime.fromisoformat(window), *said)
        for window, *said in json.loads(row["recent"])
    )
    return AlertState(row["state"], row["severity"], row["episode"], recent)


def state_columns(state: AlertState) -> dict[str, Any]:
    """Write the state machine's part of an alert row."""
    recent = [[v.window_start.isoformat(), *v[1:]] for v in state.recent]
    return {
        "state": state.state,
        "severity": state.severity,
        "episode": state.episode,
        "recent": json.dumps(recent),
    }
