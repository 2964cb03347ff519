"""What a monitor family's judges are given: stored metrics, and what is known of each window."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlmon_dagster.pipeline import silence
from mlmon_dagster.pipeline.baseline_choice import Comparison, comparisons
from mlmon_dagster.pipeline.quarantined import quarantined_files, reported_in
from mlmon_dagster.pipeline.steps import ASSETS
from mlmon_dagster.pipeline.usual_volume import is_waiting, repeating_files, sent_again, volumes
from mlmon_dagster.pipeline.work import Work, parts_of
from mlmon_dagster.spec import ModelSpec, Window, attribution, maturity_of
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.estimates import estimated, residual
from mlmon_dagster.spec.metric_registry import AUTO, NOVEL
from mlmon_dagster.spec.multivariate import CHANGE, SHIFT
from mlmon_dagster.store.state import manifest, metric_log, schema_changes
from mlmon_dagster.store.state.window_steps import NO_BASELINE, StepMark, WindowInputs

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.profiles import Baseline

# A date in a file's name: 2013-12-31, 2013_12_31 or 20131231.
# The step whose data version a family's verdict is about.
STEP_OF = {info.family: info.name for info in ASSETS if info.family} | {
    "freshness": "inference_store"
}


@dataclass(frozen=True)
class JudgeInputs:
    """What a family's judges are given of some windows that share a baseline.

    Attributes:
        comparison: The windows and what they are compared with.
        family: The family.
        metrics: MetricFrame of the windows.
        windows: What is known of each window beside its metrics, one row each.
        baseline: MetricFrame of the baseline's own performance, or its estimate.
        baseline_windows: MetricFrame of its windows one by one, of what is judged by its level.
        unseen: Unseen values, as `monitors.evaluate` takes them.
    """

    comparison: Comparison
    family: str
    metrics: pd.DataFrame
    windows: pd.DataFrame
    baseline: pd.DataFrame | None
    baseline_windows: pd.DataFrame | None
    unseen: dict[tuple[str, pd.Timestamp], dict[str, int]] | None

    def verdicts(self) -> list[dict[str, Any]]:
        """Return rows of ``monitor_result``; nothing is stored."""
        from mlmon_dagster.monitors import evaluate

        work = self.comparison.work
        return evaluate(
            work.spec,
            self.metrics,
            self.windows,
            now=work.now,
            run_id=work.run_id,
            is_backfill=work.is_backfill,
            baseline=self.baseline,
            baseline_windows=self.baseline_windows,
            unseen=self.unseen,
            families=[self.family],
        )


def verdicts(
    work: Work,
    family: str,
    windows: tuple[Window, ...],
    states: Mapping[dt.datetime, WindowInputs],
) -> list[dict[str, Any]]:
    """Judge windows by one family from what is stored, and store nothing.

    Returns:
        Rows of ``monitor_result``.
    """
    inputs = judge_inputs(work, family, windows, states)
    return [row for one in inputs for row in one.verdicts()]


def judge_inputs(
    work: Work,
    family: str,
    windows: tuple[Window, ...],
    states: Mapping[dt.datetime, WindowInputs],
) -> Iterator[JudgeInputs]:
    """Yield what windows are judged by: stored metrics, in parts that share a baseline."""
    if family == "performance" and not work.spec.has_actuals:
        return  # no verdict is ever to come, which is no news
    asked = replace(work, windows=windows)
    compared = (family == "performance" and _against_baseline(work.spec)) or (
        family == "estimated_performance" and bool(work.spec.monitors.estimated_performance)
    )
    columns = _columns_of(work.spec) if compared else []
    found = comparisons(asked, family, columns) if compared else map(Comparison, parts_of(asked))
    for comparison in found:
        part = comparison.work
        yield JudgeInputs(
            comparison,
            family,
            _metrics(part, family, part.windows),
            _describe(part, family, part.windows, states),
            _baseline_metrics(part, family, comparison.baseline),
            _baseline_windows(part, family, comparison.baseline),
            _unseen(part) if family == "quality" else None,
        )


def _metrics(work: Work, family: str, windows: tuple[Window, ...]) -> pd.DataFrame:
    """Return the stored metrics that a family's monitors read, slices only where they explain."""
    from mlmon_dagster.metrics.frames import METRIC_COLUMNS, concat_frames

    spec, names = work.spec, _metric_names(work.spec, family)
    if not names:
        return concat_frames([])
    frame = metric_log.newest(
        work.project.store.state,
        spec.model,
        metric=names,
        dataset=PRODUCTION,
        granularity=spec.time.granularity,
        slice_key=None if family in ("drift", "performance") else "all",
        start=_since(spec, family, windows[0]),
        end=windows[-1].end,
    )
    return frame[list(METRIC_COLUMNS)]


