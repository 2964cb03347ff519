"""Lives a world of `label_laws` window by window, and reads what its alerts said.

The spec is the one that `mlmon init` writes from the files that a user would have on the day on
which monitoring begins. Then every look takes in what has landed, computes what the planner asks
for, judges, and folds the verdicts into alerts, by the injected clock.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.alerts.messages.incidents import flush_groups
from mlmon_dagster.pipeline import plan as planning
from mlmon_dagster.pipeline.ingest import ingest
from mlmon_dagster.pipeline.judge import judge
from mlmon_dagster.pipeline.plan import Request, plan
from mlmon_dagster.pipeline.run import compute
from mlmon_dagster.profiles.in_force import baselines_shared
from mlmon_dagster.project import Project
from mlmon_dagster.scaffold.proposal import propose
from mlmon_dagster.spec import ModelSpec, load_model
from mlmon_dagster.spec.steps import BY_NAME
from mlmon_dagster.store import open_store
from mlmon_dagster.store.alert_state import all_alerts, all_events
from mlmon_dagster.store.state import metric_log, window_state
from mlmon_dagster.store.tables.engine import Limits
from mlmon_dagster.store.upkeep.maintenance import maintain
from mlmon_dagster.work import Work, baseline_of, mark_of, mark_step, parts_of
from tests.pipeline.looking import look

MODEL = "credit"
TRUTH = ("freshness", "performance", "estimated_performance")  # families that ground truth moves
UPKEEP_EVERY = 7  # looks: small files of the tables are merged, as the upkeep of a project does
LANDED = 1_600_000_000  # when the landing files were changed last: long ago, so none has to settle


class Clock:
    """The project's present; it stands still until it is moved."""

    def __init__(self, moment: dt.datetime) -> None:
        self.moment = moment

    def __call__(self) -> dt.datetime:
        """Return the moment."""
        return self.moment


class Lifelike(Protocol):
    """What can be lived: rows and labels by the look before which they land."""

    knobs: Any
    step: pd.Timedelta
    zone: str | None

    def start_of(self, window: int) -> pd.Timestamp:
        """Return the start of a window."""

    def look_after(self, window: int) -> dt.datetime:
        """Return the moment of the look that follows a window's end."""

    def events_at(self, look: int) -> pd.DataFrame:
        """Return the predictions that land before a look; -1 is all of before the first."""

    def labels_at(self, look: int) -> pd.DataFrame:
        """Return the labels that land before a look."""

    def amend(self, spec: str) -> str:
        """Return a spec's text with what a user adds by hand."""


@dataclass(frozen=True)
class Episode:
    """One opening of an alert.

    Attributes:
        family: Of its monitor; `monitor` names the condition.
        slice_name: `segment=south`, or empty for all rows.
        opened: Index of the look at which it opened.
        ended: Likewise; None if it is open at the end.
        window: Index of the window that opened it.
        muted: Why nobody was told; empty if somebody was.
        message: What was said first.
    """

    family: str
    monitor: str
    slice_name: str
    opened: int
    ended: int | None
    window: int
    severity: str
    muted: str
    message: str


def write_history(world: Lifelike, folder: Path) -> tuple[int, Path]:
    """Land what a user has when monitoring begins, and write the spec.

    Returns:
        The first look that is lived, and the spec's file.
    """
    first = 0 if world.knobs.baseline == "labelled" else -1
    landed = [land_before(world, folder, look) for look in range(-1, first + 1)]
    files, actuals = ([file for two in landed for file in two[i]] for i in (0, 1))
    text = propose(
        folder, tuple(files), MODEL, world.zone, "team:risk", world.look_after(first),
        tuple(actuals),
    )  # fmt: skip
    # Init chooses among day, week and month by the rows of a day; a user may choose otherwise.
    chosen = f"  granularity: {world.knobs.granularity}"
    lines = [chosen if line.startswith("  granularity:") else line for line in text.splitlines()]
    path = folder / "models" / f"{MODEL}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(world.amend("\n".join(lines) + "\n"))
    return first, path


def land(folder: Path, stream: str, name: str, rows: pd.DataFrame) -> list[Path]:
    """Put rows into a landing file, as a good producer does; no rows make no file."""
    path = folder / "landing" / MODEL / stream / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    if rows.empty:
        return []
    partial = path.with_suffix(".partial")
    rows.to_parquet(partial, index=False)
    os.utime(partial, (LANDED, LANDED))
    partial.rename(path)
    return [path]


def look_at(families: Sequence[str], project: Project, spec: ModelSpec, run_id: str) -> None:
    """Look as `tests.pipeline.looking.look` does, at some families alone.

    What the others would compute is noted as done, so that the planner does not ask for it again.
    Their verdicts could only mute those that are looked at.
    """
    work = Work(project, spec, (), project.now(), run_id, False)
    ingest(work)
    judge(work, "freshness")
    requests = plan(project, spec, project.now())
    while requests:
        for request in requests:
            some = replace(work, windows=request.windows, is_planned=True)
            _run_some(some, request, families)
        again = not any(request.windows for request in requests)
        requests = plan(project, spec, project.now()) if again else []


