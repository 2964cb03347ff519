"""How fast requests that were not good burn the budget that an objective leaves for them.

Burn rate 1 spends exactly the budget of the objective's period; the rules are those of Google's
Site Reliability Workbook (2018, chapter 5): a rule holds where a long and a short stretch both burn
faster than its factor, so that it speaks soon and stops soon after it is over.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from mlmon_dagster.metrics import Floats, Ints

BUCKET: Final = dt.timedelta(minutes=5)
FEWEST_BAD = 10  # in the long stretch; fewer say nothing of a rate


@dataclass(frozen=True)
class Rule:
    """When burning is too fast.

    Attributes:
        name: What people call it. factor: Times the rate that spends the budget exactly.
        long: Stretch that says it is real. short: Stretch that says it is still so.
    """

    name: str
    factor: float
    long: dt.timedelta
    short: dt.timedelta


# The fastest first. Of a month's budget 2 % are gone in the hour, 5 % in six hours, 10 % in three
# days.
RULES: Final = (
    Rule("fast", 14.4, dt.timedelta(hours=1), dt.timedelta(minutes=5)),
    Rule("slow", 6.0, dt.timedelta(hours=6), dt.timedelta(minutes=30)),
    Rule("ticket", 1.0, dt.timedelta(days=3), dt.timedelta(hours=6)),
)
LOOK_BACK: Final = RULES[-1].long


@dataclass(frozen=True)
class Burned:
    """What a stretch of time did to the budget.

    Attributes:
        rule: The fastest rule that held at the end of any of its buckets; None if none did.
        first: Index of the first bucket at whose end it held; -1 if none did.
        last: Of the last one.
        burn: Largest burn rate of that rule's long stretch where it held; of no rule that of the
            slowest rule's long stretch at the end.
        n: Requests of the slowest rule's long stretch at the end.
        bad: Of them not good.
    """

    rule: Rule | None
    first: int
    last: int
    burn: float
    n: int
    bad: int

    def too_few(self, target: float) -> bool:
        """Whether no rule holds, and so few requests came that the slowest could not hold."""
        return self.rule is None and self.n * (1 - target) < FEWEST_BAD


def burn_rates(n: ArrayLike, bad: ArrayLike, target: float, stretch: dt.timedelta) -> Floats:
    """Return the burn rate of the stretch that ends with each bucket.

    Args:
        n: Requests of B buckets that follow each other, empty ones included.
        bad: Of them not good.
        target: Share of good requests that is promised, below 1.
        stretch: How long; buckets before the first count as empty.

    Returns:
        (B,), 0 and more; NaN where no request came.

    Example:
        >>> burn_rates([100, 100, 0], [0, 2, 0], 0.99, 2 * BUCKET).round(6).tolist()
        [0.0, 1.0, 2.0]
    """
    requests, lost = (_over(values, stretch) for values in (n, bad))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(requests > 0, lost / requests / (1 - target), np.nan)


def _over(values: ArrayLike, stretch: dt.timedelta) -> Ints:
    """Return the sum of the buckets of a stretch that ends with each of them."""
    total = np.concatenate([[0], np.cumsum(np.asarray(values, np.int64))])
    size = max(1, round(stretch / BUCKET))
    after = np.arange(1, len(total))
    found: Ints = total[after] - total[np.maximum(after - size, 0)]
    return found


def burned(
    n: ArrayLike, bad: ArrayLike, target: float, start: int, rules: Sequence[Rule] = RULES
) -> Burned:
    """Say whether a budget burned too fast.

    Args:
        n: Requests of buckets that follow each other; those before `start` are looked back at.
        bad: Of them not good.
        target: Share of good requests that is promised, below 1.
        start: Index of the first bucket that is judged.
        rules: The fastest first.

    Returns:
        The fastest rule that held at the end of any judged bucket. A rule holds on `FEWEST_BAD` bad
        requests of its long stretch and more, so that one lost of twenty is no emergency.

    Example:
        >>> found = burned([100] * 24, [0] * 12 + [50] * 12, 0.99, 12)
        >>> found.rule.name, found.first, round(found.burn)
        ('fast', 15, 50)
    """
    lost = np.asarray(bad, np.int64)
    if not len(lost):
        return Burned(None, -1, -1, np.nan, 0, 0)
    slowest = rules[-1].long
    total, gone = (int(_over(values, slowest)[-1]) for values in (n, lost))
    for rule in rules:
        long = burn_rates(n, lost, target, rule.long)
        holds = (long >= rule.factor) & (burn_rates(n, lost, target, rule.short) >= rule.factor)
        holds &= _over(lost, rule.long) >= FEWEST_BAD
        holds[:start] = False
        at = np.flatnonzero(holds)
        if len(at):
            return Burned(rule, int(at[0]), int(at[-1]), float(long[at].max()), total, gone)
    rate = float(burn_rates(n, lost, target, slowest)[-1])
    return Burned(None, -1, -1, rate, total, gone)


def budget_left(n: int, bad: int, target: float) -> float:
    """Return the share of a period's budget that is left: 1 of an unspent one, below 0 overspent.

    Args:
        n: Requests of the period.
        bad: Of them not good.
        target: Share of good requests that is promised, below 1.

    Returns:
        NaN without requests.

    Example:
        >>> budget_left(1000, 5, 0.99)
        0.5
    """
    return round(1 - bad / (n * (1 - target)), 12) if n else np.nan
