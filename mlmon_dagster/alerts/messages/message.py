"""What a message says, and how that is Slack's Block Kit or plain text."""

from __future__ import annotations

import shlex
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Literal

from mlmon_dagster.alerts.messages.slack_text import clean, cut, escape, link, mention, safe
from mlmon_dagster.alerts.messages.view import (
    AlertView,
    Links,
    commands_of,
    links_of,
    number,
    worst_first,
)
from mlmon_dagster.monitors.wording import beyond_headline, headline
from mlmon_dagster.spec.model import ModelSpec

Mood = Literal["ERROR", "WARN", "OK"]
MAX_LISTED = 6
MAX_NAMED, MAX_OVER = 20, 12  # what is over is told nowhere else
# Characters that are shown of a sentence, its numbers, what is left out, and the list of all three.
MAX_SENTENCE, MAX_NOTE, MAX_MORE, MAX_LIST = 300, 500, 1000, 2400
OVER = "Opened and resolved"  # before anybody was told
LATE = ("Told late", "it was over before this message could be sent")
EVENT_TYPE = "mlmon_alert"
COLOURS = {"ERROR": "#d1242f", "WARN": "#bf8700", "OK": "#1a7f37"}
_EMOJI = {"ERROR": ":red_circle:", "WARN": ":large_yellow_circle:", "OK": ":white_check_mark:"}
_PLAIN = {"ERROR": "ERROR", "WARN": "WARN ", "OK": "OK   "}
# Room of the parts; JSON may double them, and Slack refuses more than about 13,000 together.
_ROOM_NOTES, _ROOM_LINKS, _ROOM_COMMAND = 1000, 800, 500


@dataclass(frozen=True)
class Item:
    """One alert in a message: the sentence, and its numbers below."""

    sentence: str
    numbers: str = ""


@dataclass(frozen=True)
class Message:
    """A message in the order in which it is read; all text is raw, as it came from data.

    Attributes:
        title: What is wrong, in one sentence.
        mood: Sets the colour.
        items: The alerts.
        more: What was left out, such as ``and 7 more: ...``.
        notes: Label and text of the lines after that: why, what is not sent, owner.
        mentions: Who is notified, as the spec says.
        links: Label and address.
        commands: Shell commands that show more: the numbers, and the rows.
    """

    title: str
    mood: Mood
    items: tuple[Item, ...] = ()
    more: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    mentions: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """What one message says of some alerts.

    Attributes:
        items: A sentence each.
        more: The names of the others.
        left: Those that there is no room for.
    """

    items: tuple[Item, ...]
    more: str
    left: tuple[AlertView, ...]


@dataclass(frozen=True)
class Changes:
    """What happened to a group since its last message."""

    opened: Sequence[AlertView] = ()
    escalated: Sequence[AlertView] = ()
    revised: Sequence[AlertView] = ()
    resolved: Sequence[AlertView] = ()
    missed: Sequence[AlertView] = ()

    @property
    def labelled(self) -> list[tuple[str, Sequence[AlertView]]]:
        """The kinds of change that there are, with their label."""
        every = (
            ("New", self.opened),
            ("Worse", self.escalated),
            ("Revised after late data", self.revised),
            ("Resolved", self.resolved),
            (OVER, self.missed),
        )
        return [(label, views) for label, views in every if views]

    def in_parts(self) -> list[Changes]:
        """Spread them over as many messages as it takes to name all that is over, oldest first."""
        if not _change_listing(self).left:
            return [self]
        parts, past = list[Changes](), Changes(resolved=self.resolved, missed=self.missed)
        while past.labelled:
            left = {id(view) for view in _change_listing(past).left}
            later = [[v for v in group if id(v) in left] for group in (past.resolved, past.missed)]
            now = [
                [v for v in group if id(v) not in left] for group in (past.resolved, past.missed)
            ]
            parts.append(Changes(resolved=now[0], missed=now[1]))
            past = Changes(resolved=later[0], missed=later[1])
        present = replace(self, resolved=(), missed=())
        return [*parts, present] if present.labelled else parts


@dataclass(frozen=True)
class Context:
    """What a message needs to know beside the alerts.

    Attributes:
        spec: The model.
        links: Addresses shown for an alert.
        mention_of: Who is notified of an alert at the place the message goes to; empty for nobody.
        n_suppressed: How many alerts each schema or freshness monitor keeps from being sent.
    """

    spec: ModelSpec
    links: Links = field(default=lambda _view: ())
    mention_of: Callable[[AlertView], str] = field(default=lambda _view: "")
    n_suppressed: Mapping[str, int] = field(default_factory=dict)


