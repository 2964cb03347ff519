"""``mlmon backup``, ``mlmon restore``, ``mlmon upgrade`` and ``mlmon downgrade``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.errors import ConfigError

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

    The way back up is mlmon upgrade, or whatever opens the store. Stop all
    processes first, since this program upgrades again as soon as one of them opens it.
    """
    from mlmon_dagster.store.baselines.baseline_files import move_into_rows
    from mlmon_dagster.store.state.database import HEAD, migrate_to
    from mlmon_dagster.store.upkeep.backup import make_backup

    if version >= HEAD:
        raise ConfigError(f"The state database has version {HEAD}; --to must be an older one.")
    summary = make_backup(project.store, target, project.now(), project.models_folder)
    move_into_rows(project.store)
    migrate_to(project.store.state, version)
    click.echo(
        f"{target}: {summary.text()}\nThe state database has version {version} now. "
        "Install the mlmon-dagster that knows it before anything opens the store."
    )


@click.command(epilog="Example: mlmon upgrade --backup backups/before-upgrade.db")
@click.option(
    "--backup",
    "target",
    type=click.Path(path_type=Path),
    help="SQLite: where a copy of the state database is put first.",
)
@click.option("--dumped", is_flag=True, help="PostgreSQL: pg_dump has made a copy already.")
@click.pass_obj
def upgrade(project: Project, target: Path | None, dumped: bool) -> None:
    """Bring the state database to this program's version, after making a copy of it.

    Run it first after installing a newer mlmon-dagster, with all processes stopped: whatever else
    opens the store upgrades it too, without a copy.
    """
    from sqlalchemy.engine import URL

    from mlmon_dagster.store.state.database import (
        HEAD,
        copy_before_upgrade,
        engine_of,
        normalise_url,
        version_of,
    )

    if project.db_url is not None:
        url = normalise_url(project.db_url)
    else:
        is_remote = "://" in project.store_root
        home = project.state_folder / "work" if is_remote else Path(project.store_root)
        url = URL.create("sqlite", database=str(home / "state.db"))
    if url.drivername == "sqlite":
        if target is None:
            raise ConfigError("Where to copy the state first: --backup FILE.db")
        found = copy_before_upgrade(url, target)
        copied = f"Copied to {target}. " if found else ""
    else:
        if not dumped:
            raise ConfigError(
                "The state is in PostgreSQL. Make a copy with pg_dump first, then say --dumped."
            )
        found, copied = version_of(engine_of(url)), ""
    after = version_of(project.store.state)
    click.echo(f"{copied}Schema version {found or 'none'} before, {after} now (newest: {HEAD}).")
