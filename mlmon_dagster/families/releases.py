"""A version that replaced another one: is it worse than the windows before it? Asked by default.

Verdicts are of the family performance, by the first of its metrics that has a better side.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mlmon_dagster.monitors.evidence import (
    OK,
    Evidence,
    Window,
    excess,
    finite,
    not_mature,
    result_row,
)
from mlmon_dagster.monitors.wording import number, told
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec import Window as Span
from mlmon_dagster.spec.baseline import GRAINS
from mlmon_dagster.spec.declaration import Granularity
from mlmon_dagster.spec.metric_registry import COUNTED, METRICS, MetricInfo, is_loss
from mlmon_dagster.spec.monitors import RELEASE_CHANGE, Release
from mlmon_dagster.store.state.monitor_results import MonitorResult, name_window
from mlmon_dagster.work import Work

if TYPE_CHECKING:
    from mlmon_dagster.families.versions import Served
    from mlmon_dagster.metrics.frames import MetricSample
    from mlmon_dagster.metrics.versions import ReleaseChange, Values
    from mlmon_dagster.metrics.windows.law import Scale

# After how many windows of its own a version is looked at. A trace tests slices from eight on.
LOOKS: Mapping[Granularity, tuple[int, ...]] = {
    "hour": (24, 72, 168), "day": (8, 14, 28), "week": (4, 8, 12), "month": (3, 6),
}  # fmt: skip
_SEASONS: Mapping[Granularity, int] = {"hour": 24, "day": 7, "week": 1, "month": 1}
_STANDS = 2  # times the longest look: so long its verdict stands
_ENDING = 7  # windows, in which an alert of it ends
_EARLIER = 2  # times the longest look: so many windows of the version before are read
METHOD = "release-1"


class Replaced(NamedTuple):
    """A version in service, and the one that it replaced.

    Attributes:
        version: The one in service. before: The one before.
        after: Starts of its windows, from its first on. earlier: Of the other's last ones.
    """

    version: str
    before: str
    after: tuple[dt.datetime, ...]
    earlier: tuple[dt.datetime, ...]


def count_read(spec: ModelSpec) -> int:
    """Return how many windows a verdict reads, its own included; 1 where none is formed."""
    if find_metric(spec) is None:
        return 1
    return (_STANDS + _EARLIER) * LOOKS[spec.time.granularity][-1] + _ENDING


def find_metric(spec: ModelSpec) -> MetricInfo | None:
    """Return the metric that versions are compared by; None where they are not."""
    if not spec.has_versions or spec.monitors.versions.release is None:
        return None
    judged = (METRICS[monitor.metric] for monitor in spec.monitors.performance)
    return next((m for m in judged if m.better != "neither" and m.name not in COUNTED), None)


def find_releases(work: Work, windows: Sequence[Span]) -> list[dict[str, Any]]:
    """Return of each window ``release``: which version had replaced which; None without one."""
    from mlmon_dagster.families.versions import Served

    if find_metric(work.spec) is None:
        return [{} for _ in windows]
    most, longest = count_read(work.spec), LOOKS[work.spec.time.granularity][-1]
    served = Served(replace(work, windows=tuple(windows)), most)
    return [{"release": find_replaced(served, window.start, longest, most)} for window in windows]


def find_replaced(served: Served, start: dt.datetime, longest: int, most: int) -> Replaced | None:
    """Return which version serves a window, and which one it had replaced.

    Windows that several versions share, and those without rows, are of neither. However many
    windows are known, the same ones are looked at.

    Args:
        served: Which version answered how many requests.
        start: The window's.
        longest: The longest look.
        most: Windows that are looked at, this one included.

    Returns:
        None if the window is of no version, the one before is not known, or the release is over.
    """
    version, before = served.serving(start), ""
    after, earlier = list[dt.datetime](), list[dt.datetime]()
    if not version:
        return None
    for moment in served.starts_until(start, most):
        now = served.serving(moment)
        if now == version and not earlier:
            after.append(moment)
        elif now and now == (before or now):
            before = now
            earlier.append(moment)
        elif now:
            break
        if len(after) > _STANDS * longest + _ENDING or len(earlier) == _EARLIER * longest:
            break
    if not earlier:
        return None
    return Replaced(version, before, tuple(reversed(after)), tuple(reversed(earlier)))


def judge_release(evidence: Evidence, window: Window) -> Iterator[MonitorResult]:
    """Fail a version whose first windows are really worse than those of the one before.

    Really: at .01 for all looks together, by the spread of the windows before. And by at least the
    margin. Its verdict changes at the looks alone; that of the last look stands for as long again.
    """
    metric, found = find_metric(evidence.spec), window.get("release")
    declared = evidence.spec.monitors.versions.release
    if metric is None or found is None or declared is None:
        return
    row, looks = evidence.whole(window, metric.name), LOOKS[evidence.spec.time.granularity]
    if row is None or not_mature(window, row):
        return
    if len(found.after) > _STANDS * looks[-1]:
        text = f"Version {found.version} is no longer compared with version {found.before}."
        yield _result(evidence, window, OK, text)
        return
    rows = evidence.recent(window, metric.name, count_read(evidence.spec))
    after, earlier = (
        [one for one in rows if one["window_start"] in starts]
        for starts in (set(found.after), set(found.earlier))
    )
    change = _compare(evidence.spec, metric, earlier, after)
    if change is not None:
        seen = after[: change.run]
        yield _judge(
            evidence, window, _Seen(metric, found, change, declared, seen, earlier, len(looks))
        )


class _Seen(NamedTuple):
    """What a verdict is formed on."""

    metric: MetricInfo
    found: Replaced
    change: ReleaseChange
    declared: Release
    after: Sequence[MetricSample]
    earlier: Sequence[MetricSample]
    n_looks: int

    @property
    def worse(self) -> float:
        """By how much the new version is worse; negative if it is better."""
        by = self.change.now - self.change.before
        return by if is_loss(self.metric.name) else -by

    @property
    def limit(self) -> float:
        """From where on that counts: of what has no largest value a share of what it was."""
        return self.declared.margin * (1.0 if _is_share(self.metric) else abs(self.change.before))

    @property
    def adjusted(self) -> float:
        """The chance of it at any of the looks, if the versions were equal."""
        return min(self.change.p_value * self.n_looks, 1.0)

    @property
    def is_real(self) -> bool:
        """Whether it is more than chance."""
        from mlmon_dagster.metrics.versions import LEVEL

        return self.adjusted <= LEVEL


def _judge(evidence: Evidence, window: Window, seen: _Seen) -> MonitorResult:
    failed = seen.is_real and seen.worse >= seen.limit
    return _result(
        evidence,
        window,
        evidence.spec.monitors.versions.severity if failed else OK,
        _describe(evidence.spec, seen, is_failed=failed),
        value=finite(-seen.worse),
        n=_count_rows(seen.after),
        threshold=f"below -{number(seen.limit)}",
        p_value=finite(seen.change.p_value),
        p_adjusted=finite(seen.adjusted),
        family_size=seen.n_looks,
        details={
            "version": seen.found.version,
            "replaced": seen.found.before,
            "measured": seen.metric.name,
            "visible": finite(seen.change.visible),
            "after": [str(one["window_start"]) for one in (seen.after[0], seen.after[-1])],
            "earlier": [str(one["window_start"]) for one in (seen.earlier[0], seen.earlier[-1])],
        },
        **excess(seen.worse, seen.limit),
    )


def _result(
    evidence: Evidence, window: Window, status: str, message: str, **fields: Any
) -> MonitorResult:
    fields = {"method_version": METHOD, "k": 1, "of_n": 1, **fields}
    monitor = evidence.spec.monitors.versions
    return result_row(
        evidence, window, monitor, metric=RELEASE_CHANGE, status=status, message=message, **fields
    )


def _compare(
    spec: ModelSpec,
    metric: MetricInfo,
    earlier: Sequence[MetricSample],
    after: Sequence[MetricSample],
) -> ReleaseChange | None:
    from mlmon_dagster.metrics.versions import compare_release

    grain = spec.time.granularity
    return compare_release(
        _take_values(earlier, grain),
        _take_values(after, grain),
        LOOKS[grain],
        _choose_scale(metric),
        is_loss=is_loss(metric.name),
        period=_SEASONS[grain],
    )


def _take_values(rows: Sequence[MetricSample], grain: Granularity) -> Values:
    from mlmon_dagster.metrics.versions import Values

    span = GRAINS[grain].total_seconds()
    return Values(
        tuple(row["value"] for row in rows),
        tuple(row["lower"] for row in rows),
        tuple(row["upper"] for row in rows),
        tuple(int(row["n"]) for row in rows),
        tuple(round(row["window_start"].timestamp() / span) for row in rows),
    )


def _is_share(metric: MetricInfo) -> bool:
    return (metric.low, metric.high) == (0.0, 1.0)


def _choose_scale(metric: MetricInfo) -> Scale:
    if _is_share(metric):
        return "logit"
    return "root" if metric.low == 0.0 else "identity"


def _count_rows(rows: Sequence[MetricSample]) -> int:
    return sum(int(row["n"]) for row in rows)


def _describe(spec: ModelSpec, seen: _Seen, *, is_failed: bool) -> str:
    metric, found, change, grain = seen.metric, seen.found, seen.change, spec.time.granularity
    places = max(1 - math.floor(math.log10(seen.limit)), 0) if seen.limit > 0 else 3
    now, before, visible, by, limit = (
        f"{value:.{places}f}"
        for value in (change.now, change.before, change.visible, abs(seen.worse), seen.limit)
    )
    since = name_window(spec, seen.after[0]["window_start"])  # the alert's is the day of the look
    levels = (
        f"{metric.label} {now} in its first {change.run} {grain}s (from {since} on), where "
        f"{before} was expected"
    )
    if is_failed:
        said = f"Version {found.version} is worse than version {found.before}: {levels}"
    elif seen.is_real and seen.worse > 0:
        said = f"Version {found.version} is worse than version {found.before} by less than {limit}"
        said += f": {levels}"
    else:
        said = f"Version {found.version} is not seen to be worse than {found.before}: {levels}"
    side = "worse" if seen.worse > 0 else "better"
    return told(
        said,
        f"It is {by} {side} than by the {len(seen.earlier)} {grain}s before (n "
        f"{_count_rows(seen.after):,} and {_count_rows(seen.earlier):,}); from {visible} on worse "
        f"is more than chance, and the limit is {limit}",
    )
