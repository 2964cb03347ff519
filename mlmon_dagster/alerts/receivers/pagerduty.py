"""PagerDuty: an incident per model and cause, by Events API v2.

The key of an incident stays the same, so that PagerDuty itself drops what comes twice: a message
whose answer was lost is sent again and opens nothing new.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from mlmon_dagster.alerts.messages.message import Payload
from mlmon_dagster.alerts.receivers.base import (
    Delivery,
    Outcome,
    Posted,
    Receiver,
    Refused,
    Surroundings,
)
from mlmon_dagster.alerts.receivers.webhook import Endpoint, EndpointReceiver, post
from mlmon_dagster.spec.alerting import PagerDutyRoute

URLS = {
    "us": "https://events.pagerduty.com/v2/enqueue",
    "eu": "https://events.eu.pagerduty.com/v2/enqueue",
}
_SEVERITY = {"ERROR": "error", "WARN": "warning", "OK": "info"}
_SUMMARY = 1024  # characters that PagerDuty takes


def connect(around: Surroundings) -> Receiver:
    """Return the receiver of the services that the specs declare."""
    endpoints = {}
    for channel, route in around.places.items():
        assert isinstance(route, PagerDutyRoute)
        key = around.variables(route.key_env)
        endpoints[channel] = Endpoint(URLS[route.region], key, () if key else (route.key_env,))
    return PagerDutyReceiver(endpoints)


class PagerDutyReceiver(EndpointReceiver):
    """Triggers and resolves incidents of the services that the specs name.

    An endpoint is the address of the API, with the integration's key as its secret.
    """

    called = "PagerDuty"
    repeats = "sent again under the same key of the incident"

    leaves_out = ("head", "digest")  # an edit of what is told already; a summary for people

    def _post(self, delivery: Delivery, endpoint: Endpoint) -> Outcome:
        for event in write_events(delivery.payload["event"]):
            body = json.dumps({"routing_key": endpoint.secret, **event}).encode()
            outcome = post("PagerDuty", endpoint.url, body, {}, self._timeout)
            if isinstance(outcome, Refused):
                return Refused(f"{outcome.error}; is the routing key one of Events API v2?")
            if not isinstance(outcome, Posted):
                return outcome
        return Posted()


def write_events(event: Payload) -> Iterator[Payload]:
    """Yield what PagerDuty is sent of a message: what triggers, ends or does both."""
    # What summarises several incidents is one of its own, which people resolve.
    is_group = event["kind"] in ("opened", "updated", "repeated", "resolved")
    key = event["group"] if is_group else event["id"]
    if event["kind"] != "resolved":
        yield {
            "event_action": "trigger",
            "dedup_key": key,
            "payload": {
                "summary": event["title"][:_SUMMARY],
                "source": f"mlmon {event['model']}",
                "severity": _SEVERITY[event["severity"]],
                "component": event["model"],
                "group": event["family"],
                "custom_details": {
                    "alerts": [item["sentence"] for item in event["items"]],
                    **event["notes"],
                    "commands": event["commands"],
                },
            },
            "links": [{"href": link["url"], "text": link["label"]} for link in event["links"]],
        }
    if event["kind"] in ("resolved", "late", "test"):
        yield {"event_action": "resolve", "dedup_key": key}
