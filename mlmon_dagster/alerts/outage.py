"""While a channel is down, what nobody has seen becomes one summary, kept up to date.

Answers in threads that people have seen stay as they are and in order. Everything else that waits
for the channel is taken back; when it answers again, one message says what fires now and what
fired and ended meanwhile.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from mlmon_dagster.alerts.message import MAX_LISTED, Item, Message
from mlmon_dagster.alerts.outgoing import outbox_row
from mlmon_dagster.alerts.routing import Destination, destinations
from mlmon_dagster.alerts.view import AlertView, view_of, worst_first
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store, alert_state, outages, outbox, told_events
from mlmon_dagster.store.alert_state import Row
from mlmon_dagster.store.outages import OUTAGE

OUTAGE_AFTER = dt.timedelta(minutes=15)
FEW = 3  # up to so many messages are no storm
_MAX_ENDED = 200
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
    for receiver, channel in outages.channels_down(store.state, now - OUTAGE_AFTER):
        place = Destination(receiver, channel)
        models = outages.models_waiting(store.state, *place)
        locks = [f"alerts:{model}" for model in models]
        with alert_state.exclusive(store.state, *locks) as conn:
            n_written += _summarize(conn, place, declared, now)
    return n_written


def _summarize(
    conn: sa.Connection, place: Destination, declared: dict[str, ModelSpec], now: dt.datetime
) -> int:
    waiting = outages.unseen_threads(conn, *place)
    replies = outages.waiting_replies(conn, [row["idempotency_key"] for row in waiting])
    news = [row for row in waiting if row["kind"] != OUTAGE] + replies
    is_known = len(news) < len(waiting) + len(replies)
    if not news or (not is_known and len(news) <= FEW):
        return 0
    taken = [row for row in waiting if outbox.supersede_unsent_thread(conn, row["idempotency_key"])]
    heads = {row["idempotency_key"] for row in taken}
    ended = _ended([*taken, *(row for row in replies if row["head_key"] in heads)])
    groups = outages.groups_of_threads(conn, sorted(heads))
    firing = _firing(conn, groups, declared)
    since = min((row["created_at"] for row in taken), default=now)
    key = hashlib.sha256("|".join((*place, OUTAGE, *sorted(heads))).encode()).hexdigest()
    group = {
        "group_key": "|".join((*place, OUTAGE)),
        "receiver": place.receiver,
        "channel": place.channel,
    }
    text = _message(firing, ended, since, place, declared)
    told = [*taken, *(row for row in replies if row["head_key"] in heads)]
    tells = sorted({key for row in told for key in json.loads(row["payload"])["tells"]})
    row = outbox_row(group, key, OUTAGE, text, head_key="", now=since, tells=tells)
    payload = json.loads(row["payload"]) | {"ended": ended}
    outbox.enqueue(conn, [{**row, "payload": json.dumps(payload)}])
    for head_key in sorted(heads):
        told_events.hand_over(conn, head_key, key)
    for found in groups:
        alert_state.save_group(conn, {**found, "head_key": key})
    return 1


def _ended(rows: Iterable[Row]) -> list[str]:
    """Return in words what fired and ended unseen."""
    found: list[str] = []
    for row in rows:
        payload = json.loads(row["payload"])
        found += payload.get("ended", [])
        if row["kind"] == "resolved":
            event = payload["event"]
            found += [item["sentence"] for item in event["items"]] or [event["title"]]
    return found[:_MAX_ENDED]


def _firing(
    conn: sa.Connection, groups: Sequence[Row], declared: dict[str, ModelSpec]
) -> list[AlertView]:
    views = []
    for model in sorted({group["model"] for group in groups}):
        told = [key for g in groups if g["model"] == model for key in json.loads(g["firing"])]
        wanted = {key.split(":")[0] for key in told}
        rows = alert_state.load_alerts(conn, model, states=alert_state.ACTIVE)
        zone = declared[model].time.zone if model in declared else "UTC"
        views += [view_of(row, zone) for key, row in rows.items() if key in wanted]
    return worst_first(views)


def _message(
    firing: Sequence[AlertView],
    ended: Sequence[str],
    since: dt.datetime,
    place: Destination,
    declared: dict[str, ModelSpec],
) -> Message:
    models = sorted({view.row["model"] for view in firing})
    where = f" in {len(models)} model{'s' if len(models) > 1 else ''}" if models else ""
    rest = [f"{view.row['model']}: {view.name}" for view in firing[MAX_LISTED:]]
    notes = [
        ("Ended", f"{len(ended)} while nothing could be delivered: {'; '.join(ended[:4])}"),
        ("Silent since", f"{since:%Y-%m-%d %H:%M} UTC"),
    ]
    worst = "ERROR" if any(v.row["severity"] == "ERROR" for v in firing) else "WARN"
    return Message(
        title=f"{len(firing)} firing{where} after an outage; "
        f"{len(ended)} fired and ended while messages could not be delivered",
        mood="ERROR" if firing and worst == "ERROR" else "WARN" if firing else "OK",
        items=tuple(Item(f"{v.row['model']}: {v.sentence}") for v in firing[:MAX_LISTED]),
        more=f"and {len(rest)} more: {', '.join(rest[:20])}" if rest else "",
        notes=tuple(note for note in notes if ended or note[0] != "Ended"),
        mentions=_mentions(firing, place, declared),
        commands=("mlmon alerts list --firing",),
    )


def _mentions(
    firing: Sequence[AlertView], place: Destination, declared: dict[str, ModelSpec]
) -> tuple[str, ...]:
    found = [
        destinations(declared[view.row["model"]], view.row).get(place, "")
        for view in firing
        if view.row["model"] in declared
    ]
    return tuple(dict.fromkeys(name for name in found if name))[:_MAX_MENTIONS]
