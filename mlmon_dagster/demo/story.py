"""The demo: a year of flights through the whole graph, then three days as they would come live."""

from __future__ import annotations

import datetime as dt
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import spec_of
from mlmon_dagster.commands.run import show_reports
from mlmon_dagster.defs.delivery import dispatch_alerts
from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.defs.launch import Launcher
from mlmon_dagster.demo import flights
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, complete_windows
from mlmon_dagster.spec.names import ALL, TABLE, counted
from mlmon_dagster.spec.steps import REPORTED, windowed_of
from mlmon_dagster.tables.alerts import list_alerts, tabulate_alerts
from mlmon_dagster.tables.periods import rolled_up_metrics
from mlmon_dagster.tables.rendering import render_text, text_table

if TYPE_CHECKING:
    import pandas as pd

MODEL = "flight_delay"
FIRST, LAST_OF_HISTORY = dt.date(2013, 4, 1), dt.date(2013, 12, 28)
LIVE = (dt.date(2013, 12, 29), dt.date(2013, 12, 30), dt.date(2013, 12, 31))
DAY = dt.timedelta(days=1)
_CELLS = (
    "n", "coverage", "late rate", "ROC AUC (95 %)", "estimated", "F1", "accuracy", "PSI of score",
)  # fmt: skip


class Clock:
    """The demo's present; it stands still until it is moved."""

    def __init__(self, day: dt.date) -> None:
        self.move_to(day)

    def move_to(self, day: dt.date) -> None:
        """Set the present to noon UTC of a day, when the night's files have landed."""
        self.moment = dt.datetime.combine(day, dt.time(12), dt.UTC)

    def __call__(self) -> dt.datetime:
        """Return the present."""
        return self.moment


def tell(project: Project, *, again: bool = False) -> bool:
    """Run the demo and print what it found.

    Args:
        project: Where; its folder gets ``models/flight_delay.yaml`` if it has none, ``landing/``
            and ``.mlmon/``.
        again: Remove what an earlier demo left and start over. Without it, an earlier demo's files
            are kept and computed again, with the same numbers.

    Returns:
        Whether every run succeeded.

    Raises:
        ConfigError: If the folder holds the state of other models too and ``again`` is asked for.
    """
    logging.getLogger("dagster").setLevel(logging.WARNING)  # the stages are told below
    spec = declare(project, again)
    clock = Clock(LAST_OF_HISTORY + DAY)
    project = replace(project, now=clock)
    landing, stages = project.folder / "landing" / MODEL, list[tuple[str, float]]()
    with timed_stage(stages, "training on January to March"):
        model = flights.train()
    with timed_stage(stages, "serving April to 28 December, a landing file a day"):
        flights.write_validation(model, landing)
        flights.write_predictions(model, landing, FIRST, LIVE[0])
        flights.write_actuals(landing, FIRST, LIVE[0])
    with tell_history(project, spec, stages) as (launcher, is_history_fine):
        is_live_fine = _live(launcher, clock, model, landing, stages)
    dagster_seconds = launcher.seconds - launcher.computing_seconds
    stages.append(("of these were Dagster's own runs and events", dagster_seconds))
    tell_end(project, spec, render_months(project, spec, _CELLS, _cells), "year", stages, NEXT)
    return is_history_fine and is_live_fine


NEXT = """What to do next:
  make ui                                       the graph, every window's numbers, failed checks
  mlmon metrics flight_delay --metric roc_auc   realized performance, day by day
  mlmon alerts list                             every alert of the year
  models/flight_delay.yaml                      what is declared; copy it for your own model"""


def declare(project: Project, again: bool = False, model: str = MODEL) -> ModelSpec:
    """Make sure that a demo's model is declared in the project, and return it."""
    target = project.models_folder / f"{model}.yaml"
    if again:
        _remove_earlier(project, model)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shipped = resources.files("mlmon_dagster.demo").joinpath(f"{model}.yaml")
        target.write_text(shipped.read_text())
    return spec_of(project, model)


def _remove_earlier(project: Project, model: str) -> None:
    if project.db_url is not None:
        raise ConfigError(
            "MLMON_DB_URL names a database, which the demo will not empty. Unset it, or drop and "
            "create the database yourself and run the demo without --again."
        )
    others = [p.stem for p in project.models_folder.glob("*.y*ml") if p.stem != model]
    if others:
        raise ConfigError(
            f"{project.folder} also holds the state of {', '.join(others)}, which starting over "
            "would remove. Run the demo in an empty folder: mlmon --project FOLDER demo"
        )
    shutil.rmtree(project.folder / "landing" / model, ignore_errors=True)
    shutil.rmtree(project.state_folder, ignore_errors=True)


@contextmanager
def timed_stage(stages: list[tuple[str, float]], name: str) -> Iterator[None]:
    """Say what is done, and note how long it took."""
    click.echo(f"{name} ...")
    start = time.monotonic()
    yield
    seconds = time.monotonic() - start
    stages.append((name, seconds))
    click.echo(f"  {seconds:.1f} s")


