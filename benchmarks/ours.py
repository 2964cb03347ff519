"""What we are asked to do beside the peers, and for goals of our own; one task, in this process.

    python -m benchmarks.ours TASK FOLDER

The clock starts once the libraries are imported and DuckDB is connected, as in a process that is
running; reading Parquet is within it. The last line printed is JSON.
"""

from __future__ import annotations

import importlib
import json
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.pandas_compat
import pyarrow.parquet as pq

from benchmarks.memory import peak_megabytes
from benchmarks.profile_vs_scan import DAYS, START, Engine, generate, make_spec
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.profiles.measures import drift, measure, measure_versions
from mlmon_dagster.spec import ModelSpec

for module in (
    "drift.columns",
    "means",
    "performance.fairness",
    "performance.multiclass",
    "performance.regression",
):
    importlib.import_module(f"mlmon_dagster.metrics.{module}")  # else when timed

STORED = "baseline.pickle"
MEMORY = "250MB"  # that DuckDB may take, besides the libraries and what numpy holds
SEED = 2
Profiles = dict[str, ColumnStatistics]


def prepare(folder: Path, rows: int) -> None:
    """Write the baseline's and the current rows, scored rows, and the baseline's profile.

    All files have row groups that both threads can share, as those of a store have.
    """
    generate(folder / "baseline.parquet", rows, seed=0, shift=0.0)
    generate(folder / "current.parquet", rows, seed=1, shift=0.2)
    pq.write_table(
        _scored(rows), folder / "scored.parquet", compression="zstd", row_group_size=122_880
    )
    (folder / STORED).write_bytes(pickle.dumps(_baseline(_engine(), make_spec(), folder)))


def _scored(rows: int) -> pa.Table:
    rng = np.random.default_rng(SEED)
    day = np.sort(rng.integers(0, DAYS, rows))
    score = 1 / (1 + np.exp(-1.5 * rng.standard_normal(rows)))
    return pa.table(
        {
            "window_start": pa.array(
                START + day * np.timedelta64(1, "D"), pa.timestamp("us", "UTC")
            ),
            "dataset": pa.repeat("production", rows),
            "model_version": pa.array(np.where(day < DAYS // 2, "1", "2")),
            "score": score,
            "prediction": (score > 0.5).astype(np.int64),
            "actual": (rng.random(rows) < score).astype(np.int64),
            "nonfinite": pa.nulls(rows, pa.list_(pa.string())),
        }
    )


def _engine() -> Engine:
    engine = Engine()
    engine.execute(f"SET memory_limit = '{MEMORY}'")
    return engine


def _source(folder: Path, name: str) -> str:
    return f"read_parquet('{folder / name}.parquet')"


def _baseline(engine: Engine, spec: ModelSpec, folder: Path) -> Profiles:
    source = _source(folder, "baseline")
    binnings = fit_binnings(engine, spec, source)
    binnings.pop("score", None)  # features only, as the peers
    return build_profiles(engine, spec, source, binnings)


def _compare(engine: Engine, spec: ModelSpec, folder: Path, baseline: Profiles) -> int:
    binnings = {name: stats.binning for name, stats in baseline.items()}
    profiles = build_profiles(engine, spec, _source(folder, "current"), binnings)
    return len(drift(spec, profiles, baseline))


def drift_cold(folder: Path, engine: Engine) -> int:
    """Fit the edges, profile both sides, and test 30 windows of 28 columns: everything."""
    spec = make_spec()
    return _compare(engine, spec, folder, _baseline(engine, spec, folder))


def drift_stored(folder: Path, engine: Engine) -> int:
    """The same with the baseline's profile at hand, as in every run but the first."""
    baseline = pickle.loads((folder / STORED).read_bytes())
    return _compare(engine, make_spec(), folder, baseline)


def performance(folder: Path, engine: Engine) -> int:
    """Area under both curves, confusion, losses and the rest by day and version."""
    roles = make_spec().columns.model_copy(update={"prediction": "prediction", "actual": "actual"})
    spec = make_spec().model_copy(update={"columns": roles, "features": {}})
    source = _source(folder, "scored")
    binnings = fit_binnings(engine, spec, source)
    profiles = build_profiles(engine, spec, source, binnings)
    found = (work(spec, "performance", profiles, None) for work in (measure, measure_versions))
    return sum(map(len, found))


TASKS: dict[str, Callable[[Path, Engine], int]] = {
    "drift_cold": drift_cold,
    "drift_stored": drift_stored,
    "performance": performance,
}


def main(task: str, folder: str) -> None:
    engine = _engine()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    numbers = TASKS[task](Path(folder), engine)
    found = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - begin_cpu}
    found |= {"peak": peak_megabytes(), "n": numbers}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
