"""Which slices explain how a metric changed between two sets of windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy import special

from mlmon_dagster.metrics import Floats
from mlmon_dagster.metrics.binnings import class_counts, label_counts
from mlmon_dagster.metrics.intervals import Z95, benjamini_hochberg
from mlmon_dagster.metrics.performance.roc import SCORE_ORDER
from mlmon_dagster.metrics.statistics import ColumnStatistics, merge_columns
from mlmon_dagster.metrics.windows.clusters import SERIES, change, standard_errors
from mlmon_dagster.profiles.measures import columns_of, measure
from mlmon_dagster.spec import (
    ModelSpec,
)
from mlmon_dagster.spec.metric_registry import BINARY, MetricFamily, info_of, is_higher_better
from mlmon_dagster.spec.names import ALL, BUSINESS, PERFORMANCE, TABLE
from mlmon_dagster.spec.tasks import task_of
from mlmon_dagster.trace.splits import LOSS_OF, decompose, ratio_parts

Method = Literal["exact", "own_change"]
Profiles = Mapping[str, ColumnStatistics]
MIN_ROWS = 30
Q = 0.01  # false-discovery rate at which a slice's own change counts as real
COLUMNS = (
    "metric", "slice_key", "slice_value", "note", "method", "n", "n_baseline",
    "value", "lower", "upper", "baseline_value", "change", "change_lower", "change_upper",
    "weight", "baseline_weight", "mix", "within", "effect", "share",
    "n_windows", "n_baseline_windows", "p_value", "p_adjusted", "is_real",
)  # fmt: skip
_SLICE = ("slice_key", "slice_value")
_SAYS_LABELLED = ("score", "confusion", "classes", "loss")  # kinds that tell labelled rows apart
_COMPARED = ("n", "value", "lower", "upper", "error", "n_windows")
_SMALL = ":small"  # ends a key; no name of a column has a colon


def compare_slices(
    spec: ModelSpec,
    now: Profiles,
    then: Profiles,
    metrics: Sequence[str],
    *,
    min_rows: int = MIN_ROWS,
) -> pd.DataFrame:
    """Explain the change of metrics between two sets of windows, worst slices first.

    Args:
        spec: The model.
        now: Column -> statistics of windows, what `profiled_for` names, all of them taken together.
        then: The same of the other windows.
        metrics: Names of the model's metrics.
        min_rows: Slice values with fewer rows with ground truth on both sides are put together
            (note ``small``), so that the effects still add up; those with fewer on one side are
            listed without a test.

    Returns:
        The columns `COLUMNS`. Per metric first the whole (slice_key ``all``), then the values of
        all slice keys. Of ``method`` exact: ``effect`` = ``mix`` + ``within``, in units of the
        metric, adds up to ``change`` of the whole per slice key, ``share`` = effect / change (NaN
        if nothing changed); sorted by effect, the most harmful first, for metrics that are neither
        good nor bad by share. Of ``method`` own_change: effects are NaN; sorted by the slice's own
        change, those that hold against chance (``is_real``) first. ``p_value`` tests the slice's
        own change, two-sided; ``p_adjusted`` by Benjamini-Hochberg over the slices of the metric.
        Rows of a window share more than they show, so windows are counted (``n_windows``, those
        that hold rows of the slice): see `windows.clusters`; the interval is never narrower, and
        the p-value never smaller, than by the rows alone (Newcombe). ``note``: new and gone for
        values on one side only, small, few_rows, and few_windows: fewer than eight on a side, or no
        value without one of them; the interval is then by the rows alone, so too narrow, and
        nothing is tested. Empty if the windows have no ground truth, and for metrics that
        the model's logs do not give.
    """
    frames: dict[str, pd.DataFrame] = {}
    for family in get_args(MetricFamily):
        mine = [metric for metric in metrics if info_of(metric).family == family]
        names = measured_from(spec, family, mine) if mine else []
        if not names:
            continue
        one, other = (
            by_window({name: stats for name, stats in side.items() if name in names})
            for side in (now, then)
        )
        compared = _Sides(spec, family, mine, one, other, min_rows)
        frames |= {metric: compared.trace(metric) for metric in mine}
    filled = [frames[metric] for metric in metrics if len(frames.get(metric, ()))]
    empty = pd.DataFrame({name: [] for name in COLUMNS})
    return pd.concat(filled, ignore_index=True) if filled else empty


def profiled_for(spec: ModelSpec, metrics: Sequence[str]) -> list[str]:
    """Return the profiled columns that metrics are computed from."""
    families = dict.fromkeys(info_of(metric).family for metric in metrics)
    return list(dict.fromkeys(c for family in families for c in columns_of(spec, family)))


def measured_from(spec: ModelSpec, family: str, metrics: Sequence[str]) -> list[str]:
    """Return the profiled columns without which metrics of a family would be others.

    Of a binary classifier that are few: most are in its scores and decisions, and every loss
    column is that of one metric.
    """
    found = columns_of(spec, family)
    if spec.task != BINARY or family != PERFORMANCE:
        return found
    losses = {SCORE_ORDER, *(LOSS_OF.get(metric, f":{metric}") for metric in metrics)}
    return [name for name in found if not name.startswith(":") or name in losses]


def default_metrics(spec: ModelSpec) -> list[str]:
    """Return what is traced unless asked otherwise: monitored metrics first."""
    declared = (m for m in (*spec.monitors.performance, *spec.monitors.business) if m.shift is None)
    monitored = [monitor.series for monitor in declared]
    return list(dict.fromkeys([*monitored, *task_of(spec).traced]))


def by_window(profiles: Profiles) -> dict[str, ColumnStatistics]:
    """Add up versions and datasets."""
    found = {name: stats for name, stats in profiles.items() if len(stats)}
    return merge_columns(found, ("window_start", *_SLICE))


class _Sides:
    """The window's and the baseline's statistics, small slice values put together on both."""

    def __init__(
        self,
        spec: ModelSpec,
        family: MetricFamily,
        metrics: Sequence[str],
        now: Profiles,
        then: Profiles,
        min_rows: int,
    ) -> None:
        self.min_rows = min_rows
        rows = pd.concat(
            [_labelled(side).rename(name) for side, name in ((now, "now"), (then, "then"))], axis=1
        ).fillna(0)
        few = rows[rows.max(axis=1) < min_rows].index
        small = pd.MultiIndex.from_tuples(few, names=_SLICE)
        windows = [_put_together(side, small) for side in (now, then)]
        self.now, self.then = (merge_columns(side, _SLICE) for side in windows)
        measured = partial(_whole_table, spec, family, metrics)
        self.values = [
            measured(whole).join(standard_errors(side, measured), on=list(SERIES))
            for whole, side in zip((self.now, self.then), windows, strict=True)
        ]

    def trace(self, metric: str) -> pd.DataFrame:
        """Return the rows of one metric."""
        frame = self._compared(metric)
        if frame.empty or frame.loc[frame["slice_key"] == ALL, "n"].sum() == 0:
            return pd.DataFrame()
        parts = [self._parts(metric, side) for side in (self.now, self.then)]
        if parts[0] is None or parts[1] is None:
            return _finished(_rejoined(frame), "own_change", metric)
        columns = ("numerator", "denominator", "numerator0", "denominator0")
        sums = parts[0].join(parts[1].add_suffix("0"), how="outer").fillna(0.0)
        frame = _rejoined(frame.join(sums[list(columns)], on=list(_SLICE)))
        for _, part in frame.groupby("slice_key"):
            found = decompose(*(part[name].to_numpy() for name in columns))
            for name in ("mix", "within", "weight", "baseline_weight"):
                frame.loc[part.index, name] = getattr(found, name)
        frame["effect"] = frame["mix"] + frame["within"]
        whole = frame.loc[frame["slice_key"] == ALL, "change"].iloc[0]
        frame["share"] = frame["effect"] / whole if whole else np.nan
        return _finished(frame, "exact", metric)

    def _parts(self, metric: str, side: Profiles) -> pd.DataFrame | None:
        found = ratio_parts(metric, side.get("score"), side.get("prediction"), side)
        if found is None:
            return None
        # Whatever the ratio is of: all columns of a family have the same cells.
        cells = next(iter(side.values())).cells
        index = pd.MultiIndex.from_frame(cells[list(_SLICE)])
        return pd.DataFrame({"numerator": found[0], "denominator": found[1]}, index=index)

    def _compared(self, metric: str) -> pd.DataFrame:
        """Return the slices of either side with both values and the test of their difference."""
        now, then = (
            side[side["metric"] == metric].set_index(list(_SLICE))[list(_COMPARED)]
            for side in self.values
        )
        both = now.join(then.add_suffix("0"), how="outer").reset_index()
        counts = ["n", "n0", "n_windows", "n_windows0"]
        both[counts] = both[counts].fillna(0).astype(np.int64)
        low, high, p = _difference(both)
        thin = both[["n", "n0"]].min(axis=1) < self.min_rows
        small = both["slice_key"].str.endswith(_SMALL)
        known = (small, both["n0"] == 0, both["n"] == 0, thin)
        notes = [*(note.to_numpy() for note in known), np.isnan(p)]
        return both.assign(
            metric=metric,
            note=np.select(notes, ["small", "new", "gone", "few_rows", "few_windows"], ""),
            n_baseline=both["n0"],
            n_baseline_windows=both["n_windows0"],
            baseline_value=both["value0"],
            change=both["value"] - both["value0"],
            change_lower=low,
            change_upper=high,
            p_value=np.where(thin, np.nan, p),
        )


def _labelled(side: Profiles) -> pd.Series[float]:
    """Return the rows with ground truth per slice."""
    if not any(stats.binning.kind in _SAYS_LABELLED for stats in side.values()):
        index = pd.MultiIndex.from_arrays([[], []], names=_SLICE)
        return pd.Series(np.zeros(0), index=index)
    stats = next(s for s in side.values() if s.binning.kind in _SAYS_LABELLED)
    if stats.binning.kind == "loss":
        counts = stats.counts[:, 0]
    elif stats.binning.kind == "classes":
        counts = class_counts(stats.binning, stats.counts)[0].sum(axis=(1, 2))
    else:
        counts = label_counts(stats.counts)[:, :, 1:].sum(axis=(1, 2))
    index = pd.MultiIndex.from_frame(stats.cells[list(_SLICE)])
    return pd.Series(counts.astype(np.float64), index=index).groupby(level=[0, 1]).sum()


def _put_together(profiles: Profiles, small: pd.MultiIndex) -> dict[str, ColumnStatistics]:
    """Make one slice value of the small ones of a slice key, in each window."""
    frames = {id(stats.cells): stats.cells for stats in profiles.values()}
    renamed = {key: _renamed(cells, small) for key, cells in frames.items()}
    found = {n: replace(stats, cells=renamed[id(stats.cells)]) for n, stats in profiles.items()}
    return merge_columns(found, ("window_start", *_SLICE))


def _renamed(cells: pd.DataFrame, small: pd.MultiIndex) -> pd.DataFrame:
    n_values = small.get_level_values(0).value_counts()
    keys = cells["slice_key"]
    index = pd.MultiIndex.from_frame(cells[list(_SLICE)])
    is_small = index.isin(small) & (keys != ALL).to_numpy()
    named = keys.map(lambda key: f"({n_values.get(key, 0)} smaller)")
    return cells.assign(
        slice_key=keys.where(~is_small, keys + _SMALL),
        slice_value=cells["slice_value"].where(~is_small, named),
    )


def _rejoined(frame: pd.DataFrame) -> pd.DataFrame:
    """Return small values to the slice key that they belong to."""
    return frame.assign(slice_key=frame["slice_key"].str.removesuffix(_SMALL))


def _whole_table(
    spec: ModelSpec, family: MetricFamily, metrics: Sequence[str], side: Profiles
) -> pd.DataFrame:
    frame = measure(spec, family, side, None, metrics)
    if family == BUSINESS or spec.evaluations:
        of_one = frame["column_name"] != TABLE
        named = frame["metric"] + "/" + frame["column_name"]
        frame = frame.assign(metric=frame["metric"].mask(of_one, named), column_name=TABLE)
    return frame[frame["column_name"] == TABLE]


def _difference(both: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Return the 95 % interval of the change and the p-value of no change.

    Of Newcombe's by the rows and Student's by the windows the wider one.
    """

    def side(name: str) -> Floats:
        return both[name].to_numpy(np.float64)

    difference = side("value") - side("value0")
    down = np.hypot(side("value") - side("lower"), side("upper0") - side("value0"))
    up = np.hypot(side("upper") - side("value"), side("value0") - side("lower0"))
    margin = np.where(difference > 0, down, up)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(difference == 0, 0.0, np.abs(difference) / margin * Z95)
    windows = change(
        difference, side("error"), side("n_windows"), side("error0"), side("n_windows0")
    )
    down, up = np.fmax(down, windows.margin), np.fmax(up, windows.margin)
    p_value = np.maximum(2 * special.ndtr(-z), windows.p_value)
    return difference - down, difference + up, p_value


def _finished(frame: pd.DataFrame, method: Method, metric: str) -> pd.DataFrame:
    frame = frame.assign(method=method)
    is_whole = frame["slice_key"] == ALL
    tested = frame["p_value"].where(~is_whole)
    frame["p_adjusted"] = np.where(is_whole, frame["p_value"], benjamini_hochberg(list(tested)))
    frame["is_real"] = frame["p_adjusted"] <= Q
    frame = frame.reindex(columns=list(COLUMNS))
    if (better := is_higher_better(metric)) is not None:
        harm = -1.0 if better else 1.0
    else:
        harm = 1.0 if frame.loc[is_whole, "change"].iloc[0] >= 0 else -1.0
    by = "effect" if method == "exact" else "change"
    order = frame.assign(
        whole=~is_whole,
        chance=~frame["is_real"] if method == "own_change" else False,
        harm=-harm * frame[by],
    )
    keys = ["whole", "chance", "harm", "slice_key", "slice_value"]
    return frame.loc[order.sort_values(keys, kind="stable").index].reset_index(drop=True)
