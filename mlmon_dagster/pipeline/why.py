"""Why a verdict failed: the sentence that a trace of the very windows it judged says of it.

It is stored with the verdict, so that whoever renders or sends a message reads no rows and waits
for nothing. Where there is none, the reason is stored in its place.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mlmon_dagster.families.ground_truth import name_day
from mlmon_dagster.families.registry import JUDGED_BY
from mlmon_dagster.monitors.change_wording import percent
from mlmon_dagster.spec import ModelSpec, Window, window_containing, windows_between
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import is_told_in_money
from mlmon_dagster.spec.metric_registry import of_outcome
from mlmon_dagster.spec.monitors import RELEASE_CHANGE, REPEATED_ROWS
from mlmon_dagster.spec.names import ALL, BUSINESS, TABLE
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.store.state.sql import quote_identifier
from mlmon_dagster.work import Work

if TYPE_CHECKING:
    from mlmon_dagster.metrics.statistics import ColumnStatistics
    from mlmon_dagster.pipeline.judge_inputs import JudgeInputs
    from mlmon_dagster.trace.alike import Alike
    from mlmon_dagster.trace.explain import Explained

_FAILED = ("WARN", "ERROR")
_MOST_TOLD = 3  # outcomes
_SECONDS = 20.0  # after so long no further trace is begun in a run
_BACK = 7  # windows
_FEWEST = 3  # windows, to say what is usual
_MOST = 20_000_000  # rows to look at
_BEYOND = 0.1  # of the rows, more than in any window before


def verdicts_with_why(parts: Iterable[JudgeInputs]) -> list[MonitorResult]:
    """Judge, and say of failed verdicts why they failed, in their ``details``.

    Of each monitor only the newest window that failed is traced: that is what an alert says, and
    a backfill of years costs no more than a day. A trace is of stored profiles, about half a
    second; one that fails is logged and costs the sentence, never the verdict.

    Args:
        parts: What is judged, oldest window first.

    Returns:
        Rows of ``monitor_result``; those that were traced have ``why``, a sentence, and ``traced``,
        which windows it is of, or ``no_why``, the reason that there is none. Of models with
        outcomes or costs in a currency also ``money``, what it is worth. Why more rows came than
        usual, or the same again, is no trace: which rows they repeat.
    """
    rows: list[MonitorResult] = []
    newest: dict[str, tuple[int, JudgeInputs]] = {}
    for inputs in parts:
        for row in inputs.explain_verdicts():
            if row["status"] in _FAILED and any(
                is_it(inputs, row) for is_it in (_is_traced, _is_valued, _is_repeat)
            ):
                newest[str(row["monitor"])] = len(rows), inputs
            rows.append(row)
    until = time.monotonic() + _SECONDS
    for place, inputs in newest.values():
        row = rows[place]
        if time.monotonic() > until:
            said = {"no_why": "the traces before took too long"}
        else:
            said = _why_or_why_not(inputs, row) if _is_traced(inputs, row) else {}
            said |= _attempt(inputs, row, "money", _worth) if _is_valued(inputs, row) else {}
            said |= _attempt(inputs, row, "why", _repeated) if _is_repeat(inputs, row) else {}
        details = json.dumps(json.loads(str(row["details"])) | said, sort_keys=True)
        rows[place] = row | {"details": details}
    return rows


def _is_traced(inputs: JudgeInputs, row: MonitorResult) -> bool:
    is_whole = (row["slice_key"], row["dataset"]) == (ALL, PRODUCTION)
    return is_whole and bool(inputs.family.traced(row["metric"]))


class _Sides(NamedTuple):
    """What a trace compares.

    Attributes:
        metric: The metric of ground truth.
        starts: The windows.
        end: Of the last one.
        earlier: First and last of the windows that they are compared with, else the baseline.
    """

    metric: str
    starts: Sequence[dt.datetime]
    end: dt.datetime
    earlier: tuple[dt.datetime, dt.datetime] | None = None


def _find_sides(inputs: JudgeInputs, row: MonitorResult) -> _Sides:
    """Return what is traced of a verdict: its windows beside its baseline, or two versions."""
    if row["metric"] != RELEASE_CHANGE:
        return _Sides(_traced(inputs, row), inputs.find_judged(row), row["window_end"])
    time_, details = inputs.comparison.work.spec.time, json.loads(row["details"])
    first, last, *earlier = (
        dt.datetime.fromisoformat(text) for text in (*details["after"], *details["earlier"])
    )
    end = window_containing(time_, last).end
    starts = [window.start for window in windows_between(time_, first, end)]
    return _Sides(details["measured"], starts, end, (earlier[0], earlier[1]))


def _is_valued(inputs: JudgeInputs, row: MonitorResult) -> bool:
    """Tell whether a verdict is to be told in money: of ground truth, or of failed requests."""
    is_whole = (row["slice_key"], row["dataset"]) == (ALL, PRODUCTION)
    fits = inputs.family.needs_truth or row["metric"] == "error_rate"
    return is_whole and fits and is_told_in_money(inputs.comparison.work.spec)


def _is_repeat(inputs: JudgeInputs, row: MonitorResult) -> bool:
    return row["metric"] in ("volume_rise", REPEATED_ROWS)


def _repeated(inputs: JudgeInputs, row: MonitorResult) -> str:
    work = inputs.comparison.work
    return describe_repeats(work, window_containing(work.spec.time, row["window_start"]))


def describe_repeats(work: Work, window: Window) -> str:
    """Say which rows a window's rows repeat: those of a window of the last seven, or its own.

    Few features have few different rows, so that what repeats is compared with what does so in the
    windows before, and among them.

    Returns:
        A sentence without full stop; empty if no more rows repeat than usual, if that is not known,
        or if there are too many rows to look.
    """
    spec, store = work.spec, work.project.store
    back = windows_between(
        spec.time, window.start - _BACK * (window.end - window.start), window.end
    )
    if not spec.logged_features:
        return ""
    records = store.inference_records(spec).from_sql(back, [PRODUCTION])
    if store.query(f"SELECT count(*) AS n FROM {records}").column("n")[0].as_py() > _MOST:
        return ""
    # One side's rows by how often they come are joined with the other's.
    found = store.query(
        "WITH counted AS (SELECT window_start AS at, "
        f"hash({', '.join(map(quote_identifier, spec.logged_features))}) AS row, count(*) AS n "
        f"FROM {records} GROUP BY ALL) "
        "SELECT a.at AS now, b.at AS then, sum(a.n)::BIGINT AS n, count(*) AS different "
        "FROM counted a JOIN counted b ON a.row = b.row AND b.at <= a.at GROUP BY ALL"
    ).to_pylist()
    total = {one["now"]: one["n"] for one in found if one["now"] == one["then"]}
    again = {
        (one["now"], one["then"]): one["n"] - (one["now"] == one["then"]) * one["different"]
        for one in found
    }
    if len(total) <= _FEWEST or window.start not in total:
        return ""

    def share(now: dt.datetime, then: dt.datetime) -> float:
        return float(again.get((now, then), 0) / total[now])

    said, most = "", _BEYOND
    for is_own in (True, False):
        pairs = [
            (share(now, then), now, then)
            for now in total
            for then in total
            if (now == then if is_own else then < now)
        ]
        usual = [repeated for repeated, now, _ in pairs if now != window.start]
        repeated, _, then = max(pair for pair in pairs if pair[1] == window.start)
        if repeated - max(usual) > most:
            most = repeated - max(usual)
            of = "others of this window" if is_own else f"rows of {name_day(spec, then, work.now)}"
            low, high = (f"{100 * end:.0f}" for end in (min(usual), max(usual)))
            before = f"{low} %" if low == high else f"{low} to {high} %"
            said = f"{percent(repeated)} of the rows repeat {of} under new ids, usually {before}"
    return said


def _attempt(
    inputs: JudgeInputs,
    row: MonitorResult,
    name: str,
    describe: Callable[[JudgeInputs, MonitorResult], str],
) -> dict[str, str]:
    """Say something more of a verdict; nothing where that is not known."""
    try:
        text = describe(inputs, row)
    except Exception:  # whatever it is, the verdict is what counts
        model = inputs.comparison.work.spec.model
        logging.getLogger(__name__).warning("%s: no %s of %s", model, name, row["monitor"],
                                            exc_info=True)  # fmt: skip
        return {}
    return {name: text} if text else {}


def _worth(inputs: JudgeInputs, row: MonitorResult) -> str:
    """Say what a verdict's windows brought beside those before."""
    from mlmon_dagster.metrics import FEWEST_WINDOWS
    from mlmon_dagster.trace.money import BEFORE, failed_worth, money_of, rounded

    spec, end = inputs.comparison.work.spec, row["window_end"]
    is_of_truth = inputs.family.needs_truth
    starts = inputs.find_judged(row) if is_of_truth else [row["window_start"]]
    first, span = min(starts), row["window_end"] - row["window_start"]
    names = JUDGED_BY[BUSINESS].columns(spec)
    read = partial(inputs.comparison.part.in_force.profiles, dataset=PRODUCTION, columns=names)
    then = read(start=first - BEFORE * span, end=first)
    if inputs.comparison.baseline is not None and _n_windows(then) < FEWEST_WINDOWS:
        own = inputs.comparison.baseline.windows
        of_baseline = {name: own[name] for name in names if name in own}
        then = max(then, of_baseline, key=_n_windows)
    if is_of_truth:
        found = money_of(spec, read(start=first, end=end), then)
        return "; ".join(money.sentence for money in found[:_MOST_TOLD])
    worth, failed = failed_worth(spec, then), round((row["value"] or 0.0) * row["n"])
    if worth is None or not failed:
        return ""
    amount = rounded(abs(worth) * failed)
    return (
        f"{failed:,} requests failed; as many usually bring about {amount} {spec.currency}, which "
        "is what is lost if none comes back"
    )


