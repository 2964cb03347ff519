"""Alerts in, messages in the outbox out: one thread per incident of a model and family.

The notification log (``alert_group``) says what a receiver was last told. It changes in the same
transaction that writes the message, whose idempotency key comes from the log's version: so two
flushes at once, or one that is killed, can neither lose a message nor write it twice. Nothing
unmuted goes untold, also when it is over; the end of a backfill is one message about everything
that it left firing.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from mlmon_dagster.alerts.lifecycle.routing import PLATFORM, Destination, destinations, silenced_by
from mlmon_dagster.alerts.messages import view as say
from mlmon_dagster.alerts.messages.group_state import (
    LATE,
    SUMMARY,
    GroupState,
    Reason,
    Told,
    distance,
    dump,
    episode_of,
    load,
    needs_update,
    split,
    told_of,
)
from mlmon_dagster.alerts.messages.message import Message, row_key
from mlmon_dagster.alerts.messages.view import AlertView, Changes, Context, Links
from mlmon_dagster.spec import ModelSpec, complete_windows
from mlmon_dagster.spec.baseline import GRAINS
from mlmon_dagster.store import Store, alert_state, outbox
from mlmon_dagster.store.alert_state import AlertRow, GroupRow
from mlmon_dagster.store.clocks import is_ahead, measure_age
from mlmon_dagster.store.state import writing

_KINDS: dict[Reason, str] = {
    "first": "opened",
    "new_alerts": "updated",
    "some_resolved": "updated",
    "all_resolved": "resolved",
    "missed": "resolved",
    "repeat": "repeated",
}
BACKFILL_QUIET = dt.timedelta(minutes=30)  # after which a backfill that left gaps has ended
GRACE = dt.timedelta(minutes=15)


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
            note_owed(state)
            n_written += summarize_backfill(state, is_running=model in backfilling)
            families = state.families()
            n_written += sum(
                _flush_family(state, place, family)
                for place in state.destinations()
                for family in families
            )
            writing.reached("flush.before_commit")
        writing.reached("flush.committed")
    return n_written


def _flush_family(state: GroupState, place: Destination, family: str) -> int:
    group = state.group(place, family)
    told, owed = told_of(group), set(json.loads(group["owed"]))
    active = state.active(place, family)
    audible = {k for k, row in active.items() if is_told(row, is_owed=episode_of(k) in owed)}
    episodes = {episode_of(key): key for key in active}
    # Muted after it was announced: neither told again nor taken for resolved.
    held = {k for k in told.firing if episode_of(k) in episodes} - audible
    held = {k for k in held if active[episodes[episode_of(k)]]["muted_reason"]}
    ended = {k for k in told.firing if episode_of(k) not in episodes}
    missed = {k for k in owed if not state.is_active(k)} - {episode_of(k) for k in ended}
    late = {k for k in missed if state.is_late(k)}
    over = {episode_of(k) for k in ended} | missed
    quiet = {k for k in over if silenced_by(state.alerts[k.split(":")[0]], state.silences)}
    ended_quietly, ended = _split(ended, quiet)
    missed -= quiet
    resolved = told.resolved | {episode_of(k) for k in ended}
    known = Told(told.firing - ended_quietly, told.resolved, told.at)
    firing = frozenset(audible | held)
    policy = state.context.spec.alerts
    length = GRAINS[state.context.spec.time.granularity]
    repeat = distance(group["n_reminders"], length, policy.repeat)
    reason = needs_update(known, firing, resolved, missed=missed, now=state.now, repeat=repeat)
    audible_rows = [active[key] for key in audible]
    reminding = [row for row in audible_rows if _reminds(state, row, place, told.at)]
    if reason == "repeat" and not reminding:
        reason = None
    if reason is None and not quiet:
        _write_stale_head(state, group)
        return 0
    if reason == "first" and not _waited(audible_rows, policy.group_wait, state.now):
        return 0
    if _too_soon(state, group):
        return 0
    mute_ended(state, quiet)
    silenced = {episode_of(k) for k in active.keys() - audible} & owed
    over = {episode_of(k) for k in ended_quietly}
    group |= {
        "firing": dump(firing),
        # Also what the thread tells as over: should nobody have seen it, all of it is said anew.
        "resolved": dump(resolved | over | (missed - late if told.firing else set())),
        "owed": dump(silenced),
    }
    if reason is None:  # they ended under a silence: only the head says so
        group["version"] += 1
        if ended_quietly:
            _write_head(state, group)
        alert_state.save_group(state.conn, group)
        return 0
    return _write(state, group, reason, News(told, audible, ended, missed))


def _split(keys: set[str], episodes: set[str]) -> tuple[set[str], set[str]]:
    """Split keys into those of some episodes and the others."""
    inside = {key for key in keys if episode_of(key) in episodes}
    return inside, keys - inside


def _reminds(
    state: GroupState, row: AlertRow, place: Destination, since: dt.datetime | None
) -> bool:
    """Whether an alert is repeated: its newest window failed after the last message.

    Nobody has taken it on, and it still goes to this place. What breaks outside the data follows
    the clock instead of windows.
    """
    if row["acked_by"] or not state.goes_to(row, place):
        return False
    if row["family"] == "pipeline" or since is None:
        return True
    judged = state.views[row["fingerprint"]].details.get("judged_at")
    if judged is None or row["state"] != "FIRING":
        return False
    return since < (moment := dt.datetime.fromisoformat(judged)) and not is_ahead(moment, state.now)


def _waited(rows: Sequence[AlertRow], wait: dt.timedelta, now: dt.datetime) -> bool:
    """Whether one of the alerts is old enough for the first message of a thread."""
    return any(
        row["opened_at"] is None or measure_age(row["opened_at"], now) >= wait for row in rows
    )


def _too_soon(state: GroupState, group: GroupRow) -> bool:
    """Whether the last message is too recent; a clock that stands still is no reason."""
    last, due = group["last_sent_at"], group["next_flush_at"]
    return last is not None and due is not None and last < state.now < due


@dataclass(frozen=True)
class News:
    """What a group has to say.

    Attributes:
        told: What was said before.
        audible: Keys of the alerts that fire.
        ended: Keys of those that were announced and have ended.
        missed: Episodes that were over before anybody was told.
    """

    told: Told
    audible: set[str]
    ended: set[str]
    missed: set[str]


def _write(state: GroupState, group: GroupRow, reason: Reason, news: News) -> int:
    """Write what there is to say; return in how many messages."""
    group |= {
        "version": group["version"] + 1,
        "last_sent_at": state.now,
        "next_flush_at": state.now + state.context.spec.alerts.group_interval,
    }
    late = {k for k in news.missed if state.is_late(k)}
    n_late = len(state.enqueue_over(group, LATE, late))
    news = replace(news, missed=news.missed - late)
    if reason == "missed" and not news.missed:  # nothing of it belongs into the thread
        alert_state.save_group(state.conn, group)
        return n_late
    key, context, n_written = row_key(group), state.context_of(group), 1
    is_stale, group["first_dirty_at"] = group["first_dirty_at"] is not None, None
    if reason == "repeat":
        group["n_reminders"] += 1
    if reason == "first":
        if news.missed:  # what is over does not belong into the thread of what begins
            n_written += len(state.enqueue_over(group, "missed", news.missed))
        group |= {"head_key": key, "resolved": "[]", "n_reminders": 0}
        views = state.views_of(news.audible)
        text = say.head_message(context, views)
        state.enqueue(
            group, key, _KINDS[reason], text, head_key="", tells=news.audible, pictured=views
        )
    elif reason == "missed" and not news.told.firing:
        n_written = len(state.enqueue_over(group, "", news.missed))
    elif reason == "all_resolved" and _withdraw(state, group):
        # The thread's answers go with it: all that fired in it is said here, whenever it ended.
        over = {episode_of(k) for k in news.told.firing} | news.told.resolved
        silent = {episode_of(k) for k in news.told.firing} - {episode_of(k) for k in news.ended}
        told = state.enqueue_over(group, "", over - silent | news.missed)
        n_written = len(told)
        # Only what a new message says, so that anything else would be seen to be untold.
        for said, episodes in told.items():
            if said == key:
                episodes = [*episodes, *silent]
            alert_state.hand_over(
                state.conn, group["head_key"], said, episodes=map(split, episodes)
            )
    else:
        replies = _replies(state, context, reason, news)
        n_written = len(replies)
        for n_left, (text, tells) in zip(range(n_written - 1, -1, -1), replies, strict=True):
            state.enqueue(
                group,
                row_key(group, f"{n_left or ''}"),
                _KINDS[reason],
                text,
                head_key=group["head_key"],
                tells=tells,
                pictured=() if n_left else _pictured(state, reason, news),
            )
        if reason != "repeat" or is_stale:
            _write_head(state, group)
    alert_state.save_group(state.conn, group)
    return n_written + n_late


def _replies(
    state: GroupState, context: Context, reason: Reason, news: News
) -> list[tuple[Message, Collection[str]]]:
    """Return the answers in a thread, mostly one, and the episodes that each tells."""
    told, audible = news.told, news.audible
    firing = state.views_of(audible)
    if reason == "repeat":
        return [(say.repeat_message(context, firing), audible)]
    known = {episode_of(key): key for key in told.firing}
    changed = {key for key in audible - told.firing if episode_of(key) in known}
    worse = {key for key in changed if "escalated" in state.changes_since(known[episode_of(key)])}
    changes = Changes(
        opened=state.views_of(key for key in audible if episode_of(key) not in known),
        escalated=state.views_of(worse),
        revised=state.views_of(changed - worse),
        resolved=state.ended_views(news.ended),
        missed=state.episodes(news.missed),
    )
    found = list[tuple[Message, Collection[str]]]()
    for part in changes.in_parts():
        mention = bool(part.opened or part.escalated)
        text = say.change_message(context, part, firing, mention=mention)
        found.append((text, {view.episode for _, group in part.labelled for view in group}))
    return found


def _pictured(state: GroupState, reason: Reason, news: News) -> Sequence[AlertView]:
    """Return the alerts that a reply is about, if a picture says more than the last one."""
    if reason == "all_resolved":
        return state.views_of(news.ended)
    return state.views_of(news.audible - news.told.firing) if reason == "new_alerts" else ()


def _withdraw(state: GroupState, group: GroupRow) -> bool:
    """Withdraw a thread of this group alone that was never posted."""
    shared = [g for g in state.groups.values() if g["head_key"] == group["head_key"]]
    if outbox.kind_of(state.conn, group["head_key"]) == outbox.OUTAGE:
        return False
    return len(shared) == 1 and outbox.supersede_unsent_thread(state.conn, group["head_key"])


def _write_stale_head(state: GroupState, group: GroupRow) -> None:
    """Bring the first message up to date if somebody has taken an alert of it on since."""
    if group["first_dirty_at"] is not None:
        group |= {"version": group["version"] + 1, "first_dirty_at": None}
        _write_head(state, group)
        alert_state.save_group(state.conn, group)


def _write_head(state: GroupState, group: GroupRow) -> None:
    """Bring the first message of the thread up to date; a summary's thread has many groups."""
    head_key = group["head_key"]
    if not head_key or outbox.kind_of(state.conn, head_key) == outbox.OUTAGE:
        return  # a summary of many models is not one model's to change
    sharing = [g for g in state.groups.values() if g["head_key"] == head_key]
    keys = [key for g in sharing for key in json.loads(g["firing"])]
    firing = state.views_of(keys)
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
    state.enqueue(group, key, "head", text, head_key=head_key, handles=keys, next_at=due)


