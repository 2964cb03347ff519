"""Alerts as people read them: one in words, with links and commands, and messages about several."""

from __future__ import annotations

import datetime as dt
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, get_args
from urllib.parse import quote
from zoneinfo import ZoneInfo

from mlmon_dagster.alerts.messages.message import (
    MAX_LIST,
    MAX_MORE,
    MAX_NOTE,
    MAX_SENTENCE,
    Item,
    Message,
    Mood,
    clean,
    safe,
)
from mlmon_dagster.monitors import wording
from mlmon_dagster.monitors.wording import beyond_headline, headline
from mlmon_dagster.spec.metric_registry import METRICS, MetricFamily
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.monitors import FAMILIES, advise
from mlmon_dagster.spec.names import ALL, DRIFT, NO_VERDICT, OUTPUTS, TABLE, counted
from mlmon_dagster.spec.tasks import estimated_of, residual
from mlmon_dagster.store.alert_state import SHORT_ID, AlertRow, StoredEvent, find_opening

MAX_LISTED = 6
MAX_NAMED, MAX_OVER = 20, 12  # what is over is told nowhere else
MAX_TITLE = 80  # that a phone shows
OVER = "Opened and resolved"  # before anybody was told
LATE = ("Told late", "it was over before this message could be sent")
LATE_NEWS = (
    "Late news",
    "ground truth or rows of these windows came or were corrected after they had been judged; "
    "nothing of it goes on",
)
_LATE_REASON = " after late data"
_RANK = {"ERROR": 0, "WARN": 1}
_MOST_MOMENTS = 3
_OF_RUNS = ("failed_run", "failed_check", "failed_stuck")
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TRACED = get_args(MetricFamily)
_POOLED = frozenset(residual(name) for name in METRICS)


@dataclass(frozen=True)
class AlertView:
    """An alert, ready to be told.

    Attributes:
        row: The row of the table ``alert``.
        details: Its JSON: numbers of the last failing window, and what explains it.
        zone: Time zone of the model.
    """

    row: AlertRow
    details: Mapping[str, Any]
    zone: str = "UTC"

    @property
    def episode(self) -> str:
        """The key of its episode."""
        return f"{self.row['fingerprint']}:{self.row['episode']}"

    @property
    def name(self) -> str:
        """The metric with its column and slice, such as ``PSI of temp for origin = JFK``."""
        return wording.subject(self.row["metric"], self.row["column_name"], self.row)

    @property
    def part(self) -> str:
        """What of the model the metric is about: column and slice, such as ``temp``."""
        column, is_whole = self.row["column_name"], self.row["slice_key"] == ALL
        where = "" if is_whole else f"{self.row['slice_key']} = {self.row['slice_value']}"
        named = "" if column == TABLE else column
        return " for ".join(text for text in (named, where) if text) or "everything"

    @property
    def sentence(self) -> str:
        """What is wrong, and the statistics behind it."""
        return self.row["message"] or f"{self.name} is {number(self.row['value'])}"

    @property
    def headline(self) -> str:
        """What is wrong, in plain words, without a full stop."""
        return wording.headline(self.sentence)

    @property
    def statistics(self) -> str:
        """What stands behind the headline; empty where that says it all."""
        return wording.beyond_headline(self.sentence)

    @property
    def numbers(self) -> str:
        """The value with its interval, the baseline, the threshold and n."""
        d, parts = self.details, []
        if self.row["value"] is not None:
            parts.append(f"value {number(self.row['value'])}")
            if d.get("lower") is not None and d.get("upper") is not None:
                parts[-1] += f" ({number(d['lower'])} to {number(d['upper'])})"
        if d.get("baseline_value") is not None:
            is_beyond = str(d.get("threshold")).endswith(wording.BEYOND_CHANCE)
            label = "without a change" if is_beyond else "baseline"
            parts.append(f"{label} {number(d['baseline_value'])}")
        if d.get("threshold"):
            limit = str(d["threshold"]).replace(wording.BEYOND_CHANCE, " more than that")
            parts.append(f"limit {limit}")
        if d.get("n"):
            parts.append(f"n {d['n']:,}")
        return ", ".join(parts)

    @property
    def since(self) -> str:
        """The first window of the episode."""
        opened = self.row["opened_window"]
        return self.moment(opened) if opened else "unknown"

    @property
    def change(self) -> str:
        """Since when its episode is of another nature, and what it said before; empty if never."""
        return str(self.details.get("changed", ""))

    @property
    def is_late_news(self) -> bool:
        """Whether it is an episode of past windows that was learnt, or changed, afterwards."""
        return "learnt" in self.details

    @property
    def first_day(self) -> str:
        """The local date on which the episode's first window starts."""
        start = find_opening(self.row)
        return str(start.astimezone(ZoneInfo(self.zone)).date())

    @property
    def last_day(self) -> str:
        """The local date of the newest window's last moment: commands count their last day in."""
        end = dt.datetime.fromisoformat(self.details["newest_window_end"])
        end -= dt.timedelta(microseconds=1)
        return str(end.astimezone(ZoneInfo(self.zone)).date())

    @property
    def why(self) -> list[str]:
        """What explains it, the most important first.

        The sentence of the trace of its window, if there is one; then slices, unseen values, files.
        """
        return wording.explain(
            self.row["metric"], self.row["column_name"], self.details.get("explain", {})
        )

    @property
    def measured(self) -> str:
        """The stored metric that it is about; a verdict on several windows names it."""
        return str(self.details.get("explain", {}).get("measured", self.row["metric"]))

    @property
    def next_step(self) -> str:
        """What its reader does next, in one line."""
        row = self.row
        about = row["metric"], row["column_name"]
        return advise(row["model"], row["family"], *about, row["fingerprint"][:SHORT_ID])

    def moment(self, when: dt.datetime) -> str:
        """Write a time in the model's zone."""
        return local_moment(when, self.zone)

    def moment_of_day(self, when: dt.datetime) -> str:
        """Write the date that a time has in the model's zone."""
        return str(when.astimezone(ZoneInfo(self.zone)).date())


