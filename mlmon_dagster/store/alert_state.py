"""Rows of alerts: their state and history, what was told of them to whom, and silences."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, TypeVar, cast

import sqlalchemy as sa

from mlmon_dagster.spec.names import ALL, QUALITY
from mlmon_dagster.store.clocks import select_past
from mlmon_dagster.store.state.monitor_results import Finding, StoredResult, fetch_results
from mlmon_dagster.store.state.schema import (
    alert,
    alert_event,
    alert_group,
    monitor_result,
    outbox,
    silence,
    window_state,
)
from mlmon_dagster.store.state.sql import (
    Bind,
    between,
    fetch,
    fetch_row,
    fetch_rows,
    fetch_value,
    fetch_values,
    insert_or_ignore,
    upsert,
)

ACTIVE = ("FIRING", "RECOVERING")  # an alert that is open
State = Literal["OK", "PENDING", "FIRING", "RECOVERING"]
ListedState = Literal["FIRING", "RECOVERING", "RESOLVED", "WITHDRAWN", "PENDING"]
Standing = Literal["firing", "recovering", ""]
T = TypeVar("T")
SHORT_ID = 8  # characters of an alert's id, as commands take it
_BATCH = 500  # values per IN (...)
# Written out, as the partial index is declared.
_UNTOLD = sa.text(
    "alert_event.message_key = '' AND alert_event.muted_reason = ''"
    " AND alert_event.kind <> 'acknowledged'"
)


@contextmanager
def exclusive(engine: sa.Engine, *names: str) -> Iterator[sa.Connection]:
    """Open a write transaction that no other one of the same name runs beside."""
    with engine.begin() as conn:  # SQLite has one writer at a time anyway
        if conn.dialect.name == "postgresql":
            hashes = [hashlib.sha256(name.encode()).digest()[:8] for name in names]
            # In order, so that two transactions of several names cannot wait for each other.
            for key in sorted({int.from_bytes(h, "big", signed=True) for h in hashes}):
                conn.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        yield conn


def _batches(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]


# Results to fold


def models_with_new_results(engine: sa.Engine) -> list[str]:
    """Return the models that have monitor results the alerts have not taken in yet."""
    query = sa.select(monitor_result.c.model).where(monitor_result.c.folded_at.is_(None)).distinct()
    return sorted(fetch_values(engine, query))


def new_results(conn: sa.Connection, model: str, limit: int) -> list[StoredResult]:
    """Return results not folded yet, in the order in which they must be taken in."""
    r = monitor_result.c
    query = sa.select(monitor_result).where(r.folded_at.is_(None), r.model == model)
    return fetch_results(conn, query.order_by(r.window_start, r.id).limit(limit))


def mark_folded(conn: sa.Connection, ids: Sequence[int], now: dt.datetime) -> None:
    """Record that results were taken in."""
    for batch in _batches(ids):
        mine = monitor_result.c.id.in_(batch)
        conn.execute(monitor_result.update().where(mine).values(folded_at=now))


def newest_results(
    conn: sa.Connection, model: str, families: Sequence[str], windows: Sequence[dt.datetime]
) -> list[Finding]:
    """Return the newest result of each monitor and slice of some families in some windows."""
    r = monitor_result.c
    identity = (r.window_start, r.monitor, r.dataset, r.slice_key, r.slice_value)
    rows: dict[tuple[object, ...], Finding] = {}
    for batch in _batches(windows):
        query = (
            sa.select(*identity, r.family, r.metric, r.column_name, r.status, r.value, r.details)
            .where(r.model == model, r.family.in_(families), r.window_start.in_(batch))
            .order_by(r.id)
        )
        for row in fetch(conn, query):
            rows[tuple(row.values())[: len(identity)]] = cast("Finding", row)
    return list(rows.values())


def whole_results(
    conn: sa.Connection, model: str, families: Sequence[str], window: dt.datetime
) -> list[StoredResult]:
    """Return all results of some families about a window as a whole."""
    r = monitor_result.c
    mine = (r.model == model, r.window_start == window, r.family.in_(families))
    query = sa.select(monitor_result).where(*mine, r.slice_key == ALL)
    return fetch_results(conn, query)


def load_messages(conn: sa.Connection, ids: Collection[int]) -> dict[int, str]:
    """Return the sentences of some results by their id."""
    r = monitor_result.c
    query = sa.select(r.id, r.message).where(r.id.in_(ids))
    return {number: message for number, message in fetch_rows(conn, query)}


def last_result(
    conn: sa.Connection, model: str, *, of_backfills: bool = False
) -> dt.datetime | None:
    """Return when a monitor, or a backfill's, last wrote a result of a model; None if never."""
    r = monitor_result.c
    query = sa.select(r.created_at).where(r.model == model)
    if of_backfills:
        query = query.where(r.is_backfill)
    return fetch_value(conn, query.order_by(r.id.desc()).limit(1))


