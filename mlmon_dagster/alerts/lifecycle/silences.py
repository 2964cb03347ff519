"""Silences: which alerts a matcher means."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from mlmon_dagster.alerts.messages.slack_text import clean
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.text_table import text_table
from mlmon_dagster.store.state.frames import Row

LABELS = (
    "model",
    "monitor",
    "family",
    "metric",
    "column_name",
    "dataset",
    "slice_key",
    "slice_value",
    "severity",
    "owner",
)


def matcher(labels: Mapping[str, str]) -> str:
    """Return the JSON of a matcher: all the labels must match; ``*`` and ``?`` are wildcards.

    Raises:
        ConfigError: If there is no label, or one that alerts do not have.
    """
    unknown = sorted(set(labels) - set(LABELS))
    if unknown or not labels:
        found = f"{unknown} are no labels" if unknown else "a silence needs a label"
        raise ConfigError(f"{found}; alerts have: {', '.join(LABELS)}")
    return json.dumps(dict(labels), sort_keys=True)


def silenced_by(alert: Row, silences: Sequence[Row]) -> int | None:
    """Return the id of the first silence that matches an alert; None if none does."""
    for silence in silences:
        labels: Mapping[str, str] = json.loads(silence["matcher"])
        if labels and all(
            name in LABELS and fnmatchcase(str(alert[name]), pattern)
            for name, pattern in labels.items()
        ):
            return int(silence["id"])
    return None


def render_silences(silences: Sequence[Row], now: dt.datetime) -> str:
    """Return silences as a table; one line that says so if there are none."""
    if not silences:
        return "No silences."
    head = ("ID", "STATE", "MATCHES", "UNTIL (UTC)", "AUTHOR", "COMMENT")
    return text_table(head, [_silence_cells(row, now) for row in silences])


def _silence_cells(row: Row, now: dt.datetime) -> tuple[str, ...]:
    labels = json.loads(row["matcher"])
    state = "ended" if row["ends_at"] <= now else "pending" if row["starts_at"] > now else "active"
    return (
        str(row["id"]),
        f"{state} by {clean(row['ended_by'])}" if row["ended_by"] else state,
        clean(", ".join(f"{name}={value}" for name, value in sorted(labels.items())), 200),
        f"{row['ends_at']:%Y-%m-%d %H:%M}",
        clean(row["author"]),
        clean(row["comment"], 200),
    )


def render_dead_letters(rows: Sequence[Row]) -> str:
    """Return the messages that were refused for good; one line that says so if there are none."""
    if not rows:
        return "No message was refused."
    head = ("ID", "WRITTEN (UTC)", "TO", "KIND", "WHY", "MESSAGE")
    lines = [
        (
            str(row["id"]),
            f"{row['created_at']:%Y-%m-%d %H:%M}",
            clean(f"{row['receiver']} {row['channel']}"),
            row["kind"],
            clean(row["error"], 160),
            clean(json.loads(row["payload"])["plain"].split("\n")[0], 80),
        )
        for row in rows
    ]
    return text_table(head, lines) + "\nTo send them again: mlmon alerts requeue --all"
