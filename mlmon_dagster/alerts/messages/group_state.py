"""What a flush knows of one model: its alerts, what receivers were told of them, and what is new.

What fired and ended between two looks is told: nobody may have been looking. And reminders follow
news: they come after a window that has been judged since, at growing distances.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.routing import (
    Destination,
    destinations,
    fallback_of,
    silenced_by,
)
from mlmon_dagster.alerts.messages.message import (
    Curve,
    Message,
    Plot,
    clean,
    outbox_row,
    plot_row,
    row_key,
)
from mlmon_dagster.alerts.messages.view import (
    AlertView,
    Context,
    end_view,
    has_failed_since,
    late_message,
    missed_message,
    number,
    past_episode,
    view_of,
    worst_first,
)
from mlmon_dagster.monitors.wording import BEYOND_CHANCE, as_judged, limit_of
from mlmon_dagster.spec.baseline import GRAINS
from mlmon_dagster.store import alert_state, outbox
from mlmon_dagster.store.alert_state import AlertRow, GroupRow, SilenceRow, silences_in_force
from mlmon_dagster.store.clocks import is_ahead
from mlmon_dagster.store.state.monitor_results import series

SUMMARY = "summary"  # the group of the message that ends a backfill
LATE = "late"  # the kind of a message about past windows, which is a thread of its own
IN_THREAD, INLINE = "slack", ("email",)  # how a receiver shows plots; others show none
DISTANCES = (1, 2, 4, 8, 30)  # of the reminders in a thread; the last one goes on
# What a model of that name was told before it was removed has other keys: its last message counts,
# in steps, as a version may be no message of its own.
_VERSIONS_A_MESSAGE = 1_000
_DAY = dt.timedelta(days=1)
# Windows between the first failures of alerts that one cause makes. A monitor of several windows
# together, or one that notices little, sees the same fault some windows later.
SAME_CAUSE = 7
FAR = math.inf
MAX_CURVES = 3
MAX_WINDOWS = 60
_FAILED = ("WARN", "ERROR")
_PLOT_TITLE = 120
_ALT = 900


@dataclass
class GroupState:
    """The alerts and groups of one model, inside one transaction.

    Attributes:
        conn: The transaction.
        context: The model.
        now: The time of the flush.
        groups: Rows of the notification log by group key.
        alerts: Rows of the alerts that are active or were told about, by fingerprint.
        silences: The silences in force.
        changes: How each alert's episode escalated, changed or was revised, oldest first.
        routes: Where each alert goes now, and who is mentioned there, by fingerprint.
        views: The alerts as people read them.
        with_plots: Whether messages that tell something new get a picture of it.
        untold: Episodes of which something is in no message, by fingerprint.
        late: Those of them of which that is late news about past windows.
    """

    conn: sa.Connection
    context: Context
    now: dt.datetime
    groups: dict[str, GroupRow]
    alerts: dict[str, AlertRow]
    silences: Sequence[SilenceRow]
    changes: dict[str, list[str]]
    routes: dict[str, dict[Destination, str]]
    views: dict[str, AlertView] = field(default_factory=dict)
    with_plots: bool = False
    untold: Mapping[str, Collection[int]] = field(default_factory=dict)
    late: Mapping[str, Collection[int]] = field(default_factory=dict)

    def apply_silences(self) -> None:
        """Mute what a silence matches, and unmute what none matches any more."""
        for fingerprint, row in self.alerts.items():
            muted = row["muted_reason"]
            if row["state"] not in alert_state.ACTIVE or not (muted == "" or _is_silence(muted)):
                continue
            silence = silenced_by(row, self.silences)
            reason = "" if silence is None else f"silence:{silence}"
            if reason != muted:
                row["muted_reason"] = reason
                alert_state.set_muted(self.conn, fingerprint, reason)

    def is_active(self, episode: str) -> bool:
        """Tell whether an episode goes on."""
        fingerprint, number = episode.split(":")
        row = self.alerts.get(fingerprint)
        return (
            row is not None and row["episode"] == int(number) and row["state"] in alert_state.ACTIVE
        )

    def is_late(self, episode: str) -> bool:
        """Tell whether an episode of past windows has late news that nobody was told."""
        fingerprint, number = split(episode)
        return number in self.late.get(fingerprint, ())

    def silence_of(self, episode: str) -> int | None:
        """Return the id of the silence that matches the alert of an episode; None if none does."""
        return silenced_by(self.alerts[split(episode)[0]], self.silences)

    def key(self, row: AlertRow) -> str:
        """Name what is told of an alert: its episode and how often that changed."""
        return f"{row['fingerprint']}:{row['episode']}:{len(self.changes[row['fingerprint']])}"

    def changes_since(self, key: str) -> list[str]:
        """Return what has happened in an episode since it was told under a key."""
        fingerprint, _, n_told = key.split(":")
        return self.changes[fingerprint][int(n_told) :]

    def destinations(self) -> list[Destination]:
        """Return the places that an alert goes to, or that have still to hear of one."""
        routed = {place for places in self.routes.values() for place in places}
        open_ = [g for g in self.groups.values() if (g["firing"], g["owed"]) != ("[]", "[]")]
        waiting = {place_of(group) for group in open_}
        return sorted(routed | waiting)

    def active(self, group: GroupRow) -> dict[str, AlertRow]:
        """Return by key the active alerts of a group that go to its place or were told of there.

        An alert that escalates onto another route is new there, and stays in the thread where it
        was told of until it ends.
        """
        place, told = place_of(group), told_of(group)
        firing = episodes_of(told.firing)
        mine = [self.alerts[split(key)[0]] for key in firing | told.owed if self.is_active(key)]
        return {
            key: row
            for row in mine
            if episode_of(key := self.key(row)) in firing or self.goes_to(row, place)
        }

    def goes_to(self, row: AlertRow, destination: Destination) -> bool:
        """Tell whether the spec sends an alert to a place now."""
        return destination in self.routes.get(row["fingerprint"], {})

    def context_of(self, group: GroupRow) -> Context:
        """Return what a message for a group needs to know."""
        place = place_of(group)

        def mention(view: AlertView) -> str:
            return self.routes.get(view.row["fingerprint"], {}).get(place, "")

        return replace(
            self.context,
            mention_of=mention,
            n_suppressed=self.count_suppressed(place),
            standing=[
                view
                for view in self.views.values()
                if alert_state.name_standing(view.row["state"], view.row["muted_reason"])
            ],
        )

    def count_suppressed(self, place: Destination) -> dict[str, int]:
        """Count the alerts that each schema or freshness monitor keeps a place from hearing of.

        One that the place was told of before its window broke is not among them.
        """
        heard = self.collect_told(place).episodes
        reasons = [
            row["muted_reason"]
            for row in self.alerts.values()
            if alert_state.is_explained(row["muted_reason"])
            and episode_of(self.key(row)) not in heard
        ]
        return Counter(reason.partition(":")[2] for reason in reasons)

    def views_of(self, keys: Iterable[str]) -> list[AlertView]:
        """Return the alerts that keys name, each once."""
        fingerprints = dict.fromkeys(key.split(":")[0] for key in sorted(keys))
        return [self.views[f] for f in fingerprints if f in self.views]

    def episodes(self, keys: Iterable[str]) -> list[AlertView]:
        """Return episodes by key, also those after which the alert has fired again."""
        history = alert_state.all_events(self.conn, self.context.spec.model)
        zone, found = self.context.spec.time.zone, []
        for key in sorted(keys):
            fingerprint, number = key.split(":")
            if fingerprint not in self.alerts:
                continue
            row = self.alerts[fingerprint]
            # An alert that is not active may have failed since without opening another episode.
            if row["episode"] != int(number) or row["state"] not in alert_state.ACTIVE:
                of_it = [e for e in history.get(fingerprint, ()) if e["episode"] == int(number)]
                row = {**past_episode(row, of_it), "episode": int(number)}
            found.append(view_of(row, zone))
        return found

    def ended_views(self, keys: Iterable[str]) -> list[AlertView]:
        """Return episodes that have ended: as they are, or as they were if it failed since."""
        named = {episode_of(key) for key in keys}
        as_it_was = {view.row["fingerprint"]: view for view in self.episodes(named)}
        since = [
            f
            for f, view in as_it_was.items()
            if has_failed_since(self.alerts[f], view.row["last_window_start"])
        ]
        return [
            view if f in since else end_view(self.views[f], view) for f, view in as_it_was.items()
        ]

    def groups_at(self, place: Destination) -> list[GroupRow]:
        """Return what a place was told of this model, thread by thread; summaries are none."""
        found = [g for g in self.groups.values() if place_of(g) == place and g["family"] != SUMMARY]
        return sorted(found, key=lambda group: group["group_key"])

    def collect_told(self, place: Destination) -> Told:
        """Return what a place was told of this model in all threads together."""
        every = [told_of(group) for group in self.groups_at(place)]
        return Told(
            firing=frozenset(key for told in every for key in told.firing),
            resolved=frozenset(key for told in every for key in told.resolved),
            owed=frozenset(key for told in every for key in told.owed),
        )

    def find_group(self, place: Destination, view: AlertView) -> GroupRow:
        """Return the notification log of the thread in which a place hears of an episode.

        What fires for one model within the same windows has one cause, so it is one thread: an
        episode joins the open thread with an alert that began to fail next to it, else the one that
        already tells of its family. An alert that ended and opened again before anybody was told of
        its end goes on in its thread. Of what is over, nothing goes on that would need a thread of
        its own.

        Args:
            place: The place.
            view: The episode.
        """
        mine = self.groups_at(place)
        is_past = self.is_late(view.episode) and not self.is_active(view.episode)
        for group in mine:
            told = told_of(group)
            if view.episode in (told.episodes - told.resolved if is_past else told.episodes):
                return group
        open_ = [group for group in mine if told_of(group).firing or self.active(group)]
        joined = None if is_past else self._find_cause(open_, view.row)
        if joined is not None:
            return joined
        idle = [group for group in mine if group not in open_]
        if not idle:
            return self._add_group(place, str(len(mine) + 1), view.row["family"])
        if not told_of(idle[0]).owed:  # else it is still to tell of what is over
            idle[0]["family"] = view.row["family"]
        return idle[0]

    def _find_cause(self, groups: Sequence[GroupRow], row: AlertRow) -> GroupRow | None:
        """Return the open thread that an alert belongs to; None if its cause is a new one."""
        ranked = []
        for group in groups:
            members = self.list_members(group)
            if row in members:
                return group
            distance = min((self.measure_distance(row, other) for other in members), default=FAR)
            of_family = any(other["family"] == row["family"] for other in members)
            if distance <= SAME_CAUSE or of_family:
                ranked.append((distance, group["group_key"], group))
        return min(ranked)[-1] if ranked else None

    def list_members(self, group: GroupRow) -> list[AlertRow]:
        """Return the alerts of a thread: as far as they are in the episode that it tells of.

        An alert that fires there is a member also when it ended and opened again since: the thread
        was not told of its end.
        """
        told = told_of(group)
        firing = episodes_of(told.firing)
        keys = (key for key in told.episodes if split(key)[0] in self.alerts)
        rows = {key: self.alerts[split(key)[0]] for key in keys}
        return [
            row for key, row in rows.items() if row["episode"] == split(key)[1] or key in firing
        ]

    def measure_distance(self, one: AlertRow, other: AlertRow) -> float:
        """Return how many windows lie between the first failing windows of two alerts."""
        if one["opened_window"] is None or other["opened_window"] is None:
            return FAR
        length = GRAINS[self.context.spec.time.granularity]
        return abs((one["opened_window"] - other["opened_window"]) / length)

    def summary_group(self, place: Destination) -> GroupRow:
        """Return a place's notification log of the messages that end backfills."""
        key = _name_key(place, self.context.spec.model, SUMMARY)
        return self.groups.get(key) or self._add_group(place, SUMMARY, SUMMARY)

    def _add_group(self, place: Destination, thread: str, family: str) -> GroupRow:
        """Add a notification log for threads that do not overlap, one after the other."""
        group_key = _name_key(place, self.context.spec.model, thread)
        self.groups[group_key] = {
            "group_key": group_key,
            "receiver": place.receiver,
            "channel": place.channel,
            "model": self.context.spec.model,
            "family": family,
            "head_key": "",
            "version": outbox.last_of(self.conn, group_key) * _VERSIONS_A_MESSAGE,
            "firing": "[]",
            "resolved": "[]",
            "owed": "[]",
            "n_reminders": 0,
            "last_sent_at": None,
            "first_dirty_at": None,
            "next_flush_at": None,
        }
        return self.groups[group_key]

    def enqueue(
        self,
        group: GroupRow,
        key: str,
        kind: str,
        text: Message,
        *,
        head_key: str,
        tells: Iterable[str] = (),
        handles: Iterable[str] | None = None,
        next_at: dt.datetime = outbox.AT_ONCE,
        pictured: Sequence[AlertView] = (),
    ) -> None:
        """Write a message into the outbox, and a plot of some alerts where plots are shown.

        Args:
            group: The notification log that it belongs to.
            key: Its idempotency key.
            kind: What kind of message it is.
            text: What it says.
            head_key: Key of the message that opened the thread; empty to open one.
            tells: The episodes of which it tells all that has happened so far.
            handles: The episodes that its buttons act on; by default those that it tells.
            next_at: When it is due, in real time.
            pictured: The alerts to draw.
        """
        episodes = sorted({episode_of(k) for k in tells})
        receiver = group["receiver"]
        wanted = self.with_plots and pictured and receiver in (IN_THREAD, *INLINE)
        plot = plot_of(self.conn, pictured) if wanted else None
        rows = [
            outbox_row(
                group,
                key,
                kind,
                text,
                head_key=head_key,
                now=self.now,
                fallback=fallback_of(self.context.spec, place_of(group)),
                tells=episodes,
                handles=None if handles is None else sorted({episode_of(k) for k in handles}),
                plot=plot if receiver in INLINE else None,
            )
        ]
        if plot and receiver == IN_THREAD:
            rows.append(plot_row(group, key, plot, thread=head_key or key, now=self.now))
        outbox.enqueue(self.conn, rows, next_at)
        alert_state.mark_told(self.conn, map(split, episodes), key)

    def enqueue_over(
        self, group: GroupRow, part: str, over: Collection[str]
    ) -> dict[str, list[str]]:
        """Say of episodes that they are over, in as many messages as it takes to name them all.

        What was learnt of past windows afterwards is told apart, and in threads of its own.

        Args:
            group: The notification log that they belong to.
            part: Tells these messages from others of the same version.
            over: The episodes.

        Returns:
            By the key of each message the episodes that it tells.
        """
        views, told = self.episodes(over), dict[str, list[str]]()
        late = [view for view in views if view.is_late_news]
        missed = [view for view in views if not view.is_late_news]
        for kind, render, left in (
            ("resolved", missed_message, missed),
            (LATE, late_message, late),
        ):
            while left:
                key = row_key(group, f"{part}{len(told) or ''}")
                text, rest = render(self.context_of(group), left)
                untold = {view.episode for view in rest}
                told[key] = [view.episode for view in left if view.episode not in untold]
                handles = () if kind == LATE else None  # nothing goes on that one could take on
                self.enqueue(group, key, kind, text, head_key="", tells=told[key], handles=handles)
                left = list(rest)
        return told


