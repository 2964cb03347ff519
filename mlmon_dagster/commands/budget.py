"""``mlmon budget``: what is left of the budgets of objectives, and who spent them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import examples, period, spec_of
from mlmon_dagster.commands.tables import output_options, print_table, print_text
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.pipeline.asked import complete_period, window_range
from mlmon_dagster.spec.text_table import text_table

if TYPE_CHECKING:
    from mlmon_dagster.pipeline.asking.budget import Spent
    from mlmon_dagster.project import Project

_MOST = 5  # values of a slice that are shown


@click.command(epilog=examples("mlmon budget checkout", "mlmon budget checkout --to 2024-03-20"))
@click.argument("model")
@period
@output_options()
@click.option(
    "--rules",
    "as_rules",
    is_flag=True,
    help="Write rules for Prometheus instead, of objectives with counters.",
)
@click.pass_obj
def budget(
    project: Project,
    /,
    model: str,
    first: dt.date | None,
    last: dt.date | None,
    format_: str,
    output: Path | None,
    *,
    as_rules: bool,
) -> None:
    """Say what is left of the budgets of MODEL's objectives, and which slices spent them.

    Of `monitors.service.objectives`; by default over each one's own time, up to the newest complete
    window. Exit code 1 if a budget is overspent.
    """
    from mlmon_dagster.pipeline.asking.budget import spent_in

    spec = spec_of(project, model)
    objectives = spec.monitors.service.objectives
    if not objectives:
        raise ConfigError(
            f"{model} declares no objectives; write monitors.service.objectives, such as "
            "[{name: answered, good: \"status = 'ok'\", target: 0.995}]."
        )
    if as_rules:
        from mlmon_dagster.report.objective_rules import objective_rules

        if all(objective.counters is None for objective in objectives):
            raise ConfigError(
                f"No objective of {model} names its counters in Prometheus; write counters: "
                "{requests: 'http_requests_total{job=\"churn\"}', "
                'bad: \'http_requests_total{job="churn",code=~"5.."}\'}.'
            )
        print_text(objective_rules(spec).removesuffix("\n"), output)
        return
    known = complete_period(spec, first, last, project.now())
    overspent, texts, rows = False, list[str](), list[dict[str, object]]()
    for objective in objectives:
        since = known[0].start if first else known[-1].end - objective.over
        windows = tuple(window for window in known if window.start >= since)
        spent = spent_in(project.store, spec, windows, objective)
        overspent |= spent.left < 0
        texts.append(f"{model}, {window_range(windows)}: {_describe(spent)}")
        if spent.bad:
            texts.append(_table(spent))
        rows += _list_spenders(spent)
    print_table("\n".join(texts), rows, format_, output)
    if overspent:
        raise click.exceptions.Exit(1)


def _list_spenders(spent: Spent) -> list[dict[str, object]]:
    """Return an objective as a whole, and the slices that spent its budget."""
    name, allowed = spent.objective.name, spent.n * (1 - spent.objective.target)
    found: list[tuple[str, str, int, int]] = [("all", "all", spent.n, spent.bad)]
    found += [(r["key"], r["value"], r["n"], r["bad"]) for r in spent.by.to_dict("records")]
    return [
        {
            "objective": name, "slice_key": key, "slice_value": value, "requests": n, "bad": bad,
            "of_budget": bad / allowed if allowed else None,
        }
        for key, value, n, bad in found
    ]  # fmt: skip


def _describe(spent: Spent) -> str:
    objective = spent.objective
    promise = f"{objective.name}, {objective.target:.6g} of the requests: {objective.good}."
    if not spent.n:
        return f"{promise} No request came."
    allowed = spent.n * (1 - objective.target)
    left = f"{spent.left:.1%} is left" if spent.left >= 0 else f"spent {1 - spent.left:.3g} times"
    return (
        f"{promise} {spent.bad:,} of {spent.n:,} were not good, {allowed:,.4g} may be: "
        f"of the budget {left}."
    )


def _table(spent: Spent) -> str:
    lines = []
    for key, rows in spent.by.groupby("key", sort=False):
        shown, rest = rows.head(_MOST), rows.iloc[_MOST:]
        named = [(f"{key}={r['value']}", r["n"], r["bad"]) for r in shown.to_dict("records")]
        if len(rest):
            named.append((f"{key}: {len(rest)} more", rest["n"].sum(), rest["bad"].sum()))
        lines += [_line(spent, *one) for one in named]
    head = ("who", "requests", "not good", "rate", "of the budget", "times its share")
    return text_table(head, lines, right=head[1:])


def _line(spent: Spent, name: str, n: int, bad: int) -> tuple[str, ...]:
    allowed = spent.n * (1 - spent.objective.target)
    times = bad / spent.bad / (n / spent.n)
    return name, f"{n:,}", f"{bad:,}", f"{bad / n:.3%}", f"{bad / allowed:.1%}", f"{times:.2g}"