Links = Callable[[AlertView], Sequence[tuple[str, str]]]


def local_moment(when: dt.datetime, zone: str) -> str:
    """Write a time as its zone has it: as a date if it is the start of one."""
    local = when.astimezone(ZoneInfo(zone))
    return local.strftime("%Y-%m-%d" if local.time() == dt.time() else "%Y-%m-%d %H:%M %Z")


def view_of(row: AlertRow, zone: str = "UTC") -> AlertView:
    """Read the JSON of an alert row."""
    return AlertView(row, json.loads(row["details"]), zone)


def past_episode(row: AlertRow, events: Sequence[StoredEvent]) -> AlertRow:
    """Return an alert as it was in an episode that is over.

    Args:
        row: The alert as it is now.
        events: The episode's history, oldest first.
    """
    said = [event for event in events if _says_more(event)]
    known = [e for e in events if e["first_window"] is not None and e["kind"] != "acknowledged"]
    ends = [e["window_start"] for e in events if e["kind"] == "resolved" or is_amendment(e)]
    ended = ends[-1] if ends else row["last_window_start"]
    last = said[-1] if said else row
    details: dict[str, object] = {"newest_window_end": ended.isoformat()}
    late = [event for event in events if event["is_late"] and not _is_listed_only(event)]
    if late and known and (failed := known[-1]["last_window"]) is not None:
        details["learnt"] = late[-1]["created_at"].isoformat()
        details["is_told"] = events[0]["message_key"] != ""
        details["withdrawn"] = late[-1]["kind"] == "withdrawn"
        details["newest_window_end"] = (failed + dt.timedelta(microseconds=1)).isoformat()
        ended = failed
    return {
        **row,
        "severity": last["severity"],
        "value": last["value"],
        "message": last["message"],
        "opened_window": known[-1]["first_window"] if known else None,
        "last_window_start": ended,
        "details": json.dumps(details),
    }


def is_amendment(event: StoredEvent) -> bool:
    """Tell whether an event says that windows of an episode that was over are other ones."""
    return event["kind"] == "revised" and event["is_late"]


def _is_listed_only(event: StoredEvent) -> bool:
    """Tell whether an amendment is no news: what its windows were recomputed to, or an end."""
    return is_amendment(event) and event["muted_reason"] == "backfill"


def _says_more(event: StoredEvent) -> bool:
    return event["kind"] in ("opened", "escalated") or (
        is_amendment(event) and event["message"] != ""
    )


def has_failed_since(row: AlertRow, ended: dt.datetime | None) -> bool:
    """Tell whether what an alert said last is about a window after one that ended an episode."""
    last = json.loads(row["details"]).get("window_start")
    return ended is not None and bool(last) and dt.datetime.fromisoformat(last) >= ended


def end_view(now: AlertView, past: AlertView) -> AlertView:
    """Return an alert as it is, with the window in which its episode ended.

    Args:
        now: The alert, which windows may have passed since.
        past: The same as it was in the episode.
    """
    ended = past.row["last_window_start"].isoformat()
    return replace(now, details={**now.details, "ended": ended})


