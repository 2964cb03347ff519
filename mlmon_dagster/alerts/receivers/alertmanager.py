"""Alertmanager: an alert per model and cause, by API v2.

It forgets alerts when it restarts, and ends those that nobody sends again, so what fires is sent
with every dispatch. Labels are the identity, so a repetition is no second alert.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from mlmon_dagster.alerts.messages.message import Payload
from mlmon_dagster.alerts.receivers.base import Delivery, Outcome, Posted, Receiver, Surroundings
from mlmon_dagster.alerts.receivers.http_post import EndpointReceiver, post, read_endpoints

PATH = "/api/v2/alerts"
KEPT_SECONDS = 3600.0  # a dispatcher that stands still for longer lets alerts end there
_SEVERITIES = ("ERROR", "WARN")
_NO_ALERT = ("head", "digest")  # an edit of what is told already; a summary for people


def connect(around: Surroundings) -> Receiver:
    """Return the receiver of the places that the specs declare."""
    return AlertmanagerReceiver(read_endpoints(around))


class AlertmanagerReceiver(EndpointReceiver):
    """Posts to the Alertmanagers that the specs name."""

    called = "Alertmanager"
    repeats = "sent again with the same labels"

    def send(self, delivery: Delivery) -> Outcome:
        """Raise or end an alert; edits of what was told and digests are none."""
        event = delivery.payload["event"]
        if event["kind"] in _NO_ALERT:
            return Posted(delivery.idempotency_key)
        outcome = self._post_alerts(delivery.channel, [event])
        return Posted(delivery.idempotency_key) if isinstance(outcome, Posted) else outcome

    def keep(self, channel: str, events: Iterable[Payload]) -> Outcome:
        """Send once more what fires; see the module."""
        return self._post_alerts(channel, events)

    def _post_alerts(self, channel: str, events: Iterable[Payload]) -> Outcome:
        if problem := self.problem(channel):
            return problem
        server = self._endpoints[channel]
        alerts = [alert for event in events for alert in _write_alerts(event, self._clock())]
        url = server.url.rstrip("/").removesuffix(PATH) + PATH
        return post("Alertmanager", url, json.dumps(alerts).encode(), {}, self._timeout)


def _write_alerts(event: Payload, now: float) -> Iterator[Payload]:
    links = {link["label"]: link["url"] for link in event["links"]}
    sentences = [item["sentence"] for item in event["items"]] or [event["title"]]
    for severity in _SEVERITIES:
        # The severity is a label, since routes go by it; so the alert of the other one ends.
        fires = event["kind"] not in ("resolved", "test") and severity == event["severity"]
        until = now + KEPT_SECONDS if fires else now
        yield {
            "labels": {
                "alertname": "mlmon",
                "model": event["model"],
                "family": event["family"] or event["kind"],
                "severity": severity.lower(),
                # What is past is an alert of its own, which ends by itself.
                "group": event["id" if event["kind"] == "late" else "group"],
            },
            "annotations": {
                "summary": event["title"],
                "description": "\n".join(sentences),
                **{
                    re.sub(r"\W", "_", label.lower(), flags=re.ASCII): text
                    for label, text in event["notes"].items()
                },
            },
            "endsAt": datetime.fromtimestamp(until, UTC).isoformat(),
            **({"generatorURL": next(iter(links.values()))} if links else {}),
        }
