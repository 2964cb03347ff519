"""A window's walk from the planner to a message, and a file's from landing to a sample.

The page of the architecture lists the modules of the way in their order. Here one day really goes
it, and the page must say so: each module is entered for the first time where it stands in the list.
``python -m tests.test_walk`` prints the list, with ``--all`` every module that is entered, and how
often the way goes into another room, or back into one that stands above.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import groupby, pairwise
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest

from tests.defs.small_model import (
    DAYS,
    customers,
    drop,
    land_validation,
    landing,
    make_project,
    write_declaration,
)
from tests.test_architecture import ALLOWED, ARCHITECTURE, PACKAGE, room_of

TABLE = ARCHITECTURE.partition("## A file's way")[2].partition("\n\n`alerts/dispatching.py`")[0]
# Of the daemon or a process of its own, and one receiver of many; other tests show that they are
# asked.
LEFT_OUT = {
    "defs/sensors.py", "defs/checks.py", "alerts/receivers/slack.py",
    "ingest/rows/expectation_worker.py",
}  # fmt: skip


def modules_of_the_way() -> list[str]:
    """Return the files that the table names, in its order; a folder is no file."""
    return re.findall(r"`([\w/]+\.py)`", TABLE)


@contextlib.contextmanager
def entered() -> Iterator[list[str]]:
    """Note which modules of the package are entered, in the order of their first function."""
    found: dict[str, None] = {}
    package = f"{PACKAGE}/"

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(package) and code.co_name != "<module>":
            found.setdefault(code.co_filename.removeprefix(package))

    names: list[str] = []
    sys.setprofile(note)
    try:
        yield names
    finally:
        sys.setprofile(None)
        names += found


class Ways(NamedTuple):
    """Modules in the order in which a thing comes to them."""

    of_the_file: list[str]
    of_the_window: list[str]


def go(folder: Path) -> Ways:
    """Take a day whose scores say the contrary from its landing file to a message."""
    from mlmon_dagster.alerts.dispatching import dispatch
    from mlmon_dagster.alerts.receivers.base import ConsoleReceiver
    from mlmon_dagster.pipeline.ingest import ingest
    from mlmon_dagster.pipeline.plan import plan
    from mlmon_dagster.pipeline.run import run
    from mlmon_dagster.work import Work
    from tests.pipeline.looking import look

    spec = write_declaration(folder)
    project = make_project(folder)
    land_validation(folder)
    look(project, spec, "baseline")
    predictions, truth = customers(DAYS[0])
    drop(
        predictions.assign(score=1 - predictions["score"]),
        landing(folder, "predictions") / "a.parquet",
    )
    drop(truth, landing(folder, "actuals") / "a.parquet")
    work, said = Work(project, spec, (), project.now(), "walk", False), io.StringIO()
    console = ConsoleReceiver(said, hint="")
    with entered() as of_the_file:
        ingest(work)
    with entered() as of_the_window:
        for request in plan(project, spec, project.now()):
            run(replace(work, windows=request.windows), request.assets)
        dispatch(project.store, [spec], project.now(), {"console": console, "slack": console})
    assert "ROC AUC" in said.getvalue()
    assert "Why:" in said.getvalue()
    return Ways(of_the_file, of_the_window)


def test_no_module_but_of_the_store_is_twice_on_the_way() -> None:
    n_times = Counter(modules_of_the_way())

    assert {name for name, n in n_times.items() if n > 1} == set()


def rooms_of(modules: Sequence[str]) -> list[str]:
    """Return the rooms of modules, each as often as the way comes into it from another one."""
    return [room for room, _ in groupby(room_of(PACKAGE / module) for module in modules)]


def count_climbs(rooms: Sequence[str]) -> int:
    """Count the steps into a room that stands above the one before, as a callback takes them."""
    place = {room: n for n, room in enumerate(ALLOWED)}
    return sum(place[after] > place[before] for before, after in pairwise(rooms))


MOST_ROOMS, MOST_CLIMBS = 61, 30  # of a window, and no more than now


@pytest.mark.slow
def test_a_day_goes_the_way_that_the_page_describes(tmp_path: Path) -> None:
    """Also in that order; of ingest only what it comes to, since commits begin and end it.

    In a process of its own: what other tests left in caches would not be entered again.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        ways = pool.submit(go, tmp_path).result()
    told = [name for name in modules_of_the_way() if name not in LEFT_OUT]
    after = [name for name in told if name in told[told.index("pipeline/plan.py") :]]
    before = [name for name in told if name not in after]

    assert [name for name in before if name not in ways.of_the_file] == []
    assert [name for name in after if name not in ways.of_the_window] == []
    assert sorted(after, key=ways.of_the_window.index) == after
    rooms = rooms_of(ways.of_the_window)
    assert len(rooms) <= MOST_ROOMS, rooms
    assert count_climbs(rooms) <= MOST_CLIMBS, rooms


if __name__ == "__main__":
    if "--all" not in sys.argv:
        print(*modules_of_the_way(), sep="\n")
    else:
        with tempfile.TemporaryDirectory() as place:
            ways = go(Path(place))
        print(*ways.of_the_file, "", *ways.of_the_window, sep="\n")
        rooms = rooms_of(ways.of_the_window)
        print(f"\na window comes into {len(rooms)} rooms, {count_climbs(rooms)} times upwards")
