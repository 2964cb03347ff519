"""The poster that everybody writes first: straight to Slack from where the verdict is found."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import HTTPException

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from tests.chaos.dispatching import CHANNELS, TIMEOUT_SECONDS
from tests.chaos.verdicts import Episode

_LABELS = {"opened": "New", "escalated": "Worse", "resolved": "Resolved"}


def post_inline(episodes: Sequence[Episode], slack_url: str) -> int:
    """Post each event once with the SDK's defaults; return how many raised an error.

    This is what a run-failure sensor or a hook does: an error is logged, and the next event comes.
    """
    client = WebClient("xoxb-right", base_url=slack_url, timeout=TIMEOUT_SECONDS)
    channels, n_errors = list(CHANNELS), 0
    events = [(e, event) for e in episodes for event in e.events]
    for number, (episode, event) in enumerate(sorted(events, key=lambda pair: pair[1].look)):
        mark = event.mark if event.kind != "resolved" else episode.events[0].mark
        try:
            client.chat_postMessage(
                channel=channels[int(episode.model[1:]) % len(channels)],
                text=f"{_LABELS[event.kind]}: {mark}",
                metadata={"event_type": "x", "event_payload": {"idempotency_key": f"{number}"}},
            )
        except (SlackApiError, OSError, ValueError, HTTPException):
            n_errors += 1
    return n_errors