def summarize_backfill(state: GroupState, *, is_running: bool) -> int:
    """Tell in one message what a backfill left firing; from then on it counts as told."""
    rows = [
        row
        for row in state.alerts.values()
        if row["state"] in alert_state.ACTIVE
        and row["muted_reason"] == "backfill"
        and silenced_by(row, state.silences) is None
    ]
    if not rows or is_running or _backfill_runs(state):
        return 0
    for row in rows:
        row["muted_reason"] = ""
        alert_state.set_muted(state.conn, row["fingerprint"], "")
    places = sorted({place for row in rows for place in state.routes[row["fingerprint"]]})
    for place in places:
        _summarize(state, place, [row for row in rows if state.goes_to(row, place)])
    return len(places)


def _summarize(state: GroupState, place: Destination, rows: Sequence[AlertRow]) -> None:
    summary = state.group(place, SUMMARY)
    summary |= {"version": summary["version"] + 1, "last_sent_at": state.now}
    key = row_key(summary)
    summary["head_key"] = key
    views = [state.views[row["fingerprint"]] for row in rows]
    text = say.summary_message(state.context_of(summary), views)
    tells = [state.key(row) for row in rows]
    state.enqueue(summary, key, SUMMARY, text, head_key="", tells=tells, pictured=views)
    alert_state.save_group(state.conn, summary)
    for row in rows:
        _count_as_told(state, place, row, key)


