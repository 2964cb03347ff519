"""The tables of alerts, their history, silences and refused messages; all about one alert."""

from __future__ import annotations

import datetime as dt
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypedDict, cast

import sqlalchemy as sa

from mlmon_dagster.alerts.handling import find_alert
from mlmon_dagster.alerts.messages.message import clean
from mlmon_dagster.alerts.messages.view import (
    AlertView,
    has_failed_since,
    is_amendment,
    local_moment,
    number,
    view_of,
)
from mlmon_dagster.monitors.wording import NAMES, headline, subject
from mlmon_dagster.monitors.wording import number as written
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.known_events import EVENT
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import ALL, TABLE, counted
from mlmon_dagster.store import Store, alert_state
from mlmon_dagster.store.alert_state import (
    SHORT_ID,
    AlertEpisode,
    AlertRow,
    ListedState,
    SilenceRow,
    Standing,
    StoredEvent,
    find_window,
)
from mlmon_dagster.store.outbox import OutboxRow
from mlmon_dagster.tables.rendering import render_text
from mlmon_dagster.tables.table import Answer, Column, Table, utc_minute

_ORDER = {"FIRING": 0, "RECOVERING": 1, "PENDING": 2, "RESOLVED": 3, "WITHDRAWN": 4}
_SENTENCE = 110  # characters
_LAST = 14  # windows
_FIRST_LINE = 100
_FINDING = 80  # of a list


def list_alerts(
    store: Store,
    model: str | None = None,
    state: ListedState | None = None,
    since: dt.datetime | None = None,
) -> list[AlertEpisode]:
    """Return alert episodes, firing ones first, then by opening window, newest first.

    Args:
        store: Where the state database is.
        model: Only of this model.
        state: Only in this state.
        since: Only those that were still firing at this time or opened after it.
    """
    with store.state.connect() as conn:
        rows = alert_state.all_alerts(conn, model)
        events = alert_state.all_events(conn, model)
        episodes = [e for f, row in rows.items() for e in _episodes(conn, row, events.get(f, []))]
    wanted = [
        e
        for e in episodes
        if (state is None or e.state == state)
        and (since is None or e.resolved_window is None or e.resolved_window >= since)
    ]
    newest = sorted(wanted, key=lambda e: (e.opened_window, e.model, e.monitor), reverse=True)
    return sorted(newest, key=lambda e: _ORDER[e.state])


def _episodes(
    conn: sa.Connection, row: AlertRow, events: Sequence[StoredEvent]
) -> list[AlertEpisode]:
    found = [
        _episode(conn, row, [e for e in events if e["episode"] == episode])
        for episode in sorted({event["episode"] for event in events})
    ]
    if row["state"] == "PENDING":
        found.append(_pending(row))
    return found


def _episode(conn: sa.Connection, row: AlertRow, events: Sequence[StoredEvent]) -> AlertEpisode:
    opened = next(e for e in events if e["kind"] == "opened")
    ends = [e for e in events if e["kind"] == "resolved" or is_amendment(e)]
    is_current = opened["episode"] == row["episode"]
    known = [e for e in events if e["kind"] != "acknowledged"]
    start = known[-1]["first_window"] or opened["window_start"]
    end = ends[-1]["window_start"] if ends else None
    state = "RESOLVED" if ends else cast("ListedState", row["state"])  # not OK: it is open
    if any(event["kind"] == "withdrawn" for event in events):
        state = "WITHDRAWN"
    told = [e for e in events if e["kind"] not in ("resolved", "withdrawn", "acknowledged")]
    has_words = is_current and not has_failed_since(row, end)
    return _listed(
        row,
        episode=opened["episode"],
        state=state,
        severity=events[-1]["severity"],
        opened_window=start,
        failed_window=known[-1]["last_window"] if ends else row["failed_window"],
        resolved_window=end,
        worst_value=alert_state.worst_value(conn, row, start, end),
        message=view_of(row).sentence if has_words else _last_words(told),
        muted_reason=row["muted_reason"] if is_current else opened["muted_reason"],
        noticed_at=opened["created_at"],
        is_told=any(event["message_key"] for event in events),
    )


