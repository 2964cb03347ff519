"""What the page of a model opens with: what fires, since when, why and what next; then its days."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mlmon_dagster.monitors.wording import beyond_headline, explain, headline
from mlmon_dagster.report.charts import draw_strip, windows_named
from mlmon_dagster.report.distributions import Period
from mlmon_dagster.report.page import Places
from mlmon_dagster.spec import ModelSpec, window_containing
from mlmon_dagster.spec.declaration import Granularity
from mlmon_dagster.spec.monitors import advise
from mlmon_dagster.spec.names import TABLE
from mlmon_dagster.spec.windows import windows_between
from mlmon_dagster.store import Store, alert_state
from mlmon_dagster.store.alert_state import ACTIVE, SHORT_ID, AlertEpisode
from mlmon_dagster.store.state import monitor_results
from mlmon_dagster.store.state.monitor_results import name_window
from mlmon_dagster.store.state.window_state import WindowInputs
from mlmon_dagster.tables.alerts import explain_episode, is_personal, name_monitor

DAYS_SHOWN: dict[Granularity, int] = {"hour": 168, "day": 90, "week": 52, "month": 24}
MOST_CARDS = 3
_REASONS = 3


@dataclass(frozen=True)
class Incident:
    """One alert that has not ended, as its card tells it.

    Attributes:
        severity: The highest so far.
        state: FIRING, or RECOVERING while the windows after it have to confirm that it is over.
        headline: What is wrong, in plain words.
        statistics: What stands behind the headline; empty where that says it all.
        since: The first failing window.
        lasts: How many windows that are, in words, the newest included.
        why: What explains it, the most important first.
        monitor: What people call its monitor.
        acked_by: Who has taken it on; empty if nobody has.
        next_step: What its reader does next.
        href: Its page; empty in a file, which leads nowhere.
        commands: What to run next, where there is no page.
    """

    severity: str
    state: str
    headline: str
    statistics: str
    since: str
    lasts: str
    why: Sequence[str]
    monitor: str
    acked_by: str
    next_step: str
    href: str
    commands: Sequence[str]


def find_incidents(
    store: Store,
    spec: ModelSpec,
    episodes: Sequence[AlertEpisode],
    newest: dt.datetime | None,
    places: Places,
) -> list[Incident]:
    """Return the cards of alerts that have not ended, in their order.

    Args:
        store: The store, which has what explains them.
        spec: The model.
        episodes: The alerts.
        newest: Start of the newest window; None without windows.
        places: Where the page leads.
    """
    if not episodes:
        return []
    with store.state.connect() as conn:
        rows = alert_state.load_alerts(conn, spec.model, states=ACTIVE)
    found = []
    for episode in episodes:
        href = places.alert(spec.model, episode.fingerprint)
        hidden = is_personal(spec, episode.column, episode.slice_key)
        row = rows.get(episode.fingerprint)
        explained = json.loads(row["details"]).get("explain", {}) if row else {}
        why = explain(episode.metric, episode.column or TABLE, explained)
        sentence = explain_episode(spec, episode)
        found.append(
            Incident(
                severity=episode.severity or "WARN",
                state=episode.state,
                headline=f"{headline(sentence)}.",
                statistics=beyond_headline(sentence),
                since=name_window(spec, episode.opened_window),
                lasts=count_windows(spec, episode.opened_window, newest),
                why=[] if hidden else [f"{text[:1].upper()}{text[1:]}." for text in why[:_REASONS]],
                monitor=name_monitor(episode.monitor),
                acked_by=episode.acked_by,
                next_step=advise(
                    spec.model,
                    episode.family,
                    episode.metric,
                    episode.column,
                    episode.fingerprint[:SHORT_ID],
                ),
                href=href,
                commands=[] if href else _name_commands(episode),
            )
        )
    return found


def find_period(
    spec: ModelSpec, episodes: Sequence[AlertEpisode], newest: dt.datetime | None
) -> Period | None:
    """Return the windows of the first alert, whose card comes first; None without such windows.

    Args:
        spec: The model.
        episodes: The alerts that have not ended.
        newest: Start of the newest window; None without windows.
    """
    opened = episodes[0].opened_window if episodes else None
    if opened is None or newest is None or newest < opened:
        return None
    return opened, window_containing(spec.time, newest).end


def pick_labelled(incident: Period | None, mature: Period | None) -> Period | None:
    """Return the incident's windows whose ground truth has come, else the newest that have.

    Args:
        incident: Its windows.
        mature: The newest windows that have their ground truth.
    """
    if incident is None or mature is None or incident[0] >= mature[1]:
        return mature
    return incident[0], min(incident[1], mature[1])


def count_windows(spec: ModelSpec, opened: dt.datetime, newest: dt.datetime | None) -> str:
    """Say how many windows there are from one to the newest, both included, such as ``4 days``."""
    if newest is None or newest < opened:
        return ""
    n = len(windows_between(spec.time, opened, window_containing(spec.time, newest).end))
    return f"{n} {spec.time.granularity}{'' if n == 1 else 's'}"


def _name_commands(episode: AlertEpisode) -> list[str]:
    short = episode.fingerprint[:SHORT_ID]
    return [f"mlmon alerts show {short}", f"mlmon alerts ack {short}"]


@dataclass(frozen=True)
class Days:
    """How each family judged the newest windows.

    Attributes:
        labels: Names of the windows, oldest first.
        strips: Family -> a picture with a stretch per status.
        said: Family -> the same in words.
    """

    labels: Sequence[str]
    strips: Mapping[str, Markup]
    said: Mapping[str, str]


def show_days(
    store: Store,
    spec: ModelSpec,
    states: Mapping[dt.datetime, WindowInputs],
    families: Sequence[str],
    now: dt.datetime,
) -> Days:
    """Return the newest windows of each family by their worst status.

    All windows that follow each other, also those without a row: their silence is judged, too.

    Args:
        store: The store.
        spec: The model.
        states: Its windows.
        families: The families, which each get a strip.
        now: Windows that start before this moment.
    """
    known = sorted(start for start in states if start < now)
    if not known:
        return Days([], {}, {})
    n_shown = DAYS_SHOWN[spec.time.granularity]
    oldest = known[-n_shown:][0]
    worst = monitor_results.worst_by_window(store.state, spec.model, oldest, now)
    newest = max([known[-1], *(start for _, start in worst)])
    end = window_containing(spec.time, newest).end
    starts = [window.start for window in windows_between(spec.time, oldest, end)][-n_shown:]
    strips, said = {}, {}
    for family in families:
        kinds = [worst.get((family, start), "") for start in starts]
        strips[family] = draw_strip([f"s{kind}" if kind else "" for kind in kinds])
        counts = {kind: kinds.count(kind) for kind in ("ERROR", "WARN", "OK", "NO_DATA")}
        said[family] = ", ".join(f"{kind} in {n}" for kind, n in counts.items() if n)
    return Days(windows_named(starts, spec.time.zone), strips, said)
