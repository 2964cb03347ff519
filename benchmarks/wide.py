"""Many features, many slices: what one window of them costs, and how that grows.

Each case is a project of its own: 2,000 rows of validation data and one day of 2,000, half of the
features categories. `mlmon run` takes in, profiles, measures and judges in a process of its own;
CPU seconds are those of the process and all that it started, with Python's start.

    python -m benchmarks wide
"""

from __future__ import annotations

import argparse
import math
import resource
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.table import Goal, Row, show
from mlmon_dagster.project import process_environment

CASES = ((10, 3), (100, 3), (250, 3), (500, 3), (100, 200), (500, 20))  # features, slice values
ROWS = 2_000
MOST_SECONDS, MOST_EXPONENT = 25.0, 1.05
NOW = "2024-03-02T09:00:00+00:00"
SPEC = """model: wide
task: binary_classification
description: One with many columns.
owners: [team:bench]
time: {zone: UTC, granularity: day, start: 2024-03-01}
source:
  predictions: {path: landing/*.parquet, settle: 0s}
columns: {prediction_id: id, event_time: at, score: score, dataset: dataset}
slices: [part]
features:
  part: {type: categorical}
"""


class Cost(NamedTuple):
    """CPU seconds of a first run, what it stored of metrics, and MB of state."""

    seconds: float
    samples: int
    state: float


def make_project(folder: Path, n_features: int, n_values: int) -> None:
    """Declare a model and land its baseline and a day."""
    names = [f"f{i:03d}" for i in range(n_features)]
    kinds = ["numeric" if i % 2 else "categorical" for i in range(n_features)]
    declared = [f"  {name}: {{type: {kind}}}" for name, kind in zip(names, kinds, strict=True)]
    (folder / "models").mkdir()
    (folder / "models/wide.yaml").write_text(SPEC + "\n".join(declared) + "\n")
    (folder / "landing").mkdir()
    rng = np.random.default_rng(n_features)
    for dataset, day in (("validation", "2024-02-01"), ("production", "2024-03-01")):
        seconds = np.sort(rng.integers(0, 86_400, ROWS))
        rows = {
            "id": [f"{dataset}{i}" for i in range(ROWS)],
            "at": pd.Timestamp(day, tz="UTC") + pd.to_timedelta(seconds, unit="s"),
            "score": rng.uniform(size=ROWS),
            "dataset": dataset,
            "part": rng.integers(0, n_values, ROWS).astype(str),
        }
        for name, kind in zip(names, kinds, strict=True):
            is_number = kind == "numeric"
            rows[name] = rng.normal(size=ROWS) if is_number else rng.choice(list("abcdef"), ROWS)
        pd.DataFrame(rows).to_parquet(folder / "landing" / f"{dataset}.parquet", index=False)


def run_once(n_features: int, n_values: int) -> Cost:
    """Run the project's first window in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="mlmon-wide-") as name:
        folder = Path(name)
        make_project(folder, n_features, n_values)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "mlmon_dagster.cli", "--project", name, "--now", NOW, "run"],
            env=process_environment() | {"PYTHONPATH": str(Path.cwd())},
            check=True,
            capture_output=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        [state] = folder.glob(".mlmon/**/state.db")
        with sqlite3.connect(state) as conn:
            [samples] = conn.execute("SELECT count(*) FROM sample").fetchone()
        size = sum(path.stat().st_size for path in state.parent.glob("state.db*"))
        return Cost(used, samples, size / 1e6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return how many goals are missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each; the median counts")
    options = parser.parse_args(arguments)
    found: dict[tuple[int, int], Cost] = {}
    for case in CASES:
        runs = sorted(run_once(*case) for _ in range(options.repeats))
        found[case] = runs[len(runs) // 2]
        print(f"{case[0]} features, {case[1]} values: {found[case]}", flush=True)
    rows = [
        Row(
            f"{features} features x {values} slices",
            (f"{cost.seconds:.1f}", f"{cost.samples:,}", f"{cost.state:.1f}"),
            Goal(cost.seconds, MOST_SECONDS, unit=" s")
            if (features, values) == (500, 20)
            else None,
        )
        for (features, values), cost in found.items()
    ]
    few, some, many = (found[n, 3].seconds for n in (10, 250, 500))
    exponent = math.log((many - few) / (some - few)) / math.log(490 / 240)
    rows.append(Row("exponent of features", (f"{exponent:.2f}",), Goal(exponent, MOST_EXPONENT)))
    columns = ("CPU s", "samples", "MB of state")
    return show([("First run of a wide model, a window of 2,000 rows", columns, rows)], seed="of n")


if __name__ == "__main__":
    sys.exit(main())
