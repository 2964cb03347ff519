"""What drift is judged by beside single windows: shifts that last, and rows that come again.

A sustained shift is what no window shows by itself, and the newest ones together do. Its verdict is
of one column, and of the run of windows that says it most: the newest 7, 14 or 28. The score and
the prediction are a family of their own for the false discovery rate, as they would be lost among
the features. Repeated rows are of a window and of one of those before it.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mlmon_dagster.families.ground_truth import name_day
from mlmon_dagster.monitors.change_wording import in_words
from mlmon_dagster.monitors.evidence import (
    A_YEAR,
    AN_ALERT,
    OK,
    Case,
    Evidence,
    Window,
    excess,
    failing,
    finite,
    is_beyond,
)
from mlmon_dagster.monitors.wording import number, subject, told, write_limit
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.baseline import GRAINS, PRODUCTION
from mlmon_dagster.spec.monitors import (
    REPEATED_ROWS,
    SUSTAINED_SHIFT,
    SUSTAINED_WINDOWS,
    Sustained,
)
from mlmon_dagster.spec.names import DRIFT, OUTPUTS, ROWS
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.work import Part, baseline_of, comparisons

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.drift.column_change import ColumnChange
    from mlmon_dagster.metrics.drift.sustained import (
        ColumnParts,
        Parts,
        SustainedBaseline,
        SustainedShift,
    )
    from mlmon_dagster.metrics.statistics import ColumnStatistics
    from mlmon_dagster.metrics.windows.repeats import Repeats, RowCells, UsualRepeats
    from mlmon_dagster.monitors.evidence import Repeated
    from mlmon_dagster.monitors.evidence import Sustained as Known
    from mlmon_dagster.profiles import Baseline

_FEWEST, _MOST = SUSTAINED_WINDOWS[0], SUSTAINED_WINDOWS[-1]
_AT_ONCE = 32  # windows whose profiles are held
_NO_BASELINE = frozenset({"learning", "no_baseline"})
METHOD, REPEATS = "sustained-1", "repeats-1"
_ALONE = {"k": 1, "of_n": 1}  # a verdict is of several windows already, or of two


def judge_sustained(
    evidence: Evidence, window: Window, known: Known, distances: Sequence[MonitorResult]
) -> Iterator[MonitorResult]:
    """Fail columns whose newest windows together are really and largely unlike the baseline's.

    Large: by at least `above`, in spreads of the rows, or Cohen's h of a category's share. Real: at
    a level of which unchanged windows have a false episode in ten years for all outputs, and
    another one for all features. And it lasts: the newest three are off by half of it still.

    Args:
        evidence: What is known.
        window: The newest window.
        known: What it and those before it have in common.
        distances: Verdicts on the columns' distances in the window. Where a declared baseline has
            no rows they say why there is none, and so does this: an older one would stay.
    """
    declared = evidence.spec.monitors.drift.sustained
    if declared is None or window["schema_broken"]:
        return
    found = known.shifts(window["window_start"])
    if not found:
        if not evidence.spec.baseline.is_rolling:
            yield from _unjudged(evidence, window, declared, distances)
        return
    from mlmon_dagster.metrics.drift.sustained import lasts
    from mlmon_dagster.metrics.intervals import benjamini_hochberg
    from mlmon_dagster.metrics.windows.law import level_of_newest

    level = level_of_newest(A_YEAR[evidence.spec.time.granularity])
    for is_output in (True, False):
        family = [name for name in found if (name in OUTPUTS) == is_output]
        adjusted = benjamini_hochberg([found[name].p_value for name in family])
        for name, p in zip(family, adjusted, strict=True):
            failed = lasts(found[name], declared.above, p <= level)
            first = _in_words(evidence, window, known, name, found[name]) if failed else ""
            case = _sustained_case(evidence, window, declared, name)
            yield _judged(case, declared, found[name], p, len(family), first)


def _unjudged(
    evidence: Evidence, window: Window, declared: Sustained, distances: Sequence[MonitorResult]
) -> Iterator[MonitorResult]:
    for row in distances:
        if row["reason"] in _NO_BASELINE:
            case = _sustained_case(evidence, window, declared, str(row["column_name"]))
            named = subject(SUSTAINED_SHIFT, case.column)
            yield case.unjudged(row["reason"], named, **_ALONE)


def _sustained_case(evidence: Evidence, window: Window, declared: Sustained, column: str) -> Case:
    monitor, limit = evidence.spec.monitors.drift, f"beyond {write_limit(declared.above)}"
    return Case(evidence, window, monitor, SUSTAINED_SHIFT, column, threshold=limit)


def _judged(
    case: Case,
    declared: Sustained,
    shift: SustainedShift,
    adjusted: float,
    size: int,
    first: str,
) -> MonitorResult:
    from mlmon_dagster.metrics.drift.sustained import lasts

    grain, limit = case.evidence.spec.time.granularity, write_limit(declared.above)
    if shift.run:
        text = (
            f"Over the last {shift.run} {grain}s {_describe_shift(case.column, shift)} than in "
            f"the baseline; the limit is {limit} (n {shift.n:,}, baseline n {shift.n_baseline:,})"
        )
        if not first:
            is_over = lasts(shift, declared.above, is_real=True) is False
            why = f"The newest {grain}s are usual again" if is_over else "This may be chance"
            text += f". {why} (adjusted p {number(adjusted)})"
    else:
        most = SUSTAINED_WINDOWS[-1]
        text = f"{case.column} is less than {limit} standard deviations off over up to {most} "
        text += f"{grain}s"
    newest = math.copysign(1.0, shift.by) * shift.newest
    return case.result(
        failing(case.monitor, is_beyond(declared.error_at, shift.by)) if first else OK,
        told(first, text),
        value=shift.by,
        n=shift.n or int(case.window["n"]),
        p_value=finite(shift.p_value),
        p_adjusted=finite(adjusted),
        family_size=size,
        method_version=METHOD,
        details={
            "n_baseline": shift.n_baseline,
            "n_windows": shift.run,
            "part": shift.part,
            "as_far": round(shift.as_far, 4),
            "measured": "psi",  # what is stored of a column, whatever its kind
        },
        **_ALONE,
        **excess(newest, declared.above),
    )


def _in_words(
    evidence: Evidence, window: Window, known: Known, column: str, shift: SustainedShift
) -> str:
    """Say what changed in the run as a whole, and how usual that was of the baseline's windows."""
    change = known.change(column, window["window_start"], shift)
    words = "" if change is None else in_words(evidence.spec, column, change)
    if not words:
        words = _describe_shift(column, shift)
    grain = evidence.spec.time.granularity
    # It may be of some of them.
    return f"Over the last {shift.run} {grain}s {words}; {_how_usual(shift.as_far, grain)}"


