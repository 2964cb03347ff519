"""What a page shows of profiles: histograms and residuals beside the baseline's, and slices."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics import Flags
from mlmon_dagster.metrics.binnings import (
    coarse_counts,
    label_counts,
    merge_bins,
    round_bins,
    round_edges,
    score_midpoints,
)
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics
from mlmon_dagster.monitors.wording import as_judged, limit_of, named
from mlmon_dagster.profiles import Baseline, baseline_in_force
from mlmon_dagster.profiles.measures import measure
from mlmon_dagster.report.charts import Bars, number, places_of, write_scale
from mlmon_dagster.report.curves import Asked
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import SliceKey
from mlmon_dagster.spec.metric_registry import info_of, is_higher_better
from mlmon_dagster.spec.names import ALL, BUSINESS, PERFORMANCE
from mlmon_dagster.spec.tasks import RESIDUAL
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.tables.alerts import is_personal
from mlmon_dagster.tables.periods import History, periods_named
from mlmon_dagster.trace.slices import MIN_ROWS, default_metrics, measured_from

_NO_VALUE, _UNSEEN = "no value", "not in the baseline"
_WORST = ("ERROR", "WARN", "OK")
_FARTHEST = 3  # widths of its neighbour that an open bin is drawn at most
MOST_CATEGORIES = 14
MOST_SLICES = 12
_SCORE_BINS = 20
Period = tuple[dt.datetime, dt.datetime]  # start of the first window, end of the last
Ints = NDArray[np.int64]


def profiles_of(
    store: Store, spec: ModelSpec, columns: Sequence[str], period: Period, asked: Asked
) -> dict[str, ColumnStatistics]:
    """Return column -> profiles of some windows, of the slice that is asked for."""
    key = () if asked.slice_key == ALL else tuple(asked.slice_key.split(","))
    return baseline_in_force(store, spec).profiles(
        start=period[0], end=period[1], dataset=PRODUCTION, columns=columns, slices=[key]
    )


def find_cells(stats: ColumnStatistics, asked: Asked, version: str) -> Flags:
    """Say which cells are of a slice, and of a version, (C,)."""
    cells = stats.cells
    mine = (cells["slice_key"] == asked.slice_key) & (cells["slice_value"] == asked.slice_value)
    if version != ALL:
        mine &= cells["model_version"] == version
    return np.asarray(mine.to_numpy(), bool)


@dataclass(frozen=True)
class Side:
    """What one side counted of a column."""

    counts: Ints
    n: int
    n_null: int


def side_of(stats: ColumnStatistics | None, asked: Asked, version: str = ALL) -> Side | None:
    """Add up the cells of a slice, and of a version; None without any row."""
    if stats is None or not len(stats):
        return None
    kept = find_cells(stats, asked, version)
    n = int(stats.n[kept].sum())
    nulls = int(stats.n_null[kept].sum() + stats.n_nan[kept].sum())
    return Side(stats.counts[kept].sum(axis=0), n, nulls) if n else None


def histograms(
    spec: ModelSpec,
    profiles: Mapping[str, ColumnStatistics],
    baseline: Baseline,
    asked: Asked,
) -> list[Bars]:
    """Return a histogram of each column now over the baseline's; columns of personal values not.

    Args:
        spec: The model.
        profiles: Of the windows that are shown.
        baseline: Theirs.
        asked: Which slice and version.
    """
    found = []
    for name, stats in profiles.items():
        if is_personal(spec, name):
            continue
        sides = _both_sides(name, stats, baseline, asked)
        bars = _histogram(name, stats.binning, *sides) if sides else None
        if bars is not None and stats.binning.kind == "categorical" and _is_hidden(spec, name):
            bars = _without_names(bars)
        if bars is not None:
            found.append(bars)
    return found


def _both_sides(
    name: str, stats: ColumnStatistics | None, baseline: Baseline | None, asked: Asked
) -> tuple[Side, Side] | None:
    """Return a column's windows and baseline; None unless both have rows in the same bins."""
    base = baseline.windows.get(name) if baseline else None
    now, then = side_of(stats, asked, asked.model_version), side_of(base, asked)
    if stats is None or base is None or now is None or then is None:
        return None
    return (now, then) if base.binning.binning_id == stats.binning.binning_id else None


