"""Family custom: numbers that functions of the user compute, held against the baseline's windows.

A function is called with the rows of one window. What it raises is told as the failure of its own
metric, and stops nothing else.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import re
import traceback
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from mlmon_dagster.families.family import (
    Family,
    Measure,
    References,
    Sample,
    frame_samples,
    make_sample,
)
from mlmon_dagster.monitors.evidence import (
    A_YEAR,
    OK,
    Case,
    Evidence,
    Window,
    choose_level,
    excess,
    not_mature,
    not_valued,
    production,
)
from mlmon_dagster.monitors.wording import number, told, write_limit
from mlmon_dagster.spec import ModelSpec, window_containing
from mlmon_dagster.spec import Window as Span
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.checks import readable_columns
from mlmon_dagster.spec.custom_metrics import CustomMetric, LoadedMetric, load_metric
from mlmon_dagster.spec.declaration import Granularity
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import ALL, CUSTOM, TABLE, counted
from mlmon_dagster.spec.tasks import task_of
from mlmon_dagster.store.state import metric_log
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.store.state.sql import literal, quote_identifier
from mlmon_dagster.work import Comparison, Stopwatch, Work, baseline_of

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.frames import MetricSample
    from mlmon_dagster.metrics.windows.custom import JudgedValue, UsualValues
    from mlmon_dagster.profiles import Baseline

METHOD = "custom-1"
FEW_ROWS, UNDEFINED, FEWER_ROWS = "few_rows", "undefined", "fewer_rows_than_baseline"
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_SIDES = {"higher": "below usual", "lower": "above usual", "neither": "outside usual"}
_LONGEST = 300  # characters of what a user's code says
_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Whose rows a number is of: a window of a dataset, of one version or of all."""

    window: Span
    dataset: str = PRODUCTION
    version: str = ALL


class Number(NamedTuple):
    """What a function said of a window's rows; without a value, why."""

    n: int
    value: float = math.nan
    reason: str = ""


def load_metrics(spec: ModelSpec) -> list[LoadedMetric]:
    """Import the functions of a model's own metrics; each says itself what is wrong with it."""
    known = readable_columns(spec)
    return [load_metric(declared, known) for declared in spec.metrics]


def judge(evidence: Evidence) -> list[MonitorResult]:
    """Fail windows that lie where the baseline's windows hardly would, on the worse side.

    How far a window strays is known from the baseline's windows alone (`metrics.windows.law`), so
    that it takes eight of them, and a window of at least half as many rows as the smallest. The
    chance that counts follows from k of n windows, as of performance. With `change` the window
    must also be at least so far from what is usual. A function that raises, or cannot be imported,
    fails its own metric.
    """
    rows = []
    for loaded in load_metrics(evidence.spec):
        usual = _usual_of(evidence, loaded.declared)
        rows += [_judge_window(evidence, w, loaded.declared, usual) for w in production(evidence)]
    return rows


def _usual_of(evidence: Evidence, declared: CustomMetric) -> UsualValues | None:
    frame = evidence.baseline_windows
    if frame is None:
        return None
    return _usual_values(evidence.spec, frame[frame["metric"] == declared.series])


def _usual_values(spec: ModelSpec, frame: pd.DataFrame) -> UsualValues | None:
    """Return the windows of a baseline that have a number; None of too few."""
    from mlmon_dagster.metrics.windows.custom import UsualValues

    known = frame[frame["value"].notna()].sort_values("window_start")
    starts = known["window_start"].astype("datetime64[us, UTC]").astype("int64") / 1e6
    found = UsualValues(
        known["value"].to_numpy(float),
        known["n"].to_numpy(int),
        starts.to_numpy(float),
        A_YEAR[spec.time.granularity],
        is_moving=baseline_of(spec, CUSTOM).moving is not None,
    )
    return found if found.is_known else None