def recent_coverage(
    conn: sa.Connection, model: str, family: str, dataset: str
) -> dict[dt.datetime, set[tuple[str, str, str]]]:
    """Return who has any result in the last three windows in which the family has a verdict.

    Returns:
        (monitor, slice_key, slice_value) of every result, NO_DATA included, by window start.
    """
    r = monitor_result.c
    same = (r.model == model, r.family == family, r.dataset == dataset)
    judged = sa.select(r.window_start).where(*same, r.status != "NO_DATA").distinct()
    newest = judged.order_by(r.window_start.desc()).limit(3)
    query = sa.select(r.window_start, r.monitor, r.slice_key, r.slice_value)
    found: dict[dt.datetime, set[tuple[str, str, str]]] = {}
    wanted = query.where(*same, r.window_start.in_(newest)).distinct()
    for window, monitor, key, value in fetch_rows(conn, wanted):
        found.setdefault(window, set()).add((monitor, key, value))
    return found


# Alerts and their history


class AlertRow(TypedDict):
    """A row of ``alert``: what it is about, where it is in its life, and what was last said."""

    fingerprint: str
    environment: str
    model: str
    monitor: str
    family: str
    metric: str
    column_name: str
    dataset: str
    slice_key: str
    slice_value: str
    state: State
    severity: str
    episode: int
    n_episodes: int
    recent: str
    last_window_start: dt.datetime
    last_data_version: str
    opened_window: dt.datetime | None
    failed_window: dt.datetime | None
    opened_at: dt.datetime | None
    resolved_at: dt.datetime | None
    resolved_reason: str
    muted_reason: str
    value: float | None
    message: str
    details: str
    owner: str
    runbook: str
    acked_by: str
    acked_at: dt.datetime | None
    updated_at: dt.datetime


@dataclass(frozen=True)
class AlertEpisode:
    """One firing of one alert; a pending alert has no episode yet.

    Attributes:
        fingerprint: Identity of the alert.
        model, monitor, family, metric, column, slice_key, slice_value: What it is about.
        episode: Which firing this is, from 1; 0 if pending.
        state: Where it is in its life.
        severity: The highest so far.
        opened_window: Start of the first failing window of those that opened it; of the last window
            if pending.
        failed_window: Start of the last failing window so far.
        resolved_window: Start of the window that ended it; None while it lasts.
        worst_value: The failing value farthest from its baseline; None if there is no value.
        message: The last sentence.
        muted_reason: Why it was not sent; empty if it was.
        noticed_at: When its first verdicts were taken in, which may be long after its windows.
        is_told: Whether a message told of it.
        acked_by: Who has taken it on; empty if nobody has.
        would_be: The severity that it would have, if pending.
    """

    fingerprint: str
    model: str
    monitor: str
    family: str
    metric: str
    column: str
    slice_key: str
    slice_value: str
    episode: int
    state: ListedState
    severity: str
    opened_window: dt.datetime
    failed_window: dt.datetime | None
    resolved_window: dt.datetime | None
    worst_value: float | None
    message: str
    muted_reason: str
    noticed_at: dt.datetime
    is_told: bool
    acked_by: str = ""
    would_be: str = ""

    @property
    def is_explained(self) -> bool:
        """Whether another alert is the cause of it, which is told instead."""
        return is_explained(self.muted_reason)

    @property
    def standing(self) -> Standing:
        """How it stands, as `name_standing` says."""
        return name_standing(self.state, self.muted_reason)


def is_explained(muted_reason: str) -> bool:
    """Tell whether another alert is the cause of one, by why it is not sent."""
    return muted_reason.startswith("suppressed:")


