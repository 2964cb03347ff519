"""The most memory that work takes: of this process, and of whole runs of `mlmon run`.

A model of 28 features with a baseline, two slices and ground truth for 90 % of its events, which
comes a day late: one run takes the events in, a second one the ground truth, so every window is
built twice. Then a year of small windows in one backfill. Measured is the sum over the process and
its children, every 50 ms; by step, so that the figure says where it was held.

    python -m benchmarks.memory                       # 1, 3 and 10 million rows a day, and a year
    python -m benchmarks.memory --rows 50_000_000     # by name only: 11 GB of file, 50 GB of disk
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.table import Goal, Row, show

NUMERIC = [f"n{i:02d}" for i in range(20)]
LEVELS = (3, 5, 8, 12, 50, 100, 300, 1_000)
CATEGORICAL = [f"c{i:02d}" for i in range(len(LEVELS))]
START = dt.date(2026, 1, 1)
SIZES = (1_000_000, 3_000_000, 10_000_000)
BASELINE, LABELLED, CHUNK = 200_000, 0.9, 250_000
YEAR, SMALL = 365, 1_500
MOST, MOST_APART = 1_024.0, 1.10
_STATUS = Path("/proc/self/status")


def peak_megabytes() -> float:
    """Return this program's own peak, in MB.

    On Linux `getrusage` of a program that was just started begins with the peak of the process that
    started it, which may have been far larger; the high-water mark of its own pages does not.
    """
    if _STATUS.exists():
        marks = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
        if marks:
            return int(marks[0].split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def declare(folder: Path, slices: Sequence[str]) -> None:
    """Write the model's spec; JSON is YAML."""
    landing = {"settle": "0s", "max_rows": 200_000_000, "max_bytes": 40_000_000_000}
    names = ("prediction_id", "event_time", "score", "prediction", "dataset", "latency_ms",
             "model_version", "status", "actual", "actual_time")  # fmt: skip
    numeric = {name: {"type": "numeric", "nullable": True} for name in NUMERIC}
    categorical = {name: {"type": "categorical", "nullable": True} for name in CATEGORICAL}
    spec = {
        "model": "bench",
        "task": "binary_classification",
        "owners": ["team:bench"],
        "time": {"start": START.isoformat()},
        "source": {
            stream: {"path": f"landing/{stream}/*.parquet", **landing}
            for stream in ("predictions", "actuals")
        },
        "columns": {name: name for name in names},
        "features": numeric | categorical,
        "baseline": {"dataset": "validation"},
        "slices": list(slices),
        "actuals": {"expected_within": "1d", "closed_after": "30d"},
    }
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "bench.yaml").write_text(json.dumps(spec))


def write_events(path: Path, day: int, rows: int, dataset: str = "production") -> None:
    """Write one day's predictions."""
    _write(path, (draw_events(day, n, size, dataset) for n, size in _chunks(rows)))


def write_actuals(path: Path, day: int, rows: int, dataset: str = "production") -> None:
    """Write the ground truth of most of a day's predictions, known a day later."""
    _write(path, (_actuals(day, n, size, dataset) for n, size in _chunks(rows)))


def _chunks(rows: int) -> Iterator[tuple[int, int]]:
    for first in range(0, rows, CHUNK):
        yield first, min(CHUNK, rows - first)


def _write(path: Path, tables: Iterable[pa.Table]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    for table in tables:
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=122_880)
    if writer is not None:
        writer.close()
    os.utime(path, (1_760_000_000, 1_760_000_000))


def _ids(day: int, first: int, rows: int, dataset: str) -> pa.Array:
    numbers = np.arange(first, first + rows)
    mixed = (numbers * 40_503 + day * 2_654_435_761) % 2**32
    return pa.array([f"{m:08x}-{dataset[0]}{day:04d}-{n:08d}" for m, n in zip(mixed, numbers)])  # noqa: B905


def _moments(day: int, offsets: np.ndarray) -> pa.Array:
    start = np.datetime64(START, "us") + np.timedelta64(day, "D")
    times = pa.array(start + offsets.astype("timedelta64[us]"), pa.timestamp("us"))
    return times.cast(pa.timestamp("us", "UTC"))


def draw_events(day: int, first: int, rows: int, dataset: str) -> pa.Table:
    """Draw some of a day's predictions."""
    rng = np.random.default_rng([day, first, len(dataset)])
    score = 1 / (1 + np.exp(-rng.standard_normal(rows)))
    columns = {
        "prediction_id": _ids(day, first, rows, dataset),
        "event_time": _moments(day, rng.integers(0, 86_400_000_000, rows)),
        "score": pa.array(score),
        "prediction": pa.array((score > 0.5).astype(np.int64)),
        "dataset": pa.repeat(dataset, rows),
        "model_version": pa.repeat("7", rows),
        "latency_ms": pa.array(rng.gamma(2.0, 20.0, rows)),
        "status": pa.repeat("ok", rows),
    }
    for name in NUMERIC:
        columns[name] = pa.array(rng.standard_normal(rows) * 10, mask=rng.random(rows) < 0.03)
    for name, levels in zip(CATEGORICAL, LEVELS, strict=True):
        code = np.minimum(rng.exponential(levels / 5, rows).astype(np.int32), levels - 1)
        words = pa.array([f"level_{level}" for level in range(levels)])
        indices = pa.array(code, mask=rng.random(rows) < 0.03)
        columns[name] = pa.DictionaryArray.from_arrays(indices, words).cast(pa.string())
    return pa.table(columns)