def _run_some(work: Work, request: Request, families: Sequence[str]) -> None:
    left_out = [
        name for name in request.assets if (f := BY_NAME[name].family) and f not in families
    ]  # `inference_store` carries the family schema, and is needed all the same
    compute(work, [n for n in request.assets if n not in left_out or n == "inference_store"])
    for name in request.assets:
        family = BY_NAME[name].family
        if family is not None and family in families and BY_NAME[name].is_windowed:
            judge(work, family)
    if left_out:
        _note_as_done(work, left_out)


def _note_as_done(work: Work, steps: Sequence[str]) -> None:
    """Mark steps and their verdicts as made from the newest profiles."""
    states, choice = work.states(), baseline_of(work.spec, "drift")
    compared = {}
    for part in parts_of(work) if "drift" in steps else ():
        if part.in_force.baseline_id and part.in_force.is_rolling(choice):
            inputs = window_state.load(work.project.store.state, work.spec.model, None, work.end)
            compared |= planning._marks(work.spec, part.work.windows, inputs, [])
    for step in steps:
        family = BY_NAME[step].family
        source = "inference_store" if family == "schema" else "profiles"
        marks = {w.start: replace(mark_of(states, w, source), maturity="") for w in work.windows}
        for start, mark in compared.items() if step == "drift" else ():
            marks[start] = replace(marks[start], maturity=mark)
        if step != "inference_store":
            mark_step(work, step, marks)
        mark_step(work, f"{family}_check", marks)


@dataclass
class Lived:
    """What became of a world."""

    knobs: Mapping[str, Any]
    spec: str
    seconds: float
    episodes: list[Episode] = field(default_factory=list)


def live(
    world: Lifelike,
    folder: Path,
    on_look: Callable[[int], None] | None = None,
    *,
    families: Sequence[str] | None = TRUTH,
    looks: Sequence[int] | None = None,
) -> Lived:
    """Live a world and return its episodes.

    Args:
        world: What lands when.
        folder: An empty one.
        on_look: Called after every look with its index.
        families: Of monitors that are looked at; None for all.
        looks: The windows after which a look is taken, by default all; what lands between two
            looks lands before the second.
    """
    began = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(baselines_shared())
        take_a_look = look if families is None else partial(look_at, families)
        first, path = write_history(world, folder)
        clock = Clock(world.look_after(first))
        project = Project(folder, str(folder / "store"), now=clock, limits=Limits(threads=1))
        spec = load_model(path)
        last = world.knobs.windows - 1
        landed = first
        for n in sorted({first, *(range(first, last) if looks is None else looks), last}):
            clock.moment = world.look_after(n)
            for look_before in range(landed + 1, n + 1):
                land_before(world, folder, look_before)
            landed = n
            take_a_look(project, spec, f"look {n}")
            if n % UPKEEP_EVERY == 0:
                maintain(project.store, spec, clock.moment)
            fold_results(project.store, [spec], clock.moment)
            flush_groups(project.store, [spec], clock.moment)
            if on_look is not None:
                on_look(n)
    found = read_episodes(world, project, spec)
    project.store.close()
    return Lived(asdict(world.knobs), path.read_text(), time.perf_counter() - began, found)


def land_before(world: Lifelike, folder: Path, look: int) -> list[list[Path]]:
    """Land what comes before a look, and return the files of each stream."""
    return [
        land(folder, "predictions", f"{look:04}", world.events_at(look)),
        land(folder, "actuals", f"{look:04}", world.labels_at(look)),
    ]


def read_episodes(world: Lifelike, project: Project, spec: ModelSpec) -> list[Episode]:
    """Return every opening of every alert, oldest first."""
    with project.store.state.connect() as conn:
        alerts, history = all_alerts(conn, spec.model), all_events(conn, spec.model)
    found = []
    for fingerprint, row in alerts.items():
        name = "" if row["slice_key"] == "all" else f"{row['slice_key']}={row['slice_value']}"
        for event in history.get(fingerprint, ()):
            if event["kind"] != "opened":
                continue
            ends = [
                e["created_at"]
                for e in history[fingerprint]
                if e["kind"] == "resolved" and e["episode"] == event["episode"]
            ]
            found.append(
                Episode(
                    row["family"],
                    row["monitor"],
                    name,
                    look_of(world, event["created_at"]),
                    look_of(world, ends[0]) if ends else None,
                    look_of(world, event["window_start"]) + 1,
                    event["severity"],
                    event["muted_reason"],
                    event["message"],
                )
            )
    return sorted(found, key=lambda episode: (episode.opened, episode.monitor))


def look_of(world: Lifelike, moment: dt.datetime) -> int:
    """Return the index of the window that a moment lies in, less one: that of its look."""
    return int((pd.Timestamp(moment) - world.start_of(0)) // world.step) - 1


def count_estimates(world: Lifelike, folder: Path, first: int) -> int:
    """Count the windows from one on that have an estimate of performance.

    Args:
        world: Which windows there are.
        folder: Where it was lived.
        first: Index of the first window.
    """
    store = open_store(folder / "store")
    start = world.start_of(first).to_pydatetime()
    found = metric_log.newest(store.state, MODEL, metric="estimated_roc_auc", start=start)
    store.close()
    whole = found[(found["slice_key"] == "all") & found["value"].notna()]
    return int(whole["window_start"].nunique())
