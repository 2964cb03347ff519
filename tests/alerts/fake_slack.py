"""A Slack that keeps what was posted and breaks as told: a real HTTP server on a free port.

A step of the script is one answer to one request of a method; without a step the answer is right.
Faults named ``after_*`` happen when the message has already been posted; ``late`` posts it when the
client has given up.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CHANNELS = {"#ml-alerts": "C0000001", "#other": "C0000002", "#ghost": ""}
_SILENT = ("reset", "eof", "hang", "truncated")


@dataclass
class File:
    """One picture in a thread."""

    id: str
    name: str
    title: str
    alt: str
    channel: str
    thread_ts: str
    ts: str
    content: bytes


@dataclass
class Message:
    """One side effect: a message that people see."""

    channel: str
    ts: str
    body: dict[str, Any]
    updates: list[dict[str, Any]] = field(default_factory=list)

    @property
    def key(self) -> str:
        return str(self.body["metadata"]["event_payload"]["idempotency_key"])

    @property
    def thread_ts(self) -> str:
        return str(self.body.get("thread_ts") or "")

    @property
    def text(self) -> str:
        return str(self.body["text"])

    @property
    def shown(self) -> dict[str, Any]:
        """The newest version."""
        return {**self.body, **(self.updates[-1] if self.updates else {})}

    @property
    def colour(self) -> str:
        return str(self.shown["attachments"][0]["color"])


class FakeSlack:
    """The server's memory and script."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.files: list[File] = []
        self.uploads: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.token = "xoxb-right"
        self.app_token = "xapp-right"
        self.scopes = "chat:write,channels:history,channels:read,files:write"
        self.hang_seconds = 1.5
        self.strict = True
        self.is_down = False  # answers nothing but 503
        self.channels = dict(CHANNELS)
        self.page_size = 5  # small pages: paging is exercised
        self.accepted: list[Message] = []  # also what was deleted later
        self.storm: Callable[[str], str] | None = None  # a step where the script has none
        self._script: dict[str, deque[str]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._n = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/api/"

    def script(self, method: str, *steps: str) -> None:
        """Say what happens to the next requests of a method, such as ``429:3`` or ``after_500``."""
        with self._lock:
            self._script[method].extend(steps)

    def script_ends(self) -> None:
        """Forget the steps that have not been taken."""
        with self._lock:
            self._script.clear()

    def fall_silent(self, is_silent: bool = True) -> None:
        """Answer nothing but 503 from now on, or answer again."""
        self.is_down = is_silent

    def heads(self) -> list[Message]:
        return [message for message in self.messages if not message.thread_ts]

    def replies(self, head: Message) -> list[Message]:
        return [message for message in self.messages if message.thread_ts == head.ts]

    # What Slack does

    def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "auth.test":
            return {"ok": True, "team": "Team", "user": "mlmon", "url": "https://team.slack.com/"}
        if method == "apps.connections.open":
            return {"ok": True, "url": "wss://127.0.0.1/link"}
        if method == "conversations.list":
            return self._list(params)
        if method.startswith("files."):
            return self._file(method, params)
        channel = self.channels.get(params.get("channel", ""), params.get("channel", ""))
        if channel not in self.channels.values() or not channel:
            return {"ok": False, "error": "channel_not_found"}
        if method != "chat.postMessage" and params["channel"].startswith("#"):
            return {"ok": False, "error": "channel_not_found"}
        if method == "chat.postMessage":
            return self._post(channel, params)
        if method == "chat.update":
            return self._update(channel, params)
        if method == "chat.delete":
            return self._delete(channel, params)
        return self._history(channel, params, replies=method == "conversations.replies")

    def _list(self, params: dict[str, Any]) -> dict[str, Any]:
        found = [{"name": name[1:], "id": id_} for name, id_ in self.channels.items() if id_]
        start, limit = int(params.get("cursor") or 0), max(self.page_size // 5, 1)
        following = str(start + limit) if start + limit < len(found) else ""
        return {
            "ok": True,
            "channels": found[start : start + limit],
            "response_metadata": {"next_cursor": following},
        }

    def _post(self, channel: str, body: dict[str, Any]) -> dict[str, Any]:
        if error := self._limits(body):
            return {"ok": False, "error": error}
        with self._lock:
            self._n += 1
            message = Message(channel, f"{time.time():.0f}.{self._n:06d}", body)
            self.messages.append(message)
            self.accepted.append(message)
        return {"ok": True, "ts": message.ts, "channel": channel, "message": body}

    def _file(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "files.getUploadURLExternal":
            with self._lock:
                self._n += 1
                file_id = f"F{self._n:07d}"
            self.uploads[file_id] = params
            url = self.url.replace("/api/", f"/upload/{file_id}")
            return {"ok": True, "upload_url": url, "file_id": file_id}
        if method == "files.delete":
            self.files = [file for file in self.files if file.id != params["file"]]
            return {"ok": True}
        (shared,) = json.loads(params["files"])
        upload, thread = self.uploads[shared["id"]], params["thread_ts"]
        if thread not in {m.ts for m in self.messages if m.channel == params["channel_id"]}:
            return {"ok": False, "error": "thread_not_found"}
        with self._lock:
            self._n += 1
            file = File(
                shared["id"], upload["filename"], shared["title"], upload["alt_txt"],
                params["channel_id"], thread, f"{time.time():.0f}.{self._n:06d}",
                upload["content"],
            )  # fmt: skip
            self.files.append(file)
        return {"ok": True, "files": [{"id": file.id, "title": file.title}]}

    def _update(self, channel: str, body: dict[str, Any]) -> dict[str, Any]:
        if error := self._limits(body):
            return {"ok": False, "error": error}
        for message in self.messages:
            if (message.channel, message.ts) == (channel, body["ts"]):
                message.updates.append(body)
                return {"ok": True, "ts": message.ts, "channel": channel}
        return {"ok": False, "error": "message_not_found"}

    def _delete(self, channel: str, params: dict[str, Any]) -> dict[str, Any]:
        gone = [m for m in self.messages if (m.channel, m.ts) == (channel, params["ts"])]
        self.messages = [m for m in self.messages if m not in gone]
        return {"ok": True} if gone else {"ok": False, "error": "message_not_found"}

    def _history(self, channel: str, params: dict[str, Any], *, replies: bool) -> dict[str, Any]:
        found = [
            {"ts": m.ts, "text": m.shown["text"], "attachments": m.shown.get("attachments", [])}
            | ({"metadata": m.body["metadata"]} if params.get("include_all_metadata") else {})
            for m in reversed(self.messages)
            if m.channel == channel
            and float(m.ts) >= float(params.get("oldest") or 0)
            and (params["ts"] in (m.thread_ts, m.ts) if replies else not m.thread_ts)
        ]
        if replies:
            found += [
                {"ts": f.ts, "text": "", "files": [{"id": f.id, "name": f.name}]}
                for f in self.files
                if (f.channel, f.thread_ts) == (channel, params["ts"])
            ]
        start, limit = int(params.get("cursor") or 0), self.page_size
        following = str(start + limit) if start + limit < len(found) else ""
        return {
            "ok": True,
            "messages": found[start : start + limit],
            "response_metadata": {"next_cursor": following},
        }

    def _limits(self, body: dict[str, Any]) -> str:
        if not self.strict:
            return ""
        if not body.get("text"):
            return "no_text"
        if len(body["text"]) > 40_000:
            return "msg_too_long"
        blocks = [*body.get("blocks", ())]
        for attachment in body.get("attachments") or ():
            blocks += attachment.get("blocks", ())
        if len(blocks) > 50 or any(not _block_is_fine(block) for block in blocks):
            return "invalid_blocks"
        if len(json.dumps(blocks, ensure_ascii=False)) > 13_200:
            return "msg_blocks_too_long"
        return ""

    def next_step(self, method: str) -> str:
        with self._lock:
            self.calls.append(method)
            if steps := self._script[method]:
                return steps.popleft()
            return self.storm(method) if self.storm else ""

    # HTTP

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                if self.path.startswith("/upload/"):
                    self._take_bytes(body)
                    return
                params = _params(body, self.headers.get("Content-Type", ""))
                params |= {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
                method = urlsplit(self.path).path.rsplit("/", 1)[-1]
                step = fake.next_step(method)
                if fake.is_down:
                    self._break("503")
                    return
                token = fake.app_token if method.startswith("apps.") else fake.token
                if self.headers.get("Authorization") != f"Bearer {token}":
                    self._reply(200, {"ok": False, "error": "invalid_auth"})
                    return
                if step == "late":  # taken in when the client has given up already
                    self._wait_until_the_client_gives_up()
                    fake.answer(method, params)
                    step = "eof"
                if not step or step.startswith("after_"):
                    answer = fake.answer(method, params)
                    if not step:
                        self._reply(200, answer)
                        return
                self._break(step.removeprefix("after_"))

            do_GET = do_POST

            def _take_bytes(self, body: bytes) -> None:
                step = fake.next_step("upload")
                upload = fake.uploads[self.path.rsplit("/", 1)[-1]]
                if not step and len(body) == int(upload["length"]):
                    upload["content"] = body
                    self._send(200, b"OK", "text/plain", {})
                else:
                    self._break(step or "400")

            def _wait_until_the_client_gives_up(self) -> None:
                # Its end of the connection is closed then, however long it took on a busy machine.
                select.select([self.connection], [], [], fake.hang_seconds)

            def _break(self, step: str) -> None:
                name, _, argument = step.partition(":")
                if name == "hang":
                    self._wait_until_the_client_gives_up()
                if name == "truncated":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b'{"ok": tr')
                if name == "reset":
                    option = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
                if name in _SILENT:
                    self.close_connection = True
                    self.connection.close()
                elif name == "html":
                    self._send(200, b"<html>Log in to the proxy</html>", "text/html", {})
                elif name == "429":
                    headers = {"Retry-After": argument} if argument else {}
                    self._reply(429, {"ok": False, "error": "ratelimited"}, headers)
                elif name.isdigit():
                    self._send(int(name), b"upstream failed", "text/plain", {})
                else:
                    self._reply(200, {"ok": False, "error": name})

            def _reply(
                self, status: int, answer: dict[str, Any], headers: dict[str, str] | None = None
            ) -> None:
                extra = {"x-oauth-scopes": fake.scopes, **(headers or {})}
                self._send(status, json.dumps(answer).encode(), "application/json", extra)

            def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(ConnectionError):  # the client was killed
                    self.wfile.write(body)

            def log_message(self, *_args: Any) -> None:
                pass

        return Handler

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _params(body: bytes, kind: str) -> dict[str, Any]:
    if kind.startswith("application/json"):
        return dict(json.loads(body))
    return {name: values[0] for name, values in parse_qs(body.decode()).items()}


def _block_is_fine(block: dict[str, Any]) -> bool:
    texts = [block["text"]] if "text" in block else block.get("elements", [])
    limit = 150 if block["type"] == "header" else 3000
    return len(texts) <= 10 and all(1 <= len(text["text"]) <= limit for text in texts)


@contextmanager
def fake_slack() -> Iterator[FakeSlack]:
    """Run a fake Slack for as long as the context lasts."""
    fake = FakeSlack()
    fake.start()
    try:
        yield fake
    finally:
        fake.stop()
