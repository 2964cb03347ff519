"""What the judges see, prepared once, the limits they hold it against, and the row they return."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict, cast

from mlmon_dagster.monitors.wording import no_verdict
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import Granularity
from mlmon_dagster.spec.monitors import Condition, Monitor, Severity
from mlmon_dagster.spec.names import ALL, TABLE
from mlmon_dagster.spec.scalars import KOfN
from mlmon_dagster.spec.windows import begin_reading
from mlmon_dagster.store.state.monitor_results import MonitorResult

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.drift.carriers import Carriers as FoundCarriers
    from mlmon_dagster.metrics.drift.column_change import ColumnChange
    from mlmon_dagster.metrics.drift.sustained import SustainedShift
    from mlmon_dagster.metrics.frames import BaselineSample, MetricSample
    from mlmon_dagster.metrics.late_truth.arrivals import Arrivals
    from mlmon_dagster.metrics.windows.clusters import UsualLevel
    from mlmon_dagster.metrics.windows.repeats import Repeats

    Changes = Callable[[str, pd.Timestamp, Sequence[str]], ColumnChange | None]

    Carriers = Callable[[str, pd.Timestamp], FoundCarriers | None]
    Repeated = Callable[[pd.Timestamp], Repeats | None]

    class Sustained(Protocol):
        """Knows what the newest windows of columns have in common."""

        def shifts(self, start: pd.Timestamp) -> Mapping[str, SustainedShift]:
            """Return those of columns that can be judged, up to the window that starts then."""

        def change(
            self, column: str, start: pd.Timestamp, shift: SustainedShift
        ) -> ColumnChange | None:
            """Return what changed in a column in the windows of a shift up to one, if known."""


OK: Final = "OK"
NO_DATA: Final = "NO_DATA"
Window = dict[str, Any]
WORST_SLICES = 5  # are named in a verdict
_DEFAULTS: dict[str, Any] = {
    "dataset": PRODUCTION,
    "n": 0,
    "n_actual": 0,
    "n_expected": 0,
    "is_waiting": False,
    "n_bad": 0,
    "n_by_rule": 0,
    "n_quarantined": 0,
    "n_sent": 0,
    "n_duplicate": 0,
    "n_conflict": 0,
    "maturity": "",
    "data_version": "",
    "schema_broken": False,
    "learning": False,
    "n_unread": 0,
    "unread_until": "",
    "truth_reason": "labels_still_coming",
    "truth_message": "",
    "truth_share": 1.0,
    "n_unread_actuals": 0,
    "unread_actuals_until": "",
    "refused_because": "",
    "refused_is_dated": False,
    "n_refused_actuals": 0,
    "refused_actuals_because": "",
}
_CELL = ("dataset", "window_start", "metric", "column_name")
_SLICE = ("slice_key", "slice_value")
N_TOGETHER: Final = "n_together"  # in a verdict's details: the newest windows that it is of
MIN_COUNT = 3
A_YEAR: Final = {"hour": 8_766.0, "day": 365.25, "week": 52.2, "month": 12.0}  # windows
AN_ALERT: Final = 0.05  # false incidents a year of one test, where windows are independent
_LOOSEST, _STRICTEST = 0.025, 0.001  # levels of one window: outside of a 95 % interval, at least
_TOGETHER = 0.005  # of several windows
_UNEXPECTED = 0.01


class Excess(TypedDict, total=False):
    """How far past its limit a window is, as columns of its verdict; see `excess`."""

    excess: float | None
    excess_error: float | None


@dataclass(frozen=True)
class Evidence:
    """Windows and metrics of one model, indexed for the judges.

    Attributes:
        family: The family of monitors that is judged.
        windows: One mapping per window and dataset, ascending in time, all defaults filled in.
        metrics: MetricFrame, of which one model version per cell counts, see `_one_version`.
        now: The moment of judging, timezone-aware; only freshness looks at it.
        run_id: Of the run that computed this.
        is_backfill: Handed through to the alerts.
        baseline: MetricFrame of the baseline's performance, one row per metric and slice; without
            it, monitors with `drop` are NO_DATA.
        baseline_windows: MetricFrame of the baseline's whole windows one by one, of what the newest
            windows are judged by together; without it, monitors with `shift` are NO_DATA.
        unseen: Names and counts of unseen values by (column, window start), as made by
            `metrics.quality.unseen_values`; shown unless the feature is `pii`.
        respelled: Those of them that are known values in another spelling, and which ones.
        constant: Columns and windows in which all values are the same, as the baseline's are not.
        changes: Says what changed in a column in the window that starts then, which may have been
            mistaken for one of some others; or None.
        carriers: Says which slices carry what changed in a column in the window that starts then.
        sustained: Says what the newest windows of columns have in common; without it, shifts that
            show in no window alone are not judged.
        together_since: The first window that is judged together with those before it; None for all.
        repeated: Says how far the rows of the window that starts then repeat earlier ones, or None.
        arrivals: What is known of when ground truth comes; without it, late ground truth is told
            by `actuals.expected_within` alone.
        looks_back: Windows that a verdict reads, its own included; None for all.
    """

    family: str
    spec: ModelSpec
    windows: list[Window]
    metrics: pd.DataFrame
    now: dt.datetime
    run_id: str
    is_backfill: bool
    baseline: pd.DataFrame | None = None
    baseline_windows: pd.DataFrame | None = None
    unseen: Mapping[tuple[str, pd.Timestamp], Mapping[str, int]] = field(default_factory=dict)
    respelled: Mapping[tuple[str, pd.Timestamp], Mapping[str, str]] = field(default_factory=dict)
    constant: Collection[tuple[str, pd.Timestamp]] = ()
    changes: Changes | None = None
    carriers: Carriers | None = None
    sustained: Sustained | None = None
    repeated: Repeated | None = None
    together_since: dt.datetime | None = None
    arrivals: Arrivals | None = None
    looks_back: int | None = None

    @property
    def wait_for_truth(self) -> dt.timedelta:
        """How long after a window its ground truth is there: as declared, learnt, or a day."""
        declared = self.spec.actuals.expected_within
        if declared is not None:
            return declared or dt.timedelta.resolution
        curve = None if self.arrivals is None else self.arrivals.whole
        if curve is None or curve.due is None:
            return dt.timedelta(days=1)
        return dt.timedelta(hours=curve.due * curve.unit_hours) or dt.timedelta.resolution

    @cached_property
    def _whole(self) -> dict[tuple[Any, ...], MetricSample]:
        return _one_version(self.metrics[self.metrics["slice_key"] == ALL], _CELL)

    @cached_property
    def _slices(self) -> dict[tuple[object, ...], list[MetricSample]]:
        rows = _one_version(self.metrics[self.metrics["slice_key"] != ALL], (*_CELL, *_SLICE))
        known = [(key[:4], row) for key, row in rows.items() if not math.isnan(row["value"])]
        found: dict[tuple[object, ...], list[MetricSample]] = {}
        for cell, row in sorted(known, key=lambda one: (-one[1]["value"], one[1]["n"])):
            found.setdefault(cell, []).append(row)
        return found

    def whole(self, window: Window, metric: str, column: str = TABLE) -> MetricSample | None:
        """Metric row of a window at slice `all`, None if it was not computed."""
        return self._whole.get((window["dataset"], window["window_start"], metric, column))

    def recent(
        self,
        window: Window,
        metric: str,
        most: int,
        column: str = TABLE,
        wait: dt.timedelta = dt.timedelta(0),
    ) -> list[MetricSample]:
        """Metric rows of a window and of those before it that have a value, the newest `most`.

        With a `wait` those of the windows that started at least so long before it.
        """
        start = window["window_start"]
        mine = self._by_metric.get((window["dataset"], metric, column), [])
        until = [row for row in mine if row["window_start"] <= start - wait]
        if self.looks_back is not None:  # a run of many windows has read those of its first one
            since = begin_reading(start, window["window_end"], self.looks_back)
            until = [row for row in until if row["window_start"] >= since]
        return until[-most:]

    @cached_property
    def _by_metric(self) -> dict[tuple[str, str, str], list[MetricSample]]:
        found: dict[tuple[str, str, str], list[MetricSample]] = {}
        for key in sorted(self._whole, key=lambda key: key[1]):
            row = self._whole[key]
            if finite(row["value"]) is not None:
                found.setdefault((key[0], key[2], key[3]), []).append(row)
        return found

    def usual_level(self, metric: str, column: str = TABLE) -> UsualLevel | None:
        """How a metric of whole windows is in the baseline's; None if it has too few."""
        from mlmon_dagster.metrics.windows.clusters import usual_level

        if (metric, column) not in self._usual_levels:
            rows = self.baseline_course(metric, column)
            fields = [[row[name] for row in rows] for name in ("value", "lower", "upper", "n")]
            self._usual_levels[metric, column] = usual_level(*fields)
        return self._usual_levels[metric, column]

    @cached_property
    def _usual_levels(self) -> dict[tuple[str, str], UsualLevel | None]:
        return {}

    def baseline_course(self, metric: str, column: str = TABLE) -> list[MetricSample]:
        """A metric in the whole windows of the baseline one by one, in the order of time."""
        return self._baseline_courses.get((metric, column), [])

    @cached_property
    def _baseline_courses(self) -> dict[tuple[str, str], list[MetricSample]]:
        from mlmon_dagster.metrics.frames import samples

        found: dict[tuple[str, str], list[MetricSample]] = {}
        if self.baseline_windows is not None:
            for row in samples(self.baseline_windows.sort_values("window_start")):
                found.setdefault((row["metric"], row["column_name"]), []).append(row)
        return found

    def slices(self, window: Window, metric: str, column: str = TABLE) -> list[MetricSample]:
        """Metric rows of a window's slices that have a value, largest first."""
        key = (window["dataset"], window["window_start"], metric, column)
        return self._slices.get(key, [])

    def baseline_row(self, metric: str, like: MetricSample | None) -> BaselineSample | None:
        """Baseline's row of a metric and the slice of `like` (None: `all`), None if unknown."""
        key, value = (like["slice_key"], like["slice_value"]) if like else (ALL, ALL)
        column = like["column_name"] if like else TABLE
        return self._baseline.get((metric, column, key, value))

    @cached_property
    def _baseline(self) -> dict[tuple[Any, ...], BaselineSample]:
        if self.baseline is None:
            return {}
        rows = _one_version(self.baseline, (*_CELL[2:], *_SLICE))
        return cast("dict[tuple[Any, ...], BaselineSample]", rows)

    @cached_property
    def _columns(self) -> dict[tuple[str, pd.Timestamp, str], list[str]]:
        found: dict[tuple[str, pd.Timestamp, str], list[str]] = {}
        for dataset, start, metric, column in self._whole:
            found.setdefault((dataset, start, metric), []).append(column)
        return found

    def columns_with(self, window: Window, *metrics: str) -> list[str]:
        """Names of the columns that have any of the metrics in a window, sorted.

        Other windows do not count: a verdict is the same whichever windows are judged with it.
        """
        place = window["dataset"], window["window_start"]
        return sorted({c for metric in metrics for c in self._columns.get((*place, metric), ())})


