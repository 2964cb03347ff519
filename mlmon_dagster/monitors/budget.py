"""The alarm budget: how many false incidents a year tests make, and what rarer ones cost in time.

Only tests can be wrong by chance. Limits on broken values, freshness, the schema and the volume are
far above chance and habit, and count as 0 here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Final

from mlmon_dagster.monitors.evidence import A_YEAR, choose_level, choose_level_together
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.names import BUSINESS, CUSTOM, DRIFT, ESTIMATED_PERFORMANCE, PERFORMANCE
from mlmon_dagster.spec.scalars import KOfN

MOST_A_YEAR: Final = 1.0  # false incidents that people go on reading the true ones beside
SLOWER: Final = KOfN(3, 5)
_OF_SHIFT = 0.0003  # of several windows together, see `levels`
# Windows in a row that wander with a coefficient of .9: (1 + .9) / (1 - .9) of them count as one.
_ALIKE = 19.0
# What an autocorrelation that is only estimated, from 45 windows, adds so far out in the tail:
# simulated, between 5 and 12 (`python -m benchmarks living` counts the incidents).
_UNKNOWN = 10.0


@dataclass(frozen=True)
class Budget:
    """What a family of tests is expected to do.

    Attributes:
        family: Name of the family.
        alerts: Columns, metrics and slices that can alert.
        level: Chance that a window of an unchanged model fails, for any of `shared` alerts.
        windows: k of n.
        independent: At most so many false incidents a year, where windows are independent.
        wandering: The same where a window is much like the one before it, with a baseline of 45.
    """

    family: str
    alerts: int
    level: float
    windows: KOfN
    independent: float
    wandering: float

    @property
    def delay(self) -> int:
        """Windows that a fault which each of them shows has lasted when it is told."""
        return self.windows.k


def alarm_budget(spec: ModelSpec, alerts: Mapping[str, int]) -> list[Budget]:
    """Return what is expected of the families that test.

    An alert that fails with probability p in each of independent windows opens in at most
    C(n - 1, k - 1) p^k of them. Of drift p is q / m for m columns, since Benjamini-Hochberg keeps
    the chance that any of them fails at q. Windows that wander fail together: `k of n` is no help
    then, and 19 in a row count as one.

    Args:
        spec: The model.
        alerts: How many alerts each family judged; families that are not there have none.

    Returns:
        Families with alerts: drift, performance, business, estimated_performance, custom. A bound
        for all but the first, which must also be worse by their `drop`.
    """
    grain = spec.time.granularity
    year = A_YEAR[grain]
    drift, estimates = spec.monitors.drift, spec.monitors.estimated_performance
    declared = {
        DRIFT: [(drift.q, drift.windows, year)],
        **{
            family: [
                (choose_level(m.windows, grain), m.windows, year)
                if m.shift is None
                else (_OF_SHIFT, m.windows, year / m.over)
                for m in monitors
            ]
            for family, monitors in (
                (PERFORMANCE, spec.monitors.performance),
                (BUSINESS, spec.monitors.business),
            )
        },
        ESTIMATED_PERFORMANCE: [
            (choose_level_together(m.over, grain), m.windows, year / m.over) for m in estimates
        ],
        CUSTOM: [(choose_level(m.windows, grain), m.windows, year) for m in spec.metrics],
    }
    found = []
    for family, monitors in declared.items():
        count = alerts.get(family, 0)
        if not count or not monitors:
            continue
        is_shared, independent, wandering = family == DRIFT, 0.0, 0.0
        for level, rule, tests in monitors:
            mine = count / len(monitors)
            each = level / mine if is_shared else level
            opening = tests * mine * min(comb(rule.n - 1, rule.k - 1) * each**rule.k, each)
            together = min(tests, year / _ALIKE) * each * mine * (_UNKNOWN if is_shared else 1.0)
            independent += opening
            wandering += max(opening, together)
        level, rule, _ = monitors[0]
        found.append(Budget(family, count, level, rule, independent, wandering))
    return found


def slower(spec: ModelSpec, family: str) -> ModelSpec:
    """Return the spec with `SLOWER` windows on all tests of a family but those of a level."""
    if family == CUSTOM:
        slow = tuple(one.model_copy(update={"windows": SLOWER}) for one in spec.metrics)
        return spec.model_copy(update={"metrics": slow})
    tests = getattr(spec.monitors, family)
    of_one = not isinstance(tests, Sequence)
    changed = [
        test if getattr(test, "shift", None) is not None else test.model_copy(
            update={"windows": SLOWER}
        )
        for test in ([tests] if of_one else tests)
    ]  # fmt: skip
    update = {family: changed[0] if of_one else changed}
    monitors = spec.monitors.model_copy(update=update)
    return spec.model_copy(update={"monitors": monitors})


def stricter(spec: ModelSpec) -> ModelSpec:
    """Return the spec with a tenth of drift's `q`."""
    drift = spec.monitors.drift.model_copy(update={"q": spec.monitors.drift.q / 10})
    monitors = spec.monitors.model_copy(update={DRIFT: drift})
    return spec.model_copy(update={"monitors": monitors})
