"""``mlmon labels``: which rows people should label, and their answers taken back."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import Group, examples, file_option, of_model, period
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.evaluations import find_truth
from mlmon_dagster.tables.asked import ALWAYS, Days, complete_period
from mlmon_dagster.tables.rendering import csv_text, restore_cell

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec

_USUAL = 7  # windows
_HIDDEN = "(personal; --show)"


@click.group(cls=Group)
def labels() -> None:
    """Ask people for labels, and take their answers.

    A few labels say how all rows are: the rows are drawn with a known chance, by what a judge or
    the score says of them.
    """


@labels.command(epilog=examples("mlmon labels draw assistant --n 50 --output to_label.csv"))
@of_model
@click.option("--n", default=50, show_default=True, type=click.IntRange(1, 100_000))
@period
@click.option("--seed", default=0, show_default=True, help="Another one draws other rows.")
@click.option("--show", multiple=True, metavar="COLUMN", help="Show personal values of a column.")
@file_option("--output", "A CSV file with empty cells for the answers.", required=True)
def draw(
    project: Project,
    spec: ModelSpec,
    n: int,
    days: Days,
    seed: int,
    show: tuple[str, ...],
    output: Path,
) -> None:
    """Draw rows of MODEL that have no ground truth, for people to label.

    By default of the newest seven windows. What a judge says of them is left out, so that nobody is
    led by it.
    """
    from mlmon_dagster.pipeline.labels import draw_rows

    if not spec.has_actuals:
        raise ConfigError(f"{spec.model} declares no ground truth (source.actuals).")
    unknown = [name for name in show if name not in spec.features]
    if unknown:
        raise ConfigError(f"--show {unknown[0]}: {spec.model} has no such feature.")
    windows = complete_period(spec, days, project.now())
    windows = windows[-_USUAL:] if days == ALWAYS else windows
    rows = draw_rows(project.store, spec, windows, n, seed)
    if not rows.num_rows:
        raise ConfigError(f"No row of {spec.model} without ground truth is in these windows.")
    output.write_text(csv_text(_list_rows(spec, rows, show)), encoding="utf-8", newline="")
    click.echo(
        f"{output}: {rows.num_rows} rows. Fill in {_answer(spec)}, then: "
        f"mlmon labels take {spec.model} {output}"
    )


@labels.command(epilog=examples("mlmon labels take assistant to_label.csv"))
@of_model
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def take(project: Project, spec: ModelSpec, file: Path) -> None:
    """Take the labels of FILE into the landing folder of MODEL; rows without one are left out."""
    from mlmon_dagster.collect.landing import prepare, targets_of
    from mlmon_dagster.landing_file import encode_row, publish

    target = targets_of([spec], project.folder)[0].get((spec.model, "actuals"))
    if target is None:
        raise ConfigError(
            f"{spec.model} has no landing folder of ground truth that takes JSON Lines. Add the "
            "answers to where its ground truth comes from."
        )
    found = list(_read_answers(spec, file, project.now()))
    if not found:
        raise ConfigError(f"{file} has no answer in column '{_answer(spec)}'.")
    lines = [encode_row(row, lambda _name, _value: None) for row in found]
    prepare([target])
    digest = hashlib.sha256(b"".join(lines)).hexdigest()[:16]
    publish(target.folder, f"labels-{digest}.jsonl", lines)
    click.echo(
        f"{len(found)} labels are in {target.below}. They count from: mlmon run {spec.model}"
    )


def _answer(spec: ModelSpec) -> str:
    """Return the column that people fill in."""
    return "label" if spec.evaluations else str(spec.columns.actual)


def _list_rows(spec: ModelSpec, rows: pa.Table, shown: tuple[str, ...]) -> pd.DataFrame:
    """Return the lines of the file: what people see of a row, then the empty cells."""
    import pandas as pd

    truth, own = find_truth(spec.evaluations), spec.columns.declared()
    found = rows.to_pandas()
    lines = {
        own["prediction_id"]: found["prediction_id"],
        own["event_time"]: [moment.isoformat() for moment in found["event_time"]],
    }
    for name, feature in spec.logged_features.items():
        if feature.type == "embedding":
            continue  # nobody reads numbers
        values = found[name].astype(object)
        is_hidden = feature.pii and name not in shown
        lines[name] = values.where(values.isna(), _HIDDEN) if is_hidden else values
    lines["chance"] = found["chance"]
    if truth is not None:
        lines |= {"name": spec.evaluations[truth].from_ or truth, "by": "human"}
    at = own["actual_time"] if spec.columns.actual_time else "labelled_at"
    return pd.DataFrame(lines | {_answer(spec): "", at: ""})


def _read_answers(spec: ModelSpec, path: Path, now: dt.datetime) -> Iterator[dict[str, object]]:
    """Yield the answered rows as ingest reads them; one without a time was given now.

    Raises:
        ConfigError: If the file lacks a column, or an answer says nothing; with its line.
    """
    own, answer = spec.columns.declared(), _answer(spec)
    key, at = own["prediction_id"], own.get("actual_time")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = {key, answer} - {*(reader.fieldnames or ())}
        if missing:
            raise ConfigError(f"{path} has no column {', '.join(sorted(missing))}.")
        by_name = {one.from_ or name: one for name, one in spec.evaluations.items()}
        for row in reader:
            said = (row[answer] or "").strip()
            if not said:
                continue
            if (known := by_name.get(row.get("name") or "")) is not None:
                try:
                    known.read(said)
                except ValueError:
                    raise ConfigError(
                        f"{path}, line {reader.line_num}: '{said}' is not {known.expected}."
                    ) from None
            kept: dict[str, object] = {key: restore_cell(row[key]), answer: said}
            kept |= {name: row[name] for name in ("name", "by") if spec.evaluations}
            if at is not None:
                kept[at] = row.get(at) or now.isoformat()
            yield kept