def _describe_shift(column: str, shift: SustainedShift) -> str:
    """Say what of a column has shifted, and how far: Cohen's h of a category's share."""
    size, is_up = number(abs(shift.by)), shift.by > 0
    if shift.part == "share":
        return (
            f"one category of {column} is {'more' if is_up else 'less'} common (Cohen's h {size})"
        )
    if shift.part == "width":
        return f"{column} is {size} standard deviations {'wider' if is_up else 'narrower'}"
    return f"{column} is {size} standard deviations {'higher' if is_up else 'lower'}"


def _how_usual(share: float, grain: str) -> str:
    r"""Say how many of the baseline's windows were as far off.

    Example:
        >>> [_how_usual(share, "day") for share in (0.0, 0.04, 0.24)]
        ['no day of the baseline was as far off', '1 in 25 days of the baseline was as far off', \
'1 in 4 days of the baseline was as far off']
    """
    which = f"1 in {max(round(1 / share), 2)} {grain}s" if share else f"no {grain}"
    return f"{which} of the baseline was as far off"


Read = Callable[[dt.datetime], tuple[Mapping[str, "ColumnStatistics"], dt.datetime]]


def read_windows(part: Part) -> Read:
    """Return what reads windows with those that they are judged together with; it keeps the last.

    A month of windows is read at once.
    """
    work = part.work
    columns = [*_list_columns(work.spec), ROWS] if _can_be_judged(part) else [ROWS]
    held: list[tuple[dt.datetime, Mapping[str, ColumnStatistics], dt.datetime]] = []

    def read(start: dt.datetime) -> tuple[Mapping[str, ColumnStatistics], dt.datetime]:
        if not (held and held[0][0] <= start <= held[0][2]):
            windows = [window for window in work.windows if window.start >= start][:_AT_ONCE]
            profiles = part.in_force.profiles(
                start=windows[0].start - _span(work.spec),
                end=windows[-1].end,
                dataset=PRODUCTION,
                columns=columns,
                slices=[()],
            )
            held[:] = [(windows[0].start, profiles, windows[-1].start)]
        return held[0][1:]

    return read