def worst_first(views: Iterable[AlertView]) -> list[AlertView]:
    """Sort: errors before warnings, causes before effects, the whole before its slices.

    Features before what is made of them; then by impact, and by name. The impact of drift is how
    far a column is times what the model makes of it.
    """
    return sorted(
        views,
        key=lambda v: (
            _RANK.get(v.row["severity"], 2),
            rank_cause(v.row["family"]),
            v.row["slice_key"] != ALL,
            v.row["column_name"] in OUTPUTS,
            -wording.impact_of(v.details.get("explain", {})),
            find_opening(v.row),
            v.name,
        ),
    )


def rank_cause(family: str) -> int:
    """Return the place of a family in the order of causes, the lowest first."""
    return FAMILIES[family].cause if family in FAMILIES else 0


def number(value: float | None) -> str:
    """Write a number as the monitors' sentences do; ``-`` for none."""
    return "-" if value is None else wording.number(value)


def dagster_links(base_url: str, prefixes: Mapping[str, str] = MappingProxyType({})) -> Links:
    """Return links into the Dagster UI at an address; none if the address is empty.

    Args:
        base_url: The address.
        prefixes: What stands before some models' names in the keys of their assets, by model.
    """

    def links(view: AlertView) -> Sequence[tuple[str, str]]:
        base, name = base_url.rstrip("/"), view.row["model"]
        model = quote(f"{prefixes[name]}/{name}" if name in prefixes else name)
        if not base:
            return ()
        run_id = str(view.details.get("run_id", ""))
        if not (_RUN_ID.fullmatch(run_id) or view.row["metric"] in _OF_RUNS):
            run_id = ""
        if view.row["family"] == "pipeline":
            page = f"runs/{quote(run_id)}" if run_id else "automation"
            return (("Run" if run_id else "Automation", f"{base}/{page}"),)
        family = FAMILIES.get(view.row["family"])
        asset = "health_report" if family is None else family.asset
        page = f"{base}/assets/{model}/{asset}"
        check = quote(view.row["family"])
        found = [("Asset", page), ("Check", f"{page}?view=checks&checkDetail={check}")]
        if run_id:
            found.append(("Run", f"{base}/runs/{run_id}"))
        return found

    return links


def page_links(pages_url: str, others: Links) -> Links:
    """Return a link to the page of an alert before others; only these if the address is empty.

    Args:
        pages_url: Where `mlmon serve` is reached.
        others: Further links.
    """

    def links(view: AlertView) -> Sequence[tuple[str, str]]:
        base, found = pages_url.rstrip("/"), others(view)
        if not base or view.row["family"] == "pipeline":
            return found
        page = f"{base}/m/{quote(view.row['model'])}/alerts/{view.row['fingerprint']}"
        return (("Page", page), *found)

    return links


def links_of(links: Links, views: Sequence[AlertView]) -> tuple[tuple[str, str], ...]:
    """Return one address for each label; the checks of several families are named by family.

    Args:
        links: Addresses of one alert.
        views: The alerts that a message is about.
    """
    found: dict[str, str] = {}
    several = len({view.row["family"] for view in views}) > 1
    for view in views:
        for label, address in links(view):
            if several and label == "Check":
                label = f"Check {view.row['family']}"
            if not several or label not in ("Asset", "Run"):
                found.setdefault(label, address)
        if view.row["runbook"] and view.row["runbook"] not in found.values():
            n = sum(label.startswith("Runbook") for label in found)
            found[f"Runbook {n + 1}" if n else "Runbook"] = view.row["runbook"]
    return tuple(found.items())[:8]


def commands_of(views: Sequence[AlertView]) -> tuple[str, ...]:
    """Return the commands for what is wrong first; none for what has no numbers or rows.

    Args:
        views: The most important first; those of other families are left to its cause. Not empty.
    """
    model, family = views[0].row["model"], views[0].row["family"]
    views = [view for view in views if view.row["family"] == family]
    judged = [v for v in views if v.row["metric"] != NO_VERDICT]
    commands = _write_commands(model, family, judged) if judged else []
    if len(judged) < len(views):
        commands += [["mlmon", "status", model], ["mlmon", "doctor"]]
    return tuple(" ".join(shlex.quote(word) for word in words) for words in commands)


