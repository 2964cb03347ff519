"""Small shifts that stay: false episodes in healthy years, and how soon true ones are found.

Columns are drawn into bins, day by day: independent days, weeks, days that wander, heavy tails,
growth, rows that share the values of an hour. A year of looks counts the episodes of a family of
columns, each adjusted as the monitor does it (Benjamini-Hochberg); then shifts are planted.

    python -m benchmarks sustained --years 20
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from benchmarks.drift_laws import Law, categorical_law, column_of, draw, hours, numeric_law
from benchmarks.table import Goal, Row, show
from benchmarks.window_law import course
from mlmon_dagster.alerts.lifecycle.transitions import MEMORY
from mlmon_dagster.metrics.drift.sustained import (
    MOST_WINDOWS,
    ColumnParts,
    SustainedBaseline,
    SustainedShift,
    lasts,
)
from mlmon_dagster.metrics.intervals import benjamini_hochberg
from mlmon_dagster.metrics.statistics import ColumnStatistics, select
from mlmon_dagster.metrics.windows.law import level_of_newest

Floats = NDArray[np.float64]
LEAST, BASELINE, GAP, YEAR, FAMILY = 0.15, 60, 10, 365, 12
A_YEAR = 365.25  # windows
LEVEL = level_of_newest(A_YEAR)
EPISODES, FOUND, SOON = 0.1, 0.9, 14  # a year of a family; of planted shifts, within windows
_NUMERIC = numeric_law("x", np.random.default_rng(1).normal(size=200_000))
_CATEGORIES = categorical_law("x", np.array([0.4, 0.25, 0.17, 0.1, 0.08]))
_MOVED = 2  # category
_MIN_ROWS = 30


@dataclass(frozen=True)
class World:
    """How days of an unchanged column differ.

    Attributes:
        spread: Of the days' places, in spreads of the rows.
        course: As `window_law.course` takes it.
        rows: Of a day. growth: Factor of the rows over a year.
        is_shared: Whether rows share the values of hours.
    """

    spread: float
    course: dict[str, Any]
    rows: int = 1_000
    growth: float = 1.0
    is_shared: bool = False


WORLDS = {
    "independent": World(0.03, {}),
    "days that vary": World(0.25, {}),
    "weeks": World(0.1, {"season": 2.0}),
    "neighbours .6": World(0.15, {"correlation": 0.6}),
    "wide, neighbours .6": World(0.3, {"correlation": 0.6}),
    "half wandering": World(0.15, {"correlation": 0.9, "own": 0.5}),
    "heavy tails": World(0.2, {"freedom": 3.0}),
    "growth": World(0.1, {}, rows=300, growth=4.0),
    "rows share hours": World(0.05, {}, is_shared=True),
    "few rows": World(0.05, {}, rows=40),
}


@dataclass(frozen=True)
class Column:
    """Statistics of a baseline's days, and of later ones."""

    baseline: ColumnStatistics
    newest: ColumnStatistics


def windows_of(
    rng: np.random.Generator,
    world: World,
    kind: str,
    moved: float = 0.0,
    days: int = MOST_WINDOWS,
) -> Column:
    """Draw a column.

    Args:
        rng: Generator.
        world: How its days differ.
        kind: ``numeric`` or ``categories``.
        moved: By how much the later days are off, in spreads of the rows.
        days: After the baseline.
    """
    size = BASELINE + GAP + days
    place = world.spread * course(rng, 1, size, **world.course)[0]
    place[-days:] += moved
    rows = np.round(world.rows * world.growth ** (np.arange(size) / YEAR)).astype(np.int64)
    law = _NUMERIC if kind == "numeric" else _CATEGORIES
    shared = hours if world.is_shared else None
    counts = np.concatenate(
        [
            draw(rng, Law(law.binning, shares), rows[i : i + 1], shared)
            for i, shares in enumerate(_moved(law, place))
        ]
    )
    stats = column_of(law, counts)
    after = np.arange(BASELINE + GAP, size)
    return Column(select(stats, np.arange(BASELINE)), select(stats, after))


def _moved(law: Law, place: Floats) -> Floats:
    """Return the shares of days, tilted so that they are at places, (days, codes)."""
    shares = law.shares / law.shares.sum()
    if law is _CATEGORIES:
        angle = 2 * np.arcsin(np.sqrt(shares[_MOVED])) + place
        grown = np.sin(np.clip(angle, 0.05, np.pi - 0.05) / 2) ** 2
        found = np.outer((1 - grown) / (1 - shares[_MOVED]), shares)
        found[:, _MOVED] = grown
        return found
    ranks = np.clip(np.cumsum(shares) - shares / 2, 1e-9, 1 - 1e-9)
    tilted = shares * np.exp(np.outer(place, special.ndtri(ranks)))
    return np.asarray(tilted / tilted.sum(axis=1, keepdims=True), np.float64)