@dataclass(frozen=True)
class ColumnCard:
    """A column as people look it over: its shape now and before, and what its monitors say.

    Attributes:
        bars: Its histogram.
        status: The worst verdict on it of the newest window that was judged; ``-`` if none is.
        facts: Nulls, unseen values and distance, now and in the baseline, in words.
        distance: How far beyond chance it is from the baseline; None if that is not measured.
        nulls: Share of nulls now.
    """

    bars: Bars
    status: str
    facts: Sequence[str]
    distance: float | None
    nulls: float


def column_cards(
    spec: ModelSpec, bars: Sequence[Bars], verdicts: Sequence[MonitorResult]
) -> list[ColumnCard]:
    """Return the cards of some columns, the worst verdict first, then by distance.

    Args:
        spec: The model.
        bars: Their histograms.
        verdicts: The standing verdicts of the model.
    """
    method = spec.monitors.drift.method
    by_column: dict[str, list[MonitorResult]] = {}
    for verdict in verdicts:
        if verdict["slice_key"] == ALL and verdict["status"] in _WORST:
            by_column.setdefault(verdict["column_name"], []).append(verdict)
    cards = []
    for one in bars:
        judged = by_column.get(one.id, [])
        status = min((v["status"] for v in judged), key=_WORST.index, default="-")
        shift = next((v for v in judged if v["metric"] == method), None)
        distance = as_judged(shift)["value"] if shift else None
        shares = dict(zip(one.bins, zip(one.now, one.then, strict=True), strict=True))
        facts = []
        for label, bin_name in (("null", _NO_VALUE), ("not in the baseline", _UNSEEN)):
            now, then = shares.get(bin_name, (0.0, 0.0))
            if now or then:
                facts.append(f"{label} {_percent(now)}, before {_percent(then)}")
        if shift is not None and distance is not None:
            bound, chance = limit_of(shift), shift["baseline_value"]
            limit = "" if bound is None else f", limit {bound:.3g}"
            given = "" if chance is None else f" (chance gives {chance:.3g})"
            facts.append(f"{named(method)} {shift['value']:.3g}{given}{limit}")
        nulls = shares.get(_NO_VALUE, (0.0, 0.0))[0]
        cards.append(ColumnCard(one, status, facts, distance, nulls))
    order = [*_WORST, "-"]
    return sorted(cards, key=lambda card: (order.index(card.status), -(card.distance or 0.0)))


def _percent(share: float) -> str:
    return f"{share:.3g} %" if (share := 100 * share) < 99.95 else "100 %"


def _is_hidden(spec: ModelSpec, name: str) -> bool:
    """Tell whether the values of a feature may not be shown."""
    return name in spec.features and not spec.shows_values_of(name)


def _without_names(bars: Bars) -> Bars:
    """Number the values of a column that may hold personal ones, the commonest first."""
    known = len(bars.bins) - (3 if bars.bins[-1] == _NO_VALUE else 2)  # others, not in the baseline
    numbered = [f"value {i + 1}" for i in range(known)]
    said = f"{bars.said}; values are not shown: personal"
    return replace(bars, bins=[*numbered, *bars.bins[known:]], said=said)


def _histogram(name: str, binning: Binning, now: Side, then: Side) -> Bars | None:
    bins, sides = _bins(binning, [now.counts, then.counts])
    if not bins:
        return None
    if now.n_null or then.n_null:
        bins = [*bins, _NO_VALUE]
        sides = [np.append(sides[0], now.n_null), np.append(sides[1], then.n_null)]
    shares = [side / max(side.sum(), 1) for side in sides]
    return Bars(
        named(name),
        bins,
        shares[0].tolist(),
        shares[1].tolist(),
        f"{now.n:,} rows, baseline {then.n:,}",
        name,
        _place_bins(binning),
        is_named=binning.kind in ("categorical", "confusion"),
    )


