"""``mlmon model``: how the models are, and what people do to them and to their windows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlmon_dagster.alerts.handling import count_open, end_alerts
from mlmon_dagster.commands.options import (
    Group,
    author_option,
    examples,
    models_of,
    of_model,
    period,
    prints_table,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec, Window, load_model, read_models
from mlmon_dagster.spec.names import counted
from mlmon_dagster.spec.sources import STREAMS
from mlmon_dagster.store import baselines
from mlmon_dagster.store.state import manifest
from mlmon_dagster.store.state.model_history import load_history, note_event
from mlmon_dagster.store.state.writing import writer_lock
from mlmon_dagster.store.tables.kept_rows import locate_folder
from mlmon_dagster.store.upkeep.maintenance import (
    count_rows,
    find_declaration,
    list_folders,
    remove_model,
)
from mlmon_dagster.tables.asked import Days, complete_period
from mlmon_dagster.tables.changes import MODEL_HISTORY, ask_baselines
from mlmon_dagster.tables.table import Answer, AnyAnswer

if TYPE_CHECKING:
    from mlmon_dagster.project import Project


_FILES_SHOWN = 10


@click.group(cls=Group)
def model() -> None:
    """Look at the models, and change what has become of their windows."""


@model.command("history", epilog=examples("mlmon model history flight_delay"))
@of_model
@prints_table
def show_history(project: Project, spec: ModelSpec) -> AnyAnswer:
    """List what people did to MODEL and how the columns of its files changed, newest first."""
    rows = load_history(project.store.state, spec.model)
    nothing = f"Nobody has changed anything of {spec.model} yet."
    return Answer(MODEL_HISTORY, rows, text=None if rows else nothing)


def _change_of_windows(command: Callable[..., object]) -> Callable[..., object]:
    """Add which windows of a model change, why, and who says so."""
    why = click.option("--note", default="", help="Why, for those who look later.")
    return of_model(period(why(author_option(command))))


@model.command(
    "reopen", epilog=examples("mlmon model reopen flight_delay --from 2013-04-01 --to 2013-04-30")
)
@_change_of_windows
def reopen_windows(project: Project, spec: ModelSpec, **wanted: Any) -> None:
    """Let closed windows of MODEL use ground truth that arrived after they closed.

    They stay open until they are closed again: mlmon model close MODEL --from --to.
    """
    _change(project, spec, **wanted, is_open=True)


@model.command(
    "close", epilog=examples("mlmon model close flight_delay --from 2013-04-01 --to 2013-04-30")
)
@_change_of_windows
def close_windows(project: Project, spec: ModelSpec, **wanted: Any) -> None:
    """Freeze reopened windows of MODEL again."""
    _change(project, spec, **wanted, is_open=False)


@model.command("rebuild-history", epilog=examples("mlmon model rebuild-history flight_delay"))
@of_model
def rebuild_history(project: Project, spec: ModelSpec) -> None:
    """Report what the store has of MODEL to a new Dagster home: partitions, plots, checks.

    Nothing is computed again. Safe to repeat.
    """
    from mlmon_dagster.defs.history import report_history
    from mlmon_dagster.defs.instance import open_instance

    with open_instance(project) as instance:
        told = report_history(project, spec, instance)
    click.echo(
        f"Reported {told.n_materializations:,} materializations and {told.n_checks:,} check "
        f"results of {spec.model} to Dagster."
    )


def _change(
    project: Project, spec: ModelSpec, *, days: Days, note: str, author: str, is_open: bool
) -> None:
    from mlmon_dagster.store.state import window_state

    name, now = spec.model, project.now()
    windows = _named_windows(spec, days, now)
    kind, span = ("reopened" if is_open else "closed"), f"{windows[0].key} to {windows[-1].key}"
    with project.store.state.begin() as conn:
        n = (
            window_state.reopen_windows(conn, spec, windows, now)
            if is_open
            else window_state.close_windows(conn, spec, windows)
        )
        if n:
            text = f"{span}, {counted(n, 'window')}" + (f"; {note}" if note else "")
            note_event(conn, name, kind, author=author, note=text, now=now)
    if not n:
        was = "is closed for good yet" if is_open else "was reopened"
        click.echo(f"None of the windows {span} of {name} {was}; nothing changed.")
        return
    next_step = f" To use late ground truth: mlmon run {name}" if is_open else ""
    state = f"{'is' if n == 1 else 'are'} {'open' if is_open else 'closed'} again"
    click.echo(f"{counted(n, 'window')} of {name} {state}.{next_step}")


def _named_windows(spec: ModelSpec, days: Days, now: dt.datetime) -> tuple[Window, ...]:
    """Return the windows of a period that has to be named."""
    if None in days:
        raise ConfigError("A period is needed: --from DAY --to DAY, both included.")
    return complete_period(spec, days, now)


@model.command("remove", epilog=examples("mlmon model remove churn --backup before.tar.gz"))
@click.argument("name", metavar="MODEL")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--backup",
    "target",
    type=click.Path(path_type=Path),
    help="Where a backup of everything is put first, as mlmon backup does.",
)
@author_option
@click.pass_obj
def remove(project: Project, name: str, yes: bool, target: Path | None, author: str) -> None:
    """Stop monitoring MODEL and delete all its data and its declaration.

    It says what that is, and asks. Open alerts end, and their threads say why; silences that name
    it end. Its landing files are left alone, but not the spans that wait for ingest. A declaration
    that does not load, or was deleted by hand, is no obstacle. Nothing but a backup brings a model
    back. Interrupted, the same command deletes what is left.
    """
    from mlmon_dagster.store.upkeep.backup import make_backup

    declaration = project.models_folder / f"{name}.yaml"
    if not _is_orphan(project, name):
        declaration = find_declaration(project.models_folder, name)
    click.echo(_contents(project, name, declaration))
    if target is None:
        click.echo("Only a backup brings it back: mlmon backup FILE, or --backup FILE here.")
    if not yes:
        click.confirm(f"Delete all this of {name} for good?", abort=True)
    _refuse_while_running(project, name)
    if target is not None:
        made = make_backup(project.store, target, project.now(), project.models_folder)
        click.echo(f"{target}: {made.text()}")
    with writer_lock(project.store.state, f"ingest/{name}"):
        end_alerts(project.store, _last_word(project, name, declaration), project.now())
        remove_model(
            project.store, declaration, name, landed=_landed(project, name),
            author=author, now=project.now(),
        )  # fmt: skip
    click.echo(f"{name} is deleted.")


def _is_orphan(project: Project, name: str) -> bool:
    """Whether something is stored of a model that no file declares, under any file's name."""
    found = read_models(project.models_folder, project.now())
    declared = {spec.model for spec in found.specs} | {broken.name for broken in found.broken}
    is_stored = count_rows(project.store, name) or list_folders(project.store, name)
    return name not in declared and bool(is_stored or _landed(project, name).is_dir())


