"""Two versions of a model on the predictions that both made, or on those that each made alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.metrics import SHARE_IS_WRONG, Floats
from mlmon_dagster.metrics.versions import (
    Comparison,
    Mismatch,
    areas_of_two,
    got_its_share,
    means_of_two,
    mismatch,
    paired_area,
    paired_decisions,
    paired_means,
)
from mlmon_dagster.profiles.compiler import NO_VERSION
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.metric_registry import BINARY, MULTICLASS, REGRESSION
from mlmon_dagster.store import Store

SHADOW = "shadow"
How = Literal["shadow", "canary"]
_OUTPUTS = ("score", "prediction")
# What is compared, turned so that more is better.
LABELS: Mapping[str, str] = {
    "roc_auc": "ROC AUC",
    "accuracy": "Share of right decisions",
    "brier": "Less squared error",
    "mae": "Less absolute error",
    "expected_value": "Value of a decision",
}


@dataclass(frozen=True)
class Sides:
    """Rows with ground truth of two versions.

    Attributes:
        how: ``shadow``: of the same predictions, row by row; ``canary``: of each its own.
        one: ``window_start``, ``model_version``, ``actual`` and outputs of the version in service.
        other: Of the other one.
    """

    how: How
    one: pd.DataFrame
    other: pd.DataFrame

    def within(self, starts: Collection[dt.datetime], versions: tuple[str, str]) -> Sides:
        """Return the rows of some windows and of two versions.

        Args:
            starts: Starts of the windows.
            versions: The one's and the other's, `NO_VERSION` for none; of a shadow the rows stay
                that both answered.
        """
        kept = [
            part["window_start"].isin(list(starts))
            & (part["model_version"].fillna(NO_VERSION) == version)
            for part, version in zip((self.one, self.other), versions, strict=True)
        ]
        if self.how == "shadow":
            kept = [kept[0] & kept[1]] * 2
        return Sides(self.how, self.one[kept[0]], self.other[kept[1]])


@dataclass(frozen=True)
class Compared:
    """What two versions are worth against each other.

    Attributes:
        how: ``shadow``: the same predictions; ``canary``: each its own.
        one: The version in service. other: The one that would replace it.
        n_one, n_other: Rows with ground truth.
        metrics: Metric of `LABELS` -> comparison, more being better; empty if the rows cannot be
            compared.
        reason: Why not; empty if they can.
    """

    how: How
    one: str
    other: str
    n_one: int
    n_other: int
    metrics: dict[str, Comparison]
    reason: str = ""


def compare_versions(
    store: Store,
    spec: ModelSpec,
    windows: Sequence[Window],
    versions: tuple[str, str] | None = None,
    share: float | None = None,
    margin: float = 0.01,
) -> Compared:
    """Compare the version in service with another one, from the rows of some windows.

    Args:
        store: The store.
        spec: The model.
        windows: Which windows.
        versions: The version in service and the other one, of production; by default production
            against the dataset ``shadow``, row by row.
        share: The share of the requests that the other one was to get; its even split is checked.
        margin: What counts as not worse.

    Raises:
        ConfigError: If there are no rows of one of the two.
    """
    if versions is None:
        sides = shadowed_rows(store, spec, windows)
        if sides.one.empty:
            raise ConfigError(
                f"No prediction of {spec.model} with ground truth is in both production and "
                f"{SHADOW}; log the shadow's answers with dataset: shadow and the same "
                "prediction_id."
            )
        names = _version(sides.one), _version(sides.other)
        return _compared(spec, sides, names, margin)
    if not spec.has_versions:
        raise ConfigError("Versions are distinguished by columns.model_version; declare it.")
    asked = _read(store, spec, windows, PRODUCTION)
    one, other = (asked[asked["model_version"] == version] for version in versions)
    sides = Sides("canary", *(part[part["actual"].notna()] for part in (one, other)))
    for version, part in zip(versions, (sides.one, sides.other), strict=True):
        if part.empty:
            raise ConfigError(f"No row with ground truth is of version {version!r}.")
    if share is not None and got_its_share(len(one), len(other), share) < SHARE_IS_WRONG:
        got = len(other) / (len(one) + len(other))
        reason = (
            f"version {versions[1]} answered {got:.1%} of the requests and was to answer "
            f"{share:.1%}: something else than the lot decided, so the rows cannot be compared"
        )
        return Compared("canary", *versions, len(sides.one), len(sides.other), {}, reason)
    return _compared(spec, sides, versions, margin)


def _compared(spec: ModelSpec, sides: Sides, names: tuple[str, str], margin: float) -> Compared:
    found = {
        metric: comparison
        for metric in LABELS
        if (comparison := compared_by(spec, sides, metric, margin)) is not None
    }
    return Compared(sides.how, *names, len(sides.one), len(sides.other), found)


def shadowed_rows(store: Store, spec: ModelSpec, windows: Sequence[Window]) -> Sides:
    """Return what production and the shadow said of the same predictions with ground truth."""
    one, other = (_read(store, spec, windows, dataset) for dataset in (PRODUCTION, SHADOW))
    both = one[one["actual"].notna()].merge(other, on="prediction_id", suffixes=("", "_other"))
    mine = both[list(one.columns)]
    theirs = both[[f"{name}_other" for name in other.columns if name != "prediction_id"]]
    theirs = theirs.rename(columns=lambda name: name.removesuffix("_other"))
    shared = {name: mine[name] for name in ("actual", "window_start")}
    return Sides("shadow", mine, theirs.assign(**shared))


def rows_of_two(
    store: Store, spec: ModelSpec, windows: Sequence[Window], dataset: str = PRODUCTION
) -> Sides:
    """Return the rows with ground truth of production, and of another dataset or production too."""
    one, other = (_read(store, spec, windows, name) for name in (PRODUCTION, dataset))
    return Sides("canary", one[one["actual"].notna()], other[other["actual"].notna()])


def _version(rows: pd.DataFrame) -> str:
    return ", ".join(sorted(set(rows["model_version"].dropna()))) or "without a version"


def _read(store: Store, spec: ModelSpec, windows: Sequence[Window], dataset: str) -> pd.DataFrame:
    outputs = [c for c in _OUTPUTS if getattr(spec.columns, c) is not None]
    read = store.inference_records(spec).read(
        windows, [dataset], ["prediction_id", "window_start", "model_version", "actual", *outputs]
    )
    frame: pd.DataFrame = read.to_pandas()
    return frame


def compared_by(spec: ModelSpec, sides: Sides, metric: str, margin: float) -> Comparison | None:
    """Compare two versions by one metric.

    Args:
        spec: The model.
        sides: Their rows.
        metric: One of `LABELS`.
        margin: What counts as not worse.

    Returns:
        None if the model has no such metric, or there are too few rows.
    """
    value = _VALUES[metric](spec)
    if value is None:
        return None
    values = [value(part) for part in (sides.one, sides.other)]
    known = [np.isfinite(found) for found in values]
    if sides.how == "shadow":
        known = [known[0] & known[1]] * 2
    (one, other), (places, other_places), truths = (
        [np.asarray(found)[kept] for found, kept in zip(both, known, strict=True)]
        for both in (
            values,
            [_places(part) for part in (sides.one, sides.other)],
            [part["actual"] for part in (sides.one, sides.other)],
        )
    )
    if sides.how == "shadow":
        if metric == "roc_auc":
            return paired_area(one, other, truths[0], places, margin)
        paired = paired_decisions if metric == "accuracy" else paired_means
        return paired(one, other, places, margin)
    if metric == "roc_auc":
        return areas_of_two(one, truths[0], places, other, truths[1], other_places, margin)
    return means_of_two(one, places, other, other_places, margin)


def _places(rows: pd.DataFrame) -> np.ndarray:
    return np.asarray(rows["window_start"].astype("int64"))


Values = Callable[[pd.DataFrame], Floats]


def _scores(spec: ModelSpec) -> Values | None:
    if spec.task != BINARY or spec.columns.score is None:
        return None
    return lambda rows: rows["score"].to_numpy(float, na_value=np.nan)


def _right(spec: ModelSpec) -> Values | None:
    if spec.task not in (BINARY, MULTICLASS) or spec.columns.prediction is None:
        return None
    return lambda rows: np.where(
        rows["prediction"].isna(), np.nan, (rows["prediction"] == rows["actual"]).astype(float)
    )


def _less_squared(spec: ModelSpec) -> Values | None:
    scores = _scores(spec)
    if scores is None:
        return None
    return lambda rows: -((scores(rows) - rows["actual"].to_numpy(float)) ** 2)


def _less_error(spec: ModelSpec) -> Values | None:
    if spec.task != REGRESSION:
        return None
    return lambda rows: (
        -np.abs(
            rows["prediction"].to_numpy(float, na_value=np.nan) - rows["actual"].to_numpy(float)
        )
    )


def _worth(spec: ModelSpec) -> Values | None:
    costs = spec.costs
    if costs is None or spec.task != BINARY or spec.columns.prediction is None:
        return None
    table = np.array([[-costs.tn, -costs.fn], [-costs.fp, -costs.tp]])

    def worth(rows: pd.DataFrame) -> Floats:
        decided, came = rows["prediction"], rows["actual"].astype(int)
        found: Floats = table[decided.fillna(0).astype(int), came]
        return np.where(decided.isna(), np.nan, found)

    return worth


# Metric -> what each row is worth by it, more being better; of areas the scores.
_VALUES: Mapping[str, Callable[[ModelSpec], Values | None]] = {
    "roc_auc": _scores,
    "accuracy": _right,
    "brier": _less_squared,
    "mae": _less_error,
    "expected_value": _worth,
}


def skew_of(
    store: Store,
    spec: ModelSpec,
    windows: Sequence[Window],
    dataset: str = "training",
    columns: Sequence[str] | None = None,
) -> dict[str, Mismatch]:
    """Compare every feature as it was served with the same predictions' values from elsewhere.

    Args:
        store: The store.
        spec: The model.
        windows: Windows of production.
        dataset: Where the other values are: the same prediction ids, computed offline.
        columns: Features; all by default.

    Returns:
        Feature -> how often it differs, the worst first; personal features without examples' values
        anyway, as only ids are examples. Empty if no id is in both.
    """
    names = list(spec.features if columns is None else columns)
    wanted = ["prediction_id", *names]
    records = store.inference_records(spec)
    served = records.read(windows, [PRODUCTION], wanted).to_pandas()
    computed = records.read(None, [dataset], wanted).to_pandas()
    both = served.merge(computed, on="prediction_id", suffixes=("", "_other"))
    if both.empty:
        return {}
    found = {
        name: mismatch(both["prediction_id"], both[name], both[f"{name}_other"]) for name in names
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].rate))
