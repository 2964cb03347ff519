"""The life of one alert as a pure function of the windows it has seen, and how it is kept as a row.

| from      | the newest window fails              | the newest window passes                     |
|-----------|--------------------------------------|----------------------------------------------|
| OK        | FIRING if k of the last n failed, or | OK                                           |
|           | it is severe, else PENDING           |                                              |
| PENDING   | as OK                                | OK once earlier failures cannot count        |
|           |                                      | towards k any more                           |
| FIRING    | FIRING; escalated if it is an ERROR  | OK (resolved) if it is over, else RECOVERING |
|           | and only a WARN was announced;       |                                              |
|           | changed if its nature is another     |                                              |
| RECOVERING| FIRING                               | as FIRING                                    |

A window is severe that is half as far again past the limit, its 99.9 % interval beyond it.

An episode is over on evidence, not on a lucky window. At least n-k+1 windows pass in a row, and

- the failures came in one stretch, and the passes together, with their 95 % interval, are clear of
  them; or
- `SPAN` windows with evidence pass, and together, with their standard error, they are that; or
- `MEMORY` windows pass in a row, or nothing is measured that could be evidence.

Clear is what is nearer to nothing than to the limit, or less than a quarter of what failed (the
median of the newest three failures that were past the limit by themselves: others rest on windows
before). So what comes and goes is one episode. Of failures near the limit seven passes near it are
no evidence: of windows that fail every other time, seven in a row pass some times a year. A window
among the failures that is past the limit, too, and passes because that may be chance (a weekend of
few rows) does not end their stretch.

A standing alert must not hide the next fault. So an episode's newest failing window is held against
those that its alert remembers. It is of another nature if

- its value, or the column's width, leaves their band: half as much again as the largest of them, or
  a third of the smallest, and extreme by the law of windows among those since the last change. Of
  shares the odds count (Cornfield, 1951);
- the column's place leaves its band, by half of that and of its spread, and by the same law;
- it and the failing window before it are made by terms that none of the others has. One window
  alone may be chance, as the second largest term is often near the first.

Where there are fewer than `FEWEST_WINDOWS` since the last change, no law says what is extreme;
three times the largest value does, and twice the distance of a place. What the alert remembers is
no news when it comes back: what comes and goes is told once, and again if it was away for longer.

NO_DATA changes nothing: it is neither a pass nor a failure. Nor does a window that passes for a
fault: something is wrong with the column that was not when the alert last failed.

Windows come in any order and more than once. One that is newer than all the others takes the step
of the table. An older one, or another opinion on one that is known, is late news: the table is gone
through again from there, and what it says now is compared with the episodes that there are.

| the windows say now                     | there was                | what happens                |
|-----------------------------------------|--------------------------|-----------------------------|
| an episode of windows long past         | nothing                  | opened and resolved, late   |
| an episode that goes on                 | nothing, or it had ended | opened                      |
| other first or last failing windows, or | an episode that is over  | revised, late               |
| a higher severity                       |                          |                             |
| that it ended in another window         | an episode that is over  | revised, late and not told  |
| another first one, or another verdict   | an episode that goes on  | revised, or escalated       |
| on the newest window, or worse          |                          |                             |
| it ended                                | an episode that goes on  | revised and resolved        |
| one more change of nature               | an episode               | changed                     |
| no such episode                         | an episode that goes on  | resolved and withdrawn      |
| no such episode                         | an episode that is over  | withdrawn, late             |

So whatever the order in which verdicts come, the episodes that stand at the end are those of the
windows in their order.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mlmon_dagster.metrics import FEWEST_WINDOWS
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.store.alert_state import AlertRow, State
from mlmon_dagster.store.state.monitor_results import MonitorResult, Status

if TYPE_CHECKING:
    from mlmon_dagster.metrics.windows.law import Scale

EventKind = Literal["opened", "escalated", "changed", "revised", "resolved", "withdrawn"]
SPAN = 7  # passes in a row after which what came and went may be over
MEMORY = 2 * SPAN  # windows
_LONG_MEMORY = 4 * MEMORY  # of an alert that fires, for what its episode has been like
SEVERE = 0.5  # past the limit, in units of it
CLEAR = -0.5
FADED, NEWEST = 0.25, 3  # of how far off the failures were, by the median of so many
_SURE = 1.68  # from a 95 % interval to one of 99.9 %: each window of a year is looked at alone
STATUS_RANK = {"": 0, "OK": 0, "WARN": 1, "ERROR": 2}
DEFAULT_ENVIRONMENT = "production"
_APART, _FAR = 1.5, 3.0  # times the largest value, with and without a law
_AWAY = 0.5  # of the band of places and of a spread; twice that without a law
_CHANCE = 0.01
_LEAST = 1e-6  # of a size, as the law of roots takes no 0
_DAY = dt.timedelta(days=1)
_SEASONS = {_DAY: 7, _DAY / 24: 24}  # windows, by their length


class Nature(NamedTuple):
    """What a window of an alert is like.

    Attributes:
        value: What is judged; None where a change of it is no news.
        rows: Of which it is a share; 0 if it is none.
        term: What makes most of it, in a word; empty if nothing does.
        place: By how many spreads of the baseline's rows the column moved; None if not known.
        width: How many times as wide as the baseline's rows it is; None if not known.
        beside: What else is wrong with the column, for which the window may pass.
    """

    value: float | None = None
    rows: int = 0
    term: str = ""
    place: float | None = None
    width: float | None = None
    beside: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """What one window said, and the result row that said it.

    Attributes:
        window_start: The window.
        status: What the monitor said.
        result_id: The row of ``monitor_result``; a higher one is a newer opinion.
        excess: How far past the limit the value is, in units of the limit: 0 at the limit, 1 twice
            as far, -1 nothing at all. None if nothing is measured.
        excess_error: Half the 95 % interval of that; None if it is not known.
        nature: What the window is like.
        is_change: Whether the episode is of another nature from it on.
    """

    window_start: dt.datetime
    status: Status
    result_id: int
    excess: float | None = None
    excess_error: float | None = None
    nature: Nature = Nature()
    is_change: bool = False

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
        episode: The newest episode, from 1; 0 before the first.
        n_episodes: How many there were, those of past windows that were learnt late included.
        recent: Verdicts of the last `MEMORY` windows that had one (or n), oldest first; while it
            fires, of more.
        first: The first failing window of the newest episode: where it began, which may be before
            the window that completed k of n. None before the first episode.
        last: The last failing window of that episode so far.
    """

    state: State = "OK"
    severity: str = ""
    episode: int = 0
    n_episodes: int = 0
    recent: tuple[Verdict, ...] = ()
    first: dt.datetime | None = None
    last: dt.datetime | None = None

    @property
    def active(self) -> bool:
        """Whether people should be acting on it."""
        return self.state in ("FIRING", "RECOVERING")


