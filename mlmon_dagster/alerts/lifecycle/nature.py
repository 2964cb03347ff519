"""What the failing windows of one episode are like, and from when on they are like something else.

A standing alert must not hide the next fault. So an episode's newest failing window is held against
those that its alert remembers. It is of another nature if

- its value leaves their band: half as far again as the largest of them, or a third of the smallest,
  and extreme by the law of windows among those since the last change. Of shares the odds count;
- the column's place leaves its band, by half of that and of its spread, and by the same law;
- three times as many rows lie outside all that the baseline holds, and at least `_MANY`;
- it and the failing window before it are made by terms that none of the others has. One window
  alone may be chance, as the second largest term is often near the first.

Where there are fewer than `FEWEST_WINDOWS` since the last change, no law says what is extreme;
three times the largest value does, and twice the distance of a place. What the alert remembers is
no news when it comes back: what comes and goes is told once, and again if it was away for longer.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from mlmon_dagster.metrics import FEWEST_WINDOWS

if TYPE_CHECKING:
    from mlmon_dagster.metrics.window_law import Scale

_APART, _FAR = 1.5, 3.0  # times the largest value, with and without a law
_AWAY = 0.5  # of the band of places and of a spread; twice that without a law
_MANY = 0.05  # of the rows
_CHANCE = 0.01
_DAY = dt.timedelta(days=1)
_SEASONS = {_DAY: 7, _DAY / 24: 24}  # windows, by their length


class Nature(NamedTuple):
    """What a window of an alert is like.

    Attributes:
        value: What is judged; None where a change of it is no news.
        rows: Of which it is a share; 0 if it is none.
        term: What makes most of it, in a word; empty if nothing does.
        place: By how many spreads of the baseline's rows the column moved; None if not known.
        outside: Share of rows outside all that the baseline holds.
        beside: What else is wrong with the column, for which the window may pass.
    """

    value: float | None = None
    rows: int = 0
    term: str = ""
    place: float | None = None
    outside: float = 0.0
    beside: tuple[str, ...] = ()


def find_change(natures: Sequence[Nature], starts: Sequence[dt.datetime], since: int) -> int | None:
    """Return from which window on an episode is of another nature; None if it is as it was.

    Args:
        natures: Of its failing windows that are remembered, oldest first.
        starts: When they start.
        since: From which of them on it has been of its present nature.
    """
    newest, others = natures[-1], natures[:-1]
    if not others:
        return None
    most = max(nature.outside for nature in others)
    if (
        newest.outside >= max(_MANY, _FAR * most)
        or _leaves_band(natures, starts, since)
        or _leaves_place(natures, starts, since)
    ):
        return len(others)
    last = len(others) - 1
    known = {nature.term for nature in natures[:last]} | {""}
    is_other = last > since + 1 and not {newest.term, others[last].term} & known
    return last if is_other else None


def _leaves_band(natures: Sequence[Nature], starts: Sequence[dt.datetime], since: int) -> bool:
    size = _measure_size(natures[-1])
    known = [far for nature in natures[:-1] if (far := _measure_size(nature)) is not None]
    if size is None or not known or min(known) / _FAR <= size <= max(known) * _APART:
        return False
    band = [i for i in range(since, len(natures)) if natures[i].value is not None]
    if len(band) <= FEWEST_WINDOWS:
        return not min(known) / _FAR <= size <= max(known) * _FAR
    values = [abs(natures[i].value or 0.0) for i in band]
    rows = [natures[i].rows for i in band]
    scale: Scale = "logit" if all(rows) else "root"
    return _find_chance(values, rows, [starts[i] for i in band], scale) < _CHANCE


def _leaves_place(natures: Sequence[Nature], starts: Sequence[dt.datetime], since: int) -> bool:
    place = natures[-1].place
    known = [nature.place for nature in natures[:-1] if nature.place is not None]
    if place is None or not known:
        return False
    beyond = max(place - max(known), min(known) - place)
    least = _AWAY * max(max(known) - min(known), 1.0)
    band = [i for i in range(since, len(natures)) if natures[i].place is not None]
    if beyond <= least or len(band) <= FEWEST_WINDOWS:
        return beyond > 2 * least
    places = [natures[i].place or 0.0 for i in band]
    return _find_chance(places, [0] * len(band), [starts[i] for i in band], "identity") < _CHANCE


def _measure_size(nature: Nature) -> float | None:
    """Return how large a value is, either way; of a share its odds."""
    if nature.value is None:
        return None
    size = abs(nature.value)
    if not nature.rows:
        return size
    return size / (1 - size) if size < 1 else math.inf


def _find_chance(
    values: Sequence[float], rows: Sequence[int], starts: Sequence[dt.datetime], scale: Scale
) -> float:
    """Return the chance of a value as far as the last one after the others."""
    from mlmon_dagster.metrics.window_law import fit, to_scale

    levels, _ = to_scale(values, 0.0, rows, scale)
    length = min(after - before for before, after in pairwise(starts))
    at = [round((start - starts[0]) / length) for start in starts]
    law = fit(levels[:-1], 0.0, at[:-1], period=_SEASONS.get(length, 1))
    return float(law.judge(levels[-1:], 0.0, at[-1:]).p_value[0, 0])
