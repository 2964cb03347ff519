"""A generic webhook: every message as JSON, signed, with an idempotency key.

The signature covers the time and the body, so that neither can be changed or sent again later:
``X-Mlmon-Signature: sha256=HMAC-SHA256(secret, "<X-Mlmon-Timestamp>.<body>")`` in hex. A message
whose answer was lost is sent again with the same ``Idempotency-Key``.
"""

from __future__ import annotations

import hashlib
import hmac
import json

from mlmon_dagster.alerts.receivers.base import Delivery, Outcome, Posted, Receiver, Surroundings
from mlmon_dagster.alerts.receivers.http_post import (
    Endpoint,
    EndpointReceiver,
    post,
    read_endpoints,
)


def connect(around: Surroundings) -> Receiver:
    """Return the receiver of the places that the specs declare."""
    return WebhookReceiver(read_endpoints(around))


class WebhookReceiver(EndpointReceiver):
    """Posts to the addresses that the specs name."""

    called = "webhook"
    repeats = "sent again under the same Idempotency-Key"

    def send(self, delivery: Delivery) -> Outcome:
        """Post once; an update of an earlier message is posted as a message of kind ``head``."""
        if problem := self.problem(delivery.channel):
            return problem
        endpoint = self._endpoints[delivery.channel]
        body = json.dumps(delivery.payload["event"], sort_keys=True).encode()
        headers = self._write_headers(delivery, endpoint, body)
        outcome = post("webhook", endpoint.url, body, headers, self._timeout)
        return Posted(delivery.idempotency_key) if isinstance(outcome, Posted) else outcome

    def _write_headers(self, delivery: Delivery, endpoint: Endpoint, body: bytes) -> dict[str, str]:
        headers = {"Idempotency-Key": delivery.idempotency_key}
        if endpoint.secret is not None:
            stamp = str(int(self._clock()))
            headers["X-Mlmon-Timestamp"] = stamp
            headers["X-Mlmon-Signature"] = f"sha256={sign(endpoint.secret, stamp, body)}"
        return headers


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a body sent at a time, as hex."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
