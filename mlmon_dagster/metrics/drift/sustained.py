"""Shifts that are too small for any one window and stay: the newest windows judged together.

Of an ordered column its place and width are followed, means of normal scores under the baseline
(`smooth_distances.Shape`), so that a shift is in spreads of the rows. Of categories it is the
shares of the largest, as angles, whose differences are Cohen's h (1988): about as large for the
same news, whatever the share. All are judged by the law of the baseline's own windows
(`windows.law`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from mlmon_dagster.metrics import MIN_WINDOWS, Flags, Floats, Ints
from mlmon_dagster.metrics.binnings import drift_bins, is_ordered
from mlmon_dagster.metrics.drift.smooth_distances import Shape
from mlmon_dagster.metrics.statistics import ColumnStatistics, seconds_of
from mlmon_dagster.metrics.windows.law import Calendar, Law, to_scale
from mlmon_dagster.spec.monitors import SUSTAINED_WINDOWS as RUNS

Part = Literal["place", "width", "share"]
MOST_WINDOWS = RUNS[-1]
_LARGEST = 8  # categories of a column
_NEARLY = 0.9  # of the least shift: a mean of windows so far off is looked at
_NEWEST, _STILL = 3, 0.5  # windows, the middle one of which is still off by half of the least


@dataclass(frozen=True)
class SustainedShift:
    """What the newest windows of a column have in common that the baseline's do not.

    Attributes:
        p_value: Chance of as much in any part of the column and any run that is judged.
        run: How many of the newest windows say it most; 0 if no part has moved far enough.
        part: What moved. bin: Which category's share.
        by: How far, in spreads of the rows.
        newest: How far the middle one of the newest three is off; of no run, of the part that is
            furthest off.
        as_far: Share of the baseline's windows that lie as far on that side.
        n: Rows of the run. n_baseline: of the baseline.
    """

    p_value: float
    run: int = 0
    part: Part = "place"
    bin: int = 0
    by: float = 0.0
    newest: float = 0.0
    as_far: float = 0.0
    n: int = 0
    n_baseline: int = 0


class Parts(NamedTuple):
    """What is followed of a column, of W windows.

    Attributes:
        values: (S, W). noise: Their variances by rows, (S, W).
        rows: With a value, (W,). starts: In seconds, (W,).
    """

    values: Floats
    noise: Floats
    rows: Ints
    starts: Ints

    def take(self, kept: Flags) -> Parts:
        """Return some of the windows."""
        return Parts(self.values[:, kept], self.noise[:, kept], self.rows[kept], self.starts[kept])

    def newest(self, until: int, after: int | None = None) -> Parts:
        """Return the windows up to one, at most 28.

        Args:
            until: Start of the last, in seconds.
            after: Start of the last window before them; None for any.
        """
        kept = self.starts <= until
        if after is not None:
            kept &= self.starts > after
        return self.take(kept & (np.cumsum(kept[::-1])[::-1] <= MOST_WINDOWS))


class ColumnParts:
    """What is followed of one column of a baseline.

    Args:
        baseline: Its statistics; the cells are its windows.
        min_rows: Fewest rows of a window that counts.
    """

    def __init__(self, baseline: ColumnStatistics, min_rows: int) -> None:
        self._min_rows = min_rows
        self.binning_id = baseline.binning.binning_id
        self._is_ordered = is_ordered(baseline.binning)
        counts = self._counts(baseline).sum(axis=0)
        self._shape = Shape(counts) if self._is_ordered else None
        used = np.flatnonzero(counts)
        largest = used[np.argsort(-counts[used], kind="stable")][:_LARGEST]
        self._bins = largest[:1] if len(used) == 2 else largest  # of two, one says it all
        self.baseline = self.follow_windows(baseline)

    @cached_property
    def is_known(self) -> bool:
        """Whether enough windows say how they differ, in anything at all."""
        return len(self.baseline.rows) >= MIN_WINDOWS and len(self.baseline.values) > 0

    def follow_windows(self, stats: ColumnStatistics) -> Parts:
        """Return the parts of windows that have enough rows, ascending."""
        counts = self._counts(stats)
        rows = counts.sum(axis=1)
        n = np.maximum(rows, 1)
        if self._shape is not None:
            values = self._shape.place_and_width(counts).T
            noise = np.broadcast_to(1 / n, values.shape)
        else:
            values, noise = to_scale(counts[:, self._bins].T / n, 0.0, n, "angle")
        found = Parts(values, noise, rows, self.starts_of(stats)).take(rows >= self._min_rows)
        order = np.argsort(found.starts, kind="stable")
        return Parts(found.values[:, order], found.noise[:, order], *(p[order] for p in found[2:]))

    @staticmethod
    def starts_of(stats: ColumnStatistics) -> Ints:
        """Return when the windows of statistics start, in seconds."""
        return seconds_of(stats.cells["window_start"])

    def part(self, number: int) -> tuple[Part, int]:
        """Return what a part is, and of which bin."""
        if self._shape is None:
            return "share", int(self._bins[number])
        return ("place", "width")[number], 0

    def _counts(self, stats: ColumnStatistics) -> Ints:
        bins = drift_bins(stats)
        return bins.counts if bins.fine is None else bins.fine


class SustainedBaseline:
    """Columns of a baseline; a law is fitted once, where some column is off by about what matters.

    Args:
        columns: Column -> its parts.
        windows_a_year: How long a window is.
        is_moving: Whether the baseline ends shortly before what is judged.
    """

    def __init__(
        self, columns: Mapping[str, ColumnParts], windows_a_year: float, *, is_moving: bool
    ) -> None:
        self.columns = {name: parts for name, parts in columns.items() if parts.is_known}
        groups: dict[bytes, list[str]] = {}
        for name, parts in self.columns.items():
            groups.setdefault(parts.baseline.starts.tobytes(), []).append(name)
        every = [
            _Group({n: self.columns[n] for n in names}, windows_a_year, is_moving)
            for names in groups.values()
        ]
        self._groups = {name: group for group in every for name in group.columns}

    def shifts(self, now: Mapping[str, Parts], least: float) -> dict[str, SustainedShift]:
        """Judge the newest windows of columns together, each column beside its baseline.

        Args:
            now: Column -> its newest windows, at most 28, at least 7, none of which is the
                baseline's.
            least: What a shift must reach, in spreads of the rows.
        """
        found, lots = {}, dict[tuple[int, bytes], list[tuple[str, int]]]()
        for name, newest in now.items():
            base = self.columns[name].baseline
            away = _middle_of_newest(newest.values) - base.values.mean(axis=1)
            furthest = float(np.abs(away).max())
            found[name] = SustainedShift(1.0, newest=furthest, n_baseline=int(base.rows.sum()))
            key = id(self._groups[name]), newest.starts.tobytes()
            off = np.flatnonzero(_is_off(newest, base, _NEARLY * least)).tolist()
            lots.setdefault(key, []).extend((name, number) for number in off)
        for members in filter(None, lots.values()):
            group = self._groups[members[0][0]]
            for name, shift in group.judge(now, members, least):
                if shift.p_value < found[name].p_value:
                    found[name] = shift
        return found


def _middle_of_newest(values: Floats) -> Floats:
    """Return the median of the newest windows: what is over is no longer in most of them."""
    found: Floats = np.median(values[..., -_NEWEST:], axis=-1)
    return found


def _is_off(newest: Parts, base: Parts, least: float) -> Flags:
    usual = base.values.mean(axis=1)
    runs = [run for run in RUNS if run <= len(newest.rows)]
    off = [np.abs(newest.values[:, -run:].mean(axis=1) - usual) for run in runs]
    found: Flags = np.max(off, axis=0, initial=0.0) >= least
    return found


class _Group:
    """Columns whose baselines are of the same windows, under one law.

    Arguments as of `SustainedBaseline`.
    """

    def __init__(
        self, columns: Mapping[str, ColumnParts], windows_a_year: float, is_moving: bool
    ) -> None:
        self.columns, self._is_moving = columns, is_moving
        sizes = [len(parts.baseline.values) for parts in columns.values()]
        self._first = dict(zip(columns, np.cumsum([0, *sizes]).tolist(), strict=False))
        starts = next(iter(columns.values())).baseline.starts
        self._calendar = Calendar(starts, windows_a_year)

    @cached_property
    def _law(self) -> Law:
        bases = [parts.baseline for parts in self.columns.values()]
        values, noise = (np.concatenate([base[i] for base in bases]) for i in (0, 1))
        return self._calendar.fit(values, noise, is_moving=self._is_moving)

    def judge(
        self, now: Mapping[str, Parts], members: Sequence[tuple[str, int]], least: float
    ) -> Iterator[tuple[str, SustainedShift]]:
        """Yield the shifts of parts of columns, each by its number, that moved far enough.

        Args:
            now: Column -> its newest windows, the same of all members.
            members: Columns and numbers of parts.
            least: As of `SustainedBaseline.shifts`.
        """
        at = self._calendar.place(now[members[0][0]].starts)
        if len(np.unique(at)) < len(at):
            return
        values = np.stack([now[name].values[number] for name, number in members])
        noise = np.stack([now[name].noise[number] for name, number in members])
        law = self._law.take(np.array([self._first[name] + number for name, number in members]))
        judged = law.judge_newest(values, noise, at, RUNS, least)
        for (name, number), p, run, by, own in zip(members, *judged, values, strict=True):
            if not run:
                continue
            base = self.columns[name].baseline
            usual, side = own[-run:].mean() - by, np.sign(by)
            part, which = self.columns[name].part(number)
            yield (
                name,
                SustainedShift(
                    p_value=min(float(p) * len(base.values), 1.0),
                    run=int(run),
                    part=part,
                    bin=which,
                    by=float(by),
                    newest=float(_middle_of_newest(own) - usual),
                    as_far=float((side * (base.values[number] - usual) >= side * by).mean()),
                    n=int(now[name].rows[-run:].sum()),
                    n_baseline=int(base.rows.sum()),
                ),
            )


def lasts(shift: SustainedShift, least: float, is_real: bool) -> bool:
    """Say whether a shift is real, large, and not over: the newest windows are still off."""
    is_on = shift.newest * np.sign(shift.by) >= _STILL * least
    return bool(is_real and shift.run and abs(shift.by) >= least and is_on)
