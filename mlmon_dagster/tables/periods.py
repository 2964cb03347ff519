"""A model's numbers over longer windows than its own: months, or weeks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.families.registry import JUDGED_BY
from mlmon_dagster.metrics.frames import concat_frames
from mlmon_dagster.metrics.statistics import (
    CELL_KEYS,
    Binning,
    ColumnStatistics,
    all_over_versions,
    concat,
    merge,
    of_all,
)
from mlmon_dagster.monitors.wording import NAMES
from mlmon_dagster.profiles import Baseline, baseline_in_force, load_baseline
from mlmon_dagster.profiles.baseline import scored_columns
from mlmon_dagster.profiles.estimates import estimate, estimate_columns
from mlmon_dagster.profiles.measures import (
    MEASURES,
    columns_of,
    main_output,
    measure,
    performance_columns,
)
from mlmon_dagster.profiles.storage import from_rows, name_key, read_rows
from mlmon_dagster.spec import ModelSpec, granularity_windows, window_containing
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import Granularity, SliceKey, is_told_in_money
from mlmon_dagster.spec.metric_registry import BINARY, METRICS, MetricFamily, of_outcome
from mlmon_dagster.spec.names import ALL, BUSINESS, DRIFT, PERFORMANCE, TABLE
from mlmon_dagster.spec.tasks import shown_series
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.state.window_state import WindowInputs

NONE = "\N{EN DASH}"
PERIODS_SHOWN = 13
# Windows of a week do not fit into months.
_PERIOD: dict[Granularity, Granularity] = {
    "hour": "month",
    "day": "month",
    "week": "week",
    "month": "month",
}
_SIZES = ["window_start", "model_version", "n"]
LENGTHS: tuple[Granularity, ...] = ("hour", "day", "week", "month")

# What a row says of a task; the first has its interval beside it.


@dataclass(frozen=True)
class Period:
    """Numbers of one month, or of one week for a model with weekly windows; texts to be shown.

    Attributes:
        name: Such as ``2013-04``.
        n: Predictions.
        coverage: Share of them with ground truth.
        values: A text for each of `period_names`.
    """

    name: str
    n: str
    coverage: str
    values: tuple[str, ...]


def period_names(spec: ModelSpec) -> list[str]:
    """Return what the values of a `Period` are called."""
    first, *others = map(_name_series, shown_series(spec))
    drift = [f"PSI of the {name}" for name in _outputs(spec)]
    return [f"{first} (95 %)", *others, *drift]


def _name_series(series: str) -> str:
    """Return what people read for a metric, after it the evaluation that it is of."""
    metric, _, column = series.partition("/")
    return f"{NAMES.get(metric, metric)} {column}".strip()


class History:
    """Stored profiles of a model's windows in production, read once for all that is asked of them.

    Each window is a file, and to open a year of them costs more than to read what they hold.

    Args:
        store: The store.
        spec: The model.
        columns: Profiled columns that may be asked for.
        slices: Slice keys that may be asked for; ``()`` is the whole.
        start: Start of the first window that may be asked for; all by default.
    """

    def __init__(
        self,
        store: Store,
        spec: ModelSpec,
        columns: Sequence[str],
        slices: Sequence[SliceKey] = ((),),
        start: dt.datetime | None = None,
    ) -> None:
        self._spec = spec
        self._binnings = baseline_in_force(store, spec).binnings
        self._rows = read_rows(
            store, spec, dict.fromkeys(columns), start=start, dataset=PRODUCTION, slices=slices
        )

    def profiles(
        self, columns: Sequence[str], slices: Sequence[SliceKey] = ((),)
    ) -> dict[str, ColumnStatistics]:
        """Return column -> statistics of the windows, as `load_profiles` does."""
        return from_rows(self._select(columns, slices), self._bins(columns))

    def merge(
        self,
        columns: Sequence[str],
        slices: Sequence[SliceKey] = ((),),
        start: dt.datetime | None = None,
        end: dt.datetime | None = None,
    ) -> dict[str, ColumnStatistics]:
        """Return column -> statistics of months (or weeks), one of them unfolded at a time.

        Args:
            columns: Profiled columns.
            slices: Slice keys.
            start: Of windows that start at or after this moment.
            end: Of windows that start before this moment.
        """
        grain, rows = period_of(self._spec), self._select(columns, slices)
        if rows.num_rows and start is not None:
            rows = rows.filter(pc.greater_equal(rows.column("window_start"), pa.scalar(start)))
        if rows.num_rows and end is not None:
            rows = rows.filter(pc.less(rows.column("window_start"), pa.scalar(end)))
        if not rows.num_rows:
            return {}
        starts = rows.column("window_start").to_pandas()
        months = _coarse_starts(self._spec, starts, grain)
        parts: dict[str, list[ColumnStatistics]] = {}
        for month in np.unique(months):
            found = from_rows(rows.filter(pa.array(months == month)), self._bins(columns))
            for name, stats in found.items():
                parts.setdefault(name, []).append(coarsen(self._spec, stats, grain))
        return {name: concat(found) for name, found in parts.items()}

    def sizes(self, column: str) -> pd.DataFrame:
        """Return start, version and rows of all windows, as a profiled column has them."""
        rows = self._select([column], [()])
        sizes: pd.DataFrame = rows.select(_SIZES if rows.num_rows else []).to_pandas()
        return sizes

    def _select(self, columns: Sequence[str], slices: Sequence[SliceKey]) -> pa.Table:
        if not self._rows.num_rows:
            return self._rows
        names, keys = (pa.array(wanted, pa.string()) for wanted in (columns, map(name_key, slices)))
        return self._rows.filter(
            pc.and_(
                pc.is_in(self._rows.column("column_name"), names),
                pc.is_in(self._rows.column("slice_key"), keys),
            )
        )

    def _bins(self, columns: Sequence[str]) -> dict[str, Binning]:
        return {name: bins for name, bins in self._binnings.items() if name in columns}


def list_period_columns(spec: ModelSpec) -> list[str]:
    """Return the profiled columns that `periods_of` is computed from."""
    return list(dict.fromkeys([*_list_realized(spec), *scored_columns(spec), *_outputs(spec)]))


def _list_realized(spec: ModelSpec) -> list[str]:
    return ["score", "prediction"] if spec.task == BINARY else performance_columns(spec)


def find_first_period(
    spec: ModelSpec, states: Mapping[dt.datetime, WindowInputs]
) -> dt.datetime | None:
    """Return the start of the first month (or week) that `periods_of` tells; None without any."""
    starts = {window_containing(spec.time, start, period_of(spec)).start for start in states}
    return next(iter(sorted(starts)[-PERIODS_SHOWN:]), None)


def periods_of(
    store: Store,
    spec: ModelSpec,
    baseline: Baseline | None,
    states: Mapping[dt.datetime, WindowInputs] | None = None,
    history: History | None = None,
) -> list[Period]:
    """Return the newest 13 months (or weeks), oldest first, merged from the stored profiles.

    The estimate is by plain CBPE, without weights, which would need the baseline's rows.

    Args:
        store: The store.
        spec: The model.
        baseline: Its baseline; None while it has none.
        states: Of all its windows, if they have been read already.
        history: Holds `list_period_columns` since `find_first_period`, if it has been read already.
    """
    states = window_state.load(store.state, spec.model) if states is None else states
    grain = period_of(spec)
    realized, scored = _list_realized(spec), scored_columns(spec)
    columns = list_period_columns(spec)
    if history is None:
        history = History(store, spec, columns, start=find_first_period(spec, states))
    profiles = history.profiles(columns)
    metrics = (series.partition("/")[0] for series in shown_series(spec))
    shown = [metric for metric in metrics if metric in METRICS]
    merged = {name: coarsen(spec, stats, grain) for name, stats in profiles.items()}
    coarse = {name: merged[name] for name in realized if name in merged}
    if not coarse:
        return []
    # Of a binary classifier one interval is shown, of the area where there are scores.
    intervals = list(coarse)[:1] if spec.task == BINARY else coarse
    whole = {} if baseline is None else baseline.windows
    drift_spec = spec.model_copy(update={"features": {}})  # of the output alone
    output = {name: merged[name] for name in _outputs(spec) if name in merged}
    frame = concat_frames(
        [
            by_windows(
                spec,
                PERFORMANCE,
                {name: profiles[name] for name in intervals},
                grain,
                measure(spec, PERFORMANCE, coarse, None, shown),
            ),
            measure(drift_spec, DRIFT, output, {k: whole[k] for k in output if k in whole}),
            # Without the inputs' profiles nothing is weighted, so that no rows are read.
            estimate(store, spec, {n: merged[n] for n in scored if n in merged}, baseline)
            if scored
            else concat_frames([]),
        ]
    )
    frame = frame[frame["slice_key"] == ALL]
    sizes = _sizes(spec, states, grain)
    newest = sorted(frame["window_start"].unique())[-PERIODS_SHOWN:]
    return [
        _period(
            spec,
            start,
            sizes.get(start.to_pydatetime(), (0, None)),
            frame[frame["window_start"] == start],
        )
        for start in newest
    ]


def period_of(spec: ModelSpec) -> Granularity:
    """Return the length of the longer windows that a model is told by: months, or weeks."""
    return _PERIOD[spec.time.granularity]


def periods_named(spec: ModelSpec, starts: Sequence[pd.Timestamp]) -> list[str]:
    """Name months as ``2013-04`` and weeks by their first day."""
    written = "%Y-%m" if period_of(spec) == "month" else "%Y-%m-%d"
    zone = ZoneInfo(spec.time.zone)
    return [start.to_pydatetime().astimezone(zone).strftime(written) for start in starts]


def _outputs(spec: ModelSpec) -> list[str]:
    """Return the output whose drift a row says, if the model logs one."""
    output = main_output(spec)
    return [output] if output else []


def _sizes(
    spec: ModelSpec, states: Mapping[dt.datetime, WindowInputs], grain: Granularity
) -> dict[dt.datetime, tuple[int, float | None]]:
    """Return start of a month or week -> its predictions, and the share with ground truth."""
    sums: dict[dt.datetime, list[int]] = {}
    for start, state in states.items():
        period = sums.setdefault(window_containing(spec.time, start, grain).start, [0, 0, 0])
        for i, n in enumerate((state.n, state.n_actual, state.n_expected)):
            period[i] += n
    return {start: (n, known / due if due else None) for start, (n, known, due) in sums.items()}


def _period(
    spec: ModelSpec,
    start: pd.Timestamp,
    size: tuple[int, float | None],
    frame: pd.DataFrame,
) -> Period:
    known = spec.evaluations
    rows = {
        of_outcome(row["metric"], row["column_name"] if row["column_name"] in known else None): row
        for row in frame.to_dict("records")
        if row["column_name"] in (TABLE, *_outputs(spec), *known)
    }
    first, *others = (
        decimal(rows[series]["value"]) if series in rows else NONE
        for series in (*shown_series(spec), *(["psi"] if _outputs(spec) else []))
    )
    if first != NONE:
        found = rows[shown_series(spec)[0]]
        ends = [decimal(found[end]) for end in ("lower", "upper")]
        first += f" ({' to '.join(ends)})" if NONE not in ends else ""
    n, coverage = size
    return Period(
        name=periods_named(spec, [start])[0],
        n=f"{n:,}",
        coverage=f"{coverage:.1%}" if coverage is not None else NONE,
        values=(first, *others),
    )


def decimal(value: float, places: int = 3) -> str:
    """Write a number with a fixed number of places; a dash for none."""
    return NONE if value is None or value != value else f"{value:.{places}f}"


def rolled_up_metrics(
    store: Store,
    spec: ModelSpec,
    granularity: Granularity,
    start: dt.datetime | None = None,
    end: dt.datetime | None = None,
    keys: Sequence[SliceKey] = (),
) -> pd.DataFrame:
    """Return the MetricFrame of all families for windows of another length.

    Slices are those that are stored of the model's own windows, and those of some keys.

    Args:
        store: The store.
        spec: The model.
        granularity: Length of the windows, not shorter than the model's own.
        start: Profiles of windows that start at or after this moment.
        end: Profiles of windows that start before this moment.
        keys: Slice keys.

    Raises:
        ConfigError: If the windows asked for are shorter than the profiles, or do not hold whole
            ones (a week that is cut by the end of a month is no part of either month).
    """
    _refuse_finer(spec, granularity)
    newest, baseline = baseline_in_force(store, spec), load_baseline(store, spec)
    frames = []
    for family in MEASURES:
        names = columns_of(spec, family)
        is_stored = JUDGED_BY[family].made.slices(spec) == "stored"
        profiles = newest.profiles(
            start=start,
            end=end,
            dataset=PRODUCTION,
            columns=names,
            slices=None if is_stored else [(), *keys],
        )
        coarse = {c: coarsen(spec, stats, granularity) for c, stats in profiles.items()}
        if coarse:
            frame = measure(spec, family, coarse, baseline.windows if baseline else None)
            if family in get_args(MetricFamily):
                frame = by_windows(spec, family, profiles, granularity, frame)
            frames.append(frame)
    if spec.task in ("binary_classification", "multiclass_classification"):
        profiles = newest.profiles(
            start=start, end=end, dataset=PRODUCTION, columns=estimate_columns(spec), slices=[()]
        )
        coarse = {c: coarsen(spec, stats, granularity) for c, stats in profiles.items()}
        if coarse:
            frames.append(estimate(store, spec, coarse, baseline))
    return concat_frames(frames)


def _refuse_finer(spec: ModelSpec, granularity: Granularity) -> None:
    own = spec.time.granularity
    if LENGTHS.index(granularity) < LENGTHS.index(own) or (
        own == "week" and granularity == "month"
    ):
        raise ConfigError(
            f"Model {spec.model!r} has {own} windows; they cannot be merged to {granularity}s. "
            f"Ask for {own} or a longer window that holds whole ones."
        )


def by_windows(
    spec: ModelSpec,
    family: str,
    profiles: Mapping[str, ColumnStatistics],
    granularity: Granularity,
    frame: pd.DataFrame,
) -> pd.DataFrame:
    """Widen intervals of longer windows to what the windows in them stray.

    Of slice ``all``, and where a longer window holds enough of the model's own; others stay as they
    are, by rows (see `metrics.windows.clusters`).

    Args:
        spec: The model.
        family: Whose metrics.
        profiles: Of the model's own windows.
        granularity: Length of the windows of ``frame``.
        frame: MetricFrame of the family.

    Returns:
        ``frame``; `method_version` ends in ``:windows`` where that was looked at.
    """  # fmt: skip
    from mlmon_dagster.metrics.windows.clusters import SERIES, interval, standard_errors

    own = all_over_versions(of_all(profiles))
    # All longer windows at once, each by its start in the place of a slice's value.
    frames = {id(s.cells): s.cells for s in own.values() if len(s)}
    starting = {
        key: cells.assign(
            slice_value=_coarse_starts(spec, cells["window_start"], granularity).astype(str)
        )
        for key, cells in frames.items()
    }
    named = {c: replace(s, cells=starting[id(s.cells)]) for c, s in own.items() if len(s)}
    if not named or frame.empty:
        return frame
    metrics = frame["metric"].unique()
    errors = standard_errors(
        named, lambda cells: measure(spec, family, cells, None, metrics)
    ).reset_index()
    starts = pd.to_datetime(errors["slice_value"]).dt.as_unit("us").dt.tz_localize("UTC")
    errors = errors.assign(window_start=starts, slice_value=ALL)
    known = frame.merge(errors, on=["window_start", *SERIES], how="left")
    lower, upper = interval(known["value"], known["error"], known["n_windows"])
    counted = np.where(np.isfinite(upper - lower), ":windows", "")
    low, high = (
        frame["metric"].map({name: getattr(info, end) for name, info in METRICS.items()})
        for end in ("low", "high")
    )
    # All known rows are counted in a sum; a window more or less is another sum. And where no
    # interval of the rows can be trusted, none of the windows can.
    none = (frame["metric"].str.startswith("total_") | frame["reason"].ne("")).to_numpy()
    lower, upper = np.where(none, np.nan, lower), np.where(none, np.nan, upper)
    return frame.assign(
        lower=np.fmin(frame["lower"], np.maximum(lower, low)),
        upper=np.fmax(frame["upper"], np.minimum(upper, high)),
        method_version=frame["method_version"] + counted,
    )


def coarsen(spec: ModelSpec, stats: ColumnStatistics, granularity: Granularity) -> ColumnStatistics:
    """Merge the cells of a column to longer windows, which hold whole ones of the model's own."""
    if not len(stats):
        return stats
    of_cells = _coarse_starts(spec, stats.cells["window_start"], granularity)
    starts = pd.Series(of_cells, index=stats.cells.index)
    cells = stats.cells.assign(window_start=starts.dt.tz_localize("UTC"))
    return merge(replace(stats, cells=cells), CELL_KEYS)


