"""``mlmon model``: how the models are, and what people do to them and to their windows."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import (
    author_option,
    complete_period,
    models_of,
    period,
    spec_of,
)
from mlmon_dagster.errors import ConfigError

if TYPE_CHECKING:
    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec

_NAME_LINE = re.compile(r"^model:[ \t]*[^\s#]+", re.MULTILINE)
_yes = click.option("--yes", is_flag=True, help="Do it; without, only say what would be done.")


@click.group()
def model() -> None:
    """Look at the models, and change what has become of their windows."""


@model.command("list", epilog="Example: mlmon model list")
@click.pass_obj
def list_models(project: Project) -> None:
    """List the models and how they are, worst first."""
    from mlmon_dagster.pipeline.status import status_of

    found = models_of(project)
    for row in status_of(project, found.specs, found.broken):
        if row["status"] == "BROKEN":
            click.echo(f"{row['status']!s:<8} {row['model']}  does not load; see: mlmon validate")
            continue
        firing = f", {row['firing']} firing" if row["firing"] else ""
        click.echo(f"{row['status']!s:<8} {row['model']}  newest window {row['window']}{firing}")
    sys.exit(1 if found.broken else 0)


@model.command("status", epilog="Example: mlmon model status flight_delay")
@click.argument("name", metavar="MODEL")
@click.option("--last", default=14, show_default=True, help="So many windows.")
@click.pass_obj
def show_status(project: Project, name: str, last: int) -> None:
    """Show how far the ground truth of MODEL's newest windows has come, and how late it was."""
    from mlmon_dagster.spec import complete_windows, maturity_of
    from mlmon_dagster.store.baselines import promotions
    from mlmon_dagster.store.state import window_steps
    from mlmon_dagster.store.upkeep.unmatched_actuals import count_unmatched

    spec, now = spec_of(project, name), project.now()
    states = window_steps.load(project.store.state, name)
    if promotions.in_force(project.store.state, name).newest is None:
        click.echo(
            f"learning: windows are compared with {spec.baseline.described()}; too few have come "
            "yet, so nothing is compared and no alert is opened"
        )
    if not spec.has_actuals:
        click.echo("no ground truth is declared: performance is not measured")
    click.echo("window            n  exempt  coverage  maturity     after close  known p50/p99 h")
    for window in complete_windows(spec.time, now)[-last:]:
        state = states.get(window.start)
        if state is None:
            click.echo(f"{window.key:<10} {'-':>8}")
            continue
        maturity = maturity_of(spec, window, state.n_expected, state.n_actual, now)
        coverage = "-" if state.coverage is None else f"{state.coverage:.1%}"
        known = json.loads(state.lags).get("known_hours")
        lag = f"{known['p50']:g} / {known['p99']:g}" if known else "-"
        click.echo(
            f"{window.key:<10} {state.n:>8,} {state.n_exempt:>7,} {coverage:>9}  {maturity:<12} "
            f"{state.n_late_after_close:>11,}  {lag}"
        )
    unmatched = count_unmatched(project.store, spec)
    if unmatched.n_waiting or unmatched.n_expired:
        click.echo(
            f"ground truth without a prediction: {unmatched.n_waiting:,} rows waiting, "
            f"{unmatched.n_expired:,} expired"
        )


@model.command("history", epilog="Example: mlmon model history flight_delay")
@click.argument("name", metavar="MODEL")
@click.pass_obj
def show_history(project: Project, name: str) -> None:
    """List what people did to MODEL and how the columns of its files changed, newest first."""
    from mlmon_dagster.store.state.model_events import history

    spec_of(project, name)
    rows = history(project.store.state, name)
    for row in rows:
        note = f": {row['note']}" if row["note"] else ""
        by = f" by {row['author']}" if row["author"] else ""
        click.echo(f"{row['at']:%Y-%m-%d %H:%M} UTC  {row['kind']}{by}{note}")
    if not rows:
        click.echo(f"Nobody has changed anything of {name} yet.")


