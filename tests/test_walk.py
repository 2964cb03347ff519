"""A window's walk from the planner to a message, and a file's from landing to a sample.

The page of the architecture lists the modules of the way in their order. Here one day really goes
it, and the page must say so: each module is entered for the first time where it stands in the list.
``python -m tests.test_walk`` prints the list, with ``--all`` every module that is entered.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
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
from tests.test_architecture import ARCHITECTURE, PACKAGE

TABLE = ARCHITECTURE.partition("## A file's way")[2].partition("\n\n`alerts/dispatching.py`")[0]
# Of the daemon, and one receiver of many; other tests show that they are asked.
LEFT_OUT = {"defs/sensors.py", "defs/checks.py", "alerts/receivers/slack.py"}


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


@pytest.mark.slow
def test_a_day_goes_the_way_that_the_page_describes(tmp_path: Path) -> None:
    """Also in that order; of ingest only what it comes to, since commits begin and end it."""
    ways = go(tmp_path)
    told = [name for name in modules_of_the_way() if name not in LEFT_OUT]
    after = [name for name in told if name in told[told.index("pipeline/plan.py") :]]
    before = [name for name in told if name not in after]

    assert [name for name in before if name not in ways.of_the_file] == []
    assert [name for name in after if name not in ways.of_the_window] == []
    assert sorted(after, key=ways.of_the_window.index) == after


if __name__ == "__main__":
    if "--all" not in sys.argv:
        print(*modules_of_the_way(), sep="\n")
    else:
        with tempfile.TemporaryDirectory() as place:
            ways = go(Path(place))
        print(*ways.of_the_file, "", *ways.of_the_window, sep="\n")
