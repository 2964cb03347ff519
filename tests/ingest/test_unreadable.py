"""A landing folder or file that cannot be read is an error with a name, wherever one looks."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.commands.doctor import examine_landing
from mlmon_dagster.ingest import may_have_work, render_report
from mlmon_dagster.pipeline.ingest import ingest as take_in
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.tables.alerts import list_alerts
from mlmon_dagster.work import Work
from tests.ingest.landing import (
    ACTUALS,
    NOW,
    PREDICTIONS,
    credit_spec,
    events,
    ingest,
    land,
    truths,
)

NOBODY = 65_534


@contextmanager
def as_somebody() -> Iterator[None]:
    """Be a user whom files can be kept from; root reads them all."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def home(store: Store, project: Path) -> Iterator[Path]:
    """Return a folder that somebody owns and may look into, unlike pytest's of root."""
    # What is imported late is imported by us: somebody may not be able to read it.
    land(project, f"{PREDICTIONS}/a.csv", events(1))
    ingest(store, credit_spec(), project)
    folder = Path(tempfile.mkdtemp())
    yield folder
    for place in (folder, *folder.rglob("*")):
        place.chmod(0o700)
    shutil.rmtree(folder)


def hand_over(home: Path) -> None:
    """Let somebody own all that is there."""
    if os.geteuid() == 0:
        for place in (home, *home.rglob("*")):
            os.chown(place, NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("closed", "named"),
    [
        (PREDICTIONS, {PREDICTIONS}),
        (f"{PREDICTIONS}/b.csv", {f"{PREDICTIONS}/b.csv"}),
        ("landing", {PREDICTIONS, ACTUALS}),
    ],
)
def test_what_cannot_be_read_is_named_and_hurts_no_other_file(
    home: Path, closed: str, named: set[str]
) -> None:
    spec, project = credit_spec(), home / "project"
    land(project, f"{PREDICTIONS}/a.csv", events(5))
    land(project, f"{PREDICTIONS}/b.csv", events(5, first=10))
    land(project, f"{ACTUALS}/a.csv", truths(5))
    store = open_store(home / "store")
    (project / closed).chmod(0)
    hand_over(home)

    with as_somebody():
        assert may_have_work(store, spec, project, NOW)
        report = ingest(store, spec, project)

    failed = [file for file in report.files if file.status == "failed"]
    assert report.has_refusals
    assert {(file.path, file.reason) for file in failed} == {(name, "no_access") for name in named}
    assert f"{max(named)}: it cannot be read (Permission denied). Give the user" in render_report(
        report
    )
    n_readable = {PREDICTIONS: 5, "landing": 0}.get(closed, 10)
    assert report.total("n_new") == n_readable
    (project / closed).chmod(0o700)
    with as_somebody():
        again = ingest(store, spec, project)
    assert report.total("n_new") + again.total("n_new") == 15
    assert not again.has_refusals
    store.close()


def test_a_folder_that_a_pattern_goes_through_is_named_too(home: Path) -> None:
    spec, project = credit_spec(source__predictions__path="landing/**/*.csv"), home / "project"
    land(project, "landing/day 1/a.csv", events(5))
    land(project, "landing/day 2/b.csv", events(5, first=10))
    store = open_store(home / "store")
    (project / "landing/day 2").chmod(0)
    hand_over(home)

    with as_somebody():
        report = ingest(store, spec, project)

    assert report.total("n_new") == 5, render_report(report)
    assert [f.path for f in report.of("failed")] == ["landing/day 2"]
    store.close()


def test_the_alert_fires_once_and_ends_when_all_can_be_read(home: Path) -> None:
    spec: ModelSpec = credit_spec()
    project = Project(home / "project", str(home / "store"))
    land(project.folder, f"{PREDICTIONS}/a.csv", events(5))
    work = Work(project, spec, (), NOW, "", False)
    assert project.store.state is not None
    (project.folder / PREDICTIONS).chmod(0)
    hand_over(home)

    def look() -> dict[str, str]:
        with as_somebody():
            take_in(work)
            doctor = examine_landing(project, [spec])
            fold_results(project.store, [spec], NOW)
        assert bool(doctor) == bool((project.folder / PREDICTIONS).stat().st_mode & 0o777 == 0)
        return {alert.monitor: alert.state for alert in list_alerts(project.store)}

    assert look() == {"pipeline/source/predictions": "FIRING"}
    assert look() == {"pipeline/source/predictions": "FIRING"}
    [alert] = list_alerts(project.store)
    assert alert.message.startswith(
        f"Landing files cannot be read: {PREDICTIONS}: it cannot be read (Permission denied)"
    )
    (project.folder / PREDICTIONS).chmod(0o700)
    assert look() == {"pipeline/source/predictions": "RESOLVED"}
    project.store.close()
