"""Drawn revisions of past windows, and whether people believe after each look what is true then.

The judge reads the channel as a person does, and folds the verdicts by the documented rules: an
episode begins when k of the newest n windows fail, with the first of them, and ends with n-k+1
windows in a row that pass.
"""

from __future__ import annotations

import datetime as dt
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from mlmon_dagster.alerts.dispatching import dispatch
from mlmon_dagster.alerts.lifecycle import apply_results
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.store import Store
from mlmon_dagster.store.outbox import outbox_health
from mlmon_dagster.store.state import writing
from tests.alerts.fake_slack import FakeSlack, Message
from tests.alerts.worlds import START, observe
from tests.chaos.dispatching import POLICY, Place, now_of
from tests.chaos.judge import _strings
from tests.chaos.running import _row
from tests.chaos.verdicts import Arriving, Verdict, looks, rule_of

FAILING = 0.05  # share of the days that fail when they are first judged
OLDEST = 60  # days after which a window is still revised
LONGEST = 4  # windows of one revision
QUIET_DAYS = 7
GOES_ON = 10**6  # the last day of what has not ended
KILLED = ("fold.before_commit", "fold.committed", "flush.before_commit", "flush.committed")

Turn = Literal["bad", "good", "both"]
Span = tuple[int, int]
_DATE = r"(\d{4}-\d\d-\d\d)"
_LATE = re.compile(rf"(Learnt|Amended|Withdrawn) on {_DATE}: {_DATE}(?: to {_DATE})?")
_LASTED = re.compile(
    rf"(Resolved: |Opened and resolved: |over: |Was: )"
    rf"((?:(?!Resolved: |resolved: |Was: ).)*?)from {_DATE} to {_DATE}",
    re.DOTALL,
)
_SINCE = re.compile(rf"Since:\*? {_DATE}")
_NEW = re.compile(rf"New: (?:(?!New: |Resolved: ).)*?since {_DATE}", re.DOTALL)
_WHOSE = re.compile(r"(m\d\d)(?:: |/c\d/)")


