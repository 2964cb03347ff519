"""Slack: the only module that talks to it, and what its error codes mean and what mends them.

A reply that does not come, or comes broken, says nothing about whether the message was posted.
Slack has no idempotency key, so what is unclear is looked up in the channel's history.

By buttons an alert is acknowledged, silenced or said to be known, where it was read. Slack sends
clicks over a connection that we open (Socket Mode), so nothing of ours need be reached from
outside. A click that was not answered in time is sent again; it does what it says once.
"""

from __future__ import annotations

import datetime as dt
import http.client
import json
import logging
import re
import socket
import ssl
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast
from urllib.error import URLError

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.socket_mode import SocketModeClient
from slack_sdk.socket_mode.client import BaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web import SlackResponse

from mlmon_dagster.alerts.handling import acknowledge, note_event, silence_alert
from mlmon_dagster.alerts.messages.message import (
    COLOURS,
    MAX_LIST,
    MAX_MORE,
    MAX_NOTE,
    MAX_SENTENCE,
    Item,
    Message,
    Payload,
    clean,
    escape,
    read_message,
    safe,
)
from mlmon_dagster.alerts.receivers.base import (
    Delivery,
    Draw,
    NotPosted,
    Outcome,
    Posted,
    Receiver,
    Refused,
    Surroundings,
    Unclear,
    draw_or_none,
    read_plot,
    retry_after,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.alerting import read_mention
from mlmon_dagster.store import Store
from mlmon_dagster.store.bounded_http import open_within

TOKEN, APP_TOKEN = "MLMON_SLACK_TOKEN", "MLMON_SLACK_APP_TOKEN"
API_URL = "MLMON_SLACK_API_URL"  # another endpoint, for tests
ACKNOWLEDGE, SILENCE, KNOWN = "mlmon_acknowledge", "mlmon_silence", "mlmon_known_event"
SILENCED_FOR = dt.timedelta(hours=24)
KNOWN_FOR = dt.timedelta(days=7)
_ALERT_ID = 16  # characters of a fingerprint, which name one alert of very many
_MOST_ALERTS = 100  # in the 2,000 characters that a button holds
_log = logging.getLogger(__name__)
_EMOJI = {"ERROR": ":red_circle:", "WARN": ":large_yellow_circle:", "OK": ":white_check_mark:"}
# Room of the parts; JSON may double them, and Slack refuses more than about 13,000 together.
_ROOM_NOTES, _ROOM_LINKS, _ROOM_COMMAND = 1000, 800, 500
_FALLBACK_TEXT = 2000  # of a copy, before the note on what it is a copy of
EVENT_TYPE = "mlmon_alert"
TIMEOUT_SECONDS = 10
SCOPES = ("chat:write", "channels:history")
PLOT_SCOPE = "files:write"
_CLOCK_SKEW_SECONDS = 3600  # by which our clock may be ahead of Slack's
_MAX_PAGES = 25
_CHANNEL_ID = re.compile(r"[CGD][A-Z0-9]{6,}")
Call = Callable[[], SlackResponse]
# "Some aspect of the operation may have succeeded before the error was raised."
UNCLEAR_ERRORS = frozenset(
    {"fatal_error", "internal_error", "service_unavailable", "request_timeout", "team_added_to_org"}
)
# What an admin or Slack itself ends without anything being mended here; the message was not posted.
PASSING_ERRORS = frozenset({"accesslimited", "org_login_required", "ekm_access_denied"})
PAYLOAD_ERRORS = frozenset(
    {
        "msg_too_long",
        "msg_blocks_too_long",
        "invalid_blocks",
        "invalid_blocks_format",
        "invalid_attachments",
        "too_many_attachments",
        "metadata_too_large",
    }
)
# What surely kept a request from getting there, and what mends it.
UNREACHABLE: dict[type[BaseException], str] = {
    socket.gaierror: "The name does not resolve: check the network, DNS, and HTTPS_PROXY where "
    "there is a proxy.",
    ssl.SSLCertVerificationError: "The certificate is not trusted: if a proxy opens TLS, add its "
    "certificate to SSL_CERT_FILE.",
    ConnectionRefusedError: "Nothing listens there: check HTTPS_PROXY and the firewall.",
}
_GONE = ("message_not_found", "file_not_found", "file_deleted")  # somebody deleted it
_TOKEN = "Copy the Bot User OAuth Token (xoxb-...) of the app into the token's variable."
_APP_TOKEN = "xapp-"
_HOW_APP = (
    "In the Slack app turn on Socket Mode and Interactivity, make an app-level token with the "
    "scope connections:write, and put it into MLMON_SLACK_APP_TOKEN."
)
_MEANINGS = {
    "not_authed": f"No token was sent. {_TOKEN}",
    "invalid_auth": f"Slack does not know this token. {_TOKEN}",
    "token_revoked": f"The token was revoked. Reinstall the app and renew it. {_TOKEN}",
    "token_expired": f"The token has expired. {_TOKEN}",
    "account_inactive": f"The bot's account was removed. Reinstall the app. {_TOKEN}",
    "not_allowed_token_type": f"This is not a bot token. {_TOKEN}",
    "channel_not_found": "There is no such channel, or it is private and the bot is not in it. "
    "Check alerts.slack.channel in the model's file and type /invite @your-bot in the channel.",
    "not_in_channel": "The bot is not in the channel. Type /invite @your-bot there.",
    "is_archived": "The channel is archived. Unarchive it or name another one in "
    "alerts.slack.channel of the model's file.",
    "missing_scope": "The token lacks a permission. Add it under OAuth & Permissions of the app "
    "and reinstall the app.",
    "accesslimited": "Slack limits access to this workspace for now.",
    "org_login_required": "The workspace is being moved into an organisation.",
    "ekm_access_denied": "The workspace's key is not available: an admin has suspended it.",
    "restricted_action": "A rule of the workspace forbids the bot to post there. Ask an admin.",
    "message_not_found": "The message to update was deleted.",
    "cant_update_message": "The message to update is not the bot's.",
    "edit_window_closed": "The workspace forbids to edit messages this old.",
    "history_too_long": "The channel has more messages than could be searched.",
    "msg_too_long": "The message is too long.",
    "msg_blocks_too_long": "The message's blocks are too long.",
    "invalid_blocks": "Slack refuses the message's blocks.",
}


@dataclass(frozen=True)
class SlackCheck:
    """Whether Slack is connected; ``text`` says what was found and what mends it."""

    ok: bool
    text: str


class _Client(WebClient):
    """The SDK's client, whose answers have a deadline as a whole."""

    def _perform_urllib_http_request_internal(
        self, url: str, req: urllib.request.Request
    ) -> dict[str, object]:
        proxies = {"http": self.proxy, "https": self.proxy} if self.proxy else None
        with open_within(req, self.timeout, urllib.request.ProxyHandler(proxies)) as answer:
            body = answer.read().decode(answer.headers.get_content_charset() or "utf-8")
            return {"status": answer.status, "headers": answer.headers, "body": body}


def connect(around: Surroundings) -> Receiver | None:
    """Return the workspace of the project's token; None without a token."""
    token, url = around.variables(TOKEN), around.variables(API_URL)
    return (
        _connect_workspace(token, url, around.variables(APP_TOKEN), around.draw) if token else None
    )


@cache
def _connect_workspace(
    token: str, url: str | None, app_token: str | None, draw: Draw | None
) -> Receiver:
    """Return a workspace, made once, so that its channels are listed once."""
    return SlackReceiver(token, base_url=url or WebClient.BASE_URL, draw=draw, app_token=app_token)


class SlackReceiver:
    """A Slack workspace, by bot token.

    Args:
        token: Bot token (``xoxb-``) with the scopes chat:write and channels:history
            (groups:history for private channels), and files:write for plots.
        base_url: Another address of the API; for tests.
        proxy: Address of an HTTP proxy; the environment's is used if None.
        timeout_seconds: Of one request.
        draw: Makes the picture of a plot; None shows none.
        app_token: App-level token (``xapp-``) by which somebody listens to buttons;
            messages have none without.
    """

    def __init__(
        self,
        token: str,
        *,
        base_url: str = WebClient.BASE_URL,
        proxy: str | None = None,
        timeout_seconds: int = TIMEOUT_SECONDS,
        draw: Draw | None = None,
        app_token: str | None = None,
    ) -> None:
        self._draw = draw
        self._app_token = app_token
        logger = logging.getLogger(__name__)
        logger.setLevel(logging.CRITICAL)  # outcomes are kept in the outbox; DEBUG prints bodies
        self._client = _Client(
            token,
            base_url=base_url,
            proxy=proxy,
            timeout=timeout_seconds,
            retry_handlers=[],  # the default one posts again after a lost reply
            logger=logger,
        )
        self._channel_ids: dict[str, str] = {}

    def send(self, delivery: Delivery) -> Outcome:
        """Post or update once, with plain text in a second try if the blocks are refused."""
        if read_plot(delivery.payload):
            return self._upload(delivery)
        payload: Payload = render(delivery.payload)
        if self._app_token and not delivery.thread_ts:  # an answer's would outlive what it is about
            told = delivery.payload.get("tells", ())
            payload = _add_buttons(payload, delivery.payload.get("handles", told))
        outcome = self._try_call(lambda: self._call(delivery, payload))
        if isinstance(outcome, Refused) and outcome.error.split(":")[0] in PAYLOAD_ERRORS:
            outcome = self._try_call(lambda: self._call(delivery, short_payload(payload)))
        return outcome

    def _upload(self, delivery: Delivery) -> Outcome:
        """Upload a plot into its thread; only the last of the three steps can be seen."""
        plot, picture = read_plot(delivery.payload), draw_or_none(self._draw, delivery.payload)
        if plot is None or picture is None:
            return Refused("the plot could not be drawn")
        try:
            ticket = self._client.files_getUploadURLExternal(
                filename=file_name(delivery.idempotency_key),
                length=len(picture),
                alt_txt=plot["alt"],
            )
            file_id = str(ticket["file_id"])
            send_bytes(str(ticket["upload_url"]), picture, self._client.timeout, self._client.proxy)
        except Exception as error:  # classified, and begun again: nobody has seen anything
            outcome = classify(error)
            return NotPosted(outcome.error) if isinstance(outcome, Unclear) else outcome
        outcome = self._try_call(
            lambda: self._client.files_completeUploadExternal(
                files=[{"id": file_id, "title": plot["title"]}],
                channel_id=delivery.channel_id,
                thread_ts=delivery.thread_ts,
            )
        )
        return Posted(file_id, delivery.channel_id) if isinstance(outcome, Posted) else outcome

    def _call(self, delivery: Delivery, payload: Payload) -> SlackResponse:
        # A name is resolved by Slack each time; threads and updates need the id of back then.
        is_new = not (delivery.thread_ts or delivery.update_ts)
        channel = delivery.channel if is_new else delivery.channel_id or delivery.channel
        content = {"text": payload["text"], "attachments": payload.get("attachments", [])}
        if delivery.update_ts:
            return self._client.chat_update(channel=channel, ts=delivery.update_ts, **content)
        return self._client.chat_postMessage(
            channel=channel,
            thread_ts=delivery.thread_ts or None,
            metadata=payload["metadata"],
            client_msg_id=payload["client_msg_id"],
            unfurl_links=False,
            unfurl_media=False,
            **content,
        )

    def _try_call(self, call: Call) -> Outcome:
        try:
            answer = call()
        except Exception as error:  # classified, never swallowed: the outbox keeps every outcome
            return classify(error)
        return Posted(str(answer.get("ts", "")), str(answer.get("channel", "")))

    def look_up(self, delivery: Delivery, since: float) -> Outcome:
        """Search the channel's history, or the thread, for the message.

        If frozen workers have left more than one copy, one stays, see ``Delivery.kept_ts``. As long
        as another one cannot be deleted yet, the message is to be looked up again.
        """
        if delivery.update_ts:
            return NotPosted("an update can be repeated")
        try:
            channel_id = delivery.channel_id or self._find_channel_id(delivery.channel)
            copies = self._find_copies(delivery, channel_id, since)
            kept = delivery.kept_ts or "".join(copies[:1])
            others = (Posted(ts, channel_id) for ts in copies if ts != kept)
            retracted = [self.retract(delivery, posted) for posted in others]
            if left := next((one for one in retracted if isinstance(one, Unclear)), None):
                return left
            if kept:
                return Posted(kept, channel_id)
        except Exception as error:  # classified as above
            outcome = classify(error)
            if isinstance(outcome, Refused):
                return NotPosted(f"history cannot be read, possible repeat: {outcome.error}")
            return ask_later(outcome)
        return NotPosted("not in the channel's history")

    def retract(self, delivery: Delivery, posted: Posted) -> Outcome:
        """Delete a message or plot of ours that is there twice."""
        try:
            if read_plot(delivery.payload):
                self._client.files_delete(file=posted.ts)
            else:
                self._client.chat_delete(channel=posted.channel_id, ts=posted.ts)
        except Exception as error:  # classified as above
            outcome = classify(error)
            if isinstance(outcome, Refused):
                is_gone = outcome.error.split(":")[0] in _GONE
                return NotPosted("it is gone already") if is_gone else outcome
            return ask_later(outcome)
        return NotPosted("deleted")

    def _find_copies(self, delivery: Delivery, channel_id: str, since: float) -> list[str]:
        """Return the names of the messages of one key, oldest first; more than one is a fault."""
        found: list[tuple[float, str]] = []
        try:
            found.extend(
                (float(message["ts"]), name)
                for message in self._read_history(channel_id, delivery.thread_ts, since)
                if (name := name_in(message, delivery))
            )
        except SlackClientError:
            if not found:  # what follows cannot change that the message is there
                raise
        return [name for _, name in sorted(found)]

    def _read_history(self, channel_id: str, thread_ts: str, since: float) -> Iterator[Payload]:
        cursor = ""
        for _ in range(_MAX_PAGES):
            query: dict[str, Any] = {
                "channel": channel_id,
                "include_all_metadata": True,
                "limit": 200,
                "cursor": cursor or None,
            }
            if thread_ts:  # searched whole, so that no clock matters
                page = self._client.conversations_replies(ts=thread_ts, **query)
            else:
                oldest = f"{max(since - _CLOCK_SKEW_SECONDS, 0):.6f}"
                page = self._client.conversations_history(oldest=oldest, **query)
            yield from page.get("messages") or ()
            cursor = _read_cursor(page)
            if not cursor:
                return
        raise SlackClientError("history_too_long")

    def _find_channel_id(self, channel: str) -> str:
        if _CHANNEL_ID.fullmatch(channel):
            return channel
        cursor = ""
        while channel not in self._channel_ids:
            page = self._client.conversations_list(
                types="public_channel,private_channel",
                exclude_archived=True,
                limit=1000,
                cursor=cursor or None,
            )
            for found in page.get("channels") or ():
                self._channel_ids[f"#{found['name']}"] = found["id"]
            cursor = _read_cursor(page)
            if not cursor and channel not in self._channel_ids:
                raise SlackClientError("channel_not_found")
        return self._channel_ids[channel]

    def auth_test(self) -> SlackCheck:
        """Ask Slack who we are and what we may do; never raises for what Slack answers."""
        try:
            answer = self._client.auth_test()
        except Exception as error:  # said in words
            outcome = classify(error)
            return SlackCheck(False, getattr(outcome, "error", ""))
        granted = {
            s.strip() for s in _read_header(answer.headers, "x-oauth-scopes").split(",") if s
        }
        missing = [scope for scope in SCOPES if granted and scope not in granted]
        who = f"Connected to {answer.get('team')} as {answer.get('user')}."
        if missing:
            return SlackCheck(False, f"{who} {explain('missing_scope', missing)}")
        if granted and PLOT_SCOPE not in granted:
            who += f" No plots: scope {PLOT_SCOPE} is missing."
        problem = self._check_buttons()
        if problem:
            return SlackCheck(False, f"{who} Buttons do nothing: {problem}")
        return SlackCheck(True, who + " Buttons can be listened to." * bool(self._app_token))

    def _check_buttons(self) -> str:
        """Ask Slack for a connection for buttons, which is not opened; say why there is none."""
        if not self._app_token:
            return ""
        if not self._app_token.startswith(_APP_TOKEN):
            return f"MLMON_SLACK_APP_TOKEN is not an app-level token ({_APP_TOKEN}...). {_HOW_APP}"
        try:
            self._client.apps_connections_open(app_token=self._app_token)
        except Exception as error:  # said in words
            outcome = classify(error)
            if isinstance(outcome, Refused):
                return f"{outcome.error.partition(':')[0]}. {_HOW_APP}"
            return getattr(outcome, "error", "")
        return ""


def _add_buttons(payload: Payload, tells: Sequence[str]) -> Payload:
    """Add the row of buttons above the last line, to what says that something is wrong.

    Of a thread its first message alone has them: it is edited whenever what fires changes.
    """
    attachments = payload.get("attachments") or ()
    if not tells or not attachments or attachments[0]["color"] == COLOURS["OK"]:
        return payload
    *above, last = attachments[0]["blocks"]
    blocks = [*above, buttons_of(tells), last]
    return {**payload, "attachments": [{**attachments[0], "blocks": blocks}]}


def ask_later(outcome: Outcome) -> Unclear:
    """Return that a question which was not refused has no answer yet, with the wait asked for."""
    wait = outcome.wait_seconds if isinstance(outcome, NotPosted) else None
    return Unclear(getattr(outcome, "error", ""), wait)


def classify(error: Exception) -> Outcome:
    """Say what an exception of the SDK means for the message it was raised for."""
    if isinstance(error, SlackApiError):
        return _classify_answer(error.response)
    if isinstance(error, SlackClientError):
        return Refused(explain(str(error)))
    if isinstance(error, URLError) and isinstance(error.reason, tuple(UNREACHABLE)):
        hint = next(hint for kind, hint in UNREACHABLE.items() if isinstance(error.reason, kind))
        return NotPosted(f"Slack cannot be reached: {error.reason}. {hint}")
    if isinstance(error, OSError | http.client.HTTPException | ValueError):
        return Unclear(f"no usable answer from Slack: {type(error).__name__}: {error}")
    raise error


def _classify_answer(response: Any) -> Outcome:
    status, data = response.status_code, response.data
    code = str(data.get("error", "")) if isinstance(data, dict) else ""
    if status == http.HTTPStatus.TOO_MANY_REQUESTS or code in ("ratelimited", "rate_limited"):
        wait = retry_after(_read_header(response.headers, "retry-after"))
        return NotPosted("Slack asks to wait (rate limit)", wait)
    # A page of a proxy instead of JSON: the SDK puts a sentence where the code would be.
    is_code = re.fullmatch(r"[a-z0-9_]+", code) is not None
    if status != http.HTTPStatus.OK or not is_code or code in UNCLEAR_ERRORS:
        proxy = "" if is_code or status != http.HTTPStatus.OK else "; does a proxy answer instead?"
        said = f"HTTP {status} {code[:60]}".rstrip()
        return Unclear(f"no usable answer from Slack: {said}{proxy}")
    if code in PASSING_ERRORS:
        return NotPosted(explain(code))
    needed = str(data.get("needed") or "") if code == "missing_scope" else ""
    return Refused(explain(code, [needed] if needed else ()))


def _read_header(headers: Mapping[str, object], name: str) -> str:
    for key, value in (headers or {}).items():
        if key.lower() == name:
            return str(value[0] if isinstance(value, list) else value)
    return ""


def _read_cursor(page: SlackResponse) -> str:
    metadata = cast("Payload", page.get("response_metadata") or {})
    return str(metadata.get("next_cursor") or "")


def explain(code: str, missing: Sequence[str] = ()) -> str:
    """Return ``code: what it means and what mends it``.

    Args:
        code: Slack's error code.
        missing: Names of the permissions that are missing, if known.
    """
    meaning = _MEANINGS.get(code, "Slack refuses it; see https://docs.slack.dev/reference/methods")
    names = f" Missing: {', '.join(missing)}." if missing else ""
    return f"{code}: {meaning}{names}"


_MARK = 12


def file_name(idempotency_key: str) -> str:
    """Return the name of a plot's file, by which it is recognised in a thread."""
    return f"mlmon-{idempotency_key[:_MARK]}.png"


def shared_file(message: Payload, idempotency_key: str) -> str:
    """Return the id of the plot that a message of the history shares; empty if it does not."""
    for file in message.get("files") or ():
        if file.get("name") == file_name(idempotency_key):
            return str(file.get("id", ""))
    return ""


def send_bytes(url: str, content: bytes, timeout_seconds: float, proxy: str | None = None) -> None:
    """Hand in a file's bytes; the address is secret, short-lived and needs no token.

    Raises:
        OSError: If the server cannot be reached or answers anything but success.
    """
    proxies = urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else None)
    headers = {"Content-Type": "application/octet-stream", "User-Agent": "mlmon-dagster"}
    request = urllib.request.Request(url, content, headers)
    with open_within(request, timeout_seconds, proxies) as answer:
        answer.read(1024)


