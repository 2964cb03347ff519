"""``mlmon trace``: why a metric changed, in plain sentences and tables."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from mlmon_dagster.commands.options import complete_period, moments_of, period, spec_of
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec, PerformanceMetric, Window
from mlmon_dagster.spec.metric_registry import METRICS
from mlmon_dagster.spec.names import ALL, did_you_mean
from mlmon_dagster.spec.tasks import metric_problem
from mlmon_dagster.spec.text_table import text_table

if TYPE_CHECKING:
    from mlmon_dagster.project import Project
    from mlmon_dagster.report.trace import Against
    from mlmon_dagster.trace.explain import Explained

_WORST = 8  # slices of a key, and windows, in a table
_VERSION = "version:"


@click.command(
    epilog="Examples: mlmon trace flight_delay --from 2013-04-01 --to 2013-04-30   "
    "mlmon trace churn --window 2024-03-12 --against 2024-03-11"
)
@click.argument("model")
@click.option("--metric", help="Which metric. [default: the first that is monitored]")
@click.option("--window", metavar="KEY", help="One window, such as 2013-04-22.")
@period
@click.option(
    "--against",
    default="baseline",
    show_default=True,
    metavar="WHAT",
    help="baseline; a window; DAY..DAY, both included; or version:V, the rows of a version.",
)
@click.option(
    "--search/--no-search",
    "is_searched",
    default=True,
    help="Search the rows for slices by all features; it reads them.  [default: search]",
)
@click.option("--format", "format_", type=click.Choice(["text", "json", "csv"]), default="text")
@click.pass_obj
def trace(
    project: Project,
    /,
    model: str,
    metric: str | None,
    window: str | None,
    first: dt.date | None,
    last: dt.date | None,
    against: str,
    is_searched: bool,
    format_: str,
) -> None:
    """Say why a metric of MODEL changed: at most a dozen sentences, then tables.

    By default of the newest windows with mature ground truth, against the baseline. Everything but
    the search is read from stored profiles.
    """
    from mlmon_dagster.report.trace import explained, searched
    from mlmon_dagster.trace.tell import tell

    spec = spec_of(project, model)
    asked = _metric(spec, metric)
    (start, end), name = _period(project, spec, window, first, last)
    other, other_name = _against(project, spec, against)
    found = explained(project.store, spec, asked, (start, end), other)
    if found is None:
        raise ConfigError(
            f"{asked} of {name} cannot be compared with {other_name}: one of them has no ground "
            "truth, or nothing that it is computed from was logged."
        )
    slices = searched(project.store, spec, (start, end)) if is_searched else None
    lines = tell(spec, found, name, other_name, slices)
    if format_ == "json":
        click.echo(json.dumps(_plain(found, lines), default=str))
    elif format_ == "csv":
        click.echo(found.slices.to_csv(index=False, lineterminator="\n").rstrip("\n"))
    else:
        click.echo("\n".join(lines))
        for text in _tables(spec, found):
            click.echo(f"\n{text}")


def _metric(spec: ModelSpec, metric: str | None) -> PerformanceMetric:
    if metric is None:
        declared = (*spec.monitors.performance, *spec.monitors.business)
        monitored = [str(m.metric) for m in declared if m.shift is None]
        if not monitored:
            raise ConfigError(f"{spec.model} monitors no performance; say --metric.")
        return monitored[0]
    if metric not in METRICS:
        raise ConfigError(
            f"--metric {metric}: no such metric{did_you_mean(metric, METRICS) or '.'}"
        )
    if problem := metric_problem(spec, metric):
        raise ConfigError(f"--metric: {problem}")
    return metric


def _period(
    project: Project,
    spec: ModelSpec,
    window: str | None,
    first: dt.date | None,
    last: dt.date | None,
) -> tuple[tuple[dt.datetime, dt.datetime], str]:
    """Return the windows in question, and what they are called."""
    if window is not None and (first is not None or last is not None):
        raise ConfigError("Either --window, or --from and --to.")
    if window is not None:
        one = _window(project, spec, window)
        return (one.start, one.end), one.key
    if first is not None or last is not None:
        windows = complete_period(spec, first, last, project.now())
        return (windows[0].start, windows[-1].end), _named(windows[0], windows[-1])
    from mlmon_dagster.report.trace import newest_mature

    mature = newest_mature(project.store, spec)
    if mature is None:
        raise ConfigError(f"No window of {spec.model} has mature ground truth yet.")
    windows = tuple(
        w for w in complete_period(spec, None, None, project.now())
        if mature[0] <= w.start < mature[1]
    )  # fmt: skip
    return mature, _named(windows[0], windows[-1])


def _named(first: Window, last: Window) -> str:
    return first.key if first == last else f"{first.key} to {last.key}"


def _window(project: Project, spec: ModelSpec, key: str) -> Window:
    complete = complete_period(spec, None, None, project.now())
    found = next((w for w in complete if w.key == key), None)
    if found is None:
        raise ConfigError(
            f"{spec.model} has no complete window {key!r}; they are called as {complete[0].key} to "
            f"{complete[-1].key}."
        )
    return found


def _against(project: Project, spec: ModelSpec, text: str) -> tuple[Against, str]:
    """Return what the windows are compared with, and what it is called."""
    if text == "baseline":
        return text, "the baseline"
    if text.startswith(_VERSION):
        if spec.columns.model_version is None:
            raise ConfigError("--against version:V needs columns.model_version; declare it.")
        version = text.removeprefix(_VERSION)
        return version, f"version {version}"
    first, separator, last = text.partition("..")
    if not separator:
        one = _window(project, spec, text)
        return (one.start, one.end), one.key
    try:
        days = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    except ValueError as error:
        raise ConfigError(
            f"--against {text}: expected baseline, a window, DAY..DAY or version:V."
        ) from error
    start, end = moments_of(spec, *days)
    assert start is not None
    assert end is not None
    return (start, end), f"{first} to {last}"


def _tables(spec: ModelSpec, found: Explained) -> list[str]:
    """Return tables of slices and windows, the most harmful first."""
    from mlmon_dagster.trace.tell import signed, value

    tables = []
    parts = found.slices[found.slices["slice_key"] != ALL]
    for key, frame in parts.groupby("slice_key", sort=False):
        own = found.values.get(str(key))
        effects = dict(zip(own.parts, own.effects.tolist(), strict=True)) if own else {}
        rows = []
        for row in frame.to_dict("records"):
            name = row["slice_value"]
            effect = effects.get(name, math.nan) if own else float(row["effect"])
            rows.append(
                (
                    effect,
                    (
                        name, f"{int(row['n']):,}", value(row["value"]),
                        value(row["baseline_value"]), signed(row["change"]), signed(effect),
                        row["note"] or ("real" if row["is_real"] else ""),
                    ),
                )
            )  # fmt: skip
        by_harm = sorted(rows, key=lambda r: -r[0] / found.change if found.change else 0.0)
        worst = by_harm[:_WORST]
        head = (str(key), "n", "now", "before", "change", "effect", "note")
        tables.append(text_table(head, [cells for _, cells in worst], right=head[1:6]))
    if len(found.windows) > 1:
        zone = ZoneInfo(spec.time.zone)
        shown = found.windows.head(_WORST)
        starts = shown["window_start"].dt.tz_convert(zone)
        lines = [
            (start.strftime("%Y-%m-%d %H:%M"), f"{int(n):,}", signed(effect))
            for start, n, effect in zip(starts, shown["n"], shown["effect"], strict=True)
        ]
        tables.append(text_table(("window", "n", "adds"), lines, right=("n", "adds")))
    return tables


def _plain(found: Explained, lines: list[str]) -> dict[str, Any]:
    """Return a trace as plain values."""

    def split(of: Any) -> dict[str, float]:
        return dict(zip(of.parts, of.effects.tolist(), strict=True))

    return {
        "said": lines,
        "metric": found.metric,
        "now": vars(found.now),
        "then": vars(found.then),
        "change": found.change,
        "margin": found.margin,
        "p_value": found.p_value,
        "slices": json.loads(found.slices.to_json(orient="records")),
        "values": {key: split(values) for key, values in found.values.items()},
        "pairs": found.pairs,
        "decisions": {m: split(decided.split) for m, decided in found.decisions.items()},
        "scores": split(found.scores.split) if found.scores and found.scores.split else None,
        "windows": json.loads(found.windows.to_json(orient="records", date_format="iso")),
        "without_worst": found.without,
    }
