"""What is injected, and what people must be told of it: a fold of its own over the verdicts.

Nothing here uses the alerts' own code: the expected episodes follow from the rules as documented.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import mean, median, stdev
from typing import Literal

Kind = Literal["opened", "escalated", "resolved"]
QUIET_DAYS = 7  # at the end, so that every episode is over
COLUMNS = 4
MEASURED = ("c2", "c3")  # whose verdicts carry evidence; the others say only yes or no
CLEAR, NEAR, PAST, FAR, VAST = -1.0, -0.2, 0.1, 1.0, 12.0  # beyond the limit, in units of it
ERROR = 0.3  # half the 95 % interval of that
LATE = 0.1  # share of days on which a past one is judged again and is as it was, see `revisions`
EDITED, REMOVED = 0.15, 0.1  # shares of the monitors
EDIT = {(1, 1): (2, 3), (2, 3): (1, 1)}
LONGEST_ABSENCE = 21
Arriving = dict[int, list["Verdict"]]


@dataclass(frozen=True)
class Verdict:
    """What one monitor says of one day; ``version`` tells a second opinion from a repetition.

    ``k`` of ``n`` windows open an alert; an edit of the monitor changes them. ``excess`` says how
    far past the limit the day was, give or take `ERROR`; None where nothing is measured.
    """

    model: str
    column: str
    day: int
    status: str
    version: str = "v1"
    k: int = 1
    n: int = 1
    excess: float | None = None

    @property
    def mark(self) -> str:
        """The sentence by which the verdict is recognised in a message."""
        return f"{self.model}/{self.column}/day {self.day}/{self.status}"


@dataclass(frozen=True)
class Event:
    """One thing that people must be told once: what happened, and at which look it was found."""

    kind: Kind
    look: int
    mark: str


@dataclass(frozen=True)
class Episode:
    """An alert from its opening to its end.

    Attributes:
        model: The model.
        column: The column, which stands for the alert.
        number: Which episode of the alert it is.
        first_day: The window that opened it.
        last_day: The last window that it failed in.
        events: All that happened in it.
    """

    model: str
    column: str
    number: int
    first_day: int
    last_day: int
    events: tuple[Event, ...]

    @property
    def end_look(self) -> int:
        """At which look its end was found."""
        return self.events[-1].look


def rule_of(column: str) -> tuple[int, int]:
    """Return k of n: every other column needs two failures of three windows."""
    return (1, 1) if int(column[1:]) % 2 == 0 else (2, 3)


def looks(n_days: int, seed: int) -> list[int]:
    """Return the days of looks: often late, twice after weeks, and the last always."""
    rng, days = random.Random(seed), [1]
    absences = {n_days // 4, n_days * 5 // 8}
    while days[-1] < n_days:
        gap = 1 if rng.random() < 0.35 else rng.randint(2, 10)
        if any(days[-1] < day <= days[-1] + gap for day in absences):
            gap = min(LONGEST_ABSENCE, n_days // 3)
        days.append(min(days[-1] + gap, n_days))
    return days


def verdicts(n_models: int, n_days: int, seed: int) -> Arriving:
    """Return by day what arrives on it, second opinions on past days included.

    Some monitors are edited on the way (``k of n``), some are removed.
    """
    rng = random.Random(seed)
    arriving: Arriving = {day: [] for day in range(1, n_days + 1)}
    for model in (f"m{i:02d}" for i in range(n_models)):
        for column in (f"c{i}" for i in range(COLUMNS)):
            _stream(rng, arriving, model, column)
    return arriving


def _stream(rng: random.Random, arriving: Arriving, model: str, column: str) -> None:
    n_days, rule, failing = len(arriving), rule_of(column), False
    said: dict[int, Verdict] = {}
    fate, moment = rng.random(), rng.randint(n_days // 3, n_days * 2 // 3)
    is_edited = fate < EDITED
    is_removed = EDITED <= fate < EDITED + REMOVED and column != "c0"
    for day in arriving:
        if is_removed and day > moment:
            return
        k, n = EDIT[rule] if is_edited and day > moment else rule
        failing = rng.random() < (0.6 if failing else 0.15 if column in MEASURED else 0.45)
        if day > n_days - QUIET_DAYS:
            failing = False
        status = rng.choice(["WARN", "ERROR"]) if failing else "OK"
        if rng.random() < 0.05 and day <= n_days - QUIET_DAYS:
            status = "NO_DATA"
        excess = _excess(rng, column, status, is_quiet=day > n_days - QUIET_DAYS)
        said[day] = Verdict(model, column, day, status, "v1", k, n, excess)
        arriving[day].append(said[day])
        if day > 3 and day <= n_days - QUIET_DAYS and rng.random() < LATE:
            arriving[day].append(replace(said[day - 3], version=f"v{day}"))


def _excess(
    rng: random.Random, column: str, status: str, *, is_quiet: bool = False
) -> float | None:
    """Draw how far past its limit a day is; that of the others is not used."""
    if column not in MEASURED:
        return None
    if status in ("WARN", "ERROR"):
        return rng.choice([PAST, PAST, FAR, VAST])
    return CLEAR if is_quiet else rng.choice([CLEAR, CLEAR, CLEAR, NEAR])


def expected(arriving: Arriving, looked: Sequence[int]) -> list[Episode]:
    """Fold the verdicts into what people must be told, if these are the looks."""
    streams: dict[tuple[str, str], list[tuple[int, Verdict]]] = {}
    for before, look in pairwise([0, *looked]):
        found = [v for day in range(before + 1, look + 1) for v in arriving[day]]
        for verdict in sorted(found, key=lambda v: v.day):  # of one window: as they arrived
            streams.setdefault((verdict.model, verdict.column), []).append((look, verdict))
    return [e for stream in streams.values() for e in _episodes(stream, list(looked))]


def _episodes(stream: Sequence[tuple[int, Verdict]], looked: list[int]) -> Iterator[Episode]:
    """Tell the episodes of one alert."""
    known: dict[int, Verdict] = {}  # the newest opinion on each of the last 14 days with one
    events: list[Event] = []
    number, first, last, worst = 0, 0, 0, ""
    for look, verdict in stream:
        if verdict.status == "NO_DATA":
            continue
        newest = max(known, default=0)
        known[verdict.day] = verdict
        known = dict(sorted(known.items())[-14:])
        if verdict.day < newest:
            continue  # it says what was known
        days = list(known.values())
        kind: Kind | None = None
        if _bad(verdict):
            enough = sum(map(_bad, days[-verdict.n :])) >= verdict.k
            if not events and (enough or verdict.excess in (FAR, VAST)):
                kind, worst, first = "opened", verdict.status, verdict.day
                number += 1
            elif events and (worst, verdict.status) == ("WARN", "ERROR"):
                kind, worst = "escalated", "ERROR"
            last = verdict.day
        elif events and _is_over(days, verdict.k, verdict.n):
            kind = "resolved"
        if kind:
            events.append(Event(kind, look, verdict.mark))
        if kind == "resolved":
            yield Episode(verdict.model, verdict.column, number, first, last, tuple(events))
            events = []
    if events:  # its monitor is gone: two windows later so is the alert
        removed = stream[-1][1].day
        gone = next(look for look in looked if look >= removed + 2)
        events.append(Event("resolved", gone, ""))
        yield Episode(verdict.model, verdict.column, number, first, last, tuple(events))


def _bad(verdict: Verdict) -> bool:
    return verdict.status != "OK"


def _is_over(days: Sequence[Verdict], k: int, n: int) -> bool:
    """Say whether the days that pass after the last failure are evidence of its end."""
    text = "".join("F" if _bad(day) else "p" for day in days)
    passes = len(text) - len(text.rstrip("p"))
    if "F" not in text:
        return True
    if passes < n - k + 1:
        return False
    if days[0].column not in MEASURED:
        return True
    far = [1 + day.excess for day in days if _bad(day) and day.excess is not None][-3:]
    clear = max(-0.5, median(far) / 4 - 1)
    between = days[text.index("F") : text.rindex("F")]
    came_and_went = any(
        not _bad(day) and (day.excess is None or day.excess < max(clear, 0)) for day in between
    )
    if passes < 7 and came_and_went:
        return False
    pooled = [day.excess for day in days[-min(passes, 7) :] if day.excess is not None]
    spread = stdev(pooled) if len(pooled) > 1 else 0.0
    error = max(spread, ERROR / 1.96) / len(pooled) ** 0.5
    return mean(pooled) + (1 if passes >= 7 else 1.96) * error < clear
