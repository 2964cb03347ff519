"""What the asset `baseline` does: fit what windows are compared with."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, first_window, window_containing
from mlmon_dagster.spec.model import profile_digest
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.state.window_state import StepMark, WindowInputs
from mlmon_dagster.work import Numbers, Work

if TYPE_CHECKING:
    from mlmon_dagster.profiles import Baseline
    from mlmon_dagster.store.reading import GroundTruthLag
    from mlmon_dagster.store.tables.inference_records import RecordsLog


ONE_SEASON = "one_season"  # names the number that says which columns may have more of them


def fit_baseline(work: Work) -> Numbers:
    """Fit the baseline if its events changed; return its size and identity.

    Without events of its dataset there is nothing to fit, and the numbers say so: a model that
    just went live has none yet, and its windows then say NO_DATA instead of failing.
    """
    from mlmon_dagster.profiles import ensure_baseline
    from mlmon_dagster.profiles.arrivals import learn_timing

    store, model = work.project.store, work.spec.model
    states = window_state.load(store.state, model)
    log = store.records_log(work.spec)
    try:
        baseline = ensure_baseline(store, work.spec, work.now, log)
    except BaselineMissingError as error:
        numbers: Numbers = {"n": 0, "reason": str(error)}
    else:
        numbers = _described(baseline)
    # Other features, slices and the like need another baseline, although no event came; see
    # `planning`.
    digest = profile_digest(work.spec)
    before = baseline_windows(work.spec, states)
    noted = before or first_of(states)
    marks = {start: StepMark(state.input_revision, digest) for start, state in noted.items()}
    # Nothing else is ever computed of a window before production: it does not wait any more.
    lags = _measure_lags(work, before, log)
    done = [
        {
            "window_start": start,
            "window_end": window_containing(work.spec.time, start).end,
            "computed_revision": state.input_revision,
            "arrivals": lags[start].arrivals if start in lags else "{}",
        }
        for start, state in before.items()
    ]
    with store.state.begin() as conn:
        window_state.mark_computed(conn, model, done)
        window_state.mark_step_done(conn, model, "baseline", marks, work.now)
        window_state.forget_attempts(conn, model, list(marks))
    learn_timing(work.project.store.state, work.spec, work.now)
    return numbers


def _measure_lags(
    work: Work, older: Collection[dt.datetime], log: RecordsLog
) -> dict[dt.datetime, GroundTruthLag]:
    """Measure how late the baseline's ground truth was known, in its newest windows."""
    from mlmon_dagster.profiles.arrivals import NEWEST
    from mlmon_dagster.store.reading import measure_lags

    if work.spec.baseline.is_rolling:
        return {}
    newest = sorted(older)[-NEWEST:]
    windows = [window_containing(work.spec.time, start) for start in newest]
    return measure_lags(
        work.project.store, work.spec, windows, work.now, work.spec.baseline.dataset, log
    )


def version_of_inputs(project: Project, spec: ModelSpec) -> str:
    """Return what changes when events come that the baseline has to be fitted to again."""
    first = first_window(spec.time).start
    states = window_state.load(project.store.state, spec.model, end=first)
    return f"{len(states)} windows, {sum(state.input_revision for state in states.values())}"


def baseline_windows(
    spec: ModelSpec, states: Mapping[dt.datetime, WindowInputs]
) -> dict[dt.datetime, WindowInputs]:
    """Return the windows before production began, which only other datasets have events of."""
    first = first_window(spec.time).start
    return {start: state for start, state in states.items() if start < first}


def first_of(states: Mapping[dt.datetime, WindowInputs]) -> dict[dt.datetime, WindowInputs]:
    """Return the first window alone: where a model without older ones notes its baseline."""
    return {start: states[start] for start in sorted(states)[:1]}


def _described(baseline: Baseline) -> Numbers:
    from mlmon_dagster.profiles.baseline import season_notice

    notice = season_notice(baseline.windows)
    return {
        **({ONE_SEASON: notice} if notice else {}),
        "n": baseline.n,
        "n_columns": len(baseline.binnings),
        "dataset": baseline.dataset,
        "kind": baseline.kind,
        "baseline_id": baseline.baseline_id,
    }