def name_in(found: Mapping[str, object], delivery: Delivery) -> str:
    """Return Slack's name of a delivery if a message of the history is it; else empty."""
    if read_plot(delivery.payload):
        return shared_file(found, delivery.idempotency_key)
    return str(found["ts"]) if _is_message(found, delivery.idempotency_key) else ""


def _is_message(found: Payload, idempotency_key: str) -> bool:
    """Recognise a message by its metadata, or by the mark people can see."""
    event = (found.get("metadata") or {}).get("event_payload") or {}
    if event.get("idempotency_key") == idempotency_key:
        return True
    seen = [found.get("text", ""), found.get("attachments", []), found.get("blocks", [])]
    return short_id(idempotency_key) in json.dumps(seen)


def buttons_of(tells: Sequence[str]) -> dict[str, object]:
    """Return the row of buttons of a message about some episodes, ``fingerprint:episode``."""
    alerts = list(dict.fromkeys(episode.partition(":")[0][:_ALERT_ID] for episode in tells))
    value = ",".join(alerts[:_MOST_ALERTS])

    def button(action: str, text: str) -> dict[str, object]:
        label = {"type": "plain_text", "text": text}
        return {"type": "button", "action_id": action, "value": value, "text": label}

    elements = [
        button(ACKNOWLEDGE, "Acknowledge"),
        button(SILENCE, "Silence 24 h"),
        button(KNOWN, "Known event, 7 days"),
    ]
    return {"type": "actions", "elements": elements}


