"""A number of which nothing is known but its values in windows: is one more of them unlike those?

How far a single window strays can only be learnt from other windows, so that both the interval of a
value and the chance of it come from the law that the baseline's windows follow (`windows.law`): it
is a prediction interval (Higgins, Thompson and Spiegelhalter, 2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from mlmon_dagster.metrics import FEWEST_WINDOWS, Floats, Ints
from mlmon_dagster.metrics.windows.law import LONGEST, Calendar, Law

_FEWEST_ROWS = 0.5  # of the baseline's smallest window
_NEAREST, _FURTHEST, _STEPS = 0.01, 1_000.0, 64  # standard deviations, and distances asked for
_NO_SPREAD = 1e-9  # of a value: a number that is the same in all windows


@dataclass(frozen=True)
class UsualValues:
    """A number in the windows of a baseline.

    Attributes:
        values: Floats (W,), finite, in the number's own unit.
        rows: What each was computed from, (W,).
        starts: When the windows start, in seconds, (W,), ascending.
        windows_a_year: How long a window is.
        is_moving: Whether the baseline ends shortly before what is judged, so that growth goes on.

    Example:
        >>> days = np.arange(20) * 86_400
        >>> usual = UsualValues(np.tile([1.0, 1.2], 10), np.full(20, 99), days, 365.25)
        >>> near, far = usual.judge(1.1, 20 * 86_400), usual.judge(3.0, 20 * 86_400)
        >>> near.p_value > 0.5, far.p_value < 0.001, round(far.usual, 1)
        (True, True, 1.1)
    """

    values: ArrayLike
    rows: ArrayLike
    starts: ArrayLike
    windows_a_year: float
    is_moving: bool = False

    @property
    def is_known(self) -> bool:
        """Whether there are enough windows, eight, to say how far they stray."""
        return len(np.asarray(self.values)) >= FEWEST_WINDOWS

    @property
    def fewest_rows(self) -> float:
        """Rows below which a window strays farther than these by its size alone."""
        return _FEWEST_ROWS * float(np.asarray(self.rows)[-LONGEST:].min())

    @cached_property
    def _calendar(self) -> Calendar:
        return Calendar(np.asarray(self.starts, np.float64), self.windows_a_year)

    @cached_property
    def _law(self) -> Law:
        values = np.asarray(self.values, np.float64)[None]
        return self._calendar.fit(values, np.zeros_like(values), is_moving=self.is_moving)

    def judge(self, value: float, start: float, level: float = 0.05) -> JudgedValue:
        """Hold one more window against these.

        Args:
            value: Its number, finite.
            start: When it starts, in seconds.
            level: Share of usual windows that lie outside the range that is returned.

        Raises:
            ValueError: If there are fewer than eight windows.
        """
        at = self._calendar.place(np.array([start]))
        size = float(np.std(np.asarray(self.values)[-LONGEST:]))
        size = max(size, _NO_SPREAD * abs(value), _NO_SPREAD)
        found = self._law.judge([value], 0.0, at)
        usual = float(found.usual[0, 0])
        ways = np.concatenate([[0.0], size * np.geomspace(_NEAREST, _FURTHEST, _STEPS)])
        low, high = (self._reach(usual, side, ways, at, level / 2) for side in (-1, 1))
        chances = float(found.above[0, 0]), float(found.below[0, 0])
        return JudgedValue(*chances, usual, usual - low, usual + high)

    def _reach(self, usual: float, side: int, ways: Floats, at: Ints, level: float) -> float:
        """Return how far to a side usual windows lie, all but a share of them.

        Looked for among some distances, and again among as many between the two that it is between:
        two questions to the law, of which bisection takes eighty.
        """
        for _ in range(2):
            asked = self._law.judge(usual + side * ways, 0.0, np.repeat(at, len(ways)))
            beyond = (asked.above if side > 0 else asked.below)[0]
            place = min(max(int((beyond > level).sum()), 1), len(ways) - 1)
            ways = np.linspace(ways[place - 1], ways[place], _STEPS)
        return float(ways.mean())


@dataclass(frozen=True)
class JudgedValue:
    """What a baseline's windows say of one more.

    Attributes:
        above: Chance of as much or more.
        below: Chance of as little or less.
        usual: What is expected.
        low: Lower end of where usual windows lie.
        high: Upper end.
    """

    above: float
    below: float
    usual: float
    low: float
    high: float

    @property
    def p_value(self) -> float:
        """Two-sided chance of a value as far off."""
        return min(2 * min(self.above, self.below), 1.0)

    def interval(self, value: float) -> tuple[float, float]:
        """Return between what the number of such a window may lie: as far as usual ones stray."""
        return value - (self.high - self.usual), value + (self.usual - self.low)
