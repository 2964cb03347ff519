"""What every answer of Slack means, and finding out whether a message is there."""

from __future__ import annotations

import datetime as dt
import json
import socket
from typing import Any

import pytest

from mlmon_dagster.alerts.messages.message import Item, Message, outbox_row
from mlmon_dagster.alerts.receivers.base import Delivery, NotPosted, Posted, Refused, Unclear
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from tests.alerts.fake_slack import FakeSlack

KEY = "a1b2" * 16


def delivery(key: str = KEY, channel: str = "#ml-alerts", **changes: Any) -> Delivery:
    group: Any = {
        "group_key": "g", "receiver": "slack", "channel": channel, "model": "credit", "family": ""
    }  # fmt: skip
    message = Message("title", "WARN", (Item("item"),))
    now = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    payload = json.loads(outbox_row(group, key, "opened", message, head_key="", now=now)["payload"])
    return Delivery(key, channel, changes.pop("channel_id", ""), payload, **changes)


@pytest.mark.parametrize(
    ("step", "outcome", "wait"),
    [
        ("429:7", NotPosted, 7.0),
        ("429", NotPosted, 30.0),
        ("429:soon", NotPosted, 30.0),
        ("ratelimited", NotPosted, 30.0),
        ("500", Unclear, None),
        ("502", Unclear, None),
        ("504", Unclear, None),
        ("internal_error", Unclear, None),
        ("accesslimited", NotPosted, None),
        ("org_login_required", NotPosted, None),
        ("ekm_access_denied", NotPosted, None),
        ("fatal_error", Unclear, None),
        ("html", Unclear, None),
        ("reset", Unclear, None),
        ("eof", Unclear, None),
        ("truncated", Unclear, None),
        ("hang", Unclear, None),
        ("invalid_auth", Refused, None),
        ("not_in_channel", Refused, None),
        ("is_archived", Refused, None),
        ("something_new", Refused, None),
    ],
)
def test_each_fault_has_a_class_and_nothing_is_retried_inside(
    slack: FakeSlack, receiver: SlackReceiver, step: str, outcome: type, wait: float | None
) -> None:
    slack.script("chat.postMessage", step)
    got = receiver.send(delivery())

    assert isinstance(got, outcome)
    assert getattr(got, "wait_seconds", None) == wait
    assert slack.calls == ["chat.postMessage"]
    assert slack.messages == []


@pytest.mark.parametrize("step", ["500", "reset", "eof", "truncated", "hang"])
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_message_whose_reply_was_lost_is_found_again(
    slack: FakeSlack, receiver: SlackReceiver, step: str, in_thread: bool
) -> None:
    head = receiver.send(delivery("0" * 64))
    assert isinstance(head, Posted)
    thread = {"thread_ts": head.ts, "channel_id": head.channel_id} if in_thread else {}
    slack.script("chat.postMessage", f"after_{step}")
    sent = receiver.send(delivery(**thread))
    found = receiver.look_up(delivery(**thread), since=0)

    assert isinstance(sent, Unclear)
    assert isinstance(found, Posted)
    assert [message.key for message in slack.messages if message.ts == found.ts] == [KEY]


def test_a_message_is_found_by_its_visible_mark_where_metadata_is_kept_back(
    slack: FakeSlack, receiver: SlackReceiver
) -> None:
    receiver.send(delivery())
    slack.messages[0].body["metadata"] = {}

    assert isinstance(receiver.look_up(delivery(), since=0), Posted)


def test_an_old_message_is_found_behind_many_pages(
    slack: FakeSlack, receiver: SlackReceiver
) -> None:
    for number in range(23):
        receiver.send(delivery(f"{number:02d}" * 32))

    assert isinstance(receiver.look_up(delivery("00" * 32), since=0), Posted)
    assert slack.calls.count("conversations.history") == 5


def test_a_message_that_is_not_there_may_be_posted(
    slack: FakeSlack, receiver: SlackReceiver
) -> None:
    assert receiver.look_up(delivery(), since=0) == NotPosted("not in the channel's history")


