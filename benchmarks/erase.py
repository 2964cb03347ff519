"""What erasing reads and computes: one id, then 60 ids of 60 days, out of the demo's nine months.

The demo's events are ingested, rebuilt, profiled and measured once; each erasure works on a copy.
A file counts as often as a query names it. The processor's seconds are those of `erase` alone, in
a process that has done nothing before, so that loading libraries is in them.

    python -m benchmarks.erase --keep /tmp/store
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from benchmarks.table import Goal, Row, render
from mlmon_dagster.commands.options import spec_of
from mlmon_dagster.demo import flights
from mlmon_dagster.demo.story import MODEL, declare
from mlmon_dagster.pipeline.baseline import fit_baseline
from mlmon_dagster.pipeline.ingest import ingest
from mlmon_dagster.pipeline.run import run as run_all
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, complete_windows
from mlmon_dagster.store import Store
from mlmon_dagster.store.erasure.erase import erase
from mlmon_dagster.store.erasure.places import find_traces
from mlmon_dagster.work import Work

NOW = dt.datetime(2014, 1, 3, 12, tzinfo=dt.UTC)
MOST_SECONDS = {1: 1.5, 60: 10.0}


def prepare(folder: Path) -> tuple[Project, ModelSpec]:
    project = Project(folder, str(folder / ".mlmon" / "store"), now=lambda: NOW)
    spec = declare(project)
    model = flights.train()
    landing = folder / "landing" / spec.model
    flights.write_validation(model, landing)
    flights.write_predictions(model, landing)
    flights.write_actuals(landing)
    return project, spec


def make(folder: Path) -> None:
    """Make the store that is copied."""
    project, spec = prepare(folder)
    work = Work(project, spec, (), NOW, "bench", True)
    ingest(work)
    fit_baseline(work)
    run_all(Work(project, spec, tuple(complete_windows(spec.time, NOW)), NOW, "bench", True))
    shutil.rmtree(folder / "landing")


def project_of(folder: Path) -> Project:
    return Project(folder, str(folder / ".mlmon" / "store"), now=lambda: NOW)


def run(folder: Path, n: int) -> dict[str, float]:
    """Erase one id of each of the first days."""
    project = project_of(folder)
    spec, store = spec_of(project, MODEL), project.store
    source = store.inference_records(spec).from_sql(None, ["production"])
    chosen = store.query(
        f"SELECT min(prediction_id) AS id FROM {source} GROUP BY window_date "
        f"ORDER BY window_date LIMIT {n}"
    )
    ids = chosen.column("id").to_pylist()
    read: Counter[str] = Counter()

    def query(sql: str, tables: Mapping[str, pa.Table] | None = None) -> pa.Table:
        read.update(re.findall(r"'([^']+\.parquet)'", sql))
        return Store.query(store, sql, tables)

    store.query = query  # type: ignore[method-assign]
    before = data_files(folder)
    start = os.times()
    erase(store, spec, ids, now=NOW)
    end = os.times()
    stayed = before & data_files(folder)
    return {
        "seconds": end.user + end.system - start.user - start.system,
        "reads": sum(read.values()),
        "most": max(read[path] for path in stayed),
        "traces": len(find_traces(store, ids).traces),
    }


def data_files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*.parquet") if path.parent.name != "_delta_log"}


def main(keep: Path | None) -> int:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        base, copy = keep or Path(folder) / "base", Path(folder) / "copy"
        if not base.exists():
            make(base)
        for n, most in MOST_SECONDS.items():
            shutil.copytree(base, copy)
            command = [sys.executable, "-m", "benchmarks.erase", "--run", str(copy), str(n)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            shutil.rmtree(copy)
            name = "one id" if n == 1 else f"{n} ids of {n} days"
            numbers = (f"{found['reads']:,}", f"{found['most']}", f"{found['seconds']:.2f}")
            rows.append(
                Row(f"{name}: CPU seconds", numbers, Goal(found["seconds"], most, unit=" s"))
            )
            rows.append(Row("  reads of a file that stayed", (), Goal(found["most"], 1)))
            rows.append(Row("  files with a trace afterwards", (), Goal(found["traces"], 0)))
    columns = ("file reads", "most of one", "CPU s")
    title = "Erasing ids of the demo's events"
    sys.stdout.write(render(title, columns, rows, seed="none, the data are fixed") + "\n")
    return sum(row.goal is not None and not row.goal.is_met for row in rows)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="where the store is, or is to be made and kept")
    parser.add_argument("--run", nargs=2, metavar=("FOLDER", "N"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        sys.stdout.write(json.dumps(run(Path(given.run[0]), int(given.run[1]))))
        sys.exit(0)
    sys.exit(main(given.keep))
