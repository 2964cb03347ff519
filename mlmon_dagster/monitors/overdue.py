"""Ground truth that should be there and is not: part of the family freshness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlmon_dagster.metrics.volume import chance_of_so_few
from mlmon_dagster.monitors.evidence import (
    NO_DATA,
    OK,
    Evidence,
    Row,
    Window,
    production,
    result_row,
)
from mlmon_dagster.monitors.limits import excess
from mlmon_dagster.monitors.wording import no_verdict, threshold

MIN_WINDOWS = 7  # earlier windows from which the usual coverage is known
MIN_ROWS = 30  # before that, only windows of this size without any ground truth fail
CHANCE = 1e-4


def judge_actuals(evidence: Evidence) -> list[Row]:
    """Fail windows whose ground truth is due and has come far less than it usually does.

    Due is a window's end plus `actuals.expected_within` plus `time.allowed_lateness`. The value is
    the missing share of the usual coverage, the median of the earlier due windows; it fails past
    `actuals_missing`, unless so few can be chance. Windows that are not due are NO_DATA, and so is
    one that would fail while files of actuals are not read yet (`n_unread_actuals`).
    """
    spec = evidence.spec
    condition = spec.monitors.freshness.actuals_missing
    if not spec.has_actuals or condition is None:
        return []
    wait = spec.actuals.expected_within + spec.time.allowed_lateness
    rows: list[Row] = []
    earlier: list[float] = []
    for window in production(evidence):
        n = int(window["n_expected"])
        if not n:
            continue
        if window["window_end"] + wait > evidence.now:
            rows.append(_not_due(evidence, window, n))
            continue
        rows.append(_judge(evidence, window, n, earlier))
        earlier.append(int(window["n_actual"]) / n)
    return rows


def _not_due(evidence: Evidence, window: Window, n: int) -> Row:
    return result_row(
        evidence,
        window,
        evidence.spec.monitors.freshness,
        family="freshness",
        metric="actuals_missing",
        status=NO_DATA,
        reason="provisional",
        message="Ground truth is not due yet.",
        n=n,
        data_version="actuals:not_due",
        method_version="actuals-1",
    )


def _judge(evidence: Evidence, window: Window, n: int, earlier: Sequence[float]) -> Row:
    monitor = evidence.spec.monitors.freshness
    condition = monitor.actuals_missing
    assert condition is not None
    k = int(window["n_actual"])
    usual = float(np.median(earlier)) if len(earlier) >= MIN_WINDOWS else math.nan
    if usual > 0:
        missing = 1 - k / n / usual
        failed = condition.fails(missing) and chance_of_so_few(k, n, usual) < CHANCE
        known = f"usually {usual * 100:.0f} %"
    else:
        missing = 1.0 if k == 0 else 0.0
        failed = k == 0 and n >= MIN_ROWS
        known = "how many are usual is not known yet"
    if failed and window["n_unread_actuals"]:
        return result_row(
            evidence,
            window,
            monitor,
            family="freshness",
            metric="actuals_missing",
            status=NO_DATA,
            reason="files_unread",
            message=no_verdict("ground truth", "files_unread", n),
            n=n,
            data_version="actuals:unread",
            method_version="actuals-1",
            details={"unread_until": window["unread_actuals_until"]},
        )
    return result_row(
        evidence,
        window,
        monitor,
        family="freshness",
        metric="actuals_missing",
        status=monitor.severity if failed else OK,
        message=f"Ground truth is due, and {k:,} of {n:,} predictions have it ({known}).",
        value=missing,
        **excess(missing, condition.bound),
        n=n,
        threshold=threshold(condition),
        data_version=f"actuals:{k}:{n}",
        method_version="actuals-1",
    )