@model.command(
    "reopen", epilog="Example: mlmon model reopen flight_delay --from 2013-04-01 --to 2013-04-30"
)
@click.argument("name", metavar="MODEL")
@period
@click.option("--note", default="", help="Why, for those who look later.")
@author_option
@click.pass_obj
def reopen_windows(
    project: Project,
    name: str,
    first: dt.date | None,
    last: dt.date | None,
    note: str,
    author: str,
) -> None:
    """Let closed windows of MODEL take in what arrived after they closed.

    They stay open until they are closed again: mlmon model close MODEL --from --to.
    """
    _change(project, name, first, last, note, author, is_open=True)


@model.command(
    "close", epilog="Example: mlmon model close flight_delay --from 2013-04-01 --to 2013-04-30"
)
@click.argument("name", metavar="MODEL")
@period
@click.option("--note", default="", help="Why, for those who look later.")
@author_option
@click.pass_obj
def close_windows(
    project: Project,
    name: str,
    first: dt.date | None,
    last: dt.date | None,
    note: str,
    author: str,
) -> None:
    """Freeze reopened windows of MODEL again."""
    _change(project, name, first, last, note, author, is_open=False)


@model.command("rebuild-history", epilog="Example: mlmon model rebuild-history flight_delay")
@click.argument("name", metavar="MODEL")
@click.pass_obj
def rebuild_history(project: Project, name: str) -> None:
    """Tell a new Dagster home what the store knows of MODEL: partitions, plots and checks.

    Nothing is computed again. Safe to repeat.
    """
    from mlmon_dagster.defs.history import report_history
    from mlmon_dagster.defs.instance import open_instance

    spec = spec_of(project, name)
    with open_instance(project) as instance:
        told = report_history(project, spec, instance)
    click.echo(
        f"Told Dagster of {told.n_materializations:,} materializations and {told.n_checks:,} "
        f"check results of {name}."
    )
    sys.exit(0)


def _change(
    project: Project,
    name: str,
    first: dt.date | None,
    last: dt.date | None,
    note: str,
    author: str,
    *,
    is_open: bool,
) -> None:
    from mlmon_dagster.store.state import window_state
    from mlmon_dagster.store.state.model_events import note_event

    if first is None or last is None:
        raise ConfigError("A period is needed: --from DAY --to DAY, both included.")
    spec, now = spec_of(project, name), project.now()
    windows = complete_period(spec, first, last, now)
    kind, span = ("reopened" if is_open else "closed"), f"{windows[0].key} to {windows[-1].key}"
    with project.store.state.begin() as conn:
        n = (
            window_state.reopen(conn, spec, windows, now)
            if is_open
            else window_state.close_again(conn, spec, windows)
        )
        if n:
            text = f"{span}, {n} windows" + (f"; {note}" if note else "")
            note_event(conn, name, kind, author=author, note=text, now=now)
    if not n:
        was = "is closed for good yet" if is_open else "was reopened"
        click.echo(f"None of the windows {span} of {name} {was}; nothing changed.")
        return
    next_step = f" Take in what came late with: mlmon run {name}" if is_open else ""
    click.echo(f"{n} windows of {name} are {'open' if is_open else 'closed'} again.{next_step}")


@model.command(epilog="Example: mlmon model rename churn attrition --yes")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@_yes
@author_option
@click.pass_obj
def rename(project: Project, old: str, new: str, yes: bool, author: str) -> None:
    """Give model OLD the name NEW, with all its history.

    Its declaration, rows, tables, tokens, silences and alerts go along: open alerts go on in
    their threads, and nobody is told anything. Landing folders stay where the declaration says.
    Interrupted at any point, the same command goes on. Dagster keeps the old name's assets; under
    the new name it is told the history again.
    """
    from mlmon_dagster.alerts.people.rename_and_end import rename_alerts
    from mlmon_dagster.store.state.writer_lock import writer_lock
    from mlmon_dagster.store.upkeep.rename import parked, pending_rename, rename_model

    goes_on = pending_rename(project.store, old, new)
    declaration = _declaration(project, old, goes_on)
    waiting = parked(declaration)
    source = declaration if declaration.exists() else waiting
    renamed = declaration.with_name(f"{new}{declaration.suffix}")
    text = _renamed_text(source if source.exists() else renamed, old, new)
    if not goes_on:
        spec_of(project, old)  # the new name would meet what its stored events do not allow
        _check_free(project, new)
    click.echo(_contents(project, old))
    click.echo(f"{old} becomes {new}, and {declaration.name} becomes {renamed.name}.")
    if not yes:
        click.echo("Nothing was changed; do it with --yes.")
        return
    _refuse_while_running(project, old)
    with writer_lock(project.store.state, f"ingest/{old}"):
        rename_model(
            project.store, declaration, text, (old, new), rename_alerts,
            author=author, now=project.now(),
        )  # fmt: skip
    _tell_dagster(project, spec_of(project, new))
    click.echo(f"{old} is {new} now.")


