"""Drift of a million rows from raw Parquet, with and without a stored baseline.

PSI, Jensen-Shannon, chi-square and KS with p-values of 28 columns in 30 daily windows, against a
baseline of as many rows. Every repetition is a process of its own, both kinds in turns.

    python -m benchmarks drift
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import ours
from benchmarks.table import Goal, Row, render

GOALS = {"drift_cold": 2.0, "drift_stored": 1.0}  # seconds
MOST_MEMORY = 500.0
LABELS = {
    "drift_cold": "cold: edges, both profiles, drift",
    "drift_stored": "with the baseline's profile stored",
}
Runs = list[dict[str, float]]


def run_task(
    command: Sequence[str], task: str, folder: Path, env: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Run one task in a process of its own; return what its last line says."""
    done = subprocess.run(
        [*command, task, str(folder)], capture_output=True, text=True, env=env, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{task} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def median(runs: Runs, name: str) -> float:
    return statistics.median(run[name] for run in runs)


def measure(folder: Path, repeats: int) -> dict[str, Runs]:
    command = (sys.executable, "-m", "benchmarks.ours")
    found: dict[str, Runs] = {task: [] for task in GOALS}
    for _ in range(repeats):
        for task, runs in found.items():
            runs.append(run_task(command, task, folder))
    return found


def report(rows: int, found: dict[str, Runs]) -> str:
    table = []
    for task, runs in found.items():
        numbers = tuple(f"{median(runs, name):.2f}" for name in ("seconds", "cpu"))
        least = f"{min(run['seconds'] for run in runs):.2f}"
        goal = Goal(median(runs, "seconds"), GOALS[task], unit=" s")
        table.append(Row(LABELS[task], (numbers[0], least, numbers[1]), goal))
    peak = max(run["peak"] for runs in found.values() for run in runs)
    table.append(Row("peak memory, MB", (f"{peak:.0f}",), Goal(peak, MOST_MEMORY, unit=" MB")))
    repeats = len(next(iter(found.values())))
    title = f"Drift: {rows:,} rows x 28 columns, 30 days, median of {repeats}"
    return render(title, ("seconds", "least", "CPU seconds"), table, seed="0, 1")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda text: int(text.replace("_", "")), default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        ours.prepare(Path(folder), options.rows)
        found = measure(Path(folder), options.repeats)
    sys.stdout.write(report(options.rows, found) + "\n")


if __name__ == "__main__":
    main()
