"""Silences: which alerts a matcher means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.store.alert_state import Row

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
