"""How long what sets a baseline's window apart lasts: season and autocorrelation of its windows.

Days that wander slowly are alike within a short baseline: 45 days of an autoregressive process with
a coefficient of .9 hold some three independent ones. So they lie closer to their own mean than
later days will, and how far they lie is badly known. Both follow from the correlation of windows
that are some steps apart (Bayley and Hammersley, 1946): the variance of a mean is V = the mean
correlation of all pairs, in units of that of one window; the squares inside the baseline are 1 - V
of that on average, and those of a later window from that mean 1 + V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.drift.drift_bins import merge_bins, merge_plan

_SPANS = (7 * 86_400, 86_400)  # seconds of the seasons that are known: week, day
_SEASONS = 4  # times that a baseline must hold a season before it knows its course
_LAGS = (1, 2, 3)  # steps: of a baseline of some days in the month few follow each other
_FEWEST = 8  # windows, and pairs of them, that a correlation is taken from
_FURTHEST = 3.0  # robust spreads
_LEAST = 0.25  # of the windows' variance is no sampling noise
_LARGEST = 0.9  # correlation: beyond it a short baseline would tell no change from its wandering


@dataclass(frozen=True)
class Season:
    """Where in the week, or in the day, windows lie.

    Attributes:
        step: Seconds between neighbouring windows, 0 if there is only one.
        places: Places in a season; 1 if the baseline is too short to know one.
    """

    step: int = 0
    places: int = 1

    @classmethod
    def fit(cls, starts: pd.Series) -> Season:
        """Find the longest season that the windows that start then hold four times."""
        steps = np.diff(np.unique(_seconds(starts)))
        if not len(steps):
            return cls()
        step = int(steps.min())
        for span in _SPANS:
            if span // step > 1 and len(starts) >= _SEASONS * (span // step):
                return cls(step, span // step)
        return cls(step)

    def of(self, starts: pd.Series) -> Ints:
        """Return the places in the season of windows that start then, (C,)."""
        if self.places == 1:
            return np.zeros(len(starts), np.int64)
        return np.asarray((_seconds(starts) // self.step) % self.places, dtype=np.int64)

    def course(self, values: Floats, places: Ints) -> Floats:
        """Return the mean value at each place, (places, K), of windows' values, (W, K).

        A window far off its place's median counts no more than one three robust spreads off. At a
        place that no window has it is the median of all.
        """
        found = np.tile(np.median(values, axis=0), (self.places, 1))
        there = np.unique(places)
        for place in there.tolist():
            found[place] = np.median(values[places == place], axis=0)
        away = values - found[places]
        most = _FURTHEST * 1.4826 * np.median(np.abs(away), axis=0)
        away = np.clip(away, -most, most)
        for place in there.tolist():
            found[place] += away[places == place].mean(axis=0)
        return found


@dataclass(frozen=True)
class Persistence:
    """What the order of a baseline's windows says about later ones.

    Of one baseline, or of one for each of P windows, (P,), as `stack` gives it.

    Attributes:
        coefficient: Correlation of neighbouring windows, 0 to .9; 0 if they are independent.
        widening: How much larger the squares of later windows' strays are than those inside the
            baseline, each from the mean (of its place in the season), at least 1.
        effective: How many independent windows know the spread as well, at most W.
    """

    coefficient: float | Floats = 0.0
    widening: float | Floats = 1.0
    effective: float | Floats = np.inf

    @classmethod
    def of(cls, coefficient: float, starts: pd.Series, places: Ints) -> Persistence:
        """Return what follows from the correlation of neighbouring windows.

        Args:
            coefficient: That correlation.
            starts: When W windows start.
            places: Their places in a season whose course is taken off; all 0 without one.

        Example:
            >>> days = pd.Series(pd.date_range("2024-01-01", periods=45, tz="UTC"))
            >>> found = Persistence.of(0.9, days, np.zeros(45, np.int64))
            >>> round(found.widening, 1), round(found.effective, 1)
            (2.0, 9.4)
        """
        at = _steps(starts)
        if len(at) < 2:
            return cls()
        correlations = coefficient ** np.abs(np.subtract.outer(at, at)).astype(np.float64)
        alike = np.equal.outer(places, places)
        shared = float(((correlations * alike).sum(axis=1) / alike.sum(axis=1)).mean())
        widening = (1 + shared) / (1 - shared) if shared < 1 else np.inf
        # Each window counts by what it does not share with the one before it. Measured: Student's
        # law with so many degrees of freedom fits the tails of simulated autoregressive windows.
        new = 1 - coefficient ** (2 * np.diff(np.sort(at)).astype(np.float64))
        return cls(coefficient, widening, min(1 + float(new.sum()), float(len(at))))

    @classmethod
    def stack(cls, some: Sequence[Persistence], place: Ints) -> Persistence:
        """Put those of K baselines side by side, in the order of `place`, (P,)."""
        parts = ([getattr(one, field.name) for one in some] for field in fields(cls))
        return cls(*(np.array(part, dtype=np.float64)[place] for part in parts))


def correlation(strays: Floats, noise: Floats, starts: pd.Series) -> float:
    """Return the correlation of neighbouring windows, 0 to .9.

    Products of strays a step apart know no sampling noise; the squares are cleared of it, and the
    whole of the bias of a short series (Kendall, 1954).

    Args:
        strays: How W windows stray from the mean (of their place in the season), (W, K).
        noise: Their squares by sampling alone, summed over K, (W,).
        starts: Their starts; where few windows follow each other, those 2 or 3 steps apart count.

    Returns:
        0 with fewer than 8 windows or pairs of them.
    """
    count, at = len(strays), _steps(starts)
    squares = (strays**2).sum(axis=1)
    position = {moment: i for i, moment in enumerate(at.tolist())}
    for lag in _LAGS if count >= _FEWEST else ():
        pairs = [(i, position[t + lag]) for t, i in position.items() if t + lag in position]
        variance = max(float(np.mean(squares - noise)), _LEAST * float(np.mean(squares)))
        if len(pairs) >= _FEWEST and variance > 0:
            first, second = np.array(pairs).T
            found = float((strays[first] * strays[second]).sum(axis=1).mean()) / variance
            unbiased = (count * found + 1) / (count - 3)
            return float(min(max(unbiased, 0.0) ** (1 / lag), _LARGEST))
    return 0.0


def persistence_of_counts(windows: Ints, starts: pd.Series, *, ordered: bool) -> Persistence:
    """Return the persistence of windows' distances from the rest, which know no season.

    Args:
        windows: Rows per drift bin of W windows, (W, B), nulls last.
        starts: Their starts.
        ordered: Whether the bins are intervals of numbers.
    """
    if len(windows) < _FEWEST:
        return Persistence()
    sizes = windows.sum(axis=1)
    plan = merge_plan(windows.sum(axis=0), float(np.median(sizes)), ordered=ordered)
    merged = merge_bins(windows, plan)
    merged = merged[:, merged.sum(axis=0) > 0]
    pooled = merged.sum(axis=0) / merged.sum()
    shares = (merged / sizes[:, None] - pooled) / np.sqrt(pooled)  # as chi-square weighs them
    season = Season.fit(starts)
    places = season.of(starts)
    strays = shares - season.course(shares, places)[places]
    coefficient = correlation(strays, (merged.shape[1] - 1) / sizes, starts)
    return Persistence.of(coefficient, starts, np.zeros(len(windows), np.int64))


def _steps(starts: pd.Series) -> Ints:
    """Return when windows start, in steps since the first."""
    seconds = _seconds(starts)
    step = Season.fit(starts).step
    return (seconds - seconds.min()) // step if step else np.zeros(len(seconds), np.int64)


def _seconds(starts: pd.Series) -> Ints:
    return np.asarray(starts.astype("datetime64[s, UTC]").astype("int64"), dtype=np.int64)
