"""Family versions: a challenger that is worse, features served otherwise than computed, old age."""

from __future__ import annotations

from typing import Any

from mlmon_dagster.metrics import SHARE_IS_WRONG
from mlmon_dagster.metrics.frames import MetricSample
from mlmon_dagster.metrics.versions import BY_ROWS, rows_to_decide, verdict_of
from mlmon_dagster.monitors.evidence import (
    MIN_COUNT,
    NO_DATA,
    OK,
    Evidence,
    Window,
    excess,
    explain_unjudged,
    finite,
    not_mature,
    not_valued,
    production,
    result_row,
)
from mlmon_dagster.monitors.wording import number, subject
from mlmon_dagster.profiles.compiler import NO_VERSION
from mlmon_dagster.spec.monitors import (
    CANARY_SHARE,
    SKEW_RATE,
    VERSION_AGE,
    Skew,
    Staleness,
    VersionComparison,
)
from mlmon_dagster.store.state.monitor_results import MonitorResult

FAMILY = "versions"


def judge(evidence: Evidence) -> list[MonitorResult]:
    """Fail a challenger that is worse, a canary without its share, skewed features, an old version.

    A comparison that is undecided is not judged.
    """
    declared = evidence.spec.monitors.versions
    rows = []
    for window in production(evidence):
        for one in declared.compare:
            if one is declared.canary:
                rows.append(_judge_share(evidence, window, one))
            rows.append(_judge_gain(evidence, window, one))
        if declared.skew is not None:
            columns = evidence.columns_with(window, SKEW_RATE)
            rows += [_judge_skew(evidence, window, declared.skew, c) for c in columns]
        if declared.staleness is not None:
            rows.append(_judge_age(evidence, window, declared.staleness))
    return rows


def _result(evidence: Evidence, window: Window, **fields: Any) -> MonitorResult:
    return result_row(evidence, window, evidence.spec.monitors.versions, family=FAMILY, **fields)


def _unjudged(
    evidence: Evidence,
    window: Window,
    metric: str,
    row: MetricSample | None,
    reason: str,
    **fields: Any,
) -> MonitorResult:
    n = int(row["n"]) if row else int(window["n"])
    about = subject(metric, fields.get("column", ""))
    return _result(
        evidence, window, metric=metric, source=row, status=NO_DATA, reason=reason,
        **{"message": explain_unjudged(window, about, reason, n), **fields},
    )  # fmt: skip


def _judge_gain(evidence: Evidence, window: Window, declared: VersionComparison) -> MonitorResult:
    metric = declared.gain
    row = evidence.whole(window, metric)
    champion, challenger = (window.get("pairs") or {}).get(metric, ("", ""))
    named: dict[str, object] = {"champion": champion, "challenger": challenger}
    # A comparison goes over many windows, and none of them is in a hurry.
    reason = not_mature(window, row, is_shown=False)
    if not reason and row is not None and str(row["method_version"]).endswith(BY_ROWS):
        reason = "few_shared_windows"
    share = evidence.whole(window, CANARY_SHARE) if declared.share is not None else None
    if not reason and share is not None and _is_wrong(share):
        reason = "sample_ratio"
    if reason or row is None:
        return _unjudged(evidence, window, metric, row, reason, details=named)
    half, margin = (row["upper"] - row["lower"]) / 2, declared.margin
    verdict = verdict_of(row["lower"], row["upper"], margin)
    details = {**named, "verdict": verdict, "margin": margin}
    limit = f"below {number(-margin)}"
    said = (
        f"{_named(challenger)} ({declared.how}) against {_named(champion)}: {subject(metric)} "
        f"{row['value']:+.4f} ({row['lower']:+.4f} to {row['upper']:+.4f}, n {int(row['n']):,})"
    )
    if verdict == "undecided":
        more = rows_to_decide(row["value"], half, margin, int(row["n"]))
        return _unjudged(
            evidence, window, metric, row, "undecided", threshold=limit,
            message=f"{said[0].upper()}{said[1:]}; undecided: about {more:,} more rows.",
            details={**details, "more": more},
        )  # fmt: skip
    return _result(
        evidence, window, metric=metric, source=row, threshold=limit, details=details,
        status=evidence.spec.monitors.versions.severity if verdict == "worse" else OK,
        message=f"{said[0].upper()}{said[1:]}; {verdict}.", **excess(-row["value"], margin, half),
    )  # fmt: skip


