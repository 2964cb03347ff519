"""``mlmon run``: take in what is new and compute windows, through Dagster, in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import told_of_strays
from mlmon_dagster.commands.outside import sentence, sentence_of_failure
from mlmon_dagster.commands.terminal import OnStep, color_verdicts, print_step, show_steps
from mlmon_dagster.errors import MlmonError, StoreError
from mlmon_dagster.pipeline.plan import Range, Request, is_up_to_date, plan, try_again
from mlmon_dagster.pipeline.status import find_outdated
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.names import FRESHNESS, counted
from mlmon_dagster.spec.scalars import format_duration
from mlmon_dagster.spec.steps import REPORTED, windowed_of
from mlmon_dagster.store import Store, baselines
from mlmon_dagster.store.moments import check_tables
from mlmon_dagster.tables.asked import ALWAYS, Days, complete_period, window_range
from mlmon_dagster.tables.standing import overall, standing_of
from mlmon_dagster.work import Work

if TYPE_CHECKING:
    from mlmon_dagster.defs.launch import Launcher, RunReport

_FILES_SHOWN = 3


def run_models(project: Project, specs: Sequence[ModelSpec], days: Days) -> bool:
    """Do what `run_model` does for some models; one that fails is said, and the others go on.

    Returns:
        Whether all went well.

    Raises:
        ConfigError: As `run_model`, if it is one model alone.
        StoreError: Likewise.
    """
    with show_steps() as on_step:
        if len(specs) == 1:
            return run_model(project, specs[0], days, on_step)
        return _run_each(project, specs, days, on_step)


def _run_each(project: Project, specs: Sequence[ModelSpec], days: Days, on_step: OnStep) -> bool:
    failed = []
    for spec in specs:
        try:
            is_fine = run_model(project, spec, days, on_step)
        except MlmonError as error:
            click.echo(f"mlmon: {spec.model}: {sentence(error) or error}", err=True)
            is_fine = False
        failed += [] if is_fine else [spec.model]
    if failed:
        n = counted(len(specs), "model")
        click.echo(f"mlmon: {len(failed)} of {n} not done: {', '.join(failed)}", err=True)
    return not failed


def run_model(
    project: Project,
    spec: ModelSpec,
    days: Days,
    on_step: OnStep = print_step,
) -> bool:
    """Ingest, then compute the windows of a period, or those whose inputs changed.

    Returns:
        Whether every run succeeded (failed checks are not failed runs), and all could be read.

    Raises:
        ConfigError: If the period holds no complete window.
        StoreError: If a step failed as the disk, the database or a table did, or tables and state
            database are not of the same moment.
    """
    check_tables(project.store, spec)
    named = days != ALWAYS
    if not named and would_change_nothing(project, spec):
        click.echo(
            f"{spec.model}: no new files, and every window is computed from its newest inputs"
        )
        if strays := told_of_strays(project, [spec]):
            click.echo(f"  {strays}")
        return True
    from mlmon_dagster.defs.instance import fail_dead_runs, open_instance
    from mlmon_dagster.defs.launch import Launcher, season_told
    from mlmon_dagster.profiles.baseline import no_baseline
    from mlmon_dagster.profiles.in_force import baselines_shared

    period = complete_period(spec, days, project.now()) if named else ()
    with open_instance(project) as instance, baselines_shared():
        fail_dead_runs(instance, spec.model)
        launcher = Launcher(project, [spec], instance, partial(on_step, spec))
        in_place = spec.source.predictions.in_place
        click.echo(f"{spec.model}: {'looking at its tables' if in_place else 'reading new files'}")
        known = season_told(instance, spec)
        # The baseline is looked at where it is asked for, since to look at it costs more than an
        # idle run; one whose file is gone is asked for by a person alone.
        fits = bool(period) or not has_baseline(project.store, spec)
        first_of_all = ("event_log", "baseline") if fits else ("event_log",)
        reports = [launcher.materialize(spec, first_of_all)]
        show_files(spec, reports[0])
        for message in reports[0].failed[:_FILES_SHOWN]:
            click.echo(f"  {message}")
        if waiting := reports[0].n_waiting:
            click.echo(f"  {_left_for_later(spec, waiting)}")
        if again := reports[0].read_again:
            click.echo(f"  {again}.")
        if strays := told_of_strays(project, [spec]):
            click.echo(f"  {strays}")
        requests = [] if period else plan_again(project, spec)
        if requests and not requests[0].windows and not fits:
            reports.append(launcher.materialize(spec, requests[0].assets))
            requests = plan(project, spec, project.now())
        stale = [(period, windowed_of(spec))] if period else _list_stale(requests)
        if not stale:
            # Of what could not be read nobody knows whether it is newer.
            inputs = "what was read before" if reports[0].failed else "its newest inputs"
            click.echo(f"{spec.model}: every window is computed from {inputs}")
        compute = partial(_compute, launcher, spec, is_backfill=bool(period))
        reports += compute(stale)
        if stale and not period and all(report.is_success for report in reports):
            # What was learnt of late ground truth from these windows may end the wait of others.
            reports += compute(_list_stale(plan(project, spec, project.now())))
        is_news = len(reports) > 1 or reports[0].is_news
        if is_news or find_outdated(project, [spec]):
            reports.append(launcher.materialize(spec, REPORTED, keys=launcher.overview_keys))
        for season in {report.season for report in reports} - {"", known}:
            click.echo(f"  {season}")
    in_force = baselines.baselines_in_force(project.store.state, spec)
    if in_force.newest is None and not spec.baseline.is_rolling and not reports[0].n_waiting:
        click.echo(f"  {no_baseline(spec)}")
    show_reports(reports)
    if any(report.not_passed for report in reports):
        click.echo(
            f"{color_verdicts(_say_how_it_is(project, spec))} Every window: mlmon report "
            f"{spec.model}. What became an alert, which may take several windows: mlmon alerts "
            "deliver, then mlmon alerts list"
        )
    for error in (error for report in reports for error in report.errors):
        if text := sentence_of_failure(error.partition(": ")[2]):
            raise StoreError(text)
    return all(report.is_success and not report.failed for report in reports)


def _compute(
    launcher: Launcher, spec: ModelSpec, ranges: Sequence[Range], *, is_backfill: bool
) -> Iterator[RunReport]:
    """Compute windows, and yield what came of each range of them."""
    for windows, assets in ranges:
        click.echo(f"{spec.model}: {window_range(windows)}, {counted(len(windows), 'window')}")
        yield launcher.materialize(
            spec, assets, windows, is_backfill=is_backfill, is_planned=not is_backfill
        )


def _list_stale(requests: Sequence[Request]) -> list[Range]:
    """Return the windows of requests; one without any asks for the baseline, which was tried."""
    return [(request.windows, request.assets) for request in requests if request.windows]


def _say_how_it_is(project: Project, spec: ModelSpec) -> str:
    """Say what of all that failed in some window fails in the newest."""
    standings = standing_of(project.store, spec, project.now())
    status = overall(standings)
    ill = ", ".join(one.label for one in standings if one.status == status != "OK")
    return f"{spec.model} is {status} now{f' ({ill})' if ill else ''}."


def _left_for_later(spec: ModelSpec, waiting: int) -> str:
    sources = (spec.source.predictions, spec.source.actuals)
    settle = format_duration(max(source.settle for source in sources if source))
    return (
        f"{counted(waiting, 'file')} left for later: changed less than {settle} ago (settle) and "
        "perhaps not complete. Run again then; FILE.done next to it, or _SUCCESS in its folder, "
        "says at once that it is."
    )


def would_change_nothing(project: Project, spec: ModelSpec) -> bool:
    """Look whether a run would find nothing to do or to tell, without Dagster, which takes longer.

    Freshness is judged all the same, as by every look: it changes by the clock alone.
    """
    from mlmon_dagster.ingest import may_have_work

    store = project.store
    if (
        spec.registry is not None
        or may_have_work(store, spec, project.folder, project.now())
        or find_outdated(project, [spec])
        or not has_baseline(store, spec)
        or not is_up_to_date(project, spec, project.now())
    ):
        return False
    from mlmon_dagster.pipeline.judge import judge, judge_quarantined
    from mlmon_dagster.store.state.monitor_results import load_standing

    work = Work(project, spec, (), project.now(), "", False)
    judge_quarantined(work)
    judge(work, FRESHNESS)
    standing = load_standing(store.state, [spec], work.now)[spec.model]
    statuses = {row["status"] for row in standing if row["family"] == FRESHNESS}
    return "OK" in statuses <= {"OK", "NO_DATA"}


def show_files(spec: ModelSpec, report: RunReport) -> None:
    """Print what became of the files that an ingest settled; nothing if they held nothing new."""
    if not (report.n_new or report.n_bad or report.n_quarantined):
        return
    in_place = spec.source.predictions.in_place
    said = [] if in_place else [counted(report.n_new, "new row")]
    said += [f"{counted(report.n_bad, 'row')} refused"] if report.n_bad else []
    if report.n_quarantined:
        said.append(f"{counted(report.n_quarantined, 'whole file')} refused")
    what = "table" if in_place else "file"
    click.echo(f"  {counted(report.n_files - report.n_waiting, what)} read: {', '.join(said)}")
    for message in report.refused[:_FILES_SHOWN]:
        click.echo(f"    {message}")
    if (report.n_bad or report.n_quarantined > _FILES_SHOWN) and not in_place:
        click.echo(
            f"    Which rows, and why: mlmon ingest {spec.model} --retry reads them once more"
        )


def show_reports(reports: Sequence[RunReport]) -> None:
    """Print the errors of some runs, and how their checks went: all of them, then by family."""
    for error in (error for report in reports for error in report.errors):
        click.echo(f"  failed: {error}", err=True)
    n_checks = sum(report.n_checks for report in reports)
    if not n_checks:
        return
    not_passed = sum((report.not_passed for report in reports), Counter[tuple[str, str]]())
    totals = [counted(sum(n for (_, how), n in not_passed.items() if how == one), one)
              for one in ("error", "warning")]  # fmt: skip
    if unknown := sum(n for (_, how), n in not_passed.items() if how == "no verdict"):
        totals.append(f"{unknown} without a verdict")
    click.echo(color_verdicts(f"  {counted(n_checks, 'check')}: {', '.join(totals)}"))
    for family in dict.fromkeys(family for family, _ in not_passed):
        said = [
            f"{n:,} {how}" if how == "no verdict" else counted(n, how)
            for (of, how), n in not_passed.items()
            if of == family
        ]
        newest = next(r.newest[family] for r in reversed(reports) if family in r.newest)
        click.echo(f"    {family}: {', '.join(said)}; {newest.partition(chr(10))[0]}")


def has_baseline(store: Store, spec: ModelSpec) -> bool:
    """Tell whether the baseline that the model declares was fitted, and its file is whole."""
    found = baselines.load_newest_declared(store.state, spec)
    stored = baselines.load_newest(store.state, spec.model, found) if found else None
    return baselines.read_whole_payload(store, stored) is not None


def plan_again(project: Project, spec: ModelSpec) -> list[Request]:
    """Return what the planner would ask for, also of what it has given up: a person asks again."""
    try_again(project, spec)
    return plan(project, spec, project.now())
