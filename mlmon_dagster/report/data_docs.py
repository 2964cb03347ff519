"""What the expectations of a spec found, window by window: a page for people.

The library's own pages load styles and scripts from elsewhere and show any value. This one shows
what was found when the files came, and values only of columns that may be shown.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mlmon_dagster.ingest.rows.expectations import Result
from mlmon_dagster.report.page import filled
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.names import SCHEMA
from mlmon_dagster.store.state import monitor_results

METRIC = "expectations"
NEWEST = 60  # windows beside each other on a page


@dataclass(frozen=True)
class Judged:
    """What the expectations found in the files of one window."""

    key: str
    results: tuple[Result, ...]

    @property
    def n_failed(self) -> int:
        """How many do not hold, or could not be evaluated."""
        return sum(not result["kept"] for result in self.results)


def judged_windows(engine: sa.Engine, spec: ModelSpec, windows: Sequence[Window]) -> list[Judged]:
    """Return what was found in some windows, newest first; windows without any are left out.

    Args:
        engine: The state database.
        spec: The model.
        windows: The windows, oldest first.
    """
    if not windows:
        return []
    keys = {window.start: window.key for window in windows}
    found = monitor_results.newest(
        engine, spec.model, windows[0].start, windows[-1].end, family=SCHEMA
    )
    rows = found[found["metric"] == METRIC]
    judged = [
        Judged(keys[start.to_pydatetime()], tuple(json.loads(details)["expectations"]))
        for start, details in zip(rows["window_start"], rows["details"], strict=True)
        if start.to_pydatetime() in keys
    ]
    return sorted(judged, key=lambda one: one.key, reverse=True)


def said_of(result: Result) -> str:
    """Say in a few words what an expectation found."""
    if result["error"]:
        return "not evaluated"
    if result["unexpected"] is None or not result["rows"]:
        return "holds" if result["kept"] else "fails"
    share = result["unexpected"] / result["rows"]
    return "holds" if result["kept"] and not share else f"{share:.2%} unexpected"


def data_docs(spec: ModelSpec, judged: Sequence[Judged], now: dt.datetime) -> str:
    """Return the page: the newest window in words, then every expectation over the windows."""
    shown = list(judged[:NEWEST])
    names: dict[tuple[str, str], dict[str, Result]] = {}
    for window in shown:
        for result in window.results:
            name = (result["expectation"], ", ".join(result["columns"]))
            names.setdefault(name, {})[window.key] = result
    return filled(
        "data_docs.html.j2",
        spec=spec,
        newest=shown[0] if shown else None,
        windows=[window.key for window in reversed(shown)],
        history=names,
        said=said_of,
        n_more=len(judged) - len(shown),
        now=f"{now.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC",
    )
