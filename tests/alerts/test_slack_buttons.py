"""Buttons in Slack, over a real socket: what is clicked is done, and done once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from mlmon_dagster.alerts.handling import acknowledge
from mlmon_dagster.alerts.receivers.slack import SlackReceiver, listener
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import alert_event, silence
from tests.alerts.fake_slack import FakeSlack, Message
from tests.alerts.worlds import alerts_of, day, result, rows_of, send, settle, spec_of

SPECS = [spec_of()]


@dataclass
class SocketMode:
    """A Slack that sends clicks over a socket and keeps which of them were answered."""

    url: str = ""
    to_send: Queue[dict[str, Any] | None] = field(default_factory=Queue)
    answered: Queue[str] = field(default_factory=Queue)

    def click(self, button: dict[str, Any], envelope: str, **more: Any) -> None:
        """Send a click; return once it is answered."""
        action = {"action_ts": "1712.5", **{k: button[k] for k in ("action_id", "value")}}
        user = {"id": "U1", "username": "ana"}
        payload = {"type": "block_actions", "user": user, "actions": [action]}
        message = {"envelope_id": envelope, "type": "interactive", "payload": payload, **more}
        self.to_send.put(message)
        assert self.answered.get(timeout=60) == envelope

    def talk(self, connection: ServerConnection) -> None:
        """Be the other end of a connection, one click after the other."""
        connection.send(json.dumps({"type": "hello", "num_connections": 1}))
        while (message := self.to_send.get()) is not None:
            connection.send(json.dumps(message))
            while True:
                answer = json.loads(connection.recv(timeout=60))
                if "envelope_id" in answer:
                    self.answered.put(answer["envelope_id"])
                    break


@contextmanager
def socket_mode() -> Iterator[SocketMode]:
    fake = SocketMode()

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path.endswith("apps.connections.open")
            assert self.headers["Authorization"] == "Bearer xapp-1"
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps({"ok": True, "url": f"ws://127.0.0.1:{port}/"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with serve(fake.talk, "127.0.0.1", 0) as sockets:
        port = sockets.socket.getsockname()[1]
        api = ThreadingHTTPServer(("127.0.0.1", 0), Api)
        for server in (sockets, api):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        fake.url = f"http://127.0.0.1:{api.server_address[1]}/api/"
        yield fake
        fake.to_send.put(None)
        api.shutdown()
        api.server_close()


@pytest.fixture
def with_buttons(slack: FakeSlack) -> SlackReceiver:
    return SlackReceiver(
        slack.token, base_url=slack.url, timeout_seconds=30, app_token=slack.app_token
    )


def buttons_in(slack: FakeSlack) -> dict[str, dict[str, Any]]:
    """Return the buttons of the newest message, by action."""
    return buttons_of(slack.messages[-1])


def buttons_of(message: Message) -> dict[str, dict[str, Any]]:
    """Return the buttons that a message shows."""
    blocks = [
        b for a in message.shown["attachments"] for b in a["blocks"] if b["type"] == "actions"
    ]
    return {button["action_id"]: button for block in blocks for button in block["elements"]}


def test_what_is_clicked_is_done_once_however_often_slack_sends_it(
    store: Store, slack: FakeSlack, with_buttons: SlackReceiver
) -> None:
    settle(
        store, SPECS, day(2), result(1), result(1, column_name="b", slice_key="k", slice_value="*")
    )
    send(store, with_buttons)
    buttons = buttons_in(slack)
    assert set(buttons) == {"mlmon_acknowledge", "mlmon_silence", "mlmon_known_event"}

    with socket_mode() as fake:
        client = listener(store, "xapp-1", lambda: day(2), base_url=fake.url)
        client.connect()
        try:
            for name, button in buttons.items():
                fake.click(button, name)
                fake.click(button, name, retry_attempt=1, retry_reason="timeout")
            fake.click({"action_id": "mlmon_silence", "value": "no-such-alert"}, "stray")
        finally:
            client.close()

    assert {row["acked_by"] for row in alerts_of(store)} == {"ana (Slack)"}
    kinds = [row["kind"] for row in rows_of(store, alert_event)]
    assert kinds.count("acknowledged") == len(alerts_of(store)) == 2
    silences = rows_of(store, silence)
    assert len(silences) == 2
    assert {row["ends_at"] - row["starts_at"] for row in silences} == {day(3) - day(2)}
    assert sorted(json.loads(row["matcher"]).get("slice_value", "") for row in silences) == [
        "", "[*]",
    ]  # fmt: skip
    report = send(store, with_buttons)
    assert report.n_sent == 6, [m.body["text"] for m in slack.messages]
    told = [message.text for message in slack.messages]
    assert sum("acknowledged by ana" in text for text in told) == 2
    assert sum("silenced until" in text for text in told) == 2
    assert sum("a known event until 2024-01-09, says ana" in text for text in told) == 2


def test_the_first_message_keeps_its_buttons_and_says_who_is_at_it_until_all_is_over(
    store: Store, slack: FakeSlack, with_buttons: SlackReceiver
) -> None:
    settle(store, SPECS, day(2), result(1, "WARN"), result(1, "WARN", column_name="b"))
    send(store, with_buttons)
    (head,) = slack.heads()
    assert "Acknowledged" not in json.dumps(head.shown)

    first, _ = alerts_of(store)
    acknowledge(store, first["fingerprint"], "ana", day(2))
    settle(store, SPECS, day(2))
    send(store, with_buttons)
    assert f"{first['column_name']} by ana" in json.dumps(head.shown)
    assert settle(store, SPECS, day(2)) == 0
    n_edits = len(head.updates)

    settle(store, SPECS, day(3), result(2), result(2, "OK", column_name="b"))
    send(store, with_buttons)
    (worse,) = [row for row in alerts_of(store) if row["state"] == "FIRING"]
    assert len(head.updates) > n_edits
    assert "Acknowledged" not in json.dumps(head.shown)  # it is worse: somebody has to look again
    buttons = buttons_of(head)
    assert set(buttons) == {"mlmon_acknowledge", "mlmon_silence", "mlmon_known_event"}
    assert {b["value"] for b in buttons.values()} == {worse["fingerprint"][:16]}
    assert not any(map(buttons_of, slack.replies(head)))  # nobody would edit those

    settle(store, SPECS, day(4), result(3, "OK"), result(3, "OK", column_name="b"))
    send(store, with_buttons)
    assert "resolved" in head.shown["text"]
    assert len(slack.replies(head)) > 2
    assert not any(map(buttons_of, slack.messages))


def test_what_is_over_and_what_nobody_listens_to_has_no_buttons(
    store: Store, slack: FakeSlack, receiver: SlackReceiver, with_buttons: SlackReceiver
) -> None:
    settle(store, SPECS, day(2), result(1))
    send(store, receiver)
    assert not buttons_in(slack)
    settle(store, SPECS, day(4), result(2, "OK"), result(3, "OK"))
    send(store, with_buttons)
    assert not buttons_in(slack)
