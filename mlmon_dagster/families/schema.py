"""Family schema: rows and files of a window that do not have the declared shape."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlmon_dagster.families.family import Facts, Family
from mlmon_dagster.families.reported_files import (
    expected_of,
    first_line_of,
    quarantined_files,
    reported_in,
    sent_again,
    unplaced_of,
)
from mlmon_dagster.monitors.change_wording import percent
from mlmon_dagster.monitors.evidence import (
    MIN_COUNT,
    OK,
    Case,
    Evidence,
    Window,
    excess,
)
from mlmon_dagster.monitors.wording import compared, threshold
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec import Window as Span
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import FRESHNESS, SCHEMA, counted
from mlmon_dagster.store.state import manifest, model_history
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.store.state.window_state import WindowInputs
from mlmon_dagster.work import Work


def judge(evidence: Evidence) -> list[MonitorResult]:
    """Fail on a share of refused rows past `bad_rate`, or on any quarantined file.

    Rows that came before under the same id (`duplicate_rate`), or with another content
    (`conflict_rate`), are warned of: what is stored stays right. Columns that became others are a
    WARN of the one window in which they were seen first.

    The share is refused rows / (refused + accepted). Refused rows of no window, which are ground
    truth or whose time cannot be believed, count in the window that their file is reported in. A
    window without either, and without quarantined files, is NO_DATA.
    """
    rows = [_judge_window(evidence, window) for window in evidence.windows]
    for window in evidence.windows:
        rows += _judge_repeats(evidence, window)
        rows += _judge_expectations(evidence, window)
    return rows


def _judge_expectations(evidence: Evidence, window: Window) -> Iterator[MonitorResult]:
    """Judge the expectations of the spec, each by its own severity; no row if none was judged.

    Rows that an expectation refuses are bad rows, which `bad_rate` judges.
    """
    found = window.get("expectations")
    results: list[Mapping[str, Any]] = found if isinstance(found, list) else []
    if not results:
        return
    failing = [one for one in results if not one["kept"]]
    severe = [one for one in failing if one["severity"] == "ERROR" or _is_unjudged(one)]
    warned = [one for one in failing if one["severity"] == "WARN"]
    told = [*severe, *(one for one in warned if one not in severe)]
    n = len(results)
    message = f"{counted(n, 'expectation')} of the spec hold{'' if n > 1 else 's'}"
    if failing:
        first = told or failing
        rest = f"; and {len(failing) - 3} more" if len(failing) > 3 else ""
        others = [one for one in failing if one not in first]
        do_not = "does not" if len(failing) == 1 else "do not"
        which = f"{len(failing)} of {n:,} expectations" if n > 1 else "The expectation"
        message = f"{which} of the spec {do_not} hold"
        message += f": {'; '.join(map(_unkept, [*first, *others][:3]))}{rest}"
    monitor = evidence.spec.monitors.schema_
    yield Case(evidence, window, monitor, metric="expectations", threshold="all hold").result(
        "ERROR" if severe else "WARN" if warned else OK,
        f"{message}.",
        value=float(len(failing)),
        n=max(int(one["rows"]) for one in results),
        details={"expectations": results},
    )


def _is_unjudged(one: Mapping[str, Any]) -> bool:
    return bool(one["error"]) and one["severity"] != "WARN"


def _unkept(one: Mapping[str, Any]) -> str:
    about = f" of {', '.join(one['columns'])}" if one["columns"] else ""
    text = f"{one['expectation']}{about}"
    if one["error"]:
        return f"{text} could not be evaluated: {one['error']}"
    if one["unexpected"] is None:
        return f"{text} fails" + (f", found {one['values'][0]}" if one["values"] else "")
    count = f"{one['unexpected']:,} of {one['rows']:,} rows"
    text += f" fails in {count} ({percent(one['unexpected'] / one['rows'])})"
    if one["values"]:
        text += f", such as {'; '.join(one['values'])}"
    return text + (", which are refused" if one["severity"] == "refuse" else "")


def _judge_repeats(evidence: Evidence, window: Window) -> Iterator[MonitorResult]:
    """Judge rows that were there before, as a share of the rows sent; no row if none was sent."""
    monitor, sent = evidence.spec.monitors.schema_, int(window["n_sent"])
    judged = (
        ("duplicate_rate", monitor.duplicate_rate, window["n_duplicate"], "had come before"),
        ("conflict_rate", monitor.conflict_rate, window["n_conflict"], "contradict others"),
    )
    for metric, condition, found, said in judged:
        if condition is None or not sent:
            continue
        share = int(found) / sent
        failed = condition.fails(share) and found >= MIN_COUNT
        yield Case(evidence, window, monitor, metric, threshold=threshold(condition)).result(
            "WARN" if failed else OK,
            f"{_count_of(int(found), sent)} {said} under "
            f"the same id, {compared(condition, failed, percent)}.",
            value=share,
            **excess(share, condition.bound),
            n=sent,
        )


def _count_of(found: int, rows: int) -> str:
    """Write which of some rows it is, as a number and as a share.

    Example:
        >>> _count_of(3, 1_000), _count_of(0, 1_000)
        ('3 of 1,000 rows (0.3 %)', 'None of 1,000 rows')
    """
    if not found:
        return f"None of {counted(rows, 'row')}"
    return f"{found:,} of {counted(rows, 'row')} ({percent(found / rows)})"


def _judge_window(evidence: Evidence, window: Window) -> MonitorResult:
    monitor = evidence.spec.monitors.schema_
    unplaced = _reasons(window.get("unplaced"))
    n_unplaced, files = sum(unplaced.values()), int(window["n_quarantined"])
    bad = int(window["n_bad"]) + n_unplaced
    rows = int(window["n"]) + bad
    case = Case(evidence, window, monitor, "bad_rate", threshold=threshold(monitor.bad_rate))
    if rows == 0 and files == 0:
        return case.unjudged("no_rows", "The schema", n=rows)
    share = bad / rows if rows else 0.0
    past = monitor.bad_rate.fails(share)
    reasons = _reasons(window.get("bad_reasons"))
    reasons |= {why: n + reasons.get(why, 0) for why, n in unplaced.items()}
    message = f"{_count_of(bad, rows)} broke the schema"
    if reasons:
        listed = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:3]
        named = [_tell_reason(reason) + (f": {n:,}" if n < bad else "") for reason, n in listed]
        message += f" ({', '.join(named)})"
    message += f", {compared(monitor.bad_rate, past, percent)}."
    if unplaced:
        files_of = _texts(window.get("unplaced_in"))
        message += f" {_origin(n_unplaced, bad, files_of, evidence.spec.time.granularity)}"
    if files:
        refused = f"{counted(files, 'file')} {'were' if files > 1 else 'was'} refused"
        because = f": {window['refused_because']}" if window["refused_because"] else "."
        message = f"{refused}{because}" + (f" {message}" if bad else "")
    changes = _texts(window.get("changes"))
    if changes:
        told = f"Columns changed: {'; '.join(changes[:3])}"
        told += f"; and {len(changes) - 3} more." if len(changes) > 3 else "."
        message = f"{message} {told}" if past or files else told
    return case.result(
        monitor.severity if past or files else "WARN" if changes else OK,
        message,
        value=share,
        n=rows,
        **(excess(share, monitor.bad_rate.bound) if past or not (files or changes) else {}),
        details={
            "n_bad": bad,
            "n_quarantined": files,
            "bad_reasons": reasons,
            "quarantined": _texts(window.get("quarantined")),
            **({"by_rule": int(window["n_by_rule"]) / rows} if window["n_by_rule"] else {}),
            **({"n_unplaced": n_unplaced} if unplaced else {}),
            **({"changes": changes} if changes else {}),
        },
    )


def _tell_reason(reason: str) -> str:
    """Write a code, maybe with its column, such as ``wrong_type`` or ``expectation:age``."""
    code, _, column = reason.partition(":")
    return code.replace("_", " ") + (f" of {column}" if column else "")


def _origin(n: int, n_bad: int, files: list[str], grain: str) -> str:
    which = f"{n:,} of these rows" if n < n_bad else "These rows"
    more = f" and {counted(len(files) - 1, 'other file')}" if len(files) > 1 else ""
    return f"{which} came with {files[0]}{more}, and their {grain} is not known."


def _texts(value: object) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else []


def _reasons(value: object) -> dict[str, int]:
    found = json.loads(value) if isinstance(value, str) and value else value
    return {str(k): int(n) for k, n in found.items()} if isinstance(found, dict) else {}


def _facts(work: Work, windows: Sequence[Span]) -> list[Facts]:
    spec, engine, since = work.spec, work.project.store.state, windows[0].end
    files = quarantined_files(work)
    taken = manifest.load_files_frame(engine, spec.model, status="done", seen_from=since)
    sent = taken[taken["stream"] == "predictions"]
    expected = taken if spec.expectations else taken[:0]
    unplaced = manifest.count_unplaced(engine, spec.model, since)
    found = model_history.load_changes(engine, spec.model)
    rows: list[Facts] = []
    for window in windows:
        refused = reported_in(files, window, spec.time)
        quarantined = refused["path"].astype(str).tolist()
        changed = model_history.find_warned(found, window.start)
        rows.append(
            {
                **unplaced_of(reported_in(unplaced, window, spec.time)),
                "n_quarantined": len(quarantined),
                "quarantined": quarantined,
                "refused_because": first_line_of(refused),
                "changes": [f"{seen.change.text()} ({seen.path})" for seen in changed],
                **sent_again(reported_in(sent, window, spec.time)),
                "expectations": expected_of(reported_in(expected, window, spec.time)),
            }
        )
    return rows


def _version(version: str, _: WindowInputs, facts: Facts) -> str:
    repeats = [facts["n_duplicate"], facts["n_conflict"]]
    tail = f":{repeats[0]}:{repeats[1]}" if any(repeats) else ""
    tail += f":columns:{len(facts['changes'])}" if facts["changes"] else ""
    tail += f":unplaced:{sorted(facts['unplaced'].items())}" if facts["unplaced"] else ""
    if expected := facts["expectations"]:
        found = [[one["kept"], one["rows"], one["unexpected"]] for one in expected]
        tail += f":expectations:{sorted(map(str, found))}"
    return f"{version}:{facts['n_bad']}:{facts['n_quarantined']}{tail}"


def _limits(spec: ModelSpec) -> str:
    return f"Fails above a share of {spec.monitors.schema_.bad_rate.bound:g} of bad rows."


FAMILY = Family(
    FAMILIES[SCHEMA],
    judge,
    _limits,
    facts=_facts,
    version=_version,
    # The look before the run knew neither when the last events were nor how many have truth.
    judged_after=(FRESHNESS,),
)
