"""Compare what a channel's readers saw with what they had to be told."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.alerts.fake_slack import Message
from tests.chaos.verdicts import Episode

_MARK = re.compile(r"(m\d\d)/(c\d)/day (\d+)/(WARN|ERROR)")
_LABEL = re.compile(r"(New|Firing|Worse|Revised after late data|Resolved|Opened and resolved): ")
_PHASE = {
    "New": "open",
    "Firing": "open",
    "Worse": "worse",
    "Revised after late data": "revised",
    "Resolved": "end",
    "Opened and resolved": "over",
}
_MISSED = re.compile(r"(m\d\d): (?:over: |.*opened and resolved)")
_REST = re.compile(r"and \d+ more: ([^\n\"]*)")
_CLOSED = "resolved, "
_OUTAGE = "after an outage; "
_AS_IF_OPEN = ("open", "worse")


@dataclass(frozen=True)
class Saying:
    """One thing that a message says of an episode: that it is open, worse, revised, at its end,
    or over before anybody was told.
    """

    phase: str
    order: int
    thread: str
    look: int
    is_error: bool = False


@dataclass
class Finding:
    """How far the messages are from what was expected; everything but the counts must be empty.

    Attributes:
        n_expected: Events that people had to be told.
        n_episodes: Episodes that they belong to.
        n_messages: Messages that are in the channels at the end, updates not counted.
        n_over: Episodes told by one message after they were over.
        n_taken_back: Second copies that were deleted again.
        n_summaries: Messages about what happened while Slack was silent.
        lost: Events that nobody was told.
        duplicated: Messages that are there twice, and events told twice.
        out_of_order: Episodes told in a wrong order, or partly in another thread.
        as_if_open: Episodes told as going on after they were over.
        stale: First messages of ended threads that do not say so.
        n_untold: Unmuted events without a message, as the product counts them.
    """

    n_expected: int = 0
    n_episodes: int = 0
    n_messages: int = 0
    n_over: int = 0
    n_taken_back: int = 0
    n_summaries: int = 0
    n_untold: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    as_if_open: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> tuple[list[str], ...]:
        """All that must be empty."""
        return self.lost, self.duplicated, self.out_of_order, self.as_if_open, self.stale

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled, out of order, told as if it were not over, or left."""
        return not any(self.wrong) and not self.n_untold


def judge(
    episodes: Sequence[Episode],
    accepted: Sequence[Message],
    shown: Sequence[Message],
    look_of: Mapping[str, int],
) -> Finding:
    """Read the messages as people do.

    Args:
        episodes: What had to be told.
        accepted: Every post the server took, in that order.
        shown: Those that are in the channels at the end.
        look_of: At which look a message was written, by its key.
    """
    found = Finding(
        n_expected=sum(len(e.events) for e in episodes),
        n_episodes=len(episodes),
        n_messages=len(shown),
        n_taken_back=len(accepted) - len(shown),
        n_summaries=sum(_OUTAGE in m.text for m in shown),
        duplicated=[key for key, n in Counter(m.key for m in shown).items() if n > 1],
        stale=[m.text for m in shown if _is_stale(m)],
    )
    of_alert: dict[tuple[str, str], list[Episode]] = {}
    for episode in episodes:
        of_alert.setdefault((episode.model, episode.column), []).append(episode)
    for alert, its in of_alert.items():
        sayings = _sayings(alert, its, shown, look_of)
        for episode in its:
            _judge_episode(found, episode, sayings[episode.number])
        orders = [s.order for e in its for s in sayings[e.number]]
        if orders != sorted(orders):
            found.out_of_order.append(f"{'/'.join(alert)}: {orders}")
    return found