def _n_windows(profiles: Mapping[str, ColumnStatistics]) -> int:
    starts = (s.cells["window_start"].nunique() for s in profiles.values() if s.counts.any())
    return max(starts, default=0)


def _traced(inputs: JudgeInputs, row: MonitorResult) -> str:
    metric, column = inputs.family.traced(row["metric"]), row["column_name"]
    return of_outcome(metric, None if column == TABLE else column)


def _why_or_why_not(inputs: JudgeInputs, row: MonitorResult) -> dict[str, Any]:
    try:
        return _why(inputs, row, _find_sides(inputs, row))
    except Exception as error:  # whatever it is, the verdict is what counts
        model = inputs.comparison.work.spec.model
        logging.getLogger(__name__).warning(
            "%s: no trace for an alert of %s", model, row["monitor"], exc_info=True
        )
        return {"no_why": f"the trace failed: {type(error).__name__}"}


def _why(inputs: JudgeInputs, row: MonitorResult, sides: _Sides) -> dict[str, Any]:
    """Trace a metric over the windows that a verdict is of, against what they are held against."""
    from mlmon_dagster.errors import BaselineMissingError
    from mlmon_dagster.report.trace import read_worse_slices
    from mlmon_dagster.trace.chance import find_doubt
    from mlmon_dagster.trace.sentences import cause, describe_group, value

    try:
        found = _explained(inputs, row, sides)
    except BaselineMissingError:
        return {"no_why": "there is no baseline to trace it against"}
    if found is None:
        return {"no_why": "a side of the trace has no ground truth"}
    if found.now.n != row["n"]:  # computed again since, or a window of it was
        return {
            "no_why": f"the stored profiles are of {found.now.n:,} rows, the verdict of "
            f"{row['n']:,}"
        }
    spec = inputs.comparison.work.spec
    is_estimate = inputs.family.traced(row["metric"]) != row["metric"]
    if row["metric"] == RELEASE_CHANGE or not is_estimate:
        found = replace(found, worse_slices=read_worse_slices(str(row["details"])))
    text = cause(spec, found)
    if is_estimate:
        # An estimate was missed, maybe without any change for the worse.
        name, now, then = (_name(sides.metric), value(found.now.value), value(found.then.value))
        if found.is_worse:
            text = f"{name} is {now}, the baseline's {then}. {text}".rstrip()
        else:
            text = f"{name} is {now}, no worse than the baseline's {then}; more was expected."
    is_explained = found.is_worse and not find_doubt(found)
    group = _find_alike(inputs, sides) if is_explained else None
    if group is not None:
        text = f"{describe_group(group)} {text}".rstrip()
    if not text:
        return {"no_why": "no part of the change stands out", "traced": _called(spec, sides)}
    more = {} if group is None else {"alike": list(group.typical)}
    return {"why": text, "traced": _called(spec, sides), **more}