class Step(NamedTuple):
    """The next state, and what happened."""

    after: AlertState
    events: tuple[EventKind, ...]


class Opinion(NamedTuple):
    """The newest verdict on a window, and how many of how many failures open an episode."""

    verdict: Verdict
    k: int = 1
    n: int = 1

    @property
    def start(self) -> dt.datetime:
        """Start of its window."""
        return self.verdict.window_start


class Turn(NamedTuple):
    """A change of nature: the results that say what the alert was, and what it is now.

    Attributes:
        window: In which it was noticed.
        since: From which window on it is so.
        was: The result on the failing window before that.
        now: The result on the window in which it was noticed.
    """

    window: dt.datetime
    since: dt.datetime
    was: int
    now: int


class Episode(NamedTuple):
    """One uninterrupted firing, as far as it is known.

    Attributes:
        number: Which of the alert's, from 1; 0 if it has none yet.
        first: Its first failing window.
        last: Its last one so far.
        ended: The window that ended it; None while it goes on.
        severity: The highest so far.
        opened_in: The window that opened it; the first one where that is not known.
        turns: How its nature changed.
    """

    number: int
    first: dt.datetime
    last: dt.datetime
    ended: dt.datetime | None
    severity: str
    opened_in: dt.datetime
    turns: tuple[Turn, ...] = ()