def _landed(project: Project, name: str) -> Path:
    """Return the folder where spans of a model wait for ingest."""
    from mlmon_dagster.spec.spans import landing_folder

    return project.folder / landing_folder(name)


def _contents(project: Project, name: str, declaration: Path) -> str:
    counts = count_rows(project.store, name)
    folders = list_folders(project.store, name)
    size = sum(p.stat().st_size for f in folders for p in f.rglob("*") if p.is_file())
    lines = [
        f"{name}: {counted(len(folders), 'folder')} with {size / 1e6:.1f} MB, "
        f"{counted(sum(counts.values()), 'row')} of state, "
        f"{counted(count_open(project.store, name), 'open alert')}",
        f"  {declaration}" if declaration.exists() else f"  {declaration} is gone already",
        *(f"  {folder.parent.name}/{folder.name}" for folder in folders),
        *(f"  {n:,} rows of {table}" for table, n in counts.items()),
    ]
    if n_landed := sum(path.is_file() for path in _landed(project, name).glob("*")):
        lines.append(
            f"  spans/{name}: {counted(n_landed, 'file')} of spans that no ingest has read; no "
            f"backup has them. To keep them, first: mlmon run {name}"
        )
    return "\n".join(lines)


def _refuse_while_running(project: Project, name: str) -> None:
    from mlmon_dagster.defs.instance import fail_dead_runs, is_in_flight, open_instance

    with open_instance(project) as instance:
        fail_dead_runs(instance, name)
        if is_in_flight(instance, name):
            raise ConfigError(
                f"A run of {name} is going on. Wait for it, or stop it in the UI, and try again."
            )


