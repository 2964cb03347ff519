"""What the assets do, window by window, free of Dagster.

Every step takes the revision of its inputs from the step before it and records it with its own
result, so that the planner can tell what is out of date after any crash or partial run.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from mlmon_dagster.defs.lineage import STEPS
from mlmon_dagster.defs.resources import Project
from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.spec import ModelSpec, Window, first_window
from mlmon_dagster.spec.profiling import profile_digest
from mlmon_dagster.store.baselines import promotions
from mlmon_dagster.store.reading import personal
from mlmon_dagster.store.state import schema_changes, window_steps
from mlmon_dagster.store.state.window_steps import NO_BASELINE, StepMark, WindowInputs

if TYPE_CHECKING:
    from mlmon_dagster.ingest import IngestReport
    from mlmon_dagster.profiles import Baseline

PRODUCTION = "production"
LIVE = (PRODUCTION, "shadow", "canary")  # measured in every window; production alone is judged
Numbers = dict[str, object]


@dataclass(frozen=True)
class Work:
    """What one step of one run works on.

    Attributes:
        project: Where the state is.
        spec: The model.
        windows: The run's windows, oldest first; () for an asset without partitions.
        now: The moment the run goes by.
        run_id: Dagster's run.
        is_backfill: Whether the run recomputes history, whose alerts are listed and not sent.
    """

    project: Project
    spec: ModelSpec
    windows: tuple[Window, ...]
    now: dt.datetime
    run_id: str
    is_backfill: bool

    @property
    def start(self) -> dt.datetime:
        """Start of the first window."""
        return self.windows[0].start

    @property
    def end(self) -> dt.datetime:
        """End of the last window."""
        return self.windows[-1].end

    def states(self) -> dict[dt.datetime, WindowInputs]:
        """Return the state of the run's windows; one that no event touched has none."""
        return window_steps.load(self.project.store.state, self.spec.model, self.start, self.end)


def ingest(
    work: Work,
    on_progress: Callable[[str], None] | None = None,
    max_bytes: int | None = None,
    time_is_up: Callable[[], bool] | None = None,
    wait_seconds: float = 600,
) -> IngestReport:
    """Take in the landing files that are new, as many as there is time for."""
    from mlmon_dagster.ingest import ingest_new

    report = ingest_new(
        work.project.store,
        work.spec,
        work.project.folder,
        now=work.now,
        run_id=work.run_id,
        max_bytes=max_bytes,
        time_is_up=time_is_up,
        on_progress=on_progress,
        variables=work.project.variables,
        wait_seconds=wait_seconds,
    )
    if work.spec.has_actuals and any(file.status == "done" for file in report.files):
        from mlmon_dagster.store.upkeep.unmatched_actuals import settle_unmatched

        settle_unmatched(work.project.store, work.spec, work.now)
    return report


def ingest_numbers(report: IngestReport) -> Numbers:
    """Return the counters of an ingest for the asset's metadata."""
    files = report.files
    totals: Numbers = {
        name: sum(getattr(file, name) for file in files)
        for name in ("n_new", "n_duplicate", "n_conflict", "n_bad")
    }
    quarantined = [file for file in files if file.status == "quarantined"]
    totals |= {
        "n_files": len(files),
        "n_quarantined": len(quarantined),
        "n_waiting": report.n_waiting,
        "n_windows": len(report.windows),
    }
    if report.again:
        totals["read_again"] = report.again
    if failed := [file.message for file in files if file.status == "failed"]:
        totals["failed"] = "\n".join(failed[:20])
    if quarantined:
        totals["quarantined"] = "\n".join(file.message for file in quarantined[:20])
    return totals


def schema_changes_now(work: Work) -> Numbers:
    """Return the changes of the files' columns that this ingest saw first; nothing if none."""
    seen = schema_changes.changes(work.project.store.state, work.spec.model, since=work.now)
    lines = [f"{item.change.text()} ({item.stream}, {item.path})" for item in seen]
    return {"schema_changes": "\n".join(lines[:20])} if lines else {}


