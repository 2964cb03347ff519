"""The smallest size of each standard fault that a model's monitors notice.

What changes rows is tried by `trial`; what is missing or late changes only the counts
of windows, and is tried here.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlmon_dagster.drill.faults import (
    FAULTS,
    LABEL_FLIP,
    LATE_FEED,
    MISSING_TRUTH,
    ONE_SLICE,
    VOLUME,
    Fault,
    fits,
)
from mlmon_dagster.drill.past import Past
from mlmon_dagster.drill.trial import Notice, Probe, Slice, Trial, notice, slices_of
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.pipeline.judge_inputs import judge_inputs
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.metric_registry import REGRESSION
from mlmon_dagster.spec.names import (
    DRIFT,
    ESTIMATED_PERFORMANCE,
    FRESHNESS,
    PERFORMANCE,
    QUALITY,
    SERVICE,
    TABLE,
)
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.work import Work

FEWEST = 3  # healthy windows
Notices = Callable[[Sequence[Probe]], Mapping[Probe, Notice]]
_BEFORE = 3  # windows that came in time, before a feed that is late
_TIMES = 3  # windows that a late feed may begin with
SILENCE, OVERDUE = "no_data_for", "actuals_missing"


@dataclass(frozen=True)
class Finding:
    """From which size on one family notices one fault.

    Attributes:
        subject: The column, the slice, or empty for the whole model.
        fault: Name of the fault.
        family: The family of monitors.
        size: The smallest size tried that is noticed, in the fault's unit; None if none is.
        largest: The largest size tried.
        after: Windows until it is noticed, 1 being the first faulty one, wherever it begins.
        monitor: The monitor that notices it.
        slice_name: The slice that it notices it in; empty for the whole.
        reason: Why it could not be tried; empty if it was.
    """

    subject: str
    fault: str
    family: str
    size: float | None = None
    largest: float = 0.0
    after: int = 0
    monitor: str = ""
    slice_name: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Subject:
    """What faults were tried on.

    Attributes:
        name: The column, the slice, ``ground truth``, ``service`` or ``feed``.
        findings: One per fault and family.
        windows: Family -> the healthy windows it was tried in.
        rows: Rows of a window, on average.
        share_read: Share of them that was looked at.
        sd: Standard deviation of a number; 0.0 of others.
        unit_mistaken: What is wrong with a number in another unit, in words.
    """

    name: str
    findings: list[Finding]
    windows: dict[str, tuple[Window, ...]] = field(default_factory=dict)
    rows: int = 0
    share_read: float = 1.0
    sd: float = 0.0
    unit_mistaken: str = ""


class Drill:
    """A drill of one model.

    Args:
        work: The model and the moment; its windows do not matter.
        n_windows: Healthy windows that a fault is tried in, at most.
        seed: Of which rows are hit.
        faults: Names of faults; all by default.

    Raises:
        ConfigError: If nothing of the model is computed yet.
    """

    def __init__(self, work: Work, n_windows: int, seed: int, faults: Sequence[str] = ()) -> None:
        self._past, self._n, self._seed = Past(work), n_windows, seed
        self._spec = work.spec
        self._faults = [f for f in FAULTS if not faults or f.name in faults]
        if not self._past.windows:
            raise ConfigError(
                f"Nothing of {work.spec.model!r} is computed yet, so there are no healthy windows "
                f"to put faults in. mlmon run {work.spec.model} computes them."
            )

    def columns(self, names: Sequence[str] = ()) -> Iterator[Subject]:
        """Try the faults of features, of all by default, one column after the other."""
        for name in names or self._spec.logged_features:
            kind = self._spec.features[name].type
            faults = [fault for fault in self._faults if kind in fault.types]
            if faults:
                families = dict.fromkeys((QUALITY, DRIFT), "")
                yield self._tried(name, name, faults, families, kind)

    def whole(self) -> Iterator[Subject]:
        """Try the faults of ground truth, of the service and of the feed."""
        spec = self._spec
        if spec.has_actuals:
            if flip := self._fault(LABEL_FLIP):
                families = dict.fromkeys(_truth_families(spec), "")
                yield self._tried("actual", "", [flip], families)
            if fault := self._fault(ONE_SLICE):
                windows = self._past.healthy(PERFORMANCE, TABLE, self._n)
                for slice_ in slices_of(self._past, windows):
                    yield self._tried(
                        "actual", str(slice_), [fault], {PERFORMANCE: ""}, slice_=slice_
                    )
        for role, name, metrics in (
            ("latency_ms", "latency", ("p95_latency_ms", "p99_latency_ms")),
            ("status", "errors", ("error_rate",)),
        ):
            watched = any(getattr(spec.monitors.service, metric) for metric in metrics)
            if getattr(spec.columns, role) is not None and (fault := self._fault(name)):
                reason = "" if watched else f"no limit is set for {' or '.join(metrics)}"
                yield self._tried(role, "", [fault], {SERVICE: reason})
        for name in _ABSENCES:
            fault = self._fault(name)
            if fault and (name != MISSING_TRUTH or spec.has_actuals):
                yield self._absent(fault)

    def _fault(self, name: str) -> Fault | None:
        return next((fault for fault in self._faults if fault.name == name), None)

    def _tried(
        self,
        column: str,
        named: str,
        faults: Sequence[Fault],
        families: Mapping[str, str],
        kind: str = "",
        slice_: Slice | None = None,
    ) -> Subject:
        """Try faults of one column in its healthy windows.

        Args:
            column: The feature or role.
            named: What the findings are about.
            faults: The faults.
            families: Families that may notice -> why they cannot; empty if they can.
            kind: Type of the feature; empty for a role.
            slice_: The slice whose rows are hit.
        """
        judged = column if kind else TABLE
        able = [family for family, reason in families.items() if not reason]
        healthy = {family: self._past.healthy(family, judged, self._n) for family in able}
        windows = {family: mine for family, mine in healthy.items() if len(mine) >= FEWEST}
        title = named or ("ground truth" if column == "actual" else SERVICE)
        pairs = [(f, family) for f in faults for family in f.families if family in families]
        untried = [
            Finding(named, fault.name, family, reason=reason)
            for fault, family in pairs
            if family not in windows
            for reason in [families[family] or self._past.why_not(family, judged)]
        ]
        if not windows:
            return Subject(title, untried)
        trial = Trial(self._past, column, windows, self._seed, slice_)
        possible = [
            (fault, family)
            for fault, family in pairs
            if family in windows and (not kind or fits(fault, trial.facts, kind))
        ]
        found = smallest(possible, trial.notices)
        findings = [_finding(named, *pair, *found[pair]) for pair in possible]
        unit = trial.facts.unit[0] if kind else ""
        rows, share = round(trial.rows_per_window / trial.share_read), trial.share_read
        return Subject(title, [*findings, *untried], windows, rows, share, trial.facts.sd, unit)

    def _absent(self, fault: Fault) -> Subject:
        family, metric, look = _ABSENCES[fault.name]
        if fault.name == LATE_FEED:
            fault = replace(fault, sizes=hours_tried(self._past, fault.sizes))
        title = SERVICE if family == SERVICE else "feed"
        windows = self._past.healthy(family, TABLE, self._n, metric)
        if len(windows) < FEWEST or not fault.sizes:
            reason = self._past.why_not(family, TABLE)
            return Subject(title, [Finding("", fault.name, family, reason=reason)])
        pair = (fault, family)
        found = smallest(
            [pair], lambda probes: {p: look(self._past, windows, p.size) for p in probes}
        )
        n = sum(self._past.states[w.start].n for w in windows) // len(windows)
        finding = _finding("", *pair, *found[pair])
        return Subject(title, [finding], {family: windows}, n)


def _truth_families(spec: ModelSpec) -> tuple[str, ...]:
    """Return the families that wrong ground truth shows in.

    Errors of a regression are estimated from the rows that the store holds, not from profiles, so
    that a faulty copy cannot be put in their place.
    """
    estimated = spec.monitors.estimated_performance and spec.task != REGRESSION
    return (PERFORMANCE, ESTIMATED_PERFORMANCE) if estimated else (PERFORMANCE,)


def smallest(
    pairs: Sequence[tuple[Fault, str]], notices: Notices
) -> dict[tuple[Fault, str], tuple[float | None, Notice]]:
    """Search the sizes of some faults by bisection, all of them in the same rounds.

    A size counts if the next larger one is noticed, too: a distance can saturate, so that what is
    noticed in most rows is not in all of them.

    Args:
        pairs: Faults and the family that may notice each.
        notices: Tells how faults of some size are noticed.

    Returns:
        Pair -> the smallest size that is surely noticed and how, with the most windows that this or
        a larger size tried took; None if the largest one is not noticed.
    """
    known: dict[tuple[Fault, str], dict[int, Notice]] = {pair: {} for pair in pairs}
    while places := {p: place for p in pairs if (place := _to_try(known[p], p[0])) is not None}:
        probes = {p: Probe(p[0], p[1], p[0].sizes[place]) for p, place in places.items()}
        found = notices(list(probes.values()))
        for pair, place in places.items():
            known[pair][place] = found[probes[pair]]
    return {pair: _answer(known[pair], pair[0]) for pair in pairs}


def _to_try(known: Mapping[int, Notice], fault: Fault) -> int | None:
    """Return the place of the next size to try; None if the answer is known."""
    last = len(fault.sizes) - 1
    if last not in known:
        return last
    low, high = _bounds(known)
    if high > last:
        return None
    if high - low > 1:
        return (low + high) // 2
    return high + 1 if high < last and high + 1 not in known else None


def _bounds(known: Mapping[int, Notice]) -> tuple[int, int]:
    """Return the largest place that is missed, and the next tried one, which is noticed."""
    low = max((place for place, notice in known.items() if not notice.is_sure), default=-1)
    return low, min((place for place in known if place > low), default=low + 1)


def _answer(known: Mapping[int, Notice], fault: Fault) -> tuple[float | None, Notice]:
    _, high = _bounds(known)
    if high not in known:
        return None, Notice()
    after = max(notice.after for place, notice in known.items() if place >= high)
    return fault.sizes[high], replace(known[high], after=after)


def _finding(named: str, fault: Fault, family: str, size: float | None, notice: Notice) -> Finding:
    largest, after = fault.sizes[-1], notice.after
    return Finding(
        named, fault.name, family, size, largest, after, notice.monitor, notice.slice_name
    )


def _volume(past: Past, windows: Sequence[Window], share: float) -> Notice:
    rows: list[MonitorResult] = []
    for inputs in past.inputs(SERVICE, windows):
        fewer = [{**w, "n": max(round(w["n"] * (1 - share)), 1)} for w in inputs.windows]
        rows += replace(inputs, windows=fewer).verdicts()
    return notice(windows, past.verdicts(SERVICE), lambda _: rows)


def _missing_truth(past: Past, windows: Sequence[Window], share: float) -> Notice:
    healthy = past.verdicts(FRESHNESS)

    def faulty(place: int) -> list[MonitorResult]:
        begin = windows[place].start
        rows: list[MonitorResult] = []
        for inputs in past.inputs(FRESHNESS, past.windows):
            missing = [
                w if w["window_start"] < begin
                else {**w, "n_actual": round(w["n_actual"] * (1 - share))}
                for w in inputs.windows
            ]  # fmt: skip
            rows += replace(inputs, windows=missing).verdicts()
        return [row for row in rows if row["metric"] == OVERDUE]

    return notice(windows, [row for row in healthy if row["metric"] == OVERDUE], faulty)


def hours_tried(past: Past, hours: Sequence[float]) -> tuple[float, ...]:
    """Return how late a feed can be in what is stored: so many windows must have come after it."""
    return tuple(h for h in hours if _places(past, dt.timedelta(hours=h)))


def _places(past: Past, late: dt.timedelta) -> range:
    """Return the places of the newest windows that may be the first late one."""
    known = past.contiguous
    if not known:
        return range(0)
    behind = math.ceil(late / (known[-1].end - known[-1].start))
    last = len(known) - 1 - behind
    return range(last, max(last - _TIMES, _BEFORE - 1), -1)


def _late_feed(past: Past, _windows: Sequence[Window], hours: float) -> Notice:
    """Look, just before the late rows of a window come, at what freshness says of it."""
    late = dt.timedelta(hours=hours)
    found = [_is_silence_told(past, past.contiguous, p, late) for p in _places(past, late)]
    share = sum(found) / len(found)
    return Notice(share, 1, f"freshness/{SILENCE}") if any(found) else Notice()


def _is_silence_told(past: Past, known: Sequence[Window], place: int, late: dt.timedelta) -> bool:
    now = known[place].end + late - dt.timedelta(seconds=1)
    looked_at = tuple(w for w in known[place - _BEFORE :] if w.end <= now)
    begin = known[place].start
    states = {
        start: replace(state, n=0) if start >= begin else state
        for start, state in past.states.items()
    }
    work = replace(past.work, now=now)
    rows: list[MonitorResult] = []
    for inputs in judge_inputs(work, FRESHNESS, looked_at, states):
        # What waits in the landing folder today has nothing to do with it.
        read = [{**known, "n_unread": 0} for known in inputs.windows]
        rows += replace(inputs, windows=read).verdicts()
    return any(
        row["status"] in ("WARN", "ERROR") and row["window_start"] >= begin
        for row in rows
        if row["metric"] == SILENCE
    )


# Fault -> the family and the metric that may notice it, and how it is tried.
_ABSENCES: Mapping[str, tuple[str, str, Callable[[Past, Sequence[Window], float], Notice]]] = {
    VOLUME: (SERVICE, "volume_drop", _volume),
    LATE_FEED: (FRESHNESS, SILENCE, _late_feed),
    MISSING_TRUTH: (FRESHNESS, OVERDUE, _missing_truth),
}