def _write_commands(model: str, family: str, views: Sequence[AlertView]) -> list[list[str]]:
    days = ["--from", min(v.first_day for v in views), "--to", max(v.last_day for v in views)]
    metrics = {v.measured for v in views}
    metric = metrics.pop() if len(metrics) == 1 else ""
    columns = {v.row["column_name"] for v in views} - {TABLE}
    column = ["--column", columns.pop()] if len(columns) == 1 else []
    commands, known = [], FAMILIES.get(family)
    if known is not None and known.has_numbers:
        which = [*_write_metric_option(metric), *column, *_write_slice_option(views)]
        commands.append(["mlmon", "metrics", model, *which, *days])
    traced = metric if family in _TRACED else estimated_of(metric)
    if traced or family in _TRACED:
        commands.append(
            [
                "mlmon",
                "trace",
                model,
                *_write_metric_option(traced),
                *(_write_trace_options(views) or days),
            ]
        )
    if known is not None and not known.is_by_clock:
        commands.append(["mlmon", "rows", views[0].row["fingerprint"][:SHORT_ID]])
    return commands


def _write_trace_options(views: Sequence[AlertView]) -> list[str]:
    """Return the options by which `mlmon trace` says what the message says; [] if there are two."""
    found = [v.details.get("explain", {}).get("traced") for v in views]
    if not found[0] or found.count(found[0]) < len(found):
        return []
    return [word for name, named in found[0].items() for word in (f"--{name}", named)]


def _write_slice_option(views: Sequence[AlertView]) -> list[str]:
    """Return the option by which `mlmon metrics` shows the slices of alerts; [] for the whole."""
    slices = {(v.row["slice_key"], v.row["slice_value"]) for v in views}
    keys = {key for key, _ in slices}
    if keys == {ALL}:
        return []
    if len(slices) == 1:
        [(key, value)] = slices
        return ["--slice", f"{key}={value}"]
    return ["--by", keys.pop() if len(keys) == 1 else ALL]


def _write_metric_option(metric: str) -> list[str]:
    return ["--metric", metric] if metric else []


@dataclass(frozen=True)
class Listing:
    """What one message says of some alerts.

    Attributes:
        items: A sentence each.
        more: The names of the others.
        left: Those that there is no room for.
    """

    items: tuple[Item, ...]
    more: str
    left: tuple[AlertView, ...]


@dataclass(frozen=True)
class Changes:
    """What happened to a group since its last message."""

    opened: Sequence[AlertView] = ()
    escalated: Sequence[AlertView] = ()
    changed: Sequence[AlertView] = ()
    revised: Sequence[AlertView] = ()
    resolved: Sequence[AlertView] = ()
    missed: Sequence[AlertView] = ()

    @property
    def labelled(self) -> list[tuple[str, Sequence[AlertView]]]:
        """The kinds of change that there are, with their label."""
        every = (
            ("New", self.opened),
            ("Worse", self.escalated),
            ("Changed", self.changed),
            (f"Revised{_LATE_REASON}", self.revised),
            ("Resolved", self.resolved),
            (OVER, self.missed),
        )
        return [(label, views) for label, views in every if views]

    def in_parts(self) -> list[Changes]:
        """Spread them over as many messages as it takes to name all that is over, oldest first."""
        if not _list_changes(self).left:
            return [self]
        parts, past = list[Changes](), Changes(resolved=self.resolved, missed=self.missed)
        while past.labelled:
            left = {id(view) for view in _list_changes(past).left}
            later = [[v for v in group if id(v) in left] for group in (past.resolved, past.missed)]
            now = [
                [v for v in group if id(v) not in left] for group in (past.resolved, past.missed)
            ]
            parts.append(Changes(resolved=now[0], missed=now[1]))
            past = Changes(resolved=later[0], missed=later[1])
        present = replace(self, resolved=(), missed=())
        return [*parts, present] if present.labelled else parts


@dataclass(frozen=True)
class Context:
    """What a message needs to know beside the alerts.

    Attributes:
        spec: The model.
        links: Addresses shown for an alert.
        mention_of: Who is notified of an alert at the place the message goes to; empty for nobody.
        n_suppressed: How many alerts each schema or freshness monitor keeps from being sent.
        standing: The alerts of the model that fire or recover, in whatever thread they are told.
    """

    spec: ModelSpec
    links: Links = field(default=lambda _view: ())
    mention_of: Callable[[AlertView], str] = field(default=lambda _view: "")
    n_suppressed: Mapping[str, int] = field(default_factory=dict)
    standing: Sequence[AlertView] = ()


def head_message(context: Context, firing: Sequence[AlertView], before: str = "") -> Message:
    """Say what is wrong now: the message that opens a thread, and its later updates.

    Args:
        context: The model.
        firing: The alerts of a thread that fire; not empty.
        before: What the title begins with.
    """
    views = worst_first(firing)
    title = _write_title(context, views, before)
    message = _firing_message(context, views, title)
    if len(views) > 1:
        return message
    return replace(message, items=_write_rest(title, views[0]))


