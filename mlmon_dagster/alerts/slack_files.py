"""Our messages and files in Slack: how they are recognised, and handing in the bytes of a file."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any

from mlmon_dagster.alerts.plotting import read_plot
from mlmon_dagster.alerts.receivers import Delivery
from mlmon_dagster.alerts.rendering import short_id

_MARK = 12


def file_name(idempotency_key: str) -> str:
    """Return the name of a plot's file, by which it is recognised in a thread."""
    return f"mlmon-{idempotency_key[:_MARK]}.png"


def shared_file(message: Mapping[str, Any], idempotency_key: str) -> str:
    """Return the id of the plot that a message of the history shares; empty if it does not."""
    for file in message.get("files") or ():
        if file.get("name") == file_name(idempotency_key):
            return str(file.get("id", ""))
    return ""


def send_bytes(url: str, content: bytes, timeout_seconds: float, proxy: str | None = None) -> None:
    """Hand in a file's bytes; the address is secret, short-lived and needs no token.

    Raises:
        OSError: If the server cannot be reached or answers anything but success.
    """
    proxies = urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else None)
    opener = urllib.request.build_opener(proxies)
    headers = {"Content-Type": "application/octet-stream", "User-Agent": "mlmon-dagster"}
    request = urllib.request.Request(url, content, headers)
    with opener.open(request, timeout=timeout_seconds) as answer:
        answer.read(1024)


def name_in(found: Mapping[str, Any], delivery: Delivery) -> str:
    """Return Slack's name of a delivery if a message of the history is it; else empty."""
    if read_plot(delivery.payload):
        return shared_file(found, delivery.idempotency_key)
    return str(found["ts"]) if _is_message(found, delivery.idempotency_key) else ""


def _is_message(found: Mapping[str, Any], idempotency_key: str) -> bool:
    """Recognise a message by its metadata, or by the mark people can see."""
    event = (found.get("metadata") or {}).get("event_payload") or {}
    if event.get("idempotency_key") == idempotency_key:
        return True
    seen = [found.get("text", ""), found.get("attachments", []), found.get("blocks", [])]
    return short_id(idempotency_key) in json.dumps(seen)
