"""Alertmanager: an alert per model and family, by API v2.

It forgets alerts when it restarts, and ends those that nobody sends again, so what fires is sent
with every dispatch. Labels are the identity, so a repetition is no second alert.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime

from mlmon_dagster.alerts.messages.message import Payload
from mlmon_dagster.alerts.receivers.base import Delivery, NotPosted, Outcome, Posted, Refused
from mlmon_dagster.alerts.receivers.http_post import TIMEOUT_SECONDS, Endpoint, post

PATH = "/api/v2/alerts"
KEPT_SECONDS = 3600.0  # a dispatcher that stands still for longer lets alerts end there
_SEVERITIES = ("ERROR", "WARN")
_NO_ALERT = ("head", "digest")  # an edit of what is told already; a summary for people


class AlertmanagerReceiver:
    """Posts to the Alertmanagers that the specs name.

    Args:
        servers: By channel.
        timeout_seconds: Of one request.
        clock: Real time in seconds since 1970.
    """

    def __init__(
        self,
        servers: Mapping[str, Endpoint],
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._servers = servers
        self._timeout = timeout_seconds
        self._clock = clock

    def send(self, delivery: Delivery) -> Outcome:
        """Raise or end an alert; edits of what was told and digests are none."""
        event = delivery.payload["event"]
        if event["kind"] in _NO_ALERT:
            return Posted(delivery.idempotency_key)
        outcome = self._post(delivery.channel, [event])
        return Posted(delivery.idempotency_key) if isinstance(outcome, Posted) else outcome

    def keep(self, channel: str, events: Iterable[Payload]) -> Outcome:
        """Send once more what fires; see the module."""
        return self._post(channel, events)

    def _post(self, channel: str, events: Iterable[Payload]) -> Outcome:
        if problem := self.problem(channel):
            return problem
        server = self._servers[channel]
        alerts = [alert for event in events for alert in _alerts(event, self._clock())]
        url = server.url.rstrip("/").removesuffix(PATH) + PATH
        return post("Alertmanager", url, json.dumps(alerts).encode(), {}, self._timeout)

    def problem(self, channel: str) -> Refused | None:
        """Say why a server cannot be posted to."""
        return self._servers.get(channel, Endpoint("")).problem("Alertmanager", channel)

    def look_up(self, delivery: Delivery, since: float) -> Outcome:
        """Nobody need be asked: alerts with the same labels are one."""
        return NotPosted("sent again with the same labels")

    def retract(self, delivery: Delivery, posted: Posted) -> bool:
        """Both copies carry the same labels, so that there is one alert."""
        return True


def _alerts(event: Payload, now: float) -> Iterator[Payload]:
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
                "group": event["group"],
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
