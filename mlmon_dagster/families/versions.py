"""Family versions: a challenger that is worse, features served otherwise than computed, old age."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlmon_dagster.families.family import (
    Family,
    Measure,
    Sample,
    frame_samples,
    make_sample,
    plot_both,
)
from mlmon_dagster.monitors.change_wording import percent
from mlmon_dagster.monitors.evidence import (
    MIN_COUNT,
    NO_DATA,
    OK,
    Case,
    Evidence,
    Window,
    excess,
    finite,
    not_mature,
    not_valued,
    production,
)
from mlmon_dagster.monitors.wording import interval_text, number, subject, write_limit
from mlmon_dagster.spec import ModelSpec, complete_windows
from mlmon_dagster.spec import Window as Span
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.metric_registry import METRICS, is_loss
from mlmon_dagster.spec.monitors import (
    CANARY_SHARE,
    FAMILIES,
    GAIN,
    SKEW_RATE,
    VERSION_AGE,
    Skew,
    Staleness,
    VersionComparison,
)
from mlmon_dagster.spec.names import ALL, TABLE, VERSIONS
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.store.state.sql import Row, literal
from mlmon_dagster.work import Work, stored_metric

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.families.compare import Sides
    from mlmon_dagster.metrics.frames import MetricSample
    from mlmon_dagster.metrics.versions import Mismatch

NOT_SERVED, NO_PAIRS, TOO_FEW = "version_not_served", "no_shared_predictions", "few_of_rarer_class"
_DAY = dt.timedelta(days=1)
_NEARLY_ALL = 0.9  # of the requests


def judge(evidence: Evidence) -> list[MonitorResult]:
    """Fail a challenger that is worse, a canary without its share, skewed features, an old version.

    A comparison that is undecided is not judged.
    """
    declared = evidence.spec.monitors.versions
    rows = []
    for window in production(evidence):
        for one in declared.compare:
            if one is declared.canary:
                rows.append(_judge_share(evidence, window, one))
            rows.append(_judge_gain(evidence, window, one))
        if declared.skew is not None:
            columns = evidence.columns_with(window, SKEW_RATE)
            rows += [_judge_skew(evidence, window, declared.skew, c) for c in columns]
        if declared.staleness is not None:
            rows.append(_judge_age(evidence, window, declared.staleness))
    return rows


def _case(evidence: Evidence, window: Window, metric: str, column: str = TABLE) -> Case:
    row = evidence.whole(window, metric, column)
    return Case(evidence, window, evidence.spec.monitors.versions, metric, column, row)


def _unjudged(case: Case, reason: str, **fields: object) -> MonitorResult:
    return case.unjudged(reason, subject(case.metric, case.column), **fields)


def _judge_gain(evidence: Evidence, window: Window, declared: VersionComparison) -> MonitorResult:
    from mlmon_dagster.metrics.versions import BY_ROWS, rows_to_decide, verdict_of

    metric = declared.gain
    case = _case(evidence, window, metric)
    row = case.source
    champion, challenger = (window.get("pairs") or {}).get(metric, ("", ""))
    named: dict[str, object] = {"champion": champion, "challenger": challenger}
    # A comparison goes over many windows, and none of them is in a hurry.
    reason = not_mature(window, row, is_shown=False)
    if not reason and row is not None and str(row["method_version"]).endswith(BY_ROWS):
        reason = "few_shared_windows"
    share = evidence.whole(window, CANARY_SHARE) if declared.share is not None else None
    if not reason and share is not None and _is_wrong(share):
        reason = "sample_ratio"
    if reason or row is None:
        return _unjudged(case, reason, details=named)
    half, margin = (row["upper"] - row["lower"]) / 2, declared.margin
    verdict = verdict_of(row["lower"], row["upper"], margin)
    details: dict[str, object] = {**named, "verdict": verdict, "margin": margin}
    limit = f"below {write_limit(-margin)}"
    sides = f"{_named(challenger)} ({declared.how})", _named(champion)
    said = _tell_gain(declared.metric, row)
    if verdict == "undecided":
        more = rows_to_decide(row["value"], half, margin, int(row["n"]))
        message = (
            f"Whether {sides[0]} is worse than {sides[1]} is undecided: {said}. "
            f"About {more:,} more rows will tell."
        )
        details["more"] = more
        return case.result(NO_DATA, message, reason="undecided", threshold=limit, details=details)
    status = case.monitor.severity if verdict == "worse" else OK
    message = (
        f"{sides[0][0].upper()}{sides[0][1:]} is {verdict} than {sides[1]}: {said}, "
        f"limit {number(margin)}."
    )
    past = excess(-row["value"], margin, half)
    return case.result(status, message, threshold=limit, details=details, **past)


def _tell_gain(metric: str, row: MetricSample) -> str:
    """Say how much higher or lower a metric of another version is, with its interval."""
    side = 1 if row["value"] >= 0 else -1
    low, high = sorted((side * row["lower"], side * row["upper"]))
    is_higher = (side > 0) != is_loss(metric)
    by = f"{number(side * row['value'])} {'higher' if is_higher else 'lower'}"
    now = by if row["value"] else "equal"
    rows = f"n {int(row['n']):,}"
    return f"{METRICS[metric].label} is {now} ({interval_text(low, high)}, {rows})"


def _named(version: str) -> str:
    from mlmon_dagster.profiles.compiler import NO_VERSION

    return f"version {version}" if version not in ("", NO_VERSION) else "a version without a name"


def _is_wrong(share: MetricSample) -> bool:
    from mlmon_dagster.metrics import SHARE_IS_WRONG

    p_value = finite(share["p_value"])
    return p_value is not None and p_value < SHARE_IS_WRONG


def _judge_share(evidence: Evidence, window: Window, declared: VersionComparison) -> MonitorResult:
    case = _case(evidence, window, CANARY_SHARE)
    row = case.source
    reason = not_valued(window, row)
    if reason or row is None:
        return _unjudged(case, reason)
    wrong = _is_wrong(row)
    assert declared.share is not None
    said = f"The canary answered {percent(row['value'])} of {int(row['n']):,} requests"
    after = (
        f" and was to answer {percent(declared.share)}: the split was not by chance, so the "
        "versions cannot be compared."
        if wrong
        else f", about the {percent(declared.share)} that it was to answer."
    )
    status, limit = case.monitor.severity if wrong else OK, f"{declared.share:g}"
    return case.result(status, said + after, threshold=limit, baseline_value=declared.share)


def _judge_skew(evidence: Evidence, window: Window, declared: Skew, column: str) -> MonitorResult:
    case = _case(evidence, window, SKEW_RATE, column)
    row = case.source
    reason = not_valued(window, row)
    if reason or row is None:
        return _unjudged(case, reason)
    # One of a few hundred predictions is past a limit of a thousandth, and no evidence.
    enough = round(row["value"] * row["n"]) >= MIN_COUNT or row["lower"] > declared.above
    wrong = bool(row["value"] > declared.above and enough)
    said = (
        f"{percent(row['value'])} of {int(row['n']):,} predictions were served another {column} "
        f"than the dataset {declared.dataset} has, {'' if wrong else 'not '}above "
        f"{percent(declared.above)}"
    )
    found = (window.get("skews") or {}).get(column)
    details: dict[str, object] = {}
    if found is not None and found.rate > 0:
        details = {"kind": found.kind, "n_null": found.n_null}
        if finite(found.by) is not None and not evidence.spec.features[column].pii:
            details["by"] = found.by
            said += f" ({found.kind} of {found.by:.4g})"
        elif found.kind != "mixed":
            said += f" ({found.kind})"
    day = window["window_start"].tz_convert(evidence.spec.time.zone).date()
    after = (
        f". See which: mlmon skew {evidence.spec.model} --from {day} --to {day} "
        f"--dataset {declared.dataset}."
        if wrong
        else "."
    )
    status, limit = case.monitor.severity if wrong else OK, f"above {write_limit(declared.above)}"
    past = excess(row["value"], declared.above, row["value"] - row["lower"])
    return case.result(status, said + after, threshold=limit, details=details, **past)


def _judge_age(evidence: Evidence, window: Window, declared: Staleness) -> MonitorResult:
    case = _case(evidence, window, VERSION_AGE)
    row = case.source
    reason = not_valued(window, row)
    if reason or row is None:
        return _unjudged(case, reason)
    limit = declared.above.total_seconds() / 86400
    old = row["value"] > limit
    version = str(window.get("deployed") or "")
    return case.result(
        case.monitor.severity if old else OK,
        f"{_named(version).capitalize()} has served for {row['value']:.0f} days, "
        f"{'' if old else 'not '}above {limit:g} days.",
        threshold=f"above {limit:g}",
        details={"version": version},
        **excess(row["value"], limit),
    )


@dataclass(frozen=True)
class Pair:
    """Two versions in a window.

    Attributes:
        champion: The version in service; `NO_VERSION` where versions are not told apart.
        challenger: The other one.
        windows: Starts of the windows in which both answered, up to this one, oldest first.
        n: Requests that the champion answered in them, of canaries.
        n_other: Requests that the challenger answered.
    """

    champion: str
    challenger: str
    windows: tuple[dt.datetime, ...]
    n: int
    n_other: int


class Served:
    """Which version answered how many requests in which window, from the profiles.

    Args:
        work: The model, and the windows that are looked at.
        back: How many windows matter of each, its own included, if not more are declared.
    """

    def __init__(self, work: Work, back: int = 1) -> None:
        self._counts: dict[tuple[str, dt.datetime], dict[str, int]] = {}
        self._first: dict[str, dt.datetime] = {}
        windows = complete_windows(work.spec.time, work.now)
        self._starts = [window.start for window in windows]
        since = self._oldest(work, back)
        if since is None:
            return
        table = work.project.store.table("profiles", work.spec.model)
        for row in table.read(
            ("window_start", "dataset", "model_version", "n"),
            f"slice_key = {literal(ALL)} AND window_start >= {literal(since)}",
            lambda partition: partition["window_date"] >= f"{since - _DAY:%Y-%m-%d}",  # of any zone
        ).to_pylist():
            start, version = row["window_start"].astimezone(dt.UTC), row["model_version"]
            mine = self._counts.setdefault((row["dataset"], start), {})
            mine[version] = max(mine.get(version, 0), row["n"])
        for (dataset, start), counts in self._counts.items():
            if dataset == PRODUCTION:
                for version in counts:
                    self._first[version] = min(self._first.get(version, start), start)

    def _oldest(self, work: Work, back: int) -> dt.datetime | None:
        """Return the start of the first window that matters to those of the run."""
        declared = work.spec.monitors.versions
        if not (self._starts and work.windows):
            return None
        if declared.staleness is not None:  # a version may be as old as the model
            return self._starts[0]
        place = bisect_left(self._starts, work.start)
        longest = max((back, *(one.over for one in declared.compare)))
        return self._starts[max(place - longest + 1, 0) : place + 1][0]

    def count(self, dataset: str, start: dt.datetime, version: str) -> int:
        """Return the requests that a version answered."""
        return self._counts.get((dataset, start), {}).get(version, 0)

    def deployed(self, start: dt.datetime, dataset: str = PRODUCTION) -> str | None:
        """Return the version that answered most of a window's requests; None without any."""
        counts = self._counts.get((dataset, start), {})
        return max(counts, key=lambda version: (counts[version], version), default=None)

    def serving(self, start: dt.datetime) -> str:
        """Return the version that answered nearly all requests of a window of production.

        Returns:
            Empty where there is none, where it has no name, or where others answered more than a
            tenth.
        """
        from mlmon_dagster.profiles.compiler import NO_VERSION

        counts = self._counts.get((PRODUCTION, start), {})
        version = self.deployed(start)
        if version in (None, NO_VERSION) or counts[version] < _NEARLY_ALL * sum(counts.values()):
            return ""
        return version

    def starts_until(self, start: dt.datetime, most: int) -> Iterator[dt.datetime]:
        """Yield the starts of the newest windows up to one, the newest first."""
        return reversed(self._starts[: bisect_right(self._starts, start)][-most:])

    def first_seen(self, version: str) -> dt.datetime | None:
        """Return the start of the first window of production that a version answered in."""
        return self._first.get(version)

    def pair(self, declared: VersionComparison, start: dt.datetime) -> Pair | None:
        """Return what is compared in a window; None if one of the two did not answer in it."""
        other = declared.dataset or PRODUCTION
        champion = declared.champion or self.deployed(start)
        challenger = declared.challenger or self.deployed(start, other)
        if champion is None or challenger is None:
            return None
        both = [
            (s, self.count(PRODUCTION, s, champion), self.count(other, s, challenger))
            for s in self._starts[: bisect_right(self._starts, start)][-declared.over :]
        ]
        shared = [(s, n, m) for s, n, m in both if n and m]
        if not shared or shared[-1][0] != start:
            return None
        starts, n, n_other = zip(*shared, strict=True)
        return Pair(champion, challenger, starts, sum(n), sum(n_other))


