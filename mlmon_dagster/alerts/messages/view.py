"""One alert as people read it: its row with numbers and times in words, and links into the UI."""

from __future__ import annotations

import datetime as dt
import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import quote
from zoneinfo import ZoneInfo

from mlmon_dagster.alerts.lifecycle.apply_results import NO_VERDICT
from mlmon_dagster.monitors import wording
from mlmon_dagster.spec.metric_registry import MetricFamily
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import ALL, TABLE
from mlmon_dagster.spec.tasks import estimated_of
from mlmon_dagster.store.state.statements import Row

MAX_SLICES = 3
SHORT_ID = 8  # characters of an alert's id, as commands take it
_RANK = {"ERROR": 0, "WARN": 1}
_NAMED = {"unseen": "unseen values", "quarantined": "files", "bad_reasons": "reasons"}
_OF_RUNS = ("failed_run", "failed_check", "failed_stuck")
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class AlertView:
    """An alert, ready to be told.

    Attributes:
        row: The row of the table ``alert``.
        details: Its JSON: numbers of the last failing window, and what explains it.
        zone: Time zone of the model.
    """

    row: Row
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
            parts.append(f"baseline {number(d['baseline_value'])}")
        if d.get("threshold"):
            parts.append(f"limit {d['threshold']}")
        if d.get("n"):
            parts.append(f"n {d['n']:,}")
        return ", ".join(parts)

    @property
    def since(self) -> str:
        """The first window of the episode."""
        opened = self.row["opened_window"]
        return self.moment(opened) if opened else "unknown"

    @property
    def first_day(self) -> str:
        """The local date on which the episode's first window starts."""
        start = self.row["opened_window"] or self.row["last_window_start"]
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
        explain, column = self.details.get("explain", {}), self.row["column_name"]
        lines = [str(explain["why"]).rstrip(".")] if explain.get("why") else []
        lines += [self._slice(item) for item in explain.get("worst_slices", ())[:MAX_SLICES]]
        where = "" if column == TABLE else f" of {column}"
        named = [(label, explain[key]) for key, label in _NAMED.items() if explain.get(key)]
        return lines + [f"{label}{where} {', '.join(list(map(str, v))[:5])}" for label, v in named]

    def _slice(self, item: Mapping[str, Any]) -> str:
        """Write a slice with the metric that it is worse in, its baseline and size."""
        metric = item.get("metric", self.row["metric"])
        text = (
            f"{wording.subject(metric, self.row['column_name'], item)} is {number(item['value'])}"
        )
        extra = []
        if item.get("baseline_value") is not None:
            extra.append(f"baseline {number(item['baseline_value'])}")
        if item.get("n") is not None:
            extra.append(f"n {item['n']:,}")
        return f"{text} ({', '.join(extra)})" if extra else text

    def moment(self, when: dt.datetime) -> str:
        """Write a time in the model's zone."""
        return local_moment(when, self.zone)


def local_moment(when: dt.datetime, zone: str) -> str:
    """Write a time as its zone has it: as a date if it is the start of one."""
    local = when.astimezone(ZoneInfo(zone))
    return local.strftime("%Y-%m-%d" if local.time() == dt.time() else "%Y-%m-%d %H:%M %Z")


def view_of(row: Row, zone: str = "UTC") -> AlertView:
    """Read the JSON of an alert row."""
    return AlertView(row, json.loads(row["details"]), zone)


def past_episode(row: Row, events: Sequence[Row]) -> Row:
    """Return an alert as it was in an episode that is over.

    Args:
        row: The alert as it is now.
        events: The episode's history, oldest first.
    """
    said = [event for event in events if event["kind"] in ("opened", "escalated")]
    opened = next((e["window_start"] for e in events if e["kind"] == "opened"), None)
    ended = next((e["window_start"] for e in events if e["kind"] == "resolved"), None)
    last = said[-1] if said else row
    return {
        **row,
        **{name: last[name] for name in ("severity", "value", "message")},
        "opened_window": opened,
        "last_window_start": ended,
        "details": json.dumps(
            {"newest_window_end": (ended or row["last_window_start"]).isoformat()}
        ),
    }


