"""``mlmon compare`` and ``mlmon skew``: two versions, and two sources of the same features."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import examples, period, spec_of
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.pipeline.asked import complete_period, window_range
from mlmon_dagster.spec.text_table import text_table

if TYPE_CHECKING:
    from mlmon_dagster.metrics.versions import Comparison
    from mlmon_dagster.project import Project


@click.command(
    epilog=examples(
        "mlmon compare churn --from 2024-03-01",
        "mlmon compare churn --version 3 --other 4 --share 0.1",
    )
)
@click.argument("model")
@period
@click.option("--version", "one", help="The version in service. [default: all of production]")
@click.option("--other", help="The version that would replace it. [default: the shadow]")
@click.option("--share", type=float, help="The share of the requests that it was to get.")
@click.option("--margin", default=0.01, show_default=True, help="What counts as not worse.")
@click.pass_obj
def compare(
    project: Project,
    /,
    model: str,
    first: dt.date | None,
    last: dt.date | None,
    one: str | None,
    other: str | None,
    share: float | None,
    margin: float,
) -> None:
    """Say whether another version of MODEL is better, not worse, or worse; or what it takes.

    Without versions: production against what the dataset `shadow` said of the same predictions,
    row by row. With them: the rows that each answered. Intervals hold at all looks at once, so
    that one may look every day and stop when it is decided.
    """
    from mlmon_dagster.families.compare import LABELS, compare_versions

    if (one is None) != (other is None):
        raise ConfigError("Give both --version and --other, or none of them.")
    spec = spec_of(project, model)
    windows = complete_period(spec, first, last, project.now())
    versions = (one, other) if one is not None and other is not None else None
    found = compare_versions(project.store, spec, windows, versions, share, margin)
    how = "the same predictions" if found.how == "shadow" else "predictions of their own"
    click.echo(
        f"{model}, {window_range(windows)}: {found.other} ({found.n_other:,} rows) against "
        f"{found.one} ({found.n_one:,}), on {how}."
    )
    if found.reason:
        raise ConfigError(f"Not comparable: {found.reason}.")
    lines = [_line(LABELS[metric], comparison) for metric, comparison in found.metrics.items()]
    head = ("what", "difference", "from", "to", "windows", "verdict")
    click.echo(text_table(head, lines, right=head[1:5]))
    few = [c.windows for c in found.metrics.values() if c.windows < 8]
    if few:
        click.echo(
            f"Of {few[0]} windows: rows count as independent, which they are not if a day's share "
            "its weather. Eight windows say how far they stray."
        )


def _line(name: str, found: Comparison) -> tuple[str, ...]:
    said = found.verdict if not found.more else f"undecided: about {found.more:,} more rows"
    ends = (found.difference, found.lower, found.upper)
    return (name, *(f"{end:+.4f}" for end in ends), f"{found.windows:,}", said)


@click.command(epilog=examples("mlmon skew churn --from 2024-03-01 --dataset training"))
@click.argument("model")
@period
@click.option("--dataset", default="training", show_default=True, help="Where the others are.")
@click.pass_obj
def skew(
    project: Project, /, model: str, first: dt.date | None, last: dt.date | None, dataset: str
) -> None:
    """Compare MODEL's features as they were served with the same predictions from elsewhere.

    A join that shifts rows leaves every distribution as it was; only the same prediction, by its
    id, tells.
    """
    from mlmon_dagster.families.compare import skew_of

    spec = spec_of(project, model)
    windows = complete_period(spec, first, last, project.now())
    found = skew_of(project.store, spec, windows, dataset)
    if not found:
        raise ConfigError(
            f"No prediction of {model} is in both production and {dataset}; land the features as "
            f"computed offline with dataset: {dataset} and the same prediction_id."
        )
    lines = []
    for name, one in found.items():
        by = "" if one.by != one.by else f" of {one.by:.4g}"
        lines.append(
            (
                name,
                f"{one.n:,}",
                f"{one.rate:.2%}",
                f"{one.lower:.2%} to {one.upper:.2%}",
                f"{one.kind}{by}",
                ", ".join(one.examples),
            )
        )
    head = ("feature", "n", "differ", "95 %", "how", "such as")
    click.echo(text_table(head, lines, right=("n", "differ")))