def _judge_window(
    evidence: Evidence, window: Window, declared: CustomMetric, usual: UsualValues | None
) -> MonitorResult:
    name, side = declared.series, _SIDES[declared.better]
    row = evidence.whole(window, name)
    case = Case(evidence, window, declared, name, source=row, threshold=side)
    reason = not_mature(window, row, is_shown=False) if declared.is_of_truth else ""
    reason = reason or not_valued(window, row)
    if row is not None and reason.startswith(declared.of):
        return case.result(declared.severity, told(reason.rstrip("."), ""), reason="raised")
    if not reason and row is not None:
        reason = _not_comparable(evidence, row, usual)
    if row is None or reason or usual is None:
        return case.unjudged(reason, name)
    level = choose_level(declared.windows, evidence.spec.time.granularity)
    # The limit is the end of a range of which either side has the level of the test.
    two_sided = level if declared.better == "neither" else 2 * level
    found = usual.judge(row["value"], row["window_start"].timestamp(), two_sided)
    worse, limit = _past_limit(declared, row["value"], found)
    failed = worse >= limit > 0
    return case.result(
        declared.severity if failed else OK,
        _message(declared, row, found, evidence.spec.time.granularity),
        baseline_value=found.usual,
        threshold=_threshold(declared, found),
        p_value=_chance(declared, found),
        p_adjusted=_chance(declared, found),
        details={"worse_by": worse, "limit": limit, "usual": [found.low, found.high]},
        # What single windows stray is its error.
        **excess(worse, limit, limit),
    )


def _not_comparable(evidence: Evidence, row: MetricSample, usual: UsualValues | None) -> str:
    if usual is None:
        return "learning" if evidence.baseline_windows is None else "few_windows"
    return FEWER_ROWS if row["n"] < usual.fewest_rows else ""


def _chance(declared: CustomMetric, found: JudgedValue) -> float:
    sides = {"higher": found.below, "lower": found.above, "neither": found.p_value}
    return sides[declared.better]


def _past_limit(declared: CustomMetric, value: float, found: JudgedValue) -> tuple[float, float]:
    """Return by how much a value is worse than usual, and from where that is too much."""
    away, least = value - found.usual, declared.change or 0.0
    is_high = declared.better == "lower" or (declared.better == "neither" and away > 0)
    reach = found.high - found.usual if is_high else found.usual - found.low
    return (away if is_high else -away), max(reach, least)


def _threshold(declared: CustomMetric, found: JudgedValue) -> str:
    least = declared.change or 0.0
    low, high = min(found.low, found.usual - least), max(found.high, found.usual + least)
    if declared.better == "neither":
        return f"outside {write_limit(low)} to {write_limit(high)}"
    return f"below {write_limit(low)}" if declared.better == "higher" else (
        f"above {write_limit(high)}"
    )  # fmt: skip


def _message(
    declared: CustomMetric, row: MetricSample, found: JudgedValue, grain: Granularity
) -> str:
    side = "higher" if row["value"] > found.usual else "lower"
    statistics = f"A usual {grain} lies within {number(found.low)} to {number(found.high)}"
    if declared.change is not None:
        statistics += f", and a change of {number(declared.change)} counts"
    return told(
        f"{declared.series} is {number(row['value'])}, {side} than the usual {number(found.usual)}",
        f"{statistics} (n {int(row['n']):,})",
    )


def custom_frame(comparison: Comparison, present: Sequence[dt.datetime]) -> pd.DataFrame:
    """Return the MetricFrame of a model's own metrics.

    Args:
        comparison: The windows, and the baseline that says how far they stray.
        present: Starts of those that have rows.
    """
    work, rows = comparison.work, list[Sample]()
    places = [Place(window) for window in work.windows if window.start in present]
    for loaded in load_metrics(work.spec):
        numbers = compute_numbers(work, loaded, places)
        usual = None
        if comparison.baseline is not None:
            then = baseline_numbers(work, loaded, comparison.baseline)
            usual = _usual_values(work.spec, then)
        for place, found in numbers.items():
            ends, n_baseline = (math.nan, math.nan), 0
            if usual is not None and math.isfinite(found.value):
                judged = usual.judge(found.value, place.window.start.timestamp())
                ends, n_baseline = judged.interval(found.value), int(sum(then["n"]))
            rows.append(_sample(loaded, place, found, ends, n_baseline))
    return frame_samples(rows)


def _sample(
    loaded: LoadedMetric,
    place: Place,
    found: Number,
    ends: tuple[float, float] = (math.nan, math.nan),
    n_baseline: int = 0,
) -> Sample:
    return make_sample(
        place.window, loaded.declared.series, _method(loaded), dataset=place.dataset,
        model_version=place.version, value=found.value, lower=ends[0], upper=ends[1], n=found.n,
        n_baseline=n_baseline, reason=found.reason,
    )  # fmt: skip


def _method(loaded: LoadedMetric) -> str:
    return f"{METHOD}:{loaded.version}" if loaded.version else METHOD


