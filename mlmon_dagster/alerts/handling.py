"""What people do with alerts: find one, take it on, silence it, have it told again.

Messages that were refused for good are told again as things stand now. A refused message is frozen:
it says what was true when it was written. Sent later it would call people to what is long over,
perhaps after the message that says so. So what it told is said anew: what still fires as firing,
what is over as over.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from glob import escape

import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.apply_results import end_all, write_event
from mlmon_dagster.alerts.lifecycle.routing import Destination, matcher, stand_in
from mlmon_dagster.alerts.messages import view as say
from mlmon_dagster.alerts.messages.group_state import (
    GroupState,
    dump,
    episode_of,
    episodes_of,
    load,
    split,
    told_of,
)
from mlmon_dagster.alerts.messages.incidents import flush_groups
from mlmon_dagster.alerts.messages.message import FALLBACK, Message, clean, outbox_row, row_key
from mlmon_dagster.alerts.messages.view import Changes, Context, view_of
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.known_events import LONGEST, MAX_NAME, KnownEvent
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store import Store, alert_state, outbox
from mlmon_dagster.store.alert_state import SHORT_ID, AlertRow, GroupRow, find_opening
from mlmon_dagster.store.known_events import add_event
from mlmon_dagster.store.outbox import OutboxRow
from mlmon_dagster.store.state.schema import alert_group

LONGEST_SILENCE = dt.timedelta(days=366)
_REMINDERS = ("repeated", "acknowledged")


def find_alert(store: Store, short_id: str) -> AlertRow:
    """Return the alert whose id begins with some characters.

    Raises:
        ConfigError: If there is none, or more than one.
    """
    with store.state.connect() as conn:
        rows = alert_state.all_alerts(conn, None)
    found = [row for key, row in rows.items() if short_id and key.startswith(short_id.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"No alert {short_id!r}. mlmon alerts list shows the ids.")
    listed = ", ".join(row["fingerprint"][: SHORT_ID + 4] for row in found[:5])
    raise ConfigError(f"{short_id!r} begins {len(found)} alerts: {listed}. Write more of it.")


def acknowledge(
    store: Store,
    short_id: str,
    author: str,
    now: dt.datetime,
    comment: str = "",
    *,
    once: bool = False,
) -> AlertRow | None:
    """Take an alert on: no reminders until it gets worse or ends. Its thread is told.

    Args:
        store: Where the state database is.
        short_id: The beginning of the alert's id.
        author: Who takes it on.
        now: When.
        comment: What they say.
        once: Do nothing where somebody has taken it on already.

    Returns:
        The alert; None if nothing was done.

    Raises:
        ConfigError: If there is no such alert, or it does not fire.
    """
    found = find_alert(store, short_id)
    model, fingerprint = found["model"], found["fingerprint"]
    with alert_state.exclusive(store.state, f"alerts:{model}") as conn:
        row = alert_state.load_alerts(conn, model, states=(), fingerprints=[fingerprint])[
            fingerprint
        ]
        if row["state"] not in alert_state.ACTIVE:
            raise ConfigError(
                f"Alert {short_id} is {row['state']}; only what fires is acknowledged."
            )
        if once and row["acked_by"]:
            return None
        row = {**row, "acked_by": author, "acked_at": now}
        said = f"{author}: {comment}" if comment else author
        alert_state.save_alerts(conn, [row])
        event = write_event(row, "acknowledged", row["last_window_start"], None, now)
        event |= {"data_version": now.isoformat(), "value": None, "message": said}
        alert_state.append_events(conn, [event])
        told_in = _tell_threads(conn, row, f"acknowledged by {said}", now)
        for group in told_in:  # the next flush has the first message say so
            alert_state.save_group(conn, {**group, "first_dirty_at": now})
    return row


def silence_alert(
    store: Store, short_id: str, author: str, now: dt.datetime, length: dt.timedelta, mark: str
) -> int | None:
    """Keep one alert from being sent for a while. Its thread is told.

    Args:
        store: Where the state database is.
        short_id: The beginning of the alert's id.
        author: Who wants that.
        now: When it begins.
        length: How long.
        mark: What tells this wish from others; the comment of the silence.

    Returns:
        The silence's id; None if there is one of this mark already.

    Raises:
        ConfigError: If there is no such alert.
    """
    row, ends = find_alert(store, short_id), now + length
    said: Mapping[str, object] = row
    labels = {
        name: escape(str(said[name]))
        for name in ("model", "monitor", "slice_key", "slice_value")
        if said[name] != ALL
    }
    wanted = matcher(labels)
    with alert_state.exclusive(store.state, f"alerts:{row['model']}") as conn:
        if any(
            (one["matcher"], one["author"], one["comment"]) == (wanted, author, mark)
            for one in alert_state.every_silence(conn)
        ):
            return None
        number = alert_state.add_silence(
            conn, matcher=wanted, author=author, comment=mark, starts_at=now, ends_at=ends
        )
        _tell_threads(conn, row, f"silenced until {ends:%Y-%m-%d %H:%M} UTC by {author}", now)
    return number


def note_event(
    store: Store,
    short_id: str,
    author: str,
    now: dt.datetime,
    length: dt.timedelta,
    name: str = "",
) -> KnownEvent | None:
    """Note that an alert is of an event that people know of. Its thread is told.

    From its next window on it is listed and not sent, and so is what its family finds in the days
    of the event: from the alert's first window on, for a while from now.

    Args:
        store: Where the state database is.
        short_id: The beginning of the alert's id.
        author: Who knows of it.
        now: When.
        length: How much longer it lasts.
        name: What to call it; by default it is named after who knows of it.

    Returns:
        The event; None if there is one of that name already.

    Raises:
        ConfigError: If there is no such alert, or it has no windows.
    """
    row = find_alert(store, short_id)
    if row["family"] not in FAMILIES:
        raise ConfigError(f"Alert {short_id} is of no window, so no event explains it.")
    last = max(now + length, find_opening(row)).date()
    shown = clean(name or f"known to {author}, {row['fingerprint'][:SHORT_ID]}", MAX_NAME)
    event = KnownEvent.model_validate(
        {
            "name": shown.replace("/", " ").replace("|", " "),
            "from": max(find_opening(row).date(), last - LONGEST),
            "to": last,
            "explains": [row["family"]],
        }
    )
    with alert_state.exclusive(store.state, f"alerts:{row['model']}") as conn:
        try:
            add_event(conn, row["model"], event, author, now)
        except ConfigError:  # the same click once more
            return None
        told = f"a known event until {event.to}, says {author}: {event.name}"
        _tell_threads(conn, row, told, now)
    return event


def count_open(store: Store, model: str) -> int:
    """Return how many alerts of a model fire or recover."""
    with store.state.connect() as conn:
        return len(alert_state.load_alerts(conn, model, states=alert_state.ACTIVE))


def end_alerts(
    store: Store, spec: ModelSpec, now: dt.datetime, reason: str = "model_removed"
) -> int:
    """End the open alerts of a model that is removed or rebuilt, and write that to people.

    Returns:
        How many ended.
    """
    model = spec.model
    with alert_state.exclusive(store.state, f"alerts:{model}") as conn:
        n = end_all(conn, model, reason, now)
        # The last word cannot wait for the group's interval: nobody flushes the group later.
        mine = alert_group.c.model == model
        conn.execute(sa.update(alert_group).where(mine).values(next_flush_at=None))
    flush_groups(store, [spec], now)
    return n


def _tell_threads(
    conn: sa.Connection, row: AlertRow, said: str, now: dt.datetime
) -> list[GroupRow]:
    """Answer in the threads in which an alert is told as firing; return their groups."""
    episode = f"{row['fingerprint']}:{row['episode']}"
    text = Message(
        title=f"{row['model']}: {said}",
        mood="ERROR" if row["severity"] == "ERROR" else "WARN",
        notes=(("Alert", view_of(row).sentence),),
    )
    groups = [
        group
        for group in alert_state.load_groups(conn, row["model"]).values()
        if group["head_key"] and episode in episodes_of(json.loads(group["firing"]))
    ]
    for group in groups:
        mark = "|".join((group["group_key"], said, f"{episode}:", now.isoformat()))
        key = hashlib.sha256(mark.encode()).hexdigest()
        head = group["head_key"]
        reply = outbox_row(
            group, key, "acknowledged", text, head_key=head, now=now, tells=[episode]
        )
        outbox.enqueue(conn, [reply])
    return groups


def requeue(
    store: Store, specs: Sequence[ModelSpec], now: dt.datetime, ids: Sequence[int] = ()
) -> tuple[int, int]:
    """Tell again what refused messages told, after the cause was mended.

    What waits in the same group goes with it, so that the order stays right. Digests and test
    messages are sent as they are; reminders of what is over are dropped.

    Args:
        store: Where the state database is.
        specs: The models.
        now: The time written beside the messages.
        ids: Only these messages; all that were refused if empty.

    Returns:
        How many refused messages were taken up, and how many messages wait in their place.

    Raises:
        ConfigError: If an id is not that of a refused message.
    """
    dead = [row for row in outbox.dead_letters(store.state) if not ids or row["id"] in ids]
    if ids and not dead:
        raise ConfigError("None of these was refused. See: mlmon alerts requeue")
    told = {f for row in dead for f in _read_alerts(row)}
    if told and not specs:
        raise ConfigError("No model loads, so nothing can be said of its alerts. mlmon validate")
    declared = {spec.model: spec for spec in specs}
    with store.state.connect() as conn:
        models = alert_state.models_of(conn, told)
    n_written = 0
    with alert_state.exclusive(store.state, *(f"alerts:{model}" for model in models)) as conn:
        states = [
            load(conn, Context(declared.get(model) or stand_in(model, specs)), now, also=told)
            for model in models
        ]
        active = {f for state in states for f, row in state.alerts.items() if _is_active(row)}
        news = [row for row in dead if _read_alerts(row) and row["kind"] not in _REMINDERS]
        over = [r for r in dead if r["kind"] in _REMINDERS and not _read_alerts(r) & active]
        settled = {row["id"] for row in [*news, *over]}
        for state in states:
            for place in sorted({_find_place(row) for row in news}):
                mine = [row for row in news if _find_place(row) == place]
                n_written += _tell_again(state, place, mine)
        outbox.supersede_dead(conn, sorted(settled))
        plain = sorted({row["id"] for row in dead} - settled)
        n_written += outbox.requeue_dead(conn, plain)
    return len(dead), n_written


def _is_active(row: AlertRow) -> bool:
    return row["state"] in alert_state.ACTIVE


def _read_alerts(row: OutboxRow) -> set[str]:
    """Return the fingerprints of the alerts that a message is about."""
    return {split(key)[0] for key in _read_tells(row)}


def _read_tells(row: OutboxRow) -> set[str]:
    return set(json.loads(row["payload"]).get("tells", ()))


def _find_place(row: OutboxRow) -> Destination:
    """Return where a message had to go first; a copy for the fallback is made again if need be."""
    if not row["group_key"].endswith(FALLBACK):
        return Destination(row["receiver"], row["channel"])
    first = str(row["group_key"]).split("|")
    return Destination(first[0], first[1])


def _tell_again(state: GroupState, place: Destination, dead: Sequence[OutboxRow]) -> int:
    """Say at a place what its refused messages told of a model; return in how many messages."""
    threads: dict[str, set[str]] = {}
    for view in state.episodes({key for row in dead for key in _read_tells(row)}):
        group = state.find_group(place, view)
        threads.setdefault(group["group_key"], set()).add(view.episode)
    return sum(_retell_group(state, state.groups[key], dead, its) for key, its in threads.items())


def _retell_group(
    state: GroupState, group: GroupRow, dead: Sequence[OutboxRow], keys: set[str]
) -> int:
    """Say anew what refused messages told of some episodes, with what waits behind them."""
    waiting = outbox.take_back(state.conn, group["group_key"])
    taken = [*dead, *waiting]
    keys |= {k for row in waiting for k in _read_tells(row) if split(k)[0] in state.alerts}
    firing = {key for key in keys if state.is_active(key)}
    over = keys - firing
    still = {k for k in json.loads(group["firing"]) if episode_of(k) not in over}
    group |= {
        "version": group["version"] + 1,
        "firing": dump(still),
        "owed": dump(told_of(group).owed - keys),
    }
    told = {key: set(its) for key, its in state.enqueue_over(group, "over", over).items()}
    if firing:
        told[_say_firing(state, group, firing)] = firing
    for key, episodes in told.items():
        withdrawn = [row["idempotency_key"] for row in taken]
        alert_state.retell(state.conn, map(split, episodes), withdrawn, key)
    alert_state.save_group(state.conn, group)
    return len(told)


def _say_firing(state: GroupState, group: GroupRow, episodes: set[str]) -> str:
    """Write in the thread if people can see that, else open one; return the message's key."""
    key, context = row_key(group, "firing"), state.context_of(group)
    head = outbox.get_message(state.conn, group["head_key"]) if group["head_key"] else None
    thread = group["head_key"] if head is not None and head["status"] == "sent" else ""
    views = state.episodes(episodes)
    if thread:
        changes = Changes(opened=views)
        text, kind = say.change_message(context, changes, views, views), "updated"
    else:
        text, kind = say.head_message(context, views), "opened"
        exact = {state.key(state.alerts[split(k)[0]]) for k in episodes}
        told = set(json.loads(group["firing"])) | exact
        group |= {"head_key": key, "firing": dump(told), "last_sent_at": state.now}
    state.enqueue(group, key, kind, text, head_key=thread, tells=episodes)
    return key