@pytest.mark.parametrize(
    ("method", "step", "outcome", "words"),
    [
        ("conversations.history", "missing_scope", NotPosted, "possible repeat"),
        ("conversations.list", "missing_scope", NotPosted, "possible repeat"),
        ("conversations.history", "500", Unclear, "HTTP 500"),
        ("conversations.history", "429:9", Unclear, "wait"),
    ],
)
def test_a_history_that_cannot_be_read(
    slack: FakeSlack,
    receiver: SlackReceiver,
    method: str,
    step: str,
    outcome: type,
    words: str,
) -> None:
    slack.script(method, step)
    got = receiver.look_up(delivery(), since=0)

    assert isinstance(got, outcome)
    assert words in getattr(got, "error", "")


def test_blocks_that_slack_refuses_go_out_as_plain_text_once(
    slack: FakeSlack, receiver: SlackReceiver
) -> None:
    slack.script("chat.postMessage", "invalid_blocks")

    assert isinstance(receiver.send(delivery()), Posted)
    assert "(mlmon a1b2a1b2a1b2)" in slack.messages[0].text
    assert isinstance(receiver.look_up(delivery(), since=0), Posted)


def test_an_update_changes_the_message_and_needs_no_lookup(
    slack: FakeSlack, receiver: SlackReceiver
) -> None:
    head = receiver.send(delivery())
    assert isinstance(head, Posted)
    update = delivery("b" * 64, update_ts=head.ts, channel_id=head.channel_id)

    assert isinstance(receiver.send(update), Posted)
    assert len(slack.messages[0].updates) == 1
    assert isinstance(receiver.look_up(update, since=0), NotPosted)


def test_a_server_that_is_not_there_is_surely_no_post() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    receiver = SlackReceiver("xoxb", base_url=f"http://127.0.0.1:{port}/api/")

    assert isinstance(receiver.send(delivery()), NotPosted)


def test_a_name_that_does_not_resolve_is_surely_no_post() -> None:
    receiver = SlackReceiver("xoxb", base_url="http://no-such-host.invalid/api/")

    assert isinstance(receiver.send(delivery()), NotPosted)


@pytest.mark.parametrize(
    ("token", "scopes", "is_fine", "words"),
    [
        ("xoxb-right", "chat:write,channels:history", True, "Connected to Team as mlmon."),
        ("xoxb-wrong", "", False, "Slack does not know this token"),
        ("xoxb-right", "chat:write", False, "Missing: channels:history"),
        ("xoxb-right", "channels:history", False, "Missing: chat:write"),
    ],
)
def test_the_connection_is_explained(
    slack: FakeSlack, token: str, scopes: str, is_fine: bool, words: str
) -> None:
    slack.scopes = scopes
    check = SlackReceiver(token, base_url=slack.url).auth_test()

    assert check.ok == is_fine
    assert words in check.text


@pytest.mark.parametrize(
    ("app_token", "step", "words"),
    [
        ("xapp-right", "", "Buttons can be listened to."),
        ("xapp-wrong", "", "Buttons do nothing: invalid_auth. In the Slack app turn on Socket"),
        ("xoxb-right", "", "MLMON_SLACK_APP_TOKEN is not an app-level token"),
        ("xapp-right", "missing_scope", "the scope connections:write"),
        ("xapp-right", "503", "Buttons do nothing: no usable answer"),
    ],
)
def test_the_token_for_buttons_is_tried_out(
    slack: FakeSlack, app_token: str, step: str, words: str
) -> None:
    slack.script("apps.connections.open", *[step][: bool(step)])
    check = SlackReceiver(slack.token, base_url=slack.url, app_token=app_token).auth_test()

    assert check.ok == words.startswith("Buttons can")
    assert words in check.text
    assert app_token not in check.text


def test_a_channel_that_does_not_exist_is_explained(
    slack: FakeSlack, receiver: SlackReceiver
) -> None:
    got = receiver.send(delivery(channel="#nowhere"))

    assert isinstance(got, Refused)
    assert "/invite" in got.error


def test_no_message_body_and_no_token_is_logged(
    slack: FakeSlack, receiver: SlackReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        slack.script("chat.postMessage", "reset")
        receiver.send(delivery())
        receiver.send(delivery())

    assert "title" not in caplog.text
    assert slack.token not in caplog.text
