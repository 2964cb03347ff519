"""Does the interval of a slope hold it? `python -m benchmarks effect`.

Worlds in which 100 units of a cause are worth -1 of the outcome: as it is; with a covariate that
moves both, declared; with days that move both; with outcomes of a heavy tail; with slopes of the
windows' own. And arms drawn by lot, where a hidden covariate moves cause and outcome.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import Goal, Row, show
from mlmon_dagster.trace.effect import (
    Effect,
    Estimate,
    Trial,
    arm_sums,
    effect_of,
    scale_of,
    trial_of,
    window_sums,
)

SEED = 100
TRUE = -0.01
CELLS = 6
Floats = NDArray[np.float64]
Rows = tuple[Floats, Floats, Floats]


def _as_it_is(rng: np.random.Generator, cause: Floats, cell: Floats) -> Rows:
    return cause, np.zeros(len(cause)), cell


def _confounded(rng: np.random.Generator, cause: Floats, cell: Floats) -> Rows:
    return cause * np.exp(0.15 * cell), -0.3 * cell, cell


def _days(rng: np.random.Generator, cause: Floats, cell: Floats) -> Rows:
    shared = rng.normal()
    return cause * np.exp(0.2 * shared), np.full(len(cause), 0.5 * shared), cell


def _both(rng: np.random.Generator, cause: Floats, cell: Floats) -> Rows:
    cause, more, cell = _confounded(rng, cause, cell)
    cause, shared, cell = _days(rng, cause, cell)
    return cause, more + shared, cell


def _tail(rng: np.random.Generator, cause: Floats, cell: Floats) -> Rows:
    return cause, rng.lognormal(0, 1.5, len(cause)), cell


def _slopes(rng: np.random.Generator, cause: Floats, cell: Floats) -> Rows:
    return cause, rng.normal(0, 0.006) * (cause - 110), cell


WORLDS: Mapping[str, Callable[[np.random.Generator, Floats, Floats], Rows]] = {
    "as it is": _as_it_is,
    "a covariate moves both, declared": _confounded,
    "days move both": _days,
    "covariate and days": _both,
    "heavy tail": _tail,
    "each window its own slope": _slopes,
}


def drawn(rng: np.random.Generator, world: str, size: int) -> Rows:
    """Return cause, outcome and cell of one window's rows; windows differ in size up to thrice."""
    n = int(size * rng.uniform(0.5, 1.5))
    cell = rng.integers(0, CELLS, n)
    cause, more, cell = WORLDS[world](rng, rng.lognormal(4.6, 0.5, n), cell)
    noise = rng.normal(0, 2, n) * (1 + 0.5 * (cause > 100))
    return cause, TRUE * cause + more + noise, cell


def found_in(rng: np.random.Generator, world: str, windows: int, size: int) -> Effect:
    """Draw some windows and estimate what the cause goes with."""
    rows = [drawn(rng, world, size) for _ in range(windows)]
    scale = scale_of(np.concatenate([cause for cause, _, _ in rows]))
    assert scale is not None
    found = effect_of([window_sums(*one, CELLS, scale) for one in rows], scale)
    assert found is not None
    return found


def tried(rng: np.random.Generator, windows: int, size: int) -> Trial:
    """Draw an arm that adds 50 to the cause, of requests whose worth slows them, and compare."""
    sums = []
    for _ in range(windows):
        n = int(size * rng.uniform(0.5, 1.5))
        arm, hidden, shared = rng.integers(0, 2, n), rng.normal(size=n), rng.normal()
        cause = rng.lognormal(4.6, 0.3, n) * np.exp(0.2 * hidden) + 50 * arm
        outcome = TRUE * cause + 2 * hidden + shared + rng.normal(0, 2, n)
        sums.append(arm_sums(cause, outcome, arm))
    found = trial_of(sums)
    assert found is not None
    return found


def _held(found: Sequence[Estimate]) -> Floats:
    return np.array([one.lower <= TRUE <= one.upper for one in found])


def _slopes_of(windows: int, draws: int, size: int) -> Iterator[Row]:
    for world in WORLDS:
        rng = np.random.default_rng(SEED)
        found = [found_in(rng, world, windows, size) for _ in range(draws)]
        held = _held([one.slope for one in found]).mean()
        plain = _held([one.unadjusted for one in found]).mean()
        middle = 100 * np.mean([one.slope.value for one in found])
        numbers = (f"{held:.3f}", f"{middle:.3f}", f"{plain:.3f}")
        yield Row(world, numbers, Goal(abs(held - 0.95), 0.02))
    rng = np.random.default_rng(SEED)
    trials = [tried(rng, windows, size) for _ in range(draws)]
    held = _held([one.per_unit for one in trials]).mean()
    middle = 100 * np.mean([one.per_unit.value for one in trials])
    goal = Goal(abs(held - 0.95), 0.02)
    yield Row("an arm drawn by lot", (f"{held:.3f}", f"{middle:.3f}", "-"), goal)


def main() -> int:
    """Print how often intervals hold the truth; return how many goals were missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=600)
    parser.add_argument("--windows", type=int, nargs="+", default=[12, 40])
    parser.add_argument("--rows", type=int, default=400, help="of a window, on average")
    given = parser.parse_args()
    columns = ("held", "mean", "plain held")
    tables = (
        (
            f"100 units bring {100 * TRUE:g}: {given.draws} draws of {windows} windows of "
            f"{given.rows} rows; goal: held .93 to .97",
            columns,
            _slopes_of(windows, given.draws, given.rows),
        )
        for windows in given.windows
    )
    return show(tables, seed=SEED)


if __name__ == "__main__":
    raise SystemExit(main())