class Change(NamedTuple):
    """What late news does to an episode.

    Attributes:
        kind: What happened.
        episode: The episode as it is now.
        window: The window in which it happened.
        is_late: Whether the episode is one of past windows, told in a message of its own.
        is_told: Whether it is news; another window in which an episode ended is only listed.
    """

    kind: EventKind
    episode: Episode
    window: dt.datetime
    is_late: bool = False
    is_told: bool = True


class Revision(NamedTuple):
    """The alert after late news, and what that changed."""

    after: AlertState
    changes: tuple[Change, ...]


def failed(status: str) -> bool:
    """Whether a status counts as a failure; NO_DATA does not."""
    return status in ("WARN", "ERROR")


def step(before: AlertState, verdict: Verdict, *, k: int = 1, n: int = 1) -> Step:
    """Take in the verdict on a window that is newer than all that are known.

    Args:
        before: The alert as it was.
        verdict: The window's verdict. NO_DATA leaves the alert as it is, and so does a window that
            is not newer; `revise` is for those.
        k: Failures among the last ``n`` windows that open an episode; 1 <= k <= n.
        n: Windows remembered.

    Returns:
        The alert as it is now, and the transitions to announce.
    """
    if verdict.status == "NO_DATA" or is_known(before, verdict.window_start):
        return Step(before, ())
    if _is_held(before, verdict):
        return Step(before, ())
    is_long = before.active and verdict.nature.value is not None
    recent = (*before.recent, verdict)[-max(n, _LONG_MEMORY if is_long else MEMORY) :]
    return Step(*_judge(replace(before, recent=recent), k=k, n=n))


def _is_held(alert: AlertState, verdict: Verdict) -> bool:
    """Whether a window of an open alert passes for what went wrong with the column since."""
    beside = verdict.nature.beside
    if failed(verdict.status) or not beside or not alert.active:
        return False
    failing = [known.nature.beside for known in alert.recent if failed(known.status)]
    return not set(beside) <= set(failing[-1] if failing else ())


def is_known(alert: AlertState, window: dt.datetime) -> bool:
    """Tell whether a window is not newer than all that an alert has seen."""
    return bool(alert.recent) and window <= alert.recent[-1].window_start