def _firing_message(context: Context, views: Sequence[AlertView], title: str) -> Message:
    said = listing(views, [Item(f"{v.headline}.", v.statistics) for v in views])
    return Message(
        title=title,
        mood="ERROR" if _has_error(views) else "WARN",
        items=said.items,
        more=said.more,
        notes=_write_notes(context, views),
        mentions=_collect_mentions(context, views),
        links=links_of(context.links, views),
        commands=commands_of(views),
    )


def closed_message(context: Context, resolved: Sequence[AlertView]) -> Message:
    """Say that everything in a thread has ended: the last update of its head."""
    views = worst_first(resolved)
    said = listing(views, [_write_past_item(v) for v in views])
    title = fit_title(f"{context.spec.model}: resolved, ", _write_return(views))
    return _past_message(context, views, said, title)


def _past_message(
    context: Context,
    views: Sequence[AlertView],
    said: Listing,
    title: str,
    *notes: tuple[str, str],
    mood: Mood = "OK",
) -> Message:
    return Message(
        title=title,
        mood=mood,
        items=said.items,
        more=said.more,
        notes=(*notes, ("Owner", _name_owners(context, views))),
        links=links_of(context.links, views),
    )


def change_message(
    context: Context,
    changes: Changes,
    firing: Sequence[AlertView],
    called_for: Sequence[AlertView] = (),
) -> Message:
    """Say what has changed: a reply in the thread.

    Args:
        context: The model.
        changes: At least one change.
        firing: What still fires of the thread after it.
        called_for: The changes that are worth notifying the people declared.
    """
    views = [view for _, group in changes.labelled for view in group]
    said = _list_changes(changes)
    about, told = f"{context.spec.model}: ", _count_changes(changes)
    if len(views) == 1:
        about, told = f"{about}{told}: ", _write_change(views[0], changes)
    standing = {view.row["fingerprint"]: view for view in (*context.standing, *firing)}
    return Message(
        title=fit_title(about, told, f"; {_count_standing(standing.values())}"),
        mood=head_message(context, firing).mood if firing else "OK",
        items=said.items,
        more=said.more,
        mentions=_collect_mentions(context, called_for),
        links=links_of(context.links, views),
    )


def _count_changes(changes: Changes) -> str:
    return ", ".join(f"{len(group)} {label.lower()}" for label, group in changes.labelled)


def _count_standing(views: Collection[AlertView]) -> str:
    """Say how many alerts of a model still fire, and how many recover."""
    recovering = sum(view.row["state"] == "RECOVERING" for view in views)
    counts = {"still firing": len(views) - recovering, "recovering": recovering}
    said = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    return said or "nothing else fires"


def repeat_message(context: Context, firing: Sequence[AlertView]) -> Message:
    """Remind of what still fires."""
    return head_message(context, firing, "Still firing: ")


def missed_message(
    context: Context, over: Sequence[AlertView]
) -> tuple[Message, tuple[AlertView, ...]]:
    """Say that alerts opened and ended before anybody was told: nobody needs to come running.

    Args:
        context: The model.
        over: The episodes; not empty.

    Returns:
        The message, and the episodes that it has no room for: they are told in another one.
    """
    views = worst_first(over)
    said = listing(views, [_write_past_item(v) for v in views], MAX_OVER)
    about = f"{context.spec.model}: "
    title = fit_title(about, f"{counted(len(views) - len(said.left), 'alert')} {OVER.lower()}")
    if len(views) == 1:
        title = fit_title(f"{about}over: ", views[0].headline, f", {episode_text(views[0])}")
    is_whole = len(views) == 1 and clean(views[0].headline, MAX_SENTENCE) in title
    text = _past_message(context, views, said, title, LATE)
    items = () if is_whole else said.items
    return replace(text, items=items, commands=commands_of(views)), said.left


