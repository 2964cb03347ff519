"""Family drift: a column whose distribution is really and largely unlike the baseline's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlmon_dagster.monitors.adjust import benjamini_hochberg
from mlmon_dagster.monitors.attribution import attributions, judge_attribution
from mlmon_dagster.monitors.evidence import (
    NO_DATA,
    OK,
    WORST_SLICES,
    Evidence,
    Row,
    Window,
    finite,
    not_tested,
    result_row,
)
from mlmon_dagster.monitors.limits import excess
from mlmon_dagster.monitors.multivariate import judge_multivariate
from mlmon_dagster.monitors.wording import no_verdict, number, subject
from mlmon_dagster.spec import ALL
from mlmon_dagster.spec.metric_registry import AUTO, NOVEL

_MOST = 0.5  # of the rows of a window, outside the baseline's range, is drift whatever the distance
_ALWAYS = ("psi", "jensen_shannon", "chi_square")  # of columns of any kind


def judge(evidence: Evidence) -> list[Row]:
    """Fail columns that changed significantly and by more than `above`.

    Real: the p-value, adjusted by Benjamini-Hochberg over the columns of the window at slice `all`
    (a column's slices are a family of their own, judged if `slices` is set), is at most q; or most
    of the rows lie outside everything that the baseline holds, see `_novel`. Large: the distance
    less its sampling mean is above the threshold. Columns without order have no KS
    distance; with `method: ks` they are judged by psi, and so are all columns that have no value
    of a method. Of times it is the age at the event, of texts the length.
    """
    rows: list[Row] = []
    methods = _by_importance(evidence, _columns(evidence))
    for window in evidence.windows:
        found = [
            (column, method, evidence.whole(window, method, column))
            for column, method in methods.items()
        ]
        rows += _judge_family(evidence, window, found)
        if evidence.spec.monitors.drift.slices:
            for column in methods:
                parts = evidence.slices(window, "psi", column)
                rows += _judge_family(evidence, window, [(column, "psi", part) for part in parts])
        rows += judge_multivariate(evidence, window)
        rows += judge_attribution(evidence, window)
    return rows


def _columns(evidence: Evidence) -> dict[str, str]:
    """Columns to judge and the metric of each, as computed, else as the spec declares them."""
    monitor, spec = evidence.spec.monitors.drift, evidence.spec
    method = str(monitor.method)
    computed = set(evidence.columns_with(method))
    names = sorted(computed | set(evidence.columns_with("psi")))
    if not names:
        names = list(spec.features)
        computed = set(names)
    if monitor.columns != "all":
        names = list(monitor.columns)
    return {name: method if name in computed or method in _ALWAYS else "psi" for name in names}


def _by_importance(evidence: Evidence, methods: dict[str, str]) -> dict[str, str]:
    """Put the most important features first; outputs and features without importance follow.

    Where the spec names no importance at all, the newest window's attributions say it.
    """
    features = evidence.spec.features
    known = {name: f.importance for name, f in features.items() if f.importance is not None}
    known = known or attributions(evidence)
    return dict(sorted(methods.items(), key=lambda item: -known.get(item[0], 0.0)))


def _judge_family(
    evidence: Evidence, window: Window, found: list[tuple[str, str, Row | None]]
) -> Iterator[Row]:
    reasons = [_no_data(evidence, row, window) for _, _, row in found]
    tested = [
        row["p_value"] if row and not reason else float("nan")
        for (_, _, row), reason in zip(found, reasons, strict=True)
    ]
    size = sum(not reason for reason in reasons)
    for (column, method, row), reason, adjusted in zip(
        found, reasons, benjamini_hochberg(tested), strict=True
    ):
        if row is None or reason:
            yield _unjudged(evidence, window, column, method, row, reason)
        else:
            yield _judged(evidence, window, column, row, adjusted, size)


def _no_data(evidence: Evidence, row: Row | None, window: Window) -> str:
    reason = not_tested(window, row)
    if reason or row is None:
        return reason
    return "few_rows" if row["n"] < evidence.spec.monitors.drift.min_rows else ""


def _unjudged(
    evidence: Evidence, window: Window, column: str, method: str, row: Row | None, reason: str
) -> Row:
    monitor = evidence.spec.monitors.drift
    n = int(row["n"]) if row else int(window["n"])
    return result_row(
        evidence,
        window,
        monitor,
        family="drift",
        metric=method,
        column=column,
        source=row,
        status=NO_DATA,
        reason=reason,
        message=no_verdict(subject(method, column, row), reason, n),
        threshold=f"above {number(monitor.above)}",
    )


def _judged(
    evidence: Evidence, window: Window, column: str, row: Row, adjusted: float, size: int
) -> Row:
    monitor = evidence.spec.monitors.drift
    above = _limit(evidence, window, column, row)
    novel = _novel(evidence, window, column, row)
    large, real = abs(row["value"]) > above, adjusted <= monitor.q or novel > 0
    failed = large and real
    verdict = "above" if large else "not above"
    share = f"{100 * novel:.1f}".removesuffix(".0")
    message = (
        f"{share} % of {column} lies outside everything in the baseline; " if novel else ""
    ) + (
        f"{subject(row['metric'], column, row)} is {number(row['value'])} beyond sampling noise "
        f"(n {int(row['n']):,}, baseline n {int(row['n_baseline']):,}), "
        f"{verdict} {number(above)}"
    )
    if large and not real:
        message += f", but an unchanged window can be as far (adjusted p {number(adjusted)})"
    details: dict[str, Any] = {"n_baseline": int(row["n_baseline"]), "q": monitor.q}
    if novel:
        details[NOVEL] = novel
    if column in evidence.spec.features and evidence.spec.features[column].importance is not None:
        details["importance"] = evidence.spec.features[column].importance
    if failed and row["slice_key"] == ALL:
        details["worst_slices"] = [
            {key: part[key] for key in ("metric", "slice_key", "slice_value", "value", "n")}
            for part in _farther_slices(evidence, window, column)[:WORST_SLICES]
        ]
    is_error = monitor.error_at is not None and abs(row["value"]) > monitor.error_at
    status = ("ERROR" if is_error else monitor.severity) if failed else OK
    return result_row(
        evidence,
        window,
        monitor,
        family="drift",
        metric=row["metric"],
        column=column,
        source=row,
        status=status,
        message=message + ".",
        threshold=f"above {number(above)}",
        p_adjusted=finite(adjusted),
        family_size=size,
        details=details,
        **(excess(abs(row["value"]), above) if real or not large else {}),
    )


def _farther_slices(evidence: Evidence, window: Window, column: str) -> list[Row]:
    """Return the slices that drifted more than the whole, the farthest first."""
    whole = evidence.whole(window, "psi", column)
    least = finite(whole["value"]) if whole else None
    return [
        part
        for part in evidence.slices(window, "psi", column)
        if least is None or part["value"] > least
    ]


def _novel(evidence: Evidence, window: Window, column: str, row: Row) -> float:
    """Return the share of a window's rows outside the baseline's range, 0 if that is no news.

    It is news when most rows lie there, more than twice as many as is usual among the baseline's
    own windows, and the window's mean is extreme among theirs, too. The distance says no more
    then: it is as large as it can be, as that of any other narrow day.
    """
    if row["slice_key"] != ALL:
        return 0.0
    found = evidence.whole(window, NOVEL, column)
    usual = evidence.whole(window, f"{NOVEL}{AUTO}", column)
    share, most = (finite(one["value"]) if one else None for one in (found, usual))
    if found is None or share is None or most is None:
        return 0.0
    p = finite(found["p_value"])
    is_far = p is not None and p <= evidence.spec.monitors.drift.q
    return share if is_far and share >= _MOST and share > 2 * most else 0.0


def _limit(evidence: Evidence, window: Window, column: str, row: Row) -> float:
    """Return the declared limit, or with `above: auto` the column's own, where that is known."""
    monitor = evidence.spec.monitors.drift
    found = evidence.whole(window, f"{row['metric']}{AUTO}", column) if monitor.auto else None
    usual = finite(found["value"]) if found else None
    return monitor.above if usual is None else usual
