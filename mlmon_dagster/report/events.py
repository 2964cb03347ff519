"""What happened to a model while its metrics were drawn: what may explain where a curve bends."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from mlmon_dagster.report.charts import Event
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.known_events import list_days
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.store import Store, baselines
from mlmon_dagster.store.known_events import load_stored
from mlmon_dagster.store.state.model_history import load_changes, load_history
from mlmon_dagster.store.state.monitor_results import name_window
from mlmon_dagster.tables.periods import History, business_line

if TYPE_CHECKING:
    import pandas as pd

MOST_EVENTS = 30
_MOST_TOLD = 3  # in a line of a digest
# What `load_history` has of these is told with the window that it is about.
_TOLD_BY_WINDOW = ("baseline promoted", "promotion undone", "columns changed")


def find_events(
    store: Store,
    spec: ModelSpec,
    start: dt.datetime,
    end: dt.datetime,
    history: History | None = None,
) -> list[Event]:
    """Return the newest of what happened in some windows, oldest first.

    Args:
        store: The store.
        spec: The model.
        start: Start of the first window.
        end: End of the last.
        history: Holds `find_counted_column` of these windows, if it has been read already.
    """
    column = find_counted_column(spec)
    if history is None and column:
        history = History(store, spec, [column], start=start)
    sizes = history.sizes(column) if history is not None and column else None
    found = [
        *(_find_versions(sizes, start, end) if sizes is not None else ()),
        *_find_promotions(store, spec),
        *_find_known(store, spec, start, end),
        *(
            Event(seen.window_start or seen.seen_at, "columns", f"{seen.change.text()}.", seen.path)
            for seen in load_changes(store.state, spec.model)
        ),
        *(
            Event(row["at"], row["kind"].removeprefix("alias "), f"{row['kind']}: {row['note']}.",
                  row["author"])
            for row in load_history(store.state, spec.model)
            if row["kind"] not in _TOLD_BY_WINDOW
        ),
    ]  # fmt: skip
    inside = sorted((e for e in found if start <= e.at < end), key=lambda e: e.at)
    return inside[-MOST_EVENTS:]


def describe_period(store: Store, spec: ModelSpec, start: dt.datetime, end: dt.datetime) -> str:
    """Say what happened to a model in a period and what it was worth, for its line of a digest.

    Args:
        store: The store.
        spec: The model.
        start: Where the period begins.
        end: Where it ends.

    Returns:
        Empty if nothing happened, of a model that declares neither outcomes nor costs.
    """
    happened = [event.text.rstrip(".") for event in find_events(store, spec, start, end)]
    if len(happened) > _MOST_TOLD:
        happened = [f"{len(happened) - _MOST_TOLD} earlier events", *happened[-_MOST_TOLD:]]
    return "; ".join(filter(None, (*happened, business_line(store, spec, start, end))))


def _find_promotions(store: Store, spec: ModelSpec) -> list[Event]:
    """Return an event for each promoted period, at the first window that is compared with it."""
    found = []
    for one in baselines.list_promotions(store.state, spec.model):
        last = one.period_end - dt.timedelta(microseconds=1)
        text = f"Compared with {name_window(spec, one.period_start)} to {name_window(spec, last)}"
        if one.undone_at is not None:
            text += f", until {one.undone_by} undid it on {one.undone_at:%Y-%m-%d}"
        text += f": {one.note}." if one.note else "."
        found.append(Event(one.period_end, "baseline", text, one.author))
    return found


def _find_known(store: Store, spec: ModelSpec, start: dt.datetime, end: dt.datetime) -> list[Event]:
    """Return an event for each time at which something that people know of began."""
    with store.state.connect() as conn:
        stored = load_stored(conn, spec.model)
    authors = {one.event.name: one.author for one in stored}
    days, found = list_days(start, end, spec.time.zone), list[Event]()
    for event in (*spec.events, *(one.event for one in stored)):
        begun = {first for day in days if (first := event.find_start(day)) is not None}
        for first in sorted(begun):
            at = dt.datetime.combine(first, dt.time(), ZoneInfo(spec.time.zone))
            last = first + (event.to - event.from_)
            text = f"{event.name}, {first}" + (f" to {last}" if last != first else "")
            if event.explains:
                text += f": explains {', '.join(FAMILIES[name].label for name in event.explains)}"
            author = authors.get(event.name, "")
            found.append(Event(at.astimezone(dt.UTC), event.name, f"{text}.", author))
    return found


def find_counted_column(spec: ModelSpec) -> str | None:
    """Return the profiled column by which rows of versions are counted; None without versions."""
    return next(iter([*spec.columns.outputs, *spec.features]), None) if spec.has_versions else None


def _find_versions(sizes: pd.DataFrame, start: dt.datetime, end: dt.datetime) -> list[Event]:
    """Return an event for each window that is the first in which another version serves most."""
    if sizes.empty:
        return []
    cells = sizes[sizes["window_start"].between(start, end, inclusive="left")]
    if cells.empty:
        return []
    by_version = cells.groupby(["window_start", "model_version"])["n"].sum().unstack(fill_value=0)
    largest = by_version.idxmax(axis=1).rename("version").reset_index()
    starts = [start.to_pydatetime() for start in largest["window_start"]]
    serving = list(zip(starts, map(str, largest["version"]), strict=True))
    return [
        Event(start, f"v{version}", f"Version {version} serves most predictions, before {before}.")
        for (_, before), (start, version) in pairwise(serving)
        if version != before
    ]
