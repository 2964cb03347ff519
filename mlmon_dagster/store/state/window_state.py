"""Which inputs each window has, and from which of them each of its steps was made.

Also how late each model's ground truth comes, as learnt: one row a model, which every step reads.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.windows import (
    UNKNOWN_TIMING,
    EarlyAge,
    TruthTiming,
    Window,
    closes_at,
    first_window,
    is_imported,
    monitored_from,
)
from mlmon_dagster.store.clocks import is_ahead
from mlmon_dagster.store.state.schema import arrival_curve, mlmon_window, window_state, window_step
from mlmon_dagster.store.state.sql import (
    Bind,
    Row,
    between,
    fetch,
    fetch_row,
    fetch_rows,
    fetch_value,
    fetch_values,
    insert,
    upsert,
)


def mark_inputs(
    conn: sa.Connection,
    spec: ModelSpec,
    windows: Iterable[Window],
    now: datetime,
    by_truth: Collection[Window] = (),
) -> None:
    """Raise the input revision of windows by one; unknown windows begin at revision 1.

    Args:
        conn: A write transaction, the one in which the ingested files become ``done``.
        spec: The windows' model.
        windows: Windows that new rows or actuals touch; repeated ones count once.
        now: When.
        by_truth: Those of them that ground truth alone touches.
    """
    rows = [
        {
            "model": spec.model,
            "window_start": window.start,
            "window_end": window.end,
            "input_revision": 1,
            "events_revision": int(window not in by_truth),
            "input_at": now,
            "first_input_at": now,
        }
        for window in sorted(set(windows))
    ]
    if not rows:
        return
    statement = insert(conn, window_state)
    statement = statement.on_conflict_do_update(
        index_elements=["model", "window_start"],
        set_={
            "input_revision": window_state.c.input_revision + 1,
            "events_revision": sa.case(
                (statement.excluded.events_revision > 0, window_state.c.input_revision + 1),
                else_=window_state.c.events_revision,
            ),
            "input_at": statement.excluded.input_at,
            "first_input_at": sa.func.coalesce(
                window_state.c.first_input_at, statement.excluded.first_input_at
            ),
            "attempts": 0,
        },
    )
    conn.execute(statement, rows)


def mark_arrivals(
    conn: sa.Connection,
    spec: ModelSpec,
    arrivals: Mapping[Window, int],
    now: datetime,
    by_truth: Collection[Window] = (),
) -> set[Window]:
    """Mark windows that new rows touch; in a frozen window the rows are only counted.

    Args:
        conn: A write transaction, the one in which the ingested files become ``done``.
        spec: The windows' model.
        arrivals: Window -> rows and actuals that arrived for it.
        now: When.
        by_truth: The windows that ground truth alone arrived for.

    Returns:
        The windows that are frozen.
    """
    frozen = find_frozen(conn, spec, list(arrivals), now)
    mark_inputs(conn, spec, [w for w in arrivals if w not in frozen], now, by_truth)
    n_late = window_state.c.n_late_after_close + sa.bindparam("n_late")
    rows = [{"the_window": w.start, "n_late": arrivals[w]} for w in sorted(frozen) if arrivals[w]]
    _update_each(conn, spec.model, rows, n_late_after_close=n_late, late_at=now)
    return frozen


def find_frozen(
    bind: Bind, spec: ModelSpec, windows: Sequence[Window], now: datetime
) -> set[Window]:
    """Return those of some windows that closed and were not reopened.

    A window that never had any rows is not frozen, and neither are the windows before production
    began, which belong to the baseline.
    """
    first = first_window(spec.time).start
    live = {window.start: window for window in windows if window.start >= first}
    if not live:
        return set()
    c = window_state.c
    query = sa.select(c.window_start, c.window_end, c.first_input_at).where(
        c.model == spec.model,
        c.window_start.between(min(live), max(live)),
        c.input_revision > 0,
        c.reopened_at.is_(None),
    )
    timing = timing_of(bind, spec.model)
    return {
        live[row.window_start]
        for row in fetch_rows(bind, query)
        if row.window_start in live
        and now >= closes_at(spec, row.window_end, row.first_input_at, timing)
    }


def reopen_windows(
    conn: sa.Connection, spec: ModelSpec, windows: Sequence[Window], now: datetime
) -> int:
    """Let frozen windows take in what arrived after they closed, and what still will.

    Returns:
        How many windows were frozen and are open now.
    """
    frozen = find_frozen(conn, spec, windows, now)
    c = window_state.c
    query = sa.select(c.window_start).where(c.model == spec.model, c.n_late_after_close > 0)
    with_late = set(fetch_values(conn, query))
    late = [window for window in frozen if window.start in with_late]
    _update_starts(conn, spec.model, [window.start for window in frozen], reopened_at=now)
    mark_inputs(conn, spec, late, now)
    return len(frozen)


def list_unclosed(engine: sa.Engine, spec: ModelSpec, now: datetime) -> list[Window]:
    """Return the windows that took no more rows in as they had closed, by a clock that was ahead.

    So are those that have not closed by now, as ground truth is held to take longer.
    """
    c = window_state.c
    query = sa.select(c.window_start, c.window_end, c.late_at).where(
        c.model == spec.model, c.n_late_after_close > 0
    )
    late = {Window(row.window_start, row.window_end, ""): row.late_at
            for row in fetch_rows(engine, query)}  # fmt: skip
    frozen = find_frozen(engine, spec, list(late), now) if late else set()
    return [window for window, at in late.items() if window not in frozen or is_ahead(at, now)]


def reopen_unclosed(engine: sa.Engine, spec: ModelSpec, now: datetime) -> None:
    """Have windows that closed too early take in the rows that came for them since."""
    if windows := list_unclosed(engine, spec, now):
        with engine.begin() as conn:
            mark_inputs(conn, spec, windows, now)
            starts = [window.start for window in windows]
            _update_starts(conn, spec.model, starts, n_late_after_close=0)


def close_windows(conn: sa.Connection, spec: ModelSpec, windows: Sequence[Window]) -> int:
    """Freeze reopened windows again; return how many there were."""
    c = window_state.c
    query = sa.select(c.window_start).where(c.model == spec.model, c.reopened_at.is_not(None))
    mine = {window.start for window in windows} & set(fetch_values(conn, query))
    _update_starts(conn, spec.model, mine, reopened_at=None)
    return len(mine)


def _update_each(
    conn: sa.Connection, model: str, rows: Sequence[Mapping[str, object]], **values: object
) -> None:
    """Set columns of some windows of a model.

    Args:
        conn: A write transaction.
        model: The model.
        rows: Of each window ``the_window``, its start, and the parameters of the values.
        values: The columns.
    """
    c = window_state.c
    if rows:
        of_window = (c.model == model, c.window_start == sa.bindparam("the_window"))
        conn.execute(sa.update(window_state).where(*of_window).values(**values), rows)


def _update_starts(
    conn: sa.Connection, model: str, starts: Iterable[datetime], **values: object
) -> None:
    """Set columns of some windows to the same values."""
    _update_each(conn, model, [{"the_window": start} for start in starts], **values)


def mark_computed(conn: sa.Connection, model: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Note what windows were computed from.

    Args:
        conn: A write transaction.
        model: The windows' model.
        rows: Mappings, all with the same keys: ``window_start``, ``window_end`` (a window without
            inputs has no row before) and any of computed_revision, data_version, n and others.
    """
    upsert(conn, window_state, [{**row, "model": model} for row in rows])