def failed_since(row: Row, past: AlertView) -> bool:
    """Tell whether an alert has failed since an episode of it ended."""
    last = json.loads(row["details"]).get("window_start")
    ended = past.row["last_window_start"]
    return bool(last and ended and dt.datetime.fromisoformat(last) >= ended)


def worst_first(views: Iterable[AlertView]) -> list[AlertView]:
    """Sort: errors before warnings, the whole before its slices, by impact, then by name.

    The impact of drift is how far a column is times what the model makes of it.
    """
    return sorted(
        views,
        key=lambda v: (
            _RANK.get(v.row["severity"], 2),
            v.row["slice_key"] != ALL,
            -wording.impact_of(v.details.get("explain", {})),
            v.name,
        ),
    )


def number(value: float | None) -> str:
    """Write a number as the monitors' sentences do; ``-`` for none."""
    return "-" if value is None else wording.number(value)


Links = Callable[[AlertView], Sequence[tuple[str, str]]]


def dagster_links(base_url: str) -> Links:
    """Return links into the Dagster UI at an address; none if the address is empty."""

    def links(view: AlertView) -> Sequence[tuple[str, str]]:
        base, model = base_url.rstrip("/"), quote(view.row["model"])
        if not base:
            return ()
        run_id = str(view.details.get("run_id", ""))
        if not (_RUN_ID.fullmatch(run_id) or view.row["metric"] in _OF_RUNS):
            run_id = ""
        if view.row["family"] == "pipeline":
            page = f"runs/{quote(run_id)}" if run_id else "automation"
            return (("Run" if run_id else "Automation", f"{base}/{page}"),)
        asset = FAMILIES.get(view.row["family"], "health_report")
        page = f"{base}/assets/{model}/{asset}"
        check = quote(view.row["family"])
        found = [("Asset", page), ("Check", f"{page}?view=checks&checkDetail={check}")]
        if run_id:
            found.append(("Run", f"{base}/runs/{run_id}"))
        return found

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


_WITHOUT_NUMBERS = ("pipeline", "freshness", "schema")
_WITHOUT_ROWS = ("pipeline", "freshness")
_TRACED = get_args(MetricFamily)


def commands_of(views: Sequence[AlertView]) -> tuple[str, ...]:
    """Return the commands for some alerts of one family; none for what has no numbers or rows.

    Args:
        views: Not empty.
    """
    model, family = views[0].row["model"], views[0].row["family"]
    judged = [v for v in views if v.row["metric"] != NO_VERDICT]
    commands = _of_numbers(model, family, judged) if judged else []
    if len(judged) < len(views):
        commands += [["mlmon", "model", "status", model], ["mlmon", "doctor"]]
    return tuple(" ".join(shlex.quote(word) for word in words) for words in commands)


def _of_numbers(model: str, family: str, views: Sequence[AlertView]) -> list[list[str]]:
    days = ["--from", min(v.first_day for v in views), "--to", max(v.last_day for v in views)]
    metrics = {v.row["metric"] for v in views}
    metric = metrics.pop() if len(metrics) == 1 else ""
    columns = {v.row["column_name"] for v in views} - {TABLE}
    column = ["--column", columns.pop()] if len(columns) == 1 else []
    commands = []
    if family not in _WITHOUT_NUMBERS:
        commands.append(["mlmon", "metrics", model, *_named(metric), *column, *days])
    traced = metric if family in _TRACED else estimated_of(metric)
    if traced or family in _TRACED:
        commands.append(["mlmon", "trace", model, *_named(traced), *(_traced(views) or days)])
    if family not in _WITHOUT_ROWS:
        commands.append(["mlmon", "rows", views[0].row["fingerprint"][:SHORT_ID]])
    return commands


def _traced(views: Sequence[AlertView]) -> list[str]:
    """Return the options by which `mlmon trace` says what the message says; [] if there are two."""
    found = [v.details.get("explain", {}).get("traced") for v in views]
    if not found[0] or found.count(found[0]) < len(found):
        return []
    return [word for name, named in found[0].items() for word in (f"--{name}", named)]


def _named(metric: str) -> list[str]:
    return ["--metric", metric] if metric else []
