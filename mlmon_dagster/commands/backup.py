"""``mlmon backup`` and ``mlmon restore``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mlmon_dagster.project import Project


@click.command(epilog="Example: mlmon backup backups/2026-11-24.tar.gz")
@click.argument("target", type=click.Path(path_type=Path))
@click.pass_obj
def backup(project: Project, target: Path) -> None:
    """Copy state, tables and declarations to TARGET, a new folder or .tar.gz file.

    Everything may go on running meanwhile. Dagster's own history is not in it: it is told again
    with mlmon model rebuild-history.
    """
    from mlmon_dagster.store.upkeep.backup import make_backup, verify_backup

    make_backup(project.store, target, project.now(), project.models_folder)
    click.echo(f"{target}: {verify_backup(target).text()}, read back and right")


@click.command(epilog="Example: mlmon restore backups/2026-11-24.tar.gz")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--verify", is_flag=True, help="Only read it and compare its checksums.")
@click.pass_obj
def restore(project: Project, source: Path, verify: bool) -> None:
    """Fill this project's empty store from SOURCE; a store that holds anything is refused.

    A backup made on SQLite can be restored into PostgreSQL and the other way round.
    """
    from mlmon_dagster.store.upkeep.backup import restore_backup, verify_backup

    if verify:
        click.echo(f"{source}: {verify_backup(source).text()}; every checksum is right")
        return
    summary = restore_backup(project.store, source, project.models_folder)
    click.echo(f"Restored {summary.text()}.\nNext: mlmon model list")