def _sayings(
    alert: tuple[str, str],
    episodes: Sequence[Episode],
    shown: Sequence[Message],
    look_of: Mapping[str, int],
) -> dict[int, list[Saying]]:
    """Return what is said of each episode of an alert, in the order of the channel."""
    said: dict[int, list[Saying]] = {episode.number: [] for episode in episodes}
    for order, message in enumerate(sorted(shown, key=lambda m: m.ts.split(".")[1])):
        where = order, message.thread_ts or message.ts, look_of.get(message.key, 0)
        for phase, day, is_error in _told(message, alert):
            for e in episodes:
                here = {s.phase for s in said[e.number] if s.order == order}
                if e.first_day <= day <= e.last_day and phase not in here:
                    said[e.number].append(Saying(phase, *where, is_error))
        # What there is no room for is named by its column alone, with the number of episodes.
        for phase in _rest(message, alert):
            unlisted = [
                e
                for e in episodes
                if not said[e.number]
                and e.events[0].look <= where[2]
                and (e.end_look <= where[2]) == (phase == "over")
            ]
            if unlisted:
                said[unlisted[0].number].append(Saying(phase, *where))
    return said


def _told(message: Message, alert: tuple[str, str]) -> list[tuple[str, int, bool]]:
    """Return what a message says of an alert: phase, day and severity of the sentence."""
    text = _text(message)
    default = ""
    if not message.thread_ts and not _LABEL.search(text):
        default = "over" if _MISSED.search(text) else "open"
    told = []
    for line in text.splitlines():
        label = _LABEL.search(line)
        for model, column, day, status in _MARK.findall(line):
            phase = default or (_PHASE[label[1]] if label else "")
            if phase and (model, column) == alert:
                told.append((phase, int(day), status == "ERROR"))
    return told


def _rest(message: Message, alert: tuple[str, str]) -> list[str]:
    """Return the phases of the episodes of an alert that a message only names."""
    rest, (model, column) = _REST.search(_text(message)), alert
    if rest is None or f"{model}: " not in _text(message):
        return []
    whose = f"{model}: PSI of " if _OUTAGE in message.text else ""  # of many models
    named = re.findall(rf"{whose}\b{column}\b( \(firing\))?(?: \((\d+) times\))?", rest[1])
    return ["open" if fires else "over" for fires, times in named for _ in range(int(times or 1))]


def _judge_episode(found: Finding, episode: Episode, said: Sequence[Saying]) -> None:
    name = f"{episode.model}/{episode.column} days {episode.first_day} to {episode.last_day}"
    phases = Counter(s.phase for s in said)
    found.duplicated += [f"{name}: {p}" for p, n in phases.items() if n > 1 and p != "revised"]
    if phases["over"]:
        found.n_over += 1
        found.duplicated += [f"{name}: {p} and over" for p in ("open", "end") if phases[p]]
        return
    found.lost += [f"{name}: {p}" for p in ("open", "end") if not phases[p]]
    for event in episode.events:
        going_on = [s for s in said if s.phase in _AS_IF_OPEN]
        is_aware = any(s.is_error or s.look >= event.look for s in going_on)
        if event.kind == "escalated" and event.look < episode.end_look and not is_aware:
            found.lost.append(f"{name}: escalated")
    ends = [s.order for s in said if s.phase == "end"]
    for saying in said:
        late = saying.look >= episode.end_look or any(o < saying.order for o in ends)
        if saying.phase in _AS_IF_OPEN and late:
            found.as_if_open.append(f"{name}: {saying.phase} at look {saying.look}")
    if len({s.thread for s in said}) > 1:
        found.out_of_order.append(f"{name}: in several threads")


def _is_stale(message: Message) -> bool:
    """Whether a first message says that what is over goes on; a summary is one moment's."""
    is_head = not message.thread_ts and not _MISSED.search(_text(message))
    if _OUTAGE in message.text:
        return False
    return is_head and "attachments" in message.body and _CLOSED not in _strings(message.shown)


def _text(message: Message) -> str:
    return _strings(message.body)


def _strings(body: Mapping[str, object]) -> str:
    attached = json.dumps(body.get("attachments") or [], ensure_ascii=False)
    return f"{body['text']}\n{attached}".replace("\\n", "\n")
