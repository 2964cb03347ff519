"""What Apprise knows: Telegram, Discord, Matrix, ntfy, SMS and more than a hundred other services.

Its addresses hold tokens, so a spec names the environment variable of one. Apprise has neither
keys nor a history that may be read, and says of a failure at most its HTTP status: a message whose
answer was lost is sent again and may be there twice, never not at all.
"""

from __future__ import annotations

import logging
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mlmon_dagster.alerts.receivers.base import (
    Delivery,
    NotPosted,
    Outcome,
    Posted,
    Receiver,
    Refused,
    Surroundings,
    Unclear,
)
from mlmon_dagster.alerts.receivers.http_post import (
    Endpoint,
    EndpointReceiver,
    classify_status,
    read_endpoints,
)

if TYPE_CHECKING:
    from apprise import Apprise, AppriseResult

CALL_SECONDS = 30.0  # of all of one message's requests; less than a lease
_KINDS = {"ERROR": "failure", "WARN": "warning", "OK": "success"}
_STATUS = re.compile(r"\berror=(\d{3})\b")  # as nearly all of its services log a refusal
# What makes chats notify people: "@everyone", "<!channel>", "<@U1>". A mail address stays.
_MENTION = re.compile(r"(?<!\w)@|<(?=[!@#&])")
_NO_WIDTH = "\N{ZERO WIDTH SPACE}"


def connect(around: Surroundings) -> Receiver:
    """Return the receiver of the places that the specs declare."""
    return AppriseReceiver(read_endpoints(around))


class AppriseReceiver(EndpointReceiver):
    """Sends to the services that the specs name, by an Apprise address each.

    A message twice is better than none.
    """

    called = "Apprise"
    repeats = "it may be there already; sent again"
    keeps_one = False

    def send(self, delivery: Delivery) -> Outcome:
        """Send once; an edit of an earlier message would be one more, so it is left out."""
        event = delivery.payload["event"]
        if event["kind"] == "head":
            return Posted(delivery.idempotency_key)
        opened = self._open_service(delivery.channel)
        if isinstance(opened, Refused):
            return opened
        title, _, body = _MENTION.sub(rf"\g<0>{_NO_WIDTH}", delivery.payload["plain"]).partition(
            "\n"
        )
        # As text: where a service reads Markdown or HTML, Apprise escapes it.
        result = opened.notify(
            body or title,
            title if body else "",
            _KINDS[event["severity"]],
            body_format="text",
        )
        return Posted(delivery.idempotency_key) if result else _classify_result(result)

    def problem(self, channel: str) -> Refused | None:
        """Say why nothing can be sent to a place, and what mends it; nothing is sent."""
        opened = self._open_service(channel)
        return opened if isinstance(opened, Refused) else None

    def _open_service(self, channel: str) -> Apprise | Refused:
        service = self._endpoints.get(channel, Endpoint(""))
        if service.missing:
            return Refused(f"Apprise {channel}: set {service.missing[0]} where the dispatcher runs")
        if find_spec("apprise") is None:
            return Refused(
                f"Apprise {channel}: install it where the dispatcher runs: "
                "pip install 'mlmon-dagster[apprise]'"
            )
        from apprise import Apprise, AppriseAsset

        asset = AppriseAsset(app_id="mlmon", app_desc="mlmon", service_timeout=CALL_SECONDS)
        opened = Apprise(asset=asset)
        quiet = logging.getLogger("apprise")  # what it logs names hosts, and here even addresses
        quiet.propagate, quiet.disabled = False, True
        try:
            is_known = opened.add(service.url) and len(opened) == 1
        finally:
            quiet.disabled = False
        if not is_known:
            return Refused(
                f"Apprise {channel}: the variable does not hold one address that Apprise knows, "
                "such as tgram://TOKEN/CHAT; see https://appriseit.com"
            )
        return opened


def _classify_result(result: AppriseResult) -> Outcome:
    """Say what a failure means; its text is not repeated, since it may hold an address."""
    names = ", ".join(one.name for one in result.results)
    said = [entry.message for one in result.results for entry in one.logs()]
    statuses = [int(status) for text in said for status in _STATUS.findall(text)]
    outcomes = [classify_status(f"{names} by Apprise", status) for status in statuses]
    # Where one of several targets may have it, the message is of unclear fate.
    return next(
        (o for kind in (Unclear, NotPosted, Refused) for o in outcomes if isinstance(o, kind)),
        Unclear(f"Apprise could not send to {names or 'the service'}"),
    )
