"""One metric's change between two sets of windows, taken apart in all ways its counts allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.binnings import label_counts, lowest_scores, score_midpoints
from mlmon_dagster.metrics.intervals import rate
from mlmon_dagster.metrics.late_truth.rectified import METHOD
from mlmon_dagster.metrics.performance.weighted_back import DECIDED
from mlmon_dagster.metrics.statistics import ColumnStatistics, merge_columns, of_all
from mlmon_dagster.profiles.measures import measure
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.metric_registry import info_of, is_higher_better, is_loss
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.trace import splits
from mlmon_dagster.trace.slices import by_window, compare_slices
from mlmon_dagster.trace.splits import Rates, Split, Threshold, rates_of, ratio_parts

Profiles = Mapping[str, ColumnStatistics]
AREA = "roc_auc"
LAW, MEANING = "law", "meaning"
_PAIR_GROUPS = 256  # of scores, for pairs of slices; their area is within .0001 of 1,024 bins'
_MOST_VALUES = 30  # of a slice key; the others are put together
OTHERS = "(all others)"
_BY_THRESHOLD = 0.98  # share of the rows above the lowest one decided positive that are, too
FEW = 3  # windows that may have done it alone


@dataclass(frozen=True)
class Side:
    """A metric over one set of windows.

    Attributes:
        value: Of all windows together; NaN without ground truth.
        n: Rows that it rests on.
        windows: Windows that hold some of them.
    """

    value: float
    n: int
    windows: int


@dataclass(frozen=True)
class Scores:
    """What the scores of a binary model did.

    Attributes:
        split: Effects on ROC AUC of their law and of what they mean; None where too few are shared.
        told_apart: How well a score alone tells the sides apart, .5 to 1.
        mean, mean_then: Mean score of the labelled rows.
        rate, rate_then: Share of them that came true.
    """

    split: Split | None
    told_apart: float
    mean: float
    mean_then: float
    rate: float
    rate_then: float


@dataclass(frozen=True)
class Decided:
    """What became of the decisions of a binary model.

    Attributes:
        split: Effects of `splits.PLAYERS` on a metric of decisions.
        rates, rates_then: Share of positives, recall and share of false alarms on both sides.
        threshold: What another one would have done on the first side; None if decisions are not
            made by a threshold on the score.
    """

    split: Split
    rates: tuple[float, float, float]
    rates_then: tuple[float, float, float]
    threshold: Threshold | None


@dataclass(frozen=True)
class Explained:
    """Why a metric changed.

    Attributes:
        metric: Its name.
        now, then: Its values on both sides.
        change: The difference. margin: Half of its 95 % interval, between windows; NaN if a side
            has too few of them. p_value: Chance of so large a change without any.
        slices: Rows of `compare_slices`, of this metric.
        values: Slice key -> effect of each of its values (ROC AUC alone, over pairs of slices).
        decisions: Metric of decisions -> what became of it.
        scores: Of a binary model with a score.
        windows: Of the first side: window_start, n, and ``effect``, what the window adds to the
            change; the most harmful first.
        n_standing: How many of them, at most three, add more than windows like the others do.
        without: Value of the first side without those, or without the three most harmful ones.
        without_then: The same of the other side, without as many.
        is_weighted: Whether the value of a side is weighted back to all predictions, as ground
            truth covers some; all parts of the change are those of the rows that have it.
        worse_slices: Key and value of the slices that a failed verdict on the very windows names;
            None without such a verdict.
    """

    metric: str
    now: Side
    then: Side
    change: float
    margin: float
    p_value: float
    slices: pd.DataFrame
    values: Mapping[str, Split]
    decisions: Mapping[str, Decided]
    scores: Scores | None
    windows: pd.DataFrame
    n_standing: int
    without: float
    without_then: float
    is_weighted: bool = False
    worse_slices: tuple[tuple[str, str], ...] | None = None

    @property
    def is_verdict(self) -> bool:
        """Whether a monitor found these very windows to fail."""
        return self.worse_slices is not None

    def effects(self, key: str) -> dict[str, float]:
        """Return what each value of a slice key adds to the change; NaN where nobody knows."""
        if (split := self.values.get(key)) is not None:
            return split.named
        mine = self.slices[self.slices["slice_key"] == key]
        return dict(zip(mine["slice_value"], mine["effect"].astype(float), strict=True))

    def margins(self, key: str) -> dict[str, float]:
        """Return half of the 95 % interval of what each value of a slice key adds, where known."""
        split = self.values.get(key)
        return dict(zip(split.parts, split.margins.tolist(), strict=True)) if split else {}

    @property
    def is_worse(self) -> bool:
        """Whether the change is for the worse; any is, of what is neither good nor bad."""
        if is_higher_better(self.metric) is None:
            return self.change != 0
        return self.change > 0 if is_loss(self.metric) else self.change < 0


def explain(
    spec: ModelSpec,
    metric: str,
    now: Profiles,
    then: Profiles,
    slices: pd.DataFrame | None = None,
) -> Explained | None:
    """Take the change of a metric apart.

    Args:
        spec: The model.
        metric: One that it has.
        now: Column -> statistics of one set of windows, as `slices.profiled_for` names them.
        then: The same of the other set.
        slices: What `compare_slices` says of the metric, where that is known.

    Returns:
        None if a side has no ground truth.
    """
    frame = compare_slices(spec, now, then, [metric]) if slices is None else slices
    if frame.empty:
        return None
    whole = frame[frame["slice_key"] == ALL].iloc[0]
    if not (whole["n"] and whole["n_baseline"]):
        return None
    one, other = by_window(now), by_window(then)
    windows, values = _windows(spec, metric, one)
    harms = windows["effect"].to_numpy(np.float64) * (1 if is_loss(metric) else -1)
    n_standing = splits.count_standing_out(harms, FEW)
    n_left_out = n_standing or FEW
    values_then = _windows(spec, metric, other)[1]
    sizes = whole[["n", "n_windows", "n_baseline", "n_baseline_windows"]].astype(int).tolist()
    return Explained(
        metric,
        Side(float(whole["value"]), *sizes[:2]),
        Side(float(whole["baseline_value"]), *sizes[2:]),
        float(whole["change"]),
        float(whole["change_upper"] - whole["change_lower"]) / 2,
        float(whole["p_value"]),
        frame,
        _pairs(spec, one, other) if metric == AREA else {},
        _decisions(spec, metric, one, other),
        _scores(one, other),
        windows,
        n_standing,
        values(n_left_out),
        values_then(n_left_out),
        any(_is_weighted(spec, metric, side) for side in (one, other)),
    )


def _is_weighted(spec: ModelSpec, metric: str, windows: Profiles) -> bool:
    whole = merge_columns(of_all(windows), ("slice_key", "slice_value"))
    found = measure(spec, info_of(metric).family, whole, None, [metric])
    methods = found.loc[found["metric"] == metric, "method_version"]
    return bool(methods.str.startswith(METHOD).any())


# --- counts of whole windows


def _whole(stats: ColumnStatistics) -> tuple[pd.Series[pd.Timestamp], Ints]:
    """Return the windows of slice ``all`` and their counts, (W, size)."""
    mine = (stats.cells["slice_key"] == ALL).to_numpy()
    return stats.cells.loc[mine, "window_start"], stats.counts[mine]


def _labels(profiles: Profiles, column: str, kind: str) -> Floats | None:
    """Return negatives and positives of whole windows, (W, 2, bins); None if not profiled so."""
    stats = profiles.get(column)
    if stats is None or stats.binning.kind != kind:
        return None
    _, counts = _whole(stats)
    if not len(counts):
        return None
    return np.moveaxis(label_counts(counts), -1, 1)[:, 1:].astype(np.float64)


def _table(profiles: Profiles) -> Floats | None:
    """Return predicted x actual of whole windows, (W, 2, 2)."""
    found = _labels(profiles, "prediction", "confusion")
    return None if found is None else np.swapaxes(found, 1, 2)


def _metrics_of_decisions(spec: ModelSpec) -> dict[str, Rates]:
    found = dict(splits.DECISIONS)
    if spec.costs is not None:
        found["expected_value"] = splits.value_of(**spec.costs.model_dump())
    return found


def _counted(
    spec: ModelSpec, metric: str, profiles: Profiles
) -> tuple[Floats, Callable[[Floats], Floats]] | None:
    """Return counts of whole windows, and the function that gives the metric of their sums."""
    if metric == AREA:
        scores = _labels(profiles, "score", "score")
        return None if scores is None else (scores, splits.area_of)
    of_decisions = _metrics_of_decisions(spec).get(metric)
    if of_decisions is not None and (table := _table(profiles)) is not None:
        return table, lambda counts: of_decisions(rates_of(counts))
    whole = {n: s for n, s in profiles.items() if (s.cells["slice_key"] == ALL).any()}
    found = ratio_parts(metric, whole.get("score"), whole.get("prediction"), whole)
    if found is None:
        return None
    cells = next(iter(whole.values())).cells
    mine = (cells["slice_key"] == ALL).to_numpy()
    if len(found[0]) != len(mine):
        return None
    return np.stack(found, axis=1)[mine], lambda sums: rate(sums[..., 0], sums[..., 1])


def _windows(
    spec: ModelSpec, metric: str, profiles: Profiles
) -> tuple[pd.DataFrame, Callable[[int], float]]:
    """Return the windows, the most harmful first, and the value without so many of those."""
    found = _counted(spec, metric, profiles)
    starts = next((_whole(s)[0] for s in profiles.values() if len(_whole(s)[0])), None)
    if found is None or starts is None or len(found[0]) != len(starts):
        empty = pd.DataFrame({"window_start": [], "n": [], "effect": []})
        return empty, lambda _n: np.nan
    counts, value = found
    frame = pd.DataFrame(
        {
            "window_start": starts.reset_index(drop=True),
            "n": counts.reshape(len(counts), -1).sum(axis=1) if counts.ndim > 2 else counts[:, 1],
            "effect": splits.window_effects(value, counts),
            "place": np.arange(len(counts)),
        }
    )
    ordered = frame.sort_values("effect", ascending=not is_loss(metric))
    places = ordered["place"].to_numpy()

    def without(n: int) -> float:
        return float(value(np.delete(counts, places[:n], axis=0).sum(axis=0)))

    return ordered.drop(columns="place").reset_index(drop=True), without


# --- splits


def _decisions(spec: ModelSpec, metric: str, now: Profiles, then: Profiles) -> dict[str, Decided]:
    one, other = _table(now), _table(then)
    if one is None or other is None:
        return {}
    known = _metrics_of_decisions(spec)
    wanted = [metric] if metric in known else ["f1"]
    rates, rates_then = (tuple(rates_of(side.sum(axis=0)).tolist()) for side in (one, other))
    return {
        name: Decided(
            splits.measured(splits.decision_effects(known[name]), one, other, splits.PLAYERS),
            rates,
            rates_then,
            _threshold(known[name], now),
        )
        for name in wanted
    }


def _threshold(metric: Rates, profiles: Profiles) -> Threshold | None:
    """Say what another threshold would have done."""
    scores, decided = profiles.get("score"), profiles.get(DECIDED)
    counts = _labels(profiles, "score", "score")
    if scores is None or decided is None or counts is None:
        return None
    every, positive = (
        label_counts(_whole(stats)[1]).sum(axis=(0, 2)) for stats in (scores, decided)
    )
    if not positive.any():
        return None
    first = int(np.flatnonzero(positive)[0])
    if positive.sum() < _BY_THRESHOLD * every[first:].sum():
        return None
    low = lowest_scores(scores.binning)
    return splits.better_threshold(metric, counts, low, float(low[first]))


def _scores(now: Profiles, then: Profiles) -> Scores | None:
    one, other = (_labels(side, "score", "score") for side in (now, then))
    if one is None or other is None:
        return None
    rows, rows0 = one.sum(axis=(0, 1)), other.sum(axis=(0, 1))
    if not (rows.sum() and rows0.sum()):
        return None
    apart = splits.told_apart(rows, rows0)
    split = None
    if apart < splits.NO_OVERLAP:
        effects = splits.score_effects(splits.score_groups(rows, rows0))
        split = splits.measured(effects, one, other, (LAW, MEANING))
    middles = score_midpoints(now["score"].binning)
    return Scores(
        split,
        apart,
        float(rows @ middles / rows.sum()),
        float(rows0 @ middles / rows0.sum()),
        float(one[:, 1].sum() / rows.sum()),
        float(other[:, 1].sum() / rows0.sum()),
    )


def _pairs(spec: ModelSpec, now: Profiles, then: Profiles) -> dict[str, Split]:
    """Split the change of ROC AUC over the values of each declared slice key."""
    found: dict[str, Split] = {}
    for key in [",".join(names) for names in spec.slices]:
        values = _values(key, now["score"], then["score"])
        if len(values) < 2:
            continue
        one, other = (_by_value(key, values, side["score"]) for side in (now, then))
        rows, rows0 = (side.sum(axis=(0, 1, 2)) for side in (one, other))
        starts = splits.score_groups(rows, rows0, _PAIR_GROUPS)
        one, other = (np.add.reduceat(side, starts, axis=-1) for side in (one, other))
        found[key] = splits.measured(splits.area_effects, one, other, values)
    return found


def _values(key: str, now: ColumnStatistics, then: ColumnStatistics) -> list[str]:
    """Return the values of a slice key by their labelled rows, the last standing for the rest."""
    rows: pd.Series[float] = pd.Series(dtype=np.float64)
    for side in (now, then):
        mine = (side.cells["slice_key"] == key).to_numpy()
        labelled = label_counts(side.counts[mine])[:, :, 1:].sum(axis=(1, 2))
        names = side.cells.loc[mine, "slice_value"]
        own = pd.Series(labelled, names.to_numpy()).groupby(level=0).sum()
        rows = rows.add(own / max(own.sum(), 1), fill_value=0.0)
    ordered = list(rows.sort_values(ascending=False, kind="stable").index.astype(str))
    few = ordered[: _MOST_VALUES - 1]
    return few if len(few) == len(ordered) else [*few, OTHERS]


def _by_value(key: str, values: list[str], stats: ColumnStatistics) -> Floats:
    """Return negatives and positives per window, slice value and score bin, (W, 2, S, B)."""
    mine = (stats.cells["slice_key"] == key).to_numpy()
    cells = stats.cells[mine]
    counts = label_counts(stats.counts[mine])[:, :, 1:]
    windows, place = np.unique(cells["window_start"].to_numpy(), return_inverse=True)
    known = {value: i for i, value in enumerate(values)}
    column = cells["slice_value"].map(known).fillna(len(values) - 1).to_numpy(np.int64)
    found = np.zeros((len(windows), len(values), counts.shape[1], 2))
    np.add.at(found, (place, column), counts)
    return np.moveaxis(found, -1, 1)
