"""What traces and searches cost, and a search beside SliceLine: `python -m benchmarks trace`.

Splits of a thousand slices; a month of the demo's flights traced from stored profiles; searches of
planted rows up to three predicates deep. Each runs in a process of its own, whose peak memory is
told over what the data take. SliceLine (`pip install sliceline`) gets fewer rows and columns and
memory of its own: it needs gigabytes beyond that.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import Goal, Row, render
from mlmon_dagster.demo import flights
from mlmon_dagster.demo.story import MODEL, declare
from mlmon_dagster.pipeline.baseline import fit_baseline
from mlmon_dagster.pipeline.ingest import ingest
from mlmon_dagster.pipeline.run import run
from mlmon_dagster.project import Project
from mlmon_dagster.spec import windows_between
from mlmon_dagster.trace.search import Rows, Terms, members, search
from mlmon_dagster.trace.splits import area_effects
from mlmon_dagster.work import Work

SEED = 2021
NOW = dt.datetime(2013, 5, 3, 12, tzinfo=dt.UTC)
MONTH = dt.date(2013, 4, 1), dt.date(2013, 5, 1)
WINDOWS, BASE = 60, 0.15
FEW, FIVE, TEN = 9, 5, 10  # the first columns have five values, the others ten
PLANTED: tuple[Terms, ...] = (((1, 3),), ((2, 0), (5, 4)), ((0, 4), (3, 2), (8, 1)))
MORE = (0.08, 0.2, 0.5)
BESIDE = 20_000, 12  # rows and columns that both search
LEAST = 200  # SliceLine looks at slices of one row in so many or more
MOST_MEMORY = 10 * 2**30  # of SliceLine's process


def rows_of(n: int, columns: int) -> Rows:
    """Draw rows of which the planted slices are wrong more often than the others."""
    rng = np.random.default_rng([SEED, n, columns])
    values = np.where(np.arange(columns) < FEW, FIVE, TEN)
    codes: NDArray[np.uint8] = rng.integers(0, values, (n, columns), np.uint8)
    rate = np.full(n, BASE)
    for terms, more in zip(PLANTED, MORE, strict=True):
        rate[members(codes, terms)] += more
    wrong = (rng.random(n) < rate).astype(np.float64)
    return Rows(codes, wrong, np.arange(n) * WINDOWS // n)


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident() -> float:
    """Return the MB of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak() -> float:
    """Return the most MB that this process has had, of its own pages."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10


def measured(work: Callable[[], list[Terms]]) -> dict[str, float]:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins here
    before, start = resident(), cpu()
    found = work()
    seconds = cpu() - start
    exact = sum(terms in found for terms in PLANTED)
    return {"cpu": seconds, "peak": peak() - before, "exact": exact, "others": len(found) - exact}


def ours(n: int, columns: int) -> dict[str, float]:
    rows = rows_of(n, columns)
    search(Rows(rows.codes[:2_000, :4], rows.target[:2_000], np.arange(2_000) % 20))  # imports
    return measured(lambda: [found.terms for found in search(rows)])


def sliceline(n: int, columns: int) -> dict[str, float]:
    from sliceline.slicefinder import Slicefinder

    rows = rows_of(n, columns)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    finder = Slicefinder(alpha=0.95, k=10, max_l=3, min_sup=n // LEAST, verbose=False)

    def work() -> list[Terms]:
        finder.fit(rows.codes.astype(int), rows.target)
        return [
            tuple((c, int(value)) for c, value in enumerate(one) if value is not None)
            for one in finder.top_slices_
        ]

    return measured(work)


def pairs(slices: int, bins: int) -> dict[str, float]:
    rng = np.random.default_rng(SEED)
    now, then = rng.poisson(3.0, (2, 2, slices, bins)).astype(np.float64)
    start = cpu()
    area_effects(now, then)
    return {"cpu": cpu() - start}


def make(folder: Path) -> None:
    """Take in and profile a month of the flights, and remove every raw row of it."""
    project = Project(folder, str(folder / ".mlmon" / "store"), now=lambda: NOW)
    spec, model = declare(project), flights.train()
    landing = folder / "landing" / spec.model
    flights.write_validation(model, landing)
    flights.write_predictions(model, landing, *MONTH)
    flights.write_actuals(landing, MONTH[0], MONTH[1] + dt.timedelta(days=2))
    work = Work(project, spec, tuple(windows_between(spec.time, *_period())), NOW, "bench", True)
    ingest(work)
    fit_baseline(work)
    run(work)


def _period() -> tuple[dt.datetime, dt.datetime]:
    from zoneinfo import ZoneInfo

    first, last = (dt.datetime.combine(day, dt.time(), ZoneInfo(flights.ZONE)) for day in MONTH)
    return first.astimezone(dt.UTC), last.astimezone(dt.UTC)


def month(folder: Path, repeats: int = 5) -> dict[str, float]:
    from mlmon_dagster.commands.options import spec_of
    from mlmon_dagster.report.trace import explained
    from mlmon_dagster.trace.sentences import describe_trace

    project = Project(folder, str(folder / ".mlmon" / "store"), now=lambda: NOW)
    spec, seconds = spec_of(project, MODEL), []
    for _ in range(repeats):
        start = cpu()
        found = explained(project.store, spec, "roc_auc", _period())
        assert found is not None
        describe_trace(spec, found, "April", "the baseline")
        seconds.append(cpu() - start)
    return {"first": seconds[0], "cpu": float(np.median(seconds[1:]))}


def alone(task: str, *arguments: object) -> dict[str, float]:
    """Run a task in a process of its own, with one thread."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.trace", "--run", task]
    one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False,
        env=os.environ | one,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{task} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _of_search(name: str, found: dict[str, float], most: tuple[float, float] | None) -> list[Row]:
    numbers = (f"{found['cpu']:.2f}", f"{found['peak']:.0f}", f"{found['exact']:.0f} of 3")
    numbers += (f"{found['others']:.0f}",)
    if most is None:
        return [Row(name, numbers)]
    seconds, memory = most
    return [
        Row(name, numbers, Goal(found["cpu"], seconds, unit=" s")),
        Row("  memory over the data", (), Goal(found["peak"], memory, unit=" MB")),
    ]


