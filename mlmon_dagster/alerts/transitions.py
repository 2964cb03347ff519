"""The life of one alert as a pure function of the windows it has seen.

| from      | the newest window fails              | the newest window passes                     |
|-----------|--------------------------------------|----------------------------------------------|
| OK        | FIRING if k of the last n failed,    | OK                                           |
|           | else PENDING                         |                                              |
| PENDING   | FIRING if k of the last n failed     | OK once earlier failures cannot count        |
|           |                                      | towards k any more                           |
| FIRING    | FIRING; escalated if it is an ERROR  | OK (resolved) after n-k+1 passes in a row,   |
|           | and only a WARN was announced        | else RECOVERING                              |
| RECOVERING| FIRING                               | as FIRING                                    |

NO_DATA changes nothing: it is neither a pass nor a failure. Only the newest window moves the
state. An older one that comes late corrects the memory of the last n windows; it opens an episode
if the newest window fails and the late one makes k of n, and moves nothing else. A revised verdict
on the newest window is judged again and, inside an episode, said so.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

State = Literal["OK", "PENDING", "FIRING", "RECOVERING"]
Status = Literal["OK", "WARN", "ERROR", "NO_DATA"]
EventKind = Literal["opened", "escalated", "revised", "resolved"]

_RANK = {"": 0, "OK": 0, "WARN": 1, "ERROR": 2}


class Verdict(NamedTuple):
    """What one window said, and the result row that said it."""

    window_start: dt.datetime
    status: Status
    result_id: int


@dataclass(frozen=True)
class AlertState:
    """What an alert remembers.

    Attributes:
        state: Where the alert is in its life.
        severity: Highest severity announced in this episode; empty before the first.
        episode: How many times the alert has opened.
        recent: Verdicts of the last n windows that had one, oldest first.
    """

    state: State = "OK"
    severity: str = ""
    episode: int = 0
    recent: tuple[Verdict, ...] = ()

    @property
    def active(self) -> bool:
        """Whether people should be acting on it."""
        return self.state in ("FIRING", "RECOVERING")


class Step(NamedTuple):
    """The next state, what happened, and whether the verdict is now the newest one."""

    after: AlertState
    events: tuple[EventKind, ...]
    is_newest: bool


def failed(status: str) -> bool:
    """Whether a status counts as a failure; NO_DATA does not."""
    return status in ("WARN", "ERROR")


def passes_to_resolve(k: int, n: int) -> int:
    """Passing windows in a row that end an episode: fewer than k of n can then be failing."""
    return n - k + 1


def step(before: AlertState, verdict: Verdict, *, k: int = 1, n: int = 1) -> Step:
    """Take in one verdict.

    Args:
        before: The alert as it was.
        verdict: One window's result; windows may come in any order and more than once.
        k: Failures among the last ``n`` windows that open an episode; 1 <= k <= n.
        n: Windows remembered.

    Returns:
        The alert as it is now, the transitions to announce, and whether the verdict concerns the
        newest window. A NO_DATA, an exact repetition and a result older than the one already
        known for its window leave the state as it is.
    """
    if verdict.status == "NO_DATA":
        return Step(before, (), False)
    known = {v.window_start: v for v in before.recent}
    old = known.get(verdict.window_start)
    if old is not None and old.result_id >= verdict.result_id:
        return Step(before, (), False)
    is_newest = all(start <= verdict.window_start for start in known)
    known[verdict.window_start] = verdict
    recent = tuple(sorted(known.values()))[-n:]
    remembered = replace(before, recent=recent)
    if old is not None and old.status == verdict.status:
        return Step(remembered, (), is_newest)
    if not is_newest:
        return _judge_late(remembered, k)
    after, events = _judge(remembered, k=k, n=n)
    flipped = old is not None and failed(old.status) != failed(verdict.status)
    if flipped and before.active:
        events = ("revised", *events)
    return Step(after, events, True)


def _judge_late(alert: AlertState, k: int) -> Step:
    """Take in an older window: it can complete k of n, and end or worsen nothing."""
    statuses = [verdict.status for verdict in alert.recent]
    if alert.active or not failed(statuses[-1]) or _failures(statuses) < k:
        return Step(alert, (), False)
    after, events = _judge_failure(alert, statuses, k)
    return Step(after, events, False)


def resolve(before: AlertState) -> Step:
    """End the episode from outside: the slice or the monitor does not exist any more."""
    if not before.active:
        return Step(replace(before, state="OK"), (), False)
    return Step(replace(before, state="OK"), ("resolved",), False)


def _judge(alert: AlertState, *, k: int, n: int) -> tuple[AlertState, tuple[EventKind, ...]]:
    statuses = [verdict.status for verdict in alert.recent]
    if failed(statuses[-1]):
        return _judge_failure(alert, statuses, k)
    if alert.active:
        if _trailing_passes(statuses) >= passes_to_resolve(k, n):
            return replace(alert, state="OK"), ("resolved",)
        return replace(alert, state="RECOVERING"), ()
    return replace(alert, state="PENDING" if _may_still_count(statuses, k, n) else "OK"), ()


def _judge_failure(
    alert: AlertState, statuses: Sequence[Status], k: int
) -> tuple[AlertState, tuple[EventKind, ...]]:
    severity = statuses[-1]
    if alert.active:
        if _RANK[severity] > _RANK[alert.severity]:
            return replace(alert, state="FIRING", severity=severity), ("escalated",)
        return replace(alert, state="FIRING"), ()
    if _failures(statuses) < k:
        return replace(alert, state="PENDING"), ()
    opened = replace(alert, state="FIRING", severity=severity, episode=alert.episode + 1)
    return opened, ("opened",)


def _failures(statuses: Sequence[Status]) -> int:
    return sum(failed(status) for status in statuses)


def _trailing_passes(statuses: Sequence[Status]) -> int:
    for n_passes, status in enumerate(reversed(statuses)):
        if failed(status):
            return n_passes
    return len(statuses)


def _may_still_count(statuses: Sequence[Status], k: int, n: int) -> bool:
    """Whether j < k more failures would make k of n together with the failures at hand."""
    return any(_failures(statuses[-(n - j) :]) >= k - j for j in range(1, k))
