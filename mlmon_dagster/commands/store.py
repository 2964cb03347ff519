"""``mlmon store``: look into the tables, query them, keep them fit; ``mlmon backup | restore``."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import (
    Group,
    as_of,
    examples,
    of_model,
    of_models,
    period,
    prints_table,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.scalars import parse_duration
from mlmon_dagster.tables.asked import Days, moments_of
from mlmon_dagster.tables.table import Answer, AnyAnswer, Table

if TYPE_CHECKING:
    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec

_SHORTEST = dt.timedelta(days=2)


@click.group(cls=Group)
def store() -> None:
    """Look into the tables of the store, query them, and keep them fit."""


@store.command(epilog=examples("mlmon store describe flight_delay"))
@of_models
@prints_table
def describe(project: Project, specs: list[ModelSpec]) -> AnyAnswer:
    """Show tables, rows, sizes, datasets and files of every model, or of some."""
    from mlmon_dagster.tables.stored import ask_stored

    return ask_stored(project.store, specs)


@store.command(
    epilog=examples("mlmon store head flight_delay --where \"origin = 'JFK'\" --limit 5")
)
@of_model
@click.option("--dataset", help="Only of this dataset.")
@click.option("--window", "window", metavar="KEY", help="One window, such as 2013-12-29.")
@period
@click.option("--columns", metavar="A,B", help="Only these columns.")
@click.option("--where", metavar="PREDICATE", help="Only rows that meet it.")
@click.option("--limit", default=10, show_default=True, type=click.IntRange(0, 100_000))
@click.option("--show-pii", is_flag=True, help="Show columns declared as pii, too.")
@as_of
@prints_table
def head(
    project: Project,
    spec: ModelSpec,
    dataset: str | None,
    window: str | None,
    days: Days,
    columns: str | None,
    where: str | None,
    limit: int,
    show_pii: bool,
    as_of: dt.datetime | None,
) -> AnyAnswer:
    """Show some inference records of MODEL, also as of a past moment."""
    from dataclasses import replace

    from mlmon_dagster.spec import parse_predicate, predicate_columns, window_from_key
    from mlmon_dagster.spec.predicate import columns_of, to_sql
    from mlmon_dagster.store.tables.columns import record_schema

    start, end = moments_of(spec, days)
    if window is not None:
        one = window_from_key(spec.time, window)
        start, end = one.start, one.end
    rows = project.store.records(spec.model, dataset=dataset, since=start, until=end, as_of=as_of)
    pii = {name for name, feature in spec.features.items() if feature.pii and not show_pii}
    names = [n.strip() for n in columns.split(",")] if columns else record_schema(spec).names
    if columns and (hidden := sorted(pii & set(names))):
        raise ConfigError(f"Columns {hidden} are declared as pii; add --show-pii to see them.")
    if where is not None:
        predicate = parse_predicate(where, predicate_columns(spec), spec.time.zone)
        if hidden := sorted(pii & columns_of(predicate)):
            raise ConfigError(f"Columns {hidden} are declared as pii; add --show-pii to use them.")
        rows = replace(rows, conditions=(*rows.conditions, to_sql(predicate)))
    shown = rows.select(*(n for n in names if n not in pii)).head(limit)
    return Answer(Table("records", ()), shown.to_pandas())


@store.command(epilog=examples('mlmon store sql flight_delay "SELECT count(*) FROM records"'))
@of_model
@click.argument("query")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(0, 1_000_000))
@click.option("--timeout", default=60.0, show_default=True, metavar="SECONDS",
              type=click.FloatRange(0.1), help="When the query is broken off.")  # fmt: skip
@prints_table
def sql(project: Project, spec: ModelSpec, query: str, limit: int, timeout: float) -> AnyAnswer:
    """Run one SELECT over the views predictions, actuals, records, profiles and metrics.

    Nothing outside of the tables of MODEL can be read, and nothing can be written. Columns
    declared as pii are not hidden here.
    """
    from mlmon_dagster.store.reading import select

    found = select(project.store, spec.model, query, limit, timeout)
    return Answer(Table("query", ()), found.to_pandas())


def _age(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> dt.timedelta | None:
    """Read how old something has to be.

    Raises:
        click.BadParameter: If it is no duration, or none at all.
    """
    if text is None:
        return None
    try:
        age = parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if age < _SHORTEST:
        raise click.BadParameter(f"{text} is too short: sensors look back for a day; at least 2d")
    return age


@store.command(
    epilog=examples("mlmon store maintain --dry-run", "mlmon store maintain --dagster 90d")
)
@of_models
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--dagster", "kept", metavar="AGE", callback=_age,
              help="Also end Dagster's own events that are older, such as 90d.")  # fmt: skip
def maintain(
    project: Project, specs: list[ModelSpec], dry_run: bool, kept: dt.timedelta | None
) -> None:
    """Delete rows past their retention, merge small files, remove old versions.

    The asset `maintenance` does the same every day. With --dagster, logs and steps of old runs go
    from Dagster's database, and events of partitions and checks that newer ones replaced: its pages
    show the same partitions and the same standing checks. Runs stay listed, without their logs.
    """
    import pandas as pd

    from mlmon_dagster.store.upkeep.maintenance import maintain as keep_fit
    from mlmon_dagster.tables.rendering import frame_text

    for spec in specs:
        removals = keep_fit(project.store, spec, project.now(), dry_run=dry_run)
        verb = "would be removed" if dry_run else "removed"
        click.echo(f"{spec.model}: {'nothing to do' if not removals else verb}")
        rows = [
            {"what": r.what, "rows": r.rows, "files": r.files, "bytes": r.size} for r in removals
        ]
        if rows:
            click.echo(frame_text(pd.DataFrame(rows)))
    if kept is not None:
        from mlmon_dagster.defs.event_retention import end_old_events
        from mlmon_dagster.defs.instance import open_instance

        with open_instance(project) as instance:
            ended = end_old_events(instance, project.clock() - kept, dry_run=dry_run)
        verb = "would be removed" if dry_run else "removed"
        logs = f", logs of {ended.n_runs:,} runs ({ended.size:,} bytes)" if ended.n_runs else ""
        click.echo(
            f"Dagster: {verb}: {ended.n_events:,} events, {ended.n_checks:,} evaluations of "
            f"checks{logs}"
        )


@store.command(epilog=examples("mlmon store repair flight_delay --dry-run"))
@of_model
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
def repair(project: Project, spec: ModelSpec, dry_run: bool) -> None:
    """Repair the tables of MODEL that mlmon doctor names, or make them fit the state database.

    If a wrong clock set the date of retention ahead of now, it is moved back to the oldest rows.

    Rows that are whole stay; landing files whose rows are missing are read again by the next
    ingest, and windows whose records or profiles are damaged are computed again. So is everything
    where tables and state database differ in age, since one of them was restored. Replaced files
    are moved to a folder next to the store, named at the end; delete it when all is well.
    """
    from mlmon_dagster.ingest.landing import hash_landed
    from mlmon_dagster.store.upkeep.integrity import repair_model as mend

    model = spec.model
    told = mend(
        project.store, spec, project.folder, project.now(), dry_run=dry_run,
        landed=lambda: hash_landed(project.folder, [source for _, source in spec.source]),
    )  # fmt: skip
    for line in told.done or ["nothing is damaged"]:
        click.echo(f"{model}: {line}")
    if told.lost:
        click.echo(
            f"{model}: rows of {len(told.lost)} files are missing that are not in the landing "
            "folder any more; put these files back and repair again, or restore a backup:",
            err=True,
        )
        for path in told.lost:
            click.echo(f"  {path}", err=True)
    if told.moved:
        click.echo(f"What was replaced is in {told.moved}")
    if told.done and not dry_run:
        click.echo(f"Next: mlmon run {model}")
    sys.exit(1 if told.lost else 0)


@click.command(epilog=examples("mlmon backup backups/2026-11-24.tar.gz"))
@click.argument("target", type=click.Path(path_type=Path))
@click.pass_obj
def backup(project: Project, target: Path) -> None:
    """Copy state, tables and declarations to TARGET, a new folder or .tar.gz file.

    Everything may go on running meanwhile. Dagster's own history is not in it: mlmon model
    rebuild-history reports it again.
    """
    from mlmon_dagster.store.upkeep.backup import make_backup, verify_backup

    make_backup(project.store, target, project.now(), project.models_folder)
    click.echo(f"{target}: {verify_backup(target).text()}, read back and right")


@click.command(epilog=examples("mlmon restore backups/2026-11-24.tar.gz"))
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--verify", is_flag=True, help="Only read it and compare its checksums.")
@click.option(
    "--erasures",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Also honour newer erasures: the folder 'erasures' of the store that this one replaces.",
)
@click.pass_obj
def restore(project: Project, source: Path, verify: bool, erasures: Path | None) -> None:
    """Fill this project's empty store from SOURCE; a store that holds anything is refused.

    A backup made on SQLite can be restored into PostgreSQL and the other way round. Who was
    erased after the backup stays erased, if the store is at the same place as before.
    """
    from mlmon_dagster.store.erasure.ledger import take_lists
    from mlmon_dagster.store.upkeep.backup import restore_backup, verify_backup

    if verify:
        click.echo(f"{source}: {verify_backup(source).text()}; every checksum is right")
        return
    store = project.open_store(is_restoring=True)
    if erasures is not None:
        click.echo(f"{take_lists(store, erasures)} lists of erasures taken over")
    summary = restore_backup(store, source, project.models_folder, project.now())
    click.echo(f"Restored {summary.text()}.\nNext: mlmon status")
