"""While a channel is down, what nobody has seen becomes one summary, kept up to date.

Answers in threads that people have seen stay as they are and in order. Everything else that waits
for the channel is taken back; when it answers again, one message says what fires now and what
fired and ended meanwhile. What that has no room for comes in a next one: what counts as told is
named.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Sequence

import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.routing import Destination, stand_in
from mlmon_dagster.alerts.messages.group_state import (
    GroupState,
    dump,
    episode_of,
    load,
    place_of,
    split,
    told_of,
)
from mlmon_dagster.alerts.messages.message import Item, Message, Mood, name_group, outbox_row
from mlmon_dagster.alerts.messages.view import (
    MAX_OVER,
    OVER,
    AlertView,
    Context,
    Listing,
    episode_text,
    listing,
    worst_first,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.alerting import AlertPolicy
from mlmon_dagster.store import Store, alert_state, outbox
from mlmon_dagster.store.alert_state import GroupRow
from mlmon_dagster.store.outbox import OUTAGE, OutboxRow

OUTAGE_AFTER = dt.timedelta(minutes=15)
FEW = 3  # up to so many messages are no storm
_MAX_MENTIONS = 5


def summarize_outages(store: Store, specs: Sequence[ModelSpec], now: dt.datetime) -> int:
    """Put what waits for a channel that is down into one message each; return how many.

    Args:
        store: Where the state database is.
        specs: The models, for time zones and mentions.
        now: The time of the flush.
    """
    declared = {spec.model: spec for spec in specs}
    n_written = 0
    nobody = None if specs else AlertPolicy()
    for receiver, channel in outbox.channels_down(store.state, now - OUTAGE_AFTER, now):
        place = Destination(receiver, channel)
        with store.state.connect() as conn:
            models = _find_models(conn, place)
        locks = [f"alerts:{model}" for model in models]
        contexts = [
            Context(declared.get(model) or stand_in(model, specs, nobody)) for model in models
        ]
        with alert_state.exclusive(store.state, *locks) as conn:
            if _find_models(conn, place) == models:  # else the next flush sees to it
                n_written += _summarize(conn, place, contexts, now)
    return n_written


def _find_models(conn: sa.Connection, place: Destination) -> list[str]:
    """Return the models that what waits is about; copies for a fallback are of any model."""
    waiting = outbox.unseen_threads(conn, *place)
    rows = waiting + outbox.waiting_replies(conn, [row["idempotency_key"] for row in waiting])
    told = alert_state.models_of(conn, {split(key)[0] for key in _collect_tells(rows)})
    return sorted({*told, *outbox.models_waiting(conn, *place)})


def _collect_tells(rows: Sequence[OutboxRow]) -> set[str]:
    return {key for row in rows for key in json.loads(row["payload"])["tells"]}


def _summarize(
    conn: sa.Connection, place: Destination, contexts: Sequence[Context], now: dt.datetime
) -> int:
    waiting = outbox.unseen_threads(conn, *place)
    replies = outbox.waiting_replies(conn, [row["idempotency_key"] for row in waiting])
    news = [row for row in waiting if row["kind"] != OUTAGE] + replies
    is_known = len(news) < len(waiting) + len(replies)
    if not news or (not is_known and len(news) <= FEW):
        return 0
    taken = [row for row in waiting if outbox.supersede_unsent_thread(conn, row["idempotency_key"])]
    heads = {row["idempotency_key"] for row in taken}
    taken += [row for row in replies if row["head_key"] in heads]
    tells = _collect_tells(taken)
    also = {split(key)[0] for key in tells}
    states = [load(conn, context, now, also=also) for context in contexts]
    firing = {key for state in states for key in tells if state.is_active(key)}
    views = [view for state in states for view in state.episodes(tells)]
    routes = {f: places for state in states for f, places in state.routes.items()}
    mentions = {key: routes.get(split(key)[0], {}).get(place, "") for key in firing}
    parts = _spread_news(
        worst_first(view for view in views if view.episode in firing),
        worst_first(view for view in views if view.episode not in firing),
    )
    since = min((row["created_at"] for row in taken), default=now)
    group = name_group(place, OUTAGE)
    withdrawn = [row["idempotency_key"] for row in taken]
    told: dict[str, str] = {}
    for number, (part, listed) in enumerate(parts):
        text = _write_summary(
            part, firing, listed, since, mentions, f"{number + 1} of {len(parts)}"
        )
        named = "|".join((*place, OUTAGE, *sorted(heads), str(number)))
        key = hashlib.sha256(named.encode()).hexdigest()
        episodes = sorted(view.episode for view in part)
        row = outbox_row(
            group, key, OUTAGE, text, head_key="", now=since, tells=episodes, handles=()
        )  # of many models, so never edited
        outbox.enqueue(conn, [row])
        alert_state.retell(conn, map(split, episodes), withdrawn, key)
        over = [split(episode) for episode in episodes if episode not in firing]
        alert_state.mark_told(conn, over, key)  # also an end that was still to be told
        told |= dict.fromkeys(episodes, key)
    for state in states:
        _note_told(state, place, heads, firing, told)
    return len(parts)


def _note_told(
    state: GroupState, place: Destination, heads: set[str], firing: set[str], told: dict[str, str]
) -> None:
    """Write into the notification logs that the summaries are the threads now."""
    for group in state.groups.values():
        if place_of(group) != place:
            continue
        still = {
            k for k in json.loads(group["firing"]) if episode_of(k) not in told.keys() - firing
        }
        head = group["head_key"]
        if head in heads:
            threads = [told[episode_of(k)] for k in sorted(still) if episode_of(k) in told]
            head = next(iter(threads or told.values()), "")
        owed = dump(told_of(group).owed - told.keys())
        changed: GroupRow = {**group, "firing": dump(still), "owed": owed, "head_key": head}
        if changed != group:
            alert_state.save_group(state.conn, changed)


def _spread_news(
    firing: Sequence[AlertView], over: Sequence[AlertView]
) -> list[tuple[list[AlertView], Listing]]:
    """Spread what there is to say over messages that name all of it: what fires comes first."""
    left, parts = [*firing, *over], list[tuple[list[AlertView], Listing]]()
    n_firing = len(firing)
    items = {v.episode: Item(f"Firing: {v.row['model']}: {v.headline}") for v in firing}
    items |= {
        v.episode: Item(f"{OVER}: {v.row['model']}: {v.headline}", episode_text(v)) for v in over
    }
    names = {v.episode: f"{v.row['model']}: {v.name}" for v in left}
    names |= {v.episode: f"{names[v.episode]} (firing)" for v in left[:n_firing]}
    while left:
        listed = listing(
            left, [items[v.episode] for v in left], MAX_OVER, [names[v.episode] for v in left]
        )
        untold = {view.episode for view in listed.left}
        parts.append(([view for view in left if view.episode not in untold], listed))
        left = list(listed.left)
    return parts


def _write_summary(
    views: Sequence[AlertView],
    firing: set[str],
    listed: Listing,
    since: dt.datetime,
    mentions: dict[str, str],
    part: str,
) -> Message:
    fires = [view for view in views if view.episode in firing]
    models = {view.row["model"] for view in fires}
    where = f" in {len(models)} model{'s' if len(models) > 1 else ''}" if models else ""
    worst: Mood = "ERROR" if any(v.row["severity"] == "ERROR" for v in fires) else "WARN"
    names = [mentions[view.episode] for view in fires]
    return Message(
        title=f"{len(fires)} firing{where} after an outage; {len(views) - len(fires)} "
        "fired and ended while messages could not be delivered"
        + (f" ({part})" if part != "1 of 1" else ""),
        mood=worst if fires else "OK",
        items=listed.items,
        more=listed.more,
        notes=(("Silent since", f"{since:%Y-%m-%d %H:%M} UTC"),),
        mentions=tuple(dict.fromkeys(name for name in names if name))[:_MAX_MENTIONS],
        commands=("mlmon alerts list --firing", "mlmon alerts ack ID"),
    )
