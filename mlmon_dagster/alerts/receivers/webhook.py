"""A generic webhook: every message as JSON, signed, with an idempotency key.

The signature covers the time and the body, so that neither can be changed or sent again later:
``X-Mlmon-Signature: sha256=HMAC-SHA256(secret, "<X-Mlmon-Timestamp>.<body>")`` in hex. A message
whose answer was lost is sent again with the same ``Idempotency-Key``.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlmon_dagster.alerts.receivers.base import (
    Delivery,
    NotPosted,
    Outcome,
    Posted,
    Refused,
    Unclear,
    retry_after,
)
from mlmon_dagster.spec.alerting import address_problem

TIMEOUT_SECONDS = 10
_NOT_NOW = (408, 425, 500, 502, 503, 504)


@dataclass(frozen=True)
class Endpoint:
    """One address.

    Attributes:
        url: Where to post; empty if its variable is not set.
        secret: What to sign with; None to send unsigned.
        missing: Names of environment variables that are declared and not set.
    """

    url: str
    secret: str | None = None
    missing: tuple[str, ...] = ()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A signed message goes where it was declared to go and nowhere else."""

    def redirect_request(self, *_args: object, **_kwargs: object) -> None:
        return None


class WebhookReceiver:
    """Posts to the addresses that the specs name.

    Args:
        endpoints: The addresses by channel, as ``routing.webhook_channel`` names them.
        timeout_seconds: Of one request.
        clock: Real time in seconds since 1970, which is signed.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoints = endpoints
        self._timeout = timeout_seconds
        self._clock = clock
        self._opener = urllib.request.build_opener(_NoRedirect)

    def send(self, delivery: Delivery) -> Outcome:
        """Post once; an update of an earlier message is posted as a message of kind ``head``."""
        endpoint = self._endpoints.get(delivery.channel, Endpoint(""))
        if endpoint.missing:
            names = " and ".join(endpoint.missing)
            return Refused(f"webhook {delivery.channel}: set {names} where the dispatcher runs")
        if problem := address_problem(endpoint.url):
            return Refused(f"webhook {delivery.channel}: {problem}")
        body = json.dumps(delivery.payload["event"], sort_keys=True).encode()
        request = urllib.request.Request(
            endpoint.url, body, self._headers(delivery, endpoint, body)
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                answer.read(1024)
        except urllib.error.HTTPError as error:
            with error:
                return _classify_status(error)
        except (OSError, http.client.HTTPException) as error:
            return _classify_failure(error)
        return Posted(delivery.idempotency_key)

    def _headers(self, delivery: Delivery, endpoint: Endpoint, body: bytes) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "mlmon-dagster",
            "Idempotency-Key": delivery.idempotency_key,
        }
        if endpoint.secret is not None:
            stamp = str(int(self._clock()))
            headers["X-Mlmon-Timestamp"] = stamp
            headers["X-Mlmon-Signature"] = f"sha256={sign(endpoint.secret, stamp, body)}"
        return headers

    def look_up(self, delivery: Delivery, since: float) -> Outcome:
        """Nobody can be asked, and nobody need be: the key tells a repetition from a message."""
        return NotPosted("sent again under the same Idempotency-Key")

    def retract(self, delivery: Delivery, posted: Posted) -> bool:
        """Both copies carry the same key, so that the receiver keeps one."""
        return True


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a body sent at a time, as hex."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _classify_status(error: urllib.error.HTTPError) -> Outcome:
    said = f"the webhook answered HTTP {error.code}"
    if error.code == http.client.TOO_MANY_REQUESTS:
        return NotPosted(f"{said} (rate limit)", retry_after(error.headers.get("Retry-After")))
    if error.code in _NOT_NOW:
        return Unclear(said)
    if 300 <= error.code < 400:
        return Refused(f"{said}: redirects are not followed; declare the address it leads to")
    hint = {
        401: "; is the secret the one that the receiver knows?",
        403: "; is the secret the one that the receiver knows?",
        404: "; is the address right?",
        410: "; the address is not in use any more",
    }.get(error.code, "")
    return Refused(f"{said}{hint}")


def _classify_failure(error: OSError | http.client.HTTPException) -> Outcome:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return NotPosted(f"the webhook's certificate is not trusted: {reason.verify_message}")
    if isinstance(reason, socket.gaierror | ConnectionRefusedError):
        return NotPosted(f"the webhook cannot be reached: {reason}")
    return Unclear(f"no usable answer from the webhook: {type(reason).__name__}")