def find_opening(row: AlertRow) -> dt.datetime:
    """Return the start of the first window of an alert's episode, else of the last one judged."""
    return row["opened_window"] or row["last_window_start"]


def name_standing(state: str, muted_reason: str) -> Standing:
    """Say how an alert stands: the one answer of every surface that counts or lists alerts.

    It is ``firing``, or ``recovering`` while windows pass and that may still be chance. What
    another alert explains does not stand, since the other one is told and counted instead.
    """
    if is_explained(muted_reason):
        return ""
    return "firing" if state == "FIRING" else "recovering" if state == "RECOVERING" else ""


def load_alerts(
    conn: sa.Connection,
    model: str,
    *,
    states: Sequence[str] | None = None,
    fingerprints: Sequence[str] = (),
) -> dict[str, AlertRow]:
    """Return the alerts of a model by fingerprint.

    Args:
        conn: An open connection.
        model: Name of the model.
        states: Only alerts in one of these states; all of them if None.
        fingerprints: Alerts to return whatever their state.
    """
    mine = [alert.c.model == model]
    if states is not None:
        mine.append(sa.or_(alert.c.state.in_(states), alert.c.fingerprint.in_(fingerprints)))
    return {row["fingerprint"]: row for row in _find_alerts(conn, *mine)}


def unsettled(engine: sa.Engine, family: str, model: str | None = None) -> list[AlertRow]:
    """Return the alerts of a family that are not OK, of one or every model."""
    mine = [alert.c.family == family, alert.c.state != "OK"]
    return _find_alerts(engine, *mine, *_of_model(model))


def _find_alerts(bind: Bind, *wanted: sa.ColumnElement[bool]) -> list[AlertRow]:
    return cast("list[AlertRow]", fetch(bind, sa.select(alert).where(*wanted)))


def _of_model(model: str | None) -> list[sa.ColumnElement[bool]]:
    """Return the condition that an alert is of a model; none for every model."""
    return [] if model is None else [alert.c.model == model]


def save_alerts(conn: sa.Connection, rows: Sequence[AlertRow]) -> None:
    """Write whole alert rows."""
    upsert(conn, alert, rows)


def set_muted(conn: sa.Connection, fingerprint: str, reason: str) -> None:
    """Record why an alert is not sent; empty if it is."""
    conn.execute(
        alert.update().where(alert.c.fingerprint == fingerprint).values(muted_reason=reason)
    )


class AlertEvent(TypedDict):
    """A row of ``alert_event``: one step in the life of an alert."""

    fingerprint: str
    episode: int
    kind: str
    is_late: bool
    window_start: dt.datetime
    first_window: dt.datetime | None
    last_window: dt.datetime | None
    data_version: str
    severity: str
    value: float | None
    message: str
    muted_reason: str
    created_at: dt.datetime


class StoredEvent(AlertEvent):
    """One step as it is read back, with the message that first told it."""

    id: int
    message_key: str


def find_window(event: AlertEvent) -> dt.datetime:
    """Return the window of a transition: of what opened, the first that failed."""
    first = event["first_window"]
    return first if event["kind"] == "opened" and first else event["window_start"]


def append_events(conn: sa.Connection, rows: Sequence[AlertEvent]) -> None:
    """Add transitions to the history; those already there are left out."""
    insert_or_ignore(conn, alert_event, rows)


def events_of(conn: sa.Connection, fingerprint: str) -> list[StoredEvent]:
    """Return the transitions of one alert, oldest first."""
    e = alert_event.c
    query = sa.select(alert_event).where(e.fingerprint == fingerprint).order_by(e.id)
    return cast("list[StoredEvent]", fetch(conn, query))


def results_taken_in(
    conn: sa.Connection, row: AlertRow, start: dt.datetime, n_before: int
) -> list[StoredResult]:
    """Return the newest verdicts, NO_DATA apart, that an alert has taken in on windows.

    Args:
        conn: An open connection.
        row: The alert. Of one about the quality of a column these are the verdicts on all the
            columns, since what fails in several at once is another alert.
        start: The first window.
        n_before: How many windows with a verdict before it to return as well.

    Returns:
        Rows of ``monitor_result``, one per monitor and window, ordered by window.
    """
    r = monitor_result.c
    is_quality = row["family"] == QUALITY and row["slice_key"] == ALL
    same = [*_ABOUT, *(("family", "metric") if is_quality else ("monitor",))]
    mine = [*_have_same(row, same), r.status != "NO_DATA", r.folded_at.is_not(None)]
    before = sa.select(r.window_start).where(*mine, r.window_start < start).distinct()
    before = before.order_by(r.window_start.desc()).limit(n_before)
    first = min(fetch_values(conn, before), default=start)
    query = sa.select(monitor_result).where(*mine, r.window_start >= first).order_by(r.id)
    newest = {(one["window_start"], one["monitor"]): one for one in fetch_results(conn, query)}
    return sorted(newest.values(), key=lambda one: (one["window_start"], one["id"]))


