"""``mlmon rows``: the rows behind an alert, a window or a slice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from mlmon_dagster.alerts.handling import find_alert
from mlmon_dagster.commands.options import (
    examples,
    models_of,
    output_options,
    period,
    print_text,
    refuse_past,
    spec_of,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import (
    ModelSpec,
    Predicate,
    Window,
    parse_predicate,
    predicate_columns,
    window_containing,
)
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.names import counted
from mlmon_dagster.spec.predicate import columns_of
from mlmon_dagster.store.state import window_state
from mlmon_dagster.tables.alerts import name_monitor
from mlmon_dagster.tables.asked import ALWAYS, Days, complete_period, period_asked, window_range
from mlmon_dagster.tables.rendering import render, text_table
from mlmon_dagster.tables.rows import LATENCY, behind, column_texts, rows_of, together, trace_of
from mlmon_dagster.tables.table import Answer, Table

if TYPE_CHECKING:
    import pyarrow as pa

    from mlmon_dagster.project import Project
    from mlmon_dagster.store.state.sql import Row

_IN_TABLE = 12  # columns; a terminal has no room for more


class _Wanted(NamedTuple):
    """What is asked for: the rows of some windows, of a version, that a predicate picks."""

    spec: ModelSpec
    windows: tuple[Window, ...]
    picked: Predicate | None
    version: int | None
    said: str
    time: str | None = None  # what an alert on times is about
    column: str = ""  # what an alert on a column is about

    def first_columns(self) -> list[str]:
        """Return what rows are asked for by, which a reader looks at first."""
        return [self.column, *sorted(columns_of(self.picked) if self.picked else ())]


@click.command(
    epilog=examples(
        "mlmon rows 3fa2c1",
        "mlmon rows flight_delay --window 2013-04-22 --where \"origin = 'LGA'\"",
    )
)
@click.argument("what", metavar="ALERT|MODEL")
@click.option("--window", metavar="KEY", help="One window, such as 2013-04-22.")
@period
@click.option("--where", metavar="PREDICATE", help="Only these rows: origin = 'JFK' and temp > 80.")
@click.option("--trace", metavar="ID", help="The events, spans and logs of one trace.")
@click.option("--slowest", is_flag=True, help="Those that took longest first, with their traces.")
@click.option("--worst", default=50, show_default=True, help="At most so many, the worst first.")
@click.option("--dataset", default=PRODUCTION, show_default=True)
@click.option("--newest", is_flag=True, help="Of an alert: as the rows are now, not as they were.")
@click.option("--show", multiple=True, metavar="COLUMN", help="Show personal values of a column.")
@output_options("parquet")
@click.pass_obj
def rows(
    project: Project,
    /,
    what: str,
    window: str | None,
    days: Days,
    where: str | None,
    trace: str | None,
    slowest: bool,
    worst: int,
    dataset: str,
    newest: bool,
    show: tuple[str, ...],
    format_: str,
    output: Path | None,
) -> None:
    """Show the rows behind an alert (its id, see `mlmon alerts list`), or of a model.

    The rows behind an alert are those of its last failing window and of its slice or column, as
    they were when it was judged. Values of personal columns are hidden unless they are named. For
    an alert on refused rows or files it prints the refused rows with their file and reason.
    """
    if window is None and days == ALWAYS and _say_refusals(project, what, worst):
        return
    wanted = _wanted(project, what, window, days, where, newest)
    refuse_past(project, wanted.spec)
    if slowest and wanted.time is None and wanted.spec.columns.latency_ms is None:
        raise ConfigError(f"--slowest: {wanted.spec.model} logs no latency (columns.latency_ms).")
    time = wanted.time or (LATENCY if slowest else None)
    if trace is not None:
        wanted = _of_trace(project, wanted.spec, trace)
    unknown = [name for name in show if name not in wanted.spec.features]
    if unknown:
        raise ConfigError(f"--show {unknown[0]}: {wanted.spec.model} has no such feature.")
    if format_ == "parquet" and output is None:
        raise ConfigError("--format parquet is not for a terminal; say where to: --output FILE.")
    found = rows_of(
        project.store,
        wanted.spec,
        wanted.windows,
        wanted.picked,
        limit=worst,
        dataset=dataset,
        version=wanted.version,
        shown=show,
        slowest=time,
    )
    if format_ == "parquet" and output is not None:
        _write_parquet(found.table, output)
    else:
        print_text(render(_answer(wanted, found.table), format_), output)
    order = "worst" if time is None else "slowest"
    more = f", the {order} {found.table.num_rows:,}" if found.table.num_rows < found.n else ""
    picked = f" where {found.predicate}" if found.predicate else ""
    click.echo(f"{wanted.said}{picked}: {found.n:,} rows{more}.", err=True)
    of_files = [
        f"{role} is {column}"
        for role, column in wanted.spec.columns.declared().items()
        if role != column and role in found.table.column_names
    ]
    if of_files:
        click.echo(f"In your files, {', '.join(of_files)}.", err=True)
    if wanted.spec.spans is not None and wanted.spec.spans.link is not None and trace is None:
        click.echo(f"A trace: {wanted.spec.spans.link}", err=True)
    if found.hidden and found.n:
        click.echo(f"Personal values are hidden: {', '.join(found.hidden)} (--show).", err=True)


def _wanted(
    project: Project,
    what: str,
    window: str | None,
    days: Days,
    where: str | None,
    newest: bool,
) -> _Wanted:
    names = {spec.model for spec in models_of(project).specs}
    if what in names:
        spec = spec_of(project, what)
        windows = period_asked(project, spec, window, days)
        windows = windows or complete_period(spec, ALWAYS, project.now())[-1:]
        return _Wanted(spec, windows, _predicate(spec, where), None, _said(spec, windows))
    if window is not None or days != ALWAYS:
        raise ConfigError(f"No model {what!r}; an alert says itself which window it is about.")
    return _of_alert(project, what, where, newest)


def _say_refusals(project: Project, what: str, most: int) -> bool:
    """Print what an alert on refused rows or files is about; return whether it is such an alert."""
    if what in {spec.model for spec in models_of(project).specs}:
        return False
    from mlmon_dagster.families.reported_files import REFUSED, refusals_in

    alert: Row = find_alert(project.store, what)
    if alert["monitor"] != REFUSED:
        return False
    spec = spec_of(project, str(alert["model"]))
    refuse_past(project, spec)
    window = behind(project.store, spec, alert).window
    found = refusals_in(project.store, spec, window)
    click.echo("\n".join(found[:most]))
    more = f", {most:,} are shown (--worst)" if len(found) > most else ""
    about = f"{spec.model}, {window.key}, {name_monitor(alert['monitor'])}"
    told = f"{about}: {counted(len(found), 'refusal')}{more}"
    click.echo(f"{told}. Once the cause is repaired: mlmon ingest {spec.model} --retry", err=True)
    return True


def _of_trace(project: Project, spec: ModelSpec, trace_id: str) -> _Wanted:
    """Show the spans and logs of a trace; return what picks its events."""
    found = trace_of(project.store, spec, trace_id)
    shown = ("start_time", "kind", "service", "name", "duration_ms", "status", "message")
    texts = column_texts(spec, found.rows.select(shown), digits=6)
    if found.rows.num_rows:
        click.echo(
            text_table(list(shown), [list(row) for row in zip(*texts.values(), strict=True)])
        )
    link = f" {found.link}" if found.link else ""
    click.echo(f"trace {trace_id}: {found.rows.num_rows} spans and logs.{link}", err=True)
    known = window_state.load(project.store.state, spec.model)
    windows = tuple(window_containing(spec.time, start) for start in sorted(known))
    return _Wanted(spec, windows, found.events, None, spec.model)


def _predicate(spec: ModelSpec, where: str | None) -> Predicate | None:
    if where is None:
        return None
    return parse_predicate(where, predicate_columns(spec), spec.time.zone)


def _said(spec: ModelSpec, windows: tuple[Window, ...]) -> str:
    return f"{spec.model}, {windows[0].key if len(windows) == 1 else window_range(windows)}"


def _of_alert(project: Project, short_id: str, where: str | None, newest: bool) -> _Wanted:
    alert: Row = find_alert(project.store, short_id)
    spec = spec_of(project, str(alert["model"]))
    verdict = behind(project.store, spec, alert)
    picked = together(verdict.picked, _predicate(spec, where))
    said = f"{spec.model}, {verdict.window.key}, {name_monitor(alert['monitor'])}"
    if verdict.version is None and not newest:
        click.echo("The rows that were judged are not kept any more; as they are now:", err=True)
    version = None if newest else verdict.version
    column = str(alert["column_name"])
    return _Wanted(spec, (verdict.window,), picked, version, said, verdict.time, column)


def _answer(wanted: _Wanted, table: pa.Table) -> Answer[dict[str, str]]:
    """Return rows as texts: people see those columns that have room, and that hold anything.

    What the rows were asked for by comes first after the id, also where it holds nothing.
    """
    columns = column_texts(wanted.spec, table, digits=6)
    first = ["prediction_id", *wanted.first_columns()]
    names = list(dict.fromkeys([*(name for name in first if name in columns), *columns]))
    values = [list(row) for row in zip(*(columns[name] for name in names), strict=True)]
    filled = [i for i, name in enumerate(names) if name in first or any(r[i] for r in values)]
    kept = filled[:_IN_TABLE]
    text = text_table([names[i] for i in kept], [[row[i] for i in kept] for row in values])
    if left := [names[i] for i in filled[_IN_TABLE:]]:
        text += f"\nNot shown: {', '.join(left)} (--format csv)."
    rows = [dict(zip(names, row, strict=True)) for row in values]
    return Answer(Table("rows", ()), rows, text=text)


def _write_parquet(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    from mlmon_dagster.store.places.location import whole_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft:
        pq.write_table(table, draft)