def versions_frame(work: Work) -> pd.DataFrame:
    """Return the MetricFrame of what a model declares under ``monitors.versions``."""
    declared, rows = work.spec.monitors.versions, list[Sample]()
    served = Served(work)
    present = [w for w in work.windows if served.deployed(w.start) is not None]
    for one in declared.compare:
        rows += _gains(work, served, one, present)
    if declared.skew is not None:
        rows += _skews(work, declared.skew, present)
    if declared.staleness is not None:
        rows += _ages(served, present)
    return frame_samples(rows)


def _gains(
    work: Work, served: Served, declared: VersionComparison, windows: Sequence[Span]
) -> Iterator[Sample]:
    from mlmon_dagster.families.compare import compared_by
    from mlmon_dagster.metrics import FEWEST_WINDOWS
    from mlmon_dagster.metrics.intervals import wilson
    from mlmon_dagster.metrics.versions import BY_ROWS, got_its_share

    method = f"{declared.how}-1"
    for part in _parts(windows, declared.over):
        pairs = {window: served.pair(declared, window.start) for window in part}
        sides = _rows_of(work, declared, [pair for pair in pairs.values() if pair])
        for window, pair in pairs.items():
            if pair is None or sides is None:
                yield make_sample(window, declared.gain, method, reason=NOT_SERVED)
                continue
            if declared is work.spec.monitors.versions.canary:
                assert declared.share is not None
                n = pair.n + pair.n_other
                lower, upper = (float(end) for end in wilson(pair.n_other, n))
                p_value = got_its_share(pair.n, pair.n_other, declared.share)
                yield make_sample(
                    window, CANARY_SHARE, method, value=pair.n_other / n, lower=lower,
                    upper=upper, n=n, p_value=p_value,
                )  # fmt: skip
            mine = sides.within(pair.windows, (pair.champion, pair.challenger))
            found = compared_by(work.spec, mine, declared.metric, declared.margin)
            n_one, n_other = len(mine.one), len(mine.other)
            if found is None:
                reason = TOO_FEW if n_one and n_other else NO_PAIRS
                if declared.how == "canary" and reason == NO_PAIRS:
                    reason = "no_actuals"
                yield make_sample(
                    window, declared.gain, method, n=n_other, n_baseline=n_one, reason=reason
                )
                continue
            few = BY_ROWS if found.windows < FEWEST_WINDOWS else ""
            yield make_sample(
                window, declared.gain, method + few, value=found.difference, lower=found.lower,
                upper=found.upper, p_value=found.p_value, n=found.n, n_baseline=n_one,
            )  # fmt: skip


