"""``mlmon trace``: why a metric changed, in plain sentences and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from mlmon_dagster.commands.options import (
    examples,
    of_model,
    output_options,
    period,
    print_answer,
    print_text,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.monitors.wording import named
from mlmon_dagster.report.trace import alike, explained, newest_mature, score_explained, searched
from mlmon_dagster.spec import ModelSpec, Window, windows_between
from mlmon_dagster.spec.metric_registry import METRICS, of_outcome
from mlmon_dagster.spec.names import ALL, did_you_mean
from mlmon_dagster.spec.scalars import printable
from mlmon_dagster.spec.tasks import metric_problem, outcomes_of
from mlmon_dagster.tables.asked import Days, against_asked, period_asked, window_range
from mlmon_dagster.tables.rendering import text_table
from mlmon_dagster.tables.table import Answer, Table
from mlmon_dagster.trace.chance import find_doubt
from mlmon_dagster.trace.sentences import describe_score, describe_trace, signed, value

if TYPE_CHECKING:
    from mlmon_dagster.project import Project
    from mlmon_dagster.trace.alike import Alike
    from mlmon_dagster.trace.explain import Explained
    from mlmon_dagster.trace.raw_score import RawScore

_WORST = 8  # slices of a key, and windows, in a table


@click.command(
    epilog=examples(
        "mlmon trace flight_delay --from 2013-04-01 --to 2013-04-30",
        "mlmon trace churn --window 2024-03-12 --against 2024-03-11",
    )
)
@of_model
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
@output_options()
def trace(
    project: Project,
    spec: ModelSpec,
    metric: str | None,
    window: str | None,
    days: Days,
    against: str,
    is_searched: bool,
    format_: str,
    output: Path | None,
) -> None:
    """Say why a metric of MODEL changed: at most a dozen sentences, then tables.

    By default of the newest windows with mature ground truth, against the baseline. Everything but
    the search is read from stored profiles.
    """
    asked = _metric(spec, metric)
    windows = period_asked(project, spec, window, days) or _newest(project, spec)
    start, end = windows[0].start, windows[-1].end
    name = windows[0].key if len(windows) == 1 else window_range(windows)
    other, other_name = against_asked(project, spec, against)
    found = explained(project.store, spec, asked, (start, end), other)
    scored = score_explained(project.store, spec, (start, end), other)
    if found is None and scored is not None and format_ == "text":
        print_text("\n\n".join([describe_score(scored), *_score_table(scored)]), output)
        return
    if found is None:
        raise ConfigError(
            f"{asked} of {name} cannot be compared with {other_name}: one of them has no ground "
            "truth, or nothing that it is computed from was logged."
        )
    slices = searched(project.store, spec, (start, end)) if is_searched else None
    outcome = asked.partition("/")[2]
    groups = alike(project.store, spec, (start, end), outcome) if is_searched else []
    lines = describe_trace(spec, found, name, other_name, slices, scored, groups)
    if format_ == "json":
        print_text(json.dumps(_plain(found, lines, scored, groups), default=str), output)
        return
    tables = [*(_score_table(scored) if scored else ()), *_tables(spec, found)]
    text = "\n\n".join(["\n".join(map(printable, lines)), *tables])
    print_answer(Answer(Table("slices", ()), found.slices, text=text), format_, output)


def _metric(spec: ModelSpec, metric: str | None) -> str:
    if metric is None:
        declared = (*spec.monitors.performance, *spec.monitors.business)
        monitored = [m.series for m in declared if m.shift is None]
        if not monitored:
            raise ConfigError(f"{spec.model} monitors no performance; say --metric.")
        return monitored[0]
    name, _, outcome = metric.partition("/")
    if name not in METRICS:
        raise ConfigError(
            f"--metric {metric}: no such metric{did_you_mean(metric, METRICS) or '.'}"
        )
    if problem := metric_problem(spec, name):
        raise ConfigError(f"--metric: {problem}")
    known = outcomes_of(spec, name)
    if outcome and outcome not in known:
        hint = did_you_mean(outcome, known) or "."
        raise ConfigError(f"--metric {metric}: no such outcome{hint}")
    return metric if outcome or not known else of_outcome(name, known[0])


def _newest(project: Project, spec: ModelSpec) -> tuple[Window, ...]:
    """Return the newest windows with mature ground truth."""
    mature = newest_mature(project.store, spec)
    if mature is None:
        raise ConfigError(f"No window of {spec.model} has mature ground truth yet.")
    return tuple(windows_between(spec.time, *mature))


def _tables(spec: ModelSpec, found: Explained) -> list[str]:
    """Return tables of slices and windows, the most harmful first, with a title each."""
    tables = []
    parts = found.slices[found.slices["slice_key"] != ALL]
    for key, frame in parts.groupby("slice_key", sort=False):
        effects = found.effects(str(key))
        margins = found.margins(str(key))
        rows = []
        for row in frame.to_dict("records"):
            name = row["slice_value"]
            effect = effects.get(name, math.nan)
            cells = (
                name,
                f"{int(row['n']):,}",
                value(row["value"]),
                value(row["baseline_value"]),
                signed(row["change"]),
                f"{signed(row['change_lower'])} to {signed(row['change_upper'])}",
                signed(effect),
                value(margins.get(name, math.nan)),
                row["note"] or ("real" if row["is_real"] else ""),
            )
            rows.append((effect, cells))
        by_harm = sorted(rows, key=lambda r: -r[0] / found.change if found.change else 0.0)
        worst = by_harm[:_WORST]
        head = (
            str(key), "n", "now", "before", "change", "95 %", "effect", "give or take", "note",
        )  # fmt: skip
        table = text_table(head, [cells for _, cells in worst], right=head[1:8])
        tables.append(f"{_slices_title(found, str(key))}\n{table}")
    if len(found.windows) > 1:
        zone = ZoneInfo(spec.time.zone)
        shown = found.windows.head(_WORST)
        starts = shown["window_start"].dt.tz_convert(zone)
        lines = [
            (start.strftime("%Y-%m-%d %H:%M"), f"{int(n):,}", signed(effect))
            for start, n, effect in zip(starts, shown["n"], shown["effect"], strict=True)
        ]
        table = text_table(("window", "n", "adds"), lines, right=("n", "adds"))
        title = f"{named(found.metric)} of all windows less that without each:"
        tables.append(f"{title}\n{table}")
    return tables


def _slices_title(found: Explained, key: str) -> str:
    """Say what the numbers of a table of slices are."""
    title = f"{named(found.metric)} by {key}, and the part of the difference in each value"
    if find_doubt(found):
        title += " (numbers only: the difference may be chance)"
    return f"{title}:"


def _score_table(found: RawScore) -> list[str]:
    """Return a table of what each feature did to the mean raw score, the largest first."""
    split = found.split
    order = sorted(range(len(split.parts)), key=lambda i: -abs(split.effects[i]))
    rows = [
        (split.parts[i], signed(float(split.effects[i])), value(float(split.margins[i])))
        for i in order
    ]
    head = ("feature", "effect on the score", "give or take")
    return [text_table(head, rows, right=head[1:])] if rows else []


def _plain(
    found: Explained, lines: list[str], scored: RawScore | None, groups: Sequence[Alike]
) -> dict[str, object]:
    """Return a trace as plain values."""
    return {
        "said": lines,
        "metric": found.metric,
        "now": vars(found.now),
        "then": vars(found.then),
        "change": found.change,
        "margin": found.margin,
        "p_value": found.p_value,
        "may_be_chance": bool(find_doubt(found)),
        "slices": json.loads(found.slices.to_json(orient="records")),
        "values": {key: split.named for key, split in found.values.items()},
        "decisions": {m: decided.split.named for m, decided in found.decisions.items()},
        "scores": found.scores.split.named if found.scores and found.scores.split else None,
        "windows": json.loads(found.windows.to_json(orient="records", date_format="iso")),
        "without_worst": found.without,
        "alike": [
            {
                "column": group.column,
                "share": group.share,
                "usual": group.usual,
                "excess": group.found.excess,
                "margin": group.found.margin,
                "p_value": group.found.p_value,
                "typical": group.typical,
                "words": group.words,
            }
            for group in groups
        ],
        "raw_score": None
        if scored is None
        else {
            "name": scored.name,
            "now": scored.now,
            "then": scored.then,
            "change": scored.change,
            "effects": scored.split.named,
            "rest": scored.rest,
            "problem": scored.problem,
        },
    }
