"""Pure statistics: profiles in, numbers with n, interval and chance out.

No I/O, clock, environment or hidden randomness: times and seeds are arguments. The entry points are
`drift.columns.columns_drift`, `quality.quality_metrics`, `performance.performance_metrics` and
`service.service_metrics`; each returns a MetricFrame (`frames.METRIC_COLUMNS`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, fields
from typing import ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Positions = NDArray[np.intp]

# How many windows it takes, in one place as the numbers differ on purpose.
MIN_WINDOWS = 14  # of a baseline, to hold one more against their spread: each weekday twice
FEWEST_WINDOWS = 8  # to say how far windows stray, by Student's t or by leaving each out
MIN_SEEN = 7  # at an age, for the curve of arrivals, which pools their rows
FEWEST_TO_CHOOSE = 4  # of which half choose a threshold and half measure it
# Chance of so uneven a split of requests, below which something else than the lot decided it.
SHARE_IS_WRONG = 0.001


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[object]]]


T = TypeVar("T", bound=_Dataclass)


def stack_fields(some: Sequence[T], place: Ints) -> T:
    """Put dataclasses of numbers side by side as one of arrays, in the order of `place`, (P,)."""
    parts = ([getattr(one, field.name) for one in some] for field in fields(some[0]))
    return type(some[0])(*(np.array(part)[place] for part in parts))
