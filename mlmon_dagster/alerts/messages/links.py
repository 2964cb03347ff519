"""Links from an alert into the Dagster UI."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from urllib.parse import quote

from mlmon_dagster.alerts.messages.view import AlertView
from mlmon_dagster.spec.names import ALL, TABLE

_OF_RUNS = ("failed_run", "failed_check", "failed_stuck")
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Links = Callable[[AlertView], Sequence[tuple[str, str]]]

# The asset whose page shows a family's checks.
_ASSETS = {
    "schema": "inference_store",
    "freshness": "event_log",
    "quality": "data_quality",
    "drift": "drift",
    "performance": "performance",
    "estimated_performance": "estimated_performance",
    "service": "service_health",
}


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
        asset = _ASSETS.get(view.row["family"], "health_report")
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


def commands_of(views: Sequence[AlertView]) -> tuple[str, ...]:
    """Return the commands for some alerts of one family; none for what has no numbers or rows.

    Args:
        views: Not empty.
    """
    model, family = views[0].row["model"], views[0].row["family"]
    days = ["--from", min(v.first_day for v in views), "--to", max(v.last_day for v in views)]
    commands = []
    if family not in _WITHOUT_NUMBERS:
        commands.append(["mlmon", "metrics", model, *_only(views), *days])
    if family not in _WITHOUT_ROWS:
        commands.append(["mlmon", "store", "head", model, *days, *_where(views)])
    return tuple(" ".join(shlex.quote(word) for word in words) for words in commands)


def _only(views: Sequence[AlertView]) -> list[str]:
    metrics = {v.row["metric"] for v in views}
    columns = {v.row["column_name"] for v in views} - {TABLE}
    words = ["--metric", metrics.pop()] if len(metrics) == 1 else []
    return words + (["--column", columns.pop()] if len(columns) == 1 else [])


def _where(views: Sequence[AlertView]) -> list[str]:
    """Pick the rows that an alert is about, if they can be picked by one plain comparison."""
    first = views[0].row
    if any(v.row["slice_key"] != first["slice_key"] for v in views):
        return []
    if first["slice_key"] == ALL:
        is_column = len(views) == 1 and first["column_name"] != TABLE
        is_null = is_column and first["metric"] == "null_rate"
        return ["--where", f"{first['column_name']} is null"] if is_null else []
    values = {v.row["slice_value"] for v in views}
    if "," in first["slice_key"] or len(values) > 1 or not first["slice_value"].isprintable():
        return []
    if any(mark in first["slice_value"] for mark in ("'", "\\", "<")):
        return []
    return ["--where", f"{first['slice_key']} = '{first['slice_value']}'"]
