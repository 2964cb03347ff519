"""How much dearer a whole profile with drift is than reading the same columns once.

Profile: bins, moments, nulls, categories and drift of 28 columns by day, against a stored
baseline. Scan: the sum of every number and the count of every column, by the same engine over the
same file. All in one process, in turns, so that their ratio means something on a noisy machine.

    python -m benchmarks.profile_vs_scan --rows 10_000_000
"""

from __future__ import annotations

import argparse
import datetime as dt
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.memory import peak_megabytes
from benchmarks.table import Goal, Row, render
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.spec.declaration import Columns as Roles
from mlmon_dagster.spec.declaration import Feature, TimeSpec
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.sources import FileSource, Sources
from mlmon_dagster.store.tables.engine import keep_freed_memory

NUMERIC = [f"n{i:02d}" for i in range(20)]
LEVELS = (3, 5, 8, 12, 50, 100, 300, 1_000)
CATEGORICAL = [f"c{i:02d}" for i in range(len(LEVELS))]
DAYS, NULL_SHARE, CHUNK = 30, 0.03, 1_000_000
SEEDS = (0, 1)  # of the baseline and of the current rows
RUNS = ("plain scan", "profile", "profile + drift")
MOST_TIMES_SCAN, MOST_MEMORY, LARGE = 3.5, 500.0, 10_000_000
START = np.datetime64("2026-01-01", "us")


class Engine:
    """DuckDB with two threads, set up like the store's."""

    threads = 2

    def __init__(self) -> None:
        keep_freed_memory()
        self._connection = duckdb.connect()
        self.execute("SET threads = 2; SET memory_limit = '512MB'; SET TimeZone = 'UTC'")
        self.execute("SET enable_external_file_cache = false")

    def execute(self, sql: str) -> None:
        """Run statements that return nothing."""
        self._connection.execute(sql)

    def query(self, sql: str, /) -> pa.Table:
        """Run one statement."""
        return self._connection.sql(sql).to_arrow_table()

    def batches(self, sql: str, rows: int, /) -> Iterator[pa.Table]:
        """Run one statement and yield its rows, at most so many at a time."""
        for batch in self._connection.sql(sql).to_arrow_reader(rows):
            yield pa.Table.from_batches([batch])


def make_spec() -> ModelSpec:
    numeric = {name: Feature(type="numeric", nullable=True) for name in NUMERIC}
    categorical = {name: Feature(type="categorical", nullable=True) for name in CATEGORICAL}
    return ModelSpec(
        model="bench",
        task="binary_classification",
        owners=("team:bench",),
        time=TimeSpec(start=dt.date(2026, 1, 1)),
        source=Sources(predictions=FileSource(path="bench.parquet")),
        columns=Roles(prediction_id="prediction_id", event_time="event_time", score="score"),
        features=numeric | categorical,
    )


def generate(path: Path, rows: int, seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    writer = None
    for begin in range(0, rows, CHUNK):
        table = _chunk(rng, min(CHUNK, rows - begin), shift)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=122_880)
    if writer:
        writer.close()