def _actuals(day: int, first: int, rows: int, dataset: str) -> pa.Table:
    rng = np.random.default_rng([day, first, 7])
    chosen = np.flatnonzero(rng.random(rows) < LABELLED)
    return pa.table(
        {
            "prediction_id": _ids(day, first, rows, dataset).take(pa.array(chosen)),
            "actual": pa.array(rng.integers(0, 2, len(chosen))),
            "actual_time": _moments(day + 1, rng.integers(0, 3_600_000_000, len(chosen))),
        }
    )


class Measured:
    """A command's peak by step, processor's and wall-clock seconds.

    To look at its memory means to read what every process of the machine is, which costs the
    command some of what is measured: where seconds are the point, the pauses are longer.
    """

    def __init__(self, folder: Path, now: str, pause: float = 0.05) -> None:
        self.by_step: dict[str, float] = {}
        self._step = "start"
        command = [sys.executable, "-m", "mlmon_dagster.cli", "--now", now, "run", "bench"]
        environment = {**os.environ, "MLMON_PROJECT": str(folder), "PYTHONUNBUFFERED": "1"}
        begun, busy = time.perf_counter(), count_busy()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        reader = threading.Thread(target=self._read, args=(process,))
        reader.start()
        while process.poll() is None:
            held = held_by(process.pid) / 2**20
            self.by_step[self._step] = max(self.by_step.get(self._step, 0.0), held)
            time.sleep(pause)
        reader.join()
        self.wall = time.perf_counter() - begun
        self.busy = count_busy() - busy
        self.peak = max(self.by_step.values())

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stderr.write(f"    {line}")
            if line.startswith("  ") and line.strip():
                self._step = line.split()[0]


def count_busy() -> float:
    """Return the processor's seconds of what was started from here and has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def held_by(pid: int) -> int:
    """Return the bytes that a process and those below it have in memory.

    A child that is still its parent's copy is left out: its pages are its parent's. Dagster starts
    four for the logs of each run.
    """
    held = 0
    try:
        process = psutil.Process(pid)
        held, command = process.memory_info().rss, process.cmdline()
        for child in process.children(recursive=True):
            if child.cmdline() != command:
                held += child.memory_info().rss
    except psutil.Error:
        pass  # it ended while it was looked at
    return held


def now_after(days: int) -> str:
    """Return the morning after so many days, as `mlmon --now` takes it."""
    return f"{START + dt.timedelta(days=days)}T06:00:00+00:00"


def day(rows: int, landing: Path) -> Iterator[Row]:
    """Measure the two runs of a day of so many rows."""
    declare(landing, ["c00", "c01"])
    folder = landing / "landing"
    write_events(folder / "predictions" / "validation.parquet", 0, BASELINE, "validation")
    write_actuals(folder / "actuals" / "validation.parquet", 0, BASELINE, "validation")
    write_events(folder / "predictions" / "day.parquet", 1, rows)
    yield from _two_runs(landing, f"{rows:,} rows a day", (2, 3), lambda: write_actuals(
        folder / "actuals" / "day.parquet", 1, rows))  # fmt: skip


def year(landing: Path) -> Iterator[Row]:
    """Measure a backfill of a year of small windows."""
    declare(landing, ["c00", "c01", "c02"])
    folder = landing / "landing"
    write_events(folder / "predictions" / "validation.parquet", 0, BASELINE, "validation")
    for number in range(1, YEAR + 1):
        name = f"{number:04}.parquet"
        write_events(folder / "predictions" / name, number, SMALL)
        write_actuals(folder / "actuals" / name, number, SMALL)
    measured = Measured(landing, now_after(YEAR + 1))
    yield _row(f"{YEAR} windows of {SMALL:,} rows", measured)


def _two_runs(landing: Path, name: str, days: tuple[int, int], labels: object) -> Iterator[Row]:
    yield _row(f"{name}: the events", Measured(landing, now_after(days[0])))
    assert callable(labels)
    labels()
    yield _row("  their ground truth", Measured(landing, now_after(days[1])))


def _row(name: str, measured: Measured) -> Row:
    for step, peak in measured.by_step.items():
        sys.stderr.write(f"      {step:24}{peak:8,.0f} MB\n")
    numbers = (f"{measured.peak:,.0f}", f"{measured.busy:.1f}", f"{measured.wall:.0f}")
    return Row(name, numbers, Goal(measured.peak, MOST, unit=" MB"))


def _in_folder(work: object, where: Path | None) -> list[Row]:
    with tempfile.TemporaryDirectory(dir=where) as folder:
        assert callable(work)
        return list(work(Path(folder)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return how many goals are missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda text: int(text.replace("_", "")), nargs="*")
    parser.add_argument("--year", action="store_true", help="only the year of small windows")
    parser.add_argument("--folder", type=Path, help="a disk with room; default: temporary files")
    options = parser.parse_args(arguments)
    sizes = options.rows or (() if options.year else SIZES)
    rows: list[Row] = []
    peaks: list[float] = []
    for size in sizes:
        found = _in_folder(lambda folder, size=size: day(size, folder), options.folder)
        rows += found
        peaks.append(max(row.goal.value for row in found if row.goal))
    if len(peaks) > 1:
        apart = max(peaks) / min(peaks)
        rows.append(Row("largest peak / smallest", (f"{apart:.2f}",), Goal(apart, MOST_APART)))
    if not options.rows:
        rows += _in_folder(year, options.folder)
    columns = ("peak MB", "processor s", "wall s")
    return show([("Memory: mlmon run", columns, rows)], seed="of the day")


if __name__ == "__main__":
    sys.exit(main())