def judge_repeats(
    evidence: Evidence, window: Window, repeats: Repeated, distances: Sequence[MonitorResult]
) -> Iterator[MonitorResult]:
    """Fail a window whose rows are like those of a window before, surely and beyond the usual.

    There is no row while it is not known what is usual, or the window has fewer than 100 rows; but
    where a declared baseline has no rows, as of sustained shifts.
    """
    monitor, condition = evidence.spec.monitors.drift, evidence.spec.monitors.drift.repeated_rows
    if condition is None or window["schema_broken"]:
        return
    found = repeats(window["window_start"])
    limit = f"above {write_limit(condition.bound)}"
    case = Case(evidence, window, monitor, REPEATED_ROWS, threshold=limit)
    if found is None:
        reasons = {row["reason"] for row in distances}
        if not evidence.spec.baseline.is_rolling and reasons <= _NO_BASELINE and reasons:
            yield case.unjudged(min(reasons), subject(REPEATED_ROWS), **_ALONE)
        return
    beyond = found.likeness - found.usual
    level = AN_ALERT / A_YEAR[evidence.spec.time.granularity]
    failed = condition.fails(beyond) and found.p_value <= level
    day = name_day(evidence.spec, dt.datetime.fromtimestamp(found.start, dt.UTC), evidence.now)
    text = (
        f"Similarity to the rows of {day} is {found.likeness:.2f} (1 is the same rows); "
        f"{evidence.spec.time.granularity}s as far apart have {abs(found.usual):.2f} on average, "
        f"and {write_limit(condition.bound)} more fails (n {found.n:,})"
    )
    if condition.fails(beyond) and not failed:
        text += f". This may be chance (p {number(found.p_value)})"
    yield case.result(
        failing(monitor, condition.is_error(beyond)) if failed else OK,
        told(f"Rows of {day} came again under new ids" if failed else "", text),
        value=round(found.likeness, 6),
        baseline_value=round(found.usual, 6),
        n=found.n,
        p_value=found.p_value,
        method_version=REPEATS,
        details={"measured": ""},  # nothing that is stored
        **_ALONE,
        **excess(beyond, condition.bound),
    )


class RepeatedRows:
    """How far windows repeat the rows of those before them.

    What is usual is asked of the baseline's own windows; of one that moves on, of those before.

    Args:
        spec: The model.
        read: As of `SustainedShifts`.
        baseline: That does not move on; None where it does, or there is none.
    """

    def __init__(self, spec: ModelSpec, read: Read, baseline: Baseline | None) -> None:
        self._spec = spec
        self._is_moving = spec.baseline.is_rolling and baseline is None
        self._above = spec.monitors.drift.repeated_rows
        self._read, self._baseline = read, baseline
        self._held: tuple[Mapping[str, ColumnStatistics], RowCells | None] | None = None

    def __call__(self, start: pd.Timestamp) -> Repeats | None:
        """Return what is known of the window that starts then; None if nothing is."""
        from mlmon_dagster.metrics.windows.repeats import UsualRepeats

        profiles, _ = self._read(start.to_pydatetime())
        if self._held is None or self._held[0] is not profiles:
            self._held = profiles, _find_cells(profiles)
        windows = self._held[1]
        place = None if windows is None else windows.find(int(start.timestamp()))
        if windows is None or place is None or self._above is None:
            return None
        # Older ones are read as well where a run looks at many windows, as a backfill does.
        oldest = windows.find_first(int((start - _span(self._spec)).timestamp()))
        usual = self._find_usual()
        if self._is_moving:
            usual = UsualRepeats(windows.ranks[max(place - _MOST + 1, oldest) : place])
        return None if usual is None else usual.judge(windows, place, self._above.bound, oldest)

    def _find_usual(self) -> UsualRepeats | None:
        from mlmon_dagster.metrics.statistics import derived
        from mlmon_dagster.metrics.windows.repeats import UsualRepeats

        if self._baseline is None:
            return None
        windows: Mapping[str, ColumnStatistics] = self._baseline.windows

        def compute() -> UsualRepeats | None:
            cells = _find_cells(windows)
            return None if cells is None else UsualRepeats(cells.ranks)

        return derived(windows, ROWS, compute)


