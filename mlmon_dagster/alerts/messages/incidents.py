"""Alerts in, messages in the outbox out: one thread per cause.

The notification log (``alert_group``) says what a receiver was last told. It changes in the same
transaction that writes the message, whose idempotency key comes from the log's version: so two
flushes at once, or one that is killed, can neither lose a message nor write it twice. Nothing
unmuted goes untold, also when it is over; the end of a backfill is one message about everything
that it left firing.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Final, NamedTuple

from mlmon_dagster.alerts.lifecycle.apply_results import failing_causes, mute
from mlmon_dagster.alerts.lifecycle.routing import PLATFORM, Destination, destinations, silenced_by
from mlmon_dagster.alerts.messages import view as say
from mlmon_dagster.alerts.messages.group_state import (
    LATE,
    SAME_CAUSE,
    SUMMARY,
    GroupState,
    Told,
    distance,
    dump,
    episode_of,
    episodes_of,
    load,
    place_of,
    split,
    told_of,
)
from mlmon_dagster.alerts.messages.message import row_key
from mlmon_dagster.alerts.messages.view import AlertView, Changes, Context, Links, rank_cause
from mlmon_dagster.spec import ModelSpec, complete_windows
from mlmon_dagster.spec.baseline import GRAINS
from mlmon_dagster.store import Store, alert_state, outbox
from mlmon_dagster.store.alert_state import AlertRow, GroupRow, find_opening
from mlmon_dagster.store.clocks import is_ahead, measure_age
from mlmon_dagster.store.state import writing

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
            n_written += sum(
                _flush_group(state, group)
                for place in state.destinations()
                for group in state.groups_at(place)
            )
            writing.reached("flush.before_commit")
        writing.reached("flush.committed")
    return n_written


@dataclass(frozen=True)
class News:
    """What has become of the alerts of a thread since a place was last told of them.

    A key names an alert's episode and how often that has changed, see `GroupState.key`.

    Attributes:
        told: What was said last.
        audible: Keys of what fires and may be told.
        held: Keys of what was told and has been muted since: neither told again nor over.
        ended: Keys of what was told and has ended.
        ended_quietly: Keys of what was told and has ended under a silence.
        missed: Episodes that were over before anybody was told.
        late: Episodes of past windows that were learnt or changed afterwards; nobody was told.
        quiet: Episodes that are over and of which a silence keeps people from being told.
        silenced: Episodes that fire and are still to be told once no silence matches them.
        is_due: Whether it is time to remind of what fires.
        is_stale: Whether somebody has acknowledged an alert since the first message was written.
    """

    told: Told
    audible: Set[str] = frozenset()
    held: Set[str] = frozenset()
    ended: Set[str] = frozenset()
    ended_quietly: Set[str] = frozenset()
    missed: Set[str] = frozenset()
    late: Set[str] = frozenset()
    quiet: Set[str] = frozenset()
    silenced: Set[str] = frozenset()
    is_due: bool = False
    is_stale: bool = False

    @property
    def firing(self) -> Set[str]:
        """Keys of what fires, told or not."""
        return self.audible | self.held

    @property
    def open(self) -> Set[str]:
        """Keys of what was told as firing, and whose end may be told."""
        return self.told.firing - self.ended_quietly

    @property
    def begun(self) -> Set[str]:
        """Keys of what fires, or has changed, without having been told."""
        return self.firing - self.open

    @property
    def over(self) -> Set[str]:
        """Episodes whose end is to be told now."""
        return episodes_of(self.ended) - self.told.resolved


def _flush_group(state: GroupState, group: GroupRow) -> int:
    """Tell a place what is new in a thread; return in how many messages."""
    news = gather_news(state, group)
    case = choose_case(news)
    if case is None:
        _write_stale_head(state, group)
        return 0
    wait = state.context.spec.alerts.group_wait
    if case.tell is _open_thread and not _has_waited(state, news.audible, wait):
        return 0
    if _is_too_soon(state, group):
        return 0
    mute_ended(state, news.quiet)
    over = episodes_of(news.ended | news.ended_quietly)
    group |= {
        "version": group["version"] + 1,
        "firing": dump(news.firing),
        # Also what the thread tells as over: should nobody have seen it, all of it is said anew.
        "resolved": dump(news.told.resolved | over | (news.missed if news.told.firing else set())),
        "owed": dump(news.silenced),
    }
    if case.kind:
        interval = state.context.spec.alerts.group_interval
        group |= {"last_sent_at": state.now, "next_flush_at": state.now + interval}
    n_late = len(state.enqueue_over(group, LATE, news.late))
    n_written = case.tell(state, group, case.kind, news)
    alert_state.save_group(state.conn, group)
    return n_late + n_written


def gather_news(state: GroupState, group: GroupRow) -> News:
    """Compare what a place was told in a thread with how its alerts are."""
    told, place, active = told_of(group), place_of(group), state.active(group)
    owed = told.owed
    rows = {episode_of(key): row for key, row in active.items()}
    audible = {k for k, row in active.items() if is_audible(row, is_owed=episode_of(k) in owed)}
    muted = {episode for episode, row in rows.items() if row["muted_reason"]}
    ended = {k for k in told.firing if episode_of(k) not in rows}
    missed = {k for k in owed if not state.is_active(k)} - episodes_of(ended)
    quiet = {k for k in episodes_of(ended) | missed if state.silence_of(k) is not None}
    ended_quietly = {k for k in ended if episode_of(k) in quiet}
    missed -= quiet
    late = {k for k in missed if state.is_late(k)}
    reminded = any(_is_reminded(state, active[key], place, told.at) for key in audible)
    return News(
        told=told,
        audible=audible,
        held={k for k in told.firing - audible if episode_of(k) in muted},
        ended=ended - ended_quietly,
        ended_quietly=ended_quietly,
        missed=missed - late,
        late=late,
        quiet=quiet,
        silenced=episodes_of(active.keys() - audible) & owed,
        is_due=reminded
        and (told.at is None or told.at <= state.now - _find_distance(state, group)),
        is_stale=group["first_dirty_at"] is not None,
    )


def _find_distance(state: GroupState, group: GroupRow) -> dt.timedelta:
    spec = state.context.spec
    return distance(group["n_reminders"], GRAINS[spec.time.granularity], spec.alerts.repeat)


def _is_reminded(
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


def _has_waited(state: GroupState, keys: Set[str], wait: dt.timedelta) -> bool:
    """Whether one of the alerts is old enough for the first message of a thread."""
    opened = [state.alerts[split(episode)[0]]["opened_at"] for episode in episodes_of(keys)]
    return any(moment is None or measure_age(moment, state.now) >= wait for moment in opened)


def _is_too_soon(state: GroupState, group: GroupRow) -> bool:
    """Whether the last message is too recent; a clock that stands still is no reason."""
    last, due = group["last_sent_at"], group["next_flush_at"]
    return last is not None and due is not None and last < state.now < due


def _open_thread(state: GroupState, group: GroupRow, kind: str, news: News) -> int:
    """Tell what fires; what is over before it began goes into a message of its own."""
    n_over = len(state.enqueue_over(group, "missed", news.missed))
    key, views = row_key(group), state.views_of(news.audible)
    group |= {"head_key": key, "resolved": "[]", "n_reminders": 0, "first_dirty_at": None}
    text = say.head_message(state.context_of(group), views)
    state.enqueue(group, key, kind, text, head_key="", tells=news.audible, pictured=views)
    return n_over + 1


def _answer_thread(state: GroupState, group: GroupRow, kind: str, news: News) -> int:
    """Tell the changes in the thread, mostly in one answer, and bring its head up to date."""
    group["first_dirty_at"] = None
    context, firing = state.context_of(group), state.views_of(news.audible)
    parts = _collect_changes(state, news).in_parts()
    # A picture goes with the last answer, if it says more than the one before.
    new = news.audible - news.told.firing
    drawn = state.views_of(new or (frozenset() if news.firing else news.ended))
    for n_left, part in zip(range(len(parts) - 1, -1, -1), parts, strict=True):
        state.enqueue(
            group,
            row_key(group, f"{n_left or ''}"),
            kind,
            say.change_message(context, part, firing, _find_calls(state, group, news, part)),
            head_key=group["head_key"],
            tells={view.episode for _, views in part.labelled for view in views},
            pictured=() if n_left else drawn,
        )
    _write_head(state, group)
    return len(parts)


def _find_calls(state: GroupState, group: GroupRow, news: News, part: Changes) -> list[AlertView]:
    """Return the changes for which people are called once more into a thread that they know.

    It is for what is more severe than all before, for a cause of its own that has joined as one of
    the same family, and for people who were not called yet.
    """
    place, mention_of = place_of(group), state.context_of(group).mention_of
    told = {episode_of(key): key for key in news.told.firing}
    known = {
        key: row
        for row in state.list_members(group)
        if (key := episode_of(state.key(row))) in told.keys() | news.told.resolved
    }
    worse = {key for key, its in told.items() if "escalated" in state.changes_since(its)}
    was_error = any(row["severity"] == "ERROR" for key, row in known.items() if key not in worse)
    called = {destinations(state.context.spec, row).get(place, "") for row in known.values()}
    return [
        view
        for view in (*part.opened, *part.escalated)
        if (view.row["severity"] == "ERROR" and not was_error)
        or (view in part.opened and not _has_cause(state, view, known.values()))
        or mention_of(view) not in called
    ]


def _has_cause(state: GroupState, view: AlertView, known: Iterable[AlertRow]) -> bool:
    """Whether an alert began to fail next to others that were told."""
    return any(state.measure_distance(view.row, row) <= SAME_CAUSE for row in known)


def _collect_changes(state: GroupState, news: News) -> Changes:
    known = {episode_of(key): key for key in news.told.firing}
    changed = {key for key in news.audible - news.told.firing if episode_of(key) in known}
    since = {key: state.changes_since(known[episode_of(key)]) for key in changed}
    worse = {key for key, kinds in since.items() if "escalated" in kinds}
    other = {key for key, kinds in since.items() if "changed" in kinds} - worse
    return Changes(
        opened=state.views_of(key for key in news.audible if episode_of(key) not in known),
        escalated=state.views_of(worse),
        changed=state.views_of(other),
        revised=state.views_of(changed - worse - other),
        resolved=state.ended_views(news.ended),
        missed=state.episodes(news.missed),
    )


def _close_thread(state: GroupState, group: GroupRow, kind: str, news: News) -> int:
    """Tell that all is over: in the thread, or instead of it if it was never posted."""
    if not _withdraw(state, group):
        return _answer_thread(state, group, kind, news)
    group["first_dirty_at"] = None
    # The thread's answers go with it: all that fired in it is said here, whenever it ended.
    fired = episodes_of(news.told.firing)
    silent = fired - episodes_of(news.ended)
    told = state.enqueue_over(group, "", (fired | news.told.resolved) - silent | news.missed)
    # Only what a new message says, so that anything else would be seen to be untold.
    for key, episodes in told.items():
        also = silent if key == row_key(group) else ()
        alert_state.hand_over(
            state.conn, group["head_key"], key, episodes=map(split, [*episodes, *also])
        )
    return len(told)


def _tell_over(state: GroupState, group: GroupRow, _kind: str, news: News) -> int:
    """Tell what came and went, in messages of its own."""
    group["first_dirty_at"] = None
    return len(state.enqueue_over(group, "", news.missed))


def _remind(state: GroupState, group: GroupRow, kind: str, news: News) -> int:
    """Remind in the thread of what fires."""
    group |= {"n_reminders": group["n_reminders"] + 1, "first_dirty_at": None}
    text = say.repeat_message(state.context_of(group), state.views_of(news.audible))
    state.enqueue(group, row_key(group), kind, text, head_key=group["head_key"], tells=news.audible)
    if news.is_stale:
        _write_head(state, group)
    return 1


def _update_quietly(state: GroupState, group: GroupRow, _kind: str, news: News) -> int:
    """Have the head alone say what ended under a silence."""
    if news.ended_quietly:
        _write_head(state, group)
    return 0


def _tell_no_more(_state: GroupState, _group: GroupRow, _kind: str, _news: News) -> int:
    """Leave it at the threads of past windows."""
    return 0


class Case(NamedTuple):
    """When something is told, as what kind of message, and where.

    Attributes:
        when: Whether it is so.
        kind: What the messages are called; empty if nobody is told.
        tell: Writes them, and returns how many.
    """

    when: Callable[[News], object]
    kind: str
    tell: Callable[[GroupState, GroupRow, str, News], int]


# The first that holds, in Alertmanager's order. Late news is told besides, in threads of its own.
CASES: Final = (
    Case(lambda n: n.begun and not n.open, "opened", _open_thread),  # a new thread
    Case(lambda n: n.begun, "updated", _answer_thread),  # more fires, or worse: in the thread
    Case(lambda n: n.open and not n.firing, "resolved", _close_thread),  # all is over
    Case(lambda n: n.firing and n.over, "updated", _answer_thread),  # some of it is over
    Case(
        lambda n: n.missed and n.told.firing, "resolved", _answer_thread
    ),  # it came and went beside
    Case(lambda n: n.missed, "resolved", _tell_over),  # it came and went, and there is no thread
    Case(lambda n: n.late, LATE, _tell_no_more),  # of past windows alone
    Case(lambda n: n.is_due, "repeated", _remind),  # nothing is new for so long
    Case(lambda n: n.quiet, "", _update_quietly),  # it ended under a silence
)


def choose_case(news: News) -> Case | None:
    """Return the first case that holds; None if there is nothing to say or to note."""
    return next((case for case in CASES if case.when(news)), None)


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
    """Tell in one message what a backfill left firing; from then on it counts as told.

    What a known event or another alert explains is left out, as it is of windows that come one by
    one.
    """
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
    newest = sorted({row["last_window_start"] for row in rows})
    causes = failing_causes(state.conn, state.context.spec, newest)
    explained = mute(state.alerts.values(), (), causes, newest)
    for fingerprint in explained | {row["fingerprint"] for row in rows}:
        reason = state.alerts[fingerprint]["muted_reason"]
        alert_state.set_muted(state.conn, fingerprint, reason)
    rows = [row for row in rows if not row["muted_reason"]]
    places = sorted({place for row in rows for place in state.routes[row["fingerprint"]]})
    for place in places:
        _summarize(state, place, [row for row in rows if state.goes_to(row, place)])
    return len(places)


def _summarize(state: GroupState, place: Destination, rows: Sequence[AlertRow]) -> None:
    summary = state.summary_group(place)
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
    last = alert_state.last_result(state.conn, model, of_backfills=True)
    return last is not None and measure_age(last, state.now) < BACKFILL_QUIET


def _count_as_told(state: GroupState, place: Destination, row: AlertRow, head_key: str) -> None:
    group = state.find_group(place, state.views[row["fingerprint"]])
    firing = set(json.loads(group["firing"]))
    if not firing:
        group |= {"head_key": head_key, "resolved": "[]", "n_reminders": 0}
    group |= {
        "firing": dump(firing | {state.key(row)}),
        "owed": dump(told_of(group).owed - {episode_of(state.key(row))}),
        "version": max(group["version"], 1),
        "last_sent_at": state.now,
    }
    alert_state.save_group(state.conn, group)


def note_owed(state: GroupState) -> None:
    """Keep for each place which episodes it must hear of, in which thread, before any is told."""
    keys = sorted(f"{f}:{number}" for f, numbers in state.untold.items() for number in numbers)
    untold = state.episodes(keys) if keys else []
    # A place that a changed spec adds hears also of what others were told.
    fires = [
        state.views[fingerprint]
        for fingerprint, row in state.alerts.items()
        if row["state"] in alert_state.ACTIVE and not row["muted_reason"]
    ]
    wanted: dict[Destination, dict[str, AlertView]] = {}
    for view in (*fires, *untold):
        for place in destinations(state.context.spec, view.row):
            wanted.setdefault(place, {})[view.episode] = view
    for place, views in wanted.items():
        heard = state.collect_told(place)  # once, as most alerts are known at most flushes
        unheard = [view for view in views.values() if not _is_known(state, heard, view.episode)]
        for view in sorted(unheard, key=_rank_cause):
            group = state.find_group(place, view)
            group["owed"] = dump(told_of(group).owed | {view.episode})
            alert_state.save_group(state.conn, group)


def _rank_cause(view: AlertView) -> tuple[dt.datetime, int, str]:
    """Sort what may be the cause first: it founds the thread that the others join."""
    return find_opening(view.row), rank_cause(view.row["family"]), view.episode


def _is_known(state: GroupState, heard: Told, episode: str) -> bool:
    """Tell whether a place was told all of an episode, or is going to be."""
    if episode in heard.owed:
        return True
    if state.is_active(episode):
        return state.key(state.alerts[split(episode)[0]]) in heard.firing
    # The end of what was told as firing is told anyway.
    return not state.is_late(episode) and episode in heard.episodes


def is_audible(row: AlertRow, *, is_owed: bool) -> bool:
    """Whether an active alert is told: its window explains itself, or what came before is owed."""
    muted = row["muted_reason"]
    return not muted or (is_owed and muted.startswith("suppressed:"))


def mute_ended(state: GroupState, episodes: Collection[str]) -> None:
    """Record of what ended under a silence that nobody is told."""
    for key in episodes:
        alert_state.mute_untold(state.conn, [split(key)], f"silence:{state.silence_of(key)}")


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