def _pending(row: AlertRow) -> AlertEpisode:
    """Return an alert that has not fired yet; it would be as severe as its last failing window."""
    failing = [verdict for verdict in json.loads(row["recent"]) if verdict[1] in ("WARN", "ERROR")]
    start, would_be, *_ = failing[-1]
    return _listed(
        row,
        episode=0,
        state="PENDING",
        severity=row["severity"],
        would_be=would_be,
        opened_window=row["last_window_start"],
        failed_window=dt.datetime.fromisoformat(start),
        resolved_window=None,
        worst_value=row["value"],
        message=row["message"],
        muted_reason="",
        noticed_at=row["updated_at"],
        is_told=False,
    )


def _last_words(events: Sequence[StoredEvent]) -> str:
    said = [event["message"] for event in events if event["message"]]
    return said[-1] if said else ""


def _listed(row: AlertRow, *, state: ListedState, **known: Any) -> AlertEpisode:
    return AlertEpisode(
        fingerprint=row["fingerprint"],
        model=row["model"],
        monitor=row["monitor"],
        family=row["family"],
        metric=row["metric"],
        column=row["column_name"],
        slice_key=row["slice_key"],
        slice_value=row["slice_value"],
        state=state,
        acked_by=clean(row["acked_by"]) if state in alert_state.ACTIVE else "",
        **known,
    )


class StandingCounts(NamedTuple):
    """How many alerts of a model stand."""

    firing: int = 0
    recovering: int = 0

    @property
    def text(self) -> str:
        """Say it, such as ``1 alert firing, 2 recovering`` or ``2 alerts recovering``."""
        if self.recovering and not self.firing:
            return f"{counted(self.recovering, 'alert')} recovering"
        said = f"{counted(self.firing, 'alert')} firing"
        return f"{said}, {self.recovering} recovering" if self.recovering else said


NO_ALERTS = StandingCounts()


class OpenAlerts(NamedTuple):
    """The open alerts of a model.

    Attributes:
        standing: Those that stand, in the order of `pick_standing`.
        explained_by: What explains the others, see `name_causes`.
    """

    standing: Sequence[AlertRow] = ()
    explained_by: str = ""


NO_OPEN_ALERTS = OpenAlerts()


def load_open_alerts(store: Store) -> dict[str, OpenAlerts]:
    """Return the open alerts of each model that has any."""
    with store.state.connect() as conn:
        rows = alert_state.load_open_alerts(conn)
    of_model: dict[str, list[AlertRow]] = {}
    for row in rows:
        of_model.setdefault(row["model"], []).append(row)
    return {
        model: OpenAlerts(
            sorted(filter(_name_standing, mine), key=_rank_row),
            name_causes(row["muted_reason"] for row in mine),
        )
        for model, mine in of_model.items()
    }


def name_causes(muted_reasons: Iterable[str]) -> str:
    """Name what explains open alerts, by why each is not sent; empty if nothing does.

    Example:
        >>> name_causes(["suppressed:event/sale", "", "silence:3", "suppressed:event/sale"])
        'the known event sale'
    """
    explained = filter(alert_state.is_explained, muted_reasons)
    return ", ".join(sorted({name_monitor(reason.partition(":")[2]) for reason in explained}))


def count_standing(rows: Iterable[AlertRow]) -> StandingCounts:
    """Count alerts by how they stand."""
    counts = Counter(map(_name_standing, rows))
    return StandingCounts(counts["firing"], counts["recovering"])


def _name_standing(row: AlertRow) -> Standing:
    return alert_state.name_standing(row["state"], row["muted_reason"])