def late_message(
    context: Context, over: Sequence[AlertView]
) -> tuple[Message, tuple[AlertView, ...]]:
    """Say what was learnt afterwards of windows that are past: no more of it goes on.

    Args:
        context: The model.
        over: Episodes of past windows that were learnt, amended or withdrawn; not empty.

    Returns:
        The message, and the episodes that it has no room for: they are told in another one.
    """
    views = worst_first(over)
    standing = [view for view in views if not view.details["withdrawn"]]
    said = listing(views, [_write_late_item(v) for v in views], MAX_OVER)
    kinds = {_name_late_kind(view) for view in views}
    about = f"{context.spec.model}: {kinds.pop() if len(kinds) == 1 else 'changed'} late: "
    title = fit_title(about, f"{counted(len(views) - len(said.left), 'alert')} of past windows")
    if len(views) == 1:
        title = fit_title(about, views[0].headline, f" ({_write_span(views[0])})")
    mood: Mood = "OK" if not standing else "ERROR" if _has_error(standing) else "WARN"
    text = _past_message(context, views, said, title, LATE_NEWS, mood=mood)
    return replace(text, commands=commands_of(views)), said.left


def _name_late_kind(view: AlertView) -> str:
    if view.details["withdrawn"]:
        return "withdrawn"
    return "amended" if view.details["is_told"] else "learnt"


def _write_late_item(view: AlertView) -> Item:
    learnt = view.moment_of_day(dt.datetime.fromisoformat(view.details["learnt"]))
    kind = _name_late_kind(view)
    text = f"{kind.capitalize()} on {learnt}: {_write_span(view)}, {view.headline}"
    if kind == "withdrawn":
        text = f"Withdrawn on {learnt}: {_write_span(view)} pass now; was: {view.headline}"
    return Item(f"{text}.", view.statistics)


def _write_span(view: AlertView) -> str:
    """Name the failing windows of an episode that is over."""
    last = view.moment(view.row["last_window_start"])
    return view.since if view.since == last else f"{view.since} to {last}"


def _has_error(views: Sequence[AlertView]) -> bool:
    return any(view.row["severity"] == "ERROR" for view in views)


def summary_message(context: Context, firing: Sequence[AlertView]) -> Message:
    """Say in one message what fires after windows were judged all at once, across families."""
    if len(firing) == 1:
        return head_message(context, firing)
    views = worst_first(firing)
    families = sorted({v.row["family"].replace("_", " ") for v in views})
    firing_now = f"{counted(len(views), 'alert')} firing already ({', '.join(families)})"
    message = _firing_message(context, views, fit_title(f"{context.spec.model}: ", firing_now))
    command = f"mlmon alerts list --model {shlex.quote(context.spec.model)}"
    return replace(message, commands=(command, *message.commands))


def _write_title(context: Context, views: Sequence[AlertView], before: str = "") -> str:
    rest = f" (and {len(views) - 1} more)" if len(views) > 1 else ""
    return fit_title(f"{before}{context.spec.model}: ", views[0].headline, rest)


def fit_title(before: str, text: str, rest: str = "") -> str:
    """Return a title of one line that a phone shows: what can be missed goes first.

    Of a text that is too long first the brackets, then the middle of long names, then the later
    clauses, then its end; the items of a message have it whole. The rest is never cut.

    Args:
        before: What it is about, such as the model.
        text: What is wrong.
        rest: What stands behind it.

    Example:
        >>> fit_title("churn: ", "age is 15 years higher (median 40 to 55)", " (and 1 more)")
        'churn: age is 15 years higher (median 40 to 55) (and 1 more)'
        >>> fit_title("churn: ", f"Null share of {'x' * 60} is 0.60 (n 200), above 0.20")
        'churn: Null share of xxxxxxxxxxxx…xxxxxxxxxxx is 0.60, above 0.20'
    """
    for shorten in (str, _drop_brackets, _drop_reason, _shorten_names, _keep_first_clause):
        text = shorten(text)
        if shorten in (_drop_reason, _shorten_names):
            before = shorten(before)
        title = clean(f"{before}{text}{rest}", MAX_SENTENCE)
        if len(title) <= MAX_TITLE:
            return title
    room = MAX_TITLE - len(rest)
    return clean(f"{clean(before + text, room)}{rest}", MAX_TITLE)


def _drop_brackets(text: str) -> str:
    return re.sub(r" \([^()]*\)", "", text)


def _drop_reason(text: str) -> str:
    return text.replace(_LATE_REASON, "")


def _shorten_names(text: str) -> str:
    return re.sub(r"[^\s:,;]{25,}", lambda name: f"{name[0][:12]}…{name[0][-11:]}", text)


def _keep_first_clause(text: str) -> str:
    # A list has no clauses: one of its names alone would be all of them.
    return re.split(r": [^,;:]+, |[,;.] ", text)[0]


def _write_rest(title: str, view: AlertView) -> tuple[Item, ...]:
    """Return what the title does not say of its only alert."""
    if clean(view.headline, MAX_SENTENCE) not in title:
        return (Item(f"{view.headline}.", view.statistics),)
    return (Item(view.statistics),) if view.statistics else ()