@model.command(epilog="Example: mlmon model remove churn --yes")
@click.argument("name", metavar="MODEL")
@click.option("--purge", "is_purged", is_flag=True, help="Delete at once, for good: no trash.")
@_yes
@author_option
@click.pass_obj
def remove(project: Project, name: str, is_purged: bool, yes: bool, author: str) -> None:
    """Stop monitoring MODEL and move everything of it into the trash.

    Open alerts end, and their threads say why; silences that name it end. Within
    retention.trash (30 days) it comes back with: mlmon model restore MODEL. Its landing files are
    left alone. A declaration that does not load, or was deleted by hand, is no obstacle.
    """
    from mlmon_dagster.alerts.people.rename_and_end import end_alerts
    from mlmon_dagster.store.state.writer_lock import writer_lock
    from mlmon_dagster.store.upkeep.remove import find_removed, purge, remove_model
    from mlmon_dagster.store.upkeep.rename import parked

    before = find_removed(project.store, name)
    goes_on = before is not None and not before.is_whole
    declaration = _declaration(project, name, goes_on or _is_orphan(project, name))
    click.echo(_contents(project, name))
    if not declaration.exists() and not goes_on:
        click.echo(f"{declaration} is gone already: this is about what is stored of {name}.")
    if is_purged and not yes:
        click.confirm(f"Delete all this of {name} for good?", abort=True)
    elif not yes:
        click.echo("This would go to the trash. Nothing was changed; do it with --yes.")
        return
    _refuse_while_running(project, name)
    paths = (parked(declaration), declaration)
    with writer_lock(project.store.state, f"ingest/{name}"):
        spec = _last_word(project, name, next(filter(Path.exists, paths), declaration))
        end_alerts(project.store, spec, project.now())
        kept_for = spec.retention.trash
        removed = remove_model(
            project.store, declaration, name, kept_for, author=author, now=project.now()
        )
    if is_purged:
        purge(removed)
        click.echo(f"{name} is deleted.")
        return
    click.echo(
        f"{name} is in the trash until {removed.purge_at:%Y-%m-%d}.\n"
        f"Take it back with: mlmon model restore {name}"
    )


@model.command(epilog="Example: mlmon model restore churn")
@click.argument("name", metavar="MODEL")
@author_option
@click.pass_obj
def restore(project: Project, name: str, author: str) -> None:
    """Bring MODEL back from the trash, as it was removed."""
    from mlmon_dagster.store.upkeep.remove import find_removed, removed_models, restore_model

    removed = find_removed(project.store, name)
    if removed is None:
        there = ", ".join(r.model for r in removed_models(project.store)) or "nothing"
        raise ConfigError(f"{name} is not in the trash. There is: {there}.")
    models = project.models_folder
    n_rows = restore_model(project.store, models, removed, author=author, now=project.now())
    click.echo(f"{name} is back, with {n_rows:,} rows of state.")
    if _is_orphan(project, name):
        click.echo(
            f"Its declaration was gone before it was removed. Write {models / name}.yaml again, "
            f"then: mlmon run {name}"
        )
        return
    _tell_dagster(project, spec_of(project, name))


@model.command(epilog="Example: mlmon model trash")
@click.pass_obj
def trash(project: Project) -> None:
    """List the removed models, and until when they can be restored."""
    from mlmon_dagster.store.upkeep.remove import removed_models

    found = removed_models(project.store)
    for removed in found:
        state = f"kept until {removed.purge_at:%Y-%m-%d}"
        if not removed.is_whole:
            state = f"interrupted; finish with mlmon model remove {removed.model} --yes"
        click.echo(
            f"{removed.model}  removed {removed.removed_at:%Y-%m-%d} by {removed.author}  "
            f"{removed.n_rows:,} rows, {removed.n_bytes / 1e6:.1f} MB  {state}"
        )
    if not found:
        click.echo("The trash is empty.")