def _coarse_starts(
    spec: ModelSpec, starts: pd.Series[pd.Timestamp], granularity: Granularity
) -> NDArray[np.datetime64]:
    """Return the start (UTC) of the longer window of each window, of which there is one or more."""
    windows = granularity_windows(
        spec.time,
        granularity,
        starts.min().to_pydatetime(),
        starts.max().to_pydatetime() + dt.timedelta(seconds=1),
    )
    edges = pd.DatetimeIndex([w.start for w in windows]).as_unit("us")
    place = (
        np.searchsorted(edges.asi8, pd.DatetimeIndex(starts).as_unit("us").asi8, side="right") - 1
    )
    return np.asarray(edges.tz_localize(None).to_numpy()[place])


def business_line(store: Store, spec: ModelSpec, start: dt.datetime, end: dt.datetime) -> str:
    """Say how the model did, what came of it and what that is worth, from stored profiles.

    Args:
        store: The store.
        spec: The model.
        start: Windows that start at or after this moment; usual are those of 28 lengths before.
        end: Windows that start before this moment.

    Returns:
        Such as "ROC AUC 0.70 (usually 0.71); conversion is 1.2 % below usual ..."; empty of a
        model that declares nothing of it, and where no outcome is known.
    """
    if not is_told_in_money(spec):
        return ""
    from mlmon_dagster.monitors.wording import named, number
    from mlmon_dagster.profiles.in_force import baseline_in_force
    from mlmon_dagster.profiles.measures import columns_of
    from mlmon_dagster.trace.money import BEFORE, money_of
    from mlmon_dagster.trace.slices import compare_slices, default_metrics, profiled_for

    metric = default_metrics(spec)[0]
    names = list(dict.fromkeys([*columns_of(spec, BUSINESS), *profiled_for(spec, [metric])]))
    window = window_containing(spec.time, start)
    before = start - BEFORE * (window.end - window.start)
    in_force = baseline_in_force(store, spec)
    now, then = (
        in_force.profiles(start=a, end=b, dataset=PRODUCTION, columns=names)
        for a, b in ((start, end), (before, start))
    )
    said = [money.sentence for money in money_of(spec, now, then)]
    if not said:
        return ""
    whole = compare_slices(spec, now, then, [metric]).head(1).to_dict("records")
    of_model = [
        f"{named(metric)} {number(row['value'])} (usually {number(row['baseline_value'])})"
        for row in whole
    ]
    return "; ".join([*of_model, *said])
