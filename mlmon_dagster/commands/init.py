"""``mlmon init``: a spec from data; ``mlmon schema``: what editors know of specs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import WRITE_TO, examples, file_option, print_text
from mlmon_dagster.errors import ConfigError

if TYPE_CHECKING:
    from mlmon_dagster.project import Project


_WIDTH = 120  # of a table of keys
SCHEMA_FILE = "spec.schema.json"  # beside the specs
# The first line of a spec; the extension of VS Code and the plugins of other editors read it.
EDITOR_LINE = f"# yaml-language-server: $schema={SCHEMA_FILE}"


@click.command(epilog=examples("mlmon init landing/churn/predictions/*.parquet --model churn"))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--actuals",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file of ground truth; repeat for more. [default: those of FILES with its columns]",
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
@click.option("--owner", default="team:ml", show_default=True, help="Who is alerted.")
@file_option(
    "--output", "Where to; - for the terminal. [default: models/MODEL.yaml of the project]"
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
    output: Path | None,
    force: bool,
) -> None:
    """Write the spec of a model from FILES of its events, and of their ground truth.

    Roles, types, categories and personal columns are guessed from names and values; each guess
    is written with its reason. Parquet, CSV and JSON Lines are read. Ground truth is used from the
    same files, or from files of its own, which are recognised by their columns.
    """
    from mlmon_dagster.scaffold import notes_of
    from mlmon_dagster.scaffold.proposal import model_name, propose

    name = model or model_name(files[0])
    target = output or project.models_folder / f"{name}.yaml"
    if str(target) != "-" and target.exists() and not force:
        raise ConfigError(
            f"{target} exists. Use --force to replace it, or --output for another file."
        )
    given = dict(map(_role_and_column, roles))
    text = propose(project.folder, files, name, zone, owner, project.now(), actuals, given)
    if str(target) == "-":
        click.echo(text, nl=False)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.parent == project.models_folder:
        (target.parent / SCHEMA_FILE).write_text(f"{render_schema()}\n", encoding="utf-8")
        text = f"{EDITOR_LINE}\n{text}"
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


@click.command(
    epilog=examples("mlmon schema --output models/spec.schema.json", "mlmon schema --format text")
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["json", "text"]),
    default="json",
    show_default=True,
    help="json: for editors. text: every key, its default and meaning, for people.",
)
@file_option("--output", WRITE_TO)
def schema(format_: str, output: Path | None) -> None:
    """Print the JSON schema of specs, with which editors complete and check them.

    A spec that mlmon init wrote names it in its first line. mlmon validate also checks what needs
    the whole spec, such as whether a column exists.
    """
    print_text(render_schema() if format_ == "json" else render_keys(), output)


def render_keys() -> str:
    """Return every key of a spec with its default and meaning, part by part."""
    from mlmon_dagster.spec.files.meanings import explain_keys, read_meanings, write_plain
    from mlmon_dagster.tables.rendering import text_table

    parts = []
    for part in read_meanings():
        rows = [[write_plain(cell) for cell in key] for key in explain_keys(part)]
        table = text_table(("KEY", "DEFAULT", "MEANING"), rows, width=_WIDTH)
        parts.append(f"{part.replace(' ', ', with ')}\n\n{table}")
    return "\n\n\n".join(parts)


def render_schema() -> str:
    """Return the schema as JSON, keys as they are written in YAML."""
    from mlmon_dagster.spec.files.meanings import describe_schema

    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Spec of a model, mlmon_dagster",
    }
    return json.dumps({**describe_schema(), **head}, indent=1)
