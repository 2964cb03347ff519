"""Pure statistics: profiles in, numbers with n, interval and chance out.

No I/O, clock, environment or hidden randomness: times and seeds are arguments. The entry points are
`drift.columns.columns_drift`, `quality.quality_metrics`, `performance.performance_metrics` and
`service.service_metrics`; each returns a MetricFrame (`frames.METRIC_COLUMNS`).
"""

from collections.abc import Sequence
from dataclasses import Field, fields
from typing import ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Positions = NDArray[np.intp]


class _OfArrays(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[object]]]


T = TypeVar("T", bound=_OfArrays)


def stack_fields(some: Sequence[T], place: Ints) -> T:
    """Put dataclasses of numbers side by side as one of arrays, in the order of `place`, (P,)."""
    parts = ([getattr(one, field.name) for one in some] for field in fields(some[0]))
    return type(some[0])(*(np.array(part)[place] for part in parts))
