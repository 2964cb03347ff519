"""What the asset `versions` does: another version's gain, skew by id, the age of the present one.

Which version answered how many requests is known from the profiles; rows are read of the windows
that are compared, and of the ids that two datasets share.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlmon_dagster.pipeline.work import Work, stored_metric
from mlmon_dagster.spec import ModelSpec, Window, complete_windows
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.monitors import (
    CANARY_SHARE,
    SKEW_RATE,
    VERSION_AGE,
    Skew,
    VersionComparison,
)
from mlmon_dagster.spec.names import ALL, TABLE
from mlmon_dagster.store.state.sql import Row, literal

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.versions import Mismatch
    from mlmon_dagster.pipeline.compare import Sides

NOT_SERVED, NO_PAIRS, TOO_FEW = "version_not_served", "no_shared_predictions", "few_of_rarer_class"
_DAY = dt.timedelta(days=1)
Sample = dict[str, Any]  # a row of a MetricFrame


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
    """

    def __init__(self, work: Work) -> None:
        self._counts: dict[tuple[str, dt.datetime], dict[str, int]] = {}
        self._first: dict[str, dt.datetime] = {}
        windows = complete_windows(work.spec.time, work.now)
        self._starts = [window.start for window in windows]
        since = self._oldest(work)
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

    def _oldest(self, work: Work) -> dt.datetime | None:
        """Return the start of the first window that matters to those of the run."""
        declared = work.spec.monitors.versions
        if not (self._starts and work.windows):
            return None
        if declared.staleness is not None:  # a version may be as old as the model
            return self._starts[0]
        place = bisect_left(self._starts, work.start)
        longest = max((one.over for one in declared.compare), default=1)
        return self._starts[max(place - longest + 1, 0) : place + 1][0]

    def count(self, dataset: str, start: dt.datetime, version: str) -> int:
        """Return the requests that a version answered."""
        return self._counts.get((dataset, start), {}).get(version, 0)

    def deployed(self, start: dt.datetime, dataset: str = PRODUCTION) -> str | None:
        """Return the version that answered most of a window's requests; None without any."""
        counts = self._counts.get((dataset, start), {})
        return max(counts, key=lambda version: (counts[version], version), default=None)

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
    import pandas as pd

    from mlmon_dagster.metrics.frames import METRIC_COLUMNS

    declared, rows = work.spec.monitors.versions, list[Sample]()
    served = Served(work)
    present = [w for w in work.windows if served.deployed(w.start) is not None]
    for one in declared.compare:
        rows += _gains(work, served, one, present)
    if declared.skew is not None:
        rows += _skews(work, declared.skew, present)
    if declared.staleness is not None:
        rows += _ages(served, present)
    frame = pd.DataFrame(rows, columns=list(METRIC_COLUMNS))
    frame["window_start"] = pd.to_datetime(frame["window_start"], utc=True)
    return frame


def _row(window: Window, metric: str, version: str, **fields: object) -> Sample:
    nothing: Sample = dict.fromkeys(("value", "lower", "upper", "p_value"), float("nan"))
    return {
        "window_start": window.start,
        "dataset": PRODUCTION,
        "model_version": ALL,
        "slice_key": ALL,
        "slice_value": ALL,
        "column_name": TABLE,
        "metric": metric,
        "method_version": version,
        "n": 0,
        "n_baseline": 0,
        "reason": "",
        **nothing,
        **fields,
    }


def _gains(
    work: Work, served: Served, declared: VersionComparison, windows: Sequence[Window]
) -> Iterator[Sample]:
    from mlmon_dagster.metrics import FEWEST_WINDOWS
    from mlmon_dagster.metrics.intervals import wilson
    from mlmon_dagster.metrics.versions import BY_ROWS, got_its_share
    from mlmon_dagster.pipeline.compare import compared_by

    method = f"{declared.how}-1"
    for part in _parts(windows, declared.over):
        pairs = {window: served.pair(declared, window.start) for window in part}
        sides = _rows_of(work, declared, [pair for pair in pairs.values() if pair])
        for window, pair in pairs.items():
            if pair is None or sides is None:
                yield _row(window, declared.gain, method, reason=NOT_SERVED)
                continue
            if declared is work.spec.monitors.versions.canary:
                assert declared.share is not None
                n = pair.n + pair.n_other
                lower, upper = (float(end) for end in wilson(pair.n_other, n))
                p_value = got_its_share(pair.n, pair.n_other, declared.share)
                yield _row(
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
                yield _row(
                    window, declared.gain, method, n=n_other, n_baseline=n_one, reason=reason
                )
                continue
            few = BY_ROWS if found.windows < FEWEST_WINDOWS else ""
            yield _row(
                window, declared.gain, method + few, value=found.difference, lower=found.lower,
                upper=found.upper, p_value=found.p_value, n=found.n, n_baseline=n_one,
            )  # fmt: skip


def _rows_of(work: Work, declared: VersionComparison, pairs: Sequence[Pair]) -> Sides | None:
    """Read the rows of all windows that any of some pairs is compared in, once."""
    from mlmon_dagster.pipeline.compare import rows_of_two, shadowed_rows

    starts = {start for pair in pairs for start in pair.windows}
    windows = [w for w in complete_windows(work.spec.time, work.now) if w.start in starts]
    if not windows:
        return None
    if declared.how == "shadow":
        return shadowed_rows(work.project.store, work.spec, windows)
    return rows_of_two(work.project.store, work.spec, windows, declared.dataset or PRODUCTION)


def _parts(windows: Sequence[Window], size: int) -> Iterator[Sequence[Window]]:
    """Split windows, so that the rows of few are in memory at a time."""
    for first in range(0, len(windows), size):
        yield windows[first : first + size]


def _skews(work: Work, declared: Skew, windows: Sequence[Window]) -> Iterator[Sample]:
    for window in windows:
        found = skew_in(work, declared, window)
        for column in _columns(work.spec, declared):
            one = found.get(column)
            if one is None:
                yield _row(window, SKEW_RATE, "skew-1", column_name=column, reason=NO_PAIRS)
            else:
                yield _row(
                    window, SKEW_RATE, "skew-1", column_name=column, value=one.rate,
                    lower=one.lower, upper=one.upper, n=one.n,
                )  # fmt: skip


def skew_in(work: Work, declared: Skew, window: Window) -> dict[str, Mismatch]:
    """Return how features of a window's predictions differ between serving and a dataset."""
    from mlmon_dagster.pipeline.compare import skew_of

    columns = _columns(work.spec, declared)
    return skew_of(work.project.store, work.spec, [window], declared.dataset, columns)


def _columns(spec: ModelSpec, declared: Skew) -> Sequence[str]:
    return list(spec.features) if declared.columns == "all" else declared.columns


def _ages(served: Served, windows: Sequence[Window]) -> Iterator[Sample]:
    for window in windows:
        version = served.deployed(window.start)
        since = None if version is None else served.first_seen(version)
        if version is not None and since is not None:
            yield _row(
                window, VERSION_AGE, "age-1", value=(window.end - since) / _DAY,
                n=served.count(PRODUCTION, window.start, version),
            )  # fmt: skip


def version_facts(work: Work, windows: Sequence[Window]) -> list[Row]:
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


def _skewed(work: Work, windows: Sequence[Window]) -> set[dt.datetime]:
    stored = stored_metric(work, SKEW_RATE, windows)
    return {start.to_pydatetime() for start in stored.loc[stored["value"] > 0, "window_start"]}
