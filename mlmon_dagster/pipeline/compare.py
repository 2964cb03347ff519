"""Two versions of a model on the predictions that both made, or on those that each made alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.metrics.arrays import Floats
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.metric_registry import BINARY, REGRESSION
from mlmon_dagster.store import Store
from mlmon_dagster.trace.versions import (
    SHARE_IS_WRONG,
    Comparison,
    Mismatch,
    got_its_share,
    means_of_two,
    mismatch,
    paired_area,
    paired_means,
)

SHADOW = "shadow"
How = Literal["shadow", "canary"]
_OUTPUTS = ("score", "prediction")


@dataclass(frozen=True)
class Compared:
    """What two versions are worth against each other.

    Attributes:
        how: ``shadow``: the same predictions; ``canary``: each its own.
        one: The version in service. other: The one that would replace it.
        n_one, n_other: Rows with ground truth.
        metrics: Name -> comparison, more being better; empty if the rows cannot be compared.
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
        return _with_shadow(store, spec, windows, margin)
    if spec.columns.model_version is None:
        raise ConfigError("Versions are told apart by columns.model_version; declare it.")
    rows = _read(store, spec, windows, PRODUCTION)
    one, other = (rows[rows["model_version"] == version] for version in versions)
    for version, part in zip(versions, (one, other), strict=True):
        if part.empty:
            raise ConfigError(f"No row with ground truth is of version {version!r}.")
    if share is not None and got_its_share(len(one), len(other), share) < SHARE_IS_WRONG:
        got = len(other) / (len(one) + len(other))
        reason = (
            f"version {versions[1]} answered {got:.1%} of the requests and was to answer "
            f"{share:.1%}: something else than the lot decided, so the rows cannot be compared"
        )
        return Compared("canary", *versions, len(one), len(other), {}, reason)
    found = {
        name: comparison
        for name, value in _values(spec).items()
        if (
            comparison := means_of_two(
                value(one), _places(one), value(other), _places(other), margin
            )
        )
    }
    return Compared("canary", *versions, len(one), len(other), found)


def _with_shadow(
    store: Store, spec: ModelSpec, windows: Sequence[Window], margin: float
) -> Compared:
    """Compare what production and the shadow said of the same predictions."""
    one, other = (_read(store, spec, windows, dataset) for dataset in (PRODUCTION, SHADOW))
    both = one.merge(other, on="prediction_id", suffixes=("", "_other"))
    if both.empty:
        raise ConfigError(
            f"No prediction of {spec.model} with ground truth is in both production and {SHADOW}; "
            "log the shadow's answers with dataset: shadow and the same prediction_id."
        )
    mine = both[list(one.columns)]
    theirs = both[["prediction_id", "window_start", *_named(both, "_other")]].rename(
        columns=lambda name: name.removesuffix("_other")
    )
    theirs = theirs.assign(actual=mine["actual"])
    places = _places(mine)
    found: dict[str, Comparison] = {}
    if spec.task == BINARY and spec.columns.score is not None:
        known = mine["score"].notna() & theirs["score"].notna()
        area = paired_area(
            mine.loc[known, "score"], theirs.loc[known, "score"], mine.loc[known, "actual"],
            places[known.to_numpy()], margin,
        )  # fmt: skip
        found |= {"ROC AUC": area} if area else {}
    for name, value in _values(spec).items():
        first, second = value(mine), value(theirs)
        both_known = np.isfinite(first) & np.isfinite(second)
        mean = paired_means(first[both_known], second[both_known], places[both_known], margin)
        found |= {name: mean} if mean else {}
    names = [_version(part) for part in (mine, theirs)]
    return Compared("shadow", names[0], names[1], len(mine), len(theirs), found)


def _named(frame: pd.DataFrame, suffix: str) -> list[str]:
    return [name for name in frame.columns if name.endswith(suffix) and name != "actual_other"]


def _version(rows: pd.DataFrame) -> str:
    versions = sorted(set(rows["model_version"].dropna())) if "model_version" in rows else []
    return ", ".join(versions) or "without a version"


def _read(store: Store, spec: ModelSpec, windows: Sequence[Window], dataset: str) -> pd.DataFrame:
    outputs = [c for c in _OUTPUTS if getattr(spec.columns, c) is not None]
    read = store.inference_records(spec).read(
        windows, [dataset], ["prediction_id", "window_start", "model_version", "actual", *outputs]
    )
    frame: pd.DataFrame = read.to_pandas()
    return frame[frame["actual"].notna()].reset_index(drop=True)


def _places(rows: pd.DataFrame) -> np.ndarray:
    return np.asarray(rows["window_start"].astype("int64"))


def _values(spec: ModelSpec) -> dict[str, Callable[[pd.DataFrame], Floats]]:
    """Return what is compared row by row; all of it is better high."""
    found: dict[str, Callable[[pd.DataFrame], Floats]] = {}

    def right(rows: pd.DataFrame) -> Floats:
        return np.asarray((rows["prediction"] == rows["actual"]).astype(float))

    def less_squared(rows: pd.DataFrame) -> Floats:
        return np.asarray(-((rows["score"].astype(float) - rows["actual"].astype(float)) ** 2))

    def less_error(rows: pd.DataFrame) -> Floats:
        return np.asarray(-(rows["prediction"].astype(float) - rows["actual"].astype(float)).abs())

    if spec.task == REGRESSION:
        return {"Less absolute error": less_error}
    if spec.columns.prediction is not None:
        found["Share of right decisions"] = right
    if spec.task == BINARY and spec.columns.score is not None:
        found["Less squared error"] = less_squared
    if spec.task == BINARY and spec.costs is not None and spec.columns.prediction is not None:
        found["Value of a decision"] = _worth(spec)
    return found


def _worth(spec: ModelSpec) -> Callable[[pd.DataFrame], Floats]:
    assert spec.costs is not None
    costs = spec.costs
    table = np.array([[-costs.tn, -costs.fn], [-costs.fp, -costs.tp]])

    def worth(rows: pd.DataFrame) -> Floats:
        decided, came = rows["prediction"].astype(int), rows["actual"].astype(int)
        found: Floats = table[decided, came]
        return found

    return worth


def skew_of(
    store: Store, spec: ModelSpec, windows: Sequence[Window], dataset: str = "training"
) -> dict[str, Mismatch]:
    """Compare every feature as it was served with the same predictions' values from elsewhere.

    Args:
        store: The store.
        spec: The model.
        windows: Windows of production.
        dataset: Where the other values are: the same prediction ids, computed offline.

    Returns:
        Feature -> how often it differs, the worst first; personal features without examples' values
        anyway, as only ids are examples. Empty if no id is in both.
    """
    names = list(spec.features)
    columns = ["prediction_id", *names]
    records = store.inference_records(spec)
    served = records.read(windows, [PRODUCTION], columns).to_pandas()
    computed = records.read(None, [dataset], columns).to_pandas()
    both = served.merge(computed, on="prediction_id", suffixes=("", "_other"))
    if both.empty:
        return {}
    found = {
        name: mismatch(both["prediction_id"], both[name], both[f"{name}_other"]) for name in names
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].rate))