def fill_windows(rows: Iterable[Mapping[str, Any]]) -> list[Window]:
    """Return what is known of windows, ascending in time, with the defaults of what is not.

    Args:
        rows: One row per window (and dataset, production if it is not named): window_start,
            window_end, n, and as far as known n_actual, maturity, data_version, n_bad (refused
            rows), n_by_rule (those of them that a rule of the spec refuses), bad_reasons (JSON or
            dict, reason -> rows), n_quarantined (files), quarantined (their names), schema_broken
            (drift and performance are then NO_DATA), actual_coverage, first_event_time,
            last_event_time, calendar (a `metrics.presence.Calendar`), last_before, next_after and
            is_followed, see `freshness`.
    """
    import pandas as pd

    known = [
        _DEFAULTS
        | {name: value for name, value in row.items() if value is not None}
        | {name: pd.Timestamp(row[name]) for name in ("window_start", "window_end")}
        for row in rows
    ]
    return sorted(known, key=lambda window: (str(window["dataset"]), window["window_start"]))


def _one_version(metrics: pd.DataFrame, keys: Sequence[str]) -> dict[tuple[Any, ...], MetricSample]:
    """Return a row per key: of model version `all` if there is one, else that with most rows."""
    from mlmon_dagster.metrics.frames import samples

    key_of = itemgetter(*keys)
    ordered = sorted(samples(metrics), key=lambda row: (row["model_version"] == ALL, row["n"]))
    return {key_of(row): row for row in ordered}