def _rows_of(work: Work, declared: VersionComparison, pairs: Sequence[Pair]) -> Sides | None:
    """Read the rows of all windows that any of some pairs is compared in, once."""
    from mlmon_dagster.families.compare import rows_of_two, shadowed_rows

    starts = {start for pair in pairs for start in pair.windows}
    windows = [w for w in complete_windows(work.spec.time, work.now) if w.start in starts]
    if not windows:
        return None
    if declared.how == "shadow":
        return shadowed_rows(work.project.store, work.spec, windows)
    return rows_of_two(work.project.store, work.spec, windows, declared.dataset or PRODUCTION)


def _parts(windows: Sequence[Span], size: int) -> Iterator[Sequence[Span]]:
    """Split windows, so that the rows of few are in memory at a time."""
    for first in range(0, len(windows), size):
        yield windows[first : first + size]


def _skews(work: Work, declared: Skew, windows: Sequence[Span]) -> Iterator[Sample]:
    for window in windows:
        found = skew_in(work, declared, window)
        for column in _columns(work.spec, declared):
            one = found.get(column)
            if one is None:
                yield make_sample(window, SKEW_RATE, "skew-1", column_name=column, reason=NO_PAIRS)
            else:
                yield make_sample(
                    window, SKEW_RATE, "skew-1", column_name=column, value=one.rate,
                    lower=one.lower, upper=one.upper, n=one.n,
                )  # fmt: skip


