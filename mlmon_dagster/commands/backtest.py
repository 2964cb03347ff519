"""``mlmon backtest``: which alerts would have fired, without sending anything."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from mlmon_dagster.commands.options import examples, of_model, period, prints_table
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.monitors import FAMILIES, SUSTAINED_SHIFT
from mlmon_dagster.spec.names import DRIFT, counted
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.tables.alerts import name_monitor
from mlmon_dagster.tables.asked import Days, complete_period, window_range
from mlmon_dagster.tables.table import Answer, AnyAnswer, Column, Table, day

if TYPE_CHECKING:
    from mlmon_dagster.alerts.lifecycle.backtest import Backtest
    from mlmon_dagster.monitors.budget import Budget
    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec, Window

BACKTEST: Table[Backtest] = Table(
    "backtest",
    (
        Column("monitor", lambda test: name_monitor(test.monitor)),
        Column("slice", lambda test: test.slice_name or "all"),
        Column("threshold", "threshold"),
        Column("worst", "worst", "{:.3g}", is_number=True),
        Column("failed", lambda test: f"{test.n_failed} of {test.n_judged}", is_number=True),
        Column("opened", lambda test: len(test.opened), is_number=True),
        Column("firing", lambda test: len(test.firing), is_number=True),
        Column("first", lambda test: next(iter(test.opened), None), day),
        Column("suggested", "suggested", "{:g}", is_number=True),
    ),
    "No monitor failed.",
)


@click.command(epilog=examples("mlmon backtest flight_delay --from 2013-04-01 --to 2013-12-31"))
@of_model
@period
@click.option("--all", "show_all", is_flag=True, help="List the quiet monitors too.")
@prints_table
def backtest(project: Project, spec: ModelSpec, days: Days, show_all: bool) -> AnyAnswer:
    """Show which alerts MODEL's monitors would have opened in a period.

    The monitors as the spec declares them now judge the stored metrics of every window, each as
    if it had just ended with the ground truth that is known today. Nothing is stored or sent, so
    edit a threshold, look, and edit again. A monitor that opens more than once in four weeks gets
    a suggested threshold at which it would not have.
    """
    from mlmon_dagster.alerts.lifecycle.backtest import backtest as fold
    from mlmon_dagster.alerts.lifecycle.backtest import opened_by_week
    from mlmon_dagster.monitors.budget import alarm_budget

    windows = complete_period(spec, days, project.now())
    tests = fold(_verdicts(project, spec, windows))
    weeks = opened_by_week(tests, windows[0].start, windows[-1].end)
    shown = [t for t in tests if show_all or t.opened or t.n_failed]
    # Sustained shifts have a level of their own, beside which a column's would count twice.
    tested = [t.monitor for t in tests if t.n_judged and f"/{SUSTAINED_SHIFT}/" not in t.monitor]
    expected = alarm_budget(spec, Counter(monitor.split("/")[0] for monitor in tested))
    n_opened = sum(len(test.opened) for test in shown)
    start = windows[0].start.astimezone(ZoneInfo(spec.time.zone)).date()
    return Answer(
        BACKTEST,
        shown,
        spec.time.zone,
        above=f"{spec.model}: {window_range(windows)}, {len(windows)} windows: "
        f"{counted(n_opened, 'alert')} would have opened, {n_opened / len(weeks):.2g} a week.",
        below="\n".join(
            [_weeks_said(weeks, start), _expected_said(expected), *_remedies(spec, expected)]
        ),
    )


def _verdicts(
    project: Project, spec: ModelSpec, windows: tuple[Window, ...]
) -> list[MonitorResult]:
    from mlmon_dagster.pipeline.judge_inputs import verdicts
    from mlmon_dagster.work import Work

    work = Work(project, spec, windows, project.now(), f"backtest-{uuid.uuid4()}", is_backfill=True)
    states = work.states()
    if not states:
        raise ConfigError(
            f"Nothing of {spec.model!r} is computed in that period; mlmon run {spec.model} does."
        )
    return [
        row
        for family in FAMILIES
        if not FAMILIES[family].is_by_clock  # that looks at the present, not at the period
        for row in verdicts(work, family, windows, states)
    ]


def _expected_said(expected: Sequence[Budget]) -> str:
    """Say how many incidents a year are false by chance, and when a lasting fault is reported."""
    if not expected:
        return "No monitor tests, so that no incident is false by chance."
    independent = sum(budget.independent for budget in expected)
    wandering = sum(budget.wandering for budget in expected)
    lines = [
        "False incidents a year of an unchanged model: at most "
        f"{independent:.2g} if windows are independent, {wandering:.2g} if each is much like the "
        "one before."
    ]
    lines += [
        f"  {FAMILIES[budget.family].label}: {budget.independent:.2g} and {budget.wandering:.2g}; "
        f"a lasting fault is reported after {budget.delay} windows"
        for budget in expected
    ]
    return "\n".join(lines)


def _remedies(spec: ModelSpec, expected: Sequence[Budget]) -> list[str]:
    """Say which setting brings an expectation above one incident a year down, and to what."""
    from mlmon_dagster.monitors.budget import MOST_A_YEAR, SLOWER, alarm_budget, slower, stricter

    alerts = {budget.family: budget.alerts for budget in expected}
    said = []
    if sum(budget.independent for budget in expected) > MOST_A_YEAR:
        most = max(expected, key=lambda budget: budget.independent)
        then = alarm_budget(slower(spec, most.family), alerts)
        total = sum(budget.independent for budget in then)
        said.append(
            "More than one a year if windows are independent, mostly from "
            f"{FAMILIES[most.family].label}: its `windows: {SLOWER.k} of {SLOWER.n}` make "
            f"that {total:.2g}, and report a lasting fault after {SLOWER.k} windows."
        )
    drift = [budget for budget in expected if budget.family == DRIFT]
    if drift and sum(budget.wandering for budget in expected) > MOST_A_YEAR:
        strict = stricter(spec)
        total = sum(budget.wandering for budget in alarm_budget(strict, alerts))
        said.append(
            f"More than one a year if windows wander: drift's `q: {strict.monitors.drift.q:g}` "
            f"makes that {total:.2g}, and reports only larger changes; so does a longer baseline."
        )
    return said


def _weeks_said(weeks: Sequence[int], start: dt.date) -> str:
    """Say how many weeks were quiet, and which were the busiest."""
    busiest = sorted(range(len(weeks)), key=lambda i: (-weeks[i], i))[:3]
    named = [f"{start + dt.timedelta(weeks=i)} ({weeks[i]})" for i in busiest if weeks[i]]
    quiet = f"Weeks in which nothing opened: {weeks.count(0)} of {len(weeks)}"
    return f"{quiet}; most opened in the weeks from {', '.join(named)}." if named else f"{quiet}."