def _place_bins(binning: Binning) -> list[float]:
    """Return where the bins of a scale of numbers begin and end; [] of bins that are not on one.

    The outer bins are open: they reach to the baseline's extremes, but not so far that one value
    far away leaves no room for the others.
    """
    if binning.kind == "score":
        return [i / _SCORE_BINS for i in range(_SCORE_BINS + 1)]
    edges = list(round_edges(binning))
    if binning.kind != "numeric" or binning.values or len(edges) < 2:
        return []
    first, last = edges[1] - edges[0], edges[-1] - edges[-2]
    low = min(max(edges[0] - binning.low, first / 2), _FARTHEST * first)
    high = min(max(binning.high - edges[-1], last / 2), _FARTHEST * last)
    return [edges[0] - low, *edges, edges[-1] + high]


def _bins(binning: Binning, sides: Sequence[Ints]) -> tuple[list[str], list[Ints]]:
    """Name the bins that people see of a binning, and count the sides in them."""
    if binning.kind == "numeric":
        labels = round_bins(binning)
        counts = [merge_bins(coarse_counts(binning, side[None]), labels)[0] for side in sides]
        return _numeric_names(binning), counts
    if binning.kind == "categorical":
        return _categories(binning, sides)
    if binning.kind == "score":
        places = np.minimum((score_midpoints(binning) * _SCORE_BINS).astype(int), _SCORE_BINS - 1)
        counts = [
            np.bincount(places, label_counts(side[None])[0].sum(axis=1), _SCORE_BINS).astype(int)
            for side in sides
        ]
        step = 1 / _SCORE_BINS
        return [f"{i * step:.2f} to {(i + 1) * step:.2f}" for i in range(_SCORE_BINS)], counts
    if binning.kind == "confusion":
        return ["0", "1"], [label_counts(side[None])[0].sum(axis=1) for side in sides]
    return [], []


def _numeric_names(binning: Binning) -> list[str]:
    if binning.values:
        low, *inner, high = write_scale([binning.low, *binning.values[1:-1], binning.high])
        return [f"below {low}", *inner, f"above {high}"]
    edges = write_scale(round_edges(binning))
    if not edges:
        return ["all values"]
    between = [f"{low} to {high}" for low, high in pairwise(edges)]
    return [f"up to {edges[0]}", *between, f"above {edges[-1]}"]


def _categories(binning: Binning, sides: Sequence[Ints]) -> tuple[list[str], list[Ints]]:
    known = len(binning.categories)
    order = np.argsort(-(sides[0][:known] + sides[1][:known]), kind="stable")
    shown, rest = order[:MOST_CATEGORIES], order[MOST_CATEGORIES:]
    counts = [
        np.array([*side[shown], side[rest].sum() + side[known], side[known + 1]]) for side in sides
    ]
    names = [binning.categories[i] for i in shown]
    return [*names, "others", _UNSEEN], counts


def residuals_of(
    stats: ColumnStatistics | None, baseline: Baseline | None, asked: Asked
) -> Bars | None:
    """Return the residuals of a regression over the baseline's; None without ground truth."""
    known = _both_sides(RESIDUAL, stats, baseline, asked)
    if stats is None or known is None or not known[0].counts.sum():
        return None
    bins, sides = _bins(stats.binning, [side.counts for side in known])
    now, then = (side / max(side.sum(), 1) for side in sides)
    n, before = (int(side.counts.sum()) for side in known)
    said = f"{n:,} rows with ground truth, baseline {before:,}"
    return Bars("Actual less predicted", bins, now.tolist(), then.tolist(), said)


# Slices over longer windows


