"""A metric that got worse by too little for any one window, and stays so: the newest ones together.

Single windows of few rows say little: of a hundred predictions, an area under the curve of .75 is
no news where .82 is usual; of seven such days it is. They are judged by the law of the baseline's
own windows (`windows.law`), which knows that windows may follow each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import special

from mlmon_dagster.metrics import MIN_WINDOWS, Flags, Floats, Ints
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.metrics.windows.law import Calendar, Law
from mlmon_dagster.spec.monitors import SUSTAINED_WINDOWS as RUNS

_NEARLY = 0.9  # of what matters: a run that is so far off is looked at
_NEWEST = 3  # windows: what is over is no longer in most of them
_CLOSEST = 1e-6  # of a share to its ends
_UNUSUAL = 2.5  # spreads of a mean of independent windows; no law has so small a chance below it


class Course(NamedTuple):
    """A metric in W windows, in the order of time, (W,) each.

    Attributes:
        value: Its value.
        better: End of its 95 % interval by rows, on the side where it would be better.
        n: Rows.
        starts: Of the windows, in seconds.
    """

    value: Floats
    better: Floats
    n: Floats
    starts: Ints

    def take(self, kept: Flags) -> Course:
        """Return some of the windows."""
        return Course(self.value[kept], self.better[kept], self.n[kept], self.starts[kept])

    @property
    def known(self) -> Course:
        """The windows that have a value and an interval."""
        return self.take(np.isfinite(self.value) & np.isfinite(self.better) & (self.n > 0))


@dataclass(frozen=True)
class Drop:
    """By how much the newest windows together are worse than is usual.

    Attributes:
        run: How many windows they are.
        value: Their typical value.
        usual: What would be usual for them.
        worse: How much worse they are. newest: The same of the middle one of the newest three.
        p_value: Two-sided chance of as much, in any run that is judged.
        n: Rows of the run.
    """

    run: int
    value: float
    usual: float
    worse: float
    newest: float
    p_value: float
    n: int


def find_drop(
    baseline: Course,
    newest: Course,
    usual: float,
    worst: float,
    *,
    is_share: bool,
    windows_a_year: float,
    is_moving: bool,
) -> Drop | None:
    """Judge the newest 7, 14 and 28 windows, each run as one, and return the surest that is worse.

    Shares and areas are judged as logits, since their errors are about normal there (Agresti, 2002,
    3.1.6), other numbers as they are. The noise of a window's rows is that on the side on which it
    would be usual.

    Args:
        baseline: Its windows.
        newest: At most 28, none of them the baseline's.
        usual: The baseline's value.
        worst: A value that is as much worse as matters.
        is_share: Whether values lie between 0 and 1.
        windows_a_year: How long a window is.
        is_moving: Whether the baseline ends shortly before what is judged.

    Returns:
        None if no run is as far off as matters, or too few windows are known: 14 of the baseline,
        7 of the newest.
    """
    before, now = baseline.known, newest.known
    if len(before.value) < MIN_WINDOWS or len(now.value) < RUNS[0]:
        return None
    side = 1.0 if worst > usual else -1.0
    centre, limit = _to_scale(np.array([usual, worst]), np.full(2, np.inf), is_share)
    least = abs(float(limit - centre))
    values = _to_scale(now.value, now.n, is_share)
    known = _to_scale(before.value, before.n, is_share)
    if not _may_be_off(side * (values - centre), known, _NEARLY * least):
        return None
    calendar = Calendar(before.starts, windows_a_year)
    at = calendar.place(now.starts)
    if len(np.unique(at)) < len(at) or len(np.unique(before.starts)) < len(before.starts):
        return None  # two at once follow no law of windows
    noise = _noise(before, is_share)
    law = _fit(known.tobytes(), noise.tobytes(), before.starts.tobytes(), windows_a_year, is_moving)
    found = law.judge_newest(values, _noise(now, is_share), at, RUNS, _NEARLY * least)
    run, moved = int(found.run[0]), float(found.moved[0])
    if not run or side * moved <= 0:
        return None
    together = float(values[-run:].mean())
    ends = np.array([together, together - moved, np.median(values[-_NEWEST:])])
    value, expected, last = (_from_scale(ends, is_share)).tolist()
    return Drop(
        run,
        value,
        expected,
        side * (value - expected),
        side * (last - expected),
        float(found.p_value[0]),
        int(now.n[-run:].sum()),
    )


def _may_be_off(worse: Floats, baseline: Floats, least: float) -> bool:
    """Tell whether a run is off by what matters, and by more than independent windows are."""
    spread = float(baseline.std(ddof=1))
    return any(
        (off := float(worse[-run:].mean())) >= least
        and off >= _UNUSUAL * spread * (1 / run + 1 / len(baseline)) ** 0.5
        for run in RUNS
        if run <= len(worse)
    )


@lru_cache(maxsize=16)
def _fit(values: bytes, noise: bytes, starts: bytes, windows_a_year: float, is_moving: bool) -> Law:
    """Fit the law of a baseline's windows, of which many windows are judged."""
    known, variance = (np.frombuffer(part, np.float64)[None] for part in (values, noise))
    calendar = Calendar(np.frombuffer(starts, np.int64), windows_a_year)
    return calendar.fit(known, variance, is_moving=is_moving)


def _noise(course: Course, is_share: bool) -> Floats:
    """Return the variances of windows by their rows, on the scale, (W,)."""
    value, better = (_to_scale(v, course.n, is_share) for v in (course.value, course.better))
    return np.asarray(((better - value) / Z95) ** 2, np.float64)


def _to_scale(values: Floats, n: Floats, is_share: bool) -> Floats:
    if not is_share:
        return values
    nearest = np.maximum(0.5 / (n + 1), _CLOSEST)
    return np.asarray(special.logit(np.clip(values, nearest, 1 - nearest)), np.float64)


def _from_scale(values: Floats, is_share: bool) -> Floats:
    return np.asarray(special.expit(values), np.float64) if is_share else values