def load(
    conn: sa.Connection,
    context: Context,
    now: dt.datetime,
    *,
    with_plots: bool = False,
    also: Collection[str] = (),
) -> GroupState:
    """Read the state of one model and ``also`` some alerts, with today's silences applied."""
    model = context.spec.model
    groups = alert_state.load_groups(conn, model)
    for group in groups.values():
        # Told by a clock that was ahead: the next reminder is due one wait from now, not from then.
        if group["last_sent_at"] is not None and is_ahead(group["last_sent_at"], now):
            group |= {"last_sent_at": now, "next_flush_at": now}
            alert_state.save_group(conn, group)
    untold = alert_state.untold_episodes(conn, model)
    told = [json.loads(g[name]) for g in groups.values() for name in ("firing", "resolved", "owed")]
    fingerprints = sorted({key.split(":")[0] for keys in told for key in keys} | {*untold, *also})
    alerts = alert_state.load_alerts(
        conn, model, states=alert_state.ACTIVE, fingerprints=fingerprints
    )
    episodes = {key: row["episode"] for key, row in alerts.items()}
    state = GroupState(
        conn=conn,
        context=context,
        now=now,
        groups=groups,
        alerts=alerts,
        silences=silences_in_force(conn, now),
        changes=alert_state.changes_announced(conn, episodes),
        routes={
            key: destinations(context.spec, row)
            for key, row in alerts.items()
            if row["state"] in alert_state.ACTIVE
        },
        with_plots=with_plots,
        untold=untold,
        late=alert_state.untold_episodes(conn, model, late=True),
    )
    state.apply_silences()
    state.views = {key: view_of(row, context.spec.time.zone) for key, row in alerts.items()}
    return state


