"""The shell commands that a message names: they show its numbers, and the rows behind it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mlmon_dagster.alerts.view import TABLE, AlertView

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
    if first["slice_key"] == "all":
        is_column = len(views) == 1 and first["column_name"] != TABLE
        is_null = is_column and first["metric"] == "null_rate"
        return ["--where", f"{first['column_name']} is null"] if is_null else []
    values = {v.row["slice_value"] for v in views}
    if "," in first["slice_key"] or len(values) > 1 or not first["slice_value"].isprintable():
        return []
    if any(mark in first["slice_value"] for mark in ("'", "\\", "<")):
        return []
    return ["--where", f"{first['slice_key']} = '{first['slice_value']}'"]
