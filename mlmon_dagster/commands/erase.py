"""``mlmon erase``: remove predictions for good, and prove that they are gone."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import examples, of_model
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.sources import FileSource
from mlmon_dagster.store.erasure import erase as engine
from mlmon_dagster.store.erasure.places import Places, find_places, find_traces

if TYPE_CHECKING:
    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec

_PLACES = {
    "predictions": "rows of the log of predictions",
    "actuals": "rows of the log of actuals",
    "records": "inference records",
    "dead_letter": "notes of refused rows",
    "refused_rows": "refused rows, kept to be read again",
}


@click.command(
    epilog=examples("mlmon erase flight_delay --prediction-id UA-1545-2013-01-01 --dry-run")
)
@of_model
@click.option(
    "--prediction-id", "ids", multiple=True, metavar="ID", help="Erase this one; may be repeated."
)
@click.option(
    "--ids-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Erase these; one id per line.",
)
@click.option(
    "--where",
    metavar="PREDICATE",
    help="Erase those whose record meets it, such as \"origin = 'JFK' and temp is null\".",
)
@click.option("--dataset", default="all", show_default=True, help="Only of this dataset.")
@click.option("--recompute", is_flag=True, help="Compute all numbers of their windows again.")
@click.option("--author", help="Who asks. [default: the user of this machine]")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--prove", is_flag=True, help="Only search the whole store for the ids given.")
@click.option("--list", "is_listing", is_flag=True, help="List the erasures so far.")
@click.option("--resume", "is_resuming", is_flag=True, help="Finish what a crash interrupted.")
def erase(
    project: Project,
    spec: ModelSpec,
    ids: tuple[str, ...],
    ids_file: Path | None,
    where: str | None,
    dataset: str,
    recompute: bool,
    author: str | None,
    dry_run: bool,
    yes: bool,
    prove: bool,
    is_listing: bool,
    is_resuming: bool,
) -> None:
    """Remove predictions of MODEL for good: from the newest tables and from every older version.

    They are refused if they arrive again. Landing files are yours: they are listed, not touched.
    Numbers about few rows are computed again by the next run. Search afterwards with --prove.
    """
    model, store = spec.model, project.store
    if is_listing:
        click.echo(_render_receipts(project, spec))
        return
    if is_resuming:
        done = engine.resume_erasures(store, spec, project.now())
        click.echo(
            f"{model}: finished {', '.join(done)}" if done else f"{model}: nothing to finish"
        )
        return
    chosen = _chosen(project, spec, ids, ids_file, where, dataset)
    if not chosen:
        click.echo(f"{model}: no prediction meets this; nothing to erase")
        return
    if prove:
        is_proven = _prove(project, chosen)
        click.echo(_tell_of_tables(spec), nl=spec.source.predictions.in_place)
        sys.exit(0 if is_proven else 1)
    places = find_places(store, spec, chosen, dataset)
    click.echo(_render_places(spec, places, len(chosen), dataset))
    if dry_run:
        return
    if not yes:
        click.confirm("Erase them for good?", abort=True)
    receipt = engine.erase(
        store, spec, chosen, now=project.now(), dataset=dataset, recompute=recompute,
        author=author or pwd.getpwuid(os.getuid()).pw_name,
        chosen_by="where" if where else "prediction_id", places=places,
    )  # fmt: skip
    where_else = " in this store" if spec.source.predictions.in_place else ""
    click.echo(f"{model}: erased{where_else}, receipt {receipt}")


def _chosen(
    project: Project,
    spec: ModelSpec,
    ids: tuple[str, ...],
    ids_file: Path | None,
    where: str | None,
    dataset: str,
) -> list[str]:
    from mlmon_dagster.spec import parse_predicate, predicate_columns
    from mlmon_dagster.spec.baseline import DATASETS
    from mlmon_dagster.spec.predicate import to_sql

    if dataset != "all" and dataset not in DATASETS:
        raise ConfigError(f"--dataset {dataset!r}: expected all or one of {', '.join(DATASETS)}.")
    listed = list(ids)
    if ids_file is not None:
        listed += [line.strip() for line in ids_file.read_text("utf-8").splitlines()]
    listed = [id_ for id_ in dict.fromkeys(listed) if id_]
    if bool(listed) == bool(where):
        raise ConfigError(
            "Say whose predictions: either --prediction-id ID and --ids-file FILE, or --where "
            "PREDICATE."
        )
    if where is None:
        return listed
    predicate = parse_predicate(where, predicate_columns(spec), spec.time.zone)
    return engine.find_ids(project.store, spec, to_sql(predicate), dataset)


def _render_places(spec: ModelSpec, places: Places, n_ids: int, dataset: str) -> str:
    scope = "in every dataset" if dataset == "all" else f"in {dataset}"
    lines = [f"{spec.model}: {n_ids:,} prediction ids {scope}"]
    lines += [f"  {places.rows[name]:>9,}  {text}" for name, text in _PLACES.items()]
    lines.append(f"  {len(places.copies):>9,}  private copies of files (deleted whole)")
    lines.append(f"  {places.n_windows:>9,}  windows with such rows")
    lines += [f"  copy: {name}" for name in places.copies[:20]]
    if places.landing:
        lines.append(
            "Landing files that they came from; these are yours, and are left as they are:"
        )
        lines += [f"  {name}" for name in places.landing]
    if spec.source.predictions.in_place:
        lines.append(_tell_of_tables(spec))
    lines.append("Rows as of a past moment can not be read any more for dates that held them then.")
    return "\n".join(lines)


def _tell_of_tables(spec: ModelSpec) -> str:
    """Say where the rows of a model in place still are; "" of any other model."""
    if not spec.source.predictions.in_place:
        return ""
    sources = (spec.source.predictions, spec.source.actuals)
    labels = [one.label for one in sources if one and not isinstance(one, FileSource)]
    return (
        f"The rows themselves stay in {' and '.join(labels)}, which are yours and are not searched "
        "here: delete them there, with all older versions and copies."
    )


def _render_receipts(project: Project, spec: ModelSpec) -> str:
    from mlmon_dagster.store.erasure.erase import load_receipts

    rows = load_receipts(project.store.state, spec.model)
    if not rows:
        return f"{spec.model}: nothing was ever erased"
    lines = []
    for row in rows:
        state = "finished" if row["finished_at"] else "INTERRUPTED, finish it with --resume"
        found = ", ".join(f"{n:,} {name}" for name, n in row["found"].items() if n)
        lines.append(
            f"{row['receipt']}  {row['requested_at']:%Y-%m-%d %H:%M}  {row['author']}  "
            f"{row['n_ids']:,} ids by {row['chosen_by']} in {row['dataset']}: "
            f"{found or 'no rows'}; {state}"
        )
    return "\n".join(lines)


def _prove(project: Project, ids: list[str]) -> bool:
    proof = find_traces(project.store, ids)
    for trace in proof.traces:
        click.echo(f"  found in {trace}")
    for name in proof.unread:
        click.echo(f"  cannot be read to its end, and may hold one: {name}")
    where = f"{proof.n_files:,} files and {proof.n_tables} tables"
    n_found = len(proof.traces) + len(proof.unread)
    click.echo(f"searched {where}: {n_found} with a trace of {len(ids):,} ids")
    if proof.n_common:
        click.echo(
            f"{proof.n_common:,} of the ids are numbers or short, and stand anywhere as sizes and "
            "counts: they were looked for where ids stand, and as words of copies and refused rows"
        )
    return not n_found