def find_imported(conn: sa.Connection, spec: ModelSpec, windows: Iterable[Window]) -> set[datetime]:
    """Return the starts of those windows whose verdicts could not be told when they ended.

    What a window was when it was first computed it stays; others are what they would be now.
    """
    wanted = {window.start: window for window in windows}
    if not wanted:
        return set()
    c, first = window_state.c, first_window(spec.time).start
    query = sa.select(c.window_start, c.first_input_at, c.is_history).where(
        c.model == spec.model, c.window_start.between(min(wanted), max(wanted))
    )
    known = {row.window_start: row for row in fetch_rows(conn, query)}
    began = sa.select(sa.func.min(c.window_end), sa.func.min(c.first_input_at)).where(
        c.model == spec.model, c.window_start >= first, c.first_input_at.is_not(None)
    )
    first_end, first_input = conn.execute(began).one()
    since = monitored_from(spec, first_end, first_input) if first_end else None
    found = set()
    for start, window in wanted.items():
        row = known.get(start)
        if row is not None and row.is_history is not None:
            is_history = row.is_history
        else:
            came = row.first_input_at if row else None
            is_history = is_imported(spec, window.end, came, since)
        if is_history:
            found.add(start)
    return found


def note_history(
    conn: sa.Connection, spec: ModelSpec, windows: Sequence[Window], asked_for: Sequence[Window]
) -> None:
    """Note of windows that are computed for the first time whether they are history.

    Args:
        conn: A write transaction.
        spec: The windows' model.
        windows: The windows that are computed.
        asked_for: Those whose verdicts a person asked for, and that nobody waited for.
    """
    c = window_state.c
    unknown = sa.select(c.window_start).where(
        c.model == spec.model,
        c.window_start.between(windows[0].start, windows[-1].start),
        c.is_history.is_(None),
    )
    history = find_imported(conn, spec, windows) | {window.start for window in asked_for}
    mine = {window.start for window in windows} & set(fetch_values(conn, unknown))
    rows = [{"the_window": start, "history": start in history} for start in sorted(mine)]
    _update_each(conn, spec.model, rows, is_history=sa.bindparam("history"))