def revise(
    before: AlertState,
    episodes: Sequence[Episode],
    opinions: Sequence[Opinion],
    changed: Collection[dt.datetime],
) -> Revision:
    """Take in other verdicts on windows that are not newer than all that are known.

    Args:
        before: The alert as it was.
        episodes: Its episodes that were not withdrawn, oldest first; those that had ended long
            before the changed windows may be left out.
        opinions: The newest opinions on windows, oldest first: all from the first window of the
            episodes that hold a changed one, or from the oldest changed one, up to the newest, and
            `MEMORY` windows before them.
        changed: Starts of the windows whose verdict is another one, or that had none; not empty.

    Returns:
        The alert as the windows tell it now, and what that changes; the numbers of new episodes
        follow those that there are.
    """
    start = replayed_from(episodes, min(changed))
    alert, spans = _replay(opinions, start)
    touched = [e for e in episodes if _reaches(e, start)]
    touched.sort(key=lambda e: (e.ended is None, e.number))
    owners = {s: e for e in touched for s in spans if _overlap(e, s)}  # the last of several
    failing = {o.start for o in opinions if failed(o.verdict.status)} & set(changed)
    changes: list[Change] = []
    n_episodes, current, newest = before.n_episodes, None, opinions[-1]
    for told in touched:
        shared = [span for span in spans if _overlap(told, span)]
        if not shared:
            one = [told, *(e for e in touched if e is not told and _overlap(e, told))]
            changes += _withdraw(told, one, changed, newest.start)
            continue
        of_it = [span for span in shared if owners[span] is told]
        now = _amend(told, of_it or shared)
        turned = _find_untold(told.turns, now.turns) if of_it else []
        if told.ended is None:
            changes += [Change("changed", now, window) for window in turned]
        if told.ended is None and now.ended is not None:
            changes += _tell_end(now, now.ended)
        elif told.ended is None:
            current = now
            if now.severity != told.severity:
                changes.append(Change("escalated", now, newest.start))
            elif now.first != told.first or _flipped(before, newest):
                changes.append(Change("revised", now, max(changed)))
        else:
            is_open = bool(of_it) and now.ended is None
            if is_open and any(window > told.last for window in changed):
                n_episodes += 1  # it goes on after all
                current = now._replace(number=n_episodes, opened_in=newest.start)
                changes.append(Change("opened", current, newest.start))
                later = [window for window in turned if window > told.ended]
                changes += [Change("changed", current, window) for window in later]
            if is_open or not of_it:  # of another episode, or ended from outside: it has its part
                first = now.first if of_it else max(now.first, told.first)
                last, ended = min(now.last, told.last), min(now.ended or told.ended, told.ended)
                severity = now.severity if of_it else told.severity
                now = now._replace(first=first, last=last, ended=ended, severity=severity)
            past = [window for window in turned if window <= told.ended]
            changes += [Change("changed", now, window, is_late=True) for window in past]
            is_news = now._replace(ended=told.ended, turns=told.turns) != told
            if is_news or now.ended != told.ended:
                assert now.ended is not None
                changes.append(Change("revised", now, now.ended, is_late=True, is_told=is_news))
    for span in spans:
        if span in owners or not any(span.first <= window <= span.last for window in failing):
            continue
        n_episodes += 1
        mine = span._replace(number=n_episodes)
        is_late = span.ended is not None
        changes.append(Change("opened", mine, span.opened_in, is_late))
        changes += [Change("changed", mine, turn.window, is_late) for turn in span.turns]
        if span.ended is not None:
            changes.append(Change("resolved", mine, span.ended, is_late=True))
        else:
            current = mine
    after = replace(before, recent=alert.recent, n_episodes=n_episodes)
    if current is not None:
        return Revision(
            replace(
                after,
                state=alert.state,
                severity=current.severity,
                episode=current.number,
                first=current.first,
                last=current.last,
            ),
            tuple(changes),
        )
    return Revision(replace(after, state="OK" if alert.active else alert.state), tuple(changes))


def replayed_from(episodes: Sequence[Episode], changed: dt.datetime) -> dt.datetime:
    """Return the window from which on late news about a window has to be gone through again.

    No episode holds it but as its first one: of episodes that were amended one may hold windows of
    another.
    """
    holding = [e.first for e in episodes if e.first < changed and _reaches(e, changed)]
    return replayed_from(episodes, min(holding)) if holding else changed


def _amend(told: Episode, spans: Sequence[Episode]) -> Episode:
    """Return an episode as the windows tell it now; it stays as severe as it was announced."""
    severity = max((told.severity, *(s.severity for s in spans)), key=lambda s: STATUS_RANK[s])
    first, last, ended = spans[0].first, spans[-1].last, spans[-1].ended
    turns = tuple(turn for span in spans for turn in span.turns)
    return told._replace(first=first, last=last, ended=ended, severity=severity, turns=turns)


def _find_untold(told: Sequence[Turn], now: Sequence[Turn]) -> list[dt.datetime]:
    """Return in which windows changes are noticed now that were not told.

    One that was told of a window in which none is noticed any more is the first of these.
    """
    known, found = {turn.window for turn in told}, [turn.window for turn in now]
    return [window for window in found if window not in known][len(known - set(found)) :]


def _tell_end(episode: Episode, window: dt.datetime) -> list[Change]:
    return [Change("revised", episode, window), Change("resolved", episode, window)]