def _name_key(place: Destination, model: str, thread: str) -> str:
    return "|".join((*place, model, thread))


def place_of(group: GroupRow) -> Destination:
    """Return the place that a group's messages go to."""
    return Destination(group["receiver"], group["channel"])


def told_of(group: GroupRow) -> Told:
    """Read what was told about a group."""
    return Told(
        frozenset(json.loads(group["firing"])),
        frozenset(json.loads(group["resolved"])),
        frozenset(json.loads(group["owed"])),
        group["last_sent_at"],
    )


def episode_of(key: str) -> str:
    """Strip how often the episode changed: a key of ``resolved``."""
    return ":".join(key.split(":")[:2])


def episodes_of(keys: Iterable[str]) -> set[str]:
    """Return the episodes that keys name."""
    return {episode_of(key) for key in keys}


def dump(keys: Iterable[str]) -> str:
    """Write keys the way the notification log keeps them."""
    return json.dumps(sorted(keys))


def split(episode: str) -> tuple[str, int]:
    """Return the fingerprint and the number that name an episode."""
    fingerprint, number = episode.split(":")
    return fingerprint, int(number)


def _is_silence(reason: str) -> bool:
    return reason.startswith("silence:")


def distance(n_reminders: int, window: dt.timedelta, least: dt.timedelta) -> dt.timedelta:
    """Return how long after a thread's last message the next reminder may come.

    Args:
        n_reminders: How many the thread has had.
        window: Length of a window; the distances are counted in these, or in days if it is shorter.
        least: The declared least distance, ``alerts.repeat``; shorter ones are left out.
    """
    unit = max(window, _DAY)
    far = [times * unit for times in DISTANCES if times * unit >= least] or [least]
    return far[min(n_reminders, len(far) - 1)]