def _last_word(project: Project, name: str, declaration: Path) -> ModelSpec:
    """Return how the end of a model's alerts is told, also where its declaration does not load."""
    from mlmon_dagster.alerts.lifecycle.routing import stand_in
    from mlmon_dagster.spec.alerting import AlertPolicy
    from mlmon_dagster.spec.files.loader import alerts_of

    try:
        return load_model(declaration)
    except ConfigError:
        others = read_models(project.models_folder, project.now()).specs
        alerts = alerts_of(declaration) or (None if others else AlertPolicy())
        return stand_in(name, others, alerts)


@model.command("rebuild", epilog=examples("mlmon model rebuild churn --dry-run"))
@click.argument("name", metavar="MODEL")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--lose", is_flag=True, help="Go on without the rows that cannot be read again.")
@author_option
@click.pass_obj
def rebuild(project: Project, name: str, dry_run: bool, yes: bool, lose: bool, author: str) -> None:
    """Read every file of MODEL again under its declaration as it is now.

    For a task, type, key or zone that was wrong. It counts what can be read again, and asks. Then
    open alerts end, and their threads say why; rows, numbers and baselines are deleted, and files
    are read as if new. Interrupted, the same command ends it. Erased people stay erased.
    """
    from mlmon_dagster.ingest.landing import find_gone
    from mlmon_dagster.store.upkeep.maintenance import forget_read

    spec, store = models_of(project).find(name), project.store
    before = _count_read(project, name)
    gone = find_gone(store, spec, project.folder)
    copies = {path.partition(".")[0] for path in locate_folder(store, name).below()}
    kept = {
        row["sha256"] for row in gone if row["status"] == "quarantined" and row["sha256"] in copies
    }
    lost = [row for row in gone if row["rows_in"] and row["sha256"] not in kept]
    n_lost = sum(row["rows_in"] for row in lost)
    click.echo(
        f"{name}: {before.text()} to be read again; "
        f"{counted(count_open(store, name), 'open alert')} to end"
    )
    for row in lost[:_FILES_SHOWN]:
        click.echo(f"  {row['path']}: {counted(row['rows_in'], 'row')}, not there any more")
    if n_lost:
        click.echo(
            f"{counted(n_lost, 'row')} of {counted(len(lost), 'file')} or batches cannot be read "
            "again: the files are gone or were written over, or they came from a table or topic."
        )
    if dry_run:
        return
    if n_lost and not lose:
        raise ConfigError(
            f"Nothing was done. Put the files back, or go on without what their source does not "
            f"have any more: mlmon model rebuild {name} --lose. Or declare the model under "
            f"another name and keep {name} as it is."
        )
    if not yes:
        click.confirm(f"Read everything of {name} again?", abort=True)
    _refuse_while_running(project, name)
    with writer_lock(store.state, f"ingest/{name}"):
        end_alerts(store, spec, project.now(), "model_rebuilt")
        forget_read(store, name, kept)
        with store.state.begin() as conn:
            note_event(conn, name, "rebuilt", author=author, note=before.text(), now=project.now())
    _read_again(project, spec)
    after = _count_read(project, name)
    click.echo(f"{name}: {before.text()} before, {after.text()} now. Next: mlmon run {name}")


