"""Are equal versions called different? `python -m benchmarks calibrate versions`.

Two versions of one model that differ by noise of their own answer the same requests (a shadow) or
each its own (a canary). Tests are looked at once, of 300 independent rows and of 30 days whose rows
share what the day does to a version; and intervals every day for 100 days, by whoever stops at the
first that leaves 0. Then what is to be seen: a version that lost .02 of the area, an equal one, and
a column whose rows are permuted in a twentieth of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.table import Goal, Row, show
from mlmon_dagster.metrics import SHARE_IS_WRONG
from mlmon_dagster.metrics.versions import (
    Comparison,
    areas_of_two,
    got_its_share,
    means_of_two,
    mismatch,
    paired_area,
    paired_decisions,
    paired_means,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SEED = 14
LEVEL, FROM, TO = 0.05, 0.04, 0.06
FIRST_LOOK, LOOKS, PER_DAY = 8, 100, 40
MARGIN = 0.01


class World(NamedTuple):
    """Rows that two versions answered.

    Attributes:
        actual: 0 or 1.
        one, other: Scores of each, in the unit of their noise.
        days: Day of each row.
    """

    actual: Ints
    one: Floats
    other: Floats
    days: Ints

    def until(self, day: int) -> World:
        """Return the rows of the first days."""
        kept = self.days <= day
        return World(*(values[kept] for values in self))


def drawn(
    rng: np.random.Generator,
    days: int,
    per_day: int,
    base: float,
    shared: float,
    noise: float = 0.4,
) -> World:
    """Draw rows of two equal versions; a day turns each of them its own way by ``shared``."""
    n = days * per_day
    day = np.repeat(np.arange(days), per_day)
    actual = (rng.random(n) < base).astype(np.int64)
    meant = rng.normal(1.2 * actual, 1.0)
    one, other = (
        # What a day does to a version is right of positives and wrong of negatives, or vice versa.
        meant + rng.normal(0, noise, n) + shared * rng.normal(0, 1, days)[day] * (2 * actual - 1)
        for _ in range(2)
    )
    return World(actual, one, other, day)


def _right(scores: Floats, actual: Ints) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (scores > 0.6) == (actual == 1)
    return found


def _loss(scores: Floats, actual: Ints) -> Floats:
    return -((norm.cdf(scores - 0.6) - actual) ** 2)


def area(w: World) -> Comparison | None:
    """Compare areas of the same rows."""
    return paired_area(w.one, w.other, w.actual, w.days, MARGIN)


def decisions(w: World) -> Comparison | None:
    """Compare right decisions of the same rows."""
    return paired_decisions(_right(w.one, w.actual), _right(w.other, w.actual), w.days, MARGIN)


def losses(w: World) -> Comparison | None:
    """Compare squared errors of the same rows."""
    return paired_means(_loss(w.one, w.actual), _loss(w.other, w.actual), w.days, MARGIN)


def _arms(w: World) -> tuple[World, World]:
    """Return every third row as the canary's, and the others."""
    is_canary = np.arange(len(w.actual)) % 3 == 0
    return World(*(v[~is_canary] for v in w)), World(*(v[is_canary] for v in w))


def canary_area(w: World) -> Comparison | None:
    """Compare areas of different rows."""
    a, b = _arms(w)
    return areas_of_two(a.one, a.actual, a.days, b.other, b.actual, b.days, MARGIN)


def canary_decisions(w: World) -> Comparison | None:
    """Compare right decisions of different rows."""
    a, b = _arms(w)
    return means_of_two(_right(a.one, a.actual), a.days, _right(b.other, b.actual), b.days, MARGIN)


Test = Callable[[World], Comparison | None]
PAIRED: dict[str, Test] = {"ROC AUC": area, "decisions": decisions, "squared error": losses}
CANARY: dict[str, Test] = {"ROC AUC, canary": canary_area, "decisions, canary": canary_decisions}


def _between(share: float) -> Goal:
    """Return the goal of a size that is to lie between two ends, whichever it is nearer to."""
    return Goal(share, FROM, is_least=True) if share < LEVEL else Goal(share, TO)