def changes_announced(conn: sa.Connection, episodes: Mapping[str, int]) -> dict[str, list[str]]:
    """Return how each alert's given episode escalated, changed or was revised, oldest first."""
    e = alert_event.c
    found: dict[str, list[str]] = {fingerprint: [] for fingerprint in episodes}
    for batch in _batches(list(episodes)):
        query = sa.select(e.fingerprint, e.episode, e.kind).where(
            e.fingerprint.in_(batch), e.kind.in_(("escalated", "changed", "revised")), ~e.is_late
        )
        for fingerprint, episode, kind in conn.execute(query.order_by(e.id)):
            if episode == episodes[fingerprint]:
                found[fingerprint].append(kind)
    return found


# History, for listing


def all_alerts(conn: sa.Connection, model: str | None) -> dict[str, AlertRow]:
    """Return the alerts that ever opened or are pending, of one or every model."""
    ever = sa.or_(alert.c.n_episodes > 0, alert.c.state != "OK")
    return {row["fingerprint"]: row for row in _find_alerts(conn, ever, *_of_model(model))}


def load_open_alerts(conn: sa.Connection) -> list[AlertRow]:
    """Return the alerts of all models that fire or recover, muted ones too."""
    c = alert.c
    query = sa.select(alert).where(c.state.in_(ACTIVE))
    query = query.order_by(c.model, c.monitor, c.slice_key, c.slice_value)
    return cast("list[AlertRow]", fetch(conn, query))


def newest_event_id(conn: sa.Connection) -> int | None:
    """Return the number of the newest transition of any alert; None if there is none."""
    return fetch_value(conn, sa.select(sa.func.max(alert_event.c.id)))


def all_events(conn: sa.Connection, model: str | None) -> dict[str, list[StoredEvent]]:
    """Return the transitions of one or every model by fingerprint, oldest first."""
    query = sa.select(alert_event).join(alert, alert.c.fingerprint == alert_event.c.fingerprint)
    found: dict[str, list[StoredEvent]] = {}
    for row in fetch(conn, query.where(*_of_model(model)).order_by(alert_event.c.id)):
        found.setdefault(row["fingerprint"], []).append(cast("StoredEvent", row))
    return found


def worst_value(
    conn: sa.Connection, row: AlertRow, start: dt.datetime, end: dt.datetime | None
) -> float | None:
    """Return the failing value of an alert that is farthest from its baseline in some windows.

    Of each window the newest verdict counts that the alert has taken in.

    Args:
        conn: An open connection.
        row: The alert.
        start: First window.
        end: The window that ended the episode, exclusive; None for all after the start.
    """
    r = monitor_result.c
    query = sa.select(r.window_start, r.status, r.value, r.baseline_value).where(
        *_have_same(row, (*_ABOUT, "monitor", "metric", "column_name")),
        r.status != "NO_DATA",
        r.folded_at.is_not(None),
        *between(r.window_start, start, end),
    )
    newest = {one["window_start"]: one for one in fetch(conn, query.order_by(r.id))}
    failing = [
        one
        for one in newest.values()
        if one["status"] in ("WARN", "ERROR") and one["value"] is not None
    ]
    worst = max(failing, key=_measure_distance, default=None)
    return None if worst is None else worst["value"]


def _measure_distance(verdict: Mapping[str, Any]) -> float:
    return abs(float(verdict["value"]) - float(verdict["baseline_value"] or 0.0))


_ABOUT = ("model", "dataset", "slice_key", "slice_value")


