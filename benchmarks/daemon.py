"""From a materialization of the user's assets to its metrics, under Dagster's daemon.

The project is `examples/retrain`. The clock starts when the last of the served assets is
materialized and stops when the run that writes the metrics of its day ends; the first day finds a
store that is empty, the others one that is warm. What the way is made of is told by the ticks and
runs.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from benchmarks.collect import free_port
from benchmarks.table import Goal, Row, show
from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.project import Project, project_from_environment
from mlmon_dagster.store.state import metric_log

ROOT = Path(__file__).parents[1]
FIRST = dt.date(2024, 5, 2)
MOST_SECONDS = 60.0
PATIENCE = 600.0


@contextmanager
def dagster_dev(folder: Path) -> Iterator[None]:
    """Run webserver, daemon and code server of the example, and end them."""
    with (folder / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-p", str(free_port())],
            cwd=folder, env=environment(folder), stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:  # on a crowded machine
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "MLMON_PROJECT": str(folder),
        "DAGSTER_HOME": str(folder),
        "PYTHONPATH": str(folder),
        "PYTHONWARNINGS": "ignore",
    }


def materialize(folder: Path, assets: str, *days: str) -> None:
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", assets]
    partition = ["--partition", days[0]] if len(days) == 1 else []
    if len(days) == 2:
        partition = ["--partition-range", "...".join(days)]
    subprocess.run(
        [*command, *partition, "-m", "retrain.definitions"],
        cwd=folder, env=environment(folder), check=True, capture_output=True,
    )  # fmt: skip


def wait_for_metrics(project: Project, day: str) -> None:
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        frame = metric_log.newest(project.store.state, "loans", metric="roc_auc")
        if day in {str(moment.date()) for moment in frame["window_start"]}:
            return
        time.sleep(0.5)
    raise SystemExit(f"no metric of {day} within {PATIENCE:.0f} s")


def measured(folder: Path, days: int) -> Iterator[Row]:
    """Yield a row a day: seconds until the run was asked for, began and ended."""
    shutil.copytree(ROOT / "examples" / "retrain", folder)
    shutil.copy(ROOT / "dagster.yaml", folder)
    project = project_from_environment(folder)
    materialize(folder, "features", "2024-04-29", "2024-04-30")
    materialize(folder, "trained_model,champion")
    with dagster_dev(folder):
        for n in range(days):
            day = str(FIRST + dt.timedelta(days=n))
            materialize(folder, "features,predictions,outcomes", day)
            wait_for_metrics(project, day)
            with open_instance(project) as instance:
                asked, ran, ended = last_run(instance, written(instance))
            name = f"{day}, {'a warm' if n else 'an empty'} store"
            numbers = (f"{asked:.1f}", f"{ran:.1f}", f"{ended:.1f}")
            print(name, *numbers, flush=True)  # the table comes when all are measured
            yield Row(name, numbers, Goal(ended, MOST_SECONDS, unit=" s"))


def written(instance: dg.DagsterInstance) -> float:
    """Return when the last of the served assets was materialized: its process ends much later."""
    event = instance.get_latest_materialization_event(dg.AssetKey("outcomes"))
    assert event is not None
    return event.timestamp


def last_run(instance: dg.DagsterInstance, since: float) -> tuple[float, float, float]:
    """Return when the newest run of a model was asked for, began and ended, in seconds."""
    for record in instance.get_run_records(limit=20):  # newest first
        if "mlmon/model" in record.dagster_run.tags and record.start_time:
            asked = record.create_timestamp.timestamp()
            ended = record.end_time or time.time()
            return asked - since, record.start_time - since, ended - since
    return 0.0, 0.0, 0.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks daemon", description=__doc__)
    parser.add_argument("--days", type=int, default=5)
    days = parser.parse_args(arguments).days
    columns = ("run asked", "run began", "run ended")
    with tempfile.TemporaryDirectory(prefix="mlmon-daemon-") as folder:
        rows = measured(Path(folder) / "retrain", days)
        title = "From a materialization to its metrics, under the daemon"
        return show([(title, columns, rows)], seed="of the day")


if __name__ == "__main__":
    sys.exit(main())