def _write_since(views: Sequence[AlertView]) -> str:
    """Say when it began; of alerts that began one after the other, which of them when."""
    began: dict[str, list[AlertView]] = {}
    for view in sorted(views, key=lambda v: str(v.row["opened_window"])):
        began.setdefault(view.since, []).append(view)
    moments = list(began)
    if len(moments) > _MOST_MOMENTS:
        return f"{moments[0]}, the last of them {moments[-1]}"
    if len(moments) == 1:
        return moments[0]
    return "; ".join(
        f"{moment} ({mine[0].name if len(mine) == 1 else counted(len(mine), 'alert')})"
        for moment, mine in began.items()
    )


def listing(
    views: Sequence[AlertView],
    items: Sequence[Item],
    limit: int = MAX_LISTED,
    names: Sequence[str] = (),
) -> Listing:
    """Say as much of some alerts as surely is shown: nothing of it is cut off later.

    Args:
        views: What there is to say, the most important first; episodes of one alert may repeat.
        items: The sentence about each.
        limit: The most sentences.
        names: What to call each where there is no room for its sentence; by default the metric,
            column and slice.
    """
    for n_items in range(min(limit, len(views)), -1, -1):
        rest, kept = views[n_items:], items[:n_items]
        more, left = _name_rest(rest, names[n_items:] or _name_alerts(rest))
        if sum(map(_measure_width, kept)) + len(safe(more, MAX_MORE)) <= MAX_LIST:
            break
    return Listing(tuple(kept), more, left)


def _measure_width(item: Item) -> int:
    numbers = safe(item.numbers, MAX_NOTE)
    return len(safe(item.sentence, MAX_SENTENCE)) + len(numbers) + 10  # bullet, indent, line ends


def _name_rest(
    rest: Sequence[AlertView], names: Sequence[str]
) -> tuple[str, tuple[AlertView, ...]]:
    """Name what has no sentence, each alert once, with the number of its episodes."""
    if not rest:
        return "", ()
    text, named, kept = "", set[str](), f"and {len(rest)} more: , …"
    for name, n in Counter(names).items():
        part = name if n == 1 else f"{name} ({n} times)"
        longer = f"{text}, {part}" if text else part
        if len(named) == MAX_NAMED or (text and len(safe(kept + longer, MAX_LIST)) > MAX_MORE):
            break
        text, named = longer, named | {name}
    left = tuple(view for view, name in zip(rest, names, strict=True) if name not in named)
    return f"and {len(rest)} more: {text}{', …' if left else ''}", left


def _name_alerts(views: Sequence[AlertView]) -> list[str]:
    """Call each alert by its name; the metric is said once where all have the same."""
    if len({view.row["metric"] for view in views}) > 1:
        return [view.name for view in views]
    return [view.name if view.name == views[0].name else view.part for view in views]


def _write_notes(context: Context, views: Sequence[AlertView]) -> tuple[tuple[str, str], ...]:
    # What explains each alert most comes first, so that none of them takes all the room.
    ranked = zip_longest(*(view.why for view in views[:MAX_LISTED]))
    lines = dict.fromkeys(line for rank in ranked for line in rank if line)
    # The same cause in the numbers of another alert is said once.
    why = [a for a in lines if not any(a != b and a.endswith(b) for b in lines)]
    # That nothing stands out in one alert is no news beside what does in another.
    why = [line for line in why if not line.startswith(wording.SPREAD)] or why
    notes = [
        ("Since", _write_since(views)),
        ("Changed", "; ".join(_write_turn(v, views) for v in views if v.change)),
        ("Why", "; ".join(why[:4])),
        ("Money", _find_money(views)),
        ("At once", _explain_at_once(views)),
        ("Not sent", _explain_not_sent(context, views)),
        ("Acknowledged", _name_takers(views)),
        ("Owner", _name_owners(context, views)),
        ("Next", views[0].next_step),
    ]
    return tuple((label, text) for label, text in notes if text)


def _write_turn(view: AlertView, views: Sequence[AlertView]) -> str:
    return view.change if len(views) == 1 else f"{view.name} {view.change}"


def _find_money(views: Sequence[AlertView]) -> str:
    """Say what it is worth, once where several alerts are of the same windows."""
    told = (str(view.details.get("explain", {}).get("money", "")) for view in views)
    return next(filter(None, told), "")


def _explain_at_once(views: Sequence[AlertView]) -> str:
    """Say why an alert did not wait for the windows that its monitor usually waits for."""
    waived = dict.fromkeys(str(v.details["severe"]) for v in views if v.details.get("severe"))
    if not waived:
        return ""
    return f"one window so far past the limit needs no second (windows: {', '.join(waived)})"


