"""Family drift: a column whose distribution is really and largely unlike the baseline's.

Also a feature that counts for more or less than it did.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

from mlmon_dagster.families.family import Family, measure_profiles, plot_columns
from mlmon_dagster.families.newest_windows import (
    RepeatedRows,
    SustainedShifts,
    judge_repeats,
    judge_sustained,
    read_windows,
)
from mlmon_dagster.monitors.change_wording import describe_nature, in_words, percent, rows_share
from mlmon_dagster.monitors.evidence import (
    OK,
    WORST_SLICES,
    Case,
    Evidence,
    Window,
    excess,
    failing,
    finite,
    is_beyond,
    not_tested,
)
from mlmon_dagster.monitors.wording import (
    BEYOND_CHANCE,
    IMPACT,
    impact_of,
    number,
    subject,
    told,
    write_limit,
)
from mlmon_dagster.spec import ModelSpec, declaration
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import ATTRIBUTION, ATTRIBUTION_SHIFT, attributed
from mlmon_dagster.spec.metric_registry import AUTO, NOVEL, OFF_HEAP
from mlmon_dagster.spec.monitors import (
    FAMILIES,
    REPEATED_ROWS,
    SUSTAINED_SHIFT,
    SUSTAINED_WINDOWS,
    Attribution,
)
from mlmon_dagster.spec.names import ALL, DRIFT, OUTPUTS
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.work import Comparison, Part, comparisons, fixed_comparison

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.drift.carriers import Carriers
    from mlmon_dagster.metrics.drift.column_change import ColumnChange
    from mlmon_dagster.metrics.frames import MetricSample
    from mlmon_dagster.metrics.statistics import ColumnStatistics
    from mlmon_dagster.profiles import Baseline

_LEAST = 0.005  # of the rows of a window, outside the baseline's range, is drift at any distance
_MOST = 0.5  # of them is what there is to tell
Baselines = Mapping[dt.datetime, "Baseline | None"]  # by the start of a window
_OF_FORM = ("place", "width", "range", "groups", "shape")  # which rows beyond all others say better
_BEHIND = {"prediction": ("prediction",), "actual": ("actual", "prediction")}
_SIGNED = "_shift"  # ends the names of differences, of which chance gives none
_ALWAYS = ("psi", "jensen_shannon", "chi_square")  # of columns of any kind


def judge(evidence: Evidence) -> list[MonitorResult]:
    """Fail columns that changed significantly and by more than `above`.

    Real: the p-value, adjusted by Benjamini-Hochberg over the columns of the window at slice `all`
    (a column's slices are a family of their own, judged if `slices` is set), is at most q. Large:
    the distance beyond chance, so less its mean without change, is above the threshold; of a slice
    by what it is farther than the whole, since what moves all slices alike is no news of any of
    them. Rows outside everything that the baseline holds, and those that are on no heap, are judged
    as well, see `_novel` and `_off_heap`: a distance hardly sees few rows. Columns without order
    have no KS distance; with `method: ks` they are judged by psi, and so are all columns that have
    no value of a method. Of times it is the age at the event, of texts the length.
    """
    rows: list[MonitorResult] = []
    importance = _importance(evidence)
    for window in evidence.windows:
        known = _prepare_known(evidence, window)
        methods = _columns(evidence, window)
        methods = dict(sorted(methods.items(), key=lambda item: -importance.get(item[0], 0.0)))
        found = [
            (column, method, evidence.whole(window, method, column))
            for column, method in methods.items()
        ]
        judged = list(_judge_family(evidence, window, found, known))
        rows += sorted(judged, key=lambda row: -impact_of(row["details"]))
        if evidence.spec.monitors.drift.slices:
            for column in methods:
                parts = evidence.slices(window, "psi", column)
                family = [(column, "psi", part) for part in parts]
                rows += _judge_family(evidence, window, family, known)
        rows += judge_attribution(evidence, window)
        since = evidence.together_since
        if since is not None and window["window_start"] < since:
            continue
        if evidence.sustained is not None:
            rows += judge_sustained(evidence, window, evidence.sustained, judged)
        if evidence.repeated is not None:
            rows += judge_repeats(evidence, window, evidence.repeated, judged)
    return rows


def _columns(evidence: Evidence, window: Window) -> dict[str, str]:
    """Columns to judge and the metric of each, as computed, else as the spec declares them."""
    monitor, spec = evidence.spec.monitors.drift, evidence.spec
    method = str(monitor.method)
    computed = set(evidence.columns_with(window, method))
    names = evidence.columns_with(window, method, "psi")
    if not names:
        names = list(spec.features)
        computed = set(names)
    if monitor.columns != "all":
        names = list(monitor.columns)
    return {name: method if name in computed or method in _ALWAYS else "psi" for name in names}


def _importance(evidence: Evidence) -> dict[str, float]:
    """Return how important features are: the most important ones are told first.

    Where the spec names no importance at all, the newest window's attributions say it; what a
    window has attributions of is then listed by its impact, distance times attribution.
    """
    features = evidence.spec.features
    known = {name: f.importance for name, f in features.items() if f.importance is not None}
    return known or attributions(evidence)


class _Known(NamedTuple):
    """What every column of a window is judged by, made once: there may be hundreds of them.

    Attributes:
        carried: Feature -> its share of the attributions; empty where importance is declared.
        moved: Says of a metric which features are past the limit.
    """

    carried: Mapping[str, float | None]
    moved: Callable[[str], Sequence[str]]


def _prepare_known(evidence: Evidence, window: Window) -> _Known:
    return _Known(_carried(evidence, window), cache(partial(_moved, evidence, window)))


def _judge_family(
    evidence: Evidence,
    window: Window,
    found: Sequence[tuple[str, str, MetricSample | None]],
    known: _Known,
) -> Iterator[MonitorResult]:
    from mlmon_dagster.metrics.intervals import benjamini_hochberg

    monitor = evidence.spec.monitors.drift
    reasons = [_no_data(evidence, row, window) for _, _, row in found]
    tested = [
        row["p_value"] if row and not reason else float("nan")
        for (_, _, row), reason in zip(found, reasons, strict=True)
    ]
    size = sum(not reason for reason in reasons)
    novel, off_heap = (
        [of(evidence, window, one, p) if one else 0.0 for one, p in _beside(evidence, found, *what)]
        for of, what in ((_novel, (window, NOVEL)), (_off_heap, (window, OFF_HEAP)))
    )
    for (column, method, row), reason, adjusted, *beside in zip(
        found, reasons, benjamini_hochberg(tested), novel, off_heap, strict=True
    ):
        case = Case(evidence, window, monitor, method, column, row)
        if row is None or reason:
            threshold = _threshold(method, monitor.above)
            yield case.unjudged(reason, subject(method, column, row), threshold=threshold)
        else:
            yield _judged(case, row, known, adjusted, size, *beside)


def _no_data(evidence: Evidence, row: MetricSample | None, window: Window) -> str:
    reason = not_tested(window, row)
    if reason or row is None:
        return reason
    return "few_rows" if row["n"] < evidence.spec.monitors.drift.min_rows else ""


def _judged(
    case: Case,
    row: MetricSample,
    known: _Known,
    adjusted: float,
    size: int,
    novel: float,
    off_heap: float,
) -> MonitorResult:
    evidence, window, column = case.evidence, case.window, case.column
    monitor, features = evidence.spec.monitors.drift, evidence.spec.features
    vectors = evidence.spec.find_vectors(column)
    above = monitor.above + _of_whole(evidence, window, column, row)
    beyond, chance = _beyond_chance(row), finite(row["by_chance"])
    large, real = abs(beyond) > above, adjusted <= monitor.q or novel > 0 or off_heap > 0
    is_far = large and real
    failed = is_far or novel > 0 or off_heap > 0
    grain = evidence.spec.time.granularity
    statistics = _describe_distance(row, chance, above, grain)
    if large and not real:
        statistics += _may_be_chance(adjusted)
    if novel:
        usual = evidence.whole(window, f"{NOVEL}{AUTO}", column)
        statistics += _describe_novel(vectors, novel, usual)
    if off_heap:
        statistics += (
            f". Without its most common value it is {number(off_heap)} higher than on an "
            f"unchanged {grain}"
        )
    told_first = novel if novel >= _MOST or not (is_far or off_heap) else 0.0
    details: dict[str, object] = {"n_baseline": int(row["n_baseline"]), "q": monitor.q}
    first = ""
    if failed:
        change = _find_change(evidence, window, column, row, known)
        if vectors and novel:
            first = _describe_unlike(vectors, change, novel)
        else:
            first = _in_words(evidence, column, change, told_first)
        details |= describe_nature(change)
    if novel:
        details[NOVEL] = novel
    if off_heap:
        details[OFF_HEAP] = round(off_heap, 6)
    if column in features and features[column].importance is not None:
        details["importance"] = features[column].importance
    carried = known.carried.get(column) if row["slice_key"] == ALL else None
    if carried is not None:
        details |= {"attribution": carried, IMPACT: round(abs(beyond) * carried, 6)}
        if failed:
            statistics += f". The column has {percent(carried)} of the model's attributions"
    if failed and row["slice_key"] == ALL and (far := _farther_slices(evidence, window, column)):
        details["worst_slices"] = [
            {
                **{key: part[key] for key in ("metric", "slice_key", "slice_value", "value", "n")},
                "by_chance": finite(part["by_chance"]),
            }
            for part in far[:WORST_SLICES]
        ]
    if failed and row["slice_key"] == ALL and evidence.carriers is not None:
        details |= _name_carriers(column, evidence.carriers(column, window["window_start"]))
    status = failing(monitor, is_beyond(monitor.error_at, beyond)) if failed else OK
    return case.result(
        status,
        told(first, statistics),
        baseline_value=chance,
        threshold=_threshold(row["metric"], above),
        p_adjusted=finite(adjusted),
        family_size=size,
        details=details,
        **excess(abs(beyond), above),
    )


def _describe_distance(row: MetricSample, chance: float | None, above: float, grain: str) -> str:
    """Say how far a column is, what an unchanged window has, and the limit."""
    usual = f"the limit is {number(above)}"
    if chance is not None:
        usual = (
            f"an unchanged {grain} has {number(chance)} on average, and {number(above)} more fails"
        )
    return (
        f"{subject(row['metric'], row['column_name'], row)} is {number(row['value'])}; {usual} "
        f"(n {int(row['n']):,}, baseline n {int(row['n_baseline']):,})"
    )


def _describe_novel(vectors: str | None, novel: float, usual: MetricSample | None) -> str:
    where = "unlike the baseline's" if vectors else "outside the baseline's range"
    known = f", usually at most {percent(usual['value'])}" if usual else ""
    return f". {percent(novel)} of rows are {where}{known}"


def _name_carriers(column: str, found: Carriers | None) -> dict[str, object]:
    """Say which slices a change is in, if it is in few of them."""
    if found is None:
        return {}
    which = f"{found.key} = {' or '.join(found.values)}"
    most = f"{'All' if found.share >= 1 else percent(found.share)} of the change of {column}"
    usual = f"usually {percent(found.usual_rows)}"
    if found.is_mix:
        why = f"{most} is that {percent(found.rows)} of the rows have {which}, {usual}"
    else:
        why = f"{most} is in {which}, which {percent(found.rows)} of the rows have"
    return {"why": why, "carried_by": asdict(found)}


def _beyond_chance(row: MetricSample) -> float:
    """Return a distance less what chance gives, which is judged; shifts as they are."""
    return float(row["value"]) - (finite(row["by_chance"]) or 0.0)


def _threshold(metric: str, above: float) -> str:
    return f"above {write_limit(above)}{'' if metric.endswith(_SIGNED) else BEYOND_CHANCE}"


def _find_change(
    evidence: Evidence, window: Window, column: str, row: MetricSample, known: _Known
) -> ColumnChange | None:
    """Return what changed in a column; of a slice the profiles are not looked at."""
    if row["slice_key"] != ALL or not evidence.changes:
        return None
    return evidence.changes(column, window["window_start"], known.moved(row["metric"]))


def _in_words(evidence: Evidence, column: str, change: ColumnChange | None, novel: float) -> str:
    """Say what changed in plain words."""
    if novel and (change is None or change.kind in _OF_FORM):
        return f"{column} lies outside everything seen before in {rows_share(novel)}"
    return "" if change is None else in_words(evidence.spec, column, change)


def _describe_unlike(vectors: str, change: ColumnChange | None, novel: float) -> str:
    """Say of how many rows a vector is new, and near which topic most of them are."""
    from mlmon_dagster.metrics.embeddings import UNLIKE

    topic = change.value.partition(UNLIKE)[2] if change is not None else ""
    near = f", most of all near {topic}" if topic else ""
    return f"{vectors} is unlike the baseline's in at least {rows_share(novel)}{near}"


def _moved(evidence: Evidence, window: Window, metric: str) -> list[str]:
    """Return the features that are past the limit, one of which a column may look like now."""
    rows = {c: evidence.whole(window, metric, c) for c in evidence.spec.features}
    return [
        column
        for column, row in rows.items()
        if row is not None and abs(_beyond_chance(row)) > evidence.spec.monitors.drift.above
    ]


def _farther_slices(evidence: Evidence, window: Window, column: str) -> list[MetricSample]:
    """Return the slices that drifted more than the whole, as those that are judged have to."""
    from mlmon_dagster.metrics.intervals import benjamini_hochberg

    parts = evidence.slices(window, "psi", column)
    adjusted = benjamini_hochberg([part["p_value"] for part in parts])
    far = [
        part
        for part, p in zip(parts, adjusted, strict=True)
        if p <= evidence.spec.monitors.drift.q
        and _beyond_chance(part)
        > evidence.spec.monitors.drift.above + _of_whole(evidence, window, column, part)
    ]
    return sorted(far, key=lambda part: -_beyond_chance(part))


def _carried(evidence: Evidence, window: Window) -> dict[str, float | None]:
    features = evidence.spec.features
    if any(feature.importance is not None for feature in features.values()):
        return {}
    found = {name: evidence.whole(window, ATTRIBUTION, name) for name in features}
    return {name: finite(row["value"]) for name, row in found.items() if row}


def _beside(
    evidence: Evidence,
    found: Sequence[tuple[str, str, MetricSample | None]],
    window: Window,
    metric: str,
) -> Iterator[tuple[MetricSample | None, float]]:
    """Yield what is judged of each column beside its distance, and its p-value, adjusted."""
    from mlmon_dagster.metrics.intervals import benjamini_hochberg

    rows: list[MetricSample | None] = []
    for column, _, row in found:
        is_whole = row is not None and row["slice_key"] == ALL
        own = evidence.whole(window, metric, column) if is_whole else None
        rows.append(None if own is None or not_tested(window, own) else own)
    p = [row["p_value"] if row else float("nan") for row in rows]
    return zip(rows, benjamini_hochberg(p), strict=True)


def _off_heap(evidence: Evidence, window: Window, found: MetricSample, adjusted: float) -> float:
    """Return the distance of the rows that are on no heap, 0 if that is no news."""
    monitor, value = evidence.spec.monitors.drift, _beyond_chance(found)
    is_news = value > monitor.above and adjusted <= monitor.q and found["n"] >= monitor.min_rows
    return value if is_news else 0.0


def _novel(evidence: Evidence, window: Window, found: MetricSample, adjusted: float) -> float:
    """Return the share of a window's rows outside the baseline's range, 0 if that is no news.

    It is news from 1/200 of the rows on, where significantly and more than twice as many as is
    usual among the baseline's own windows; of vectors more than is usual, as what counts there is
    how many are unlike beyond those that always are. A distance hardly sees so few rows, and once
    all are outside it is as large as it can be, as that of any other narrow day. Of most of the
    rows the p-value is not adjusted: there is hardly another column in which they are outside by
    chance.
    """
    usual = evidence.whole(window, f"{NOVEL}{AUTO}", found["column_name"])
    most = finite(usual["value"]) if usual else None
    share = float(found["value"])
    p = found["p_value"] if share >= _MOST else adjusted
    times = 1 if evidence.spec.find_vectors(found["column_name"]) else 2
    is_news = p <= evidence.spec.monitors.drift.q and share >= _LEAST
    return share if most is not None and is_news and share > times * most else 0.0


def _of_whole(evidence: Evidence, window: Window, column: str, row: MetricSample) -> float:
    """Return how far the whole window is by itself, which a slice has to be farther than."""
    whole = evidence.whole(window, row["metric"], column) if row["slice_key"] != ALL else None
    return max(finite(_beyond_chance(whole)) or 0.0, 0.0) if whole else 0.0


def attributions(evidence: Evidence) -> dict[str, float]:
    """Return feature -> its share of the attributions in the newest window that has any."""
    for window in reversed(evidence.windows):
        found = {
            feature: finite(row["value"])
            for feature in attributed(evidence.spec)
            if (row := evidence.whole(window, ATTRIBUTION, feature)) is not None
        }
        known = {feature: value for feature, value in found.items() if value is not None}
        if known:
            return known
    return {}


def judge_attribution(evidence: Evidence, window: Window) -> Iterator[MonitorResult]:
    """Fail features whose share of the attributions really and largely changed.

    Large: by more than `above`. Real: its p-value, adjusted over the features of the window
    (Benjamini-Hochberg), is at most q. Nothing of models that log no SHAP values.
    """
    from mlmon_dagster.metrics.intervals import benjamini_hochberg

    declared, features = evidence.spec.monitors.drift.attribution, attributed(evidence.spec)
    if declared is None or not features:
        return
    found = [(feature, evidence.whole(window, ATTRIBUTION_SHIFT, feature)) for feature in features]
    reasons = [not_tested(window, row) for _, row in found]
    p = [
        float(row["p_value"]) if row is not None and not reason else float("nan")
        for (_, row), reason in zip(found, reasons, strict=True)
    ]
    adjusted = benjamini_hochberg(p)
    size = sum(not reason for reason in reasons)
    monitor, limit = evidence.spec.monitors.drift, f"beyond {write_limit(declared.above)}"
    for (feature, row), reason, each in zip(found, reasons, adjusted, strict=True):
        case = Case(evidence, window, monitor, ATTRIBUTION_SHIFT, feature, row, limit)
        if row is None or reason:
            yield case.unjudged(reason, subject(ATTRIBUTION_SHIFT, feature))
        else:
            yield _judged_attribution(case, declared, row, each, size)


def _judged_attribution(
    case: Case, declared: Attribution, row: MetricSample, adjusted: float, size: int
) -> MonitorResult:
    evidence, window, feature = case.evidence, case.window, case.column
    monitor, shift = evidence.spec.monitors.drift, float(row["value"])
    large, real = abs(shift) > declared.above, adjusted <= monitor.q
    now = evidence.whole(window, ATTRIBUTION, feature)
    share = float(now["value"]) if now is not None else float("nan")
    rows = f"n {int(row['n']):,}, baseline n {int(row['n_baseline']):,}"
    side = "more" if shift > 0 else "less"
    message = f"{feature} has {_points(shift)} {side} of the attributions than in the baseline"
    if now is not None:
        message = f"{feature} has {percent(share)} of the attributions"
        message += f", in the baseline {percent(share - shift)}"
    message += f"; {_points(declared.above)} of change fail ({rows})"
    if large and not real:
        message += _may_be_chance(adjusted)
    failed = large and real
    return case.result(
        failing(monitor, is_beyond(declared.error_at, shift)) if failed else OK,
        message + ".",
        p_adjusted=finite(adjusted),
        family_size=size,
        details={"n_baseline": int(row["n_baseline"]), "q": monitor.q, "attribution": share},
        **excess(abs(shift), declared.above),
    )


def _may_be_chance(adjusted: float) -> str:
    return f". This may be chance (adjusted p {number(adjusted)})"


def _points(share: float) -> str:
    return f"{100 * abs(share):.3g} points"


class ColumnChanges:
    """Column and window -> what changed in it.

    Profiles are read where a column fails, once for all, and none where nothing fails.

    Args:
        load: Reads the profiles of the windows.
        compared: Column -> what each window is compared with in it.
        load_slices: Reads the profiles of the slices of some columns.
    """

    def __init__(
        self,
        load: Callable[[], Mapping[str, ColumnStatistics]],
        compared: Callable[[str], Baselines],
        load_slices: Callable[[Sequence[str]], Mapping[str, ColumnStatistics]] = lambda names: {},
    ) -> None:
        self._load, self._compared = cache(load), cache(compared)
        self._sliced = cache(
            lambda column: _slices_of(_find_column(load_slices(profiled(column)), column), column)
        )
        self._windows = cache(lambda column: _find_column(self._load(), column))
        self._cell = lru_cache(maxsize=1_000)(self._merge_window)

    def __call__(
        self, column: str, start: pd.Timestamp, others: Sequence[str] = ()
    ) -> ColumnChange | None:
        """Return what changed in a column in the window that starts then; None if unknown.

        Args:
            column: Which.
            start: Of the window.
            others: Columns that it may have been mistaken for.
        """
        from mlmon_dagster.metrics.drift.column_change import column_change

        def beside() -> Iterator[tuple[str, ColumnStatistics, ColumnStatistics]]:
            for name in others:
                if name != column and (both := self._sides(name, start)) is not None:
                    yield name, *both

        sides = self._sides(column, start)
        return None if sides is None else column_change(*sides, beside)

    def find_carriers(self, column: str, start: pd.Timestamp) -> Carriers | None:
        """Return the slices that carry what changed in the window that starts then, if few do."""
        from mlmon_dagster.metrics.drift.carriers import SlicedBaseline, find_carriers
        from mlmon_dagster.metrics.statistics import derived, select

        baseline, now = self._compared(column).get(start.to_pydatetime()), self._sliced(column)
        if baseline is None or now is None:
            return None
        then = _slices_of(_find_column(baseline.windows, column), column)
        if then is None or then.binning.binning_id != now.binning.binning_id:
            return None
        mine = select(now, (now.cells["window_start"] == start).to_numpy())
        known = derived(baseline.windows, ("sliced", column), lambda: SlicedBaseline(then))
        return find_carriers(mine, known) if len(mine) else None

    def _sides(
        self, column: str, start: pd.Timestamp
    ) -> tuple[ColumnStatistics, ColumnStatistics] | None:
        """Return window and baseline of a column, a cell each; None if there is one or none."""
        from mlmon_dagster.metrics.statistics import derived

        baseline = self._compared(column).get(start.to_pydatetime())
        if baseline is None:
            return None
        known, now = baseline.windows, self._cell(column, start)
        then = derived(known, ("as one", column), lambda: _as_one(_find_column(known, column)))
        if now is None or then is None or now.binning.binning_id != then.binning.binning_id:
            return None
        return now, then

    def _merge_window(self, column: str, start: pd.Timestamp) -> ColumnStatistics | None:
        from mlmon_dagster.metrics.statistics import select

        stats = self._windows(column)
        if stats is None:
            return None
        return _as_one(select(stats, (stats.cells["window_start"] == start).to_numpy()))


def _changes_of(part: Part) -> ColumnChanges:
    fixed: list[Baselines] = []  # the same for all columns, unless it moves on

    def compared(column: str) -> Baselines:
        if fixed:
            return fixed[0]
        found = list(comparisons(part, DRIFT, profiled(column)))
        baselines = {w.start: one.baseline for one in found for w in one.work.windows}
        if not any(one.mark for one in found):
            fixed.append(baselines)
        return baselines

    spec = part.work.spec

    def load_slices(names: Sequence[str]) -> Mapping[str, ColumnStatistics]:
        from mlmon_dagster.profiles.fit import is_personal

        keys = [key for key in spec.slices if not any(is_personal(spec, name) for name in key)]
        return part.profiles(names, dataset=PRODUCTION, slices=keys) if keys else {}

    return ColumnChanges(lambda: part.whole([*spec.features, *OUTPUTS]), compared, load_slices)


def _references(comparison: Comparison) -> dict[str, object]:
    part, monitor = comparison.part, comparison.work.spec.monitors.drift
    changes = _changes_of(part)
    found: dict[str, object] = {"changes": changes, "carriers": changes.find_carriers}
    with_rows = sorted(start for start, state in part.states.items() if state.n > 0)
    if len(with_rows) < SUSTAINED_WINDOWS[0]:
        return found
    # The same windows whether they are computed one by one or all at once.
    found["together_since"] = with_rows[SUSTAINED_WINDOWS[0] - 1]
    read = read_windows(part)
    if monitor.sustained is not None:
        found["sustained"] = SustainedShifts.of_part(part, read)
    if monitor.repeated_rows is not None:
        found["repeated"] = RepeatedRows(part.work.spec, read, fixed_comparison(part).baseline)
    return found


def count_together(spec: ModelSpec) -> int:
    """Return how many windows are judged together at most."""
    monitor = spec.monitors.drift
    return SUSTAINED_WINDOWS[-1] if monitor.sustained or monitor.repeated_rows else 1


def profiled(column: str) -> Sequence[str]:
    """Return the profiled columns that a column that drifts is counted in."""
    return _BEHIND.get(column, (column,))


def _find_column(profiles: Mapping[str, ColumnStatistics], column: str) -> ColumnStatistics | None:
    from mlmon_dagster.metrics.drift.columns import with_outputs

    names = [name for name in profiled(column) if name in profiles]
    return with_outputs({name: profiles[name] for name in names}).get(column)


def _slices_of(stats: ColumnStatistics | None, column: str) -> ColumnStatistics | None:
    """Return the cells of slices but those by the column itself; None if there are none."""
    from mlmon_dagster.metrics.statistics import select

    if stats is None:
        return None
    keys = stats.cells["slice_key"]
    wanted = [key for key in keys.unique() if key != ALL and column not in key.split(",")]
    return select(stats, keys.isin(wanted).to_numpy())


def _as_one(stats: ColumnStatistics | None) -> ColumnStatistics | None:
    """Add up the cells of slice `all`; None if there are none."""
    from mlmon_dagster.metrics.statistics import merge, select

    if stats is None:
        return None
    whole = select(stats, (stats.cells["slice_key"] == ALL).to_numpy())
    return merge(whole, ()) if len(whole) else None


def _limits(spec: ModelSpec) -> str:
    d = spec.monitors.drift
    beyond = "" if d.method.endswith(_SIGNED) else " more than without a change"
    shares = ""
    if declaration.attributed(spec) and d.attribution:
        shares = f" Shares of the attributions may change by {d.attribution.above:g}."
    sustained = ""
    if d.sustained:
        sustained = (
            f" The newest 7, 14 or 28 {spec.time.granularity}s may be off by "
            f"{d.sustained.above:g} standard deviations."
        )
    return (
        f"Fails above {d.above:g} ({d.method}){beyond} if also significant "
        f"(q = {d.q:g} over the columns).{shares}{sustained}"
    )


def _metrics(spec: ModelSpec) -> Sequence[str]:
    # Columns without an order have no ks; psi also explains by slice.
    method = spec.monitors.drift.method
    attribution = (declaration.ATTRIBUTION, declaration.ATTRIBUTION_SHIFT)
    shap = attribution if declaration.attributed(spec) else ()
    novel = (NOVEL, f"{NOVEL}{AUTO}")
    return sorted({"psi", method, *novel, OFF_HEAP, *shap})


FAMILY = Family(
    FAMILIES[DRIFT],
    judge,
    _limits,
    measure=measure_profiles(
        DRIFT,
        lambda spec: "baseline",
        plot_columns("psi", ATTRIBUTION),
        slices=lambda spec: "stored" if spec.monitors.drift.slices else "asked",
        behind=lambda spec, column: profiled(column),
    ),
    metrics=_metrics,
    explained_by_slices=lambda spec: spec.monitors.drift.slices,
    references=_references,
    profiles_back=count_together,
    judged_together=lambda spec, metric: (
        count_together(spec) if metric in (SUSTAINED_SHIFT, REPEATED_ROWS) else 1
    ),
    learns_at=("profiles", "drift"),
)
