"""Rows of the outbox: a message rendered and frozen under its idempotency key."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mlmon_dagster.alerts.message import Message
from mlmon_dagster.alerts.rendering import (
    declared_mentions,
    plain_text,
    short_payload,
    slack_payload,
)
from mlmon_dagster.alerts.slack_text import problems


def row_key(group: Mapping[str, Any], suffix: str = "") -> str:
    """Return the idempotency key of what a group says in its present version."""
    parts = [group["receiver"], group["group_key"], str(group["version"]), suffix]
    return hashlib.sha256("|".join(part for part in parts if part).encode()).hexdigest()


def outbox_row(
    group: Mapping[str, Any],
    key: str,
    kind: str,
    message: Message,
    *,
    head_key: str,
    now: dt.datetime,
) -> dict[str, Any]:
    """Render a message for the outbox.

    A message that breaks a limit in spite of all care goes out without its blocks: an alert must
    not die of its looks.
    """
    mark = head_key if kind == "head" else key
    payload = slack_payload(message, mark)
    if problems(payload, declared_mentions([message.mention])):
        payload = short_payload(payload)
    return {
        "idempotency_key": key,
        "group_key": group["group_key"],
        "receiver": group["receiver"],
        "channel": group["channel"],
        "head_key": head_key,
        "kind": kind,
        "payload": json.dumps({"slack": payload, "plain": plain_text(message)}),
        "created_at": now,
    }