def _rank_row(row: AlertRow) -> tuple[bool, Standing, dt.datetime, str]:
    opened = alert_state.find_opening(row)
    return _rank(row["severity"], _name_standing(row), opened, row["monitor"])


def pick_standing(episodes: Iterable[AlertEpisode]) -> list[AlertEpisode]:
    """Return what stands: errors first, what fires before what recovers, then the longest."""
    return sorted(
        (e for e in episodes if e.standing),
        key=lambda e: _rank(e.severity, e.standing, e.opened_window, e.monitor),
    )


def _rank(
    severity: str, standing: Standing, opened: dt.datetime, monitor: str
) -> tuple[bool, Standing, dt.datetime, str]:
    return severity != "ERROR", standing, opened, monitor


def _write_local(moment: dt.datetime | None, zone: str) -> str:
    return "" if moment is None else local_moment(moment, zone)


def name_metric(metric: str, column: str = "") -> str:
    """Write a metric as people call it, with its column."""
    if metric in NAMES:
        return subject(metric, column)
    name = metric.replace("_", " ")
    return f"{name} of {column}" if column not in ("", TABLE) else name


def name_monitor(monitor: str) -> str:
    """Write a monitor's id as people call it: family, metric and column.

    Example:
        >>> name_monitor("drift/psi/temp"), name_monitor("pipeline/run")
        ('drift: PSI of temp', 'pipeline: run')
    """
    if monitor.startswith(f"{EVENT}/"):
        return clean(f"the known event {monitor.removeprefix(f'{EVENT}/')}")
    family, metric, column = (*monitor.split("/", 2), "", "")[:3]
    label = FAMILIES[family].label if family in FAMILIES else family.replace("_", " ")
    return clean(f"{label}: {name_metric(metric, column)}")


def name_silence(row: AlertRow) -> str:
    """Return the command that silences an alert for a day."""
    return shlex.join(
        ["mlmon", "alerts", "silence", "--model", row["model"], "--monitor", row["monitor"],
         "--for", "24h"]
    )  # fmt: skip


def name_muted(reason: str) -> str:
    """Write why nothing was sent about an alert; empty if something was.

    Example:
        >>> name_muted("silence:3"), name_muted("suppressed:quality/null_rate/age")
        ('silence 3', 'explained by quality: Null share of age')
    """
    kind, _, what = reason.partition(":")
    return (
        f"explained by {name_monitor(what)}" if kind == "suppressed" else f"{kind} {what}".strip()
    )


def _name_slice(slice_key: str, slice_value: str) -> str:
    return "all" if slice_key == ALL else clean(f"{slice_key}={slice_value}")


def _name_slice_of(spec: ModelSpec | None, row: AlertRow) -> str:
    """Name the slice of an alert, without its value where that is personal."""
    if spec is not None and is_personal(spec, "", row["slice_key"]):
        return _name_slice(row["slice_key"], "***")
    return _name_slice(row["slice_key"], row["slice_value"])


def _say_why_unsent(episode: AlertEpisode) -> str:
    by = f"acknowledged by {episode.acked_by}" if episode.acked_by else ""
    return name_muted(episode.muted_reason) or by


def tabulate_alerts(
    specs: Sequence[ModelSpec], found: Sequence[AlertEpisode]
) -> Answer[AlertEpisode]:
    """Return the list of alerts: what opened, then in a section of its own what is pending.

    Args:
        specs: Models that are declared; alerts outlive their models.
        found: The alerts, as `list_alerts` returns them.
    """
    zones = {spec.model: spec.time.zone for spec in specs}
    shown = [_hide_values(specs, episode) for episode in found]
    opened = [episode for episode in shown if episode.state != "PENDING"]
    pending = [episode for episode in shown if episode.state == "PENDING"]
    parts = [render_text(Answer(alerts_in(specs), opened, zones))]
    if pending:
        below = render_text(Answer(pending_in(specs), pending, zones))
        parts += ["", "Pending, no alert unless more windows fail:", below]
    return Answer(alerts_in(specs), [*opened, *pending], zones, text="\n".join(parts))


