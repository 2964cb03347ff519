"""What a health report draws, from stored metrics and alerts: performance, drift, null shares."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, cast, get_args

from mlmon_dagster.families.measuring import join_measured, list_unstored
from mlmon_dagster.families.registry import JUDGED_BY
from mlmon_dagster.metrics.frames import concat_frames
from mlmon_dagster.metrics.statistics import merge, select
from mlmon_dagster.monitors.evidence import null_limit
from mlmon_dagster.monitors.wording import BEYOND_CHANCE, NAMES, named
from mlmon_dagster.profiles import Baseline, baseline_in_force
from mlmon_dagster.profiles.estimates import with_learnt_bands
from mlmon_dagster.profiles.measures import (
    baseline_performance,
    columns_of,
    measure,
    measure_versions,
)
from mlmon_dagster.report.charts import Beside, Curve, Episode, Event
from mlmon_dagster.spec import ModelSpec, window_containing
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import Granularity
from mlmon_dagster.spec.evaluations import find_judge
from mlmon_dagster.spec.metric_registry import (
    METRICS,
    MetricFamily,
    is_higher_better,
    is_loss,
    of_outcome,
)
from mlmon_dagster.spec.monitors import (
    CANARY_SHARE,
    CLASS_RATE,
    PROMETHEUS,
    SKEW_RATE,
    VERSION_AGE,
    Condition,
    PerformanceMonitor,
)
from mlmon_dagster.spec.names import ALL, BUSINESS, PERFORMANCE, QUALITY, TABLE
from mlmon_dagster.spec.tasks import business_metrics, estimated, outcomes_of, residual
from mlmon_dagster.store import Store
from mlmon_dagster.store.alert_state import AlertEpisode
from mlmon_dagster.store.state import metric_log

if TYPE_CHECKING:
    import pandas as pd

WINDOWS_DRAWN: dict[Granularity, int] = {"hour": 672, "day": 400, "week": 160, "month": 60}
WORST_DRAWN = 4
_NOT_DRAWN = ("outcome_top_share",)
_RECENT = 14  # windows in which the worst columns are looked for
_NULLS, _GOOD = "null_rate", "good_rate"
_SERVICE = ("p50_latency_ms", "p95_latency_ms", "p99_latency_ms", "error_rate")


@dataclass(frozen=True)
class Asked:
    """What of a model somebody wants to see.

    Attributes:
        start: Windows that start at or after this moment; None for the newest ones that fit.
        end: Windows that start before this moment; None for all.
        slice_key, slice_value: A slice; ``all`` for everything.
        model_version: A version; ``all`` for all of them together.
    """

    start: dt.datetime | None = None
    end: dt.datetime | None = None
    slice_key: str = ALL
    slice_value: str = ALL
    model_version: str = ALL

    @property
    def is_whole(self) -> bool:
        """Whether it is about all rows of its windows."""
        return self.slice_key == ALL and self.model_version == ALL


EVERYTHING = Asked()


class Curves:
    """Draws stored metrics.

    Args:
        store: The store.
        spec: The model.
        baseline: Its baseline, None while it has none.
        episodes: Its alert episodes, to be shaded on the curve of their monitor.
        end: Only windows that start before this moment.
        asked: Which windows, slice and version; by default the newest of everything.
        events: What happened to the model, to be marked on every curve.
    """

    def __init__(
        self,
        store: Store,
        spec: ModelSpec,
        baseline: Baseline | None,
        episodes: Sequence[AlertEpisode],
        end: dt.datetime,
        asked: Asked = EVERYTHING,
        events: Sequence[Event] = (),
    ) -> None:
        self._spec = spec
        self._store = store
        self._baseline = baseline
        self._episodes = episodes
        self._asked = asked
        self._events = events
        self._usual: dict[str, dict[tuple[str, str], float]] = {}
        self._end = end if asked.end is None else min(end, asked.end)

    def performance(self) -> list[Curve]:
        """Return a curve per monitored performance metric, with baseline and limit."""
        return self._judged(PERFORMANCE, {})

    def business(self) -> list[Curve]:
        """Return a curve of all that is known of what the predictions were worth."""
        spec = self._spec
        known = (
            of_outcome(metric, outcome)
            for metric in business_metrics(spec)
            if metric not in _NOT_DRAWN
            for outcome in (outcomes_of(spec, metric) or [""])
        )
        return self._judged(BUSINESS, dict.fromkeys(known))

    def _judged(
        self, family: MetricFamily, unjudged: Mapping[str, PerformanceMonitor | None]
    ) -> list[Curve]:
        declared: Sequence[PerformanceMonitor] = getattr(self._spec.monitors, family)
        monitors = {**unjudged, **{m.series: m for m in declared}}
        if not monitors:
            return []
        frame = self._stored([series.partition("/")[0] for series in monitors])
        known, curves = self._baseline_of(family), []
        for series, monitor in monitors.items():
            metric, _, outcome = series.partition("/")
            column = outcome or TABLE
            own = known.get((metric, column))
            mine = frame[(frame["metric"] == metric) & (frame["column_name"] == column)]
            limit = _limit(monitor, own) if monitor else None
            curve = self._curve(mine, metric, column, baseline=own, limit=limit)
            curve = replace(curve, sizes=mine["n"].astype(float).tolist() if curve.lower else ())
            judge = find_judge(self._spec.evaluations, column) if metric == _GOOD else None
            curves.append(curve if judge is None else self._with_judge(curve, judge))
        return curves

    def _with_judge(self, curve: Curve, judge: str) -> Curve:
        """Draw what a judge says over the share of all calls, which goes by people and judge."""
        frame = self._stored([_GOOD])
        mine = frame[frame["column_name"] == judge].set_index("window_start")["value"]
        alone = mine.reindex(list(curve.starts)).astype(float)
        beside = Beside(f"{judge} alone", "people and judge", alone.tolist())
        return replace(curve, beside=beside)

    def estimates(self) -> list[Curve]:
        """Return a curve per monitored estimate and one of its residual.

        An estimate needs no ground truth; its band is as wide as the record asks for, which the
        title says of the newest window. Where it and the truth, drawn over it with the truth of
        the baseline, part, scores have changed their meaning.
        """
        monitors = {str(m.metric): m for m in self._spec.monitors.estimated_performance}
        frame = with_learnt_bands(
            self._store, self._spec, self._stored(_estimate_names(self._spec))
        )
        known = self._baseline_of(PERFORMANCE) if monitors else {}
        curves = []
        for metric, monitor in monitors.items():
            sign = -1 if is_loss(metric) else 1
            truth = frame[frame["metric"] == metric].set_index("window_start")["value"]
            for name, baseline, limit in (
                (estimated(metric), known.get((metric, TABLE)), None),
                (residual(metric), 0.0, sign * monitor.residual),
            ):
                part = frame[(frame["metric"] == name) & frame["value"].notna()]
                if not len(part):
                    continue
                curve = self._curve(part, name, baseline=baseline, limit=limit)
                if (width := part["band_factor"].iloc[-1]) > 1:
                    learnt = f"learnt from {part['band_windows'].iloc[-1]} windows"
                    title = f"{curve.title}; band {width:.3g} times as wide, {learnt}"
                    curve = replace(curve, title=title)
                if name == estimated(metric) and len(truth):
                    realized = truth.reindex(part["window_start"]).astype(float)
                    beside = Beside("Ground truth", "estimated", realized.tolist())
                    curve = replace(curve, beside=beside)
                curves.append(curve)
        return curves

    def drift(self) -> list[Curve]:
        """Return curves of the columns with drift alerts, then of those that drifted most."""
        return [self._distance(part, column) for column, part in self._worst(self._distances())]

    def _distances(self) -> pd.DataFrame:
        """Return distances beyond chance: windows of few rows are far from everything."""
        frame = self._stored([self._spec.monitors.drift.method])
        chance = frame["by_chance"].fillna(0.0)
        return frame.assign(**{end: frame[end] - chance for end in ("value", "lower", "upper")})

    def _distance(self, frame: pd.DataFrame, column: str) -> Curve:
        monitor = self._spec.monitors.drift
        curve = self._curve(frame, monitor.method, column, limit=monitor.above)
        if frame["by_chance"].isna().all():
            return curve
        return replace(curve, title=f"{named(monitor.method)}{BEYOND_CHANCE} of {column}")

    def custom(self) -> list[Curve]:
        """Return a curve per metric of the user's own."""
        names = [declared.series for declared in self._spec.metrics]
        frame = self._known(names)
        return [
            self._curve(part, name) for name in names if len(part := frame[frame["metric"] == name])
        ]

    def versions(self) -> list[Curve]:
        """Return curves of what other versions gain, of features that are skewed, and of age."""
        declared = self._spec.monitors.versions
        limits = {one.gain: -one.margin for one in declared.compare}
        if not declared.is_declared:
            return []
        canary, age = declared.canary, declared.staleness
        frame = self._known([*limits, CANARY_SHARE, SKEW_RATE, VERSION_AGE])
        found = [
            self._curve(part, metric, limit=limit)
            for metric, limit in limits.items()
            if len(part := frame[frame["metric"] == metric])
        ]
        shares = frame[frame["metric"] == CANARY_SHARE]
        if canary is not None and len(shares):
            found.append(self._curve(shares, CANARY_SHARE, baseline=canary.share, is_share=True))
        skews = frame[frame["metric"] == SKEW_RATE]
        skews = skews[skews["column_name"].isin(skews.loc[skews["value"] > 0, "column_name"])]
        limit = declared.skew.above if declared.skew else None
        found += [
            self._curve(part, SKEW_RATE, column, limit=limit, is_share=True)
            for column, part in self._worst(skews)
        ]
        ages = frame[frame["metric"] == VERSION_AGE]
        if age is not None and len(ages):
            days = age.above / dt.timedelta(days=1)
            found.append(self._curve(ages, VERSION_AGE, limit=days))
        return found

    def service(self) -> list[Curve]:
        """Return curves of latency, of errors and of what is declared by name, as far as known."""
        declared = self._spec.monitors.service
        limits: dict[tuple[str, str], Condition | None] = {
            ("p95_latency_ms", TABLE): declared.p95_latency_ms,
            ("p99_latency_ms", TABLE): declared.p99_latency_ms,
            ("error_rate", TABLE): declared.error_rate,
            **declared.limits,
        }
        frame = self._known(_SERVICE)
        parts = [((name, TABLE), frame[frame["metric"] == name]) for name in _SERVICE]
        named = self._known([CLASS_RATE, PROMETHEUS, *(metric for metric, _ in declared.limits)])
        parts += [
            ((str(metric), str(column)), part)
            for (metric, column), part in named.groupby(["metric", "column_name"])
        ]
        return [
            self._curve(part, *series, limit=limit.bound if limit else None)
            for series, part in parts
            for limit in [limits.get(series)]
            if len(part)
        ]

    def drifts(self) -> dict[str, Curve]:
        """Return the drift of every column: column -> curve."""
        columns = self._distances().groupby("column_name")
        return {str(column): self._distance(part, str(column)) for column, part in columns}

    def null_rates(self) -> list[Curve]:
        """Return curves of the columns with alerts on nulls, then of those with most nulls."""
        frame = self._stored([_NULLS])
        frame = frame[frame["column_name"].isin(frame.loc[frame["value"] > 0, "column_name"])]
        known = self._baseline_of(QUALITY)
        return [
            self._curve(
                part,
                "null_rate",
                column,
                baseline=known.get(("null_rate", column)),
                limit=null_limit(self._spec, column).bound,
                is_share=True,
            )
            for column, part in self._worst(frame)
        ]

    def _worst(self, frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        """Return the worst columns of one metric: firing, then pending, often firing, by value."""
        newest = sorted(frame["window_start"].unique())[-_RECENT:]
        recent = frame[frame["window_start"].isin(newest)]
        mean = recent.groupby("column_name")["value"].mean().dropna()
        metric = str(frame["metric"].iloc[0]) if len(frame) else ""
        states = {str(c): [e.state for e in self._alerts(metric, str(c))] for c in mean.index}

        def badness(column: str) -> tuple[float | str, ...]:
            mine = states[column]
            return ("FIRING" not in mine, "PENDING" not in mine, -len(mine), -mean[column], column)

        order = sorted(states, key=badness)
        return [(c, frame[frame["column_name"] == c]) for c in order[:WORST_DRAWN]]

    def _alerts(self, metric: str, column: str) -> list[AlertEpisode]:
        return [
            e
            for e in self._episodes
            if e.metric == metric
            and e.column in (column, "")
            and (e.slice_key, e.slice_value) == (self._asked.slice_key, self._asked.slice_value)
        ]

    def _stored(self, metrics: Sequence[str]) -> pd.DataFrame:
        """Return what is stored of some metrics, as many of their newest windows as are drawn."""
        frame = self._everything
        frame = frame[frame["metric"].isin(metrics)].reset_index(drop=True)
        if self._asked.start is not None:
            return frame
        starts = sorted(frame["window_start"].unique())
        drawn = starts[-WINDOWS_DRAWN[self._spec.time.granularity] :]
        return frame[frame["window_start"] >= drawn[0]] if drawn else frame

    def _known(self, metrics: Sequence[str]) -> pd.DataFrame:
        """Return of what is stored those windows that have a value."""
        frame = self._stored(metrics)
        return frame[frame["value"].notna()]

    @cached_property
    def _everything(self) -> pd.DataFrame:
        """All that any curve shows: one question to the database for all of them."""
        declared = self._spec.monitors
        stored = metric_log.newest(
            self._store.state,
            self._spec.model,
            metric=[
                *(str(monitor.metric) for monitor in (*declared.performance, *declared.business)),
                *business_metrics(self._spec),
                *(one.series for one in self._spec.metrics),
                *_estimate_names(self._spec),
                declared.drift.method,
                _NULLS,
                *_SERVICE,
                *(one.gain for one in declared.versions.compare),
                *(CANARY_SHARE, SKEW_RATE, VERSION_AGE),
            ],
            slice_key=self._asked.slice_key,
            slice_value=self._asked.slice_value,
            model_version=self._asked.model_version,
            dataset=PRODUCTION,
            granularity=self._spec.time.granularity,
            start=self._asked.start,
            end=self._end,
        )
        return join_measured(stored, self._measure_slice())

    def _measure_slice(self) -> pd.DataFrame:
        """Return what is not stored of a slice: columns beside the page's own baseline."""
        spec, asked = self._spec, self._asked
        key, measured = tuple(asked.slice_key.split(",")), concat_frames([])
        if key not in spec.slices:
            return measured
        window = window_containing(spec.time, self._end)
        start = asked.start or self._end - WINDOWS_DRAWN[spec.time.granularity] * (
            window.end - window.start
        )
        in_force = baseline_in_force(self._store, spec)
        how = measure if asked.model_version == ALL else measure_versions
        for family in list_unstored(spec, JUDGED_BY.values()):
            profiles = in_force.profiles(
                family.columns(spec), start=start, end=self._end, dataset=PRODUCTION, slices=[key]
            )
            mine = {
                name: select(stats, (stats.cells["slice_value"] == asked.slice_value).to_numpy())
                for name, stats in profiles.items()
            }
            windows = self._baseline.windows if self._baseline else None
            found = how(spec, family.name, mine, windows) if mine else measured
            measured = concat_frames([measured, found])
        return measured[measured["model_version"] == asked.model_version]

    def _baseline_of(self, family: str) -> dict[tuple[str, str], float]:
        """Return the baseline's own metrics by name and column, as monitors compare with them."""
        if family not in self._usual:
            self._usual[family] = self._baselines(family)
        return self._usual[family]

    def _baselines(self, family: str) -> dict[tuple[str, str], float]:
        if self._baseline is None:
            return {}
        if family in get_args(MetricFamily):
            frame = baseline_performance(
                self._spec, cast("MetricFamily", family), self._baseline.windows
            )
            frame = frame.assign(value=frame["usual"].fillna(frame["value"]))
        else:
            pooled = {
                name: merge(self._baseline.windows[name], ("dataset", "slice_key", "slice_value"))
                for name in columns_of(self._spec, family)
                if name in self._baseline.windows
            }
            frame = measure(self._spec, family, pooled, None)
        asked = self._asked
        mine = frame["slice_key"].eq(asked.slice_key) & frame["slice_value"].eq(asked.slice_value)
        whole = frame[mine]
        # A total of all of the baseline's windows is no measure of one of them.
        whole = whole[~whole["metric"].str.startswith("total_")]
        keys = zip(whole["metric"], whole["column_name"], strict=True)
        return dict(zip(keys, whole["value"].astype(float), strict=True))

    def _curve(
        self,
        frame: pd.DataFrame,
        metric: str,
        column: str = TABLE,
        *,
        baseline: float | None = None,
        limit: float | None = None,
        is_share: bool = False,
    ) -> Curve:
        name = NAMES.get(metric, metric)
        starts = [start.to_pydatetime() for start in frame["window_start"]]
        intervals = frame["lower"].notna().any()
        provisional = [said == "provisional" for said in frame.get("maturity", ())]
        return Curve(
            title=name if column == TABLE else f"{name} of {column}",
            starts=starts,
            values=[float(value) for value in frame["value"]],
            lower=[float(value) for value in frame["lower"]] if intervals else (),
            upper=[float(value) for value in frame["upper"]] if intervals else (),
            end=window_containing(self._spec.time, starts[-1]).end if starts else self._end,
            zone=self._spec.time.zone,
            baseline=baseline,
            limit=limit,
            episodes=[
                Episode(e.opened_window, e.resolved_window)
                for e in self._alerts(metric, column)
                if e.state not in ("PENDING", "WITHDRAWN")
            ],
            is_share=is_share or _is_share(metric),
            events=self._events,
            provisional=provisional,
            hollow=self._find_hollow(frame, provisional),
        )

    def _find_hollow(self, frame: pd.DataFrame, provisional: Sequence[bool]) -> list[bool]:
        """Say which windows still wait for ground truth, or have too little of it."""
        if frame.empty or not self._spec.has_actuals:
            return list(provisional)
        is_of_truth = frame["metric"].isin(METRICS)
        is_little = is_of_truth & frame["actual_coverage"].lt(self._spec.actuals.min_coverage)
        return [little or waits for little, waits in zip(is_little, provisional, strict=True)]


def _estimate_names(spec: ModelSpec) -> list[str]:
    """Return the monitored estimates, their residuals, and the truth that is drawn over them."""
    metrics = [str(monitor.metric) for monitor in spec.monitors.estimated_performance]
    return [name(metric) for metric in metrics for name in (str, estimated, residual)]


def _is_share(metric: str) -> bool:
    shares = {name for name, info in METRICS.items() if (info.low, info.high) == (0.0, 1.0)}
    return metric in shares | {estimated(name) for name in shares}


def _limit(monitor: PerformanceMonitor, baseline: float | None) -> float | None:
    """Return the value past which a monitor fires; a drop is counted from the baseline."""
    if not monitor.is_relative:
        return monitor.above if monitor.above is not None else monitor.below
    if baseline is None:
        return None
    if monitor.shift is not None:
        return None  # on either side
    allowed = monitor.allowed(baseline)
    return baseline - allowed if is_higher_better(monitor.metric) else baseline + allowed