def _since(spec: ModelSpec, family: str, first: Window) -> dt.datetime:
    """Return from when on metrics are read: residuals and levels are of several windows."""
    if family == "estimated_performance":
        most = max((m.over for m in spec.monitors.estimated_performance), default=1)
    elif family == "performance":
        levels = (m.over for m in spec.monitors.performance if m.shift is not None)
        most = max(levels, default=1)
    else:
        most = 1
    if most == 1:
        return first.start
    return first.start - (most - 1) * (first.end - first.start) - dt.timedelta(hours=1)


def _metric_names(spec: ModelSpec, family: str) -> list[str]:
    if family == "quality":
        unseen = ("unseen_rate", f"unseen_rate{AUTO}")
        return ["null_rate", "nan_rate", "inf_rate", *unseen, "out_of_range_rate"]
    if family == "drift":
        # Columns without an order have no ks; psi also explains by slice.
        method = spec.monitors.drift.method
        joint = (SHIFT, CHANGE) if spec.monitors.drift.multivariate else ()
        shap = (attribution.ATTRIBUTION, attribution.SHIFT) if spec.columns.shap else ()
        novel = (NOVEL, f"{NOVEL}{AUTO}")
        return sorted({"psi", method, f"psi{AUTO}", f"{method}{AUTO}", *novel, *joint, *shap})
    if family == "performance":
        judged = {monitor.metric for monitor in spec.monitors.performance}
        beside = {"calibration_gap": "actual_rate", "bias": "me"}  # what the sentence says
        return sorted(judged | {name for metric, name in beside.items() if metric in judged})
    if family == "estimated_performance":
        named = (monitor.metric for monitor in spec.monitors.estimated_performance)
        return sorted({name(metric) for metric in named for name in (estimated, residual)})
    if family == "service":
        return ["n", "p50_latency_ms", "p95_latency_ms", "p99_latency_ms", "error_rate"]
    return []


def _describe(
    work: Work,
    family: str,
    windows: tuple[Window, ...],
    states: Mapping[dt.datetime, WindowInputs],
) -> pd.DataFrame:
    """Return what the monitors must know of each window beside its metrics."""
    import pandas as pd

    spec, engine = work.spec, work.project.store.state
    bad = _refused(work)
    files = quarantined_files(work) if family == "schema" else None
    taken = repeating_files(work, windows[0].end) if family == "schema" else None
    usual = volumes(work, windows) if family == "service" else [{}] * len(windows)
    found = schema_changes.changes(engine, spec.model) if family == "schema" else []
    unread = silence.unread_files(work, windows) if family == "freshness" else {}
    before = silence.last_before(work, windows[0]) if family == "freshness" else None
    rows = []
    for window, earlier in zip(windows, usual, strict=True):
        state = states.get(window.start) or WindowInputs(window.start, 0, 0, 0, 0)
        reasons = bad.get(window.start, {})
        n_bad = sum(reasons.values())
        n = silence.arrived(state) if family == "freshness" else state.n
        share = n_bad / (n + n_bad) if n + n_bad else 0.0
        quarantined, again = list[str](), dict[str, int]()
        if files is not None and taken is not None:
            quarantined = reported_in(files, window, spec.time)["path"].astype(str).tolist()
            again = sent_again(reported_in(taken, window, spec.time))
        changed = schema_changes.warned_in(found, window.start)
        rows.append(
            {
                "window_start": window.start,
                "window_end": window.end,
                "n": n,
                "n_actual": state.n_actual,
                "n_expected": 0 if is_waiting(state) else state.n_expected,
                "maturity": maturity_of(spec, window, state.n_expected, state.n_actual, work.now),
                "data_version": _version(
                    family, state, n_bad, len(quarantined), again, len(changed)
                ),
                "n_bad": n_bad,
                "bad_reasons": json.dumps(reasons),
                "n_quarantined": len(quarantined),
                "quarantined": quarantined,
                "changes": [f"{seen.change.text()} ({seen.path})" for seen in changed],
                "schema_broken": share > spec.source.predictions.max_bad_rate,
                "actual_coverage": state.coverage,
                **again,
                **earlier,
                "learning": _is_learning(state, family),
                "last_before": before,
                **unread.get(window.start, {}),
            }
        )
    return pd.DataFrame(rows)


