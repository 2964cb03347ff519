"""Level-triggered planning: which windows' results are older than their inputs.

Everything follows from the state database: the revision of a window's inputs against the revision
that each step was computed from, and the maturity of its ground truth now against then.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mlmon_dagster.pipeline.baseline import baseline_windows, first_of
from mlmon_dagster.project import Project
from mlmon_dagster.spec import (
    Maturity,
    ModelSpec,
    Window,
    complete_windows,
    maturity_of,
    window_containing,
    windows_between,
)
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.model import profile_digest
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import DRIFT, PERFORMANCE, QUALITY
from mlmon_dagster.spec.steps import BY_NAME, of_actuals, steps_of, windowed_of
from mlmon_dagster.spec.windows import EarlierWindows, TruthTiming, mark_of_windows, name_wait
from mlmon_dagster.store.baselines import BaselinesInForce, baselines_in_force
from mlmon_dagster.store.clocks import measure_age
from mlmon_dagster.store.state import model_history, window_state
from mlmon_dagster.store.state.window_state import NO_BASELINE, StepMark, WindowInputs
from mlmon_dagster.work import baseline_of

MAX_ATTEMPTS = 3
MAX_WINDOWS_PER_RUN = 400
MAX_MODELS_PER_RUN = 20
MAX_ROWS_PER_RUN = 4_000_000
MAX_ROWS_AGAIN = 50_000  # that a run computes once more, so that it need not be two
REVISED_EVERY = dt.timedelta(minutes=5)  # at most, while files of the model keep coming
LOOK_BACK = 1_000  # newest windows; older ones keep what they were compared with
COMPARED = tuple(FAMILIES[name].asset for name in (QUALITY, DRIFT, PERFORMANCE))
Stale = list[tuple[Window, tuple[str, ...]]]  # windows, and assets of them
Range = tuple[tuple[Window, ...], tuple[str, ...]]  # windows without a gap, and assets of them


@dataclass(frozen=True)
class Request:
    """A contiguous range of windows to compute in one run.

    Attributes:
        spec: The model.
        windows: The windows, oldest first, without a gap; () if no asset is partitioned.
        assets: Names of the assets to materialize.
        run_key: Says what is computed from which inputs, and how often it was tried.
        attempt: How often it was tried, this time included.
        n_rows: How many rows that may be, by the largest window known.
    """

    spec: ModelSpec
    windows: tuple[Window, ...]
    assets: tuple[str, ...]
    run_key: str
    attempt: int = 1
    n_rows: int = 0


def plan(
    project: Project, spec: ModelSpec, now: dt.datetime, *, more_is_coming: bool = False
) -> list[Request]:
    """Return the runs that bring every complete window up to date, and count the attempt.

    A window is tried at most `MAX_ATTEMPTS` times for the same inputs; new inputs start anew. Rows
    that came for a window while a clock that was ahead took it for closed are such inputs.

    Args:
        project: Where the state is.
        spec: The model.
        now: The present moment.
        more_is_coming: Landing files of the model are still to be taken in. What was computed
            less than `REVISED_EVERY` ago then waits, to be computed once for many of them.

    Raises:
        StoreError: If a mark of retention lies ahead of now, so that nothing would be planned.
    """
    engine = project.store.state
    model_history.check_marks(engine, spec.model, now)
    window_state.reopen_unclosed(engine, spec, now)
    known = _Known.load(engine, spec, now)
    inputs, force = known.inputs, known.force
    if due := _baseline_due(spec, inputs):
        # Every window is compared with it, so the windows wait for one tick.
        return [_baseline_request(engine, spec, due)]
    order = _with_rows(engine, spec, complete_windows(spec.time, now))
    left = {w for w in order if more_is_coming and _is_fresh(inputs.get(w.start), now)}
    stale = known.find_stale(order, left)
    marks = _marks(spec, [w for w, assets in stale if assets == COMPARED], inputs, stale)
    requests = []
    largest = max((state.n for state in inputs.values()), default=0)
    behind = {window for window, _ in stale}
    for windows, assets in _join_ranges(spec, inputs, _ranges(order, stale)):
        attempt = max(inputs[w.start].attempts for w in windows) + 1
        window_state.count_attempt(engine, spec.model, [w.start for w in windows if w in behind])
        revision = sum(inputs[w.start].input_revision for w in windows)
        key = f"{spec.model}:{windows[0].key}:{windows[-1].key}:{assets[0]}:{revision}"
        baselines = sorted({(force.at(w.start) or "none")[:8] for w in windows})
        key += "" if assets != COMPARED else f":{_digest(marks[w.start] for w in windows)}"
        # What windows are judged by changes with their maturity, without new inputs.
        maturities = sorted({known.judged_as(window) for window in windows})
        key += f":{'+'.join(baselines)}:{'+'.join(maturities)}:{attempt}"
        if assets == windowed_of(spec) and force.newest is None:
            assets = ("baseline", *assets)
        requests.append(Request(spec, windows, assets, key, attempt, largest * len(windows)))
    return requests


def is_up_to_date(project: Project, spec: ModelSpec, now: dt.datetime) -> bool:
    """Tell whether there is nothing to plan, nor anything that was given up; no attempt counts."""
    engine = project.store.state
    if model_history.find_marks_ahead(engine, spec.model, now) or window_state.list_unclosed(
        engine, spec, now
    ):
        return False
    known = _Known.load(engine, spec, now)
    if any(state.attempts for state in known.inputs.values()) or _baseline_due(spec, known.inputs):
        return False
    return not known.find_stale(_with_rows(engine, spec, complete_windows(spec.time, now)))


def is_computed(project: Project, spec: ModelSpec, window: Window, now: dt.datetime) -> bool:
    """Tell whether a window has rows and everything of it is computed from its newest inputs."""
    known = _Known.load(project.store.state, spec, now, window)
    state = known.inputs.get(window.start)
    if state is None or not state.n or state.computed_at is None or state.attempts:
        return False
    return not known.find_stale_assets(window)


def in_runs(requests: Sequence[Request]) -> list[tuple[Request, ...]]:
    """Put requests for the same windows of different models together, a run each.

    Models that want other resources than each other, by their run tags, share none.

    Starting a run costs more than a small model's day. What was tried before is tried alone, so
    that a model which takes its run's process with it takes the others no second time.
    """
    runs: list[tuple[Request, ...]] = []
    open_: dict[tuple[object, ...], list[Request]] = {}
    for request in requests:
        if request.attempt > 1:
            runs.append((request,))
            continue
        ends = (request.windows[0].key, request.windows[-1].key) if request.windows else ()
        tags = tuple(sorted(request.spec.run_tags.items()))
        together = open_.setdefault((request.spec.time.granularity, *ends, tags), [])
        if together and not _has_room(together, request):
            runs.append(tuple(together))
            together.clear()
        together.append(request)
    return [*runs, *(tuple(together) for together in open_.values())]


def _has_room(together: Sequence[Request], request: Request) -> bool:
    every = [*together, request]
    return (
        len(every) <= MAX_MODELS_PER_RUN
        and sum(len(one.windows) for one in every) <= MAX_WINDOWS_PER_RUN
        and sum(one.n_rows for one in every) <= MAX_ROWS_PER_RUN
    )


def _is_fresh(state: WindowInputs | None, now: dt.datetime) -> bool:
    """Tell whether a window was computed a moment ago, and no run failed on it since."""
    if state is None or state.computed_at is None or state.attempts:
        return False
    return measure_age(state.computed_at, now) < REVISED_EVERY


def _with_rows(engine: sa.Engine, spec: ModelSpec, windows: Sequence[Window]) -> list[Window]:
    """Leave out windows whose rows were deleted by age: their numbers stay as they are."""
    mark = model_history.load_rows_from(engine, spec.model).get(PRODUCTION)
    return [window for window in windows if mark is None or window.start >= mark]


def _baseline_due(
    spec: ModelSpec, inputs: dict[dt.datetime, WindowInputs]
) -> dict[dt.datetime, WindowInputs]:
    """Return the windows for which the baseline is to be fitted: older events, or another spec.

    A model without older events notes what its bins were made for at its first window.
    """
    undone = StepMark(-1, "")
    digest = profile_digest(spec)
    older = baseline_windows(spec, inputs)
    if not older:
        fitted = {start: s for start, s in first_of(inputs).items() if "baseline" in s.steps}
        older = {s: i for s, i in fitted.items() if i.steps["baseline"].data_version != digest}
    return {
        start: state
        for start, state in older.items()
        if state.attempts < MAX_ATTEMPTS
        and (
            (mark := state.steps.get("baseline", undone)).revision < state.input_revision
            or mark.data_version != digest
        )
    }


def _baseline_request(
    engine: sa.Engine, spec: ModelSpec, due: dict[dt.datetime, WindowInputs]
) -> Request:
    attempt = max(state.attempts for state in due.values()) + 1
    window_state.count_attempt(engine, spec.model, list(due))
    revision = sum(state.input_revision for state in due.values())
    key = f"{spec.model}:baseline:{len(due)}:{revision}:{profile_digest(spec)}:{attempt}"
    return Request(spec, (), ("baseline",), key, attempt)


def try_again(project: Project, spec: ModelSpec) -> None:
    """Forget the failed attempts of windows that were given up, since a person asks again."""
    engine = project.store.state
    inputs = window_state.load(engine, spec.model)
    given_up = [w for w, state in inputs.items() if state.attempts >= MAX_ATTEMPTS]
    with engine.begin() as conn:
        window_state.forget_attempts(conn, spec.model, given_up)


@dataclass(frozen=True)
class _Known:
    """What is known of a model whose windows are planned."""

    spec: ModelSpec
    now: dt.datetime
    inputs: dict[dt.datetime, WindowInputs]
    force: BaselinesInForce
    timing: TruthTiming

    @classmethod
    def load(
        cls, engine: sa.Engine, spec: ModelSpec, now: dt.datetime, only: Window | None = None
    ) -> _Known:
        """Read it, of all windows or of one only."""
        start, end = (only.start, only.end) if only else (None, None)
        inputs = window_state.load(engine, spec.model, start, end)
        force = baselines_in_force(engine, spec)
        return cls(spec, now, inputs, force, window_state.timing_of(engine, spec.model))

    def maturity_of(self, window: Window) -> Maturity:
        """Return how mature the ground truth of a window with inputs is."""
        state = self.inputs[window.start]
        counts = (state.n_expected, state.n_actual)
        return maturity_of(self.spec, window, *counts, self.now, self.timing)

    def judged_as(self, window: Window) -> str:
        """Return what verdicts on ground truth are marked with: its maturity, or why it waits."""
        maturity, state = self.maturity_of(window), self.inputs[window.start]
        if maturity != "provisional":
            return maturity
        return name_wait(self.spec, window.end, state.n_actual, self.now, self.timing)

    def find_stale(self, order: Sequence[Window], left: Collection[Window] = ()) -> Stale:
        """Return the windows that have to be computed again but for those left, which assets."""
        touched = {w: self.find_stale_assets(w) for w in order if w not in left}
        moved = self._find_moved(order, list(touched.items()))
        found = ((w, assets or moved.get(w.start, ())) for w, assets in touched.items())
        return [(window, assets) for window, assets in found if assets]

    def find_stale_assets(self, window: Window) -> tuple[str, ...]:
        """Return the assets of a window that have to be computed again, () if none.

        New events or actuals touch every asset, and so does a verdict that a crash prevented, or
        another baseline than the one the window was profiled with, or none any more. Assets that
        the model has only now, as it declares more, are computed alone. Where only time has passed,
        so that ground truth counts as mature now, or is late, what is about it is judged again, and
        everything where its profiles did not take in all of it while it was awaited; what was
        mature already is left alone when it closes, and when its ground truth turns out to take
        longer than was thought.
        """
        spec, state = self.spec, self.inputs.get(window.start)
        if state is None or state.attempts >= MAX_ATTEMPTS:
            return ()
        undone = StepMark(-1, "")
        marks = {name: state.steps.get(name, undone) for name in steps_of(spec)}
        every, about_actuals = windowed_of(spec), of_actuals(spec)
        behind = {name for name, mark in marks.items() if mark.revision < state.input_revision}
        new = tuple(name for name in every if name not in state.steps)
        if behind and not behind <= {*new, *(f"{BY_NAME[name].family}_check" for name in new)}:
            return every
        if marks["profiles"].maturity != (self.force.at(window.start) or NO_BASELINE):
            return every
        if new:
            return new
        maturity = self.maturity_of(window)
        profiled = marks["profiles"].data_version.partition(":")[0]
        if maturity != "provisional" and profiled != marks["inference_store"].data_version:
            return every
        checks = [f"{BY_NAME[name].family}_check" for name in about_actuals]
        measured = {marks[step].maturity for step in about_actuals}
        judged = {marks[step].maturity for step in checks}
        # Closed says that nobody waits any more, and provisional that the age is now held to be
        # longer: the numbers were judged as mature, and are the same. So are those that were judged
        # early.
        is_learnt = spec.actuals.expected_within is None
        same = {"early"} if maturity == "provisional" else set[str]()
        if maturity == "closed" or (maturity in ("provisional", "early") and is_learnt):
            same |= {"mature"}
        is_done = measured <= same | {maturity} and judged <= same | {self.judged_as(window)}
        return () if is_done else about_actuals

    def _find_moved(
        self, order: Sequence[Window], touched: Stale
    ) -> dict[dt.datetime, tuple[str, ...]]:
        """Return the windows whose earlier windows changed after they were compared with them.

        Those whose earlier windows are to be profiled again are among them: they are compared after
        that, and not one look later.
        """
        force = self.force
        if not baseline_of(self.spec, DRIFT).is_rolling or force.declared is None:
            return {}
        recent = [w for w in order[-LOOK_BACK:] if force.at(w.start) == force.declared]
        marks = _marks(self.spec, recent, self.inputs, touched)
        unknown = StepMark(0, "")
        found: dict[dt.datetime, tuple[str, ...]] = {}
        for window in recent:
            state = self.inputs.get(window.start)
            if state is None or state.attempts >= MAX_ATTEMPTS or not state.n:
                continue
            known = state.steps.get(COMPARED[1], unknown).maturity.rpartition(":")[2]
            if known != marks[window.start]:
                found[window.start] = COMPARED
        return found


def _marks(
    spec: ModelSpec,
    windows: Sequence[Window],
    inputs: Mapping[dt.datetime, WindowInputs],
    touched: Stale,
) -> dict[dt.datetime, str]:
    """Return the fingerprint of what each window is compared with once all others are computed."""
    usable = [window_containing(spec.time, s) for s in window_state.list_profiled(inputs)]
    versions = {w.start: inputs[w.start].steps["profiles"].data_version for w in usable}
    for window, assets in touched:
        if "profiles" in assets and window.start in versions:
            versions[window.start] = f"of revision {inputs[window.start].input_revision}"
    earlier = EarlierWindows(baseline_of(spec, DRIFT), spec.time, usable)
    return {w.start: mark_of_windows(earlier.before(w.start), versions) for w in windows}


def _digest(marks: Iterable[str]) -> str:
    return hashlib.sha256("".join(marks).encode()).hexdigest()[:8]


def _join_ranges(
    spec: ModelSpec, inputs: Mapping[dt.datetime, WindowInputs], ranges: Iterable[Range]
) -> list[Range]:
    """Join ranges of stale windows with few rows between them.

    Late ground truth touches a window here and there. A run costs more than windows with few rows
    do, and what is judged together with later windows would be judged once more for each run. What
    was tried before is tried alone.
    """

    def count_rows(some: Iterable[Window]) -> int:
        return sum(inputs[w.start].n for w in some)

    joined: list[Range] = []
    n_again = 0  # rows of the last range that need not be computed for all of its assets
    for windows, assets in ranges:
        if joined:
            before, its = joined[-1]
            every = tuple(a for a in windowed_of(spec) if a in {*its, *assets})
            between = windows_between(spec.time, before[-1].end, windows[0].start)
            states = [inputs.get(w.start) for w in (*before, *between, *windows)]
            if len(states) <= MAX_WINDOWS_PER_RUN and all(s and not s.attempts for s in states):
                more = count_rows(between)
                more += count_rows(before) if every != its else 0
                more += count_rows(windows) if every != assets else 0
                if n_again + more <= MAX_ROWS_AGAIN:
                    joined[-1], n_again = ((*before, *between, *windows), every), n_again + more
                    continue
        joined.append((windows, assets))
        n_again = 0
    return joined


def _ranges(order: Sequence[Window], stale: Stale) -> Iterator[Range]:
    """Group stale windows that follow each other and need the same assets."""
    position = {window: i for i, window in enumerate(order)}
    group: list[Window] = []
    wanted: tuple[str, ...] = ()
    for window, assets in stale:
        follows = group and position[window] == position[group[-1]] + 1
        if group and not (follows and assets == wanted and len(group) < MAX_WINDOWS_PER_RUN):
            yield tuple(group), wanted
            group = []
        group.append(window)
        wanted = assets
    if group:
        yield tuple(group), wanted