Progress = tuple[object, ...]


def load_progress(engine: sa.Engine, model: str | None = None) -> dict[str, Progress]:
    """Return what tells one state of a model's windows from another, of every model or of one."""
    c = window_state.c
    query = sa.select(
        c.model,
        sa.func.count(),
        sa.func.sum(c.input_revision),
        sa.func.sum(c.attempts),
        sa.func.sum(c.n_late_after_close),
        sa.func.max(c.input_at),
        sa.func.max(c.computed_at),
        sa.func.max(c.reopened_at),
    ).group_by(c.model)
    if model is not None:
        query = query.where(c.model == model)
    return {row[0]: tuple(row[1:]) for row in fetch_rows(engine, query)}


def note_report(engine: sa.Engine, model: str, digest: str, now: datetime) -> None:
    """Note what a model's reports were made from.

    Args:
        engine: The state database.
        model: The model; nothing is noted of one without windows.
        digest: Of what they show.
        now: The present moment.
    """
    c = window_step.c
    with engine.begin() as conn:
        conn.execute(sa.delete(window_step).where(c.model == model, c.step == _REPORT))
        newest = sa.select(sa.func.max(window_state.c.window_start))
        if start := conn.scalar(newest.where(window_state.c.model == model)):
            mark_step_done(conn, model, _REPORT, {start: StepMark(0, digest)}, now)


def load_report_digests(engine: sa.Engine) -> dict[str, str]:
    """Return what the reports of each model were made from."""
    c = window_step.c
    query = sa.select(c.model, c.data_version).where(c.step == _REPORT)
    return {model: digest for model, digest in fetch_rows(engine, query)}


_REPORT = "health_report"  # of a model, at its newest window
NO_BASELINE = "no_baseline"  # instead of a maturity: the step waits for a baseline


@dataclass(frozen=True)
class StepMark:
    """What one step of one window was made from."""

    revision: int
    data_version: str
    maturity: str = ""


_MARKS = tuple(mark.name for mark in fields(StepMark))


@dataclass(frozen=True)
class WindowInputs:
    """The inputs of a window and the progress of its steps.

    Attributes:
        window_start: UTC.
        input_revision: Raised by every ingest that touches the window; 0 if none ever did.
        events_revision: The input revision that events raised last, or refused rows did; what
            came since is ground truth alone.
        attempts: Runs requested for these inputs so far.
        n: Production records, as last rebuilt.
        n_actual: Those with ground truth.
        n_exempt: Those without any, of which none is expected (``actuals.no_actual_when``).
        n_late_after_close: Rows that arrived after the window closed and are not in its numbers.
        lags: JSON: how many hours after the event ground truth was known, and arrived here.
        first_event_time: Time of the first production record; None without any.
        last_event_time: Time of the last one.
        computed_at: When all of its steps were last done; None before that.
        steps: Step -> its mark.
    """

    window_start: datetime
    input_revision: int
    attempts: int
    n: int
    n_actual: int
    n_exempt: int = 0
    n_late_after_close: int = 0
    lags: str = "{}"
    computed_at: datetime | None = None
    first_event_time: datetime | None = None
    last_event_time: datetime | None = None
    events_revision: int = 0
    steps: dict[str, StepMark] = field(default_factory=dict)

    @property
    def n_expected(self) -> int:
        """Records that have ground truth or should get some."""
        return self.n - self.n_exempt

    @property
    def coverage(self) -> float | None:
        """Share of the expected ground truth that has arrived; None if none is expected."""
        return self.n_actual / self.n_expected if self.n_expected else None


def list_profiled(states: Mapping[datetime, WindowInputs]) -> list[datetime]:
    """Return the starts of the windows that have profiles of production's rows, in order."""
    waiting = StepMark(0, "", NO_BASELINE)
    return [
        start
        for start, state in sorted(states.items())
        if state.n and state.steps.get("profiles", waiting).maturity != NO_BASELINE
    ]


