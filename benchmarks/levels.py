"""How often calibration and bias alarm in healthy years, and how soon they see a shift.

The monitor itself judges windows whose rows and days are drawn: rows that stray by .4, as outcomes
of rates near a fifth do around their scores, and days that share something, alone or wandering.

    python -m benchmarks.levels --years 20
"""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.clusters import usual_level
from mlmon_dagster.monitors.levels import moved
from mlmon_dagster.spec.tasks import default_levels
from tests.conftest import make_spec

ROW, BASELINE, YEAR, SHIFT = 0.4, 45, 365, 0.04
SOON, LATER = 5, 30


class World(NamedTuple):
    """Rows a window, what days share (a standard deviation), and how much of it the next has."""

    rows: int
    spread: float
    correlation: float = 0.0


WORLDS = (
    World(300, 0.0), World(1_000, 0.0), World(1_000, 0.01), World(2_000, 0.01), World(5_000, 0.01),
    World(5_000, 0.02), World(5_000, 0.04), World(1_000, 0.02, 0.6), World(1_000, 0.02, 0.9),
)  # fmt: skip


def values(world: World, rng: np.random.Generator, days: int) -> NDArray[np.float64]:
    """Draw the gaps of windows in a row."""
    shared, last = np.empty(days), rng.normal()
    for day, new in enumerate(rng.normal(size=days)):
        last = world.correlation * last + math.sqrt(1 - world.correlation**2) * new
        shared[day] = last
    return world.spread * shared + rng.normal(0, ROW / math.sqrt(world.rows), days)


def fails(world: World, baseline: NDArray[np.float64], found: NDArray[np.float64]) -> list[bool]:
    """Judge every window as the default monitor of a binary model does."""
    spec = make_spec()
    (monitor,) = default_levels(spec, spec.monitors.performance[:1])
    half, n = 1.96 * ROW / math.sqrt(world.rows), np.full(len(baseline), world.rows)
    usual = usual_level(baseline, baseline - half, baseline + half, n)
    assert usual is not None
    verdicts = []
    for last in range(1, len(found) + 1):
        newest = found[max(0, last - monitor.over) : last]
        judged = moved(newest.tolist(), [world.rows] * len(newest), usual, monitor)
        verdicts.append(judged.failed)
    return verdicts


def main() -> int:
    """Print one row a world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--years", type=int, default=20)
    years = parser.parse_args().years
    print("| rows a window | days share | next day has of it | false a year | in 5 | in 30 |")
    print("|---|---|---|---|---|---|")
    for world in WORLDS:
        episodes = soon = later = 0
        for seed in range(years):
            drawn = values(world, np.random.default_rng(seed), BASELINE + YEAR)
            healthy = pd.Series(fails(world, drawn[:BASELINE], drawn[BASELINE:]))
            episodes += int((healthy & ~healthy.shift(fill_value=False)).sum())
            moved = drawn[BASELINE : BASELINE + 40].copy()
            moved[10:] += SHIFT
            seen = fails(world, drawn[:BASELINE], moved)[10:]
            soon += any(seen[:SOON])
            later += any(seen[:LATER])
        print(
            f"| {world.rows:,} | {world.spread:g} | {world.correlation:g} | {episodes / years:.2f} "
            f"| {soon / years:.2f} | {later / years:.2f} |"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
