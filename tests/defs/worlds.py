"""A project with its Dagster instance and launcher, and what tests ask of them."""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from mlmon_dagster.defs.assets import asset_key
from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.defs.launch import Launcher, RunReport
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, read_models
from mlmon_dagster.spec.steps import REPORTED, windowed_of
from mlmon_dagster.store.state import metric_log, monitor_results
from tests.defs.small_model import (
    DAYS,
    MODEL,
    NOW,
    land_fortnight,
    make_project,
    windows_of_days,
    write_declaration,
)


class Clock:
    """The project's present; it stands still until it is moved."""

    def __init__(self, moment: dt.datetime = NOW) -> None:
        self.moment = moment

    def __call__(self) -> dt.datetime:
        return self.moment


@dataclass
class World:
    """An open project.

    Attributes:
        ran: Requests of the planner that were executed, in order.
    """

    project: Project
    clock: Clock
    specs: list[ModelSpec]
    instance: dg.DagsterInstance
    launcher: Launcher
    ran: list[dg.RunRequest] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.project.folder

    @property
    def spec(self) -> ModelSpec:
        return next(spec for spec in self.specs if spec.model == MODEL)

    def compute(self, days: Sequence[dt.date], assets: Sequence[str] = ()) -> RunReport:
        """Materialize the windows of some contiguous days in one run; by default all assets."""
        wanted = assets or windowed_of(self.spec)
        return self.launcher.materialize(self.spec, wanted, windows_of_days(self.spec, days))

    def requests(
        self, sensor: str = "mlmon_planner", *, with_reports: bool = False
    ) -> Sequence[dg.RunRequest]:
        """Evaluate a sensor once, as the daemon does.

        Returns:
            What is to be computed; also the reports and the overview if that is asked for.
        """
        definitions = self.launcher.definitions
        context = dg.build_sensor_context(
            instance=self.instance, definitions=definitions, sensor_name=sensor
        )
        tick = definitions.resolve_sensor_def(sensor).evaluate_tick(context)
        found = tick.run_requests or []
        return [request for request in found if with_reports or not is_report(request)]

    def run(self, requests: Sequence[dg.RunRequest]) -> None:
        """Run what was requested."""
        for request in requests:
            self.launcher.run(dict(request.tags), request.asset_selection or [])

    def work(self) -> list[RunReport]:
        """Run what the planner requests until it requests nothing; return what it computed."""
        reports = []
        while requests := self.requests(with_reports=True):
            for request in requests:
                report = self.launcher.run(dict(request.tags), request.asset_selection or [])
                if is_report(request):
                    assert report.is_success, report.errors
                else:
                    self.ran.append(request)
                    reports.append(report)
        return reports

    def metrics(self, day: dt.date | None = None) -> pd.DataFrame:
        """Return the newest metrics of a day, or of all days, in a fixed order."""
        window = windows_of_days(self.spec, [day])[0] if day else None
        frame = metric_log.newest(
            self.project.store.state,
            MODEL,
            start=window.start if window else None,
            end=window.end if window else None,
        )
        order = ["window_start", "slice_key", "slice_value", "column_name", "metric"]
        return frame.sort_values([*order, "model_version"], ignore_index=True)

    def verdicts(self, family: str, day: dt.date) -> pd.DataFrame:
        """Return the newest verdicts of a family on a day."""
        window = windows_of_days(self.spec, [day])[0]
        engine = self.project.store.state
        return monitor_results.newest(engine, MODEL, window.start, window.end, family)

    def evaluations(self, asset: str, family: str) -> dict[str | None, Any]:
        """Return the newest evaluation of a check by partition, from Dagster's own storage."""
        key = dg.AssetCheckKey(asset_key(self.spec, asset), family)
        history = self.instance.event_log_storage.get_asset_check_execution_history(key, limit=500)
        found: dict[str | None, Any] = {}
        for record in history:  # newest first
            found.setdefault(record.partition, record)
        return found


def is_report(request: dg.RunRequest) -> bool:
    """Tell whether a request is for the overview or for what is written of a model."""
    return {key.path[-1] for key in request.asset_selection or ()} <= {"overview", *REPORTED}


@contextmanager
def opened(folder: Path, moment: dt.datetime = NOW, db_url: str | None = None) -> Iterator[World]:
    """Open the project of a folder with all models that it declares."""
    clock = Clock(moment)
    project = make_project(folder, clock, db_url)
    models = read_models(project.models_folder, moment)
    with open_instance(project) as instance:
        launcher = Launcher(project, models, instance)
        yield World(project, clock, list(models.specs), instance, launcher)
    project.store.close()


def made_once(base: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Return this process's copy of a folder that one worker of all makes."""
    folder = base / name
    if folder.exists():
        return folder
    if "PYTEST_XDIST_WORKER" not in os.environ:
        make(folder)
        return folder
    made = base.parent / name  # of all workers of this run of the tests
    with (base.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make(base / f"{name}-in-the-making")
            (base / f"{name}-in-the-making").rename(made)
    shutil.copytree(made, folder)
    return folder


def processed_fortnight(base: Path) -> Path:
    """Return this process's copy of the processed fortnight."""
    return made_once(base, "fortnight", _process_fortnight)


def _process_fortnight(folder: Path) -> None:
    write_declaration(folder)
    land_fortnight(folder)
    with opened(folder) as world:
        report = world.launcher.materialize(world.spec, ("event_log", "baseline"))
        assert report.is_success, report.errors
        report = world.compute(DAYS)
        assert report.is_success, report.errors


@contextmanager
def copied_fortnight(base: Path, folder: Path) -> Iterator[World]:
    """Open a copy of the processed fortnight."""
    shutil.copytree(processed_fortnight(base), folder)
    with opened(folder) as world:
        yield world