@dataclass(frozen=True)
class Told:
    """The notification log: what a receiver was last told about a group, and what it is owed.

    Attributes:
        firing: Keys of the alerts that were announced and not yet resolved.
        resolved: Episodes whose end was announced in the same thread.
        owed: Episodes that it must still hear of, also when they are over.
        at: When it was told; None if never.
    """

    firing: frozenset[str] = frozenset()
    resolved: frozenset[str] = frozenset()
    owed: frozenset[str] = frozenset()
    at: dt.datetime | None = None

    @property
    def episodes(self) -> Set[str]:
        """All episodes that its thread is about."""
        return episodes_of(self.firing) | self.resolved | self.owed


def plot_of(conn: sa.Connection, views: Sequence[AlertView]) -> Plot | None:
    """Return the plot of some alerts of one model; None if there is nothing to draw.

    The worst alerts with a history of two values or more get a curve each: value and interval by
    window, the baseline, the limit, and which windows failed.

    Args:
        conn: The state database.
        views: The alerts.
    """
    ordered = worst_first([view for view in views if view.row["family"] != "pipeline"])
    curves: list[Curve] = []
    shown = []
    for view in ordered:
        curve = _read_curve(conn, view)
        if curve is not None:
            curves.append(curve)
            shown.append(view)
        if len(curves) == MAX_CURVES:
            break
    if not curves:
        return None
    model = shown[0].row["model"]
    names = ", ".join(curve["title"] for curve in curves)
    return {
        "title": clean(f"{model}: {names}", _PLOT_TITLE),
        "alt": clean(
            ". ".join(_describe_curve(v, c) for v, c in zip(shown, curves, strict=True)), _ALT
        ),
        "zone": shown[0].zone,
        "curves": curves,
    }