def result_row(
    evidence: Evidence,
    window: Window,
    monitor: Monitor,
    *,
    metric: str,
    status: str,
    message: str,
    column: str = TABLE,
    source: MetricSample | None = None,
    **fields: object,
) -> MonitorResult:
    """Build one row of `monitor_result`.

    Args:
        evidence: Where model, run and backfill flag come from.
        window: The judged window.
        monitor: The declared monitor.
        metric: Name of the metric.
        status: OK, NO_DATA or the monitor's severity.
        message: What is so in one plain sentence, and the statistics in a second line if there is
            more to say.
        column: Column that it is about.
        source: Metric row that it rests on: value, interval, n, p-value, slice, method.
        **fields: Further columns; `details` is turned into JSON.
    """
    known: Mapping[str, Any] = source or {}
    family = evidence.family
    name = f"{family}/{metric}" + ("" if column == TABLE else f"/{column}")
    row: dict[str, object] = {
        "model": evidence.spec.model,
        "monitor": name,
        "family": family,
        "metric": metric,
        "column_name": column,
        "dataset": window["dataset"],
        "slice_key": known.get("slice_key", ALL),
        "slice_value": known.get("slice_value", ALL),
        "window_start": window["window_start"].to_pydatetime(),
        "window_end": window["window_end"].to_pydatetime(),
        "granularity": evidence.spec.time.granularity,
        "status": status,
        "value": finite(known.get("value")),
        "lower": finite(known.get("lower")),
        "upper": finite(known.get("upper")),
        "baseline_value": None,
        "n": int(known["n"] if known else window["n"]),
        "threshold": "",
        "excess": None,
        "excess_error": None,
        "p_value": finite(known.get("p_value")),
        "p_adjusted": None,
        "family_size": 1,
        "maturity": str(window["maturity"]),
        "reason": "",
        "message": message,
        "details": "{}",
        "k": monitor.windows.k,
        "of_n": monitor.windows.n,
        "owner": monitor.owner or ", ".join(evidence.spec.owners),
        "runbook": monitor.runbook or "",
        "method_version": str(known.get("method_version", "")) or f"{family}-1",
        "data_version": str(window["data_version"]),
        "run_id": evidence.run_id,
        "is_backfill": evidence.is_backfill,
        "created_at": evidence.now,
    }
    row.update(fields)
    if not isinstance(row["details"], str):
        row["details"] = json.dumps(row["details"], sort_keys=True)
    return cast("MonitorResult", row)