def once(runs: int) -> Iterator[Row]:
    """Sizes of one look at 300 rows."""
    for name, test in (PAIRED | CANARY).items():
        for case, days, shared, base in (
            ("rows", 1, 0.0, 0.3), ("rows, 7 % positive", 1, 0.0, 0.07), ("30 days", 30, 0.3, 0.3),
        ):  # fmt: skip
            if name in CANARY and base < 0.1:
                continue  # a canary's 100 rows have 7 positives, which are not compared
            rng = np.random.default_rng([SEED, days, int(100 * base)])
            called, known = 0, 0
            for _ in range(runs):
                found = test(drawn(rng, days, 300 // days, base, shared))
                known += found is not None
                called += found is not None and found.p_value < LEVEL
            share = called / known
            yield Row(f"{name}, {case}", (f"{share:.4f}", f"{known:,}"), _between(share))


def daily(runs: int) -> Iterator[Row]:
    """How often an interval ever leaves 0 in 100 daily looks, and a test at .05 beside it."""
    for name, test in (PAIRED | CANARY).items():
        rng = np.random.default_rng([SEED, 100])
        ever = by_tests = 0
        for _ in range(runs):
            world = drawn(rng, FIRST_LOOK + LOOKS - 1, PER_DAY, 0.3, 0.1)
            looks = [test(world.until(day)) for day in range(FIRST_LOOK - 1, len(set(world.days)))]
            seen = [look for look in looks if look is not None]
            ever += any(look.lower > 0 or look.upper < 0 for look in seen)
            by_tests += any(look.p_value < LEVEL for look in seen)
        share = ever / runs
        numbers = (f"{share:.4f}", f"{by_tests / runs:.4f}", f"{runs:,}")
        yield Row(f"{name}, {LOOKS} looks", numbers, Goal(share, LEVEL))


def splits(runs: int) -> Iterator[Row]:
    """How often a canary that gets its tenth by lot is ever called uneven, in 100 daily looks."""
    rng = np.random.default_rng([SEED, 3])
    arrived = rng.binomial(1_000, 0.1, (runs, LOOKS)).cumsum(axis=1)
    ever = 0
    for counts in arrived.tolist():
        totals = range(1_000, 1_000 * LOOKS + 1, 1_000)
        ever += any(
            got_its_share(n - m, m, 0.1) < SHARE_IS_WRONG
            for n, m in zip(totals, counts, strict=True)
        )
    share = ever / runs
    yield Row("a canary's tenth, 100 looks", (f"{share:.4f}", f"{runs:,}"), Goal(share, 0.001))


def seen(runs: int) -> Iterator[Row]:
    """Verdicts of 20,000 shared ids in 40 days, margin .01."""
    for name, noise, wanted in (
        ("lost .02 of the area", 0.48, "worse"),
        ("equal", 0.0, "not worse"),
    ):
        rng = np.random.default_rng([SEED, 20])
        right, lost = 0, list[float]()
        for _ in range(runs):
            world = drawn(rng, 40, 500, 0.3, 0.0, noise=0.3)
            worse = world.other + rng.normal(0, noise, len(world.other))
            found = area(world._replace(other=worse))
            assert found is not None
            lost.append(-found.difference)
            right += found.verdict in (wanted, "better" if wanted == "not worse" else wanted)
        share = right / runs
        numbers = (f"{share:.4f}", f"{np.mean(lost):.4f}", f"{runs:,}")
        yield Row(f"{name}: {wanted}", numbers, Goal(share, 0.95, is_least=True))


def skew(runs: int) -> Iterator[Row]:
    """How far the found share of a permuted twentieth of 4,000 rows is from the true one."""
    rng = np.random.default_rng([SEED, 5])
    ids = np.arange(4_000)
    off, held = list[float](), 0
    for _ in range(runs):
        values = np.round(rng.normal(50, 10, len(ids)), 1)  # some rows get what they had
        moved = values.copy()
        chosen = rng.choice(len(ids), len(ids) // 20, replace=False)
        moved[chosen] = moved[np.roll(chosen, 1)]
        found = mismatch(ids, moved, values)
        off.append(abs(found.rate - 0.05))
        held += found.lower <= 0.05 <= found.upper
    numbers = (f"{max(off):.4f}", f"{held / runs:.4f}", f"{runs:,}")
    yield Row("a permuted twentieth, furthest off", numbers, Goal(max(off), 0.005))


def main() -> int:
    """Print the tables; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5_000, help="of one look")
    parser.add_argument("--daily-runs", type=int, default=400, help="of 100 looks")
    asked = parser.parse_args()
    tables: list[tuple[str, Sequence[str], Iterator[Row]]] = [
        ("Looked at once, 300 rows, at .05", ("called", "runs"), once(asked.runs)),
        ("Looked at daily", ("ever called", "by tests", "runs"), daily(asked.daily_runs)),
        ("The split of the requests", ("ever called", "runs"), splits(asked.runs)),
        ("Seen", ("share", "mean loss", "runs"), seen(asked.daily_runs)),
        ("Skew by id", ("off by", "interval held", "runs"), skew(asked.daily_runs)),
    ]
    return int(show(tables, seed=SEED) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