@dataclass(frozen=True)
class _Read:
    """How much was read of a model: files, their rows, and how many of these were refused."""

    n_files: int
    n_rows: int
    n_bad: int

    def text(self) -> str:
        """Say it."""
        files, rows = counted(self.n_files, "file"), counted(self.n_rows, "row")
        return (
            f"{files} with {rows} ({self.n_rows - self.n_bad:,} accepted, {self.n_bad:,} refused)"
        )


def _count_read(project: Project, name: str) -> _Read:
    files = [
        row for stream in STREAMS for row in manifest.load_files(project.store.state, name, stream)
    ]
    rows, bad = (sum(row[counter] for row in files) for counter in ("rows_in", "n_bad"))
    return _Read(len(files), rows, bad)


def _read_again(project: Project, spec: ModelSpec) -> None:
    from mlmon_dagster.pipeline.ingest import ingest
    from mlmon_dagster.work import Work

    work = Work(project, spec, (), project.now(), "", False)
    ingest(work, on_progress=lambda text: click.echo(f"  {text}"))


@click.group(cls=Group)
def baseline() -> None:
    """Look at what windows are compared with, and change it."""


@baseline.command(
    "promote",
    epilog=examples("mlmon baseline promote flight_delay --from 2013-09-01 --to 2013-09-30"),
)
@_change_of_windows
def promote_period(project: Project, spec: ModelSpec, days: Days, note: str, author: str) -> None:
    """Accept what production did in a period as the new normal of MODEL.

    Windows after the period are compared with it from now on, and computed again. Those before it
    keep their baseline. Take it back with: mlmon baseline undo MODEL.
    """
    from mlmon_dagster.profiles import fit_period

    model, now = spec.model, project.now()
    windows = _named_windows(spec, days, now)
    fitted = fit_period(project.store, spec, windows, now)
    with project.store.state.begin() as conn:
        number = baselines.promote_baseline(
            conn,
            model,
            (windows[0].start, windows[-1].end),
            fitted.baseline_id,
            author=author,
            note=note,
            now=now,
        )
    click.echo(
        f"Promotion {number}: windows of {model} after {windows[-1].key} are compared with "
        f"{fitted.n:,} predictions from {windows[0].key} to {windows[-1].key}.\n"
        f"They are computed again by the planner, or at once by: mlmon run {model}\n"
        f"Take it back with: mlmon baseline undo {model}"
    )


@baseline.command("list", epilog=examples("mlmon baseline list flight_delay"))
@of_model
@prints_table
def list_baselines(project: Project, spec: ModelSpec) -> AnyAnswer:
    """List what windows of MODEL are compared with, and what was taken back."""
    return ask_baselines(project.store, spec)


@baseline.command("undo", epilog=examples("mlmon baseline undo flight_delay"))
@of_model
@click.option("--id", "number", type=int, help="Which promotion. [default: the newest in force]")
@author_option
def undo_promotion(project: Project, spec: ModelSpec, number: int | None, author: str) -> None:
    """Take a promotion of MODEL back; the windows it concerned are computed again."""
    model = spec.model
    rows = baselines.list_promotions(project.store.state, model)
    live = [row.id for row in rows if row.undone_at is None]
    chosen = number if number is not None else max(live, default=None)
    if chosen not in live:
        raise ConfigError(
            f"Model {model!r} has no promotion {'' if number is None else f'{number} '}in force. "
            f"In force are: {', '.join(map(str, live)) or 'none'}."
        )
    with project.store.state.begin() as conn:
        baselines.undo_promotion(conn, chosen, author=author, now=project.now())
    click.echo(f"Promotion {chosen} of {model} is taken back; run: mlmon run {model}")