def _replay(opinions: Sequence[Opinion], start: dt.datetime) -> tuple[AlertState, list[Episode]]:
    """Go through windows from one on that no episode holds; return the alert and its episodes."""
    place = next(i for i, opinion in enumerate(opinions) if opinion.start >= start)
    memory = max(MEMORY, *(opinion.n for opinion in opinions[place:]))
    context = tuple(opinion.verdict for opinion in opinions[:place])[-memory:]
    alert, spans = AlertState(recent=context), list[Episode]()
    for opinion in opinions[place:]:
        was_active = alert.active
        alert, events = step(alert, opinion.verdict, k=opinion.k, n=opinion.n)
        if not (was_active or alert.active):
            continue
        assert alert.first is not None
        assert alert.last is not None
        ended = opinion.start if "resolved" in events else None
        opened_in, turns = opinion.start, tuple[Turn, ...]()
        if "opened" not in events:
            before = spans.pop()
            opened_in, turns = before.opened_in, before.turns
        if "changed" in events:
            turns += (read_turn(alert),)
        span = Episode(0, alert.first, alert.last, ended, alert.severity, opened_in, turns)
        spans.append(span)
    return alert, spans


def _reaches(episode: Episode, window: dt.datetime) -> bool:
    return episode.ended is None or episode.ended >= window


def _overlap(told: Episode, span: Episode) -> bool:
    """Whether an episode that was told and one of the windows share failing windows."""
    return (told.ended is None or span.first <= told.last) and told.first <= span.last


def _withdraw(
    told: Episode, one: Sequence[Episode], changed: Collection[dt.datetime], newest: dt.datetime
) -> list[Change]:
    """Take an episode back of which the windows say nothing any more.

    One that is over only if a window of it changed, or of those that it is one with.
    """
    if told.ended is None:
        return [Change("resolved", told, newest), Change("withdrawn", told, newest)]
    if any(e.first <= window and _reaches(e, window) for e in one for window in changed):
        return [Change("withdrawn", told, told.ended, is_late=True)]
    return []


def _flipped(before: AlertState, newest: Opinion) -> bool:
    """Whether the newest window fails now and passed before, or the other way round."""
    known = before.recent[-1]
    return known.window_start == newest.start and failed(known.status) != failed(
        newest.verdict.status
    )


def resolve(before: AlertState) -> Step:
    """End the episode from outside: the slice or the monitor does not exist any more."""
    if not before.active:
        return Step(replace(before, state="OK"), ())
    return Step(replace(before, state="OK"), ("resolved",))


def _judge(alert: AlertState, *, k: int, n: int) -> tuple[AlertState, tuple[EventKind, ...]]:
    if failed(alert.recent[-1].status):
        return _judge_failure(alert, k, n)
    if alert.active:
        if is_over(alert.recent[-max(n, MEMORY) :], k, n):
            return replace(alert, state="OK"), ("resolved",)
        return replace(alert, state="RECOVERING"), ()
    may_count = _may_still_count(alert.recent[-n:], k, n)
    return replace(alert, state="PENDING" if may_count else "OK"), ()


def _judge_failure(alert: AlertState, k: int, n: int) -> tuple[AlertState, tuple[EventKind, ...]]:
    newest = alert.recent[-1]
    if alert.active:
        is_worse = STATUS_RANK[newest.status] > STATUS_RANK[alert.severity]
        severity = newest.status if is_worse else alert.severity
        alert = replace(alert, state="FIRING", severity=severity, last=newest.window_start)
        changed = _mark_change(alert)
        kinds: tuple[EventKind, ...] = ("escalated",) if is_worse else ()
        return (alert, kinds) if changed is None else (changed, (*kinds, "changed"))
    if _count_failures(alert.recent[-n:]) < k and not newest.is_severe:
        return replace(alert, state="PENDING"), ()
    opened = replace(
        alert,
        state="FIRING",
        severity=newest.status,
        episode=alert.n_episodes + 1,
        n_episodes=alert.n_episodes + 1,
        first=_find_first_failing(alert.recent[-n:], k, n),
        last=newest.window_start,
    )
    return opened, ("opened",)


