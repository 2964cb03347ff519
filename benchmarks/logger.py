"""What logging one prediction costs its caller, and what the background thread gets written."""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import Goal, Row, render
from mlmon_dagster import PredictionLogger

MOST_MICROSECONDS = 5.0
PAUSE_EVERY = 1_000  # a server thinks between its predictions; this leaves the thread its turn


def call_times(n_rows: int, n_features: int, folder: Path) -> tuple[list[int], int, float]:
    """Return nanoseconds of each call, rows lost, and seconds until all rows were durable."""
    features = {f"feature_{i}": float(i) if i % 3 else f"value_{i}" for i in range(n_features)}
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    took = []
    clock = time.perf_counter_ns
    with PredictionLogger(folder, max_rows=2_000, max_queue=n_rows, max_bytes=1 << 30) as logger:
        begun = time.perf_counter()
        for i in range(n_rows):
            before = clock()
            logger.log(prediction_id=i, event_time=at, features=features, score=0.5)
            took.append(clock() - before)
            if i % PAUSE_EVERY == 0:
                time.sleep(0.005)
        logger.flush(120)
        seconds = time.perf_counter() - begun
    return took, n_rows - logger.stats().n_written, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda text: int(text.replace("_", "")), default=100_000)
    parser.add_argument("--features", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        took, lost, seconds = call_times(options.rows, options.features, Path(folder))
    cuts = [value / 1000 for value in statistics.quantiles(took, n=1000)]
    median = cuts[499]
    rows = [
        Row(
            "median of a call, us", (f"{median:.2f}",), Goal(median, MOST_MICROSECONDS, unit=" us")
        ),
        Row("99th percentile, us", (f"{cuts[989]:.2f}",)),
        Row("99.9th percentile, us", (f"{cuts[998]:.2f}",)),
        Row("rows lost", (f"{lost}",), Goal(lost, 0)),
        Row("rows a second until durable", (f"{options.rows / seconds:,.0f}",)),
    ]
    title = f"PredictionLogger.log: {options.rows:,} calls of {options.features} features"
    sys.stdout.write(render(title, ("measured",), rows, seed="none") + "\n")


if __name__ == "__main__":
    main()
