"""Part of the family drift: a feature that counts for more, or less, than it did."""

from __future__ import annotations

from collections.abc import Iterator

from mlmon_dagster.monitors.adjust import benjamini_hochberg
from mlmon_dagster.monitors.evidence import (
    NO_DATA,
    OK,
    Evidence,
    Row,
    Window,
    finite,
    not_tested,
    result_row,
)
from mlmon_dagster.monitors.limits import excess
from mlmon_dagster.monitors.wording import no_verdict, number, subject
from mlmon_dagster.spec.attribution import ATTRIBUTION, SHIFT, attributed
from mlmon_dagster.spec.shap import Attribution


def attributions(evidence: Evidence) -> dict[str, float]:
    """Return feature -> its share of the attributions in the newest window that has any."""
    for window in reversed(evidence.windows):
        found = {
            feature: finite(row["value"])
            for feature in attributed(evidence.spec)
            if (row := evidence.whole(window, ATTRIBUTION, feature)) is not None
        }
        known = {feature: value for feature, value in found.items() if value is not None}
        if known:
            return known
    return {}


def judge_attribution(evidence: Evidence, window: Window) -> Iterator[Row]:
    """Fail features whose share of the attributions really and largely changed.

    Large: by more than `above`. Real: its p-value, adjusted over the features of the window
    (Benjamini-Hochberg), is at most q. Nothing of models that log no SHAP values.
    """
    declared, features = evidence.spec.monitors.drift.attribution, attributed(evidence.spec)
    if declared is None or not features:
        return
    found = [(feature, evidence.whole(window, SHIFT, feature)) for feature in features]
    reasons = [not_tested(window, row) for _, row in found]
    p = [
        float(row["p_value"]) if row is not None and not reason else float("nan")
        for (_, row), reason in zip(found, reasons, strict=True)
    ]
    adjusted = benjamini_hochberg(p)
    size = sum(not reason for reason in reasons)
    for (feature, row), reason, each in zip(found, reasons, adjusted, strict=True):
        if row is None or reason:
            yield _unjudged(evidence, window, declared, feature, row, reason)
        else:
            yield _judged(evidence, window, declared, feature, row, each, size)


def _unjudged(
    evidence: Evidence,
    window: Window,
    declared: Attribution,
    feature: str,
    row: Row | None,
    reason: str,
) -> Row:
    n = int(row["n"]) if row else int(window["n"])
    return result_row(
        evidence,
        window,
        evidence.spec.monitors.drift,
        family="drift",
        metric=SHIFT,
        column=feature,
        source=row,
        status=NO_DATA,
        reason=reason,
        message=no_verdict(subject(SHIFT, feature), reason, n),
        threshold=f"beyond {number(declared.above)}",
    )


def _judged(
    evidence: Evidence,
    window: Window,
    declared: Attribution,
    feature: str,
    row: Row,
    adjusted: float,
    size: int,
) -> Row:
    monitor, shift = evidence.spec.monitors.drift, float(row["value"])
    large, real = abs(shift) > declared.above, adjusted <= monitor.q
    now = evidence.whole(window, ATTRIBUTION, feature)
    share = float(now["value"]) if now is not None else float("nan")
    message = (
        f"{subject(ATTRIBUTION, feature)} is {number(share)} (n {int(row['n']):,}), "
        f"{number(abs(shift))} {'more' if shift > 0 else 'less'} than in the baseline "
        f"(n {int(row['n_baseline']):,}), {'beyond' if large else 'within'} "
        f"{number(declared.above)}"
    )
    if large and not real:
        message += f", but an unchanged window can be as far (adjusted p {number(adjusted)})"
    is_error = declared.error_at is not None and abs(shift) > declared.error_at
    failing = "ERROR" if is_error else monitor.severity
    return result_row(
        evidence,
        window,
        monitor,
        family="drift",
        metric=SHIFT,
        column=feature,
        source=row,
        status=failing if large and real else OK,
        message=message + ".",
        threshold=f"beyond {number(declared.above)}",
        p_adjusted=finite(adjusted),
        family_size=size,
        details={"n_baseline": int(row["n_baseline"]), "q": monitor.q, "attribution": share},
        **(excess(abs(shift), declared.above) if real or not large else {}),
    )