def found_in(column: Column, until: int, least: float) -> SustainedShift:
    """Judge the newest of a column's days, up to one, by themselves."""
    own = ColumnParts(column.baseline, _MIN_ROWS)
    parts = own.follow_windows(select(column.newest, np.arange(until)))
    newest = parts.newest(int(parts.starts[-1]))
    return SustainedBaseline({"x": own}, A_YEAR, is_moving=False).shifts({"x": newest}, least)["x"]


def episodes(rng: np.random.Generator, world: World, kind: str, columns: int) -> int:
    """Return how many false episodes a year of a family of columns has, by daily looks.

    What comes again within the alert's memory is the same episode.
    """
    drawn = [windows_of(rng, world, kind, days=YEAR) for _ in range(columns)]
    own = {f"x{i}": ColumnParts(column.baseline, _MIN_ROWS) for i, column in enumerate(drawn)}
    known = SustainedBaseline(own, A_YEAR, is_moving=False)
    parts = {name: own[name].follow_windows(c.newest) for name, c in zip(own, drawn, strict=True)}
    starts = next(iter(parts.values())).starts
    failed = np.zeros((columns, len(starts)), bool)
    for day in range(MOST_WINDOWS - 1, len(starts)):
        newest = {name: part.newest(int(starts[day])) for name, part in parts.items()}
        shifts = list(known.shifts(newest, LEAST).values())
        adjusted = benjamini_hochberg([shift.p_value for shift in shifts])
        failed[:, day] = [
            lasts(shift, LEAST, p <= LEVEL) for shift, p in zip(shifts, adjusted, strict=True)
        ]
    before = np.stack([failed[:, max(day - MEMORY, 0) : day].any(axis=1) for day in range(YEAR)])
    return int((failed & ~before.T).sum())


def false_rows(years: int, seed: int) -> Iterator[Row]:
    """Say how many false episodes a year has."""
    for name, world in WORLDS.items():
        rng = np.random.default_rng(seed)
        found = [
            sum(episodes(rng, world, kind, columns) for _ in range(years)) / years
            for kind, columns in (("numeric", 1), ("numeric", FAMILY), ("categories", FAMILY))
        ]
        error = 2 * np.sqrt(EPISODES / years)
        goal = Goal(max(found), EPISODES, best=max(found) - error)
        yield Row(name, tuple(f"{number:.2f}" for number in found), goal)


_WEEKS = level_of_newest(52.2)
PLANTED = {
    "score +.35 logit, days": ("numeric", 0.27, 0.07, LEVEL),
    "a share .17 to .32, weeks that vary": ("categories", 0.352, 0.12, _WEEKS / FAMILY),
    "a clock one hour off, days": ("numeric", 0.2, 0.03, LEVEL / FAMILY),
}


def power_rows(draws: int, seed: int) -> Iterator[Row]:
    """Say how often planted shifts are found after 7, 8, 10 and 14 windows."""
    for name, (kind, moved, spread, level) in PLANTED.items():
        rng = np.random.default_rng(seed)
        found = np.zeros((draws, 4), bool)
        for i in range(draws):
            column = windows_of(rng, World(spread, {}), kind, moved)
            for j, day in enumerate((7, 8, 10, SOON)):
                found[i, j] = found_in(column, day, LEAST).p_value <= level
        shares = (np.cumsum(found, axis=1) > 0).mean(axis=0)
        yield Row(
            name,
            tuple(f"{share:.2f}" for share in shares),
            Goal(float(shares[-1]), FOUND, is_least=True),
        )


def main() -> int:
    """Print the tables; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--years", type=int, default=10, help="of each world and family")
    parser.add_argument("--draws", type=int, default=60, help="of each planted shift")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--power", action="store_true", help="planted shifts only")
    asked = parser.parse_args()
    power = ("7 windows", "8", "10", "14")
    tables = [("planted shifts found within", power, power_rows(asked.draws, asked.seed))]
    if not asked.power:
        heads = ("one score", f"{FAMILY} numbers", f"{FAMILY} categories")
        tables.append(("false episodes a year", heads, false_rows(asked.years, asked.seed)))
    return int(show(tables, seed=asked.seed) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