@dataclass(frozen=True)
class Case:
    """A metric of a window that a monitor judges; each verdict on it says the same of these.

    Attributes:
        evidence: As in `result_row`, as are the others.
        threshold: What it is held against, in words.
    """

    evidence: Evidence
    window: Window
    monitor: Monitor
    metric: str
    column: str = TABLE
    source: MetricSample | None = None
    threshold: str = ""

    def result(self, status: str, message: str, **fields: object) -> MonitorResult:
        """Build its row of `monitor_result`, with further columns."""
        return result_row(
            self.evidence,
            self.window,
            self.monitor,
            metric=self.metric,
            status=status,
            message=message,
            column=self.column,
            source=self.source,
            **{"threshold": self.threshold, **fields},
        )

    def unjudged(self, reason: str, named: str, **fields: Any) -> MonitorResult:
        """Build the row of a window that cannot be judged: NO_DATA, and a sentence that says why.

        Args:
            reason: Why it is not, see `wording.REASONS`.
            named: What was to be judged, in words.
            **fields: Further columns; the sentence says their ``n``, else that of the metric row,
                else that of the window.
        """
        n = int(fields["n"] if "n" in fields else (self.source or self.window)["n"])
        grain = self.evidence.spec.time.granularity
        message = explain_unjudged(self.window, named, reason, n, grain)
        return self.result(NO_DATA, message, **{"reason": reason, **fields})


