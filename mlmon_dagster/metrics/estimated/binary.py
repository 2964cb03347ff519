"""Performance of a binary classifier without ground truth, from score bins (CBPE).

A row of a bin is positive with the share that the baseline's rows of that score had. So a window's
expected counts, and from them every metric, follow from its scores and decisions alone (confidence
based performance estimation; Bialek et al., 2024, estimating model performance under covariate
shift without labels). That holds while the score means what it meant: under covariate shift roughly
(see `metrics.reweighting`), under concept drift not at all, so the estimate is compared with the
truth once that is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from mlmon_dagster.metrics import Floats
from mlmon_dagster.metrics.estimated.calibration import (
    Calibration,
    Curves,
    Reasons,
    Scored,
    Table,
    correct_by,
    expected_table,
    few,
    labelled,
    realized,
    sampling_variances,
    t_of,
    values_of,
    widen_by,
)
from mlmon_dagster.metrics.frames import stack_rows, table_rows
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.spec.metric_registry import METRICS
from mlmon_dagster.spec.tasks import estimated, residual

_CHUNK = 256


class _Expected(NamedTuple):
    table: Table
    value: dict[str, Floats]
    sampling: dict[str, Floats]
    learning: dict[str, Floats]


def _expect(rows: Floats, decided: Floats | None, middles: Floats, curves: Curves) -> _Expected:
    curve = curves.curve
    table = expected_table(rows, decided, curve)
    noise = curve * (1 - curve)
    sampling = sampling_variances(
        table, rows * noise, None if decided is None else decided * noise, middles
    )
    value = values_of(table, middles)
    replicated = [
        values_of(expected_table(rows, decided, one), middles) for one in curves.replicates
    ]
    learning = {
        metric: curves.variance(np.array([one[metric] for one in replicated])) for metric in value
    }
    return _Expected(table, value, sampling, learning)


def _margin(found: _Expected, metric: str, calibration: Calibration) -> Floats:
    """Half the width of a band that holds the realized value in 95 % of windows or more."""
    wide = widen_by(calibration.held_out, metric)
    sampling = Z95**2 * wide * found.sampling[metric]
    learning = t_of(calibration.curves) ** 2 * found.learning[metric]
    return np.asarray(np.sqrt(sampling + learning))


def _chunks(counts: Scored, curves: Curves) -> Iterator[tuple[Scored, Curves]]:
    for start in range(0, len(counts.cells), _CHUNK):
        mine = slice(start, start + _CHUNK)
        if curves.curve.ndim == 1:
            yield counts.part(mine), curves
        else:
            own = curves._replace(curve=curves.curve[mine], replicates=curves.replicates[:, mine])
            yield counts.part(mine), own


def estimated_performance(counts: Scored, calibration: Calibration) -> pd.DataFrame:
    """Estimate every metric of the windows from their scores and decisions.

    Args:
        counts: The windows, with or without actuals, which are not looked at.
        calibration: Of the baseline; its curve may also be one per cell, (C, S).

    Returns:
        MetricFrame of ``estimated_<metric>``, column `:table`, n = rows with a score. `lower` and
        `upper`: the 95 % band of the value that the actuals will give, from their own chance and
        from that of the baseline. `reason` of a NaN: no_rows, few_rows (under 30),
        few_of_rarer_class (fewer than 10 expected; areas), no_predicted_positives,
        no_actual_positives, no_actual_negatives (fewer than 1 expected), no_positives (f1),
        baseline_single_class, few_baseline_rarer (under 20), baseline_no_actuals.
    """
    return _compare(counts, calibration, is_residual=False)


def residuals(counts: Scored, calibration: Calibration) -> pd.DataFrame:
    """Compare estimates with the truth, over the same rows: those that have an actual.

    Returns:
        MetricFrame of ``<metric>_residual`` = estimated - realized, column `:table`, n = rows with
        an actual; `lower` and `upper`: its 95 % interval, which holds 0 while scores mean what
        they meant in the baseline. `reason` of a NaN: no_actuals, and as `estimated_performance`
        of the actuals.
    """
    return _compare(counts, calibration, is_residual=True)


def _compare(counts: Scored, calibration: Calibration, *, is_residual: bool) -> pd.DataFrame:
    metrics = []
    count = labelled if is_residual else partial(np.sum, axis=2)
    for part, curves in _chunks(counts, calibration.curves):
        rows = count(part.rows)
        decided = None if part.decided is None else count(part.decided)
        found = _expect(rows, decided, part.middles, curves)
        truth = realized(part)
        realized_values = values_of(truth, part.middles) if is_residual else {}
        for metric, learnt in found.value.items():
            value = learnt - correct_by(calibration.held_out, metric)
            half = _margin(found, metric, calibration)
            if is_residual:
                name, low, high = residual(metric), -np.inf, np.inf
                value = value - realized_values[metric]
                reason = _reason(few(metric, truth), calibration)
                reason = np.where(reason == "no_rows", "no_actuals", reason)
            else:
                name, low, high = estimated(metric), METRICS[metric].low, METRICS[metric].high
                value = np.clip(value, low, high)
                reason = _reason(few(metric, found.table), calibration)
            metrics.append(
                table_rows(
                    part.cells, name, np.where(reason == "", value, np.nan),
                    np.maximum(value - half, low), np.minimum(value + half, high),
                    rows.sum(axis=1), reason, calibration.method,
                )
            )  # fmt: skip
    return stack_rows(metrics).assign(n_baseline=calibration.n)


def _reason(found: Reasons, calibration: Calibration) -> Reasons:
    return np.full(len(found), calibration.reason) if calibration.reason else found


def baseline_estimates(calibration: Calibration, middles: Floats) -> dict[str, float]:
    """Return metric -> estimate of the baseline itself, each half by the other half's curve."""
    return {
        metric: float(value[0]) - correct_by(calibration.held_out, metric)
        for metric, value in values_of(calibration.table, middles).items()
    }
