"""Buttons of messages in Slack: an alert is taken on, or silenced for a day, where it was read.

Slack sends clicks over a connection that we open (Socket Mode), so nothing of ours need be reached
from outside. A click that was not answered in time is sent again; it does what it says once.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slack_sdk import WebClient
from slack_sdk.socket_mode import SocketModeClient
from slack_sdk.socket_mode.client import BaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse

from mlmon_dagster.alerts.handling import acknowledge, silence_alert
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.store import Store

ACKNOWLEDGE, SILENCE = "mlmon_acknowledge", "mlmon_silence"
SILENCED_FOR = dt.timedelta(hours=24)
_ID = 16  # characters of a fingerprint, which name one alert of very many
_MOST_ALERTS = 100  # in the 2,000 characters that a button holds
_log = logging.getLogger(__name__)


def buttons_of(tells: Sequence[str]) -> dict[str, object]:
    """Return the row of buttons of a message about some episodes, ``fingerprint:episode``."""
    alerts = list(dict.fromkeys(episode.partition(":")[0][:_ID] for episode in tells))
    value = ",".join(alerts[:_MOST_ALERTS])

    def button(action: str, text: str) -> dict[str, object]:
        label = {"type": "plain_text", "text": text}
        return {"type": "button", "action_id": action, "value": value, "text": label}

    elements = [button(ACKNOWLEDGE, "Acknowledge"), button(SILENCE, "Silence 24 h")]
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
            except ConfigError as error:  # it is over, or was never: nothing to do, nothing lost
                _log.info("%s", error)
    return n