def _chunk(rng: np.random.Generator, rows: int, shift: float) -> pa.Table:
    day = np.sort(rng.integers(0, DAYS, rows))
    columns: dict[str, Any] = {
        "window_start": pa.array(START + day * np.timedelta64(1, "D"), pa.timestamp("us", "UTC")),
        "prediction_id": pa.array(rng.permutation(rows)).cast(pa.string()),
        "dataset": pa.array(["production"] * rows),
        "model_version": pa.array(np.where(day < DAYS // 2, "1", "2")),
    }
    draws = (rng.standard_normal, rng.standard_exponential, lambda n: rng.gamma(2, 1, n))
    for i, name in enumerate(NUMERIC):
        values = draws[i % 3](rows) * 10 + shift * i
        columns[name] = pa.array(values, mask=rng.random(rows) < NULL_SHARE)
    for name, levels in zip(CATEGORICAL, LEVELS, strict=True):
        code = np.minimum(rng.exponential(levels / 5, rows).astype(np.int32), levels - 1)
        indices = pa.array(code, mask=rng.random(rows) < NULL_SHARE)
        names = pa.array([f"level_{level}" for level in range(levels)])
        columns[name] = pa.DictionaryArray.from_arrays(indices, names).cast(pa.string())
    columns["nonfinite"] = pa.nulls(rows, pa.list_(pa.string()))
    return pa.table(columns)


def scan(engine: Engine, source: str) -> None:
    sums = [f"SUM({name})" for name in NUMERIC]
    counts = [f"COUNT({name})" for name in NUMERIC + CATEGORICAL]
    engine.query(f"SELECT {', '.join(sums + counts)} FROM {source}")


def profile(engine: Engine, source: str, baseline: dict[str, ColumnStatistics]) -> int:
    binnings = {name: stats.binning for name, stats in baseline.items()}
    profiles = build_profiles(engine, make_spec(), source, binnings)
    return sum(int(stats.n.sum()) for stats in profiles.values())


def profile_and_drift(engine: Engine, source: str, baseline: dict[str, ColumnStatistics]) -> int:
    from mlmon_dagster.profiles.measures import drift

    binnings = {name: stats.binning for name, stats in baseline.items()}
    spec = make_spec()
    profiles = build_profiles(engine, spec, source, binnings)
    return len(drift(spec, profiles, baseline))


def measure(folder: Path, repeats: int) -> dict[str, float]:
    """Time everything in turns, in this process; run it in a fresh one."""
    baseline = pickle.loads((folder / "baseline.pickle").read_bytes())
    engine, source = Engine(), f"read_parquet('{folder / 'current.parquet'}')"
    works: tuple[Callable[[], Any], ...] = (
        lambda: scan(engine, source),
        lambda: profile(engine, source, baseline),
        lambda: profile_and_drift(engine, source, baseline),
    )
    runs = dict(zip(RUNS, works, strict=True))
    times: dict[str, list[float]] = {name: [] for name in runs}
    peaks: dict[str, float] = {}
    for _ in range(repeats + 1):  # the first round warms the file cache
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
            peaks.setdefault(name, peak_megabytes())
    found = {name: statistics.median(values[1:]) for name, values in times.items()}
    return found | {"peak MB": peaks[RUNS[2]]}


def prepare(folder: Path, rows: int) -> None:
    generate(folder / "baseline.parquet", min(rows, 1_000_000), seed=SEEDS[0], shift=0.0)
    generate(folder / "current.parquet", rows, seed=SEEDS[1], shift=0.2)
    engine, spec = Engine(), make_spec()
    source = f"read_parquet('{folder / 'baseline.parquet'}')"
    binnings = fit_binnings(engine, spec, source)
    del binnings["score"]  # features only, as in the scan
    baseline = build_profiles(engine, spec, source, binnings)
    (folder / "baseline.pickle").write_bytes(pickle.dumps(baseline))


def report(rows: int, repeats: int, found: dict[str, float]) -> str:
    scanned = found["plain scan"]
    table = [Row(name, (f"{found[name]:.3f}", f"{found[name] / scanned:.2f}")) for name in RUNS]
    both = Goal(found[RUNS[2]] / scanned, MOST_TIMES_SCAN)
    table[2] = replace(table[2], goal=both)
    memory = Goal(found["peak MB"], MOST_MEMORY, unit=" MB") if rows >= LARGE else None
    table.append(Row("peak memory, MB", (f"{found['peak MB']:.0f}",), memory))
    title = f"Profile against scan: {rows:,} rows x 28 columns, {DAYS} days, median of {repeats}"
    return render(title, ("seconds", "x scan"), table, seed=f"{SEEDS[0]}, {SEEDS[1]}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda text: int(text.replace("_", "")), default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--step", choices=["prepare", "measure"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step == "prepare":
        prepare(options.folder, options.rows)
    elif options.step == "measure":
        found = measure(options.folder, options.repeats)
        sys.stdout.write(report(options.rows, options.repeats, found) + "\n")
    else:
        with tempfile.TemporaryDirectory() as folder:
            for step in ("prepare", "measure"):
                command = [sys.executable, "-m", "benchmarks.profile_vs_scan", "--step", step]
                command += ["--folder", folder, "--rows", str(options.rows)]
                command += ["--repeats", str(options.repeats)]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