def head_message(context: Context, firing: Sequence[AlertView]) -> Message:
    """Say what is wrong now: the message that opens a thread, and its later updates.

    Args:
        context: The model.
        firing: Alerts of one family that fire; not empty.
    """
    views = worst_first(firing)
    said = listing(views, [Item(f"{v.headline}.", v.statistics) for v in views])
    return Message(
        title=_title(context, views),
        mood="ERROR" if any(v.row["severity"] == "ERROR" for v in views) else "WARN",
        items=said.items if len(views) > 1 else _beyond_title(views[0]),
        more=said.more,
        notes=_notes(context, views),
        mentions=_mentions(context, views),
        links=links_of(context.links, views),
        commands=commands_of(views),
    )


def closed_message(context: Context, resolved: Sequence[AlertView]) -> Message:
    """Say that everything in a thread has ended: the last update of its head."""
    views = worst_first(resolved)
    said = listing(views, [_was(v) for v in views])
    return Message(
        title=f"{context.spec.model}: resolved, {_back(views)}",
        mood="OK",
        items=said.items,
        more=said.more,
        notes=(("Owner", _owners(context, views)),),
        links=links_of(context.links, views),
    )


def change_message(
    context: Context, changes: Changes, firing: Sequence[AlertView], *, mention: bool
) -> Message:
    """Say what has changed: a reply in the thread.

    Args:
        context: The model.
        changes: At least one change.
        firing: What still fires after it.
        mention: Whether the change is worth notifying the people declared.
    """
    views = [view for _, group in changes.labelled for view in group]
    said = _change_listing(changes)
    counts = [f"{len(group)} {label.lower()}" for label, group in changes.labelled]
    if len(views) == 1:
        counts = [f"{counts[0]}: {_change_text(views[0], changes)}"]
    still = f"; {len(firing)} still firing" if firing else "; nothing else fires"
    return Message(
        title=f"{context.spec.model}: {', '.join(counts)}{still}",
        mood=head_message(context, firing).mood if firing else "OK",
        items=said.items,
        more=said.more,
        mentions=_mentions(context, views) if mention else (),
        links=links_of(context.links, views),
    )


def repeat_message(context: Context, firing: Sequence[AlertView]) -> Message:
    """Remind of what still fires."""
    head = head_message(context, firing)
    return replace(head, title=f"Still firing: {head.title}")


def missed_message(
    context: Context, over: Sequence[AlertView]
) -> tuple[Message, tuple[AlertView, ...]]:
    """Say that alerts opened and ended before anybody was told: nobody needs to come running.

    Args:
        context: The model.
        over: The episodes; not empty.

    Returns:
        The message, and the episodes that it has no room for: they are told in another one.
    """
    views = worst_first(over)
    said = listing(views, [_was(v) for v in views], MAX_OVER)
    told = f"{_count(len(views) - len(said.left))} {OVER.lower()}"
    if len(views) == 1:
        told = f"{OVER.lower()}: {views[0].headline}; {episode_text(views[0])}"
    text = Message(
        title=f"{context.spec.model}: {told}",
        mood="OK",
        items=said.items if len(views) > 1 else (),
        more=said.more,
        notes=(LATE, ("Owner", _owners(context, views))),
        links=links_of(context.links, views),
        commands=commands_of(views),
    )
    return text, said.left


def summary_message(context: Context, firing: Sequence[AlertView]) -> Message:
    """Say in one message what fires after a backfill, across families."""
    views = worst_first(firing)
    families = sorted({v.row["family"] for v in views})
    said = listing(views, [Item(f"{v.headline}.", v.statistics) for v in views])
    return Message(
        title=f"{context.spec.model}: {_count(len(views))} firing after the backfill "
        f"({', '.join(families)})",
        mood="ERROR" if any(v.row["severity"] == "ERROR" for v in views) else "WARN",
        items=said.items,
        more=said.more,
        notes=_notes(context, views),
        mentions=_mentions(context, views),
        links=links_of(context.links, views),
        commands=(f"mlmon alerts list --model {shlex.quote(context.spec.model)}",),
    )


def _title(context: Context, views: Sequence[AlertView]) -> str:
    rest = f" (and {len(views) - 1} more)" if len(views) > 1 else ""
    return f"{context.spec.model}: {views[0].headline}{rest}"


def _beyond_title(view: AlertView) -> tuple[Item, ...]:
    """Return what the title does not say of its only alert."""
    return (Item(view.statistics),) if view.statistics else ()


def _since(views: Sequence[AlertView]) -> str:
    return min(views, key=lambda v: str(v.row["opened_window"])).since


def _count(n: int) -> str:
    return "1 alert" if n == 1 else f"{n} alerts"