def _have_same(row: Mapping[str, object], names: Iterable[str]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that verdicts have the values of an alert."""
    return [monitor_result.c[name] == row[name] for name in names]


# Groups: what receivers were told


class MessageGroup(TypedDict):
    """What keeps messages of one place in order; without a model where they are of several."""

    group_key: str
    receiver: str
    channel: str
    model: str
    family: str


class GroupRow(MessageGroup):
    """A row of ``alert_group``: what a place was told in a thread, of the family that opened it."""

    head_key: str
    version: int
    firing: str
    resolved: str
    owed: str
    n_reminders: int
    last_sent_at: dt.datetime | None
    first_dirty_at: dt.datetime | None
    next_flush_at: dt.datetime | None


def load_groups(conn: sa.Connection, model: str) -> dict[str, GroupRow]:
    """Return the notification log of a model by group key."""
    query = sa.select(alert_group).where(alert_group.c.model == model)
    return {row["group_key"]: cast("GroupRow", row) for row in fetch(conn, query)}


def save_group(conn: sa.Connection, row: GroupRow) -> None:
    """Write one row of the notification log."""
    upsert(conn, alert_group, [row])


def newest_window(conn: sa.Connection, model: str) -> dt.datetime | None:
    """Return the start of a model's newest window that rows were stored for."""
    w = window_state.c
    query = sa.select(w.window_start).where(w.model == model, w.input_revision > 0)
    return fetch_value(conn, query.order_by(w.window_start.desc()).limit(1))


def has_stale_windows(
    conn: sa.Connection, model: str, start: dt.datetime, end: dt.datetime
) -> bool:
    """Whether windows between two times still wait for their metrics to be computed."""
    w = window_state.c
    stale = sa.select(w.model).where(
        w.model == model,
        w.window_start >= start,
        w.window_end <= end,
        w.input_revision > w.computed_revision,
    )
    return fetch_row(conn, stale.limit(1)) is not None


def models_to_flush(engine: sa.Engine) -> list[str]:
    """Return the models with something to tell.

    An alert is active, or a receiver believes so, or has not been told of what is over.
    """
    g, same = alert_group.c, alert.c.fingerprint == alert_event.c.fingerprint
    firing = sa.select(alert.c.model).where(alert.c.state.in_(ACTIVE))
    told = sa.select(g.model).where(sa.or_(g.firing != "[]", g.owed != "[]"))
    untold = sa.select(alert.c.model).join(alert_event, same).where(_UNTOLD)
    return sorted(fetch_values(engine, firing.union(told, untold)))


def models_of(conn: sa.Connection, fingerprints: Collection[str]) -> list[str]:
    """Return the models of some alerts."""
    found: set[str] = set()
    for batch in _batches(sorted(fingerprints)):
        query = sa.select(alert.c.model).where(alert.c.fingerprint.in_(batch))
        found.update(fetch_values(conn, query))
    return sorted(found)


def untold_episodes(conn: sa.Connection, model: str, *, late: bool = False) -> dict[str, set[int]]:
    """Return the episodes with an unmuted event that is in no message, by fingerprint.

    Args:
        conn: An open connection.
        model: Name of the model.
        late: Only those of which that event is late news.
    """
    e = alert_event.c
    query = (
        sa.select(e.fingerprint, e.episode)
        .join(alert, alert.c.fingerprint == e.fingerprint)
        .where(_UNTOLD, alert.c.model == model)
        .distinct()
    )
    if late:
        query = query.where(e.is_late)
    found: dict[str, set[int]] = {}
    for fingerprint, episode in fetch_rows(conn, query):
        found.setdefault(fingerprint, set()).add(episode)
    return found


Episodes = Iterable[tuple[str, int]]  # fingerprint of the alert, and which of its episodes


def mark_told(conn: sa.Connection, episodes: Episodes, message_key: str) -> None:
    """Record that a message tells all that has happened in some episodes so far."""
    _change_events(conn, episodes, alert_event.c.message_key == "", message_key=message_key)


def mute_untold(conn: sa.Connection, episodes: Episodes, reason: str) -> None:
    """Record why what nobody was told of some episodes will not be told."""
    _change_events(conn, episodes, _UNTOLD, muted_reason=reason)


def _change_events(
    conn: sa.Connection,
    episodes: Episodes,
    which: sa.ColumnElement[bool] | sa.TextClause,
    **values: str,
) -> None:
    """Set columns of some of the events of episodes."""
    e = alert_event.c
    for fingerprint, episode in episodes:
        mine = (e.fingerprint == fingerprint, e.episode == episode, which)
        conn.execute(alert_event.update().where(*mine).values(**values))


def hand_over(
    conn: sa.Connection,
    head_key: str,
    message_key: str,
    *,
    episodes: Episodes | None = None,
) -> None:
    """Let a message take the place of a thread that was withdrawn: it tells what that told.

    Args:
        conn: The transaction.
        head_key: The message that opened the thread.
        message_key: The message that takes its place.
        episodes: What that tells; None for all that the thread told.
    """
    o = outbox.c
    withdrawn = sa.select(o.idempotency_key).where(
        sa.or_(o.idempotency_key == head_key, o.head_key == head_key), o.status == "superseded"
    )
    if episodes is not None:
        retell(conn, episodes, fetch_values(conn, withdrawn), message_key)
        return
    told_there = alert_event.c.message_key.in_(withdrawn)
    conn.execute(alert_event.update().where(told_there).values(message_key=message_key))


def retell(
    conn: sa.Connection,
    episodes: Episodes,
    message_keys: Collection[str],
    message_key: str,
) -> None:
    """Let a message take the place of some others as far as they told of some episodes."""
    told = list(episodes)
    for batch in _batches(sorted(message_keys)):
        in_them = alert_event.c.message_key.in_(batch)
        _change_events(conn, told, in_them, message_key=message_key)


def count_untold(
    engine: sa.Engine, models: Collection[str], before: dt.datetime, now: dt.datetime
) -> int:
    """Count the unmuted events from before a time that no message tells of.

    A message that was withdrawn tells nothing; what takes its place does.

    Args:
        engine: The state database.
        models: Whose events.
        before: Younger events may still wait for the next flush of their group.
        now: The present moment; what lies ahead of it waits for nothing.
    """
    e, o = alert_event.c, outbox.c
    withdrawn = sa.exists().where(o.idempotency_key == e.message_key, o.status == "superseded")
    query = (
        sa.select(sa.func.count())
        .select_from(alert_event.join(alert, alert.c.fingerprint == e.fingerprint))
        .where(
            alert.c.model.in_(models),
            e.kind != "acknowledged",
            e.muted_reason == "",
            select_past(e.created_at, before, now),
            sa.or_(e.message_key == "", withdrawn),
        )
    )
    return fetch_value(engine, query) or 0


class SilenceRow(TypedDict):
    """A row of ``silence``."""

    id: int
    matcher: str
    author: str
    comment: str
    starts_at: dt.datetime
    ends_at: dt.datetime
    ended_by: str


def silences_in_force(conn: sa.Connection, now: dt.datetime) -> list[SilenceRow]:
    """Return the silences in force."""
    s = silence.c
    query = sa.select(silence).where(s.starts_at <= now, s.ends_at > now).order_by(s.id)
    return cast("list[SilenceRow]", fetch(conn, query))


def add_silence(
    conn: sa.Connection,
    *,
    matcher: str,
    author: str,
    comment: str,
    starts_at: dt.datetime,
    ends_at: dt.datetime,
) -> int:
    """Silence the alerts that a JSON matcher names; return the silence's id."""
    values = {"matcher": matcher, "author": author, "comment": comment}
    statement = silence.insert().values(**values, starts_at=starts_at, ends_at=ends_at)
    return int(conn.execute(statement.returning(silence.c.id)).scalar_one())


def end_silence(engine: sa.Engine, silence_id: int, now: dt.datetime, author: str = "") -> bool:
    """End a silence; return whether it was in force or still to come."""
    s = silence.c
    statement = silence.update().where(s.id == silence_id, s.ends_at > now)
    with engine.begin() as conn:
        return conn.execute(statement.values(ends_at=now, ended_by=author)).rowcount == 1


def every_silence(bind: Bind, since: dt.datetime | None = None) -> list[SilenceRow]:
    """Return the silences, the newest first.

    Args:
        bind: The state database.
        since: Only those that had not ended at this time; all of them if None.
    """
    query = sa.select(silence).order_by(silence.c.id.desc())
    if since is not None:
        query = query.where(silence.c.ends_at > since)
    return cast("list[SilenceRow]", fetch(bind, query))
