"""A window, and a month of daily windows, against the baseline, from stored profiles alone.

28 columns and 12 slices; 30 days of production and of the baseline are landed, rebuilt and
profiled, then the event log and the inference records are deleted: whatever is answered after that
has read no raw row.

    python -m benchmarks window
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.profile_vs_scan import CATEGORICAL, LEVELS, NUMERIC
from benchmarks.table import Goal, Row, render
from mlmon_dagster.metrics.statistics import merge_columns
from mlmon_dagster.profiles import (
    Baseline,
    baseline_in_force,
    build_profiles,
    ensure_baseline,
    load_baseline,
    save_profiles,
)
from mlmon_dagster.profiles.measures import columns_of, measure
from mlmon_dagster.spec import ModelSpec, Window, spec_from_mapping, window_containing, window_date
from mlmon_dagster.store import Store, open_store

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
SLICE = "c03"  # of 12 values
RAW = ("event_log", "inference_records")
MOST_WINDOW, MOST_MONTH = 50.0, 200.0  # ms


def make_spec() -> ModelSpec:
    numeric = {name: {"type": "numeric", "nullable": True} for name in NUMERIC}
    categorical = {name: {"type": "categorical", "nullable": True} for name in CATEGORICAL}
    return spec_from_mapping(
        {
            "model": "bench",
            "task": "regression",
            "owners": ["team:bench"],
            "time": {"start": START.date().isoformat()},
            "source": {"predictions": {"path": "bench.parquet"}},
            "columns": {
                "prediction_id": "prediction_id", "event_time": "event_time",
                "prediction": "prediction", "dataset": "dataset",
            },
            "features": numeric | categorical,
            "slices": [SLICE],
        }
    )  # fmt: skip


def make_events(spec: ModelSpec, window: Window, dataset: str, rows: int, seed: int) -> pa.Table:
    """Return one day's canonical predictions."""
    rng = np.random.default_rng(seed)
    id_ = f"{dataset}-{window.key}"
    columns: dict[str, object] = {
        "prediction_id": [f"{id_}-{i}" for i in range(rows)],
        "dataset": [dataset] * rows,
        "event_time": [window.start] * rows,
        "model_version": ["1"] * rows,
        "prediction": rng.normal(size=rows),
        "window_start": [window.start] * rows,
        "window_date": [window_date(spec.time, window)] * rows,
        "nonfinite": pa.array([[]] * rows, pa.list_(pa.string())),
        "row_hash": rng.integers(-(2**62), 2**62, size=rows),
        "file_sha": [id_] * rows,
        "row_number": range(rows),
        "ingested_at": [window.start] * rows,
    }
    columns |= {name: rng.normal(size=rows) for name in NUMERIC}
    for name, levels in zip(CATEGORICAL, LEVELS, strict=True):
        code = np.minimum(rng.exponential(levels / 5, rows).astype(int), levels - 1)
        columns[name] = [f"level_{c}" for c in code]
    return pa.table(columns)


def prepare(store: Store, spec: ModelSpec, days: int, rows: int) -> list[Window]:
    """Land, rebuild and profile both datasets; then delete every raw row."""
    windows = [window_containing(spec.time, START + dt.timedelta(days=d)) for d in range(days)]
    log = store.event_log(spec)
    for number, dataset in enumerate((spec.baseline.dataset, "production")):
        tables = [
            make_events(spec, window, dataset, rows, 100 * number + day)
            for day, window in enumerate(windows)
        ]
        log.append("predictions", pa.concat_tables(tables), [dataset])
    baseline = ensure_baseline(store, spec, NOW)
    records = store.inference_records(spec)
    records.rebuild(windows, ["production"])
    source = records.from_sql(windows, ["production"])
    save_profiles(store, spec, build_profiles(store, spec, source, baseline.binnings), windows)
    return windows


def delete_raw_rows(root: Path) -> None:
    """Delete the event log and the records of every model."""
    for kind in RAW:
        shutil.rmtree(root / kind)


def judge_window(
    store: Store, spec: ModelSpec, window: Window, baseline: Baseline | None = None
) -> pd.DataFrame:
    """Return the drift of one window, all columns and slices; without a baseline it is read too."""
    baseline = baseline or load_baseline(store, spec, window.start)
    profiles = baseline_in_force(store, spec, window.start).profiles(
        start=window.start, end=window.end, columns=columns_of(spec, "drift")
    )
    return measure(spec, "drift", profiles, baseline.windows)


def judge_month(store: Store, spec: ModelSpec, baseline: Baseline | None = None) -> pd.DataFrame:
    """Return the drift of all stored days together."""
    baseline = baseline or load_baseline(store, spec)
    columns = columns_of(spec, "drift")
    days = baseline_in_force(store, spec).profiles(dataset="production", columns=columns)
    keys = ("dataset", "model_version", "slice_key", "slice_value")
    return measure(spec, "drift", merge_columns(days, keys), baseline.windows)


def milliseconds(work: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Return median, least, and median of the processor's."""
    work()
    wall, cpu = [], []
    for _ in range(repeats):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        work()
        wall.append(1000 * (time.perf_counter() - begin))
        cpu.append(1000 * (time.process_time() - begin_cpu))
    return statistics.median(wall), min(wall), statistics.median(cpu)


def run(folder: Path, days: int = 30, rows: int = 2_000, repeats: int = 15) -> list[Row]:
    spec = make_spec()
    store = open_store(folder / "store")
    windows = prepare(store, spec, days, rows)
    delete_raw_rows(folder / "store")
    baseline = load_baseline(store, spec)
    last = windows[-1]
    works: tuple[tuple[str, Callable[[], object], float | None], ...] = (
        ("window", lambda: judge_window(store, spec, last, baseline), MOST_WINDOW),
        ("window, reading the baseline too", lambda: judge_window(store, spec, last), None),
        ("month from days", lambda: judge_month(store, spec, baseline), MOST_MONTH),
        ("month, reading the baseline too", lambda: judge_month(store, spec), None),
    )
    table = []
    for name, work, most in works:
        found = milliseconds(work, repeats)
        goal = None if most is None else Goal(found[0], most, unit=" ms")
        table.append(Row(name, tuple(f"{number:.0f}" for number in found), goal))
    store.close()
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rows", type=int, default=2_000, help="a day")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder), options.days, options.rows, options.repeats)
    title = (
        f"Window against stored profiles: 28 columns x 12 slices, {options.days} days, "
        f"median of {options.repeats}"
    )
    sys.stdout.write(render(title, ("ms", "least", "CPU ms"), rows, seed="0 to 129") + "\n")


if __name__ == "__main__":
    main()
