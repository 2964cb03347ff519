"""Pure statistics: profiles in, numbers with n, interval and chance out.

No I/O, clock, environment or hidden randomness: times and seeds are arguments. The entry points are
`drift.columns.columns_drift`, `quality.quality_metrics`, `performance.performance_metrics` and
`service.service_metrics`; each returns a MetricFrame (`frames.METRIC_COLUMNS`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Positions = NDArray[np.intp]


T = TypeVar("T", bound="DataclassInstance")


def stack_fields(some: Sequence[T], place: Ints) -> T:
    """Put dataclasses of numbers side by side as one of arrays, in the order of `place`, (P,)."""
    parts = ([getattr(one, field.name) for one in some] for field in fields(some[0]))
    return type(some[0])(*(np.array(part)[place] for part in parts))
