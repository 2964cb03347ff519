"""The same rows taken in from files and left in Delta tables: what one run of them costs.

Ten days of predictions with ten features, a slice and ground truth, of which one percent come
twice; the baseline is a day before them. `mlmon run` computes all days in a process of its own: CPU
seconds of it and of all that it started, its peak of memory, and what it keeps. Then a look when
nothing changed, and one after a correction of a hundred labels.

    python -m benchmarks in_place --rows 100000
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake

from benchmarks.table import Goal, Row, show
from mlmon_dagster.project import process_environment

DAYS, FEATURES = 10, 10
MOST_SECONDS, MOST_BYTES = 8.0, 1e9  # of a million rows; of memory
FIRST = np.datetime64("2026-03-01", "us")
NOW = "2026-03-11T09:00:00+00:00"
SOURCES = {
    "files": "{path: 'landing/%s/*.parquet', settle: 0s}",
    "in place": "{delta: owned/%s, in_place: true}",
}
SPEC = """model: big
task: binary_classification
owners: [team:bench]
time: {start: 2026-03-01}
source:
  predictions: %s
  actuals: %s
columns: {prediction_id: id, event_time: at, score: score, prediction: decision, actual: label,
          actual_time: known_at, dataset: dataset, latency_ms: ms}
actuals: {expected_within: 1d, closed_after: 90d}
slices: [c0]
features:
"""


class Cost(NamedTuple):
    """CPU seconds and peak of memory in bytes of one command."""

    seconds: float
    peak: float


def make_day(day: int, rows: int) -> tuple[pa.Table, pa.Table]:
    """Return the predictions of a day, some of them twice, and their ground truth."""
    rng = np.random.default_rng(day + 1)
    start = FIRST + np.timedelta64(day, "D")
    score = rng.beta(2, 4, rows)
    ids = pa.array([f"{day:02}-{i:08}" for i in range(rows)])
    at = np.sort(rng.integers(0, 86_400_000_000, rows)).astype("timedelta64[us]") + start
    dataset = "validation" if day < 0 else "production"
    kind = pa.timestamp("us", "UTC")
    columns = {
        "id": ids, "at": pa.array(at).cast(kind), "score": score,
        "decision": (score > 0.5).astype(int), "ms": rng.gamma(2, 20, rows),
        "dataset": pa.repeat(dataset, rows),
    }  # fmt: skip
    columns |= {f"f{i}": rng.normal(size=rows) for i in range(FEATURES - 2)}
    columns |= {f"c{i}": rng.choice(list("abcd"), rows) for i in range(2)}
    predictions = pa.table(columns)
    known = pa.repeat(pa.scalar(start + np.timedelta64(1, "D"), pa.timestamp("us")), rows)
    labels = pa.table(
        {"id": ids, "label": (rng.random(rows) < score).astype(int), "known_at": known.cast(kind),
         "dataset": columns["dataset"]}
    )  # fmt: skip
    return pa.concat_tables([predictions, predictions.slice(0, rows // 100)]), labels


def make_project(folder: Path, way: str, rows: int) -> None:
    """Declare the model, and let all rows come."""
    (folder / "models").mkdir()
    text = SPEC % (SOURCES[way] % "predictions", SOURCES[way] % "actuals")
    text += "".join(f"  f{i}: {{type: numeric}}\n" for i in range(FEATURES - 2))
    text += "".join(f"  c{i}: {{type: categorical}}\n" for i in range(2))
    (folder / "models/big.yaml").write_text(text)
    for day in range(-1, DAYS):
        for stream, table in zip(("predictions", "actuals"), make_day(day, rows), strict=True):
            write(folder, way, stream, table, f"{day + 1:02}")


def write(folder: Path, way: str, stream: str, table: pa.Table, name: str) -> None:
    """Let rows come as a file, or into the owner's table."""
    if way == "in place":
        write_deltalake(folder / "owned" / stream, table, mode="append")
        return
    path = folder / "landing" / stream / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def run(folder: Path) -> Cost:
    """Run the project in a process of its own."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
        "capture_output=True); used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)"
    )
    command = [sys.executable, "-m", "mlmon_dagster.cli", "--project", str(folder), "--now", NOW]
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "run"], check=True, capture_output=True, text=True,
        env=process_environment() | {"PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    seconds, peak = map(float, done.stdout.split())
    return Cost(seconds, peak)


def measure_size(folder: Path) -> float:
    """Return the bytes of the store and of the files that were landed for it."""
    kept = [folder / ".mlmon/store", folder / "landing"]
    return float(sum(p.stat().st_size for top in kept for p in top.rglob("*") if p.is_file()))


def measure(way: str, rows: int) -> dict[str, tuple[Cost, float]]:
    """Return what the first run, an idle one, and one after a correction cost and keep."""
    with tempfile.TemporaryDirectory(prefix="mlmon-place-") as name:
        folder = Path(name)
        make_project(folder, way, rows)
        found = {"first": (run(folder), measure_size(folder))}
        found["nothing changed"] = run(folder), measure_size(folder)
        labels = make_day(3, rows)[1].slice(0, 100)
        place = labels.schema.get_field_index("label")
        other = pa.array(1 - np.asarray(labels["label"]))
        later = pa.array(np.asarray(labels["known_at"]) + np.timedelta64(1, "h"))
        labels = labels.set_column(place, "label", other)
        place = labels.schema.get_field_index("known_at")
        labels = labels.set_column(place, "known_at", later.cast(labels["known_at"].type))
        write(folder, way, "actuals", labels, "corrected")
        found["100 labels corrected"] = run(folder), measure_size(folder)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return how many goals are missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="a day, of ten")
    options = parser.parse_args(arguments)
    millions = options.rows * (DAYS + 1) / 1e6
    rows = []
    for way in SOURCES:
        for step, (cost, size) in measure(way, options.rows).items():
            each = cost.seconds / millions
            is_judged = way == "in place" and step == "first"
            goal = Goal(each, MOST_SECONDS, unit=" s") if is_judged else None
            cells = (f"{cost.seconds:.1f}", f"{each:.1f}", f"{cost.peak / 1e6:,.0f}",
                     f"{size / 1e6:,.0f}")  # fmt: skip
            rows.append(Row(f"{way}: {step}", cells, goal))
            print(rows[-1], flush=True)
    columns = ("CPU s", "CPU s a million rows", "peak MB", "MB kept")
    title = f"{DAYS + 1} days of {options.rows:,} predictions, from files and in place"
    return show([(title, columns, rows)], seed="of the day")


if __name__ == "__main__":
    sys.exit(main())
