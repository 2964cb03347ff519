"""Is a version that replaced another one worse? Its first windows beside the last ones before.

Both versions answered other rows, of other days. So the unit is the window: the windows before say
how far windows stray (`window_law`), and the first ones of the new version are judged together.
They are looked at a few times only, at fixed lengths that share the chance of a false alarm
(Bonferroni; Pocock, 1977, has the looks at fixed lengths). Between two looks the verdict stays, so
that it is the same whoever computes it when.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mlmon_dagster.metrics import FEWEST_WINDOWS, Floats, Ints
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.metrics.window_law import Law, Scale, fit, from_scale, to_scale

LEVEL = 0.01  # of all looks at a release together
_STEPS = 40  # of a bisection


class Values(NamedTuple):
    """A metric of W windows, oldest first, W numbers each.

    Attributes:
        value: As it is.
        lower: Of its interval by rows. upper: Likewise.
        n: Rows.
        at: When the window starts, in windows since any moment.
    """

    value: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    n: tuple[int, ...]
    at: tuple[int, ...]

    def take(self, most: int) -> Values:
        """Return the oldest windows."""
        return Values(
            self.value[:most], self.lower[:most], self.upper[:most], self.n[:most], self.at[:most]
        )


class ReleaseChange(NamedTuple):
    """What the first windows of a new version are beside those before it.

    Attributes:
        now: The metric in them.
        before: What the windows before let one expect in them.
        p_value: One-sided chance of so much worse a run if the versions were equal.
        visible: How much worse would have been real, in the metric's unit.
        run: The windows of the new version that were looked at.
    """

    now: float
    before: float
    p_value: float
    visible: float
    run: int


@lru_cache(maxsize=64)  # between two looks it is asked for again window by window
def compare_release(
    before: Values,
    after: Values,
    looks: tuple[int, ...],
    scale: Scale,
    *,
    is_loss: bool = False,
    period: int = 1,
) -> ReleaseChange | None:
    """Judge the first windows of a version by the windows of the one that it replaced.

    Args:
        before: Windows of the version before.
        after: Windows of the new one, from its first on.
        looks: After how many windows it is looked at, ascending.
        scale: Of the metric, see `window_law.to_scale`.
        is_loss: Whether more is worse.
        period: Windows of a season.

    Returns:
        By the longest look that there are windows for; it is real at a chance of at most `LEVEL`
        over the number of looks. None before the first look, and where fewer than eight windows
        are known of the version before.
    """
    run = max((look for look in looks if look <= len(after.value)), default=0)
    if not run or len(before.value) < FEWEST_WINDOWS:
        return None
    first = after.take(run)
    old, old_noise = _scaled(before, scale)
    new, new_noise = _scaled(first, scale)
    law, at = fit(old, old_noise, before.at, period=period), np.array(first.at)
    judged = law.judge_run(new, new_noise, at)
    usual = float(judged.usual[0, 0])
    tail = judged.above if is_loss else judged.below
    mean = float(new.mean())
    now, expected = (float(from_scale(np.array(end), scale)) for end in (mean, usual))
    side = 1.0 if is_loss else -1.0
    still = new - (mean - usual)  # as if nothing had changed
    level = LEVEL / len(looks)
    far = _find_visible(law, still, new_noise, at, side, level)
    edge = float(from_scale(np.array(usual + side * far), scale))
    return ReleaseChange(now, expected, float(tail[0, 0]), abs(edge - expected), run)


def _scaled(windows: Values, scale: Scale) -> tuple[Floats, Floats]:
    variance = ((np.array(windows.upper) - np.array(windows.lower)) / (2 * Z95)) ** 2
    return to_scale(windows.value, np.nan_to_num(variance), windows.n, scale)


def _find_visible(
    law: Law, still: Floats, noise: Floats, at: Ints, side: float, level: float
) -> float:
    """Return by how much windows that did not move would have to, to be real."""

    def is_real(by: float) -> bool:
        judged = law.judge_run(still + side * by, noise, at)
        return float((judged.above if side > 0 else judged.below)[0, 0]) <= level

    spread = float(np.sqrt(noise.mean() + still.var()))
    near, reach = 0.0, max(spread, 1e-9)
    while not is_real(reach) and reach < 1e6 * max(spread, 1e-9):
        near, reach = reach, 2 * reach
    for _ in range(_STEPS):
        half = (near + reach) / 2
        near, reach = (near, half) if is_real(half) else (half, reach)
        if reach - near <= 0.01 * reach:
            break
    return reach