def _hide_values(specs: Sequence[ModelSpec], episode: AlertEpisode) -> AlertEpisode:
    """Return an episode as it may be shown, to programs too."""
    spec = _find_spec(specs, episode.model)
    return episode if spec is None else replace(episode, message=explain_episode(spec, episode))


def alerts_in(specs: Sequence[ModelSpec]) -> Table[AlertEpisode]:
    """Return the table of alerts that opened, in sentences.

    Args:
        specs: Models that are declared, of which is known what is personal.
    """
    return Table(
        "alerts",
        (
            Column("ID", lambda e: e.fingerprint[:SHORT_ID]),
            Column("STATE", "state"),
            Column("SEVERITY", lambda e: e.severity or "-"),
            Column("MODEL", "model"),
            Column("SINCE", "opened_window", _write_local),
            Column("RECOVERED", "resolved_window", _write_local),
            Column("WORST", lambda e: number(e.worst_value), is_number=True),
            Column("WHAT", partial(_say_what, specs)),
            Column("NOT SENT", _say_why_unsent),
        ),
        "No alerts.",
    )


def pending_in(specs: Sequence[ModelSpec]) -> Table[AlertEpisode]:
    """Return the table of what failed too seldom to be an alert, with the severity it would have.

    Args:
        specs: As of `alerts_in`.
    """
    return Table(
        "pending",
        (
            Column("ID", lambda e: e.fingerprint[:SHORT_ID]),
            Column("WOULD BE", "would_be"),
            Column("MODEL", "model"),
            Column("FAILED", "failed_window", _write_local),
            Column("VALUE", lambda e: number(e.worst_value), is_number=True),
            Column("WHAT", partial(_say_what, specs)),
        ),
    )


def _say_what(specs: Sequence[ModelSpec], episode: AlertEpisode) -> str:
    """Say in one line what an alert is about: its finding, as it may be shown, else its monitor."""
    spec = _find_spec(specs, episode.model)
    what = clean(headline(episode.message), _FINDING) or name_monitor(episode.monitor)
    is_named = episode.slice_key == ALL or episode.slice_value in what
    if is_named or (spec is not None and is_personal(spec, "", episode.slice_key)):
        return what
    where = _name_slice(episode.slice_key, episode.slice_value)
    return f"{what} ({where})"


def _find_spec(specs: Iterable[ModelSpec], model: str) -> ModelSpec | None:
    """Return the declaration of a model; None if it has none, since alerts outlive their models."""
    return next((spec for spec in specs if spec.model == model), None)


def silences_at(now: dt.datetime) -> Table[SilenceRow]:
    """Return the table of silences as it is at a moment."""

    def name_state(row: SilenceRow) -> str:
        is_over, is_ahead = row["ends_at"] <= now, row["starts_at"] > now
        state = "ended" if is_over else "pending" if is_ahead else "active"
        return f"{state} by {clean(row['ended_by'])}" if row["ended_by"] else state

    def list_labels(row: SilenceRow) -> str:
        labels = json.loads(row["matcher"])
        return clean(", ".join(f"{name}={value}" for name, value in sorted(labels.items())), 200)

    return Table(
        "silences",
        (
            Column("ID", "id"),
            Column("STATE", name_state),
            Column("MATCHES", list_labels),
            Column("UNTIL (UTC)", "ends_at", utc_minute),
            Column("AUTHOR", lambda row: clean(row["author"])),
            Column("COMMENT", lambda row: clean(row["comment"], 200)),
        ),
        "No silences.",
    )


REFUSED_MESSAGES: Table[OutboxRow] = Table(
    "refused messages",
    (
        Column("ID", "id"),
        Column("WRITTEN (UTC)", "created_at", utc_minute),
        Column("TO", lambda row: clean(f"{row['receiver']} {row['channel']}")),
        Column("KIND", "kind"),
        Column("WHY", lambda row: clean(row["error"], 160)),
        Column("MESSAGE", lambda row: clean(shorten(json.loads(row["payload"])["plain"]), 80)),
    ),
    "No message was refused.",
)