def listener(
    store: Store, app_token: str, now: Callable[[], dt.datetime], *, base_url: str | None = None
) -> SocketModeClient:
    """Return what listens to clicks once ``connect`` is called on it, and connects again by itself.

    Args:
        store: Where the state database is.
        app_token: App-level token (``xapp-``) with the scope connections:write.
        now: The clock.
        base_url: Another address of the API; for tests.
    """
    client = SocketModeClient(
        app_token,
        web_client=WebClient(base_url=base_url or WebClient.BASE_URL, retry_handlers=[]),
    )

    def heard(socket: BaseSocketModeClient, request: SocketModeRequest) -> None:
        if request.type == "interactive":
            clicked(store, request.payload, now())  # if it fails, Slack sends the click again
        socket.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))

    client.socket_mode_request_listeners.append(heard)
    return client


def clicked(store: Store, payload: Mapping[str, Any], now: dt.datetime) -> int:
    """Do what a click says; return for how many alerts something changed by it.

    Args:
        store: Where the state database is.
        payload: Of Slack's ``block_actions``.
        now: The time.
    """
    user = payload.get("user") or {}
    author = f"{user.get('username') or user.get('name') or user.get('id')} (Slack)"
    n = 0
    for action in payload.get("actions") or ():
        for alert in str(action.get("value", "")).split(","):
            try:
                if action.get("action_id") == ACKNOWLEDGE:
                    n += acknowledge(store, alert, author, now, once=True) is not None
                elif action.get("action_id") == SILENCE:
                    mark = f"button in Slack, {action.get('action_ts', '')}"
                    n += silence_alert(store, alert, author, now, SILENCED_FOR, mark) is not None
                elif action.get("action_id") == KNOWN:
                    n += note_event(store, alert, author, now, KNOWN_FOR) is not None
            except ConfigError as error:  # it is over, or was never: nothing to do, nothing lost
                _log.info("%s", error)
    return n