def _is_learning(state: WindowInputs, family: str) -> bool:
    """Tell whether a window waits for bins, or for earlier windows to be compared with."""
    steps = ("profiles", "drift") if family in ("drift", "performance") else ("profiles",)
    unknown = StepMark(0, "")
    return any(state.steps.get(s, unknown).maturity.startswith(NO_BASELINE) for s in steps)


def _version(
    family: str,
    state: WindowInputs,
    n_bad: int,
    n_quarantined: int,
    again: Mapping[str, int],
    n_changes: int,
) -> str:
    """Return the version of what was judged: the same inputs give the same verdict once."""
    version = state.steps.get(STEP_OF[family], StepMark(0, "")).data_version
    if family == "schema":
        repeats = [again.get("n_duplicate", 0), again.get("n_conflict", 0)]
        tail = f":{repeats[0]}:{repeats[1]}" if any(repeats) else ""
        tail += f":columns:{n_changes}" if n_changes else ""
        return f"{version}:{n_bad}:{n_quarantined}{tail}"
    if family == "freshness":
        return silence.ARRIVED if silence.arrived(state) else silence.SILENT
    return version


def _refused(work: Work) -> dict[dt.datetime, dict[str, int]]:
    counts = manifest.count_refused(work.project.store.state, work.spec.model)
    found: dict[dt.datetime, dict[str, int]] = {}
    for row in counts.dropna(subset=["window_start"]).to_dict("records"):
        reasons = found.setdefault(row["window_start"].to_pydatetime(), {})
        name = f"{row['reason']}:{row['column_name']}" if row["column_name"] else row["reason"]
        reasons[name] = reasons.get(name, 0) + int(row["n_bad"])
    return found


def _baseline_metrics(work: Work, family: str, baseline: Baseline | None) -> pd.DataFrame | None:
    """Return the baseline's own performance, or its estimate, a row per metric and slice."""
    if family == "performance":
        from mlmon_dagster.profiles.measure.measures import baseline_performance

        return baseline_performance(work.spec, baseline.windows) if baseline else None
    if family != "estimated_performance" or not work.spec.monitors.estimated_performance:
        return None
    from mlmon_dagster.profiles.measure.estimates import estimate_baseline

    if baseline is None or not baseline.halves:
        return None
    return estimate_baseline(work.project.store, work.spec, baseline)


def _baseline_windows(work: Work, family: str, baseline: Baseline | None) -> pd.DataFrame | None:
    """Return the performance of each window of the baseline, of what is judged by its level."""
    from mlmon_dagster.metrics.performance.score_order import SCORE_ORDER
    from mlmon_dagster.metrics.statistics import select
    from mlmon_dagster.profiles.measure.measures import measure, performance_columns

    levels = [m.metric for m in work.spec.monitors.performance if m.shift is not None]
    if family != "performance" or baseline is None or not levels:
        return None
    whole = {
        name: select(stats, (stats.cells["slice_key"] == "all").to_numpy())
        for name in performance_columns(work.spec)
        if name != SCORE_ORDER  # areas are not judged by their level, and take long
        and (stats := baseline.windows.get(name)) is not None
    }
    found = measure(work.spec, "performance", whole, None)
    return found[found["metric"].isin(levels)]


def _against_baseline(spec: ModelSpec) -> bool:
    return any(monitor.is_relative for monitor in spec.monitors.performance)


def _columns_of(spec: ModelSpec) -> list[str]:
    from mlmon_dagster.profiles.measure.measures import performance_columns

    return performance_columns(spec)


def _unseen(work: Work) -> dict[tuple[str, pd.Timestamp], dict[str, int]]:
    from mlmon_dagster.metrics.quality import unseen_values
    from mlmon_dagster.profiles import load_profiles

    names = [name for name, f in work.spec.features.items() if f.type == "categorical"]
    if not names:
        return {}
    profiles = load_profiles(
        work.project.store,
        work.spec,
        start=work.start,
        end=work.end,
        dataset=PRODUCTION,
        columns=names,
        slices=[()],
        at=work.start,
    )
    return {k: v for stats in profiles.values() for k, v in unseen_values(stats).items()}