class Happened(TypedDict):
    """Something that happened to an alert: in which window, and when that was noticed."""

    at: dt.datetime
    kind: str
    severity: str
    alert: str
    model: str
    monitor: str
    slice: str
    window_start: dt.datetime
    muted_reason: str
    message: str


HISTORY: Table[Happened] = Table(
    "alert history",
    (
        Column("WINDOW", "window_start", _write_local),
        Column("WHAT", "kind"),
        Column("SEVERITY", lambda one: one["severity"] or "-"),
        Column("MODEL", "model"),
        Column("MONITOR", lambda one: name_monitor(one["monitor"])),
        Column("SLICE", "slice"),
        Column("NOTICED (UTC)", "at", utc_minute),
        Column("MUTED", lambda one: name_muted(one["muted_reason"])),
        Column("SAID", lambda one: clean(one["message"], _SENTENCE)),
    ),
    "Nothing happened.",
)


def ask_history(
    store: Store,
    specs: Sequence[ModelSpec],
    model: str | None = None,
    since: dt.datetime | None = None,
    limit: int = 200,
) -> Answer[Happened]:
    """Return what happened to alerts, the newest last; older ones beyond the limit are counted.

    Args:
        store: Where the state database is.
        specs: Models that are declared, whose windows are named in their time zone, others in UTC.
        model: Only of this model.
        since: Only what was written after this time.
        limit: At most so many, the newest.
    """
    with store.state.connect() as conn:
        rows = alert_state.all_alerts(conn, model)
        events = [e for found in alert_state.all_events(conn, model).values() for e in found]
    wanted = [e for e in events if since is None or e["created_at"] >= since]
    wanted.sort(key=lambda e: e["id"])
    found = [
        _happened(specs, e, rows[e["fingerprint"]])
        for e in wanted[-limit:]
        if e["fingerprint"] in rows
    ]
    zones = {spec.model: spec.time.zone for spec in specs}
    n_older = len(wanted) - len(found)
    below = f"({n_older} older ones left out)" if n_older and found else ""
    return Answer(HISTORY, found, zones, below=below)


def _happened(specs: Sequence[ModelSpec], event: StoredEvent, row: AlertRow) -> Happened:
    spec = _find_spec(specs, row["model"])
    is_hidden = spec is not None and is_personal(spec, row["column_name"], row["slice_key"])
    return {
        "at": event["created_at"],
        "kind": event["kind"],
        "severity": event["severity"],
        "alert": row["fingerprint"][:SHORT_ID],
        "model": row["model"],
        "monitor": row["monitor"],
        "slice": _name_slice_of(spec, row),
        "window_start": find_window(event),
        "muted_reason": event["muted_reason"],
        "message": "" if is_hidden else event["message"],
    }


def shorten(text: str) -> str:
    """Return the first line of a text, cut where it is long."""
    first = text.split("\n")[0]
    return first if len(first) <= _FIRST_LINE else first[: _FIRST_LINE - 3] + "..."


def is_personal(spec: ModelSpec, column: str, slice_key: str = ALL) -> bool:
    """Tell whether what is said of a column or slice may hold personal values."""
    named = (spec.features.get(name) for name in (column, *slice_key.split(",")))
    return any(feature is not None and bool(feature.pii) for feature in named)


def explain_episode(spec: ModelSpec, episode: AlertEpisode) -> str:
    """Return an alert's sentence; one about a pii column is told without the stored text.

    The text may have been stored before the column was marked, with values in it.
    """
    if not is_personal(spec, episode.column, episode.slice_key):
        return episode.message
    return _say_without_values(episode.metric, episode.column, episode.worst_value)