def _declaration(project: Project, model: str, goes_on: bool) -> Path:
    """Return the file of a model; of one that is parked, where it was."""
    from mlmon_dagster.store.upkeep.rename import declaration_of, parked

    if goes_on:
        paths = [project.models_folder / f"{model}{ending}" for ending in (".yaml", ".yml")]
        return next((path for path in paths if parked(path).exists()), paths[0])
    return declaration_of(project.models_folder, model)


def _is_orphan(project: Project, model: str) -> bool:
    """Whether something is stored of a model that no file declares, under any file's name."""
    from mlmon_dagster.spec import read_models
    from mlmon_dagster.store.upkeep.rename import count_rows, folders_of

    found = read_models(project.models_folder, project.now())
    declared = {spec.model for spec in found.specs} | {broken.name for broken in found.broken}
    is_stored = count_rows(project.store, model) or folders_of(project.store, model)
    return model not in declared and bool(is_stored)


def _last_word(project: Project, model: str, declaration: Path) -> ModelSpec:
    """Return how the end of a model's alerts is told, also where its declaration does not load."""
    from mlmon_dagster.alerts.lifecycle.undeclared_models import stand_in
    from mlmon_dagster.spec import load_model, read_models
    from mlmon_dagster.spec.alerting import AlertPolicy
    from mlmon_dagster.spec.loader import alerts_of
    from mlmon_dagster.spec.retention import RetentionPolicy

    try:
        return load_model(declaration)
    except ConfigError:
        others = read_models(project.models_folder, project.now()).specs
        alerts = alerts_of(declaration) or (None if others else AlertPolicy())
        gone = stand_in(model, others, alerts)
        return gone.model_copy(update={"retention": RetentionPolicy()})


def _renamed_text(path: Path, old: str, new: str) -> str:
    """Return the declaration under its new name, checked like any other."""
    from mlmon_dagster.spec import parse_model

    text, n = _NAME_LINE.subn(f"model: {new}", path.read_text(encoding="utf-8"), count=1)
    spec = parse_model(text, str(path))
    if n != 1 or spec.model != new:
        raise ConfigError(f"{path}: expected a line 'model: {old}' at the beginning of a line.")
    return text


def _check_free(project: Project, new: str) -> None:
    from mlmon_dagster.store.upkeep.rename import count_rows, folders_of

    declared = [p.name for p in project.models_folder.glob(f"{new}.y*ml")]
    if declared or count_rows(project.store, new) or folders_of(project.store, new):
        where = declared[0] if declared else "the store"
        raise ConfigError(f"There is a model {new} in {where} already; choose another name.")


def _contents(project: Project, model: str) -> str:
    from mlmon_dagster.alerts.people.rename_and_end import count_open
    from mlmon_dagster.store.upkeep.rename import count_rows, folders_of

    counts = count_rows(project.store, model)
    folders = folders_of(project.store, model)
    size = sum(p.stat().st_size for f in folders for p in f.rglob("*") if p.is_file())
    lines = [
        f"{model}: {len(folders)} folders with {size / 1e6:.1f} MB, {sum(counts.values()):,} rows "
        f"of state, {count_open(project.store, model)} open alerts",
        *(f"  {folder.parent.name}/{folder.name}" for folder in folders),
        *(f"  {n:,} rows of {table}" for table, n in counts.items()),
    ]
    return "\n".join(lines)


def _refuse_while_running(project: Project, model: str) -> None:
    from mlmon_dagster.defs.instance import open_instance
    from mlmon_dagster.defs.liveness import fail_dead_runs, is_in_flight

    with open_instance(project) as instance:
        fail_dead_runs(instance, model)
        if is_in_flight(instance, model):
            raise ConfigError(
                f"A run of {model} is going on. Wait for it, or stop it in the UI, and try again."
            )


def _tell_dagster(project: Project, spec: ModelSpec) -> None:
    from mlmon_dagster.defs.history import report_history
    from mlmon_dagster.defs.instance import open_instance

    with open_instance(project) as instance:
        told = report_history(project, spec, instance)
    click.echo(
        f"Told Dagster of {told.n_materializations:,} materializations and {told.n_checks:,} "
        "check results. A Dagster that is running takes the declarations in when its code "
        "location is reloaded."
    )
