"""The page of the demo's model beside Evidently's report of the same flights, in one browser.

    mlmon --project DEMO demo
    python -m benchmarks page DEMO

Both get the rows with ground truth of the demo's baseline and of its days; Evidently compares one
window with a reference, so it is asked twice: about the newest two weeks, of which our page shows
histograms, and about all days together. Seconds are of whole processes, reading and imports
included. Ours draws what the runs have stored, which is not in its seconds: see `backfill`. The
peers' environment is made on first use. A browser (Chromium) has to be installed. What our page
has to be is judged below the table, and a missed goal is the command's failure; axe takes minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import duckdb

from benchmarks.peer_environment import CACHE, PEERS, peer_python, variables
from benchmarks.table import Goal, Row, render
from mlmon_dagster.spec import Models
from mlmon_dagster.store import open_store
from tests.browser import DESKTOP, PHONE, Browser, started
from tests.serve import fleet
from tests.serve.conftest import pages_over, served

MODEL = "flight_delay"
THEIRS = Path(__file__).with_name("evidently_page.py")
WINDOWS = ("fortnight", "everything")
NEWEST = "2013-12-18"  # a fortnight
_PAINTS = 5
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
CARD = "document.querySelector('.incident')?.getBoundingClientRect().top ?? NaN"
NUMBERS = r"(document.body.innerText.match(/\d+([.,]\d+)*/g) || []).length"
WORDS = (
    "seconds",
    "CPU s",
    "peak MB",
    "MB",
    "requests",
    "console",
    "axe",
    "dark",
    "paint s",
    "at 390 px",
    "nodes",
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
        violations: Nodes that break a rule of WCAG A or AA, by axe, and of those of colours in the
            dark. paint: Seconds to the first paint, the median of `_PAINTS`. width: What a phone of
            390 has to show. cards: Where the incident begins, on a desktop and on a phone.
        nodes: Of the document. numbers: How many are read without JavaScript.
    """

    size: float
    requests: int
    errors: int
    violations: tuple[int, int]
    paint: float
    width: int
    cards: tuple[float, float]
    nodes: int
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
    errors, card = len(browser.errors), browser.run(CARD)
    paint = paint_of(browser, url)
    nodes = browser.run("document.querySelectorAll('*').length")
    light = len(browser.accessibility())
    dark = len(browser.open(url).accessibility(is_dark=True))
    browser.open(url, PHONE)
    width, cards = browser.run("document.documentElement.scrollWidth"), (card, browser.run(CARD))
    numbers = browser.open(url, DESKTOP, scripts=False).run(NUMBERS)
    size = path.stat().st_size / 1e6
    return Page(size, requests, errors, (light, dark), paint, width, cards, nodes, numbers)


def paint_of(browser: Browser, url: str) -> float:
    """Return the seconds to the first paint of an address, the median of a few."""
    return median(browser.open(url).run(PAINT) for _ in range(_PAINTS))


def paint_fleet(browser: Browser, folder: Path) -> float:
    """Return the seconds to the first paint of the overview of sixty models."""
    with ExitStack() as stack:
        store, specs = open_store(str(folder / "fleet")), fleet.declare_fleet()
        stack.callback(store.close)
        fleet.fill(store, specs)
        pages = pages_over(store, Models(tuple(specs), ()), fleet.NOW)
        return paint_of(browser, stack.enter_context(served(pages)) + "/")


def _texts(cost: Cost, page: Page) -> tuple[str, ...]:
    return (
        f"{cost.seconds:.1f}", f"{cost.cpu:.1f}", f"{cost.peak:.0f}", f"{page.size:.2f}",
        str(page.requests), str(page.errors), *(str(n) for n in page.violations),
        f"{page.paint:.2f}", f"{page.width} px", f"{page.nodes:,}", f"{page.numbers:,} numbers",
    )  # fmt: skip


def goals(cost: Cost, page: Page, fleet_paint: float) -> list[Row]:
    """Return what a page has to be, a row each, and the overview of sixty models."""
    wanted = {
        "made in, CPU s": (cost.cpu, 5.0),
        "size, MB": (page.size, 1.0),
        "first paint, s": (page.paint, 0.3),
        "first paint of 60 models, s": (fleet_paint, 0.3),
        "incident begins at, px": (page.cards[0], 420),
        "incident begins at 390 px width, px": (page.cards[1], 420),
        "requests to elsewhere": (page.requests, 0),
        "errors of the console": (page.errors, 0),
        "axe, WCAG A and AA": (page.violations[0], 0),
        "axe, colours in the dark": (page.violations[1], 0),
        "width at 390 px": (page.width, PHONE[0]),
    }
    return [Row(name, (f"{v:g}",), Goal(v, most)) for name, (v, most) in wanted.items()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; return how many goals were missed."""
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
        own = folder / "ours.html"
        mlmon = [sys.executable, "-m", "mlmon_dagster.cli", "--project", str(options.project)]
        table = {
            "mlmon report": (own, run([*mlmon, "report", MODEL, "--output", str(own)], os.environ))
        }
        for window in options.windows:
            page = folder / f"evidently-{window}.html"
            asked = [str(python), str(THEIRS), str(rows["reference"]), str(rows[window]), str(page)]
            table[f"Evidently, {window}"] = (page, run(asked, variables()))
        with started(Path(scratch) / "profile") as browser:
            fleet_paint = paint_fleet(browser, Path(scratch))
            pages = {name: look(browser, page) for name, (page, _) in table.items()}
    found = [Row(name, _texts(table[name][1], page)) for name, page in pages.items()]
    title = f"The page of the demo beside Evidently {PEERS['evidently']}'s report"
    sys.stdout.write(render(title, WORDS, found, seed="0") + "\n")
    ours, *_ = table
    judged = goals(table[ours][1], pages[ours], fleet_paint)
    sys.stdout.write(render("Goals of our page", ("",), judged, seed="0") + "\n")
    return sum(row.goal is not None and not row.goal.is_met for row in judged)


if __name__ == "__main__":
    sys.exit(main())
