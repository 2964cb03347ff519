"""The digest: once a day or week every model in a line, what changed, what nobody looked at.

A digest is one message per place, whatever the number of models that it is about. Its idempotency
key is made of the place and the period, so any number of dispatchers write it once.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from typing import Literal, get_args
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.routing import Destination, default_destinations, fallback_of
from mlmon_dagster.alerts.messages.message import Item, Message, Mood, name_group, outbox_row
from mlmon_dagster.alerts.messages.view import AlertView, view_of, worst_first
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.alerting import DigestPolicy, Weekday
from mlmon_dagster.spec.names import counted
from mlmon_dagster.store import Store, alert_state, outbox
from mlmon_dagster.store.alert_state import find_opening
from mlmon_dagster.store.outbox import outbox_health

Cadence = Literal["daily", "weekly"]
_DAYS: dict[Cadence, int] = {"daily": 1, "weekly": 7}
_WEEKDAYS = get_args(Weekday)
_MAX_NAMED = 12
Describe = Callable[[Store, ModelSpec, dt.datetime, dt.datetime], str]


def say_nothing(*_: object) -> str:
    """Say nothing of what a period brought."""
    return ""


def write_digests(
    store: Store, specs: Sequence[ModelSpec], now: dt.datetime, describe: Describe = say_nothing
) -> int:
    """Write the digests that are due and not written yet; return how many.

    Args:
        store: Where the state database is.
        specs: The models.
        now: The time that decides which period has ended; missed periods are not made up for.
        describe: Says what happened to a model in a period, and what that was worth.
    """
    due: dict[tuple[Destination, Cadence, dt.datetime], list[ModelSpec]] = {}
    for spec in specs:
        cadence = spec.alerts.digest.every
        if cadence != "off":
            end = period_end(spec.alerts.digest, cadence, spec.time.zone, now)
            for place in default_destinations(spec):
                due.setdefault((place, cadence, end), []).append(spec)
    written = [
        _write_digest(store, place, cadence, end, models, describe)
        for (place, cadence, end), models in sorted(due.items(), key=lambda item: item[0])
    ]
    return sum(written)


def period_end(policy: DigestPolicy, cadence: Cadence, zone: str, now: dt.datetime) -> dt.datetime:
    """Return the last moment at which a digest was due, at or before now."""
    local = now.astimezone(ZoneInfo(zone))
    day = local.date()
    if cadence == "weekly":
        day -= dt.timedelta(days=(day.weekday() - _WEEKDAYS.index(policy.weekday)) % 7)
    due = dt.datetime.combine(day, dt.time(policy.hour), ZoneInfo(zone))
    if due > local:
        due = dt.datetime.combine(
            day - dt.timedelta(days=_DAYS[cadence]), dt.time(policy.hour), ZoneInfo(zone)
        )
    return due.astimezone(dt.UTC)


def _write_digest(
    store: Store,
    place: Destination,
    cadence: Cadence,
    end: dt.datetime,
    specs: list[ModelSpec],
    describe: Describe,
) -> int:
    key = hashlib.sha256("|".join((*place, cadence, end.isoformat())).encode()).hexdigest()
    with store.state.connect() as conn:
        if outbox.get_message(conn, key) is not None:
            return 0
    text = compose_digest(store, specs, cadence, end, describe)
    group = name_group(place, "digest", cadence)
    fallback = fallback_of(specs[0], place)
    row = outbox_row(group, key, "digest", text, head_key="", now=end, fallback=fallback)
    with store.state.begin() as conn:
        return outbox.enqueue(conn, [row])


def compose_digest(
    store: Store,
    specs: Sequence[ModelSpec],
    cadence: Cadence,
    end: dt.datetime,
    describe: Describe = say_nothing,
) -> Message:
    """Say how some models fared in the day or week before a moment.

    Args:
        store: Where the state database is.
        specs: The models; not empty.
        cadence: How long the period is.
        end: Where it ends.
        describe: See `write_digests`.
    """
    start = end - dt.timedelta(days=_DAYS[cadence])
    with store.state.connect() as conn:
        active, silenced = _load_active(conn, specs)
        changes = {spec.model: _count_changes(conn, spec, start, end) for spec in specs}
    opened, resolved = (sum(n[i] for n in changes.values()) for i in (0, 1))
    recovering = sum(view.row["state"] == "RECOVERING" for view in active)
    counts = [f"{len(active) - recovering} firing"]
    counts += [f"{recovering} recovering"] if recovering else []
    counts += [f"{opened} opened", f"{resolved} resolved"]
    counts += [f"{silenced} silenced"] if silenced else []
    ill = {model: [v for v in active if v.row["model"] == model] for model in _name_models(active)}
    said = {spec.model: describe(store, spec, start, end) for spec in specs}
    well = [m for m in said if m not in ill and (said[m] or any(changes[m]))]
    quiet = sorted(m for m in said if m not in ill and m not in well)
    items = [_list_ill(ill[m], changes[m], said[m]) for m in ill]
    items += [Item(f"{m}: nothing fires", _join(_name_changes(changes[m]), said[m])) for m in well]
    zone = ZoneInfo(specs[0].time.zone)
    rest = [*ill, *well][_MAX_NAMED:]
    return Message(
        title=f"{cadence.capitalize()} digest: {', '.join(counts)}",
        mood=_choose_mood(active),
        items=tuple(items[:_MAX_NAMED]),
        more=f"and {len(rest)} more: {_join_names(rest)}" if rest else "",
        notes=(
            *([("Quiet", _name_quiet(quiet, len(specs)))] if quiet else []),
            *_name_unseen(active),
            ("Delivery", _describe_delivery(store)),
            (
                "Period",
                f"{start.astimezone(zone):%Y-%m-%d %H:%M} to "
                f"{end.astimezone(zone):%Y-%m-%d %H:%M %Z}",
            ),
        ),
        commands=("mlmon alerts list --firing",),
    )


def _choose_mood(active: Sequence[AlertView]) -> Mood:
    if not active:
        return "OK"
    return "ERROR" if any(view.row["severity"] == "ERROR" for view in active) else "WARN"


def _name_models(views: Sequence[AlertView]) -> list[str]:
    """Return the models of alerts, in the order of the alerts."""
    return list(dict.fromkeys(view.row["model"] for view in views))


def _list_ill(views: Sequence[AlertView], changes: tuple[int, int], said: str) -> Item:
    """Say in one line how a model with open alerts is: the worst of them, and what changed."""
    first = views[0]
    more = f" (and {len(views) - 1} more)" if len(views) > 1 else ""
    recovering = ", recovering" if first.row["state"] == "RECOVERING" else ""
    since = f"since {first.since}{recovering}"
    text = f"{first.row['model']}: {first.headline}{more}"
    return Item(text, _join(since, _name_changes(changes), said))


def _name_changes(changes: tuple[int, int]) -> str:
    opened, resolved = changes
    told = [f"{opened} opened"] if opened else []
    return ", ".join([*told, f"{resolved} resolved"] if resolved else told)


def _join(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


def _name_unseen(active: Sequence[AlertView]) -> list[tuple[str, str]]:
    """Say which alerts nobody has acknowledged, the oldest first."""
    unseen = [v for v in active if not v.row["acked_by"] and v.row["state"] == "FIRING"]
    if not unseen:
        return []
    oldest = min(unseen, key=lambda view: find_opening(view.row))
    about = f"of {_join_names(_name_models(unseen))}, the oldest since {oldest.since}"
    return [("Nobody has acknowledged", f"{counted(len(unseen), 'alert')} {about}")]


def _load_active(conn: sa.Connection, specs: Sequence[ModelSpec]) -> tuple[list[AlertView], int]:
    """Return the open alerts that are told, the worst first, and how many are silenced."""
    views, n_silenced = [], 0
    for spec in specs:
        for row in alert_state.load_alerts(conn, spec.model, states=alert_state.ACTIVE).values():
            if row["muted_reason"].startswith("silence:"):
                n_silenced += 1
            elif not row["muted_reason"]:
                views.append(view_of(row, spec.time.zone))
    return worst_first(views), n_silenced


def _count_changes(
    conn: sa.Connection, spec: ModelSpec, start: dt.datetime, end: dt.datetime
) -> tuple[int, int]:
    """Count what opened and what was resolved in a period, history of backfills left out."""
    kinds = [
        event["kind"]
        for events in alert_state.all_events(conn, spec.model).values()
        for event in events
        if start < event["created_at"] <= end and event["muted_reason"] != "backfill"
    ]
    return kinds.count("opened"), kinds.count("resolved")


def _describe_delivery(store: Store) -> str:
    health = outbox_health(store.state)
    if not health.n_dead and not health.n_waiting:
        return "every message was delivered"
    said = f"{health.n_waiting} waiting, {health.n_dead} refused for good"
    return f"{said}: {health.last_error}" if health.last_error else said


def _name_quiet(names: Sequence[str], n: int) -> str:
    models = f"of {n} model{'s' if n > 1 else ''}"
    return f"{len(names)} {models}: {_join_names(names)}" if names else f"none {models}"


def _join_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