def listing(
    views: Sequence[AlertView],
    items: Sequence[Item],
    limit: int = MAX_LISTED,
    names: Sequence[str] = (),
) -> Listing:
    """Say as much of some alerts as surely is shown: nothing of it is cut off later.

    Args:
        views: What there is to say, the most important first; episodes of one alert may repeat.
        items: The sentence about each.
        limit: The most sentences.
        names: What to call each where there is no room for its sentence; by default the metric,
            column and slice.
    """
    for n_items in range(min(limit, len(views)), -1, -1):
        rest, kept = views[n_items:], items[:n_items]
        more, left = _and_more(rest, names[n_items:] or _names(rest))
        if sum(map(_width, kept)) + len(safe(more, MAX_MORE)) <= MAX_LIST:
            break
    return Listing(tuple(kept), more, left)


def _width(item: Item) -> int:
    numbers = safe(item.numbers, MAX_NOTE)
    return len(safe(item.sentence, MAX_SENTENCE)) + len(numbers) + 10  # bullet, indent, line ends


def _and_more(rest: Sequence[AlertView], names: Sequence[str]) -> tuple[str, tuple[AlertView, ...]]:
    """Name what has no sentence, each alert once, with the number of its episodes."""
    if not rest:
        return "", ()
    text, named, kept = "", set[str](), f"and {len(rest)} more: , …"
    for name, n in Counter(names).items():
        part = name if n == 1 else f"{name} ({n} times)"
        longer = f"{text}, {part}" if text else part
        if len(named) == MAX_NAMED or (text and len(safe(kept + longer, MAX_LIST)) > MAX_MORE):
            break
        text, named = longer, named | {name}
    left = tuple(view for view, name in zip(rest, names, strict=True) if name not in named)
    return f"and {len(rest)} more: {text}{', …' if left else ''}", left


def _names(views: Sequence[AlertView]) -> list[str]:
    """Call each alert by its name; the metric is said once where all have the same."""
    if len({view.row["metric"] for view in views}) > 1:
        return [view.name for view in views]
    return [view.name if view.name == views[0].name else view.part for view in views]


def _notes(context: Context, views: Sequence[AlertView]) -> tuple[tuple[str, str], ...]:
    # What explains each alert most comes first, so that none of them takes all the room.
    ranked = zip_longest(*(view.why for view in views[:MAX_LISTED]))
    why = list(dict.fromkeys(line for rank in ranked for line in rank if line))
    notes = [
        ("Since", _since(views)),
        ("Why", "; ".join(why[:4])),
        ("At once", _at_once(views)),
        ("Not sent", _not_sent(context, views)),
        ("Owner", _owners(context, views)),
    ]
    return tuple((label, text) for label, text in notes if text)


def _at_once(views: Sequence[AlertView]) -> str:
    """Say why an alert did not wait for the windows that its monitor usually waits for."""
    waived = dict.fromkeys(str(v.details["severe"]) for v in views if v.details.get("severe"))
    if not waived:
        return ""
    return f"one window so far past the limit needs no second (windows: {', '.join(waived)})"


def _not_sent(context: Context, views: Sequence[AlertView]) -> str:
    """Say what a broken window keeps silent, so that nobody takes silence for health."""
    causes = {v.row["monitor"] for v in views if v.details.get("breaks_window")}
    if not causes:
        return ""
    n = sum(context.n_suppressed.get(cause, 0) for cause in causes)
    counted = f" ({n} so far)" if n else ""
    return f"drift and performance alerts of this window, which this explains{counted}"


def _owners(context: Context, views: Sequence[AlertView]) -> str:
    declared = [v.row["owner"] for v in views if v.row["owner"]]
    return ", ".join(dict.fromkeys(declared or context.spec.owners))


def _mentions(context: Context, views: Sequence[AlertView]) -> tuple[str, ...]:
    names = [context.mention_of(view) for view in worst_first(views)]
    return tuple(dict.fromkeys(name for name in names if name))


def _change_listing(changes: Changes) -> Listing:
    views = [view for _, group in changes.labelled for view in group]
    items = [_change_item(label, v) for label, group in changes.labelled for v in group]
    return listing(views, items, MAX_OVER)


def _change_item(label: str, view: AlertView) -> Item:
    if label == "Resolved":
        return Item(f"Resolved: {view.name}{_now(view)}; was: {view.headline}.", episode_text(view))
    if label == OVER:
        return Item(f"{OVER}: {view.headline}.", episode_text(view))
    newest = view.details.get("newest_message") if label.startswith("Revised") else ""
    text = str(newest or view.sentence)
    return Item(f"{label}: {headline(text)}.", beyond_headline(text))


def _change_text(view: AlertView, changes: Changes) -> str:
    if changes.resolved:
        return f"{view.name}{_now(view)}"
    if changes.missed:
        return f"{view.headline}, {episode_text(view)}"
    newest = view.details.get("newest_message") if changes.revised else ""
    return headline(str(newest or view.sentence))


def _was(view: AlertView) -> Item:
    return Item(f"Was: {view.headline}.", episode_text(view))


