"""``mlmon metrics``: the newest metrics as text, CSV, JSON or OpenMetrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlmon_dagster.commands.options import (
    as_of,
    examples,
    open_output,
    output_options,
    period,
    spec_of,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.names import ALL, counted
from mlmon_dagster.tables.asked import (
    metrics_by_days,
    moments_of,
    query_metrics,
    refuse_unknown_metrics,
)
from mlmon_dagster.tables.rendering import csv_text, json_lines, text_table

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec

SHOWN = [
    "window",
    "slice_key",
    "slice_value",
    "column_name",
    "metric",
    "value",
    "lower",
    "upper",
    "n",
    "reason",
    "method_version",
]


@click.command(
    epilog=examples("mlmon metrics flight_delay --metric roc_auc --granularity month --format csv")
)
@click.argument("model")
@click.option("--metric", multiple=True, help="Only this metric; may be repeated.")
@click.option("--column", multiple=True, help="Only this column; may be repeated.")
@click.option(
    "--dataset",
    default=PRODUCTION,
    show_default=True,
    help="production, shadow or canary; of longer windows, production.",
)
@click.option(
    "--model-version",
    default=ALL,
    show_default=True,
    help="One version alone, of windows in which several served.",
)
@click.option("--slice", "slice_", metavar="KEY=VALUE", help="One slice. [default: everything]")
@click.option(
    "--granularity",
    type=click.Choice(["hour", "day", "week", "month"]),
    help="Longer windows are merged from the stored profiles. [default: the model's]",
)
@period
@as_of
@output_options("openmetrics")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=400,
    show_default=True,
    help="Rows of a table: the newest windows that fit; 0 for all. Other formats have all.",
)
@click.pass_obj
def metrics(
    project: Project,
    /,
    model: str,
    format_: str,
    output: Path | None,
    limit: int,
    **wanted: Any,
) -> None:
    """Show the newest metrics of MODEL, or those of a past moment, bit for bit.

    The format openmetrics has numbers and verdicts, to backfill Prometheus.
    """
    spec = spec_of(project, model)
    if format_ == "openmetrics" and (wanted["granularity"] or wanted["as_of"]):
        raise ConfigError("openmetrics is the newest history, in the model's own windows.")
    if format_ == "openmetrics":
        from mlmon_dagster.tables.openmetrics import history

        frame = query_metrics(project, spec, **wanted)
        with open_output(output) as say:
            for piece in history(frame, _verdicts_beside(project, spec, frame, wanted)):
                say(piece.decode().removesuffix("\n"))
        return
    is_empty = True
    with open_output(output) as say:
        if format_ == "text":
            is_empty = not _show_table(project, spec, limit, wanted, say)
        else:
            for frame in metrics_by_days(project, spec, **wanted):
                say(render(frame, format_, with_head=is_empty))
                is_empty = False
    if is_empty:
        refuse_unknown_metrics(project, spec, wanted["metric"], wanted["column"])
        click.echo(f"mlmon: {_why_none(spec, wanted)}", err=True)


def _why_none(spec: ModelSpec, wanted: Mapping[str, Any]) -> str:
    """Say what to do where no metric was found: ask for more, or compute some."""
    if any(wanted[name] for name in ("metric", "column", "slice_", "first", "last", "as_of")):
        return "no such metrics; see which there are without filters."
    return f"no window of {spec.model} is computed yet: mlmon run {spec.model}"


def _show_table(
    project: Project,
    spec: ModelSpec,
    limit: int,
    wanted: dict[str, Any],
    say: Callable[[str], None],
) -> int:
    """Print the newest windows that fit, oldest first, and what was left out; return the rows."""
    import pandas as pd

    parts: list[pd.DataFrame] = []
    older = metrics_by_days(project, spec, newest_first=True, **wanted)
    n, is_cut = 0, False
    for part in older:
        parts.insert(0, part)
        n += len(part)
        if is_cut := 0 < limit < n:
            break
    if not parts:
        return 0
    frame = pd.concat(parts, ignore_index=True)
    shown = _newest(frame, limit) if is_cut else frame
    say(render(shown, "text"))
    _say_widths(shown)
    _say_weighted(shown)
    if is_cut:
        first, last = shown["window"].iloc[0], shown["window"].iloc[-1]
        windows = last if first == last else f"{first} to {last}"
        click.echo(
            f"mlmon: these are {len(shown):,} rows of {windows}, the newest; there are more. "
            "--metric, --column and --slice say which, --from and --to when; --limit 0 shows all, "
            "--format csv or json goes on with all.",
            err=True,
        )
    return len(shown)


def _say_widths(shown: pd.DataFrame) -> None:
    """Say which bands are wider than the baseline asks for, of the newest window."""
    if "band_factor" not in shown:
        return
    from mlmon_dagster.monitors.wording import width_text

    for metric, part in shown[shown["band_factor"] > 1].groupby("metric"):
        newest = part.iloc[-1]
        said = width_text(newest["band_factor"], int(newest["band_windows"]))
        click.echo(f"mlmon: {metric}, {newest['window']}: {said}.", err=True)


def _say_weighted(shown: pd.DataFrame) -> None:
    """Say which metrics are of all predictions though ground truth is of some."""
    from mlmon_dagster.metrics.rectified import METHOD

    weighted = shown[shown["method_version"].str.startswith(METHOD)]
    if len(weighted):
        metrics = ", ".join(sorted(weighted["metric"].unique()))
        n = weighted["window"].nunique()
        click.echo(
            f"mlmon: {metrics}: in {counted(n, 'window')} ground truth covers less than 95 % of "
            "the predictions, and values are weighted back to all of them (post-stratified).",
            err=True,
        )


def _newest(frame: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Return the newest windows with at most so many rows; of one that has more, its first rows."""
    sizes = frame.groupby("window_start").size()[::-1].cumsum()
    fitting = sizes.index[sizes <= limit]
    if len(fitting):
        whole: pd.DataFrame = frame[frame["window_start"] >= fitting[-1]]
        return whole
    newest: pd.DataFrame = frame[frame["window_start"] == frame["window_start"].iloc[-1]]
    # What is true of the whole before what is true of its parts.
    whole_first = newest.sort_values("slice_key", key=lambda key: key.ne(ALL), kind="stable")
    return whole_first.head(limit)


