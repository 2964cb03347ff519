"""Compare what a channel's readers saw with what they had to be told."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.alerts.fake_slack import Message
from tests.chaos.verdicts import Event, Kind

_MARK = re.compile(r"m\d\d/c\d/day \d+/(?:WARN|ERROR)")
_LABELS: dict[str, Kind] = {"New": "opened", "Worse": "escalated", "Resolved": "resolved"}
_LABEL = re.compile(r"(New|Worse|Resolved): ")
_MISSED = "fired and recovered"
_OVER = "resolved, "


@dataclass(frozen=True)
class Finding:
    """How far the messages are from what was expected.

    Attributes:
        n_expected: Events that people had to be told.
        n_messages: Messages that are in the channels at the end, updates not counted.
        lost: Events that nobody was told.
        duplicated: Messages that are there twice, and events told twice.
        out_of_order: Messages after a later one of their model, or in the wrong thread.
        stale: First messages of ended threads that do not say so.
        n_taken_back: Second copies that were deleted again.
        n_missed: Events told by one message after they were over.
    """

    n_expected: int
    n_messages: int
    lost: list[Event]
    duplicated: list[str]
    out_of_order: list[str]
    stale: list[str]
    n_taken_back: int
    n_missed: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled, out of order or left standing."""
        return not (self.lost or self.duplicated or self.out_of_order or self.stale)


def judge(
    events: Sequence[Event], accepted: Sequence[Message], shown: Sequence[Message]
) -> Finding:
    """Read the messages as people do.

    Args:
        events: What had to be told.
        accepted: Every post the server took, in that order.
        shown: Those that are in the channels at the end.
    """
    direct: Counter[tuple[Kind, str]] = Counter()
    missed = [message for message in shown if _MISSED in _text(message)]
    for message in shown:
        if message not in missed:
            direct.update(_told(message))
    lost, doubled, n_missed = [], [], 0
    for event in events:
        n = direct[event.kind, event.mark]
        n_summed = sum(bool(set(_marks(m)) & set(event.episode)) for m in missed)
        if n + n_summed > 1:
            doubled.append(f"{event.kind} {event.mark}")
        elif n == 0 and (n_summed or any(_names(m, event) for m in missed)):
            n_missed += 1
        elif n == 0:
            lost.append(event)
    doubled += [key for key, n in Counter(m.key for m in shown).items() if n > 1]
    return Finding(
        n_expected=len(events),
        n_messages=len(shown),
        lost=lost,
        duplicated=doubled,
        out_of_order=_disorder(events, shown),
        stale=[m.text for m in shown if _is_stale(m)],
        n_taken_back=len(accepted) - len(shown),
        n_missed=n_missed,
    )


def _told(message: Message) -> set[tuple[Kind, str]]:
    if not message.thread_ts and not _LABEL.search(_text(message)):
        return {("opened", mark) for mark in _marks(message)}
    told: set[tuple[Kind, str]] = set()
    for line in _text(message).splitlines():
        label, mark = _LABEL.search(line), _MARK.search(line)
        if label and mark:
            told.add((_LABELS[label[1]], mark[0]))
    return told


def _names(message: Message, event: Event) -> bool:
    """Tell whether a message that cannot list all names the event's column among the rest."""
    text = _text(message)
    rest = re.search(r"and \d+ more: (.*)", text)
    is_named = rest is not None and re.search(rf"\b{event.column}\b", rest[1]) is not None
    return is_named and f"{event.model}: " in text


def _disorder(events: Sequence[Event], shown: Sequence[Message]) -> list[str]:
    """Return the messages that tell of an earlier day than one before them, or out of thread."""
    day_of = {(event.kind, event.mark): event.day for event in events}
    wrong, newest, thread = [], dict[str, int](), dict[str, str]()
    for message in sorted(shown, key=lambda m: m.ts.split(".")[1]):
        told = _told(message)
        if _MISSED in _text(message):
            told = {(kind, mark) for mark in _marks(message) for kind in _LABELS.values()}
        days = [day_of[found] for found in told if found in day_of]
        if not days:
            continue
        model = next(iter(told))[1].split("/")[0]
        if max(days) < newest.get(model, 0):
            wrong.append(message.text)
        newest[model] = max(*days, newest.get(model, 0))
        if not message.thread_ts:
            thread[model] = message.ts
        elif message.thread_ts != thread.get(model):
            wrong.append(message.text)
    return wrong


def _is_stale(message: Message) -> bool:
    is_thread = not message.thread_ts and _MISSED not in _text(message)
    return is_thread and bool(message.updates or _is_head(message)) and _OVER not in _now(message)


def _is_head(message: Message) -> bool:
    return "updates" in vars(message) and "attachments" in message.body


def _marks(message: Message) -> list[str]:
    return _MARK.findall(_text(message))


def _text(message: Message) -> str:
    return _strings(message.body)


def _now(message: Message) -> str:
    return _strings(message.shown)


def _strings(body: dict[str, object]) -> str:
    attached = json.dumps(body.get("attachments") or [], ensure_ascii=False)
    return f"{body['text']}\n{attached}".replace("\\n", "\n")