def explain_alert(spec: ModelSpec, row: AlertRow) -> str:
    """Return the same of an alert as it is stored."""
    if not is_personal(spec, row["column_name"], row["slice_key"]):
        return view_of(row).sentence
    return _say_without_values(row["metric"], row["column_name"], row["value"])


def _say_without_values(metric: str, column: str, value: float | None) -> str:
    what = subject(metric, column)
    return f"{what} failed." if value is None else f"{what} reached {written(value)}."


def ask_alert(store: Store, short_id: str, specs: Sequence[ModelSpec]) -> Answer[AlertRow]:
    """Return everything that is known of one alert.

    Args:
        store: Where the state database is.
        short_id: The beginning of its id.
        specs: Models that are declared: their time zones, and what is personal.

    Raises:
        ConfigError: If there is no such alert.
    """
    row = find_alert(store, short_id)
    spec = _find_spec(specs, row["model"])
    zone = "UTC" if spec is None else spec.time.zone
    with store.state.connect() as conn:
        events = alert_state.all_events(conn, row["model"]).get(row["fingerprint"], [])
        episodes = _episodes(conn, row, events)
    view, shown = view_of(row, zone), pick_newest(row, episodes)
    is_newer = shown is not None and has_failed_since(row, shown.resolved_window)
    facts = {
        "Alert": row["fingerprint"][: SHORT_ID + 4],
        "Model": row["model"],
        **list_facts(view, episodes),
        "Said": row["message"] if shown is None else shown.message,
        "Numbers": "" if is_newer else view.numbers,
        "Why": "" if is_newer else "; ".join(view.why),
        "Runbook": row["runbook"],
        "Last windows": ", ".join(_recent(row, zone)),
        "Silence it": name_silence(row) if row["state"] in alert_state.ACTIVE else "",
    }
    mine = [e for e in events if shown is not None and e["episode"] == shown.episode]
    if spec is not None and is_personal(spec, row["column_name"], row["slice_key"]):
        said = explain_alert(spec, row) if shown is None else explain_episode(spec, shown)
        facts |= {"Slice": _name_slice_of(spec, row), "Said": said}
        facts |= dict.fromkeys(TELLING_FACTS, "")
        mine = [{**event, "message": ""} for event in mine]
        row = {**row, "message": said, "details": "{}"}
    lines = [f"{name + ':':<16} {clean(facts[name], 500)}" for name in _FACTS if facts.get(name)]
    if mine:
        lines += ["", render_text(Answer(EPISODE, mine, zone))]
    if earlier := name_earlier(view, episodes):
        lines += ["", "Earlier episodes:", *(f"  {text}" for text in earlier)]
    return Answer(Table("alert", ()), [row], text="\n".join(lines))


EPISODE: Table[StoredEvent] = Table(
    "episode",
    (
        Column("WINDOW", find_window, _write_local),
        Column("WHAT", "kind"),
        Column("NOTICED (UTC)", "created_at", utc_minute),
        Column("SAID", lambda event: clean(event["message"], _SENTENCE)),
    ),
)


def pick_newest(row: AlertRow, episodes: Sequence[AlertEpisode]) -> AlertEpisode | None:
    """Return the episode that an alert is in, else the one that began last; None if pending only.

    Args:
        row: The alert.
        episodes: Those of it; others are passed over.
    """
    mine = [e for e in episodes if e.fingerprint == row["fingerprint"] and e.episode]
    active = [e for e in mine if e.state in alert_state.ACTIVE]
    if active:
        return active[0]
    return max(mine, key=lambda e: (e.state != "WITHDRAWN", e.opened_window), default=None)


