"""Every quick benchmark, one table each: `python -m benchmarks`, a quarter of an hour.

`python -m benchmarks NAME` runs one of them, or one of those that take longer; docs/benchmarks.md
lists all with their goals. `calibrate drift`, `calibrate versions` and `calibrate rectified` are
`calibrate_drift` and so on. Each runs in a process of its own, so that the peak memory of one is
not the other's.
"""

from __future__ import annotations

import subprocess
import sys

RUNS = (
    ("benchmarks.profile_vs_scan", "--rows", "1_000_000"),
    ("benchmarks.profile_vs_scan", "--rows", "10_000_000", "--repeats", "3"),
    ("benchmarks.drift",),
    ("benchmarks.window",),
    ("benchmarks.trace",),
    ("benchmarks.ingest", "--files", "10"),
    ("benchmarks.daily",),
    ("benchmarks.logger",),
    ("benchmarks.collect", "--seconds", "20"),
    ("benchmarks.collect", "--seconds", "20", "--kill"),
)


def main() -> int:
    """Run all, also after one that failed, or the one that is named; return how many failed."""
    named = sys.argv[1:]
    if named[:1] == ["calibrate"] and named[1:2] in (["drift"], ["versions"], ["rectified"]):
        named[:2] = [f"calibrate_{named[1]}"]
    runs = ((f"benchmarks.{named[0]}", *named[1:]),) if named else RUNS
    return sum(
        subprocess.run([sys.executable, "-m", *run], check=False).returncode != 0 for run in runs
    )


if __name__ == "__main__":
    sys.exit(main())