def _named(version: str) -> str:
    return f"version {version}" if version not in ("", NO_VERSION) else "a version without a name"


def _is_wrong(share: MetricSample) -> bool:
    p_value = finite(share["p_value"])
    return p_value is not None and p_value < SHARE_IS_WRONG


def _judge_share(evidence: Evidence, window: Window, declared: VersionComparison) -> MonitorResult:
    row = evidence.whole(window, CANARY_SHARE)
    reason = not_valued(window, row)
    if reason or row is None:
        return _unjudged(evidence, window, CANARY_SHARE, row, reason)
    wrong = _is_wrong(row)
    assert declared.share is not None
    said = f"The canary answered {row['value']:.1%} of {int(row['n']):,} requests"
    after = (
        f" and was to answer {declared.share:.1%}: something else than the lot decided who "
        "answered, so the versions cannot be compared."
        if wrong
        else f", about the {declared.share:.1%} that it was to answer."
    )
    return _result(
        evidence, window, metric=CANARY_SHARE, source=row,
        status=evidence.spec.monitors.versions.severity if wrong else OK,
        threshold=f"{declared.share:g}", message=said + after, baseline_value=declared.share,
    )  # fmt: skip


def _judge_skew(evidence: Evidence, window: Window, declared: Skew, column: str) -> MonitorResult:
    row = evidence.whole(window, SKEW_RATE, column)
    reason = not_valued(window, row)
    if reason or row is None:
        return _unjudged(evidence, window, SKEW_RATE, row, reason, column=column)
    # One of a few hundred predictions is past a limit of a thousandth, and no evidence.
    enough = round(row["value"] * row["n"]) >= MIN_COUNT or row["lower"] > declared.above
    wrong = bool(row["value"] > declared.above and enough)
    said = (
        f"{row['value']:.2%} ({row['lower']:.2%} to {row['upper']:.2%}) of {int(row['n']):,} "
        f"predictions were served another {column} than the dataset {declared.dataset} has"
    )
    found = (window.get("skews") or {}).get(column)
    details: dict[str, object] = {}
    if found is not None and found.rate > 0:
        details = {"kind": found.kind, "n_null": found.n_null}
        if finite(found.by) is not None and not evidence.spec.features[column].pii:
            details["by"] = found.by
            said += f" ({found.kind} of {found.by:.4g})"
        elif found.kind != "mixed":
            said += f" ({found.kind})"
    day = window["window_start"].tz_convert(evidence.spec.time.zone).date()
    after = (
        f"; see which: mlmon skew {evidence.spec.model} --from {day} --to {day} "
        f"--dataset {declared.dataset}."
        if wrong
        else "."
    )
    return _result(
        evidence, window, metric=SKEW_RATE, column=column, source=row, details=details,
        status=evidence.spec.monitors.versions.severity if wrong else OK,
        threshold=f"above {number(declared.above)}", message=said + after,
        **excess(row["value"], declared.above, row["value"] - row["lower"]),
    )  # fmt: skip


def _judge_age(evidence: Evidence, window: Window, declared: Staleness) -> MonitorResult:
    row = evidence.whole(window, VERSION_AGE)
    reason = not_valued(window, row)
    if reason or row is None:
        return _unjudged(evidence, window, VERSION_AGE, row, reason)
    limit = declared.above.total_seconds() / 86400
    old = row["value"] > limit
    version = str(window.get("deployed") or "")
    return _result(
        evidence, window, metric=VERSION_AGE, source=row, details={"version": version},
        status=evidence.spec.monitors.versions.severity if old else OK,
        threshold=f"above {limit:g}",
        message=f"{_named(version).capitalize()} has served for {row['value']:.0f} days, "
        f"{'' if old else 'not '}above {limit:g}.",
        **excess(row["value"], limit),
    )  # fmt: skip