def compute_numbers(
    work: Work, loaded: LoadedMetric, places: Sequence[Place]
) -> dict[Place, Number]:
    """Call a metric's function with the rows of windows, and log how long that took."""
    watch, found = Stopwatch(), dict[Place, Number]()
    for place in places:
        found[place] = _compute_number(work, loaded, place, watch)
    if places:
        _log.info(
            "%s of %s: %s in %.1f seconds",
            loaded.declared.of, work.spec.model, counted(len(places), "window"), watch.seconds,
        )  # fmt: skip
    return found


def _compute_number(work: Work, loaded: LoadedMetric, place: Place, watch: Stopwatch) -> Number:
    declared = loaded.declared
    n, rows = _read_rows(work, loaded, place)
    if loaded.function is None:
        return Number(n, reason=loaded.problem)
    if declared.is_of_truth and n == 0:
        return Number(n, reason="no_actuals")
    if n < declared.min_rows:
        return Number(n, reason=FEW_ROWS)
    day = _name_window(work.spec, place.window)
    try:
        with watch.running():
            value = loaded.function(rows, **declared.arguments)
    except (Exception, SystemExit) as error:  # whatever a user's function raises
        said = f"{type(error).__name__}: {_without_values(work.spec, declared, str(error))}"
        # Only the lines of code: what the error says may hold values of rows.
        where = "".join(traceback.format_tb(error.__traceback__)).rstrip()
        _log.warning("%s: %s raised %s\n%s", work.spec.model, declared.of, said, where)
        return Number(n, reason=f"{declared.of} raised {said} for {day}")
    if value is None:
        return Number(n, reason=UNDEFINED)
    if not isinstance(value, Real):
        kind = type(value).__name__
        return Number(n, reason=f"{declared.of} returned a {kind}, no number, for {day}")
    return Number(n, float(value)) if math.isfinite(value) else Number(n, reason=UNDEFINED)


def _read_rows(work: Work, loaded: LoadedMetric, place: Place) -> tuple[int, pd.DataFrame]:
    """Return how many rows a number is of, and these; of more than `sample` those drawn by hash."""
    declared, spec, store = loaded.declared, work.spec, work.project.store
    source = store.inference_records(spec).from_sql([place.window], [place.dataset])
    where = ["actual IS NOT NULL"] if declared.is_of_truth else []
    if place.version != ALL:
        where.append(f"model_version = {literal(place.version)}")
    kept = " AND ".join(where or ["TRUE"])
    counts = store.queries.query(f"SELECT COUNT(*) AS n FROM {source} AS records WHERE {kept}")
    n = int(counts.column("n")[0].as_py())
    if n > declared.sample:
        # Of what was ranked together all rows are drawn, or none.
        by = '"group"' if task_of(spec).is_grouped else "prediction_id"
        kept += f" AND {_drawn(by, declared.sample / n)}"
    names = ", ".join(map(quote_identifier, declared.columns)) or "1 AS one"
    rows = store.queries.query(
        f"SELECT {names} FROM {source} AS records WHERE {kept} ORDER BY prediction_id"
    )
    return n, rows.to_pandas()


def _drawn(by: str, share: float) -> str:
    """Return the condition of a share of the rows, by hash of a column: always the same ones."""
    limit = f"{min(int(share * 16**8), 16**8 - 1):08x}"
    return f"SUBSTR(MD5({by} || ':metric'), 1, 8) <= {literal(limit)}"


def _name_window(spec: ModelSpec, window: Span) -> str:
    start = window.start.astimezone(ZoneInfo(spec.time.zone))
    return f"{start.day} {start:%B}" if spec.time.granularity == "day" else window.key


def _without_values(spec: ModelSpec, declared: CustomMetric, text: str) -> str:
    """Return what an error says, without quoted values of columns that may not be shown."""
    first = text.strip().partition("\n")[0][:_LONGEST]
    if all(name not in spec.features or spec.shows_values_of(name) for name in declared.columns):
        return first
    known = set(declared.columns)
    return _QUOTED.sub(lambda m: m[0] if m[0][1:-1] in known else "'…'", first)


def baseline_numbers(work: Work, loaded: LoadedMetric, baseline: Baseline) -> pd.DataFrame:
    """Return a metric in the windows of a baseline, computed where it is not stored already.

    Returns:
        MetricFrame. Of another dataset, or of one version, numbers are stored: they are made once
        for a baseline and a text of the function.
    """
    from mlmon_dagster.metrics.statistics import derived

    key = ("custom", loaded.declared.series, _method(loaded), loaded.declared)
    return derived(baseline.windows, key, lambda: _baseline_numbers(work, loaded, baseline))


