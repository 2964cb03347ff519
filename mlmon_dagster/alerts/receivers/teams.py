"""Microsoft Teams, by a workflow that posts what its webhook is sent.

Teams has neither keys nor a history that may be read: a message whose answer was lost is sent again
and may be there twice, never not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlmon_dagster.alerts.messages.message import Payload
from mlmon_dagster.alerts.receivers.base import Delivery, Outcome, Posted, Receiver, Surroundings
from mlmon_dagster.alerts.receivers.http_post import EndpointReceiver, post, read_endpoints

_COLOURS = {"ERROR": "Attention", "WARN": "Warning", "OK": "Good"}
_MOST_BYTES = 26_000  # Teams refuses cards of more than 28 KB
_MOST_LINKS = 6


def connect(around: Surroundings) -> Receiver:
    """Return the receiver of the places that the specs declare."""
    return TeamsReceiver(read_endpoints(around))


class TeamsReceiver(EndpointReceiver):
    """Posts to the workflows that the specs name; a message twice is better than none."""

    called = "Teams"
    repeats = "it may be there already; sent again"
    keeps_one = False

    def send(self, delivery: Delivery) -> Outcome:
        """Post a card; an edit of an earlier one would be a card too, so it is left out."""
        event = delivery.payload["event"]
        if event["kind"] == "head":
            return Posted(delivery.idempotency_key)
        if problem := self.problem(delivery.channel):
            return problem
        workflow = self._endpoints[delivery.channel]
        outcome = post("Teams workflow", workflow.url, _write_body(event), {}, self._timeout)
        return Posted(delivery.idempotency_key) if isinstance(outcome, Posted) else outcome


def _write_body(event: Payload) -> bytes:
    body = json.dumps(_write_card(event, event["items"])).encode()
    if len(body) <= _MOST_BYTES:
        return body
    return json.dumps(_write_card(event, event["items"][:1], is_short=True)).encode()


def _write_card(
    event: Payload, items: list[Mapping[str, str]], *, is_short: bool = False
) -> dict[str, Any]:
    lines = [_write_line(item["sentence"], item["numbers"]) for item in items]
    if not is_short:
        lines += [_write_line(event["more"])] if event["more"] else []
        lines += [_write_line(f"{label}: {text}") for label, text in event["notes"].items()]
        lines += [_write_line(command, font="Monospace") for command in event["commands"]]
    title = _write_line(
        event["title"], weight="Bolder", size="Medium", color=_COLOURS[event["severity"]]
    )
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [title, *lines],
        "actions": [
            {"type": "Action.OpenUrl", "title": link["label"], "url": link["url"]}
            for link in event["links"][:_MOST_LINKS]
        ],
        "msteams": {"width": "Full"},
    }
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "content": card}]}


def _write_line(text: str, subtle: str = "", font: str = "Default", **look: str) -> dict[str, Any]:
    # A run of text is shown as it is; a TextBlock would read Markdown in values.
    runs: list[dict[str, Any]] = [{"type": "TextRun", "text": text, "fontType": font, **look}]
    if subtle:
        runs.append({"type": "TextRun", "text": f"  {subtle}", "isSubtle": True})
    return {"type": "RichTextBlock", "inlines": runs}