def _backfill_runs(state: GroupState) -> bool:
    model = state.context.spec.model
    windows = complete_windows(state.context.spec.time, state.now)
    if not windows:
        return False
    if not alert_state.has_stale_windows(state.conn, model, windows[0].start, windows[-1].end):
        return False
    last = alert_state.last_backfill_result(state.conn, model)
    return last is not None and measure_age(last, state.now) < BACKFILL_QUIET


def _count_as_told(state: GroupState, place: Destination, row: AlertRow, head_key: str) -> None:
    group = state.group(place, row["family"])
    firing = set(json.loads(group["firing"]))
    if not firing:
        group |= {"head_key": head_key, "resolved": "[]", "n_reminders": 0}
    group |= {
        "firing": dump(firing | {state.key(row)}),
        "owed": dump(set(json.loads(group["owed"])) - {episode_of(state.key(row))}),
        "version": max(group["version"], 1),
        "last_sent_at": state.now,
    }
    alert_state.save_group(state.conn, group)


def note_owed(state: GroupState) -> None:
    """Keep for each place which episodes it must hear of, before any of them is told."""
    keys = sorted(f"{f}:{number}" for f, numbers in state.untold.items() for number in numbers)
    for key, view in zip(keys, state.episodes(keys) if keys else (), strict=True):
        for place in destinations(state.context.spec, view.row):
            _owe(state, place, key)


