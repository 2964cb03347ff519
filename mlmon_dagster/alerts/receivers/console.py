"""The receiver that prints, for as long as Slack is not connected."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TextIO

from mlmon_dagster.alerts.receivers.base import Delivery, NotPosted, Outcome, Posted

HOW_TO_CONNECT = (
    "These messages went to the terminal only. To send them to Slack: set MLMON_SLACK_TOKEN to a "
    "bot token with the scopes chat:write, channels:history and files:write, add\n"
    '  alerts: {slack: {channel: "#ml-alerts"}}\n'
    "to the model's file, invite the bot to the channel, and run: mlmon alerts test"
)


@dataclass
class ConsoleReceiver:
    """Prints messages as plain text, and once how to connect Slack.

    Attributes:
        stream: Where to; standard output by default.
        hint: Printed once, after the first message; empty for none.
    """

    stream: TextIO = field(default_factory=lambda: sys.stdout)
    hint: str = HOW_TO_CONNECT

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

    def retract(self, delivery: Delivery, posted: Posted) -> bool:
        """What is printed stays printed."""
        return False