def render(payload: Payload) -> dict[str, object]:
    """Return what is posted of a row of the outbox."""
    event, message = payload["event"], read_message(payload)
    rendered = slack_payload(message, event["thread"] if event["kind"] == "head" else event["id"])
    if note := event.get("note"):  # a copy for the fallback
        rendered["text"] = f"{cut(str(rendered['text']), _FALLBACK_TEXT)}\n{escape(note)}"
    return rendered


def slack_payload(message: Message, idempotency_key: str) -> dict[str, object]:
    """Render for chat.postMessage and chat.update, without the channel.

    Every text is escaped and within Slack's limits; the only mention is the declared one. The
    headline is the message's text, since mentions inside attachments notify nobody.

    Args:
        message: What to say.
        idempotency_key: Written into the metadata and, shortened, into the footer, so that a
            message can be found again in the channel's history.
    """
    headline = f"{_EMOJI[message.mood]} *{safe(message.title, MAX_SENTENCE)}*"
    if message.mentions:
        headline = f"{' '.join(mention(name) for name in message.mentions)} {headline}"
    return {
        "text": headline,
        "attachments": [
            {
                "color": COLOURS[message.mood],
                "fallback": safe(message.title, MAX_SENTENCE),
                "blocks": [*_write_sections(message), _write_context(short_id(idempotency_key))],
            }
        ],
        "metadata": {
            "event_type": EVENT_TYPE,
            "event_payload": {"idempotency_key": idempotency_key},
        },
        "client_msg_id": str(uuid.uuid5(uuid.NAMESPACE_OID, idempotency_key)),
    }