def _baseline_numbers(work: Work, loaded: LoadedMetric, baseline: Baseline) -> pd.DataFrame:
    import pandas as pd

    from mlmon_dagster.metrics.frames import METRIC_COLUMNS

    places = _places_of(work.spec, baseline)
    if not places or loaded.function is None:
        return frame_samples([])
    first, last = places[0].window.start, places[-1].window.end
    is_own = places[0][1:] == (PRODUCTION, ALL)
    stored = metric_log.newest(
        work.project.store.state,
        work.spec.model,
        metric=loaded.declared.series,
        dataset=places[0].dataset,
        model_version=places[0].version,
        baseline_id=None if is_own else baseline.baseline_id,
        start=first,
        end=last,
    )
    stored = stored[stored["method_version"] == _method(loaded)]
    starts = {place.window.start for place in places}
    stored = stored[stored["window_start"].isin(starts)]
    known = {start.to_pydatetime() for start in stored["window_start"]}
    missing = [place for place in places if place.window.start not in known]
    made = [_sample(loaded, *one) for one in compute_numbers(work, loaded, missing).items()]
    computed = frame_samples(made)
    if made and not is_own:
        metric_log.append(work.project.store.state, _as_stored(work, baseline, computed, missing))
    if loaded.declared.is_of_truth:  # what waits for its ground truth says nothing yet
        stored = stored[stored["maturity"] != "provisional"]
    frames = [frame for frame in (stored[list(METRIC_COLUMNS)], computed) if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else computed


def _places_of(spec: ModelSpec, baseline: Baseline) -> list[Place]:
    """Return the windows of a baseline that have rows, oldest first."""
    stats = next(iter(baseline.windows[name] for name in spec.features if name in baseline.windows))
    whole = (stats.cells["slice_key"] == ALL).to_numpy() & (stats.n > 0)
    choice = baseline_of(spec, CUSTOM)
    version = choice.model_version if baseline.kind == "model_version" else None
    starts = sorted(set(stats.cells.loc[whole, "window_start"]))
    return [
        Place(
            window_containing(spec.time, start.to_pydatetime()), baseline.dataset, version or ALL
        )
        for start in starts
    ]  # fmt: skip


def _as_stored(
    work: Work, baseline: Baseline, frame: pd.DataFrame, places: Sequence[Place]
) -> pd.DataFrame:
    import pandas as pd

    ends = pd.to_datetime([place.window.end for place in places], utc=True)
    return frame.assign(
        window_start=frame["window_start"].astype("datetime64[us, UTC]"),
        window_end=ends.astype("datetime64[us, UTC]"),
        model=work.spec.model,
        granularity=work.spec.time.granularity,
        baseline_id=baseline.baseline_id,
        baseline_kind=baseline.kind,
        data_version=baseline.data_version,
        run_id=work.run_id,
        computed_at=work.now,
    )


def custom_references(comparison: Comparison) -> References:
    """Return each metric in the windows of the baseline; nothing without one."""
    from mlmon_dagster.metrics.frames import concat_frames

    if comparison.baseline is None:
        return {}
    found = [
        baseline_numbers(comparison.work, loaded, comparison.baseline)
        for loaded in load_metrics(comparison.work.spec)
    ]
    return {"baseline_windows": concat_frames(found)}


def _present(profiles: Mapping[str, Any]) -> list[dt.datetime]:
    """Return the starts of the windows of production that have rows."""
    starts = set[dt.datetime]()
    for stats in profiles.values():
        mine = stats.cells[(stats.cells["dataset"] == PRODUCTION) & (stats.n > 0)]
        starts |= {start.to_pydatetime() for start in mine["window_start"]}
    return sorted(starts)


def _limits(spec: ModelSpec) -> str:
    named = ", ".join(declared.series for declared in spec.metrics)
    return f"Fails where {named} lie beyond the baseline's windows." if named else ""


FAMILY = Family(
    FAMILIES[CUSTOM],
    judge,
    _limits,
    # It reads rows; the profile of any column tells which windows have some.
    measure=Measure(
        lambda spec: list(spec.features)[:1],
        lambda comparison, profiles: custom_frame(comparison, _present(profiles)),
        lambda spec: "baseline",
        lambda metric, column: metric if column == TABLE else None,
        slices=lambda spec: "none",
    ),
    is_watched=lambda spec: bool(spec.metrics),
    is_due=lambda spec: bool(spec.metrics),
    metrics=lambda spec: [declared.series for declared in spec.metrics],
    is_compared=lambda spec: True,
    references=custom_references,
)