def main() -> int:
    """Print the table; 1 if a goal is missed."""
    split = alone("pairs", 1_000, 1_024)
    rows = [
        Row(
            "1,000 slices x 1,024 bins",
            (f"{split['cpu']:.2f}",),
            Goal(split["cpu"], 0.2, unit=" s"),
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        traced = alone("month", folder)
    texts = (f"{traced['cpu']:.2f}",)
    rows.append(Row("April traced from profiles", texts, Goal(traced["cpu"], 1.5, unit=" s")))
    rows.append(Row("  the first time, with imports", (f"{traced['first']:.2f}",)))
    rows += _of_search("search 50,000 x 30", alone("ours", 50_000, 30), (1.5, 300.0))
    rows += _of_search("search 1,000,000 x 30", alone("ours", 1_000_000, 30), (3.0, 500.0))
    n, columns = BESIDE
    rows += _of_search(f"search {n:,} x {columns}", alone("ours", n, columns), None)
    said = ""
    if importlib.util.find_spec("sliceline"):
        rows += _of_search(f"SliceLine {n:,} x {columns}", alone("sliceline", n, columns), None)
    else:
        said = (
            "\nSliceLine is not installed (pip install sliceline), so nothing stands beside it.\n"
        )
    columns_ = ("CPU s", "MB over data", "found exactly", "others")
    sys.stdout.write(render("Traces and searches", columns_, rows, seed=SEED) + "\n" + said)
    return int(any(row.goal is not None and not row.goal.is_met for row in rows))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", nargs="+", metavar="TASK", help=argparse.SUPPRESS)
    asked = parser.parse_args().run
    if not asked:
        raise SystemExit(main())
    task, *given = asked
    done = month(Path(given[0])) if task == "month" else globals()[task](*map(int, given))
    print(json.dumps(done))