def explain_unjudged(window: Window, named: str, reason: str, n: int, grain: str) -> str:
    """Say why something of a window is not judged; if its ground truth is awaited, until when."""
    if reason == window["truth_reason"] and window["truth_message"]:
        return str(window["truth_message"])
    return no_verdict(named, reason, n, grain)


def failing(monitor: Monitor, is_error: bool) -> Severity:
    """Return the status of a failure: ERROR past the second threshold, else as declared."""
    return "ERROR" if is_error else monitor.severity


def is_beyond(error_at: float | None, value: float) -> bool:
    """Say whether a distance, either way, is past a second threshold; never without one."""
    return error_at is not None and abs(value) > error_at


def not_measured(window: Window) -> str:
    """Say why a window has no metric: nothing happened, there is no baseline yet, or else."""
    if window["n"] == 0:
        return "no_rows"
    return "learning" if window["learning"] else "not_computed"


def not_valued(window: Window, row: MetricSample | None) -> str:
    """Say why a metric of a window has no value that counts; empty if it has one."""
    if window["schema_broken"]:
        return "schema"
    if row is None:
        return not_measured(window)
    return str(row["reason"])


_OF_WINDOW = ("schema", "no_rows", "learning", "not_computed")  # whatever the ground truth


def not_mature(window: Window, row: MetricSample | None, *, is_shown: bool = True) -> str:
    """Say why a metric of ground truth has no value that counts yet; empty if it has one.

    Args:
        window: The window.
        row: The metric.
        is_shown: Whether windows that are judged early are shown to be fit for this metric.
    """
    reason = not_valued(window, row)
    if reason in _OF_WINDOW:
        return reason
    # Whatever its rows with ground truth lack by now, the rest may bring.
    waits = window["maturity"] == "provisional" or (
        window["maturity"] == "early" and (reason or not is_shown)
    )
    return str(window["truth_reason"]) if waits else reason


def widen_early(window: Window) -> float:
    """Return by how much wider the interval is that a failing window must be clear of.

    A window that is judged early is judged again with every delivery. Divided by the root of the
    share of its ground truth that has come, as O'Brien and Fleming (1979) do, so many looks raise
    hardly more false alarms than one: 1 for a complete window, 2 for one of which a quarter came.
    """
    return 1 / math.sqrt(window["truth_share"])


def level_of(window: Window, level: float) -> float:
    """Return the level of a one-sided test of a window: stricter where it is judged early."""
    from scipy import special

    return float(special.ndtr(special.ndtri(level) * widen_early(window)))


def choose_level(rule: KOfN, granularity: Granularity) -> float:
    """Return the one-sided level at which a window of a test fails.

    An alert that opens at k of n failing windows opens in at most C(n - 1, k - 1) p^k of those of
    an unchanged model; p is chosen so that this is `AN_ALERT` a year, between .001 and .025.

    Example:
        >>> [round(choose_level(KOfN(2, 3), grain), 4) for grain in ("hour", "day", "week")]
        [0.0017, 0.0083, 0.0219]
    """
    ways = math.comb(rule.n - 1, rule.k - 1) * A_YEAR[granularity]
    return min(max(math.pow(AN_ALERT / ways, 1 / rule.k), _STRICTEST), _LOOSEST)