def _explain_not_sent(context: Context, views: Sequence[AlertView]) -> str:
    """Say what a broken window keeps silent, so that nobody takes silence for health."""
    causes = {v.row["monitor"] for v in views if v.details.get("breaks_window")}
    if not causes:
        return ""
    n = sum(context.n_suppressed.get(cause, 0) for cause in causes)
    counted = f" ({n} so far)" if n else ""
    families = [FAMILIES.get(view.row["family"]) for view in views]
    has_own = any(family is not None and family.is_muted for family in families)
    which = f"other {DRIFT}" if has_own else DRIFT
    return f"{which} and performance alerts of this window, which this explains{counted}"


def _name_takers(views: Sequence[AlertView]) -> str:
    """Say who has acknowledged which alerts, so that nobody else starts on them."""
    names: dict[str, list[AlertView]] = {}
    for view in views:
        if view.row["acked_by"]:
            names.setdefault(view.row["acked_by"], []).append(view)
    return "; ".join(
        f"by {name}" if len(mine) == len(views) else f"{', '.join(_name_alerts(mine))} by {name}"
        for name, mine in names.items()
    )


def _name_owners(context: Context, views: Sequence[AlertView]) -> str:
    declared = [v.row["owner"] for v in views if v.row["owner"]]
    return ", ".join(dict.fromkeys(declared or context.spec.owners))


def _collect_mentions(context: Context, views: Sequence[AlertView]) -> tuple[str, ...]:
    names = [context.mention_of(view) for view in worst_first(views)]
    return tuple(dict.fromkeys(name for name in names if name))


def _list_changes(changes: Changes) -> Listing:
    views = [view for _, group in changes.labelled for view in group]
    items = [_write_change_item(label, v) for label, group in changes.labelled for v in group]
    return listing(views, items, MAX_OVER)


def _write_change_item(label: str, view: AlertView) -> Item:
    if label == "Resolved":
        return Item(f"Resolved: {_write_end(view)}; was: {view.headline}.", episode_text(view))
    if label == OVER:
        return Item(f"{OVER}: {view.headline}.", episode_text(view))
    newest = view.details.get("newest_message") if label.startswith("Revised") else ""
    text = str(newest or view.sentence)
    since = f"since {view.since}" if label == "New" else ""
    if label == "Changed":
        since = view.change
    return Item(
        f"{label}: {headline(text)}.", "; ".join(filter(None, (since, beyond_headline(text))))
    )


def _write_change(view: AlertView, changes: Changes) -> str:
    if changes.resolved:
        return _write_end(view)
    if changes.missed:
        return f"{view.headline}, {episode_text(view)}"
    newest = view.details.get("newest_message") if changes.revised else ""
    return headline(str(newest or view.sentence))


def _write_past_item(view: AlertView) -> Item:
    return Item(f"Was: {view.headline}.", episode_text(view))


def _write_return(views: Sequence[AlertView]) -> str:
    if len(views) == 1:
        return _write_end(views[0])
    return f"{counted(len(views), 'alert')} back to normal"


_REVISED = {
    "revised": " after late data",
    "withdrawn": " after late data, and is withdrawn",
    "recomputed": ", as its spec or baseline changed",
}


def _write_end(view: AlertView) -> str:
    """Say that an alert is over, and how its newest window was judged or why it ended."""
    reason, row = view.row["resolved_reason"].replace("_", " "), view.row
    if reason not in ("recovered", *_REVISED):
        return f"{view.name} ({reason})" if reason else view.name
    late, value = _REVISED.get(reason, ""), view.details.get("newest_value")
    family = FAMILIES.get(row["family"])
    if family is not None and not family.has_numbers:
        said = str(view.details.get("newest_message") or "").splitlines()
        return f"{said[0].rstrip('.') if said and said[0] else 'as it should be again'}{late}"
    # Of several windows together the newest value still holds the bad ones.
    is_pooled = row["metric"] in _POOLED or str(view.details.get("threshold")).startswith("shift")
    if value is None or is_pooled:
        return f"{view.name} passes again{late}"
    return f"{view.name} is {number(value)} again{late}"


def episode_text(view: AlertView) -> str:
    """Say how long an episode lasts, or lasted: to the window that ended it."""
    ended = view.details.get("ended")
    last = dt.datetime.fromisoformat(ended) if ended else view.row["last_window_start"]
    return f"from {view.since} to {view.moment(last)}"