def skew_in(work: Work, declared: Skew, window: Span) -> dict[str, Mismatch]:
    """Return how features of a window's predictions differ between serving and a dataset."""
    from mlmon_dagster.families.compare import skew_of

    columns = _columns(work.spec, declared)
    return skew_of(work.project.store, work.spec, [window], declared.dataset, columns)


def _columns(spec: ModelSpec, declared: Skew) -> Sequence[str]:
    return list(spec.features) if declared.columns == "all" else declared.columns


def _ages(served: Served, windows: Sequence[Span]) -> Iterator[Sample]:
    for window in windows:
        version = served.deployed(window.start)
        since = None if version is None else served.first_seen(version)
        if version is not None and since is not None:
            yield make_sample(
                window, VERSION_AGE, "age-1", value=(window.end - since) / _DAY,
                n=served.count(PRODUCTION, window.start, version),
            )  # fmt: skip


def version_facts(work: Work, windows: Sequence[Span]) -> list[Row]:
    """Return what the judges must know of each window beside the numbers.

    Returns:
        ``deployed``: the version in service; ``pairs``: metric -> the two versions; ``skews``:
        column -> what its differences look like, read again of windows that have any.
    """
    declared = work.spec.monitors.versions
    if not declared.is_declared:
        return [{} for _ in windows]
    served = Served(replace(work, windows=tuple(windows)))
    skewed = _skewed(work, windows) if declared.skew else set()
    found: list[Row] = []
    for window in windows:
        pairs = {one.gain: served.pair(one, window.start) for one in declared.compare}
        skews: Mapping[str, Mismatch] = {}
        if declared.skew is not None and window.start in skewed:
            skews = skew_in(work, declared.skew, window)
        found.append(
            {
                "deployed": served.deployed(window.start),
                "pairs": {k: (p.champion, p.challenger) for k, p in pairs.items() if p},
                "skews": skews,
            }
        )
    return found


