"""What Slack's error codes mean, and what mends them."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from mlmon_dagster.alerts.messages.plot_data import read_plot
from mlmon_dagster.alerts.messages.rendering import short_id
from mlmon_dagster.alerts.receivers.base import Delivery

# "Some aspect of the operation may have succeeded before the error was raised."
UNCLEAR_ERRORS = frozenset(
    {"fatal_error", "internal_error", "service_unavailable", "request_timeout", "team_added_to_org"}
)
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

_TOKEN = "Copy the Bot User OAuth Token (xoxb-...) of the app into the token's variable."
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
    "restricted_action": "A rule of the workspace forbids the bot to post there. Ask an admin.",
    "message_not_found": "The message to update was deleted.",
    "cant_update_message": "The message to update is not the bot's.",
    "edit_window_closed": "The workspace forbids to edit messages this old.",
    "history_too_long": "The channel has more messages than could be searched.",
    "msg_too_long": "The message is too long.",
    "msg_blocks_too_long": "The message's blocks are too long.",
    "invalid_blocks": "Slack refuses the message's blocks.",
}


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


def shared_file(message: Mapping[str, Any], idempotency_key: str) -> str:
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
    opener = urllib.request.build_opener(proxies)
    headers = {"Content-Type": "application/octet-stream", "User-Agent": "mlmon-dagster"}
    request = urllib.request.Request(url, content, headers)
    with opener.open(request, timeout=timeout_seconds) as answer:
        answer.read(1024)


def name_in(found: Mapping[str, Any], delivery: Delivery) -> str:
    """Return Slack's name of a delivery if a message of the history is it; else empty."""
    if read_plot(delivery.payload):
        return shared_file(found, delivery.idempotency_key)
    return str(found["ts"]) if _is_message(found, delivery.idempotency_key) else ""


def _is_message(found: Mapping[str, Any], idempotency_key: str) -> bool:
    """Recognise a message by its metadata, or by the mark people can see."""
    event = (found.get("metadata") or {}).get("event_payload") or {}
    if event.get("idempotency_key") == idempotency_key:
        return True
    seen = [found.get("text", ""), found.get("attachments", []), found.get("blocks", [])]
    return short_id(idempotency_key) in json.dumps(seen)
