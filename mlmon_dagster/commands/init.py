"""``mlmon init``: a spec from data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.errors import ConfigError

if TYPE_CHECKING:
    from mlmon_dagster.project import Project


@click.command(epilog="Example: mlmon init landing/churn/predictions/*.parquet --model churn")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--actuals",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file of ground truth; repeat for more. [default: told from FILES by their columns]",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="COLUMN=ROLE",
    help="What a column is, such as yhat=prediction; repeat for more. [default: guessed]",
)
@click.option("--model", help="The model's name. [default: from the name of the file]")
@click.option("--zone", help="Time zone of the windows. [default: that of the times, else UTC]")
@click.option("--owner", default="team:ml", show_default=True, help="Who is told of alerts.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to; - for the terminal. [default: models/MODEL.yaml of the project]",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.pass_obj
def init(
    project: Project,
    files: tuple[Path, ...],
    actuals: tuple[Path, ...],
    roles: tuple[str, ...],
    model: str | None,
    zone: str | None,
    owner: str,
    out: Path | None,
    force: bool,
) -> None:
    """Write the spec of a model from FILES of its events, and of their ground truth.

    Roles, types, categories and personal columns are guessed from names and values; each guess
    is written with its reason. Parquet, CSV and JSON Lines are read. Ground truth is used from the
    same files, or from files of its own, which are told by their columns.
    """
    from mlmon_dagster.scaffold.notes import notes_of
    from mlmon_dagster.scaffold.proposal import model_name, propose

    name = model or model_name(files[0])
    target = out or project.models_folder / f"{name}.yaml"
    if str(target) != "-" and target.exists() and not force:
        raise ConfigError(f"{target} exists. Use --force to replace it, or --out for another file.")
    given = dict(map(_role_and_column, roles))
    text = propose(project.folder, files, name, zone, owner, project.now(), actuals, given)
    if str(target) == "-":
        click.echo(text, nl=False)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    for note in notes_of(text):
        click.echo(f"Decide: {note}")
    click.echo(f"Wrote {target}. Read the comments, then: mlmon validate && mlmon run {name}")


def _role_and_column(text: str) -> tuple[str, str]:
    """Read ``COLUMN=ROLE``."""
    from mlmon_dagster.scaffold.roles import ROLES
    from mlmon_dagster.spec.names import did_you_mean, listed

    column, is_there, role = text.rpartition("=")
    if not is_there or not column:
        raise ConfigError(f"--role {text}: write COLUMN=ROLE, such as --role yhat=prediction.")
    if role not in ROLES:
        hint = did_you_mean(role, ROLES) or "."
        raise ConfigError(f"--role {text}: there is no role {role!r}{hint} Roles: {listed(ROLES)}")
    return role, column