@dataclass(frozen=True)
class SliceTable:
    """A metric of the values of a slice key over months or weeks.

    Attributes:
        key: The slice key.
        metric: What the metric is called.
        periods: Names of the months or weeks.
        rows: Of each value its name, the baseline's number, and of each period the number and how
            far it is worse than the slice's own baseline: 0 not, 1 past the limit, 2 twice as far.
        n_more: Values that are left out.
    """

    key: str
    metric: str
    periods: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[tuple[str, int]]]]
    n_more: int


def list_sliced_keys(spec: ModelSpec) -> list[SliceKey]:
    """Return the slice keys that have a table: single columns that hold nobody's data."""
    return [key for key in spec.slices if len(key) == 1 and not is_personal(spec, key[0])]


def list_sliced_columns(spec: ModelSpec) -> list[str]:
    """Return the profiled columns that tables of slices are made of; none of business metrics."""
    metric = default_metrics(spec)[0]
    if info_of(metric).family == BUSINESS or not list_sliced_keys(spec):
        return []
    return measured_from(spec, PERFORMANCE, [metric])


def slice_tables(
    spec: ModelSpec,
    baseline: Baseline | None,
    history: History,
    period: Period | None = None,
) -> list[SliceTable]:
    """Return a table for every column that the model is sliced by, of its first metric.

    Args:
        spec: The model.
        baseline: Whose numbers stand beside; None while there is none.
        history: Holds `list_sliced_columns` of `list_sliced_keys`.
        period: Windows; all of the history by default.
    """
    metric, keys = default_metrics(spec)[0], list_sliced_keys(spec)
    coarse = history.merge(list_sliced_columns(spec), keys, *(period or ()))
    if not coarse:
        return []
    frame = measure(spec, PERFORMANCE, coarse, None, [metric])
    frame = frame[(frame["metric"] == metric) & (frame["slice_key"] != ALL)]
    known = _own(spec, metric, baseline)
    allowed = next(
        (m for m in spec.monitors.performance if str(m.metric) == metric and m.is_relative), None
    )
    sign = 1 if is_higher_better(metric) else -1
    found = []
    for (key,) in keys:
        mine = frame[frame["slice_key"] == key]
        if mine.empty:
            continue
        starts = sorted(mine["window_start"].unique())[-13:]
        sizes = mine.groupby("slice_value")["n"].sum().sort_values(ascending=False)
        cells = mine.drop_duplicates(["slice_value", "window_start"], keep="last")
        places = min(places_of(cells["value"].dropna().tolist()), 3)
        table = cells.assign(value=cells["value"].where(cells["n"] >= MIN_ROWS)).pivot(
            index="slice_value", columns="window_start", values="value"
        )
        rows = []
        for value in map(str, sizes.index[:MOST_SLICES]):
            usual = known.get((key, value), math.nan)
            limit = allowed.allowed(usual) if allowed is not None and usual == usual else 0.0
            told = [
                (number(one, places), _level(sign * (usual - one), limit))
                for one in table.loc[[value], starts].to_numpy()[0].tolist()
            ]
            rows.append((value, number(usual, places), told))
        periods = periods_named(spec, starts)
        n_more = max(len(sizes) - MOST_SLICES, 0)
        found.append(SliceTable(key, named(metric), periods, rows, n_more))
    return found


def _level(worse: float, limit: float) -> int:
    """Say how far a number is worse than allowed: 0 not, 1 past the limit, 2 twice as far."""
    if not limit or not worse > limit:
        return 0
    return 2 if worse > 2 * limit else 1


def _own(spec: ModelSpec, metric: str, baseline: Baseline | None) -> dict[tuple[str, str], float]:
    """Return slice key and value -> the baseline's own number."""
    if baseline is None:
        return {}
    pooled = {
        name: baseline.pooled(name)
        for name in measured_from(spec, PERFORMANCE, [metric])
        if name in baseline.windows
    }
    frame = measure(spec, PERFORMANCE, pooled, None, [metric])
    frame = frame[frame["metric"] == metric]
    keys = zip(frame["slice_key"], frame["slice_value"], strict=True)
    return dict(zip(keys, frame["value"].astype(float), strict=True))
