"""``mlmon backup``, ``mlmon restore`` and ``mlmon downgrade``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.errors import ConfigError

if TYPE_CHECKING:
    from mlmon_dagster.defs.resources import Project


@click.command(epilog="Example: mlmon backup backups/2026-11-24.tar.gz")
@click.argument("target", type=click.Path(path_type=Path))
@click.pass_obj
def backup(project: Project, target: Path) -> None:
    """Copy state, tables and declarations to TARGET, a new folder or .tar.gz file.

    Everything may go on running meanwhile. Dagster's own history is not in it: it is told again
    with mlmon model rebuild-history.
    """
    from mlmon_dagster.store.backup import make_backup, verify_backup

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
    from mlmon_dagster.store.backup import restore_backup, verify_backup

    if verify:
        click.echo(f"{source}: {verify_backup(source).text()}; every checksum is right")
        return
    summary = restore_backup(project.store, source, project.models_folder)
    click.echo(f"Restored {summary.text()}.\nNext: mlmon model list")


@click.command(epilog="Example: mlmon downgrade --to 0001 --backup before.tar.gz")
@click.option("--to", "version", required=True, metavar="VERSION", help="Such as 0001.")
@click.option(
    "--backup",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    help="Where a backup is put first: what the older version has no room for is lost.",
)
@click.pass_obj
def downgrade(project: Project, version: str, target: Path) -> None:
    """Take the state database back to an older VERSION, before installing an older program.

    Upgrading needs no command: a newer program upgrades when it first opens the store. Stop all
    processes first, since this program upgrades again as soon as one of them opens it.
    """
    from mlmon_dagster.store.backup import make_backup
    from mlmon_dagster.store.state import HEAD, migrate_to

    if version >= HEAD:
        raise ConfigError(f"The state database has version {HEAD}; --to must be an older one.")
    summary = make_backup(project.store, target, project.now(), project.models_folder)
    migrate_to(project.store.state, version)
    click.echo(
        f"{target}: {summary.text()}\nThe state database has version {version} now. "
        "Install the mlmon-dagster that knows it before anything opens the store."
    )
