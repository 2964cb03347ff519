"""Commands that answer with one table of `tables/`: what each asks, and of which windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlmon_dagster.commands.options import (
    as_of,
    examples,
    models_of,
    of_model,
    open_output,
    output_options,
    period,
    prints_table,
    spec_of,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.names import ALL, counted, listed
from mlmon_dagster.tables.asked import ALWAYS, Days, complete_period
from mlmon_dagster.tables.metrics import (
    describe_empty_metrics,
    describe_weighted,
    describe_widths,
    drop_empty_metrics,
    metrics_by_days,
    pick_newest_windows,
    refuse_unknown_metrics,
    render_metrics,
)
from mlmon_dagster.tables.standing import FAMILIES_OF_MODEL, STATUS, list_models, standing_of
from mlmon_dagster.tables.table import Answer, AnyAnswer

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec


@click.command(epilog=examples("mlmon status", "mlmon status flight_delay"))
@click.argument("model", required=False)
@click.option("--last", default=14, show_default=True, help="Of MODEL: so many windows.")
@prints_table
@click.pass_obj
def status(project: Project, model: str | None, last: int) -> AnyAnswer:
    """Show how all models are, worst first; or of MODEL its families, alerts and ground truth.

    Exit code 1 if a model does not load.
    """
    if model is not None:
        return _ask_status(project, spec_of(project, model), last)
    found = models_of(project)
    rows = list_models(project, found.specs, found.broken)
    below = "Why a model does not load: mlmon validate" if found.broken else ""
    return Answer(STATUS, rows, below=below, exit_code=1 if found.broken else 0)


def _ask_status(project: Project, spec: ModelSpec, last: int) -> AnyAnswer:
    from mlmon_dagster.tables.alerts import list_alerts, pick_standing, tabulate_alerts
    from mlmon_dagster.tables.rendering import render_text
    from mlmon_dagster.tables.stored import WINDOWS, list_windows

    (whole,) = list_models(project, [spec])
    parts = [f"{spec.model}: {whole.status}, newest window {whole.window}", ""]
    if alerts := pick_standing(list_alerts(project.store, spec.model)):
        parts += [render_text(tabulate_alerts([spec], alerts)), ""]
    families = standing_of(project.store, spec, project.now())
    parts += [render_text(Answer(FAMILIES_OF_MODEL, families)), "", *_describe_truth(project, spec)]
    windows = list_windows(project, spec, last)
    parts += [render_text(Answer(WINDOWS, windows)), *_list_leftovers(project, spec)]
    return Answer(WINDOWS, windows, text="\n".join(parts))


def _describe_truth(project: Project, spec: ModelSpec) -> list[str]:
    """Say what the model is compared with, and when its ground truth comes."""
    from mlmon_dagster.profiles.arrivals import describe_arrivals
    from mlmon_dagster.profiles.baseline import no_baseline
    from mlmon_dagster.store import baselines

    lines = []
    if baselines.baselines_in_force(project.store.state, spec).newest is None:
        lines.append(str(no_baseline(spec)))
    if spec.has_actuals:
        lines.append(f"ground truth: {describe_arrivals(project.store.state, spec)}")
    else:
        lines.append("no ground truth is declared: performance is not measured")
    return lines


def _list_leftovers(project: Project, spec: ModelSpec) -> list[str]:
    """Name what was set aside, and ground truth that found no prediction."""
    from mlmon_dagster.ingest.spans import set_aside
    from mlmon_dagster.store.upkeep.maintenance import count_unmatched

    lines = [
        f"spans set aside: {path} ({why}); see mlmon doctor"
        for path, why in set_aside(project.folder, spec.model).items()
    ]
    unmatched = count_unmatched(project.store, spec)
    if unmatched.n_waiting or unmatched.n_expired:
        lines.append(
            f"ground truth without a prediction: {counted(unmatched.n_waiting, 'row')} waiting, "
            f"{counted(unmatched.n_expired, 'row')} expired"
        )
    return lines


@click.command(epilog=examples("mlmon budget checkout", "mlmon budget checkout --to 2024-03-20"))
@of_model
@period
@prints_table
def budget(project: Project, spec: ModelSpec, days: Days) -> AnyAnswer:
    """Say what is left of the budgets of MODEL's objectives, and which slices spent them.

    Of `monitors.service.objectives`; by default over each one's own time, up to the newest complete
    window. Exit code 1 if a budget is overspent.
    """
    from mlmon_dagster.tables.budgets import ask_budgets

    if not spec.monitors.service.objectives:
        raise ConfigError(
            f"{spec.model} declares no objectives; write monitors.service.objectives, such as "
            "[{name: answered, good: \"status = 'ok'\", target: 0.995}]."
        )
    known = complete_period(spec, days, project.now())
    return ask_budgets(project.store, spec, known, is_given=days.first is not None)


@click.command(
    epilog=examples(
        "mlmon compare churn --from 2024-03-01",
        "mlmon compare churn --version 3 --other 4 --share 0.1",
    )
)
@of_model
@period
@click.option("--version", "one", help="The version in service. [default: all of production]")
@click.option("--other", help="The version that would replace it. [default: the shadow]")
@click.option("--share", type=float, help="The share of the requests that it was to get.")
@click.option("--margin", default=0.01, show_default=True, help="What counts as not worse.")
@prints_table
def compare(
    project: Project,
    spec: ModelSpec,
    days: Days,
    one: str | None,
    other: str | None,
    share: float | None,
    margin: float,
) -> AnyAnswer:
    """Say whether another version of MODEL is better, not worse, or worse; or what it takes.

    Without versions: production against what the dataset `shadow` said of the same predictions,
    row by row. With them: the rows that each answered. Intervals hold at all looks at once, so
    that one may look every day and stop when it is decided.
    """
    from mlmon_dagster.tables.comparisons import ask_comparison

    if (one is None) != (other is None):
        raise ConfigError("Give both --version and --other, or none of them.")
    windows = complete_period(spec, days, project.now())
    versions = (one, other) if one is not None and other is not None else None
    return ask_comparison(project.store, spec, windows, versions, share, margin)


@click.command(epilog=examples("mlmon skew churn --from 2024-03-01 --dataset training"))
@of_model
@period
@click.option("--dataset", default="training", show_default=True, help="Where the others are.")
@prints_table
def skew(project: Project, spec: ModelSpec, days: Days, dataset: str) -> AnyAnswer:
    """Compare MODEL's features as they were served with the same predictions from elsewhere.

    A join that shifts rows leaves every distribution as it was; only the same prediction, by its
    id, shows it.
    """
    from mlmon_dagster.tables.comparisons import ask_skew

    return ask_skew(project.store, spec, complete_period(spec, days, project.now()), dataset)


@click.command(
    epilog=examples(
        "mlmon effect checkout --from 2024-03-01",
        "mlmon effect checkout --cause latency_ms --per 100 --within device,hour",
    )
)
@of_model
@period
@click.option("--cause", help="A logged number. [default: those of `effects`, or latency_ms]")
@click.option("--per", type=float, help="Units of the cause to speak of. [default: 100]")
@click.option("--within", help="Covariates to compare within, such as device,hour.")
@click.option("--of", "outcome", help="An outcome, or actual. [default: the first outcome]")
@prints_table
def effect(
    project: Project,
    spec: ModelSpec,
    days: Days,
    cause: str | None,
    per: float | None,
    within: str | None,
    outcome: str | None,
) -> AnyAnswer:
    """Say what 100 ms of latency, or another cause, goes with in the outcome of MODEL's requests.

    Rows are compared within a window and within the covariates of `effects` or --within. That is
    an association. For an experiment that the spec declares, it also prints the difference of the
    arms, which is an effect. Exit code 0.
    """
    from mlmon_dagster.tables.effects import ask_effects, asked_of

    columns = None if within is None else tuple(filter(None, within.split(",")))
    asked = asked_of(spec, cause, per, columns, outcome)
    windows = complete_period(spec, days, project.now())
    return ask_effects(project.store, spec, windows, asked)


@click.command(
    epilog=examples("mlmon metrics flight_delay --metric roc_auc --granularity month --format csv")
)
@of_model
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
@click.option(
    "--slice",
    "slice_",
    metavar="KEY=VALUE",
    help="Of one slice instead of the whole. Metrics that are not stored are measured from the "
    "profiles.",
)
@click.option(
    "--by",
    metavar="KEY",
    help="Of every stored slice of a key, such as origin; all for the whole and every stored "
    "slice.",
)
@click.option(
    "--granularity",
    type=click.Choice(["hour", "day", "week", "month"]),
    help="Longer windows are merged from the stored profiles. [default: the model's]",
)
@period
@as_of
@output_options()
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=400,
    show_default=True,
    help="Rows of a table: the newest windows that fit; 0 for all. Other formats have all.",
)
def metrics(
    project: Project,
    spec: ModelSpec,
    format_: str,
    output: Path | None,
    limit: int,
    by: str | None,
    **wanted: Any,
) -> None:
    """Show the newest metrics of MODEL as a whole, or those of a past moment, bit for bit.

    Slices are asked for with --by or --slice.
    """
    from mlmon_dagster.profiles.in_force import baselines_shared

    wanted["slice_"] = _choose_slices(wanted["slice_"], by)
    is_empty = True
    with open_output(output) as say, baselines_shared():
        if format_ == "text":
            is_empty = not _show_metrics(project, spec, limit, wanted, say)
        else:
            for frame in metrics_by_days(project, spec, **wanted):
                say(render_metrics(frame, format_, with_head=is_empty))
                is_empty = False
    if is_empty:
        refuse_unknown_metrics(project, spec, wanted["metric"], wanted["column"])
        click.echo(f"mlmon: {_explain_no_metrics(spec, wanted)}", err=True)


def _choose_slices(slice_: str | None, by: str | None) -> str | None:
    """Return the slices that were asked for, as `query_metrics` takes them."""
    if slice_ is not None and by is not None:
        raise ConfigError("Give --slice for one slice or --by for every slice of a key, not both.")
    if slice_ is not None:
        return slice_
    if by == ALL:
        return None
    return ALL if by is None else by


def _explain_no_metrics(spec: ModelSpec, wanted: Mapping[str, Any]) -> str:
    """Say what to do where no metric was found: ask for more, or compute some."""
    is_of_slices = wanted["slice_"] not in (None, ALL)
    is_filtered = is_of_slices or any(wanted[name] for name in ("metric", "column", "as_of"))
    if is_filtered or wanted["days"] != ALWAYS:
        known = listed([",".join(key) for key in spec.slices])
        slices = f" Slices are of {known}." if is_of_slices and known else ""
        return f"no such metrics; see which there are without filters.{slices}"
    return f"no window of {spec.model} is computed yet: mlmon run {spec.model}"


def _show_metrics(
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
    shown = pick_newest_windows(frame, limit) if is_cut else frame
    known = shown if wanted["metric"] else drop_empty_metrics(shown)
    say(render_metrics(known, "text"))
    dropped = describe_empty_metrics(shown, known)
    for said in (*dropped, *describe_widths(known), *describe_weighted(known)):
        click.echo(f"mlmon: {said}", err=True)
    if is_cut:
        first, last = shown["window"].iloc[0], shown["window"].iloc[-1]
        windows = last if first == last else f"{first} to {last}"
        click.echo(
            f"mlmon: these are {len(shown):,} rows of {windows}, the newest; there are more. "
            "--metric and --column say which, --from and --to when; --limit 0 shows all, "
            "--format csv or json goes on with all.",
            err=True,
        )
    return len(shown)
