"""A generic webhook, and what is shared by all receivers that post to a service over HTTPS.

Every message goes to the webhook as JSON, signed, with an idempotency key. The signature covers the
time and the body, so that neither can be changed or sent again later:
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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from mlmon_dagster.alerts.receivers.base import (
    Delivery,
    NotPosted,
    Outcome,
    Posted,
    Receiver,
    Refused,
    Surroundings,
    Unclear,
    retry_after,
)
from mlmon_dagster.spec.alerting import Place, address_problem
from mlmon_dagster.store.bounded_http import NoRedirect, open_within

TIMEOUT_SECONDS = 10
_NOT_NOW = (408, 425, 500, 502, 503, 504)


@dataclass(frozen=True)
class Endpoint:
    """One address.

    Attributes:
        url: Where to post; empty if its variable is not set.
        secret: What to sign with, or the key of a service; None for none.
        missing: Names of environment variables that are declared and not set.
    """

    url: str
    secret: str | None = None
    missing: tuple[str, ...] = ()


def read_endpoints(around: Surroundings) -> dict[str, Endpoint]:
    """Return the addresses of some places by channel, with what the environment says of them."""
    return {
        channel: _read_endpoint(place, around.variables) for channel, place in around.places.items()
    }


def _read_endpoint(place: Place, variables: Callable[[str], str | None]) -> Endpoint:
    url_env, secret_env = (getattr(place, name, None) for name in ("url_env", "secret_env"))
    address = getattr(place, "url", None) or variables(url_env or "")
    secret = variables(secret_env) if secret_env else None
    declared = {url_env: address, secret_env: secret}
    missing = tuple(name for name, value in declared.items() if name and value is None)
    return Endpoint(address or "", secret, missing)


class EndpointReceiver:
    """Posts to the addresses that the specs name.

    It can ask nobody what has arrived: a message whose answer was lost is sent again.

    Args:
        endpoints: The addresses by channel.
        timeout_seconds: Of one request.
        clock: Real time in seconds since 1970, for messages that carry it.

    Attributes:
        called: What the other side is called where an address cannot be posted to.
        repeats: What is said of a message that is sent again.
        keeps_one: Whether the other side knows the second copy of a message, and drops it.
        leaves_out: Kinds of messages that it is not sent.
    """

    called: ClassVar[str]
    repeats: ClassVar[str]
    keeps_one: ClassVar[bool] = True
    leaves_out: ClassVar[Collection[str]] = ()

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

    def send(self, delivery: Delivery) -> Outcome:
        """Post once; what the other side is not sent counts as posted."""
        if problem := self.problem(delivery.channel):
            return problem
        if delivery.payload["event"]["kind"] in self.leaves_out:
            return Posted(delivery.idempotency_key)
        outcome = self._post(delivery, self._endpoints[delivery.channel])
        return Posted(delivery.idempotency_key) if isinstance(outcome, Posted) else outcome

    def _post(self, delivery: Delivery, endpoint: Endpoint) -> Outcome:
        raise NotImplementedError

    def problem(self, channel: str) -> Refused | None:
        """Say why nothing can be posted to a place, and what mends it; None if it can."""
        endpoint = self._endpoints.get(channel, Endpoint(""))
        if endpoint.missing:
            names = " and ".join(endpoint.missing)
            return Refused(f"{self.called} {channel}: set {names} where the dispatcher runs")
        problem = self._find_problem(endpoint)
        return Refused(f"{self.called} {channel}: {problem}") if problem else None

    def _find_problem(self, endpoint: Endpoint) -> str | None:
        return address_problem(endpoint.url)

    def look_up(self, delivery: Delivery, since: float) -> Outcome:
        """Nobody can be asked; see the class."""
        return NotPosted(self.repeats)

    def retract(self, delivery: Delivery, posted: Posted) -> Outcome:
        """What is posted stays posted, unless the other side keeps one of the copies."""
        if self.keeps_one:
            return NotPosted("the other side keeps one of the copies")
        return Refused("what is posted there cannot be taken back")


def post(
    name: str, url: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float
) -> Outcome:
    """Post JSON once.

    Args:
        name: What the other side is called in errors; its address may be a secret.
        url: Where to.
        body: What.
        headers: Besides the usual ones.
        timeout_seconds: How long the whole may take.
    """
    usual = {"Content-Type": "application/json", "User-Agent": "mlmon-dagster"}
    request = urllib.request.Request(url, body, {**usual, **headers})
    try:
        with open_within(request, timeout_seconds, NoRedirect()) as answer:
            answer.read(1024)
    except urllib.error.HTTPError as error:
        with error:
            return classify_status(name, error.code, error.headers.get("Retry-After"))
    except (OSError, http.client.HTTPException) as error:
        return _classify_failure(name, error)
    return Posted()


def classify_status(name: str, status: int, wait: str | None = None) -> Outcome:
    """Return what an HTTP status other than success means.

    Args:
        name: What the other side is called in errors.
        status: The status.
        wait: The header ``Retry-After``, if there is one.
    """
    said = f"the {name} answered HTTP {status}"
    if status == http.client.TOO_MANY_REQUESTS:
        return NotPosted(f"{said} (rate limit)", retry_after(wait))
    if status in _NOT_NOW:
        return Unclear(said)
    if 300 <= status < 400:
        return Refused(f"{said}: redirects are not followed; declare the address it leads to")
    hint = {
        401: "; is the secret the one that the receiver knows?",
        403: "; is the secret the one that the receiver knows?",
        404: "; is the address right?",
        410: "; the address is not in use any more",
    }.get(status, "")
    return Refused(f"{said}{hint}")


def _classify_failure(name: str, error: OSError | http.client.HTTPException) -> Outcome:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return NotPosted(f"the {name}'s certificate is not trusted: {reason.verify_message}")
    if isinstance(reason, socket.gaierror | ConnectionRefusedError):
        return NotPosted(f"the {name} cannot be reached: {reason}")
    return Unclear(f"no usable answer from the {name}: {type(reason).__name__}")


def connect(around: Surroundings) -> Receiver:
    """Return the receiver of the places that the specs declare."""
    return WebhookReceiver(read_endpoints(around))


class WebhookReceiver(EndpointReceiver):
    """Posts messages as they are; an update of an earlier one is a message of kind ``head``."""

    called = "webhook"
    repeats = "sent again under the same Idempotency-Key"

    def _post(self, delivery: Delivery, endpoint: Endpoint) -> Outcome:
        body = json.dumps(delivery.payload["event"], sort_keys=True).encode()
        headers = {"Idempotency-Key": delivery.idempotency_key}
        if endpoint.secret is not None:
            stamp = str(int(self._clock()))
            headers["X-Mlmon-Timestamp"] = stamp
            headers["X-Mlmon-Signature"] = f"sha256={sign(endpoint.secret, stamp, body)}"
        return post("webhook", endpoint.url, body, headers, self._timeout)


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a body sent at a time, as hex."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