def _mark_change(alert: AlertState) -> AlertState | None:
    """Mark the window from which on a firing alert is of another nature; None if it is as it was.

    The marked window begins what the next ones are held against.
    """
    assert alert.first is not None
    failing = [
        i
        for i, verdict in enumerate(alert.recent)
        if failed(verdict.status) and verdict.window_start >= alert.first
    ]
    mine = [alert.recent[i] for i in failing]
    since = max((i for i, verdict in enumerate(mine) if verdict.is_change), default=0)
    found = _find_change([v.nature for v in mine], [v.window_start for v in mine], since)
    if found is None:
        return None
    recent = list(alert.recent)
    recent[failing[found]] = recent[failing[found]]._replace(is_change=True)
    return replace(alert, recent=tuple(recent))


def _find_change(
    natures: Sequence[Nature], starts: Sequence[dt.datetime], since: int
) -> int | None:
    """Return from which window on an episode is of another nature; None if it is as it was.

    Args:
        natures: Of its failing windows that are remembered, oldest first.
        starts: When they start.
        since: From which of them on it has been of its present nature.
    """
    newest, others = natures[-1], natures[:-1]
    if not others:
        return None
    rows = [nature.rows for nature in natures]
    if (
        _leaves_band(list(map(_measure_size, natures)), rows, starts, since)
        or _leaves_band([nature.width for nature in natures], [0] * len(rows), starts, since)
        or _leaves_place(natures, starts, since)
    ):
        return len(others)
    last = len(others) - 1
    known = {nature.term for nature in natures[:last]} | {""}
    is_other = last > since + 1 and not {newest.term, others[last].term} & known
    return last if is_other else None


def _leaves_band(
    sizes: Sequence[float | None],
    rows: Sequence[int],
    starts: Sequence[dt.datetime],
    since: int,
) -> bool:
    newest, known = sizes[-1], [size for size in sizes[:-1] if size is not None]
    if newest is None or not known or min(known) / _FAR <= newest <= max(known) * _APART:
        return False
    band = {i: size for i, size in enumerate(sizes) if size is not None and i >= since}
    if len(band) <= FEWEST_WINDOWS:
        return not min(known) / _FAR <= newest <= max(known) * _FAR
    values = [1 - 1 / (1 + size) if rows[i] else max(size, _LEAST) for i, size in band.items()]
    scale: Scale = "logit" if rows[-1] else "root"
    of_band = [rows[i] for i in band], [starts[i] for i in band]
    return _find_chance(values, *of_band, scale) < _CHANCE


def _leaves_place(natures: Sequence[Nature], starts: Sequence[dt.datetime], since: int) -> bool:
    place = natures[-1].place
    known = [nature.place for nature in natures[:-1] if nature.place is not None]
    if place is None or not known:
        return False
    beyond = max(place - max(known), min(known) - place)
    least = _AWAY * max(max(known) - min(known), 1.0)
    band = [i for i in range(since, len(natures)) if natures[i].place is not None]
    if beyond <= least or len(band) <= FEWEST_WINDOWS:
        return beyond > 2 * least
    places = [natures[i].place or 0.0 for i in band]
    return _find_chance(places, [0] * len(band), [starts[i] for i in band], "identity") < _CHANCE


def _measure_size(nature: Nature) -> float | None:
    """Return how large a value is, either way; of a share its odds."""
    if nature.value is None:
        return None
    size = abs(nature.value)
    if not nature.rows:
        return size
    return size / (1 - size) if size < 1 else math.inf


def _find_chance(
    values: Sequence[float], rows: Sequence[int], starts: Sequence[dt.datetime], scale: Scale
) -> float:
    """Return the chance of a value as far as the last one after the others."""
    from mlmon_dagster.metrics.windows.law import fit, to_scale

    levels, _ = to_scale(values, 0.0, rows, scale)
    length = min(after - before for before, after in pairwise(starts))
    at = [round((start - starts[0]) / length) for start in starts]
    law = fit(levels[:-1], 0.0, at[:-1], period=_SEASONS.get(length, 1))
    return float(law.judge(levels[-1:], 0.0, at[-1:]).p_value[0, 0])