def table_sizes(work: Work) -> Numbers:
    """Return rows and bytes of the model's tables, as of their newest versions."""
    from mlmon_dagster.store.reading.sizes import describe_tables

    numbers: Numbers = {}
    for row in describe_tables(work.project.store, work.spec.model):
        numbers |= {f"rows/{row['table']}": row["rows"], f"bytes/{row['table']}": row["bytes"]}
    return numbers


def fit_baseline(work: Work) -> Numbers:
    """Fit the baseline if its events changed; return its size and identity.

    Without events of its dataset there is nothing to fit, and the numbers say so: a model that
    just went live has none yet, and its windows then say NO_DATA instead of failing.
    """
    from mlmon_dagster.profiles import ensure_baseline

    store, model = work.project.store, work.spec.model
    states = window_steps.load(store.state, model)
    try:
        baseline = ensure_baseline(store, work.spec, work.now)
    except BaselineMissingError as error:
        numbers: Numbers = {"n": 0, "reason": str(error)}
    else:
        numbers = _described(baseline)
    # Other features, slices and the like need another baseline, although no event came; see
    # `planning`.
    digest = profile_digest(work.spec)
    noted = baseline_windows(work.spec, states) or first_of(states)
    marks = {start: StepMark(state.input_revision, digest) for start, state in noted.items()}
    with store.state.begin() as conn:
        window_steps.mark(conn, model, "baseline", marks, work.now)
        window_steps.forget_attempts(conn, model, list(marks))
    return numbers


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
    from mlmon_dagster.profiles.bins.seasons import season_notice

    notice = season_notice(baseline.windows)
    return {
        **({"one_season": notice} if notice else {}),
        "n": baseline.n,
        "n_columns": len(baseline.binnings),
        "dataset": baseline.dataset,
        "kind": baseline.kind,
        "baseline_id": baseline.baseline_id,
    }


def build_window_profiles(work: Work) -> dict[str, Numbers]:
    """Profile the windows' records, each with the bins of the baseline in force for it."""
    numbers: dict[str, Numbers] = {}
    for part in parts_of(work):
        numbers |= _build_part(part)
    return numbers


def parts_of(work: Work) -> list[Work]:
    """Split a run's windows where another baseline comes into force."""
    force = promotions.in_force(work.project.store.state, work.spec.model)
    groups = groupby(work.windows, key=lambda window: force.at(window.start))
    return [replace(work, windows=tuple(windows)) for _, windows in groups]


def _build_part(work: Work) -> dict[str, Numbers]:
    from mlmon_dagster.profiles import build_profiles, save_profiles
    from mlmon_dagster.profiles.bins.stored import binnings_in_force

    store, spec = work.project.store, work.spec
    before = work.states()
    baseline_id = promotions.in_force(store.state, spec.model).at(work.start)
    source = store.inference_records(spec).from_sql(work.windows, LIVE)
    binnings = binnings_in_force(store, spec, work.start)
    key = personal.key_of(store.state, spec.model)
    profiles = build_profiles(store, spec, source, binnings, key=key)
    save_profiles(store, spec, profiles, work.windows)
    marks = {w.start: mark_of(before, w, "inference_store") for w in work.windows}
    # Without a baseline the planner asks again once there is one.
    made_with = {
        k: replace(
            mark,
            data_version=f"{mark.data_version}:{(baseline_id or 'none')[:8]}",
            maturity=baseline_id or NO_BASELINE,
        )
        for k, mark in marks.items()
    }
    mark_step(work, "profiles", made_with)
    some = next(iter(profiles.values()))
    slices = some.cells.groupby("window_start")["slice_value"].nunique()
    return {
        window.key: {"n_columns": len(profiles), "n_slices": int(slices.get(window.start, 0))}
        for window in work.windows
    }


def mark_step(work: Work, step: str, marks: Mapping[dt.datetime, StepMark]) -> None:
    """Record that a step of the run's windows is done."""
    with work.project.store.state.begin() as conn:
        window_steps.mark(conn, work.spec.model, step, marks, work.now)
        window_steps.note_finished(conn, work.spec.model, STEPS, list(marks), work.now)


def mark_of(states: Mapping[dt.datetime, WindowInputs], window: Window, step: str) -> StepMark:
    """Return what a step of a window was made from; revision 0 if it was never run."""
    state = states.get(window.start)
    return state.steps.get(step, StepMark(0, "")) if state else StepMark(0, "")
