"""The life of one alert as a pure function of the windows it has seen, and how it is kept as a row.

| from      | the newest window fails              | the newest window passes                     |
|-----------|--------------------------------------|----------------------------------------------|
| OK        | FIRING if k of the last n failed, or | OK                                           |
|           | it is severe, else PENDING           |                                              |
| PENDING   | as OK                                | OK once earlier failures cannot count        |
|           |                                      | towards k any more                           |
| FIRING    | FIRING; escalated if it is an ERROR  | OK (resolved) if it is over, else RECOVERING |
|           | and only a WARN was announced        |                                              |
| RECOVERING| FIRING                               | as FIRING                                    |

A window is severe that is half as far again past the limit, its 99.9 % interval beyond it.

An episode is over on evidence, not on a lucky window. At least n-k+1 windows pass in a row, and

- the failures came in one stretch, and the passes together, with their 95 % interval, are clear of
  them; or
- `SPAN` windows with evidence pass, and together, with their standard error, they are that; or
- `MEMORY` windows pass in a row, or nothing is measured that could be evidence.

Clear is what is nearer to nothing than to the limit, or less than a quarter of what failed (the
median of the newest three failures that were past the limit by themselves: others rest on windows
before them). So a fault
that is mended ends at once or after `SPAN` windows, however a healthy column wanders about its
limit, and what comes and goes is one episode. Of failures near the limit seven passes near it are
no evidence: of windows that fail every other time, seven in a row pass some times a year. A window
among the failures that is past the limit, too, and passes because that may be chance (a weekend of
few rows) does not end their stretch.

NO_DATA changes nothing: it is neither a pass nor a failure. Only the newest window moves the
state. An older one that comes late corrects the memory; it opens an episode if the newest window
fails and the late one makes k of n, and moves nothing else. A revised verdict on the newest window
is judged again and, inside an episode, said so.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.store.alert_state import AlertRow, State
from mlmon_dagster.store.state.monitor_results import MonitorResult, Status

EventKind = Literal["opened", "escalated", "revised", "resolved"]
SPAN = 7  # passes in a row after which what came and went may be over
MEMORY = 2 * SPAN  # windows
SEVERE = 0.5  # past the limit, in units of it
CLEAR = -0.5
FADED, NEWEST = 0.25, 3  # of how far off the failures were, by the median of so many
_SURE = 1.68  # from a 95 % interval to one of 99.9 %: each window of a year is looked at alone
_RANK = {"": 0, "OK": 0, "WARN": 1, "ERROR": 2}
DEFAULT_ENVIRONMENT = "production"


class Verdict(NamedTuple):
    """What one window said, and the result row that said it.

    Attributes:
        window_start: The window.
        status: What the monitor said.
        result_id: The row of ``monitor_result``; a higher one is a newer opinion.
        excess: How far past the limit the value is, in units of the limit: 0 at the limit, 1 twice
            as far, -1 nothing at all. None if nothing is measured.
        excess_error: Half the 95 % interval of that; None if it is not known.
    """

    window_start: dt.datetime
    status: Status
    result_id: int
    excess: float | None = None
    excess_error: float | None = None

    @property
    def is_severe(self) -> bool:
        """Whether it needs no second window: far past the limit, with its whole interval."""
        if not failed(self.status) or self.excess is None or self.excess_error is None:
            return False
        return self.excess >= SEVERE and self.excess > _SURE * self.excess_error


@dataclass(frozen=True)
class AlertState:
    """What an alert remembers.

    Attributes:
        state: Where the alert is in its life.
        severity: Highest severity announced in this episode; empty before the first.
        episode: How many times the alert has opened.
        recent: Verdicts of the last `MEMORY` windows that had one (or n), oldest first.
        first: The first failing window of the newest episode: where it began, which may be before
            the window that completed k of n. None before the first episode.
        last: The last failing window of that episode so far.
    """

    state: State = "OK"
    severity: str = ""
    episode: int = 0
    recent: tuple[Verdict, ...] = ()
    first: dt.datetime | None = None
    last: dt.datetime | None = None

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
    recent = tuple(sorted(known.values(), key=lambda v: v.window_start))[-max(n, MEMORY) :]
    remembered = replace(before, recent=recent)
    if old is not None and old._replace(result_id=verdict.result_id) == verdict:
        return Step(remembered, (), is_newest)
    if not is_newest:
        return _judge_late(remembered, k, n)
    after, events = _judge(remembered, k=k, n=n)
    flipped = old is not None and failed(old.status) != failed(verdict.status)
    if flipped and before.active:
        events = ("revised", *events)
    return Step(after, events, True)


def _judge_late(alert: AlertState, k: int, n: int) -> Step:
    """Take in an older window: it can complete k of n, and end or worsen nothing."""
    newest = alert.recent[-1]
    if alert.active or not failed(newest.status) or _failures(alert.recent[-n:]) < k:
        return Step(alert, (), False)
    after, events = _judge_failure(alert, k, n)
    return Step(after, events, False)


def resolve(before: AlertState) -> Step:
    """End the episode from outside: the slice or the monitor does not exist any more."""
    if not before.active:
        return Step(replace(before, state="OK"), (), False)
    return Step(replace(before, state="OK"), ("resolved",), False)


def _judge(alert: AlertState, *, k: int, n: int) -> tuple[AlertState, tuple[EventKind, ...]]:
    if failed(alert.recent[-1].status):
        return _judge_failure(alert, k, n)
    if alert.active:
        if is_over(alert.recent, k, n):
            return replace(alert, state="OK"), ("resolved",)
        return replace(alert, state="RECOVERING"), ()
    may_count = _may_still_count(alert.recent[-n:], k, n)
    return replace(alert, state="PENDING" if may_count else "OK"), ()


def _judge_failure(alert: AlertState, k: int, n: int) -> tuple[AlertState, tuple[EventKind, ...]]:
    newest = alert.recent[-1]
    if alert.active:
        alert = replace(alert, last=newest.window_start)
        if _RANK[newest.status] > _RANK[alert.severity]:
            return replace(alert, state="FIRING", severity=newest.status), ("escalated",)
        return replace(alert, state="FIRING"), ()
    if _failures(alert.recent[-n:]) < k and not newest.is_severe:
        return replace(alert, state="PENDING"), ()
    opened = replace(
        alert,
        state="FIRING",
        severity=newest.status,
        episode=alert.episode + 1,
        first=_first_failing(alert.recent[-n:], k, n),
        last=newest.window_start,
    )
    return opened, ("opened",)


def _first_failing(verdicts: Sequence[Verdict], k: int, n: int) -> dt.datetime:
    """Return the first failing window of those that opened an alert; the newest one fails.

    Failures before n-k+1 passes in a row belong to what was over: they could not make k of n.
    """
    first, n_passes = verdicts[-1].window_start, 0
    for verdict in reversed(verdicts):
        n_passes = 0 if failed(verdict.status) else n_passes + 1
        if n_passes > n - k:
            break
        if not n_passes:
            first = verdict.window_start
    return first


def _failures(verdicts: Sequence[Verdict]) -> int:
    return sum(failed(verdict.status) for verdict in verdicts)


def _may_still_count(verdicts: Sequence[Verdict], k: int, n: int) -> bool:
    """Whether j < k more failures would make k of n together with the failures at hand."""
    return any(_failures(verdicts[-(n - j) :]) >= k - j for j in range(1, k))


def is_over(recent: Sequence[Verdict], k: int, n: int) -> bool:
    """Tell whether the newest windows are evidence that an episode has ended.

    Args:
        recent: Verdicts of the last windows, oldest first; the newest one passes.
        k: Failures among the last ``n`` windows that open an episode.
        n: Windows looked at for that.
    """
    failures = [i for i, verdict in enumerate(recent) if failed(verdict.status)]
    if not failures:
        return True
    passes = recent[failures[-1] + 1 :]
    if len(passes) < n - k + 1:
        return False
    known = [past for i in failures if (past := recent[i].excess) is not None]
    if not known:
        return True
    clear = _clear([past for past in known if past >= 0][-NEWEST:] or known[-NEWEST:])
    measured = [verdict for verdict in passes if verdict.excess is not None]
    if len(measured) >= SPAN:
        together = _pooled(measured[-SPAN:])
        return together is not None and together.value + together.error < clear
    stretch = recent[failures[0] : failures[-1]]
    if any(_is_better(verdict, clear) for verdict in stretch) or len(measured) < len(passes):
        return False
    together = _pooled(passes)
    return together is not None and together.value + Z95 * together.error < clear


def _clear(failures: Sequence[float]) -> float:
    """Return the excess below which windows are clear of failures of this excess."""
    return max(CLEAR, FADED * (1 + statistics.median(failures)) - 1)


def _is_better(verdict: Verdict, clear: float) -> bool:
    """Whether a window among failures passed for more than being one of few rows."""
    if failed(verdict.status):
        return False
    return verdict.excess is None or verdict.excess < max(clear, 0.0)


class _Pooled(NamedTuple):
    """The mean excess of some windows, and its standard error."""

    value: float
    error: float


def _pooled(verdicts: Sequence[Verdict]) -> _Pooled | None:
    """Pool the windows that have evidence; None if none has.

    The error is the larger of what their own intervals say and of what they differ among
    themselves, since windows vary by more than their rows do.
    """
    values = [v.excess for v in verdicts if v.excess is not None]
    if not values:
        return None
    m = len(values)
    mean = math.fsum(values) / m
    spread = math.fsum((value - mean) ** 2 for value in values) / (m - 1) if m > 1 else 0.0
    own = math.fsum((v.excess_error / Z95) ** 2 for v in verdicts if v.excess_error is not None)
    return _Pooled(mean, max(math.sqrt(spread / m), math.sqrt(own) / m))


def fingerprint(result: MonitorResult, environment: str) -> str:
    """Hash what an alert is about: not how bad it is, whose it is or which version served."""
    identity = {
        "environment": environment,
        "model": result["model"],
        "stream": result["dataset"],
        "monitor": result["monitor"],
        "metric": result["metric"],
        "column": result["column_name"],
        "slice_key": result["slice_key"],
        "slice_value": result["slice_value"],
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def new_row(result: MonitorResult, environment: str, now: dt.datetime) -> AlertRow:
    """Return the row of an alert that has not taken its first window in yet."""
    return {
        "fingerprint": fingerprint(result, environment),
        "environment": environment,
        "model": result["model"],
        "monitor": result["monitor"],
        "family": result["family"],
        "metric": result["metric"],
        "column_name": result["column_name"],
        "dataset": result["dataset"],
        "slice_key": result["slice_key"],
        "slice_value": result["slice_value"],
        "state": "OK",
        "severity": "",
        "episode": 0,
        "recent": "[]",
        "last_window_start": result["window_start"],
        "last_data_version": "",
        "opened_window": None,
        "failed_window": None,
        "opened_at": None,
        "resolved_at": None,
        "resolved_reason": "",
        "muted_reason": "",
        "value": None,
        "message": "",
        "details": "{}",
        "owner": result["owner"],
        "runbook": result["runbook"],
        "acked_by": "",
        "acked_at": None,
        "updated_at": now,
    }


def state_of(row: AlertRow) -> AlertState:
    """Read the state machine's part of an alert row."""
    recent = tuple(
        Verdict(dt.datetime.fromisoformat(window), *said)
        for window, *said in json.loads(row["recent"])
    )
    return AlertState(
        state=row["state"],
        severity=row["severity"],
        episode=row["episode"],
        recent=recent,
        first=row["opened_window"],
        last=row["failed_window"],
    )


def keep_state(row: AlertRow, state: AlertState) -> None:
    """Write the state machine's part of an alert row."""
    recent = [[v.window_start.isoformat(), *v[1:]] for v in state.recent]
    row |= {
        "state": state.state,
        "severity": state.severity,
        "episode": state.episode,
        "recent": json.dumps(recent),
        "opened_window": state.first,
        "failed_window": state.last,
    }
