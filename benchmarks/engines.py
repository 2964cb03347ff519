"""Profiles of one large window on every engine, with one and with two workers.

28 columns by day, in Parquet files of 500,000 rows, divided as the store divides them. Workers are
started before the clock, by a small piece of work. Each engine runs in a process of its own, on the
same files, and the fastest of five times is its time.

    python -m benchmarks engines
    python -m benchmarks engines --rows 1_000_000 --only whole local
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.memory import peak_megabytes
from benchmarks.profile_vs_scan import SEEDS, Engine, generate, make_spec
from benchmarks.table import Goal, Row, render
from mlmon_dagster.engines.ray import Engine as Ray
from mlmon_dagster.engines.spark import SPARK_HERE
from mlmon_dagster.engines.spark import Engine as Spark
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles import ProfileRows, profile_in_parts
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.project import Tables, set_for_ray, set_for_spark
from mlmon_dagster.store.places.objects import place_of
from mlmon_dagster.store.state.sql import literal, literals
from mlmon_dagster.store.tables.engine import Limits, QueryEngine
from mlmon_dagster.store.tables.inference_records import ROWS_A_PART

A_FILE, TIMES = 500_000, 5
# How often a machine of two cores may be as fast as one, and what parts may cost one process.
LEAST_FASTER, MOST_DEARER, MOST_DEARER_LARGE = 1.7, 1.1, 1.25
RUNS = ("whole", "local", "ray 1", "ray 2", "spark 1", "spark 2")


def measure(run: str, folder: Path) -> dict[str, float]:
    """Profile the files on one engine; return seconds, and a checksum of the counts."""
    name, _, workers = run.partition(" ")
    spec = make_spec()
    duck = Engine()
    baseline = literal(str(folder / "baseline.parquet"))
    binnings = fit_binnings(duck, spec, f"read_parquet({baseline})")
    del binnings["score"]  # features only, as in `profile_vs_scan`
    queries = QueryEngine(place_of(folder), folder, Limits())
    work = ProfileRows(Tables(str(folder), queries), spec, binnings)
    files = sorted(map(str, folder.glob("part-*")))
    some = ROWS_A_PART // A_FILE
    parts = [f"read_parquet([{literals(files[i : i + some])}])" for i in range(0, len(files), some)]
    whole = f"read_parquet({literal(str(folder / 'part-*'))})"
    spread = map
    if name == "ray":
        import ray

        set_for_ray()
        ray.init(num_cpus=int(workers), include_dashboard=False, log_to_driver=False)
        spread = Ray().map
    if name == "spark":
        from pyspark.sql import SparkSession

        set_for_spark()
        builder = SparkSession.builder.master(f"local[{workers},4]").config(map=SPARK_HERE)
        builder.getOrCreate().sparkContext.setLogLevel("ERROR")
        spread = Spark().map
    warm = f"(SELECT * FROM {parts[0]} LIMIT 1000)"
    profile_in_parts(work, [warm] * (2 * int(workers or 1)), warm, spread)
    sources = [whole] if name == "whole" else parts
    walls, cpus = [], []
    for _ in range(TIMES):
        began, cpu = time.perf_counter(), time.process_time()
        profiles = profile_in_parts(work, sources, whole, spread)
        walls.append(time.perf_counter() - began)
        cpus.append(time.process_time() - cpu)
    return {"wall": min(walls), "cpu": min(cpus)} | checksums(profiles)


def checksums(profiles: dict[str, ColumnStatistics]) -> dict[str, float]:
    """Return the rows counted, by code so that no two may be swapped, and the sums of squares."""
    codes = (stats.counts @ np.arange(1, stats.binning.size + 1) for stats in profiles.values())
    return {
        "counts": float(sum(int(of_cells.sum()) for of_cells in codes)),
        "sums": float(sum(stats.total_sq.sum() for stats in profiles.values())),
        "memory": peak_megabytes(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--only", nargs="*", default=list(RUNS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked.folder)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder / "baseline.parquet", 200_000, SEEDS[0], 0.0)
        for part in range(max(asked.rows // A_FILE, 1)):
            rows = min(A_FILE, asked.rows)
            generate(folder / f"part-{part:04}.parquet", rows, 100 + part, 0.01)
        found = {run: _apart(run, folder) for run in asked.only}
    return _tell(found, asked.rows)


def _apart(run: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.engines", "--one", run, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _tell(found: dict[str, dict[str, float]], rows: int) -> int:
    lines = []
    for run, seconds in found.items():
        goal, name = None, run.partition(" ")[0]
        alone = found.get(f"{name} 1")
        if run == "local" and "whole" in found:
            most = MOST_DEARER if rows <= ROWS_A_PART else MOST_DEARER_LARGE
            goal = Goal(seconds["cpu"] / found["whole"]["cpu"], most, unit=" x whole, CPU")
        if run.endswith(" 2") and alone:
            goal = Goal(alone["wall"] / seconds["wall"], LEAST_FASTER, True, " x one worker")
        numbers = (f"{seconds['wall']:.1f}", f"{seconds['cpu']:.1f}", f"{seconds['memory']:.0f}")
        lines.append(Row(run, (*numbers, f"{goal.value:.2f}" if goal else ""), goal))
    first = next(iter(found.values()))
    is_equal = all(
        one["counts"] == first["counts"] and abs(one["sums"] / first["sums"] - 1) < 1e-9
        for one in found.values()
    )
    columns = ("seconds", "CPU s here", "MB here", "ratio")
    print(render(f"{rows:,} rows by engine and workers", columns, lines, seed=SEEDS[0]))
    print(f"counts equal, sums within 1e-9: {'yes' if is_equal else 'NO'}")
    return int(not is_equal or any(row.goal and not row.goal.is_met for row in lines))


if __name__ == "__main__":
    sys.exit(main())
