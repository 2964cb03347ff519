"""The tables that compare: two versions of a model, and two sources of the same features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.families.compare import LABELS, compare_versions, skew_of
from mlmon_dagster.metrics.versions import Comparison, Mismatch
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.names import counted
from mlmon_dagster.store import Store
from mlmon_dagster.tables.asked import window_range
from mlmon_dagster.tables.table import Answer, Column, Table

_FEW = 8  # windows, of which fewer do not say how far they stray


@dataclass(frozen=True)
class Difference:
    """A metric of one version against another's.

    Attributes:
        metric: Which, as `LABELS` has them.
        found: The difference.
    """

    metric: str
    found: Comparison

    def fields(self) -> dict[str, object]:
        """Return what programs get."""
        return {"metric": self.metric, **asdict(self.found)}


def _say_verdict(row: Difference) -> str:
    found = row.found
    return f"undecided: about {found.more:,} more rows" if found.more else found.verdict


COMPARISON: Table[Difference] = Table(
    "comparison",
    (
        Column("what", lambda row: LABELS[row.metric]),
        Column("difference", lambda row: row.found.difference, "{:+.3f}", is_number=True),
        Column("from", lambda row: row.found.lower, "{:+.3f}", is_number=True),
        Column("to", lambda row: row.found.upper, "{:+.3f}", is_number=True),
        Column("windows", lambda row: row.found.windows, "{:,}", is_number=True),
        Column("verdict", _say_verdict),
    ),
)


def ask_comparison(
    store: Store,
    spec: ModelSpec,
    windows: Sequence[Window],
    versions: tuple[str, str] | None,
    share: float | None,
    margin: float,
) -> Answer[Difference]:
    """Return how another version compares, as `compare_versions` finds it.

    Raises:
        ConfigError: If the two cannot be compared.
    """
    found = compare_versions(store, spec, windows, versions, share, margin)
    how = "the same predictions" if found.how == "shadow" else "predictions of their own"
    said = (
        f"{spec.model}, {window_range(windows)}: {found.other} ({found.n_other:,} rows) against "
        f"{found.one} ({found.n_one:,}), on {how}."
    )
    if found.reason:
        raise ConfigError(f"{said}\nNot comparable: {found.reason}.")
    rows = [Difference(metric, one) for metric, one in found.metrics.items()]
    few = next((row.found.windows for row in rows if row.found.windows < _FEW), None)
    below = (
        f"With {counted(few or 0, 'window')} rows count as independent, which they are not if "
        "those of a day resemble each other. From eight windows on their spread is known."
    )
    return Answer(COMPARISON, rows, above=said, below=below if few is not None else "")


@dataclass(frozen=True)
class SkewedFeature:
    """A feature as it was served, against the same predictions from elsewhere.

    Attributes:
        feature: Its name.
        found: How the two differ.
    """

    feature: str
    found: Mismatch

    def fields(self) -> dict[str, object]:
        """Return what programs get."""
        return {"feature": self.feature, **asdict(self.found)}


def _say_how(row: SkewedFeature) -> str:
    by = row.found.by
    return row.found.kind if by != by else f"{row.found.kind} of {by:.3g}"


SKEW: Table[SkewedFeature] = Table(
    "skew",
    (
        Column("feature", "feature"),
        Column("n", lambda row: row.found.n, "{:,}", is_number=True),
        Column("differ", lambda row: 100 * row.found.rate, "{:.3g} %", is_number=True),
        Column("95 %", lambda row: f"{100 * row.found.lower:.3g} to {100 * row.found.upper:.3g} %"),
        Column("how", _say_how),
        Column("such as", lambda row: ", ".join(row.found.examples)),
    ),
)


def ask_skew(
    store: Store, spec: ModelSpec, windows: Sequence[Window], dataset: str
) -> Answer[SkewedFeature]:
    """Return how features differ from those of another dataset, as `skew_of` finds it.

    Raises:
        ConfigError: If no prediction is in both.
    """
    found = skew_of(store, spec, windows, dataset)
    if not found:
        raise ConfigError(
            f"No prediction of {spec.model} is in both production and {dataset}; land the features "
            f"as computed offline with dataset: {dataset} and the same prediction_id."
        )
    return Answer(SKEW, [SkewedFeature(name, one) for name, one in found.items()])
