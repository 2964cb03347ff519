"""The same work beside Evidently, NannyML and popmon, as ratios in one run.

Every task runs in a process of its own, ours right before each of theirs, over the same Parquet
files. Their clock starts once the rows are in pandas; ours includes reading them, and 30 daily
windows, where Evidently compares one. The peers' environment is made on first use.

    python -m benchmarks peers --rows 1_000_000

The prototype's ratios, which are the goals, were measured with a million rows. CPU seconds of both
sides tell more than seconds where others use the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import ours
from benchmarks.drift import Runs, median, run_task
from benchmarks.peer_environment import CACHE, PEERS, peer_python, variables
from benchmarks.table import Goal, Row, render

THEIRS = Path(__file__).with_name("theirs.py")


class Pair(NamedTuple):
    """A peer's task, ours for the same question, and the ratio to reach."""

    label: str
    task: str
    own: str
    least: float


PAIRS = (
    Pair("NannyML KS, chi-square, by day", "nannyml_ks", "drift_cold", 3.8),
    Pair("NannyML JS, by day", "nannyml_js", "drift_cold", 6.5),
    Pair("popmon, by day", "popmon_drift", "drift_cold", 6.7),
    Pair("NannyML performance, by day", "nannyml_performance", "performance", 31.0),
    Pair("Evidently performance, 1 window", "evidently_performance", "performance", 19.0),
    Pair("Evidently drift preset, 1 window", "evidently_drift", "drift_cold", 41.0),
)


def measure(python: Path, folder: Path, pairs: Sequence[Pair], repeats: int) -> dict[str, Runs]:
    """Return the runs of every task: a peer's by its name, ours by the peer's and our name."""
    own = (sys.executable, "-m", "benchmarks.ours")
    found: dict[str, Runs] = {}
    for _ in range(repeats):
        for pair in pairs:
            mine = run_task(own, pair.own, folder)
            theirs = run_task((str(python), str(THEIRS)), pair.task, folder, env=variables())
            found.setdefault(f"{pair.task}/{pair.own}", []).append(mine)
            found.setdefault(pair.task, []).append(theirs)
            sys.stderr.write(f"{pair.task}: {theirs}\n  ours: {mine}\n")
    return found


def report(rows: int, pairs: Sequence[Pair], found: dict[str, Runs]) -> str:
    table = []
    for pair in pairs:
        theirs, mine = found[pair.task], found[f"{pair.task}/{pair.own}"]
        seconds, own_seconds = median(theirs, "seconds"), median(mine, "seconds")
        ratio, of_cpu = seconds / own_seconds, median(theirs, "cpu") / median(mine, "cpu")
        texts = (f"{seconds:.2f}", f"{own_seconds:.3f}", f"{ratio:.1f}", f"{of_cpu:.1f}")
        texts += tuple(f"{median(runs, 'peak'):.0f}" for runs in (theirs, mine))
        table.append(Row(pair.label, texts, Goal(ratio, pair.least, is_least=True, unit=" times")))
    peers = ", ".join(f"{name} {version}" for name, version in PEERS.items())
    title = f"Peers: {rows:,} rows each side, median of {len(found[pairs[0].task])}; {peers}"
    columns = ("seconds", "ours", "times", "times of CPU", "peak MB", "ours")
    return render(title, columns, table, seed="0, 1, 2")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda text: int(text.replace("_", "")), default=1_000_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="tasks, such as nannyml_ks")
    parser.add_argument("--cache", type=Path, default=CACHE, help="for the peers' environment")
    options = parser.parse_args(arguments)
    pairs = [pair for pair in PAIRS if not options.only or pair.task in options.only]
    python = peer_python(options.cache)
    with tempfile.TemporaryDirectory() as folder:
        ours.prepare(Path(folder), options.rows)
        found = measure(python, Path(folder), pairs, options.repeats)
    sys.stdout.write(report(options.rows, pairs, found) + "\n")


if __name__ == "__main__":
    main()
