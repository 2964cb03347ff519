"""Family quality: nulls, not-a-number values, unseen categories, values out of range."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from mlmon_dagster.families.family import Family, References, measure_profiles, plot_columns
from mlmon_dagster.monitors.change_wording import cut_value, percent, plain, rows_share
from mlmon_dagster.monitors.evidence import (
    OK,
    WORST_SLICES,
    Case,
    Evidence,
    Window,
    excess_of,
    failing,
    finite,
    not_measured,
    null_limit,
    rate_fails,
)
from mlmon_dagster.monitors.wording import compared, subject, threshold, told
from mlmon_dagster.spec import ModelSpec, declaration
from mlmon_dagster.spec.declaration import NOT_ADDITIVE, DerivedFeature, Feature
from mlmon_dagster.spec.metric_registry import AUTO, PERSONAL_RATE
from mlmon_dagster.spec.monitors import FAMILIES, Condition
from mlmon_dagster.spec.names import QUALITY, TABLE
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.work import Comparison, fixed_comparison

if TYPE_CHECKING:
    from mlmon_dagster.metrics.frames import MetricSample

_MOST_BY_CHANCE = 0.01  # probability, of all slices together
_TYPES = {
    "null_rate": ("numeric", "categorical", "boolean", "datetime", "text", "embedding"),
    "nan_rate": ("numeric",),
    "unseen_rate": ("categorical", "boolean", "embedding"),
    "out_of_range_rate": ("numeric",),
    PERSONAL_RATE: ("boolean",),
}


class Crowded(TypedDict):
    """A slice that holds more of the broken values than lots would give it."""

    metric: str
    slice_key: str
    slice_value: str
    value: float
    n: int
    count: int


def judge(evidence: Evidence) -> list[MonitorResult]:
    """Fail columns whose share of broken values is past its limit (see `evidence.rate_fails`).

    Of unseen values, unless the spec declares a limit, the share must also be above twice what is
    usual among the baseline's own windows, and surely so: some columns are new by nature. SHAP
    values are judged by whether they add up to the score.
    """
    found = []
    for window in evidence.windows:
        rates = list(_rates(evidence, window))
        rows = [_judge_column(evidence, window, metric, column) for metric, column in rates]
        failed: dict[str, list[MonitorResult]] = {}
        for row in rows:
            if row["status"] in ("WARN", "ERROR"):
                failed.setdefault(row["column_name"], []).append(row)
        found += [
            _note_beside(evidence, window, row, failed.get(row["column_name"], ())) for row in rows
        ]
    return found


def _note_beside(
    evidence: Evidence, window: Window, row: MonitorResult, failed: Sequence[MonitorResult]
) -> MonitorResult:
    """Note what else is wrong with a column: a share may be low for that, and no alert is over."""
    beside = [other["metric"] for other in failed if other is not row]
    if (row["column_name"], window["window_start"]) in evidence.constant:
        beside.append("constant")
    if not beside:
        return row
    details = json.loads(row["details"]) | {"beside": beside}
    return {**row, "details": json.dumps(details, sort_keys=True)}


def _rates(evidence: Evidence, window: Window) -> Iterator[tuple[str, str]]:
    """Yield the rates to judge, as they were computed, else as the spec declares them."""
    chosen = evidence.spec.monitors.quality.columns
    computed = {metric: evidence.columns_with(window, metric) for metric in _TYPES}
    for column, feature in evidence.spec.features.items():
        if chosen == "all" or column in chosen:
            for metric in _TYPES:
                is_known = column in computed[metric] or not computed[metric]
                if is_known and _applies(metric, feature):
                    yield metric, column
    if evidence.columns_with(window, NOT_ADDITIVE):
        yield NOT_ADDITIVE, TABLE


def _applies(metric: str, feature: Feature) -> bool:
    if metric == "out_of_range_rate" and feature.min is None and feature.max is None:
        return False
    if metric == PERSONAL_RATE:
        return isinstance(feature, DerivedFeature) and feature.kind.is_personal
    if isinstance(feature, DerivedFeature) and feature.prices is None and metric == "null_rate":
        return False  # no text, which is told of the text's own column
    return feature.type in _TYPES[metric]


def _judge_column(evidence: Evidence, window: Window, metric: str, column: str) -> MonitorResult:
    monitor = evidence.spec.monitors.quality
    condition: Condition = getattr(monitor, metric)
    if metric == "null_rate":
        condition = null_limit(evidence.spec, column)
    row = evidence.whole(window, metric, column)
    usual = _usual(evidence, window, metric, column)
    if usual > condition.bound:
        condition = condition.model_copy(update={"above": usual})
    case = Case(evidence, window, monitor, metric, column, row, threshold(condition))
    reason = _no_data(row, window, monitor.min_rows)
    if metric == PERSONAL_RATE and not reason and not _is_limit_known(evidence, window, column):
        reason = "learning"
    if row is None or reason:
        return case.unjudged(reason, subject(metric, column))
    failed = rate_fails(condition, row) and (not usual or row["lower"] > condition.bound)
    count = f"n {int(row['n']):,}"
    share = rows_share(row["value"])
    if percent(row["value"]) == percent(condition.bound) and row["value"] != condition.bound:
        share = f"{100 * row['value']:.5g} % of rows"  # 1.001 %, above 1 %
    text = f"{_tell_broken(evidence.spec, metric, column)} in {share}"
    if metric == PERSONAL_RATE:
        text = _tell_personal(evidence, window, column, row["value"])
    limit = compared(condition, failed, percent)
    if usual > 0 and condition.bound == usual and metric != PERSONAL_RATE:
        limit += ", twice what is usual"
    message = f"{text} ({count}), {limit}."
    if not failed and condition.fails(row["value"]):
        bound = percent(condition.bound)
        message = f"{text} ({count}), too few rows to tell whether that is above {bound}."
    n_broken = round(row["value"] * row["n"])
    details: dict[str, object] = {"count": n_broken, "n": int(row["n"])}
    names = evidence.unseen.get((column, window["window_start"]))
    is_named = evidence.spec.shows_values_of(column) and _are_telling(names or {}, n_broken)
    if failed and metric == "unseen_rate" and names and is_named:
        details["unseen"] = dict(names)
        most = max(names, key=lambda name: names[name])
        if 2 * names[most] > n_broken:
            details["term"] = most
        message = told(f"{text}: {_list_unseen(names)}", f"{count}, {limit}")
        spelled = evidence.respelled.get((column, window["window_start"]), {})
        if 2 * sum(names[name] for name in spelled) > sum(names.values()):
            name, known = next(iter(spelled.items()))
            first = f"{column} is spelled differently in {share}"
            message = told(f"{first}, such as {name!r} for {known!r}", f"{count}, {limit}")
    if failed and (parts := _crowded_slices(evidence, window, row)):
        details["worst_slices"] = parts[:WORST_SLICES]
        message += f" {_tell_slice(parts[0], n_broken)}"
    status = failing(monitor, condition.is_error(row["value"])) if failed else OK
    return case.result(status, message, details=details, **excess_of(condition, row))


def _tell_broken(spec: ModelSpec, metric: str, column: str) -> str:
    """Say what is wrong with a value, as the start of a sentence."""
    if metric == "null_rate":
        return f"{column} is missing"
    if metric == "nan_rate":
        return f"{column} is not a number"
    if metric == "unseen_rate":
        is_vector = column in spec.features and spec.features[column].type == "embedding"
        what = "vectors unlike the baseline's" if is_vector else "values never seen before"
        return f"{column} has {what}"
    if metric == NOT_ADDITIVE:
        return "SHAP values do not add up to the score"
    feature = spec.features[column]
    if feature.min is None or feature.max is None:
        end = feature.max if feature.min is None else feature.min
        return f"{column} is {'above' if feature.min is None else 'below'} {plain(end or 0.0)}"
    return f"{column} is outside {plain(feature.min)} to {plain(feature.max)}"


def _tell_personal(evidence: Evidence, window: Window, column: str, share: float) -> str:
    """Say which share of the texts hold personal data, and which share usually does."""
    feature = evidence.spec.derived_features[column]
    known = evidence.whole(window, f"{PERSONAL_RATE}{AUTO}", column)
    usual = f", usually {percent(known['by_chance'])}" if known else ""
    return f"{percent(share)} of {feature.of} {feature.kind.means}{usual}"


def _is_limit_known(evidence: Evidence, window: Window, column: str) -> bool:
    """Say whether a share of personal data has a limit: a declared one, or what is usual."""
    declared = PERSONAL_RATE in evidence.spec.monitors.quality.model_fields_set
    return declared or evidence.whole(window, f"{PERSONAL_RATE}{AUTO}", column) is not None


def _are_telling(names: Mapping[str, int], n_broken: int) -> bool:
    """Say whether some unseen values are a tenth of all; single ones of many ids say nothing."""
    return 10 * sum(names.values()) >= n_broken


def _list_unseen(names: Mapping[str, int]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(cut_value, list(names)[:3])) + more


def _crowded_slices(evidence: Evidence, window: Window, row: MetricSample) -> list[Crowded]:
    """Return the slices that hold more of the broken values than lots would give them.

    The slice with the most beyond its part comes first.
    """
    from mlmon_dagster.metrics.intervals import chance_in_part

    n, total = int(row["n"]), round(row["value"] * row["n"])
    column = row["column_name"]
    parts = [
        part
        for part in evidence.slices(window, row["metric"], column)
        if column not in part["slice_key"].split(",")
    ]
    found: list[tuple[float, Crowded]] = []
    for part in parts:
        size, count = int(part["n"]), round(part["value"] * part["n"])
        if size < n and chance_in_part(count, size, total, n) * len(parts) <= _MOST_BY_CHANCE:
            named = Crowded(
                metric=part["metric"],
                slice_key=part["slice_key"],
                slice_value=part["slice_value"],
                value=part["value"],
                n=size,
                count=count,
            )
            found.append((count - total * size / n, named))
    return [named for _, named in sorted(found, key=lambda one: -one[0])]


def _tell_slice(part: Crowded, total: int) -> str:
    which = "All" if part["count"] == total else f"{part['count']:,}"
    return (
        f"{which} of these {total:,} rows have {part['slice_key']} = {part['slice_value']}, "
        f"where it is {percent(part['value'])}."
    )


def _usual(evidence: Evidence, window: Window, metric: str, column: str) -> float:
    """Return the share that is far above the usual, 0 where that is not known or not asked for."""
    is_relative = metric in ("unseen_rate", PERSONAL_RATE)
    if not is_relative or metric in evidence.spec.monitors.quality.model_fields_set:
        return 0.0
    found = evidence.whole(window, f"{metric}{AUTO}", column)
    return (finite(found["value"]) or 0.0) if found else 0.0


def _no_data(row: MetricSample | None, window: Window, min_rows: int) -> str:
    if row is None:
        return not_measured(window)
    if row["reason"]:
        return str(row["reason"])
    return "few_rows" if row["n"] < min_rows else ""


def _limits(spec: ModelSpec) -> str:
    q = spec.monitors.quality
    return (
        f"Limits: null_rate {q.null_rate.bound:g}, nan_rate {q.nan_rate.bound:g}, "
        f"unseen_rate {q.unseen_rate.bound:g}, out_of_range_rate {q.out_of_range_rate.bound:g}"
        + (f", {NOT_ADDITIVE} {q.not_additive_rate.bound:g}." if _is_added_up(spec) else ".")
    )


def _is_added_up(spec: ModelSpec) -> bool:
    return len(declaration.attributed(spec)) == len(spec.logged_features)


def _metrics(spec: ModelSpec) -> Sequence[str]:
    unseen = ("unseen_rate", f"unseen_rate{AUTO}")
    shap = (NOT_ADDITIVE,) if _is_added_up(spec) else ()
    is_personal = any(f.kind.is_personal for f in spec.derived_features.values())
    personal = (PERSONAL_RATE, f"{PERSONAL_RATE}{AUTO}") if is_personal else ()
    return ("null_rate", "nan_rate", "inf_rate", *unseen, "out_of_range_rate", *shap, *personal)


def _behind(spec: ModelSpec, column: str) -> Sequence[str]:
    from mlmon_dagster.metrics.quality import BROKEN
    from mlmon_dagster.profiles.measures import columns_of

    if column != TABLE:
        return [column]
    return [name for name in columns_of(spec, QUALITY) if name.startswith(BROKEN)]


def _unseen(comparison: Comparison) -> References:
    from mlmon_dagster.metrics.quality import constant_windows, respelled, unseen_values

    features = comparison.work.spec.features
    baseline = fixed_comparison(comparison.part).baseline
    names = [n for n, f in features.items() if f.type in ("categorical", "embedding")]
    ranged = [name for name, f in features.items() if _applies("out_of_range_rate", f)]
    if not names and not ranged:
        return {}
    every = comparison.part.whole([*names, *ranged])
    known = {} if baseline is None else baseline.windows
    both = [(every[name], known[name]) for name in every.keys() & known.keys()]
    constant = frozenset[object]().union(*(constant_windows(*sides) for sides in both))
    profiles = {name: every[name] for name in names if name in every}
    unseen = {k: v for s in profiles.values() for k, v in unseen_values(s).items()}
    names_of = {c: (*s.binning.categories, *s.binning.tail) for c, s in profiles.items()}
    found = {(c, start): respelled(v, names_of[c]) for (c, start), v in unseen.items()}
    return {"unseen": unseen, "respelled": found, "constant": constant}


FAMILY = Family(
    FAMILIES[QUALITY],
    judge,
    _limits,
    # It asks which share of unseen values is usual.
    measure=measure_profiles(
        QUALITY,
        lambda spec: "baseline" if spec.baseline.is_rolling else "fixed",
        plot_columns("null_rate", "unseen_rate"),
        slices=lambda spec: "asked",
        behind=_behind,
    ),
    metrics=_metrics,
    explained_by_slices=lambda spec: True,
    references=_unseen,
)
