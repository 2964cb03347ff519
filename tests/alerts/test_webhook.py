"""The generic webhook against a real HTTP server: signed, once, and every answer has a meaning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mlmon_dagster.alerts.receivers.base import Delivery, NotPosted, Posted, Refused, Unclear
from mlmon_dagster.alerts.receivers.webhook import Endpoint, WebhookReceiver, sign
from mlmon_dagster.store import Store
from mlmon_dagster.store.outbox import look_up_again
from mlmon_dagster.store.state.schema import outbox
from tests.alerts.fake_webhook import Hook, fake_webhook
from tests.alerts.worlds import day, deliver, result, rows_of, settle, spec_of

SECRET = "shared"


@pytest.fixture
def hook() -> Iterator[Hook]:
    with fake_webhook() as found:
        yield found


def receiver_of(url: str, **kw: Any) -> WebhookReceiver:
    return WebhookReceiver({"$HOOK": Endpoint(url, **kw)}, timeout_seconds=30, clock=lambda: 1700.0)


EVENT = {"kind": "opened", "id": "k" * 64, "title": "psi is high"}
DELIVERY = Delivery("k" * 64, "$HOOK", "", {"event": EVENT})


def test_a_message_is_signed_json_under_its_key(hook: Hook) -> None:
    outcome = receiver_of(hook.url, secret=SECRET).send(DELIVERY)

    ((headers, body),) = hook.requests
    assert outcome == Posted("k" * 64)
    assert json.loads(body)["title"] == "psi is high"
    assert headers["Idempotency-Key"] == "k" * 64
    assert headers["X-Mlmon-Timestamp"] == "1700"
    assert headers["X-Mlmon-Signature"] == f"sha256={sign(SECRET, '1700', body)}"


def test_without_a_secret_nothing_is_signed(hook: Hook) -> None:
    receiver_of(hook.url).send(DELIVERY)

    assert "X-Mlmon-Signature" not in hook.requests[0][0]


@pytest.mark.parametrize(
    ("status", "outcome", "said"),
    [
        (429, NotPosted, "rate limit"),
        (503, Unclear, "HTTP 503"),
        (302, Refused, "redirects are not followed"),
        (401, Refused, "is the secret the one"),
        (404, Refused, "is the address right"),
    ],
)
def test_each_answer_has_a_meaning(hook: Hook, status: int, outcome: type[Any], said: str) -> None:
    hook.answers.append(status)
    found = receiver_of(hook.url).send(DELIVERY)

    assert isinstance(found, outcome)
    assert said in found.error
    assert getattr(found, "wait_seconds", None) == (7.0 if status == 429 else None)


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        (Endpoint("http://example.com/hook"), "alerts travel over https"),
        (Endpoint("", missing=("HOOK", "HOOK_SECRET")), "set HOOK and HOOK_SECRET"),
        (Endpoint("ftp://127.0.0.1/x"), "starts with https://"),
    ],
)
def test_an_address_that_may_not_be_used_is_refused_with_the_fix(
    endpoint: Endpoint, said: str
) -> None:
    outcome = WebhookReceiver({"$HOOK": endpoint}).send(DELIVERY)

    assert isinstance(outcome, Refused)
    assert said in outcome.error


def test_a_server_that_is_not_there_is_surely_no_post() -> None:
    outcome = receiver_of("http://127.0.0.1:1/hook").send(DELIVERY)

    assert isinstance(outcome, NotPosted)


def test_an_alert_reaches_a_webhook_and_its_end_names_the_same_thread(
    store: Store, hook: Hook
) -> None:
    specs = [spec_of(slack=None, webhook={"url_env": "HOOK"})]
    webhook = specs[0].alerts.webhook
    assert webhook is not None
    assert webhook.address == "$HOOK"
    settle(store, specs, day(2), result(1))
    deliver(store, {"webhook": receiver_of(hook.url)})
    settle(store, specs, day(3), result(2, "OK"))
    deliver(store, {"webhook": receiver_of(hook.url)})

    events = [json.loads(body) for _, body in hook.requests]
    assert [(e["kind"], e["severity"]) for e in events if e["kind"] != "head"] == [
        ("opened", "ERROR"),
        ("resolved", "OK"),
    ]
    assert {e["thread"] for e in events} == {events[0]["id"]}
    assert {row["status"] for row in rows_of(store, outbox)} == {"sent"}


def test_where_nobody_can_look_a_message_that_was_sent_is_not_sent_again(
    store: Store, hook: Hook
) -> None:
    settle(store, [spec_of(slack=None, webhook={"url_env": "HOOK"})], day(2), result(1))
    deliver(store, {"webhook": receiver_of(hook.url)})
    (row,) = rows_of(store, outbox)
    assert look_up_again(store.state, row["id"], day(2))
    deliver(store, {"webhook": receiver_of(hook.url)})

    assert len(hook.requests) == 1
    assert rows_of(store, outbox)[0]["status"] == "sent"