def _find_alike(inputs: JudgeInputs, sides: _Sides) -> Alike | None:
    """Return the rows of the windows that are alike by an embedding and surest to be worse."""
    work = inputs.comparison.work
    if not work.spec.embeddings:
        return None
    from mlmon_dagster.report.trace import alike

    period = min(sides.starts), sides.end
    groups = alike(work.project.store, work.spec, period, sides.metric.partition("/")[2])
    return groups[0] if groups else None


def _called(spec: ModelSpec, sides: _Sides) -> dict[str, str]:
    """Name windows as ``mlmon trace`` takes them, and those that they are compared with."""
    from mlmon_dagster.report.trace import name_days, name_traced

    called = name_traced(spec, sides.starts[0], sides.end)
    if sides.earlier is not None:
        start, last = sides.earlier
        end = window_containing(spec.time, last).end
        called["against"] = "..".join(name_days(spec, start, end))
    return called


def _name(metric: str) -> str:
    from mlmon_dagster.monitors.wording import named

    return named(metric)


def _explained(inputs: JudgeInputs, row: MonitorResult, sides: _Sides) -> Explained | None:
    from mlmon_dagster.metrics.statistics import select_columns
    from mlmon_dagster.profiles import load_baseline
    from mlmon_dagster.trace.explain import explain
    from mlmon_dagster.trace.slices import profiled_for

    work = inputs.comparison.work
    store, spec = work.project.store, work.spec
    columns = profiled_for(spec, [sides.metric])
    read = partial(inputs.comparison.part.in_force.profiles, dataset=PRODUCTION, columns=columns)
    now = select_columns(
        read(start=min(sides.starts), end=sides.end),
        lambda cells: cells["window_start"].isin(sides.starts),
    )
    if sides.earlier is not None:
        first, last = sides.earlier
        then = read(start=first, end=window_containing(spec.time, last).end)
    else:
        baseline = inputs.comparison.baseline or load_baseline(store, spec, row["window_start"])
        then = {name: stats for name, stats in baseline.windows.items() if name in columns}
    return explain(spec, sides.metric, now, then)
