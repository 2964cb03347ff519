"""Live the history of a made project day by day: `python -m benchmarks alerts FOLDER MODEL`.

`make demo` computes a year in one run, whose alerts are history. Here the same verdicts come on
the mornings after their windows, with the dispatcher looking each day, as they would have come
live. Printed are the episodes, why each ended, and the messages that people would have got.
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.alerts.dispatching import dispatch
from mlmon_dagster.alerts.receivers.base import ConsoleReceiver
from mlmon_dagster.commands.options import spec_of
from mlmon_dagster.project import project_from_environment
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.alert_state import all_alerts, all_events
from mlmon_dagster.store.state.schema import monitor_result, outbox
from mlmon_dagster.store.state.sql import insert_or_ignore

Row = dict[str, Any]
QUIET = ("head", "plot")  # changes of what is there already; nobody is disturbed
MORNING = dt.timedelta(hours=8)


def live(store: Store, spec: ModelSpec, results: Sequence[Row]) -> Counter[str]:
    """Take in results as they would have come, and return the messages by kind.

    Args:
        store: An empty one, which holds the alerts and messages afterwards.
        spec: The model.
        results: Rows of ``monitor_result``, the newest of each window.
    """
    receiver = ConsoleReceiver(io.StringIO(), hint="")
    wait = spec.actuals.expected_within or dt.timedelta(days=1)
    for day, of_day in _by_day(results, wait):
        with store.state.begin() as conn:
            insert_or_ignore(conn, monitor_result, of_day)
        dispatch(store, [spec], day, {"slack": receiver}, max_messages=1000)
    with store.state.connect() as conn:
        return Counter(k for k in conn.scalars(sa.select(outbox.c.kind)) if k not in QUIET)


def _by_day(results: Sequence[Row], wait: dt.timedelta) -> Iterator[tuple[dt.datetime, list[Row]]]:
    days: dict[dt.datetime, list[Row]] = {}
    for row in results:
        needs_truth = row["family"] in ("performance", "estimated_performance")
        day = row["window_end"] + MORNING + (wait if needs_truth else dt.timedelta(0))
        fresh = {"is_backfill": False, "created_at": day, "folded_at": None}
        days.setdefault(day, []).append({k: v for k, v in row.items() if k != "id"} | fresh)
    return iter(sorted(days.items()))


def newest(store: Store, model: str) -> list[Row]:
    """Return the last verdict of each monitor on each window."""
    r = monitor_result.c
    identity = (r.monitor, r.dataset, r.slice_key, r.slice_value, r.window_start)
    last = sa.select(sa.func.max(r.id)).where(r.model == model).group_by(*identity)
    query = sa.select(monitor_result).where(r.id.in_(last)).order_by(r.window_start, r.id)
    with store.state.connect() as conn:
        return [dict(row) for row in conn.execute(query).mappings()]


def episodes(store: Store, model: str) -> list[str]:
    """Return a line for each unmuted episode: alert, from when to when, and what was said first."""
    with store.state.connect() as conn:
        alerts, history = all_alerts(conn, model), all_events(conn, model)
    found = []
    for fingerprint, row in alerts.items():
        of_episode: dict[int, list[Mapping[str, Any]]] = {}
        for event in history.get(fingerprint, ()):
            of_episode.setdefault(event["episode"], []).append(event)
        for events in of_episode.values():
            opened = next((e for e in events if e["kind"] == "opened"), None)
            ended = next((e for e in events if e["kind"] == "resolved"), None)
            if opened is None or opened["muted_reason"]:
                continue
            start = f"{opened['window_start']:%Y-%m-%d}"
            end = f"{ended['window_start']:%Y-%m-%d}" if ended else "still firing"
            name = row["monitor"] + (
                "" if row["slice_key"] == "all" else f" {row['slice_key']}={row['slice_value']}"
            )
            found.append(f"{start}  {end:<12}  {name:<44}  {opened['message']}")
    return sorted(found)


def main() -> int:
    """Print the episodes and messages of a made project; return 1 if there are too many."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks alerts", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", nargs="?", default="flight_delay")
    parser.add_argument("--most", type=int, nargs=2, metavar=("EPISODES", "MESSAGES"))
    options = parser.parse_args()
    project = project_from_environment(options.folder)
    spec = spec_of(project, options.model)
    results = newest(project.store, spec.model)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        kinds = live(store, spec, results)
        found = episodes(store, spec.model)
        store.close()
    print("\n".join(found))
    said = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    print(f"\n{len(found)} episodes, {kinds.total()} messages ({said})")
    most = options.most or (len(found), kinds.total())
    return int(len(found) > most[0] or kinds.total() > most[1])


if __name__ == "__main__":
    sys.exit(main())
