"""The page of the demo's model beside Evidently's report of the same flights, in one browser.

    mlmon --project DEMO demo
    python -m benchmarks page DEMO

Both get the rows with ground truth of the demo's baseline and of its days; Evidently compares one
window with a reference, so it is asked twice: about the newest two weeks, of which our page shows
histograms, and about all days together. Seconds are of whole processes, reading and imports
included. Ours draws what the runs have stored, which is not in its seconds: see `backfill`. The
peers' environment is made on first use. A browser (Chromium) has to be installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb

from benchmarks.peer_environment import CACHE, PEERS, peer_python, variables
from benchmarks.table import Row, render
from tests.browser import PHONE, Browser, started

MODEL = "flight_delay"
THEIRS = Path(__file__).with_name("evidently_page.py")
WINDOWS = ("fortnight", "everything")
NEWEST = "2013-12-18"  # a fortnight
NUMBERS = r"(document.body.innerText.match(/\d+([.,]\d+)*/g) || []).length"
WORDS = (
    "seconds",
    "CPU s",
    "peak MB",
    "MB",
    "requests",
    "console",
    "axe",
    "at 390 px",
    "no script",
)


class Cost(NamedTuple):
    """What a process took: seconds by the wall and of the processor, megabytes at most."""

    seconds: float
    cpu: float
    peak: float


class Page(NamedTuple):
    """What a browser says of a file.

    Attributes:
        size: Megabytes. requests: Beside that of the file itself. errors: Of console and scripts.
        violations: Nodes that break a rule of WCAG A or AA, by axe. width: What a phone of 390
            has to show. numbers: How many are read without JavaScript.
    """

    size: float
    requests: int
    errors: int
    violations: int
    width: int
    numbers: int


def rows_of(project: Path, folder: Path) -> dict[str, Path]:
    """Write what both sides know: reference, newest and all days, of flights whose end is known."""
    landing = project / "landing" / MODEL
    joined = (
        f"SELECT p.*, a.late FROM '{landing}/predictions/*.parquet' p "
        f"JOIN '{landing}/actuals/*.parquet' a USING (flight_id) WHERE a.late IS NOT NULL"
    )
    wanted = {
        "reference": "dataset = 'validation'",
        "fortnight": f"dataset = 'production' AND scheduled_departure >= '{NEWEST}'",
        "everything": "dataset = 'production'",
    }
    found = {name: folder / f"{name}.parquet" for name in wanted}
    for name, where in wanted.items():
        duckdb.sql(f"COPY (FROM ({joined}) WHERE {where}) TO '{found[name]}' (FORMAT parquet)")
    return found


def run(command: Sequence[str], environment: Mapping[str, str]) -> Cost:
    """Run a program to its end."""
    begin = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, environment)
    _, status, used = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"Failed: {' '.join(command)}")
    cost = Cost(time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
    sys.stderr.write(f"{Path(command[-1]).name}: {cost}\n")
    return cost


def look(browser: Browser, path: Path) -> Page:
    """Open a file with and without scripts, on a desktop and on a phone."""
    url = path.as_uri()
    browser.open(url)
    requests = len([asked for asked in browser.requests if asked != url])
    violations = len(browser.accessibility())
    errors = len(browser.errors)
    browser.open(url, PHONE)
    width = browser.run("document.documentElement.scrollWidth")
    browser.open(url, scripts=False)
    numbers = browser.run(NUMBERS)
    return Page(path.stat().st_size / 1e6, requests, errors, violations, width, numbers)


def _texts(cost: Cost, page: Page) -> tuple[str, ...]:
    return (
        f"{cost.seconds:.1f}", f"{cost.cpu:.1f}", f"{cost.peak:.0f}", f"{page.size:.2f}",
        str(page.requests), str(page.errors), str(page.violations),
        f"{page.width} px", f"{page.numbers:,} numbers",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path, help="folder of the demo, after `mlmon demo`")
    parser.add_argument("--python", type=Path, help="an interpreter that has Evidently")
    parser.add_argument("--cache", type=Path, default=CACHE, help="for the peers' environment")
    parser.add_argument("--keep", type=Path, help="folder for the files")
    parser.add_argument("--windows", nargs="*", default=WINDOWS, choices=WINDOWS)
    options = parser.parse_args(arguments)
    python = options.python or peer_python(options.cache)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        rows = rows_of(options.project, Path(scratch))
        ours = folder / "ours.html"
        mlmon = [sys.executable, "-m", "mlmon_dagster.cli", "--project", str(options.project)]
        table = {
            "mlmon report": (ours, run([*mlmon, "report", MODEL, "--out", str(ours)], os.environ))
        }
        for window in options.windows:
            page = folder / f"evidently-{window}.html"
            asked = [str(python), str(THEIRS), str(rows["reference"]), str(rows[window]), str(page)]
            table[f"Evidently, {window}"] = (page, run(asked, variables()))
        with started(Path(scratch) / "profile") as browser:
            found = [
                Row(name, _texts(cost, look(browser, page))) for name, (page, cost) in table.items()
            ]
    title = f"The page of the demo beside Evidently {PEERS['evidently']}'s report"
    sys.stdout.write(render(title, WORDS, found, seed="0") + "\n")


if __name__ == "__main__":
    main()