def load(
    engine: sa.Engine, model: str, start: datetime | None = None, end: datetime | None = None
) -> dict[datetime, WindowInputs]:
    """Return the state of every window of a model that has one, by window start.

    Args:
        engine: The state database.
        model: The model's name.
        start: Windows that start at or after this time.
        end: Windows that start before this time.
    """

    def within(table: sa.Table) -> list[sa.ColumnElement[bool]]:
        return [table.c.model == model, *between(table.c.window_start, start, end)]

    # Arrivals are most of a row's bytes, and only `load_arrivals` reads them.
    columns = [window_state.c[f.name] for f in fields(WindowInputs) if f.name != "steps"]
    marks = [window_step.c[name] for name in ("window_start", "step", *_MARKS)]
    with engine.connect() as conn:
        states = fetch_rows(conn, sa.select(*columns).where(*within(window_state)))
        steps = fetch_rows(conn, sa.select(*marks).where(*within(window_step)))
    found = {row.window_start: WindowInputs(*row) for row in states}
    for start, step, *mark in steps:
        if start in found:
            found[start].steps[step] = StepMark(*mark)
    return found


@dataclass(frozen=True)
class StoredArrivals:
    """When the ground truth of a window came, as it was measured when the window was rebuilt."""

    window_start: datetime
    window_end: datetime
    first_input_at: datetime | None
    arrivals: str


def load_arrivals(
    engine: sa.Engine, model: str, before: datetime, after: datetime | None, most: int
) -> list[StoredArrivals]:
    """Return the arrivals of a model's newest windows that start before and not before a time."""
    c = window_state.c
    query = (
        sa.select(c.window_start, c.window_end, c.first_input_at, c.arrivals)
        .where(c.model == model, c.arrivals != "{}", *between(c.window_start, after, before))
        .order_by(c.window_start.desc())
        .limit(most)
    )
    return [StoredArrivals(*row) for row in fetch_rows(engine, query)]


class ServedWindow(NamedTuple):
    """A window with production records, and when its first and last event were.

    Attributes:
        came_at: When its first row was taken in; None if that was not while it was watched.
    """

    window_start: datetime
    first_event_time: datetime | None
    last_event_time: datetime | None
    came_at: datetime | None = None


_SERVED = sa.select(
    window_state.c.window_start,
    window_state.c.first_event_time,
    window_state.c.last_event_time,
    sa.case((window_state.c.is_history.is_(False), window_state.c.first_input_at)),
)


def load_served(
    engine: sa.Engine, model: str, start: datetime, end: datetime
) -> list[ServedWindow]:
    """Return the windows that start in a period and have production records, oldest first."""
    c = window_state.c
    query = _SERVED.where(c.model == model, c.n > 0, *between(c.window_start, start, end))
    return [ServedWindow(*row) for row in fetch_rows(engine, query.order_by(c.window_start))]


def load_last_served(engine: sa.Engine, model: str, before: datetime) -> ServedWindow | None:
    """Return the last window before a moment that has production records."""
    c = window_state.c
    query = _SERVED.where(c.model == model, c.n > 0, c.window_start < before)
    row = fetch_row(engine, query.order_by(c.window_start.desc()).limit(1))
    return ServedWindow(*row) if row else None


def find_next_touched(engine: sa.Engine, model: str, start: datetime) -> ServedWindow | None:
    """Return the first window from then on with records, or with rows that are not counted yet.

    Of the latter the times are None.
    """
    c = window_state.c
    is_touched = (c.n > 0) | (c.input_revision > c.computed_revision)
    query = _SERVED.where(c.model == model, c.window_start >= start, is_touched)
    row = fetch_row(engine, query.order_by(c.window_start).limit(1))
    return ServedWindow(*row) if row else None


def find_newest_touched(engine: sa.Engine) -> datetime | None:
    """Return the end of the newest window of any model that rows were stored for."""
    c = window_state.c
    return fetch_value(engine, sa.select(sa.func.max(c.window_end)).where(c.input_revision > 0))


def list_touched_before(
    engine: sa.Engine, model: str, end: datetime, most: int | None = None
) -> list[datetime]:
    """Return the starts of the newest windows before a moment that any row came for."""
    c = window_state.c
    mine = (c.model == model, c.input_revision > 0, c.window_start < end)
    query = sa.select(c.window_start).where(*mine).order_by(c.window_start.desc())
    return fetch_values(engine, query.limit(most))


