"""The weather: what breaks how often, drawn from a seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from tests import crash_steps
from tests.alerts.fake_slack import FakeSlack
from tests.chaos.dispatching import CHANNELS, Fate

FAULT_RATE = 0.3
FAULTS = ("429:1", "500", "503", "reset", "after_reset", "hang", "late", "truncated")
FAULTS += ("after_truncated", "after_500")
KILL_STEPS = tuple(
    step
    for step in crash_steps.STEPS
    if step.startswith(("fold.", "flush.", "dispatch.", "deliver."))
)
FREEZE_STEPS = ("deliver.claimed", "deliver.fenced", "deliver.posted", "deliver.looked_up")


def brew_storm(slack: FakeSlack, seed: int, *, slow: bool = True) -> Counter[str]:
    """Let a share of all requests fail; return the faults by kind, counted as they happen.

    Args:
        slack: The server.
        seed: Draws the faults.
        slow: Whether some faults let the client wait until it gives up.
    """
    kinds = [fault for fault in FAULTS if slow or fault not in ("hang", "late")]
    rng, counted = random.Random(seed), Counter[str]()
    slack.channels, slack.page_size, slack.hang_seconds = dict(CHANNELS), 200, 1.2

    def storm(_method: str) -> str:
        if rng.random() >= FAULT_RATE:
            return ""
        counted[fault := rng.choice(kinds)] += 1
        return fault

    slack.storm = storm
    return counted


def fates(seed: int, freeze_share: float) -> Callable[[], Fate]:
    """Return what deals the next process its fate; every step gets its turn."""
    rng, steps = random.Random(seed), list[str]()

    def deal() -> Fate:
        if rng.random() < freeze_share:
            return Fate("freeze", rng.choice(FREEZE_STEPS), rng.randint(1, 3))
        if not steps:
            steps.extend(rng.sample(KILL_STEPS, len(KILL_STEPS)))
        return Fate("kill", steps.pop(), rng.randint(1, 2))

    return deal