def name_earlier(view: AlertView, episodes: Sequence[AlertEpisode]) -> list[str]:
    """Name the other episodes of an alert by their windows and ends, the newest first.

    Args:
        view: The alert.
        episodes: Those of it; others are passed over.
    """
    shown = pick_newest(view.row, episodes)
    mine = [e for e in episodes if e.fingerprint == view.row["fingerprint"] and e.episode]
    others = [e for e in mine if e != shown]
    return [
        f"{e.episode}: from {view.moment(e.opened_window)}"
        + (f" to {view.moment(e.resolved_window)}" if e.resolved_window else "")
        + f", worst {number(e.worst_value)}" * (e.worst_value is not None)
        + ", withdrawn" * (e.state == "WITHDRAWN")
        + (f", not sent: {name_muted(e.muted_reason)}" if e.muted_reason else "")
        for e in sorted(others, key=lambda e: e.opened_window, reverse=True)
    ]


_FACTS = (
    "Alert", "Model", "Monitor", "Slice", "State", "Episode", "Since", "Changed", "Worst",
    "Last failed", "Recovered", "Failed again", "Told", "Noticed", "Said", "Numbers", "Why",
    "Not sent", "Acknowledged by", "Ended", "Owner", "Runbook", "Last windows", "Next",
    "Silence it",
)  # fmt: skip


TELLING_FACTS = ("Changed", "Failed again", "Why")  # that may hold values of a column


def list_facts(view: AlertView, episodes: Sequence[AlertEpisode]) -> dict[str, str]:
    """Return what an alert is about, its windows, and who has to do with it; empty if unknown.

    Args:
        view: The alert.
        episodes: Those of it; others are passed over.
    """
    row, shown = view.row, pick_newest(view.row, episodes)
    return {
        "Monitor": name_monitor(row["monitor"]),
        "Slice": _name_slice(row["slice_key"], row["slice_value"]),
        **(_list_times(view, shown) if shown else {"State": row["state"]}),
        "Changed": view.change,
        "Acknowledged by": f"{row['acked_by']} at {view.moment(row['acked_at'])}"
        if row["acked_at"]
        else "",
        "Owner": row["owner"],
        "Next": view.next_step if row["state"] in alert_state.ACTIVE else "",
    }


def _list_times(view: AlertView, shown: AlertEpisode) -> dict[str, str]:
    """Return how an episode stands and when it was, in windows; when it was told is another."""
    ended, failed = shown.resolved_window, shown.failed_window
    told = "Told" if shown.is_told else "Noticed"
    reason = view.row["resolved_reason"].replace("_", " ")
    is_last = shown.episode == view.row["episode"]
    return {
        "State": f"{shown.state} ({shown.severity})" if shown.severity else shown.state,
        "Episode": str(shown.episode),
        "Since": view.moment(shown.opened_window),
        "Worst": "" if shown.worst_value is None else number(shown.worst_value),
        "Last failed": view.moment(failed) if failed else "",
        "Recovered": view.moment(ended) if ended else "",
        "Failed again": _name_failed_again(view, shown),
        told: f"{shown.noticed_at:%Y-%m-%d %H:%M} UTC",
        "Not sent": name_muted(shown.muted_reason),
        "Ended": reason if ended and is_last else "",
    }


def _name_failed_again(view: AlertView, shown: AlertEpisode) -> str:
    """Name the windows that failed since an alert ended, which were too few for another one."""
    ended = shown.resolved_window
    if ended is None:
        return ""
    recent = (
        (dt.datetime.fromisoformat(start), status)
        for start, status, *_ in json.loads(view.row["recent"])
    )
    again = [view.moment(w) for w, status in recent if w > ended and status in ("WARN", "ERROR")]
    pending = "pending" if view.row["state"] == "PENDING" else "too few for an alert"
    newest = f"; {view.headline}" if has_failed_since(view.row, ended) else ""
    return f"{', '.join(again)} ({pending}){newest}" if again else ""


def _recent(row: AlertRow, zone: str) -> list[str]:
    recent = json.loads(row["recent"])[-_LAST:]
    return [
        f"{local_moment(dt.datetime.fromisoformat(start), zone)} {status}"
        for start, status, *_ in recent
    ]
