"""Why the scores rose or fell: the change of the mean raw score as the sum of the features' parts.

The raw score is what the model puts out before its link. SHAP values and their base value add up to
it row by row (Lundberg and Lee, 2017), so means do, and so do changes of means: no game has to be
played and no row read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlmon_dagster.metrics import Floats
from mlmon_dagster.metrics.intervals import rate
from mlmon_dagster.metrics.quality import MOSTLY, RAW, fitting_link
from mlmon_dagster.metrics.statistics import ColumnStatistics, of_all
from mlmon_dagster.profiles.loss_columns import (
    BASE,
    EXPLAINER,
    SHARE,
    attribution_columns,
    links,
    signed_of,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.metric_registry import REGRESSION
from mlmon_dagster.trace.slices import by_window
from mlmon_dagster.trace.splits import Split, measured

Profiles = Mapping[str, ColumnStatistics]
BASE_VALUE = "base value"
_LOGARITHMS = {"logit": "log-odds", "log": "logarithm"}
_NOTHING = Split((), np.zeros(0), np.zeros(0), np.zeros(0), 0.0, np.nan)


@dataclass(frozen=True)
class RawScore:
    """What the mean raw score of explained rows did, and which features did it.

    Attributes:
        name: What it is, such as ``the mean score (log-odds)``.
        now, then: Its mean on both sides.
        n, n_then: Explained rows.
        split: Effects of the features, and of the base value where it may differ. Its `change` is
            the sum of them.
        off: Share of the rows of both sides whose SHAP values do not add up to the score.
        problem: Why there is no split: ``not_additive`` where most rows do not add up,
            ``other_explainer`` where the sides are not of one and the same.
    """

    name: str
    now: float
    then: float
    n: int
    n_then: int
    split: Split
    off: float
    problem: Literal["", "not_additive", "other_explainer"]

    @property
    def change(self) -> float:
        """The change of the mean."""
        return self.now - self.then

    @property
    def rest(self) -> float:
        """What the effects leave of the change: nothing but rounding where the rows add up."""
        return self.change - self.split.change


def raw_score_columns(spec: ModelSpec) -> list[str]:
    """Return the profiled columns that `explain_score` reads; [] where nothing adds up."""
    columns = attribution_columns(spec)
    if not any(name.startswith(RAW) for name in columns):
        return []
    return [name for name in columns if not name.startswith(SHARE)]


def explain_score(spec: ModelSpec, now: Profiles, then: Profiles) -> RawScore | None:
    """Split the change of the mean raw score between two sets of windows over the features.

    Args:
        spec: The model.
        now: Column -> statistics of one set of windows, as `raw_score_columns` names them.
        then: The same of the other set.

    Returns:
        None if a side has no explained rows.
    """
    one, other = _whole(now), _whole(then)
    found = fitting_link(one, other) if one and other else None
    if found is None or not all(f"{RAW}{found[0]}" in side for side in (one, other)):
        return None
    link, off = found
    parts = {name: signed_of(name) for name in spec.logged_features}
    if BASE in one and BASE in other:
        parts[BASE_VALUE] = BASE
    sums = [_sums(side, [f"{RAW}{link}", *parts.values()]) for side in (one, other)]
    n, n_then = (int(side[:, -1].sum()) for side in sums)
    if not n or not n_then:
        return None
    means = [side[:, 0].sum() / size for side, size in zip(sums, (n, n_then), strict=True)]
    problem: Literal["", "not_additive", "other_explainer"] = ""
    if off > MOSTLY:
        problem = "not_additive"
    elif not _is_of_one_explainer(one, other):
        problem = "other_explainer"
    split = _NOTHING
    if not problem:
        split = measured(_effects, sums[0][:, 1:], sums[1][:, 1:], list(parts))
    return RawScore(
        _name(spec, link), float(means[0]), float(means[1]), n, n_then, split, off, problem
    )


def _whole(profiles: Profiles) -> dict[str, ColumnStatistics]:
    """Return the windows of slice ``all``, over versions and datasets."""
    return of_all(by_window(profiles))


def _sums(side: Profiles, columns: list[str]) -> Floats:
    """Return the sums of columns and, last, the explained rows of each window, (W, columns + 1)."""
    rows = {name: side[name].counts.sum(axis=1).astype(np.float64) for name in columns}
    found = [side[name].total + side[name].binning.centre * rows[name] for name in columns]
    return np.column_stack([*found, rows[columns[0]]])


def _effects(now: Floats, then: Floats) -> Floats:
    """Return the changes of means of sums and, last, rows, (..., P + 1)."""
    return _means(now) - _means(then)


def _means(sums: Floats) -> Floats:
    return rate(*np.broadcast_arrays(sums[..., :-1], sums[..., -1:]))


def _is_of_one_explainer(one: Profiles, other: Profiles) -> bool:
    if EXPLAINER not in one or EXPLAINER not in other:
        return True
    used = [np.flatnonzero(side[EXPLAINER].counts.sum(axis=0)) for side in (one, other)]
    known = len(one[EXPLAINER].binning.categories)  # of what is new the names are not kept
    return all(len(codes) == 1 and codes[0] < known for codes in used) and used[0][0] == used[1][0]


def _name(spec: ModelSpec, link: str) -> str:
    output = "prediction" if spec.task == REGRESSION else "score"
    unit = _LOGARITHMS.get(link)
    if unit is None and len(links(spec)) > 1 and spec.task != REGRESSION:
        unit = "probability"
    return f"the mean {output}" + (f" ({unit})" if unit else "")