def short_payload(payload: Payload) -> dict[str, object]:
    """Return the same message without blocks, for a server that refuses them."""
    key = payload["metadata"]["event_payload"]["idempotency_key"]
    short = {name: value for name, value in payload.items() if name != "attachments"}
    return {**short, "text": f"{payload['text']} ({short_id(key)})"}


def short_id(idempotency_key: str) -> str:
    """Return the visible mark by which a message is recognised in a channel."""
    return f"mlmon {idempotency_key[:12]}"


def _write_sections(message: Message) -> list[dict[str, object]]:
    """Put the parts into sections; no part can take the room of another."""
    items = [_write_item(item) for item in message.items]
    if message.more:
        items.append(safe(message.more, MAX_MORE))
    notes = [f"*{safe(label)}:* {safe(text, MAX_NOTE)}" for label, text in message.notes]
    room = _ROOM_COMMAND // max(len(message.commands), 1)
    commands = [cut(escape(clean(command, MAX_NOTE)), room) for command in message.commands]
    parts = (
        cut("\n".join(items), MAX_LIST),
        cut("\n".join(notes), _ROOM_NOTES),
        _join_links(message),
        "\n".join(f"`{command}`" for command in commands if command),
    )
    return [{"type": "section", "text": _write_markdown(part)} for part in parts if part]