def choose_level_together(over: int, granularity: Granularity) -> float:
    """Return the one-sided level of a test of several windows together, at most .005.

    So many windows that follow each other are a new test; false ones are `AN_ALERT` a year.
    """
    return min(AN_ALERT * over / A_YEAR[granularity], _TOGETHER)


def early_text(window: Window) -> str:
    """Say that a window is judged before all of its ground truth is there; else empty."""
    if window["maturity"] != "early":
        return ""
    return (
        f"Judged early: {int(window['n_actual']):,} of {int(window['n_expected']):,} predictions "
        "have ground truth, and which ones is chance"
    )


def not_tested(window: Window, row: MetricSample | None) -> str:
    """Say why a metric of a window has no p-value; empty if it has one."""
    reason = not_valued(window, row)
    if reason or row is None:
        return reason
    return "not_computed" if finite(row["p_value"]) is None else ""


def production(evidence: Evidence) -> Iterator[Window]:
    """Windows of the dataset `production`, ascending."""
    return (window for window in evidence.windows if window["dataset"] == PRODUCTION)


def finite(value: float | None) -> float | None:
    """Plain float, or None for anything that is not a finite number."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)


def rate_fails(condition: Condition, row: MetricSample) -> bool:
    """Judge a share: past the limit, and not because of one or two rows.

    One unseen value among 50 rows is 2 %, but no evidence for more than 1 %. So a share above its
    limit fails when at least 3 rows show it, or when its 95 % interval is above the limit too
    (always so for a limit of 0). A share below its limit fails as it is.
    """
    value = row["value"]
    if not condition.fails(value):
        return False
    if condition.above is None:
        return True
    return bool(round(value * row["n"]) >= MIN_COUNT or row["lower"] > condition.above)


def null_limit(spec: ModelSpec, column: str) -> Condition:
    """Return how many nulls a feature may have.

    Its own limit, else that of all; where the spec expects none, as few as of any other value that
    is not to be there.
    """
    feature, of_all = spec.features[column], spec.monitors.quality.null_rate
    if feature.null_rate is not None:
        return feature.null_rate
    if feature.nullable or of_all.above is None:
        return of_all
    return of_all.model_copy(update={"above": min(of_all.above, _UNEXPECTED)})


def excess(worse: float, limit: float, error: float | None = None) -> Excess:
    """Say how far past its limit a window is, in units of the limit, as fields of its result.

    Alerts tell by it a severe window from one just past the limit, and a recovery from a lucky
    window.

    Args:
        worse: How much worse than nothing the window is, in any unit.
        limit: From where that is too much, in the same unit. With a limit of 0 the unit is that of
            ``worse``, and 0 is all that is right.
        error: Half the 95 % interval of ``worse``; None if unknown.

    Returns:
        ``excess`` (-1: nothing, 0: at the limit, 1: twice as far) and ``excess_error``, with six
        decimals; None for what is not finite.
    """
    unit = abs(limit) or 1.0
    past = (worse - limit) / unit if limit or worse > 0 else -1.0
    known = finite(past), finite(None if error is None else abs(error) / unit)
    rounded = [None if number is None else round(number, 6) for number in known]
    return {"excess": rounded[0], "excess_error": rounded[1]}


def excess_of(condition: Condition, row: MetricSample) -> Excess:
    """Say how far past a fixed limit a value is, see `excess`; below a limit counts as above it."""
    value, lower, upper = row["value"], row.get("lower"), row.get("upper")
    if condition.above is not None:
        near = finite(lower)
        return excess(value, condition.bound, None if near is None else value - near)
    near, unit = finite(upper), condition.bound
    return excess(2 * unit - value, unit, None if near is None else near - value)