@contextmanager
def tell_history(
    project: Project, spec: ModelSpec, stages: list[tuple[str, float]]
) -> Iterator[tuple[Launcher, bool]]:
    """Compute all days so far, let the caller tell what comes live, and write the reports.

    Yields:
        What runs the model's assets, and whether every run succeeded.
    """
    with open_instance(project) as instance:
        launcher = Launcher(project, [spec], instance, lambda step: click.echo(f"    {step}"))
        with timed_stage(stages, "ingest and baseline"):
            first = launcher.materialize(spec, ("event_log", "baseline"))
            show_reports([first])
        windows = complete_windows(spec.time, project.now())
        with timed_stage(stages, f"backfill of {len(windows)} days in one run"):
            backfill = launcher.materialize(spec, windowed_of(spec), windows, is_backfill=True)
            show_reports([backfill])
        dispatch_alerts(project, [spec], instance, project.now())
        yield launcher, first.is_success and backfill.is_success
        with timed_stage(stages, "performance trace, health report, overview"):
            launcher.materialize(spec, REPORTED, keys=launcher.overview_keys)


def tell_end(
    project: Project,
    spec: ModelSpec,
    months: str,
    time: str,
    stages: list[tuple[str, float]],
    next_steps: str,
) -> None:
    """Print the months, the alerts of the time, how long each stage took, and what to do next."""
    click.echo(f"\n{months}")
    click.echo("\n" + render_episodes(project, spec, time))
    click.echo("\nTime by stage:")
    for name, seconds in stages:
        click.echo(f"  {seconds:6.1f} s  {name}")
    click.echo(f"\n{next_steps}")


def _live(
    launcher: Launcher,
    clock: Clock,
    model: flights.FlightModel,
    landing: Path,
    stages: list[tuple[str, float]],
) -> bool:
    """Drop the last days one by one, the ground truth a day behind, and let the sensors work."""
    is_fine = True
    # The night's files hold yesterday's predictions and what landed the day before; two more
    # nights bring the last ground truth.
    days: list[dt.date | None] = [*LIVE, None, None]
    with timed_stage(stages, "29 to 31 December live"):
        for i, day in enumerate(days):
            landed = LIVE[0] + (i - 1) * DAY
            clock.move_to(landed + 2 * DAY)
            if day is not None:
                flights.write_predictions(model, landing, day, day + DAY)
            flights.write_actuals(landing, landed, landed + DAY)
            said = f"predictions of {day}, " if day else ""
            click.echo(f"  {clock():%d %B %Y}: {said}ground truth that landed on {landed}")
            is_fine &= tick(launcher)
    return is_fine


def tick(launcher: Launcher) -> bool:
    """Let the planner and the dispatcher look once, as the daemon would."""
    reports = []
    for report in launcher.tick("mlmon_planner"):
        reports.append(report)
        show_reports([report])
    for _ in launcher.tick("mlmon_alert_dispatcher"):
        pass
    return all(report.is_success for report in reports)


def render_months(
    project: Project,
    spec: ModelSpec,
    names: Sequence[str],
    write: Callable[[pd.DataFrame], list[str]],
) -> str:
    """Return a table by month, merged from the daily profiles.

    Args:
        project: The project.
        spec: The model.
        names: What the columns after the month are called.
        write: Writes the cells of a month from its metrics.
    """
    frame = rolled_up_metrics(project.store, spec, "month")
    whole = frame[frame["slice_key"] == ALL]
    local = whole["window_start"].dt.tz_convert(spec.time.zone).dt.strftime("%Y-%m")
    lines = [(str(name), *write(month)) for name, month in whole.groupby(local)]
    return f"{spec.model} by month\n" + text_table(("month", *names), lines, right=names)


def _cells(month: pd.DataFrame) -> list[str]:
    def row(metric: str, column: str = TABLE) -> pd.Series[float]:
        return month[(month["metric"] == metric) & (month["column_name"] == column)].iloc[0]

    auc, n = row("roc_auc"), int(row("n")["value"])
    return [
        f"{n:,}",
        f"{auc['n'] / n:.3f}",
        f"{row('actual_rate')['value']:.3f}",
        f"{auc['value']:.3f} ({auc['lower']:.3f}-{auc['upper']:.3f})",
        f"{row('estimated_roc_auc')['value']:.3f}",
        f"{row('f1')['value']:.3f}",
        f"{row('accuracy')['value']:.3f}",
        f"{row('psi', 'score')['value']:.3f}",
    ]


def render_episodes(project: Project, spec: ModelSpec, time: str = "year") -> str:
    """Return the alerts of the demo, as `mlmon alerts list` prints them, under their number."""
    found = list_alerts(project.store, spec.model)
    opened = [one for one in found if one.state != "PENDING" and not one.is_explained]
    n_explained = sum(one.is_explained for one in found if one.state != "PENDING")
    number = counted(len(opened), "episode")
    if n_explained:
        number += f", and {n_explained} that others explain"
    listed = render_text(tabulate_alerts([spec], found))
    return f"Alerts of the {time} ({number}):\n{listed}"
