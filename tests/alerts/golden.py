"""The card of every receiver for a message of all fields; ``python -m tests.alerts.golden``.

Run after a change of looks: it writes the files of ``golden/`` anew, and the difference is what
people will see.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, Final, cast

from mlmon_dagster.alerts.messages.message import Item, Message, outbox_row
from mlmon_dagster.alerts.receivers.apprise import AppriseReceiver
from mlmon_dagster.alerts.receivers.base import Delivery, Posted, Receiver
from mlmon_dagster.alerts.receivers.email import compose
from mlmon_dagster.alerts.receivers.pagerduty import PagerDutyReceiver
from mlmon_dagster.alerts.receivers.slack import render
from mlmon_dagster.alerts.receivers.webhook import Endpoint, WebhookReceiver
from tests.alerts.test_services import running

FOLDER: Final = Path(__file__).parent / "golden"
NOW: Final = dt.datetime(2026, 3, 5, 6, 30, tzinfo=dt.UTC)
MESSAGES: Final = {
    "opened": Message(
        title="churn: the null share of balance is high",
        mood="ERROR",
        items=(
            Item("12 % of balance have no value, before 1 %", "null_rate 0.12, limit 0.05"),
            Item("Values of plan were never seen: <b>*x*</b>", "unseen_rate 0.3 (n = 2,000)"),
        ),
        more="and 3 more: age, region, tenure",
        notes=(
            ("Why", "region = north, where it is 60 %"),
            ("Also", "2 alerts that follow from it are not sent"),
            ("Owner", "team:growth"),
        ),
        mentions=("<!subteam^S012AB3CD>",),
        links=(
            ("Report", "https://pages.example.com/m/churn?window=2026-03-04"),
            ("Dagster", "https://dagster.example.com/assets/churn/quality"),
        ),
        commands=("mlmon trace churn --window 2026-03-04", "mlmon rows churn --window 2026-03-04"),
    ),
    "resolved": Message(
        title="churn: the null share of balance is as usual again", mood="OK",
        notes=(("Lasted", "3 days"), ("Owner", "team:growth")),
        links=(("Report", "https://pages.example.com/m/churn"),),
    ),
}  # fmt: skip
RECEIVERS: Final = ("slack", "console", "email", "webhook", "pagerduty", "apprise")
Post = Callable[[str], Receiver]
_POSTED: Final[dict[str, Post]] = {
    "webhook": lambda url: WebhookReceiver(_at(url), clock=NOW.timestamp),
    "pagerduty": lambda url: PagerDutyReceiver(_at(url)),
    "apprise": lambda url: AppriseReceiver(_at(url.replace("http://", "json://"))),
}


def _at(url: str) -> dict[str, Endpoint]:
    return {"$PLACE": Endpoint(url, "R" * 32)}


def deliver(receiver: str, kind: str) -> Delivery:
    """Return a message as the outbox hands it to a receiver."""
    group = {
        "group_key": f"{receiver}|churn|quality", "receiver": receiver, "channel": "$PLACE",
        "model": "churn", "family": "quality", "version": 1,
    }  # fmt: skip
    row = outbox_row(
        cast("Any", group), "a1b2" * 16, kind, MESSAGES[kind], head_key="", now=NOW,
        tells=("e1",),
    )  # fmt: skip
    channel = "team@example.com" if receiver == "email" else "$PLACE"
    return Delivery("a1b2" * 16, channel, "", json.loads(str(row["payload"])))


def draw_card(receiver: str, kind: str) -> object:
    """Return what one receiver is given of a message; what a program reads, as data."""
    delivery = deliver(receiver, kind)
    if receiver in ("slack", "console"):
        return render(delivery.payload) if receiver == "slack" else delivery.payload["plain"]
    if receiver == "email":
        mail = compose(delivery, "mlmon@example.com")
        del mail["Date"]
        parts = [part for part in mail.walk() if not part.is_multipart()]
        heads = {name: value for name, value in mail.items() if "boundary" not in value}
        return {"heads": heads, "parts": [part.get_payload(decode=True).decode() for part in parts]}
    with running() as service:
        if receiver == "apprise":
            service.status = 200
        outcome = _POSTED[receiver](service.url).send(delivery)
        assert isinstance(outcome, Posted), outcome
        return service.taken


def read_golden(receiver: str, kind: str) -> object:
    """Return what the receiver was given when its card was last looked at."""
    return json.loads((FOLDER / f"{receiver}-{kind}.json").read_text())


def main() -> None:
    """Write every card."""
    FOLDER.mkdir(exist_ok=True)
    for receiver, kind in product(RECEIVERS, MESSAGES):
        card = json.dumps(draw_card(receiver, kind), indent=1, ensure_ascii=False, sort_keys=True)
        (FOLDER / f"{receiver}-{kind}.json").write_text(card + "\n")


if __name__ == "__main__":
    main()
