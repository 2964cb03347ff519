"""Alerts in, messages in the outbox out: one thread per incident of a model and family.

The notification log (``alert_group``) says what a receiver was last told. It changes in the same
transaction that writes the message, whose idempotency key comes from the log's version: so two
flushes at once, or one that is killed, can neither lose a message nor write it twice.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Sequence
from typing import Any

from mlmon_dagster.alerts import message as say
from mlmon_dagster.alerts.backfill import summarize_backfill
from mlmon_dagster.alerts.group_state import (
    SUMMARY,
    GroupState,
    dump,
    episode_of,
    load,
    told_of,
)
from mlmon_dagster.alerts.links import Links
from mlmon_dagster.alerts.message import Changes, Context, Message
from mlmon_dagster.alerts.notify import Reason, Told, needs_update
from mlmon_dagster.alerts.outgoing import row_key
from mlmon_dagster.alerts.routing import Destination
from mlmon_dagster.alerts.silencing import silenced_by
from mlmon_dagster.alerts.view import AlertView
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store, alert_state, checkpoints, outages, outbox
from mlmon_dagster.store.alert_state import Row

_KINDS: dict[Reason, str] = {
    "first": "opened",
    "new_alerts": "updated",
    "some_resolved": "updated",
    "all_resolved": "resolved",
    "repeat": "repeated",
}


def flush_groups(
    store: Store,
    specs: Sequence[ModelSpec],
    now: dt.datetime,
    *,
    links: Links | None = None,
    backfilling: Collection[str] = (),
    with_plots: bool = False,
) -> int:
    """Write the messages that are due into the outbox.

    Args:
        store: Where the state database is.
        specs: The models; the groups of others are left alone.
        now: The time for repeats and silences.
        links: Addresses shown for an alert; none by default.
        backfilling: Models of which a backfill is known to run still. Without that, one has ended
            when no ended window waits for its metrics, or after half an hour without a result.
        with_plots: Whether messages get plots; the receivers must be able to draw them.

    Returns:
        How many messages were written, updates of heads not counted.
    """
    declared = {spec.model: spec for spec in specs}
    n_written = 0
    for model in alert_state.models_to_flush(store.state):
        if model not in declared:
            continue
        context = Context(declared[model], links) if links else Context(declared[model])
        with alert_state.exclusive(store.state, f"alerts:{model}") as conn:
            state = load(conn, context, now, with_plots=with_plots)
            n_written += summarize_backfill(state, is_running=model in backfilling)
            families = sorted({row["family"] for row in state.alerts.values()})
            n_written += sum(
                _flush_family(state, place, family)
                for place in state.destinations()
                for family in families
            )
            checkpoints.reached("flush.before_commit")
        checkpoints.reached("flush.committed")
    return n_written


def _flush_family(state: GroupState, place: Destination, family: str) -> int:
    group = state.group(place, family)
    told = told_of(group)
    active = state.active(place, family)
    audible = {key for key, row in active.items() if not row["muted_reason"]}
    episodes = {episode_of(key): key for key in active}
    # Muted after it was announced: neither told again nor taken for resolved.
    held = {k for k in told.firing if episode_of(k) in episodes} - audible
    held = {k for k in held if active[episodes[episode_of(k)]]["muted_reason"]}
    ended = {k for k in told.firing if episode_of(k) not in episodes}
    quiet = {k for k in ended if silenced_by(state.alerts[k.split(":")[0]], state.silences)}
    resolved = told.resolved | {episode_of(k) for k in ended - quiet}
    known = Told(told.firing - quiet, told.resolved, told.at)
    firing = frozenset(audible | held)
    policy = state.context.spec.alerts
    reason = needs_update(
        known if group["version"] else None, firing, resolved, now=state.now, repeat=policy.repeat
    )
    audible_rows = [active[key] for key in audible]
    if reason == "repeat" and not any(_reminds(state, row, place) for row in audible_rows):
        reason = None
    if reason is None and not quiet:
        return 0
    if reason == "first" and not _waited(audible_rows, state.now - policy.group_wait):
        return 0
    if _too_soon(state, group):
        return 0
    over = resolved | {episode_of(k) for k in quiet}
    group |= {"firing": dump(firing), "resolved": dump(over)}
    if reason is None:  # they ended under a silence: only the head says so
        group["version"] += 1
        _write_head(state, group)
        alert_state.save_group(state.conn, group)
        return 0
    _write(state, group, reason, told, audible, ended - quiet)
    return 1


def _reminds(state: GroupState, row: Row, place: Destination) -> bool:
    """Whether an alert is repeated: nobody has taken it on, and it still goes to this place."""
    return not row["acked_by"] and state.goes_to(row, place)


def _waited(rows: Sequence[Row], since: dt.datetime) -> bool:
    """Whether one of the alerts is old enough for the first message of a thread."""
    return any(row["opened_at"] is None or row["opened_at"] <= since for row in rows)


def _too_soon(state: GroupState, group: dict[str, Any]) -> bool:
    """Whether the last message is too recent; a clock that stands still is no reason."""
    last, due = group["last_sent_at"], group["next_flush_at"]
    if last is None or due is None or not last < state.now < due:
        return False
    if group["first_dirty_at"] is None:
        group["first_dirty_at"] = state.now
        alert_state.save_group(state.conn, group)
    return True


def _write(
    state: GroupState,
    group: dict[str, Any],
    reason: Reason,
    told: Told,
    audible: set[str],
    ended: set[str],
) -> None:
    group |= {
        "version": group["version"] + 1,
        "last_sent_at": state.now,
        "first_dirty_at": None,
        "next_flush_at": state.now + state.context.spec.alerts.group_interval,
    }
    key, context = row_key(group), state.context_of(group)
    if reason == "first":
        group |= {"head_key": key, "resolved": "[]"}
        views = state.views_of(audible)
        text = say.head_message(context, views)
        state.enqueue(group, key, _KINDS[reason], text, head_key="", pictured=views)
    elif reason == "all_resolved" and _withdraw(state, group):
        # The thread's answers go with it: all that fired in it is said here, whenever it ended.
        over = {episode_of(k) for k in told.firing} | told.resolved
        silent = {episode_of(k) for k in told.firing} - {episode_of(k) for k in ended}
        text = say.missed_message(context, state.episodes(over - silent))
        state.enqueue(group, key, _KINDS[reason], text, head_key="")
    else:
        text = _reply(state, context, reason, told, audible, ended)
        state.enqueue(
            group,
            key,
            _KINDS[reason],
            text,
            head_key=group["head_key"],
            pictured=_pictured(state, reason, told, audible, ended),
        )
        if reason != "repeat":
            _write_head(state, group)
    alert_state.save_group(state.conn, group)


def _reply(
    state: GroupState,
    context: Context,
    reason: Reason,
    told: Told,
    audible: set[str],
    ended: set[str],
) -> Message:
    if reason == "repeat":
        return say.repeat_message(context, state.views_of(audible))
    known = {episode_of(key) for key in told.firing}
    changed = {key for key in audible - told.firing if episode_of(key) in known}
    events = alert_state.last_events(
        state.conn, {k.split(":")[0]: int(k.split(":")[1]) for k in changed}
    )
    worse = {k for k in changed if events[k.split(":")[0]]["kind"] == "escalated"}
    changes = Changes(
        opened=state.views_of(key for key in audible if episode_of(key) not in known),
        escalated=state.views_of(worse),
        revised=state.views_of(changed - worse),
        resolved=state.views_of(ended),
    )
    mention = bool(changes.opened or changes.escalated)
    return say.change_message(context, changes, state.views_of(audible), mention=mention)


def _pictured(
    state: GroupState, reason: Reason, told: Told, audible: set[str], ended: set[str]
) -> Sequence[AlertView]:
    """Return the alerts that a reply is about, if a picture says more than the last one."""
    if reason == "all_resolved":
        return state.views_of(ended)
    return state.views_of(audible - told.firing) if reason == "new_alerts" else ()


def _withdraw(state: GroupState, group: dict[str, Any]) -> bool:
    """Withdraw a thread of this group alone that was never posted."""
    shared = [g for g in state.groups.values() if g["head_key"] == group["head_key"]]
    if outages.kind_of(state.conn, group["head_key"]) == outages.OUTAGE:
        return False
    return len(shared) == 1 and outbox.supersede_unsent_thread(state.conn, group["head_key"])


def _write_head(state: GroupState, group: dict[str, Any]) -> None:
    """Bring the first message of the thread up to date; a summary's thread has many groups."""
    head_key = group["head_key"]
    if not head_key or outages.kind_of(state.conn, head_key) == outages.OUTAGE:
        return  # a summary of many models is not one model's to change
    sharing = [g for g in state.groups.values() if g["head_key"] == head_key]
    firing = state.views_of(key for g in sharing for key in json.loads(g["firing"]))
    resolved = state.views_of(key for g in sharing for key in json.loads(g["resolved"]))
    context = state.context_of(group)
    if firing:
        is_summary = any(g["family"] == SUMMARY for g in sharing)
        render = say.summary_message if is_summary else say.head_message
        text = render(context, firing)
    else:
        text = say.closed_message(context, resolved)
    due = outbox.supersede_head_updates(state.conn, head_key)
    key = row_key(group, "head")
    state.enqueue(group, key, "head", text, head_key=head_key, next_at=due)
