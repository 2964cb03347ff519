"""Slack: the only module that talks to it.

A reply that does not come, or comes broken, says nothing about whether the message was posted.
Slack has no idempotency key, so what is unclear is looked up in the channel's history.
"""

from __future__ import annotations

import http.client
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.error import URLError

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web import SlackResponse

from mlmon_dagster.alerts.messages.plot_data import Draw, draw_or_none, read_plot
from mlmon_dagster.alerts.messages.rendering import short_payload
from mlmon_dagster.alerts.receivers.base import (
    Delivery,
    NotPosted,
    Outcome,
    Posted,
    Refused,
    Unclear,
)
from mlmon_dagster.alerts.receivers.slack_api import (
    PAYLOAD_ERRORS,
    UNCLEAR_ERRORS,
    UNREACHABLE,
    explain,
    file_name,
    name_in,
    send_bytes,
)

TIMEOUT_SECONDS = 10
DEFAULT_WAIT_SECONDS = 30.0
SCOPES = ("chat:write", "channels:history")
PLOT_SCOPE = "files:write"
_CLOCK_SKEW_SECONDS = 3600  # by which our clock may be ahead of Slack's
_MAX_PAGES = 25
_CHANNEL_ID = re.compile(r"[CGD][A-Z0-9]{6,}")

Call = Callable[[], SlackResponse]


@dataclass(frozen=True)
class SlackCheck:
    """Whether Slack is connected; ``text`` says what was found and what mends it."""

    ok: bool
    text: str


class SlackReceiver:
    """A Slack workspace, by bot token.

    Args:
        token: Bot token (``xoxb-``) with the scopes chat:write and channels:history
            (groups:history for private channels), and files:write for plots.
        base_url: Another address of the API; for tests.
        proxy: Address of an HTTP proxy; the environment's is used if None.
        timeout_seconds: Of one request.
        draw: Makes the picture of a plot; None shows none.
    """

    def __init__(
        self,
        token: str,
        *,
        base_url: str = WebClient.BASE_URL,
        proxy: str | None = None,
        timeout_seconds: int = TIMEOUT_SECONDS,
        draw: Draw | None = None,
    ) -> None:
        self._draw = draw
        logger = logging.getLogger(__name__)
        logger.setLevel(logging.CRITICAL)  # outcomes are kept in the outbox; DEBUG prints bodies
        self._client = WebClient(
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
        payload = delivery.payload["slack"]
        outcome = self._try(lambda: self._call(delivery, payload))
        if isinstance(outcome, Refused) and outcome.error.split(":")[0] in PAYLOAD_ERRORS:
            outcome = self._try(lambda: self._call(delivery, short_payload(payload)))
        return outcome

    def _upload(self, delivery: Delivery) -> Outcome:
        """Upload a plot into its thread; only the last of the three steps can be seen."""
        plot, picture = read_plot(delivery.payload), draw_or_none(self._draw, delivery.payload)
        if picture is None:
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
        outcome = self._try(
            lambda: self._client.files_completeUploadExternal(
                files=[{"id": file_id, "title": plot["title"]}],
                channel_id=delivery.channel_id,
                thread_ts=delivery.thread_ts,
            )
        )
        return Posted(file_id, delivery.channel_id) if isinstance(outcome, Posted) else outcome

    def _call(self, delivery: Delivery, payload: Mapping[str, Any]) -> SlackResponse:
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

    def _try(self, call: Call) -> Outcome:
        try:
            answer = call()
        except Exception as error:  # classified, never swallowed: the outbox keeps every outcome
            return classify(error)
        return Posted(str(answer.get("ts", "")), str(answer.get("channel", "")))

    def look_up(self, delivery: Delivery, since: float) -> Outcome:
        """Search the channel's history, or the thread, for the message.

        If frozen workers have left more than one copy, the oldest stays.
        """
        if delivery.update_ts:
            return NotPosted("an update can be repeated")
        try:
            channel_id = delivery.channel_id or self._channel_id(delivery.channel)
            copies = self._copies(delivery, channel_id, since)
            for ts in copies[1:]:
                self.retract(delivery, Posted(ts, channel_id))
            if copies:
                return Posted(copies[0], channel_id)
        except Exception as error:  # classified as above
            outcome = classify(error)
            if isinstance(outcome, Refused):
                return NotPosted(f"history cannot be read, possible repeat: {outcome.error}")
            wait = outcome.wait_seconds if isinstance(outcome, NotPosted) else None
            return Unclear(getattr(outcome, "error", ""), wait)
        return NotPosted("not in the channel's history")

    def retract(self, delivery: Delivery, posted: Posted) -> bool:
        """Delete a message or plot of ours that is there twice."""
        try:
            if read_plot(delivery.payload):
                self._client.files_delete(file=posted.ts)
                return True
            self._client.chat_delete(channel=posted.channel_id, ts=posted.ts)
        except Exception as error:  # classified as above: a second copy stays, which is no loss
            classify(error)
            return False
        return True

    def _copies(self, delivery: Delivery, channel_id: str, since: float) -> list[str]:
        """Return the names of the messages of one key, oldest first; more than one is a fault."""
        found: list[tuple[float, str]] = []
        try:
            found.extend(
                (float(message["ts"]), name)
                for message in self._history(channel_id, delivery.thread_ts, since)
                if (name := name_in(message, delivery))
            )
        except SlackClientError:
            if not found:  # what follows cannot change that the message is there
                raise
        return [name for _, name in sorted(found)]

    def _history(self, channel_id: str, thread_ts: str, since: float) -> Iterator[dict[str, Any]]:
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
            cursor = _next_cursor(page)
            if not cursor:
                return
        raise SlackClientError("history_too_long")

    def _channel_id(self, channel: str) -> str:
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
            cursor = _next_cursor(page)
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
        granted = {s.strip() for s in _header(answer.headers, "x-oauth-scopes").split(",") if s}
        missing = [scope for scope in SCOPES if granted and scope not in granted]
        who = f"Connected to {answer.get('team')} as {answer.get('user')}."
        if not missing:
            lacks = bool(granted) and PLOT_SCOPE not in granted
            return SlackCheck(True, who + f" No plots: scope {PLOT_SCOPE} is missing." * lacks)
        return SlackCheck(False, f"{who} {explain('missing_scope', missing)}")


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
        wait = _retry_after(_header(response.headers, "retry-after"))
        return NotPosted("Slack asks to wait (rate limit)", wait)
    # A page of a proxy instead of JSON: the SDK puts a sentence where the code would be.
    is_code = re.fullmatch(r"[a-z0-9_]+", code) is not None
    if status != http.HTTPStatus.OK or not is_code or code in UNCLEAR_ERRORS:
        proxy = "" if is_code or status != http.HTTPStatus.OK else "; does a proxy answer instead?"
        said = f"HTTP {status} {code[:60]}".rstrip()
        return Unclear(f"no usable answer from Slack: {said}{proxy}")
    needed = str(data.get("needed") or "") if code == "missing_scope" else ""
    return Refused(explain(code, [needed] if needed else ()))


def _retry_after(value: str) -> float:
    """Read the header, which may be missing or nonsense."""
    try:
        return min(max(float(value), 1.0), 3600.0)
    except ValueError:
        return DEFAULT_WAIT_SECONDS


def _header(headers: Mapping[str, Any], name: str) -> str:
    for key, value in (headers or {}).items():
        if key.lower() == name:
            return str(value[0] if isinstance(value, list) else value)
    return ""


def _next_cursor(page: SlackResponse) -> str:
    metadata = cast("Mapping[str, Any]", page.get("response_metadata") or {})
    return str(metadata.get("next_cursor") or "")