def read_turn(alert: AlertState) -> Turn:
    """Return the newest change of nature of an alert whose newest window made it."""
    since = max(i for i, verdict in enumerate(alert.recent) if verdict.is_change)
    was = [verdict.result_id for verdict in alert.recent[:since] if failed(verdict.status)]
    now = alert.recent[-1]
    return Turn(now.window_start, alert.recent[since].window_start, was[-1], now.result_id)


def _find_first_failing(verdicts: Sequence[Verdict], k: int, n: int) -> dt.datetime:
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


def _count_failures(verdicts: Sequence[Verdict]) -> int:
    return sum(failed(verdict.status) for verdict in verdicts)


def _may_still_count(verdicts: Sequence[Verdict], k: int, n: int) -> bool:
    """Whether j < k more failures would make k of n together with the failures at hand."""
    return any(_count_failures(verdicts[-(n - j) :]) >= k - j for j in range(1, k))


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
    clear = _find_clear_excess([past for past in known if past >= 0][-NEWEST:] or known[-NEWEST:])
    measured = [verdict for verdict in passes if verdict.excess is not None]
    if len(measured) >= SPAN:
        together = _pool_verdicts(measured[-SPAN:])
        return together is not None and together.value + together.error < clear
    stretch = recent[failures[0] : failures[-1]]
    if any(_is_better(verdict, clear) for verdict in stretch) or len(measured) < len(passes):
        return False
    together = _pool_verdicts(passes)
    return together is not None and together.value + Z95 * together.error < clear


def _find_clear_excess(failures: Sequence[float]) -> float:
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


def _pool_verdicts(verdicts: Sequence[Verdict]) -> _Pooled | None:
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
        "n_episodes": 0,
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
    recent = tuple(map(_read_kept, json.loads(row["recent"])))
    return AlertState(
        state=row["state"],
        severity=row["severity"],
        episode=row["episode"],
        n_episodes=row["n_episodes"],
        recent=recent,
        first=row["opened_window"],
        last=row["failed_window"],
    )


def _read_kept(said: Sequence[Any]) -> Verdict:
    start, *rest = said
    verdict = Verdict(dt.datetime.fromisoformat(start), *rest)
    *known, beside = verdict.nature
    return verdict._replace(nature=Nature._make([*known, tuple(beside)]))


def forget_ahead(row: AlertRow, window: dt.datetime, newest: dt.datetime) -> None:
    """Forget verdicts on windows that have not been: a clock that was ahead had them judged.

    A window that has been would otherwise be held for an old one, of which late news is told only.

    Args:
        row: The alert; changed in place.
        window: The window that is to be taken in.
        newest: The present moment, or the newest window with rows if that is later.
    """
    alert = state_of(row)
    if not alert.recent or alert.recent[-1].window_start <= newest or window > newest:
        return
    seen = tuple(verdict for verdict in alert.recent if verdict.window_start <= newest)
    first = None if alert.first is None else min(alert.first, window)
    last = None if alert.last is None else min(alert.last, window)
    keep_state(row, replace(alert, recent=seen, first=first, last=last))
    row["last_window_start"] = seen[-1].window_start if seen else window


def keep_state(row: AlertRow, state: AlertState) -> None:
    """Write the state machine's part of an alert row."""
    plain = (Nature(), False)
    recent = [
        [v.window_start.isoformat(), *v[1 : 5 if v[5:] == plain else 7]] for v in state.recent
    ]
    row |= {
        "state": state.state,
        "severity": state.severity,
        "episode": state.episode,
        "n_episodes": state.n_episodes,
        "recent": json.dumps(recent),
        "opened_window": state.first,
        "failed_window": state.last,
    }