def _owe(state: GroupState, place: Destination, key: str) -> None:
    row = state.alerts[split(key)[0]]
    group = state.group(place, row["family"])
    told, owed = told_of(group), set(json.loads(group["owed"]))
    if state.is_active(key):
        is_known = state.key(row) in told.firing
    elif state.is_late(key):
        is_known = False
    else:  # the end of what was told as firing is told anyway
        is_known = key in {episode_of(k) for k in told.firing} | told.resolved
    if not is_known and key not in owed:
        group["owed"] = dump(owed | {key})
        alert_state.save_group(state.conn, group)


def is_told(row: AlertRow, *, is_owed: bool) -> bool:
    """Whether an active alert is told: its window explains itself, or what came before is owed."""
    muted = row["muted_reason"]
    return not muted or (is_owed and muted.startswith("suppressed:"))


def mute_ended(state: GroupState, episodes: Collection[str]) -> None:
    """Record of what ended under a silence that nobody is told."""
    for key in episodes:
        silence = silenced_by(state.alerts[split(key)[0]], state.silences)
        alert_state.mute_untold(state.conn, [split(key)], f"silence:{silence}")


def something_waits(store: Store) -> bool:
    """Whether a message waits to be delivered, or an alert to be told of, whatever is declared."""
    waits = outbox.outbox_health(store.state).n_waiting > 0
    return waits or bool(alert_state.models_to_flush(store.state))


def count_untold(store: Store, specs: Sequence[ModelSpec], now: dt.datetime) -> int:
    """Count the unmuted events of alerts that are in no message though their time has come.

    It is 0 as long as every episode is told. What happened less than the longest wait of a group
    and a quarter of an hour ago does not count.
    """
    waits = [spec.alerts.group_wait + spec.alerts.group_interval for spec in specs]
    before = now - max(waits, default=dt.timedelta(0)) - GRACE
    models = [*(spec.model for spec in specs), PLATFORM]
    return alert_state.count_untold(store.state, models, before, now)