def _join_links(message: Message) -> str:
    """Join the links that fit; a link cut in two would be no link."""
    text = ""
    for label, address in message.links:
        longer = f"{text} · {link(address, label)}" if text else link(address, label)
        text = longer if len(longer) <= _ROOM_LINKS else text
    return text


def _write_item(item: Item) -> str:
    numbers = f"\n      {safe(item.numbers, MAX_NOTE)}" if item.numbers else ""
    return f"• {safe(item.sentence, MAX_SENTENCE)}{numbers}"


def _write_context(*texts: str) -> dict[str, object]:
    return {"type": "context", "elements": [_write_markdown(text) for text in texts]}


def _write_markdown(text: str) -> dict[str, object]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def cut(escaped: str, limit: int) -> str:
    """Shorten escaped text, never inside an entity."""
    if len(escaped) <= limit:
        return escaped
    kept = escaped[: max(limit - 1, 0)]
    ampersand = kept.rfind("&")
    if ampersand != -1 and ";" not in kept[ampersand:]:
        kept = kept[:ampersand]
    return kept + "…"


def link(url: str, label: str) -> str:
    """Return a link, or the escaped label alone if the address is not http(s)."""
    if not re.match(r"https?://", url):
        return safe(label)
    address = re.sub(r"[\s<>|`]", lambda match: f"%{ord(match[0]):02X}", url)
    return f"<{escape(address)}|{safe(label).replace('|', '/')}>"


def mention(name: str | None) -> str:
    """Return the markup that notifies a declared person or group.

    A declaration that is refused for its mention still says where alerts go: there the name that
    Slack cannot resolve stays plain text.
    """
    found = read_mention(name or "")
    return found.markup if found else safe(name or "")