def _read_curve(conn: sa.Connection, view: AlertView) -> Curve | None:
    row = view.row
    identity = {
        "model": row["model"],
        "monitor": row["monitor"],
        "dataset": row["dataset"],
        "slice_key": row["slice_key"],
        "slice_value": row["slice_value"],
    }
    stored = series(conn, identity, row["last_window_start"], MAX_WINDOWS)
    is_beyond = any(r["threshold"].endswith(BEYOND_CHANCE) for r in stored)
    found = [as_judged(r) for r in stored]
    values = [r["value"] if r["status"] != "NO_DATA" else None for r in found]
    if sum(value is not None for value in values) < 2:
        return None
    judged = next(r for r in reversed(found) if r["status"] != "NO_DATA")
    has_interval = any(r["lower"] is not None and r["upper"] is not None for r in found)
    return {
        "title": clean(view.name + (BEYOND_CHANCE if is_beyond else ""), _PLOT_TITLE),
        "starts": [r["window_start"].isoformat() for r in found],
        "end": found[-1]["window_end"].isoformat(),
        "values": values,
        "lower": [r["lower"] for r in found] if has_interval else [],
        "upper": [r["upper"] for r in found] if has_interval else [],
        "failing": [r["status"] in _FAILED for r in found],
        "baseline": judged["baseline_value"],
        "limit": limit_of(judged),
        "is_share": row["metric"].endswith("_rate"),
    }


def _describe_curve(view: AlertView, curve: Curve) -> str:
    """Say in words what the curve shows, for those who cannot see it."""
    first, last = (dt.datetime.fromisoformat(curve["starts"][i]) for i in (0, -1))
    known = [value for value in curve["values"] if value is not None]
    text = (
        f"{curve['title']} from {view.moment(first)} to {view.moment(last)}: "
        f"last {number(known[-1])}, lowest {number(min(known))}, highest {number(max(known))}"
    )
    for name, level in (("baseline", curve["baseline"]), ("limit", curve["limit"])):
        if level is not None:
            text += f", {name} {number(level)}"
    n_failed = sum(curve["failing"])
    return f"{text}; {n_failed} of {len(known)} windows failed"