def _verdicts_beside(
    project: Project, spec: ModelSpec, frame: pd.DataFrame, wanted: dict[str, Any]
) -> pd.DataFrame:
    """Return the verdicts on the metrics that were asked for."""
    from mlmon_dagster.store.state import monitor_results

    start, end = moments_of(spec, wanted["first"], wanted["last"])
    found = monitor_results.newest(project.store.state, spec.model, start, end)
    found = found[found["dataset"] == wanted["dataset"]]
    if wanted["metric"]:
        found = found[found["metric"].isin(wanted["metric"])]
    if wanted["column"]:
        found = found[found["column_name"].isin(wanted["column"])]
    if wanted["slice_"]:
        parts = frame[["slice_key", "slice_value"]].drop_duplicates()
        found = found.merge(parts, on=["slice_key", "slice_value"])
    verdicts: pd.DataFrame = found
    return verdicts


def render(frame: pd.DataFrame, format_: str, *, with_head: bool = True) -> str:
    """Return metrics as a table for people, CSV (safe to open in a spreadsheet) or JSON lines."""
    if format_ == "text":
        return _table(frame)
    shown = frame[SHOWN]
    if format_ == "csv":
        return csv_text(shown, with_head=with_head)
    return json_lines(shown)


def _table(frame: pd.DataFrame) -> str:
    numeric = ("value", "lower", "upper", "n")
    lines = [
        (
            row["window"],
            "all" if row["slice_key"] == ALL else f"{row['slice_key']}={row['slice_value']}",
            row["column_name"],
            row["metric"],
            *(_number(row[name]) for name in ("value", "lower", "upper")),
            f"{int(row['n']):,}",
            row["reason"],
        )
        for row in frame.to_dict("records")
    ]
    head = ("window", "slice", "column", "metric", *numeric, "reason")
    return text_table(head, lines, right=numeric)


def _number(value: float) -> str:
    return "-" if value != value else f"{value:,.4f}"
