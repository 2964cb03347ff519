"""Family schema: rows and files of a window that do not have the declared shape."""

from __future__ import annotations

import json
from typing import Any

from mlmon_dagster.monitors.evidence import NO_DATA, OK, Evidence, Row, Window, result_row
from mlmon_dagster.monitors.wording import compared, no_verdict, number, threshold


def judge(evidence: Evidence) -> list[Row]:
    """Fail on a share of refused rows past `bad_rate`, or on any quarantined file.

    The share is refused rows / (refused + accepted). A window without either, and without
    quarantined files, is NO_DATA.
    """
    return [_judge_window(evidence, window) for window in evidence.windows]


def _judge_window(evidence: Evidence, window: Window) -> Row:
    monitor = evidence.spec.monitors.schema_
    bad, files = int(window["n_bad"]), int(window["n_quarantined"])
    rows = int(window["n"]) + bad
    common: dict[str, Any] = {"family": "schema", "metric": "bad_rate"}
    common |= {"threshold": threshold(monitor.bad_rate), "n": rows}
    if rows == 0 and files == 0:
        message = no_verdict("The schema", "no_rows", 0)
        return result_row(
            evidence, window, monitor, status=NO_DATA, message=message, reason="no_rows", **common
        )
    share = bad / rows if rows else 0.0
    past = monitor.bad_rate.fails(share)
    reasons = _reasons(window.get("bad_reasons"))
    message = f"{bad:,} of {rows:,} rows ({number(share)}) broke the schema"
    if reasons:
        listed = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:3]
        message += " (" + ", ".join(f"{reason} {n:,}" for reason, n in listed) + ")"
    message += f", {compared(monitor.bad_rate, past)}."
    if files:
        refused = f"{files:,} file{'s' if files > 1 else ''} quarantined"
        message = f"{refused}; {message}" if bad else f"{refused}; of {rows:,} rows none is bad."
    names = window.get("quarantined")
    return result_row(
        evidence,
        window,
        monitor,
        status=monitor.severity if past or files else OK,
        message=message,
        value=share,
        details={
            "n_bad": bad,
            "n_quarantined": files,
            "bad_reasons": reasons,
            "quarantined": [str(name) for name in names] if isinstance(names, list) else [],
        },
        **common,
    )


def _reasons(value: Any) -> dict[str, int]:
    found = json.loads(value) if isinstance(value, str) and value else value
    return {str(k): int(n) for k, n in found.items()} if isinstance(found, dict) else {}
