"""How fast landing files of 30 columns are validated and stored, also into a log of ten million.

One file of a million events, several times into fresh stores; then ten such files into one store,
the ids of each looked up in all before; then late actuals for 1 % of the events of 90 days. Every
row meets the rules of its spec. Rates are wall-clock: the load average says how much of
the machine others had, the processor's seconds what the work itself took.

    python -m benchmarks.ingest --files 10
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import events
from benchmarks.table import Goal, Row, render
from mlmon_dagster.ingest import ingest_new, readers
from mlmon_dagster.spec import complete_windows
from mlmon_dagster.store import Store, open_store

NOW = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
LEAST_RATE, MOST_MEMORY, MOST_SECONDS, LEAST_SHARE = 300_000.0, 1_500.0, 60.0, 0.8
LATE_DAYS = 90


def generate(folder: Path, files: int) -> None:
    landing = folder / "landing" / "predictions"
    landing.mkdir(parents=True)
    for number in range(files):
        events.write_predictions(landing / f"{number:03}.parquet", number)


class Clock:
    """Seconds by the wall and by the processor, and the load at the end."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Return both since the start."""
        return time.perf_counter() - self._start[0], time.process_time() - self._start[1]


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ingest_one(store: Store, folder: Path) -> tuple[float, float, float]:
    """Ingest the next file; return its rows a second, processor seconds and the load."""
    clock = Clock()
    report = ingest_new(store, events.make_spec(), folder, readers(), now=NOW, max_files=1)
    wall, busy = clock.read()
    n = report.total("n_new")
    assert n == events.ROWS_A_DAY * events.DAYS_A_FILE, report.files
    return n / wall, busy, os.getloadavg()[0]


def row(name: str, found: tuple[float, float, float], goal: Goal | None = None) -> Row:
    rate, busy, load = found
    return Row(name, (f"{rate:,.0f}", f"{busy:.1f}", f"{load:.1f}", f"{peak():.0f}"), goal)


def single(folder: Path, repeats: int) -> list[Row]:
    """One million events into a fresh store, again and again."""
    found, rows = [], []
    for number in range(repeats + 1):  # the first loads the libraries
        root = folder / "single"
        store = open_store(root)
        found.append(ingest_one(store, folder))
        store.close()
        shutil.rmtree(root)
        if number:
            rows.append(row(f"  run {number}", found[-1]))
    middle = statistics.median(rate for rate, _, _ in found[1:])
    busy = statistics.median(seconds for _, seconds, _ in found[1:])
    median = row(
        f"1,000,000 events, median of {repeats}",
        (middle, busy, os.getloadavg()[0]),
        Goal(middle, LEAST_RATE, is_least=True, unit=" a second"),
    )
    memory = Row("  peak memory, MB", (f"{peak():.0f}",), Goal(peak(), MOST_MEMORY, unit=" MB"))
    return [median, memory, *rows]


def many(folder: Path, files: int) -> list[Row]:
    """One file after the other into one store, then late actuals."""
    store = open_store(folder / "many")
    found, peaks, rows = [], [], []
    for number in range(files):
        found.append(ingest_one(store, folder))
        peaks.append(peak())
        rows.append(row(f"  file {number + 1}", found[-1]))
    # By the processor's seconds: the load changes more from file to file than the work does.
    early = statistics.median(busy for _, busy, _ in found[1:4])
    late = statistics.median(busy for _, busy, _ in found[-3:])
    share = Goal(early / late, LEAST_SHARE, is_least=True, unit=" of the early")
    title = f"{files},000,000 events, median of files"
    rows.insert(0, row(title, tuple(map(statistics.median, zip(*found, strict=True)))))  # type: ignore[arg-type]
    rows.insert(1, Row("  rate of the last 3 files / files 2-4", (f"{early / late:.2f}",), share))
    growth = Goal(peaks[-1], MOST_MEMORY, unit=" MB")
    told = (f"{peaks[min(3, files - 1)]:.0f}", "->", f"{peaks[-1]:.0f}")
    rows.insert(2, Row("  peak memory, MB, after file 4, last", told, growth))
    rows += late_actuals(store, folder, min(LATE_DAYS, files * events.DAYS_A_FILE - 1))
    store.close()
    return rows


def late_actuals(store: Store, folder: Path, days: int) -> list[Row]:
    """Late ground truth for 1 % of the events of some days: only their windows are written."""
    spec = events.make_spec()
    records = store.inference_records(spec)
    windows = complete_windows(spec.time, NOW)
    clock = Clock()
    records.rebuild(windows)
    first = clock.read()
    before = files_by_date(store)
    n = events.write_actuals(folder / "landing" / "actuals" / "late.parquet", days)
    clock = Clock()
    report = ingest_new(store, spec, folder, readers(), now=NOW)
    records.rebuild(report.windows)
    wall, busy = clock.read()
    after = files_by_date(store)
    rewritten = {date for date in before if before[date] != after[date]}
    assert len(report.windows) == days
    assert len(rewritten) == days
    assert records_with_actual(store) == n
    title = f"{n:,} late actuals over {days} days, s"
    return [
        Row("all records built, s", (f"{first[0]:.1f}", f"{first[1]:.1f}")),
        Row(
            title,
            (f"{wall:.1f}", f"{busy:.1f}", f"{os.getloadavg()[0]:.1f}", f"{peak():.0f}"),
            Goal(wall, MOST_SECONDS, unit=" s"),
        ),
        Row(
            "  windows rewritten, of",
            (f"{len(rewritten)}", f"{len(before)}"),
            Goal(len(rewritten), days),
        ),
    ]


def files_by_date(store: Store) -> dict[str, set[str]]:
    snapshot = store.inference_records(events.make_spec()).folder.snapshot()
    assert snapshot is not None
    found: dict[str, set[str]] = {}
    for file in snapshot.files:
        found.setdefault(file.partition["window_date"], set()).add(file.path)
    return found


def records_with_actual(store: Store) -> int:
    source = store.inference_records(events.make_spec()).from_sql()
    return int(store.query(f"SELECT COUNT(actual) AS n FROM {source}").column("n")[0].as_py())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10, help="of a million events each")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--step", choices=["generate", "single", "many"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.files < 2:
        parser.error("--files is at least 2: a growing log is one that had files before")
    columns = ("events a second", "processor s", "load", "peak MB")
    if options.step == "generate":
        generate(options.folder, options.files)
    elif options.step == "single":
        rows = single(options.folder, options.repeats)
        sys.stdout.write(render("Ingest: one file", columns, rows, seed="0 and up") + "\n")
    elif options.step == "many":
        rows = many(options.folder, options.files)
        sys.stdout.write(render("Ingest: a growing log", columns, rows, seed="0 and up") + "\n")
    else:
        with tempfile.TemporaryDirectory() as folder:
            for step in ("generate", "single", "many"):
                command = [sys.executable, "-m", "benchmarks.ingest", "--step", step]
                command += ["--folder", folder, "--files", str(options.files)]
                command += ["--repeats", str(options.repeats)]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