def _skewed(work: Work, windows: Sequence[Span]) -> set[dt.datetime]:
    stored = stored_metric(work, SKEW_RATE, windows)
    return {start.to_pydatetime() for start in stored.loc[stored["value"] > 0, "window_start"]}


def _limits(spec: ModelSpec) -> str:
    declared = spec.monitors.versions
    stated = [f"{one.gain} below -{one.margin:g}" for one in declared.compare]
    stated += [f"{CANARY_SHARE} not {c.share:g}" for c in declared.compare if c.share is not None]
    stated += [f"{SKEW_RATE} above {declared.skew.above:g}"] if declared.skew else []
    days = declared.staleness.above / dt.timedelta(days=1) if declared.staleness else None
    stated += [f"{VERSION_AGE} above {days:g}"] if days is not None else []
    return f"Fails at {', '.join(stated)}." if stated else ""


def _metrics(spec: ModelSpec) -> Sequence[str]:
    gains = {one.gain for one in spec.monitors.versions.compare}
    return sorted({*gains, CANARY_SHARE, SKEW_RATE, VERSION_AGE})


FAMILY = Family(
    FAMILIES[VERSIONS],
    judge,
    _limits,
    # It reads rows; the profile of any column tells which windows have none.
    measure=Measure(
        lambda spec: list(spec.features)[:1],
        lambda comparison, profiles: versions_frame(comparison.work),
        lambda spec: "nothing",
        plot_both(
            lambda metric: metric in (CANARY_SHARE, SKEW_RATE, VERSION_AGE) or metric.endswith(GAIN)
        ),
        slices=lambda spec: "none",
    ),
    is_watched=lambda spec: spec.monitors.versions.is_declared,
    is_due=lambda spec: spec.monitors.versions.is_declared,
    metrics=_metrics,
    facts=version_facts,
)