def _find_cells(profiles: Mapping[str, ColumnStatistics]) -> RowCells | None:
    from mlmon_dagster.metrics.statistics import select_whole
    from mlmon_dagster.metrics.windows.repeats import RowCells

    return RowCells(select_whole(profiles[ROWS])) if ROWS in profiles else None


class SustainedShifts:
    """What the newest windows of columns have in common; their profiles are read a month at once.

    Args:
        spec: The model.
        read: Start of a window -> profiles of it, of the windows that it is judged together with,
            and maybe of later ones; and the start of the last of them.
        compared: Start of a window -> what it is compared with; None if there is nothing, or too
            few windows lie between.
    """

    def __init__(
        self, spec: ModelSpec, read: Read, compared: Callable[[dt.datetime], Baseline | None]
    ) -> None:
        self._spec, self._read, self._compared = spec, read, compared
        self._chunk: _Chunk | None = None

    @classmethod
    def of_part(cls, part: Part, read: Read) -> SustainedShifts:
        """Look at windows by their stored profiles."""
        baselines: dict[dt.datetime, Baseline | None] = {}
        spec = part.work.spec

        def compared(start: dt.datetime) -> Baseline | None:
            if not baselines:
                for one in comparisons(part, DRIFT, _list_columns(spec)):
                    baselines.update({window.start: one.baseline for window in one.work.windows})
            return baselines.get(start)

        return cls(spec, read, compared if _can_be_judged(part) else lambda start: None)

    def shifts(self, start: pd.Timestamp) -> Mapping[str, SustainedShift]:
        """Return those of columns that can be judged, up to the window that starts then."""
        monitor = self._spec.monitors.drift
        baseline = self._compared(start.to_pydatetime())
        if monitor.sustained is None or baseline is None:
            return {}
        then, chunk = self._known(baseline), self._windows(start)
        newest = {
            name: parts
            for name, own in then.columns.items()
            if (parts := self._newest(chunk, name, own, baseline, start)) is not None
        }
        return then.shifts(newest, monitor.sustained.above)

    def _newest(
        self,
        chunk: _Chunk,
        column: str,
        own: ColumnParts,
        baseline: Baseline,
        start: pd.Timestamp,
    ) -> Parts | None:
        """Return a column's newest windows that its baseline does not hold; None of too few."""
        after = int((start - _span(self._spec)).timestamp()) - 1
        if baseline.dataset == PRODUCTION:
            after = max(after, int(own.baseline.starts[-1]))
        return chunk.newest(column, own, int(start.timestamp()), after)

    def change(
        self, column: str, start: pd.Timestamp, shift: SustainedShift
    ) -> ColumnChange | None:
        """Return what changed in a column in the windows of a shift up to one, if known."""
        import numpy as np

        from mlmon_dagster.metrics.drift.column_change import column_change, place_change
        from mlmon_dagster.metrics.statistics import merge, select

        baseline = self._compared(start.to_pydatetime())
        assert baseline is not None
        then, chunk = self._select_columns(baseline)[column], self._windows(start)
        now = chunk.columns.get(column)
        if now is None:
            return None
        own = self._known(baseline).columns[column]
        parts = self._newest(chunk, column, own, baseline, start)
        if parts is None:
            return None
        of_run = np.isin(own.starts_of(now), parts.starts[-shift.run :])
        both = merge(select(now, of_run), ()), merge(then, ())
        change = column_change(*both)
        is_plainer = shift.part == "place" and change.kind in ("range", "shape")
        return place_change(*both) if is_plainer else change

    def _known(self, baseline: Baseline) -> SustainedBaseline:
        """Return the columns of a baseline, as the newest windows are held against them."""
        from mlmon_dagster.metrics.drift.sustained import ColumnParts, SustainedBaseline
        from mlmon_dagster.metrics.statistics import derived

        least = self._spec.monitors.drift.min_rows
        is_moving = baseline_of(self._spec, DRIFT).moving is not None

        def compute() -> SustainedBaseline:
            every = {
                name: ColumnParts(s, least) for name, s in self._select_columns(baseline).items()
            }
            a_year = A_YEAR[self._spec.time.granularity]
            return SustainedBaseline(every, a_year, is_moving=is_moving)

        return derived(baseline.windows, ("sustained", least), compute)

    def _select_columns(self, baseline: Baseline) -> dict[str, ColumnStatistics]:
        """Return the windows of a baseline as a whole, of the columns that can drift."""
        from mlmon_dagster.metrics.statistics import derived, of_all
        from mlmon_dagster.profiles.measures import comparable_columns, over_all_versions

        def compute() -> dict[str, ColumnStatistics]:
            named = self._spec.monitors.drift.columns
            columns = comparable_columns(self._spec, baseline.windows)
            kept = [name for name in columns if named == "all" or name in named]
            return over_all_versions(kept, of_all(baseline.windows))

        return derived(baseline.windows, ("whole", self._spec.monitors.drift.columns), compute)

    def _windows(self, start: pd.Timestamp) -> _Chunk:
        moment = start.to_pydatetime()
        if self._chunk is None or not self._chunk.holds(moment):
            self._chunk = _Chunk(moment, *self._read(moment))
        return self._chunk


