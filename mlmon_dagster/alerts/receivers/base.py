"""What every place that takes messages can do, how an attempt may end, and the one that prints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TextIO, runtime_checkable

from mlmon_dagster.alerts.messages.message import (
    Payload,
    Plot,
)
from mlmon_dagster.spec.alerting import Place
from mlmon_dagster.store.clocks import LONGEST_PAUSE

Draw = Callable[[Plot], bytes]
DEFAULT_WAIT_SECONDS = 30.0  # where a limit is met and it is not said for how long
HOW_TO_CONNECT = (
    "To send messages to Slack: set MLMON_SLACK_TOKEN to a "
    "bot token with the scopes chat:write, channels:history and files:write, add\n"
    '  alerts: {slack: {channel: "#ml-alerts"}}\n'
    "to the model's file, invite the bot to the channel, and run: mlmon alerts test"
)


@dataclass(frozen=True)
class Surroundings:
    """What a receiver is made from: each module of one has a ``connect`` that takes this.

    Attributes:
        places: What the specs declare of its kind, by channel.
        variables: Looks up environment variables; None for one that is not set.
        draw: Makes the picture of a plot; None shows none.
    """

    places: Mapping[str, Place]
    variables: Callable[[str], str | None]
    draw: Draw | None = None


@dataclass(frozen=True)
class Posted:
    """The message is there.

    Attributes:
        ts: Slack's name of the message; empty where there is none.
        channel_id: Slack's id of the channel; empty where there is none.
    """

    ts: str = ""
    channel_id: str = ""


@dataclass(frozen=True)
class NotPosted:
    """The message is surely not there; try again.

    Attributes:
        error: What was answered.
        wait_seconds: How long the whole channel must be left alone; None if that was not said.
    """

    error: str
    wait_seconds: float | None = None


@dataclass(frozen=True)
class Unclear:
    """The message may be there or not; look before trying again."""

    error: str
    wait_seconds: float | None = None


@dataclass(frozen=True)
class Refused:
    """The message will never be taken as it is; ``error`` says why and what mends it."""

    error: str


def retry_after(value: str | None) -> float:
    """Return the seconds of a header ``Retry-After``, which may be missing or nonsense."""
    try:
        return min(max(float(value or ""), 1.0), LONGEST_PAUSE.total_seconds())
    except ValueError:
        return DEFAULT_WAIT_SECONDS


Outcome = Posted | NotPosted | Unclear | Refused


@dataclass(frozen=True)
class Delivery:
    """One message on its way.

    Attributes:
        idempotency_key: Its unique name.
        channel: The channel as declared, such as ``#ml-alerts``.
        channel_id: Slack's id of it; empty if not known yet.
        payload: The frozen payload of the outbox row, see `message.outbox_row`.
        thread_ts: The message to answer to; empty for a new one.
        update_ts: The message to replace; empty to post.
        kept_ts: The message as it is known to be there: of several copies it is the one that
            stays. Empty if none is known; the oldest stays then.
    """

    idempotency_key: str
    channel: str
    channel_id: str
    payload: Payload
    thread_ts: str = ""
    update_ts: str = ""
    kept_ts: str = ""


class Receiver(Protocol):
    """A place that takes messages."""

    def send(self, delivery: Delivery) -> Outcome:
        """Try once; never raises for what the other side does."""

    def look_up(self, delivery: Delivery, since: float) -> Outcome:
        """Find out whether an earlier attempt was accepted.

        Args:
            delivery: The message.
            since: Real time of the earlier attempt, in seconds since 1970.

        Returns:
            ``Posted`` if it is there, ``NotPosted`` if surely not or if nobody can tell (the
            error says so), ``Unclear`` to be asked again later.
        """

    def retract(self, delivery: Delivery, posted: Posted) -> Outcome:
        """Take back a message that another worker has posted too.

        Returns:
            ``NotPosted`` once people see one message, ``Refused`` if both stay, ``Unclear`` to be
            tried again later.
        """


@runtime_checkable
class Checked(Protocol):
    """A receiver that knows without sending whether it could send."""

    def problem(self, channel: str) -> Refused | None:
        """Say why nothing can be sent to a place, and what mends it; None if it may well work."""


@dataclass
class ConsoleReceiver:
    """Prints messages as plain text, and once how to connect Slack.

    Attributes:
        stream: Where to; standard output by default.
        hint: Printed once, after the first message; empty for none.
    """

    stream: TextIO = field(default_factory=lambda: sys.stdout)
    hint: str = f"These messages went to the terminal only. {HOW_TO_CONNECT}"

    def send(self, delivery: Delivery) -> Outcome:
        """Print a message; an update of an earlier one is not printed again, a plot never."""
        if delivery.payload["plain"] and not delivery.update_ts:
            print(delivery.payload["plain"], file=self.stream, flush=True)
            if self.hint:
                print(self.hint, file=self.stream, flush=True)
                self.hint = ""
        return Posted()

    def look_up(self, delivery: Delivery, since: float) -> Outcome:
        """Nobody can tell what was printed, and printing twice harms nobody."""
        return NotPosted("printing was interrupted")

    def retract(self, delivery: Delivery, posted: Posted) -> Outcome:
        """What is printed stays printed."""
        return Refused("what is printed stays printed")


def read_plot(payload: Payload) -> Plot | None:
    """Return the plot of an outbox payload; None if it has none."""
    plot: Plot | None = payload.get("plot")
    return plot or None


def draw_or_none(draw: Draw | None, payload: Payload) -> bytes | None:
    """Draw the plot of a payload; None if there is none, or if drawing fails for any reason.

    A message must not die of its picture.
    """
    plot = read_plot(payload)
    if draw is None or plot is None:
        return None
    try:
        return draw(plot)
    except Exception:  # whatever it is, the text is what counts
        return None