def _back(views: Sequence[AlertView]) -> str:
    if len(views) == 1:
        return f"{views[0].name}{_now(views[0])}"
    return f"{_count(len(views))} back to normal"


def _now(view: AlertView) -> str:
    reason = view.row["resolved_reason"].replace("_", " ")
    if reason not in ("recovered", "revised"):
        return f" ({reason})" if reason else ""
    late = " after late data" if reason == "revised" else ""
    value = view.details.get("newest_value")
    return f" is {number(value)} again{late}" if value is not None else late


def episode_text(view: AlertView) -> str:
    """Say how long an episode lasts, or lasted."""
    last = view.row["last_window_start"]
    return f"from {view.since} to {view.moment(last)}" if last else f"since {view.since}"


def short_id(idempotency_key: str) -> str:
    """Return the visible mark by which a message is recognised in a channel."""
    return f"mlmon {idempotency_key[:12]}"


def slack_payload(message: Message, idempotency_key: str) -> dict[str, object]:
    """Render for chat.postMessage and chat.update, without the channel.

    Every text is escaped and within Slack's limits; the only mention is the declared one. The
    headline is the message's text, since mentions inside attachments notify nobody.

    Args:
        message: What to say.
        idempotency_key: Written into the metadata and, shortened, into the footer, so that a
            message can be found again in the channel's history.
    """
    headline = f"{_EMOJI[message.mood]} *{safe(message.title, MAX_SENTENCE)}*"
    if message.mentions:
        headline = f"{' '.join(mention(name) for name in message.mentions)} {headline}"
    return {
        "text": headline,
        "attachments": [
            {
                "color": COLOURS[message.mood],
                "fallback": safe(message.title, MAX_SENTENCE),
                "blocks": [*_sections(message), _context(short_id(idempotency_key))],
            }
        ],
        "metadata": {
            "event_type": EVENT_TYPE,
            "event_payload": {"idempotency_key": idempotency_key},
        },
        "client_msg_id": str(uuid.uuid5(uuid.NAMESPACE_OID, idempotency_key)),
    }


def short_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same message without blocks, for a server that refuses them."""
    key = payload["metadata"]["event_payload"]["idempotency_key"]
    short = {name: value for name, value in payload.items() if name != "attachments"}
    return {**short, "text": f"{payload['text']} ({short_id(key)})"}


def plain_text(message: Message) -> str:
    """Render for a terminal, a digest or a log; one alert a line, values cleaned."""
    lines = [f"{_PLAIN[message.mood]} {clean(message.title, MAX_SENTENCE)}"]
    for item in message.items:
        numbers = f"  [{clean(item.numbers, MAX_NOTE)}]" if item.numbers else ""
        lines.append(f"  - {clean(item.sentence, MAX_SENTENCE)}{numbers}")
    if message.more:
        lines.append(f"    {clean(message.more, MAX_MORE)}")
    for label, text in (*message.notes, *message.links):
        lines.append(f"  {clean(label) + ':':<14} {clean(text, MAX_NOTE)}")
    for place, command in enumerate(message.commands):
        lines.append(f"  {'' if place else 'More:':<14} {clean(command, MAX_NOTE)}")
    return "\n".join(lines)


def _sections(message: Message) -> list[dict[str, object]]:
    """Put the parts into sections; no part can take the room of another."""
    items = [_item(item) for item in message.items]
    if message.more:
        items.append(safe(message.more, MAX_MORE))
    notes = [f"*{safe(label)}:* {safe(text, MAX_NOTE)}" for label, text in message.notes]
    room = _ROOM_COMMAND // max(len(message.commands), 1)
    commands = [cut(escape(clean(command, MAX_NOTE)), room) for command in message.commands]
    parts = (
        cut("\n".join(items), MAX_LIST),
        cut("\n".join(notes), _ROOM_NOTES),
        _links(message),
        "\n".join(f"`{command}`" for command in commands if command),
    )
    return [{"type": "section", "text": _markdown(part)} for part in parts if part]


def _links(message: Message) -> str:
    """Join the links that fit; a link cut in two would be no link."""
    text = ""
    for label, address in message.links:
        longer = f"{text} · {link(address, label)}" if text else link(address, label)
        text = longer if len(longer) <= _ROOM_LINKS else text
    return text


def _item(item: Item) -> str:
    numbers = f"\n      {safe(item.numbers, MAX_NOTE)}" if item.numbers else ""
    return f"• {safe(item.sentence, MAX_SENTENCE)}{numbers}"


def _context(*texts: str) -> dict[str, object]:
    return {"type": "context", "elements": [_markdown(text) for text in texts]}


def _markdown(text: str) -> dict[str, object]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def declared_mentions(names: Sequence[str]) -> set[str]:
    """Return the markup that messages of these declared names may hold."""
    return {mention(name) for name in names if name}
