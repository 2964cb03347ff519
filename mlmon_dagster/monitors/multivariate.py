"""Part of the family drift: columns that no longer hang together as in the baseline."""

from __future__ import annotations

from collections.abc import Iterator

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
from mlmon_dagster.monitors.wording import NAMES, no_verdict, number
from mlmon_dagster.spec.multivariate import CHANGE, SHIFT, Multivariate


def judge_multivariate(evidence: Evidence, window: Window) -> Iterator[Row]:
    """Fail a window in which the correlation of two columns really and largely changed.

    Large: by more than `above` beyond noise. Real: its p-value, which the metric has adjusted over
    all pairs, is at most q. Nothing where the spec does not declare it.
    """
    declared = evidence.spec.monitors.drift.multivariate
    if declared is None:
        return
    row = evidence.whole(window, SHIFT)
    reason = not_tested(window, row)
    if row is None or reason:
        yield result_row(
            evidence,
            window,
            evidence.spec.monitors.drift,
            family="drift",
            metric=SHIFT,
            source=row,
            status=NO_DATA,
            reason=reason,
            message=no_verdict(NAMES[SHIFT], reason, int(row["n"]) if row else int(window["n"])),
            threshold=f"above {number(declared.above)}",
        )
    else:
        yield _judged(evidence, window, declared, row)


def _judged(evidence: Evidence, window: Window, declared: Multivariate, row: Row) -> Row:
    monitor = evidence.spec.monitors.drift
    large, real = row["value"] > declared.above, row["p_value"] <= monitor.q
    failed = large and real
    changes = _changes(evidence, window)
    message = (
        f"{NAMES[SHIFT]} is {number(row['value'])} beyond sampling noise "
        f"(n {int(row['n']):,}, baseline n {int(row['n_baseline']):,}), "
        f"{'above' if large else 'not above'} {number(declared.above)}"
    )
    if failed and changes:
        said = ", ".join(f"{name} by {change:+.2f}" for name, change in changes.items())
        message += f"; it changed most for {said}"
    if large and not real:
        message += f", but an unchanged window can be as far (p {number(row['p_value'])})"
    is_error = declared.error_at is not None and row["value"] > declared.error_at
    return result_row(
        evidence,
        window,
        monitor,
        family="drift",
        metric=SHIFT,
        source=row,
        status=("ERROR" if is_error else monitor.severity) if failed else OK,
        message=message + ".",
        threshold=f"above {number(declared.above)}",
        p_adjusted=finite(row["p_value"]),
        details={"n_baseline": int(row["n_baseline"]), "q": monitor.q, "changes": changes},
        **(excess(row["value"], declared.above) if real or not large else {}),
    )


def _changes(evidence: Evidence, window: Window) -> dict[str, float]:
    """Return the pairs that changed most for sure, and by how much, the first one first."""
    pairs = evidence.columns_with(CHANGE)
    found = [(pair, evidence.whole(window, CHANGE, pair)) for pair in pairs]
    known = {pair: float(row["value"]) for pair, row in found if row is not None}
    return dict(sorted(known.items(), key=lambda item: -abs(item[1])))
