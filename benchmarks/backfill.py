"""The demo's windows in one backfill against one run a window, with and without Dagster.

Both go through the same assets and checks in this process; a run of its own process would only add
to the cost of one run a window. Of the single runs a sample is timed and its median multiplied.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.table import Goal, Row, render
from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.defs.launch import Launcher
from mlmon_dagster.demo import flights
from mlmon_dagster.demo.story import declare
from mlmon_dagster.pipeline.run import run
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, Window, complete_windows
from mlmon_dagster.spec.steps import windowed_of
from mlmon_dagster.work import Work

NOW = dt.datetime(2014, 1, 3, 12, tzinfo=dt.UTC)
LEAST_WITH_DAGSTER, LEAST_WITHOUT = 5.0, 20.0


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def without_dagster(project: Project, spec: ModelSpec, windows: Sequence[Window]) -> None:
    """Compute and judge windows in one pass, as the assets and checks do, without any event."""
    work = Work(project, spec, tuple(windows), NOW, "bench", True)
    run(work)


def prepare(folder: Path) -> tuple[Project, ModelSpec]:
    project = Project(folder, str(folder / ".mlmon" / "store"), now=lambda: NOW)
    spec = declare(project)
    model = flights.train()
    landing = folder / "landing" / spec.model
    flights.write_validation(model, landing)
    flights.write_predictions(model, landing)
    flights.write_actuals(landing)
    return project, spec


def main(sample: int = 12) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        project, spec = prepare(Path(folder))
        windows = complete_windows(spec.time, NOW)
        step = max(len(windows) // sample, 1)
        chosen = windows[step // 2 :: step][:sample]
        with open_instance(project) as instance:
            launcher = Launcher(project, [spec], instance)
            launcher.materialize(spec, ("event_log", "baseline"))

            def run(some: Sequence[Window]) -> None:
                assert launcher.materialize(
                    spec, windowed_of(spec), some, is_backfill=True
                ).is_success

            one = seconds(lambda: run(windows))
            single = statistics.median([seconds(partial(run, [w])) for w in chosen])
        bare = replace(project, store_root=project.store_root)
        bare_one = seconds(lambda: without_dagster(bare, spec, windows))
        bare_single = statistics.median(
            [seconds(partial(without_dagster, bare, spec, [w])) for w in chosen]
        )
    n = len(windows)
    rows = [
        _row("with Dagster's runs and events", one, single * n, LEAST_WITH_DAGSTER),
        _row("the same work without Dagster", bare_one, bare_single * n, LEAST_WITHOUT),
        _row("one pass without, runs with Dagster", bare_one, single * n, None),
    ]
    title = (
        f"Backfill: {n} daily windows of the flights in one pass against one by one "
        f"(median of {len(chosen)} times {n})"
    )
    columns = ("one pass s", "one by one s", "times")
    sys.stdout.write(render(title, columns, rows, seed="none, the data are fixed") + "\n")


def _row(name: str, together: float, apart: float, least: float | None) -> Row:
    ratio = apart / together
    goal = None if least is None else Goal(ratio, least, is_least=True, unit=" times")
    return Row(name, (f"{together:.1f}", f"{apart:.1f}", f"{ratio:.1f}"), goal)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=12, help="single runs to time")
    main(parser.parse_args().sample)