def mark_step_done(
    conn: sa.Connection,
    model: str,
    step: str,
    marks: Mapping[datetime, StepMark],
    now: datetime,
) -> None:
    """Record that a step of some windows is done, in a write transaction."""
    same = {"model": model, "step": step, "computed_at": now}
    rows = [{**same, "window_start": start, **asdict(mark)} for start, mark in marks.items()]
    upsert(conn, window_step, rows)


def note_finished(
    conn: sa.Connection,
    model: str,
    steps: Sequence[str],
    windows: Sequence[datetime],
    now: datetime,
) -> None:
    """Raise the computed revision of windows to what every one of their steps has reached.

    Where that is the revision of the inputs, the attempts are forgotten.
    """
    done = (
        sa.select(window_step.c.window_start, sa.func.min(window_step.c.revision).label("revision"))
        .where(
            window_step.c.model == model,
            window_step.c.step.in_(steps),
            window_step.c.window_start >= min(windows),
            window_step.c.window_start <= max(windows),
        )
        .group_by(window_step.c.window_start)
        .having(sa.func.count() == len(steps))
    )
    _update_each(
        conn,
        model,
        [
            {"the_window": row.window_start, "revision": row.revision}
            for row in fetch_rows(conn, done)
        ],
        computed_revision=sa.bindparam("revision"),
        computed_at=now,
        # All that was asked for is there: the attempts it took are of no interest.
        attempts=sa.case(
            (window_state.c.input_revision <= sa.bindparam("revision"), 0),
            else_=window_state.c.attempts,
        ),
    )


def count_attempt(engine: sa.Engine, model: str, windows: Sequence[datetime]) -> None:
    """Note that a run was requested for some windows."""
    with engine.begin() as conn:
        _update_starts(conn, model, windows, attempts=window_state.c.attempts + 1)


def forget_attempts(conn: sa.Connection, model: str, windows: Sequence[datetime]) -> None:
    """Forget failed attempts, after a run that went well or when a person asks for another try."""
    _update_starts(conn, model, windows, attempts=0)


def save_timing(
    engine: sa.Engine, model: str, timing: TruthTiming, curves: str, now: datetime
) -> None:
    """Store how late a model's ground truth comes, in place of what was known before."""
    row = {
        "model": model,
        "due_seconds": _seconds(timing.due),
        "least_share": timing.least_share,
        "closes_seconds": _seconds(timing.closes),
        "early_ages": json.dumps([astuple(early) for early in timing.early], separators=(",", ":")),
        "curves": curves,
        "learnt_at": now,
    }
    with engine.begin() as conn:
        upsert(conn, arrival_curve, [row])


def timing_of(bind: Bind, model: str) -> TruthTiming:
    """Return how late a model's ground truth comes, without the curves."""
    c = arrival_curve.c
    columns = (c.due_seconds, c.least_share, c.closes_seconds, c.early_ages)
    row = fetch_row(bind, sa.select(*columns).where(c.model == model))
    if row is None:
        return UNKNOWN_TIMING
    return TruthTiming(
        _duration(row.due_seconds),
        row.least_share,
        _duration(row.closes_seconds),
        tuple(EarlyAge(*early) for early in json.loads(row.early_ages)),
    )


def load_curves(engine: sa.Engine, model: str) -> str | None:
    """Return a model's arrival curves, as JSON; None if nothing was learnt yet."""
    c = arrival_curve.c
    return fetch_value(engine, sa.select(c.curves).where(c.model == model))


def _seconds(duration: timedelta | None) -> int | None:
    return None if duration is None else round(duration.total_seconds())


def _duration(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def load_newest_windows(engine: sa.Engine) -> list[Row]:
    """Return the newest window with predictions of every model, and how many windows wait.

    Returns:
        ``model``, ``n_waiting`` (windows whose newest inputs are not computed yet), and of the
        newest window ``window_end``, ``n`` and ``actual_coverage``, null if there is none.
    """
    c = mlmon_window.c
    newest = (
        sa.select(
            c.model,
            sa.func.max(sa.case((c.n > 0, c.window_start))).label("window_start"),
            sa.func.sum(1 - c.is_current).label("n_waiting"),
        )
        .group_by(c.model)
        .subquery()
    )
    is_newest = sa.and_(newest.c.model == c.model, newest.c.window_start == c.window_start)
    query = sa.select(newest.c.model, newest.c.n_waiting, c.window_end, c.n, c.actual_coverage)
    query = query.outerjoin_from(newest, mlmon_window, is_newest)
    return fetch(engine, query.order_by(newest.c.model))
