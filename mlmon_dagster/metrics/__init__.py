"""Pure statistics: profiles in, numbers with n, interval and chance out.

No I/O, clock, environment or hidden randomness: times and seeds are arguments. The entry points are
`drift.columns.columns_drift`, `quality.quality_metrics`, `performance.performance_metrics` and
`service.service_metrics`; each returns a MetricFrame (`frames.METRIC_COLUMNS`).
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Positions = NDArray[np.intp]