@dataclass
class Revised:
    """What was drawn, and how far what people believe was from what was true.

    Attributes:
        n_revisions: Corrections drawn, by what they turn.
        n_windows: Windows whose verdict they change.
        n_looks: How often what people believe was compared with the truth.
        n_told: Messages about past windows, by what they say.
        n_killed: Dispatches that were stopped in between.
        never: Windows of a true episode that people do not know to be bad.
        twice: Messages that are there twice, and episodes told anew that people knew of.
        wrongly: Episodes that people believe in, and that are none; or that were taken back and
            are true.
    """

    n_revisions: Counter[str] = field(default_factory=Counter)
    n_windows: int = 0
    n_looks: int = 0
    n_told: Counter[str] = field(default_factory=Counter)
    n_killed: int = 0
    never: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    wrongly: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was never told, told twice or withdrawn wrongly."""
        return not (self.never or self.twice or self.wrongly)


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def draw(n_models: int, n_days: int, n_revisions: int, seed: int) -> tuple[Arriving, Revised]:
    """Return what arrives by day: a verdict on each day and model, and revisions of past days."""
    rng, found = random.Random(seed), Revised()
    arriving: Arriving = {day: [] for day in range(1, n_days + 1)}
    known: dict[tuple[str, int], str] = {}
    for model in (f"m{i:02d}" for i in range(n_models)):
        for day in arriving:
            is_bad = rng.random() < FAILING and day <= n_days - QUIET_DAYS
            status = rng.choice(["WARN", "ERROR"]) if is_bad else "OK"
            arriving[day].append(_said(model, day, status, "v1"))
            known[model, day] = status
    for number in range(n_revisions):
        turn: Turn = rng.choice(("bad", "bad", "good", "both"))
        model = f"m{number % n_models:02d}"
        when = rng.randint(5, n_days - QUIET_DAYS)
        of_it = [day for day in range(max(1, when - OLDEST), when) if known[model, day] != "OK"]
        first = rng.randint(max(1, when - OLDEST), when - 1)
        if turn == "good" and of_it:
            first = rng.choice(of_it)
        for day in range(first, min(first + rng.randint(1, LONGEST), when)):
            now = {"bad": "ERROR", "good": "OK", "both": rng.choice(("OK", "ERROR"))}[turn]
            found.n_windows += now != known[model, day]
            known[model, day] = now
            arriving[when].append(_said(model, day, now, f"v{number + 2}"))
        found.n_revisions[turn] += 1
    return arriving, found


def _said(model: str, day: int, status: str, version: str) -> Verdict:
    column = f"c{int(model[1:]) % 2}"  # every other model needs two failures of three windows
    k, n = rule_of(column)
    return Verdict(model, column, day, status, version, k, n)


def play_revisions(
    store: Store, place: Place, slack: FakeSlack, arriving: Arriving, found: Revised, seed: int
) -> None:
    """Take in and tell what arrives, look by look, and compare after each what people believe."""
    rng, known = random.Random(seed), dict[str, dict[int, Verdict]]()
    for before, look in pairwise([0, *looks(len(arriving), seed)]):
        for day in range(before + 1, look + 1):
            for verdict in arriving[day]:
                known.setdefault(verdict.model, {})[verdict.day] = verdict
            observe(store, *map(_row, arriving[day]))
        _dispatch(store, place, look, rng, found)
        for model, verdicts in known.items():
            _compare(found, slack.messages, model, verdicts, look)
        found.n_looks += 1
    found.twice += [key for key, n in Counter(m.key for m in slack.messages).items() if n > 1]
    for message in slack.messages:
        found.n_told.update(kind for kind, *_ in _LATE.findall(_strings(message.body)))


def _dispatch(store: Store, place: Place, look: int, rng: random.Random, found: Revised) -> None:
    """Dispatch until nothing waits; some dispatches end where a process might be killed."""
    receiver = SlackReceiver("xoxb-right", base_url=place.slack_url, timeout_seconds=10)
    policy = replace(POLICY, settle_seconds=0.0, longest_backoff_seconds=0.05)
    doomed = rng.choice(KILLED) if rng.random() < 0.3 else ""

    def reached(step: str) -> None:
        nonlocal doomed
        if step == doomed:
            doomed = ""
            raise Killed

    writing.on_reached = reached
    try:
        while True:
            try:
                dispatch(
                    store, place.specs(), now_of(look), {"slack": receiver},
                    policy=policy, max_messages=1000,
                )  # fmt: skip
            except Killed:
                found.n_killed += 1
                continue
            if not outbox_health(store.state).n_waiting:
                return
    finally:  # a dispatch may have ended before the step at which it was to die
        writing.on_reached = lambda _step: None


@contextmanager
def passing_over_what_is_late() -> Iterator[None]:
    """Let the product take no notice of what comes late, to show that the judge sees that."""
    taken_in = apply_results._take_in_late
    apply_results._take_in_late = lambda *_given: []
    try:
        yield
    finally:
        apply_results._take_in_late = taken_in


def true_spans(verdicts: dict[int, Verdict]) -> list[Span]:
    """Return the first and last failing day of each episode of one alert."""
    days = sorted(verdicts)
    k, n = verdicts[days[0]].k, verdicts[days[0]].n
    bad = {day: verdicts[day].status != "OK" for day in days}
    spans: list[Span] = []
    is_open, passes, pending = False, 0, list[int]()
    for day in days:
        passes = 0 if bad[day] else passes + 1
        if passes > n - k:
            is_open, pending = False, []
        if bad[day]:
            pending = [one for one in [*pending, day] if one > day - n]
            if is_open:
                spans[-1] = (spans[-1][0], day)
            elif len(pending) >= k:
                is_open = True
                spans.append((pending[0], day))
    return spans


def believed(messages: Sequence[Message], model: str) -> tuple[list[Span], list[str]]:
    """Return the episodes that a reader of the channel believes in, and what was told twice."""
    spans: dict[tuple[str, Span | None], Span] = {}  # by thread, or by message and episode
    twice: list[str] = []
    for message in sorted(messages, key=lambda m: m.ts.split(".")[1]):
        text = _strings(message.body)
        whose = _WHOSE.search(text)
        if whose is None or whose[1] != model:
            continue
        for late in _LATE.finditer(text):
            span = _day(late[3]), _day(late[4] or late[3])
            # What is amended or withdrawn is the episode that was told of these windows.
            same = [key for key, known in spans.items() if _meet(known, span)]
            if late[1] == "Learnt":
                known = {spans[key][0] for key in same}  # an episode is known by its beginning
                twice += [f"{model}: days {span[0]} to {span[1]}"] if span[0] in known else []
            for key in same if late[1] != "Learnt" else ():
                if spans[key][1] < GOES_ON:
                    del spans[key]
            if late[1] != "Withdrawn":
                spans[message.ts, span] = span
        thread = message.thread_ts, None
        for label, what, first, end in _LASTED.findall(text):
            if label.startswith("Resolved") and message.thread_ts:
                spans.pop(thread, None)
            if "is withdrawn" not in what:
                span = _day(first), _day(end) - 1
                spans[message.ts, span] = span
        for since in _NEW.findall(text):
            spans[thread] = _day(since), GOES_ON
        is_head = not message.thread_ts and not _LATE.search(text) and not _LASTED.search(text)
        if is_head and (since := _SINCE.search(_strings(message.shown)) or _SINCE.search(text)):
            spans[message.ts, None] = _day(since[1]), GOES_ON
    return list(spans.values()), twice


def _compare(
    found: Revised,
    messages: Sequence[Message],
    model: str,
    verdicts: dict[int, Verdict],
    look: int,
) -> None:
    spans, twice = believed(messages, model)
    truth = true_spans(verdicts)
    bad = {day for day, verdict in verdicts.items() if verdict.status != "OK"}
    for first, last in truth:
        unknown = [d for d in bad if first <= d <= last and not _holds(spans, d)]
        found.never += [f"{model}, look {look}: day {day}" for day in unknown]
    for span in spans:
        if not any(_meet(span, true) for true in truth):
            found.wrongly.append(f"{model}, look {look}: days {span[0]} to {span[1]}")
    found.twice += [f"{one}, look {look}" for one in twice]


def _holds(spans: Sequence[Span], day: int) -> bool:
    return any(first <= day <= last for first, last in spans)


def _meet(one: Span, other: Span) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _day(date: str) -> int:
    moment = dt.datetime.combine(dt.date.fromisoformat(date), dt.time(), dt.UTC)
    return (moment - START).days + 1