class _Chunk:
    """The profiles of some windows, and of those before that they are judged together with.

    Args:
        first: Start of the first of them.
        profiles: Column -> statistics.
        last: Start of the last.
    """

    def __init__(
        self, first: dt.datetime, profiles: Mapping[str, ColumnStatistics], last: dt.datetime
    ) -> None:
        from mlmon_dagster.metrics.drift.columns import with_outputs
        from mlmon_dagster.profiles.measures import over_all_versions

        self._first, self._last = first, last
        self.columns = over_all_versions(with_outputs(profiles), profiles)
        self._parts: dict[str, tuple[ColumnParts, Parts]] = {}

    def holds(self, start: dt.datetime) -> bool:
        """Tell whether it is about the window that starts then."""
        return self._first <= start <= self._last

    def newest(self, column: str, own: ColumnParts, until: int, after: int) -> Parts | None:
        """Return a column's newest windows up to one; None where it has too few rows, or they are.

        Args:
            column: Its name.
            own: Its baseline.
            until: Start of the last window, in seconds.
            after: Start of the last window before them.
        """
        stats = self.columns.get(column)
        if stats is None or stats.binning.binning_id != own.binning_id:
            return None
        if column not in self._parts or self._parts[column][0] is not own:
            self._parts[column] = own, own.follow_windows(stats)
        found = self._parts[column][1].newest(until, after)
        is_there = len(found.starts) >= _FEWEST and found.starts[-1] == until
        return found if is_there else None


def _can_be_judged(part: Part) -> bool:
    """Tell whether enough windows can lie between a window and its baseline."""
    choice = baseline_of(part.work.spec, DRIFT)
    if part.in_force.baseline_id is None:
        return False
    if not part.in_force.is_rolling(choice):
        return True
    grain = GRAINS[part.work.spec.time.granularity]
    is_apart = choice.moving is not None and choice.gap >= (_FEWEST - 1) * grain
    return is_apart or choice.model_version is not None


def _span(spec: ModelSpec) -> dt.timedelta:
    """Return how long before a window the oldest starts that it is judged with, give an hour."""
    return (_MOST - 1) * GRAINS[spec.time.granularity] + dt.timedelta(hours=1)


def _list_columns(spec: ModelSpec) -> list[str]:
    return [*spec.features, *OUTPUTS]
