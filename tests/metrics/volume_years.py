"""Years of volumes, drawn as healthy traffic is: growth, weeks, nights, holidays, promotions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.service import Volume

Ints = NDArray[np.int64]
Fault = Callable[[Ints, int], int]
LOOK_BACK = 28  # days


@dataclass(frozen=True)
class Traffic:
    """How many rows come.

    Attributes:
        usual: Rows of a weekday, or of its fullest hour, at the beginning.
        growth: Times as many after a year. weekend: Times as few on it.
        spread: Of the logarithm beyond counting noise; of Student's law if `is_heavy`.
        follows: Correlation of neighbouring windows' spread. wanders: Step of a random walk a day.
        promotions: Of three days, `promoted` times the usual.
        holidays: Eleven days of a twentieth to a third.
        is_hourly: Hours, with nights of a fiftieth.
    """

    usual: float = 1000
    growth: float = 1.0
    weekend: float = 1.0
    spread: float = 0.1
    follows: float = 0.0
    wanders: float = 0.0
    is_heavy: bool = False
    promotions: int = 0
    promoted: float = 2.0
    holidays: int = 11
    days: int = 365
    is_hourly: bool = False


@dataclass(frozen=True)
class Year:
    """Windows after four weeks to look back at.

    Attributes:
        sizes: Rows of each. is_holiday: Which a calendar names. is_promoted: Those of promotions.
        week: Windows of one.
    """

    sizes: Ints
    is_holiday: NDArray[np.bool_]
    is_promoted: NDArray[np.bool_]
    week: int

    def volumes(self, fault: Fault | None = None) -> Iterator[tuple[int, Volume]]:
        """Yield what there is to judge of each window that is no holiday, with its number.

        Args:
            fault: Returns the rows of one window instead of its own.
        """
        places = np.arange(len(self.sizes)) % self.week
        back = LOOK_BACK // 7 * self.week
        has_rows = (self.sizes > 0) & ~self.is_holiday
        for i in np.flatnonzero(has_rows[back:]) + back:
            mine = np.flatnonzero(has_rows[i - back : i]) + i - back
            n = fault(self.sizes, int(i)) if fault else int(self.sizes[i])
            volume = Volume(n, int(places[i]), places[mine], self.sizes[mine], self.week)
            if volume.is_known and n:
                yield int(i), volume


def draw_year(traffic: Traffic, seed: int) -> Year:
    """Draw a year, four weeks before it to look back at."""
    rng = np.random.default_rng(seed)
    n_days = traffic.days + LOOK_BACK
    a_day = 24 if traffic.is_hourly else 1
    at = np.arange(n_days * a_day)
    day = at // a_day
    new = rng.standard_t(3, len(at)) / 3**0.5 if traffic.is_heavy else rng.normal(size=len(at))
    stray = new.copy()
    for i in range(1, len(at)):
        stray[i] = traffic.follows * stray[i - 1] + (1 - traffic.follows**2) ** 0.5 * new[i]
    logs = np.log(traffic.usual) + np.log(traffic.growth) * day / 365 + traffic.spread * stray
    logs += traffic.wanders * np.cumsum(rng.normal(size=n_days))[day]
    logs -= np.where(day % 7 >= 5, np.log(traffic.weekend), 0)
    if traffic.is_hourly:
        logs += np.log(0.02 + 0.98 * np.sin(np.pi * (at % 24) / 24) ** 2)
    is_holiday, is_promoted = np.zeros((2, n_days), dtype=bool)
    is_holiday[rng.choice(n_days, traffic.holidays, replace=False)] = True
    for start in rng.integers(LOOK_BACK, n_days - 3, traffic.promotions):
        is_promoted[start : start + 3] = True
    logs += np.where(is_holiday, np.log(rng.uniform(0.05, 0.3, n_days)), 0)[day]
    logs += np.where(is_promoted, np.log(traffic.promoted), 0)[day]
    sizes = rng.poisson(np.exp(logs)).astype(np.int64)
    return Year(sizes, is_holiday[day], is_promoted[day], 7 * a_day)
