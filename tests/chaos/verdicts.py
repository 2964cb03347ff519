"""What is injected, and what people must be told of it: a fold of its own over the verdicts.

Nothing here uses the alerts' own code: the expected events follow from the rules as documented.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["opened", "escalated", "resolved"]
QUIET_DAYS = 3  # at the end, so that every episode is over
COLUMNS = 4
LATE = 0.1  # share of verdicts on windows long past


@dataclass(frozen=True)
class Verdict:
    """What one monitor says of one day; ``version`` tells a second opinion from a repetition."""

    model: str
    column: str
    day: int
    status: str
    version: str = "v1"

    @property
    def mark(self) -> str:
        """The sentence by which the verdict is recognised in a message."""
        return f"{self.model}/{self.column}/day {self.day}/{self.status}"

    @property
    def is_late(self) -> bool:
        """Whether it comes after a newer window of its monitor."""
        return self.version != "v1"


@dataclass(frozen=True)
class Event:
    """One thing that people must be told once.

    Attributes:
        model: The model.
        column: The column, which stands for the alert.
        kind: What happened.
        day: On which day.
        mark: The sentence that the message holds.
        episode: The sentences of all that happened from the opening to the end.
    """

    model: str
    column: str
    kind: Kind
    day: int
    mark: str
    episode: tuple[str, ...] = ()


def rule_of(column: str) -> tuple[int, int]:
    """Return k of n: every other column needs two failures of three windows."""
    return (1, 1) if int(column[1:]) % 2 == 0 else (2, 3)


def verdicts(n_models: int, n_days: int, seed: int) -> dict[int, list[Verdict]]:
    """Return by day what arrives on it, late second opinions on past days included."""
    rng = random.Random(seed)
    arriving: dict[int, list[Verdict]] = {day: [] for day in range(1, n_days + 1)}
    for model in (f"m{i:02d}" for i in range(n_models)):
        for column in (f"c{i}" for i in range(COLUMNS)):
            failing = False
            for day in arriving:
                failing = rng.random() < (0.55 if failing else 0.45)
                if day > n_days - QUIET_DAYS:
                    failing = False
                status = rng.choice(["WARN", "ERROR"]) if failing else "OK"
                if rng.random() < 0.05 and day <= n_days - QUIET_DAYS:
                    status = "NO_DATA"
                arriving[day].append(Verdict(model, column, day, status))
                if day > 3 and rule_of(column) == (1, 1) and rng.random() < LATE:
                    late = Verdict(model, column, day - 3, rng.choice(["OK", "ERROR"]), f"v{day}")
                    arriving[day].append(late)
    return arriving


def expected(arriving: dict[int, list[Verdict]]) -> list[Event]:
    """Fold the verdicts into what people must be told."""
    streams: dict[tuple[str, str], list[Verdict]] = {}
    for day in sorted(arriving):
        for verdict in arriving[day]:
            # A window long past moves nothing where one window decides.
            if verdict.status != "NO_DATA" and not verdict.is_late:
                streams.setdefault((verdict.model, verdict.column), []).append(verdict)
    return [event for stream in streams.values() for event in _events(stream)]


def _events(stream: Sequence[Verdict]) -> Iterator[Event]:
    k, n = rule_of(stream[0].column)
    episode: list[Event] = []
    worst = last = ""
    bad = [verdict.status in ("WARN", "ERROR") for verdict in stream]
    for i, verdict in enumerate(stream):
        kind: Kind | None = None
        if bad[i]:
            last = verdict.mark
            if not episode and sum(bad[max(0, i - n + 1) : i + 1]) >= k:
                kind, worst = "opened", verdict.status
            elif episode and (worst, verdict.status) == ("WARN", "ERROR"):
                kind, worst = "escalated", "ERROR"
        elif episode and not any(bad[max(0, i - (n - k)) : i + 1]):
            kind = "resolved"
        if kind:
            episode.append(Event(verdict.model, verdict.column, kind, verdict.day, last))
        if kind == "resolved":
            yield from _whole(episode)
            episode = []
    yield from _whole(episode)


def _whole(episode: Sequence[Event]) -> Iterator[Event]:
    marks = tuple(dict.fromkeys(event.mark for event in episode))
    return (replace(event, episode=marks) for event in episode)
