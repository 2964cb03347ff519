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
from mlmon_dagster.alerts.receivers.webhook import (
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

    leaves_out = ("head",)  # an edit of an earlier message would be one more

    def _post(self, delivery: Delivery, endpoint: Endpoint) -> Outcome:
        plain = _MENTION.sub(rf"\g<0>{_NO_WIDTH}", delivery.payload["plain"])
        title, _, body = plain.partition("\n")
        opened = _open_service(endpoint.url)
        assert not isinstance(opened, str)
        # As text: where a service reads Markdown or HTML, Apprise escapes it.
        result = opened.notify(
            body or title,
            title if body else "",
            _KINDS[delivery.payload["event"]["severity"]],
            body_format="text",
        )
        return Posted() if result else _classify_result(result)

    def _find_problem(self, endpoint: Endpoint) -> str | None:
        opened = _open_service(endpoint.url)
        return opened if isinstance(opened, str) else None


def _open_service(url: str) -> Apprise | str:
    """Return what sends to an address; nothing is sent yet. Or what is wrong."""
    if find_spec("apprise") is None:
        return "install it where the dispatcher runs: pip install 'mlmon-dagster[apprise]'"
    from apprise import Apprise, AppriseAsset

    asset = AppriseAsset(app_id="mlmon", app_desc="mlmon", service_timeout=CALL_SECONDS)
    opened = Apprise(asset=asset)
    quiet = logging.getLogger("apprise")  # what it logs names hosts, and here even addresses
    quiet.propagate, quiet.disabled = False, True
    try:
        is_known = opened.add(url) and len(opened) == 1
    finally:
        quiet.disabled = False
    if is_known:
        return opened
    return (
        "the variable does not hold one address that Apprise knows, such as tgram://TOKEN/CHAT; "
        "see https://appriseit.com"
    )


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
