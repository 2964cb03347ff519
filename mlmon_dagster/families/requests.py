"""What the requests of a model say of its serving system, beside the profiles of their columns.

Out of records, Prometheus and the state of windows come metrics that the spec declares by name, the
volumes before a window, and what budgets of bad requests are judged by.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from mlmon_dagster.families.reported_files import refusals_behind
from mlmon_dagster.project import read_variable
from mlmon_dagster.spec import (
    ModelSpec,
    Window,
    parse_predicate,
    predicate_columns,
    windows_between,
)
from mlmon_dagster.spec.baseline import GRAINS, PRODUCTION
from mlmon_dagster.spec.monitors import CLASS_RATE, PROMETHEUS, Prometheus, RequestClass
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.predicate import Predicate, columns_of, columns_of_spans, to_sql
from mlmon_dagster.spec.windows import holidays_of_windows, place_in_week, production_end
from mlmon_dagster.store.prometheus_source import UNREACHABLE, Answer, PrometheusServer
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.state.sql import quote_identifier
from mlmon_dagster.store.state.window_state import WindowInputs
from mlmon_dagster.work import Work, stored_metric

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mlmon_dagster.metrics.frames import MetricRows
    from mlmon_dagster.spec.monitors import Objective

NOT_KNOWN, NO_SPANS = "not_known", "no_spans"


def declared_frame(work: Work) -> pd.DataFrame:
    """Measure what `monitors.service` declares by name.

    Returns:
        MetricFrame: ``class_rate`` and ``prometheus``, their names as columns.
    """
    from mlmon_dagster.metrics.frames import stack_rows

    service = work.spec.monitors.service
    rows = _class_rates(work) if service.classes else []
    if service.prometheus is not None:
        rows += _answers(work, service.prometheus)
    return stack_rows(rows)


def answers_of(work: Work, windows: Sequence[Window]) -> list[str]:
    """Return for each window a digest of what Prometheus said, empty where it is not asked.

    It may say something else the next time, of the same records.
    """
    if work.spec.monitors.service.prometheus is None:
        return ["" for _ in windows]
    stored = stored_metric(work, PROMETHEUS, windows).sort_values("column_name")
    said = stored["column_name"] + "=" + stored["value"].astype(str) + stored["reason"]
    return [
        hashlib.sha256(
            json.dumps(said[stored["window_start"] == window.start].tolist()).encode()
        ).hexdigest()[:8]
        for window in windows
    ]


def _cells(windows: Sequence[Window]) -> pd.DataFrame:
    import pandas as pd

    starts = pd.to_datetime([window.start for window in windows], utc=True)
    return pd.DataFrame(
        {
            "window_start": starts.astype("datetime64[us, UTC]"),
            "dataset": PRODUCTION,
            "model_version": ALL,
            "slice_key": ALL,
            "slice_value": ALL,
        }
    )


def _class_rates(work: Work) -> list[MetricRows]:
    import numpy as np

    from mlmon_dagster.metrics.frames import table_rows
    from mlmon_dagster.metrics.intervals import rate, wilson
    from mlmon_dagster.metrics.service import SAMPLED

    spec = work.spec
    classes = {name: _picked(spec, one) for name, one in spec.monitors.service.classes.items()}
    counts = _count_classes(work, list(classes.values()))
    cells, rows = _cells(work.windows), []
    for index, (name, picked) in enumerate(classes.items()):
        n, hits = counts[f"n{index}"].to_numpy(np.int64), counts[f"k{index}"].to_numpy(np.int64)
        why = NO_SPANS if _is_of_spans(spec, picked) else NOT_KNOWN
        if why == NO_SPANS and spec.spans is not None and spec.spans.sampling != "unbiased":
            n, hits, why = np.zeros_like(n), np.zeros_like(hits), SAMPLED
        lower, upper = wilson(hits, n)
        reason = np.where(counts["n"].to_numpy() == 0, "no_rows", why)
        rows.append(
            table_rows(cells, CLASS_RATE, rate(hits, n), lower, upper, n, reason, "wilson-1", name)
        )
    return rows


def _picked(spec: ModelSpec, declared: RequestClass) -> Predicate:
    return parse_predicate(declared.when, predicate_columns(spec), spec.time.zone)


def _is_of_spans(spec: ModelSpec, picked: Predicate) -> bool:
    """Tell whether a class is told by spans, so that it is known only of requests that have any."""
    return bool(columns_of(picked) & columns_of_spans(spec).keys())


def _count_classes(work: Work, classes: Sequence[Predicate]) -> pd.DataFrame:
    """Return per window n, and of the i-th class the rows that tell (ni) and are so (ki)."""
    spec, store = work.spec, work.project.store
    counted = ["count(*) AS n"]
    for index, picked in enumerate(classes):
        so, row = to_sql(picked), "n_spans > 0 AND " * _is_of_spans(spec, picked)
        counted += [
            f"count(*) FILTER (WHERE {row}({so}) IS NOT NULL) AS n{index}",
            f"count(*) FILTER (WHERE {row}({so})) AS k{index}",
        ]
    source = store.inference_records(spec).from_sql(work.windows, [PRODUCTION])
    found: pd.DataFrame = store.query(
        f"SELECT window_start, {', '.join(counted)} FROM {source} AS r GROUP BY window_start"
    ).to_pandas()
    found = found.set_index(found["window_start"].dt.tz_convert("UTC")).drop(columns="window_start")
    return found.reindex([window.start for window in work.windows], fill_value=0)


def _answers(work: Work, declared: Prometheus) -> list[MetricRows]:
    import numpy as np

    from mlmon_dagster.metrics.frames import MetricRows

    server = _server_of(declared, work.run_id)
    cells, rows = _cells(work.windows), []
    for name, metric in declared.metrics.items():
        said = [_ask(server, work.spec, declared.match, metric.query, w) for w in work.windows]
        rows.append(
            MetricRows(
                cells,
                name,
                PROMETHEUS,
                [answer.value for answer in said],
                np.array([int(not answer.reason) for answer in said]),
                "promql-1",
                reason=[answer.reason for answer in said],
            )
        )
    return rows


def _server_of(declared: Prometheus, run_id: str) -> PrometheusServer | None:
    """Return the server; None where a variable that is declared is not set.

    One that does not answer is waited for once in a run, not by each model, window and query.
    """
    url = declared.url or read_variable(declared.url_env or "")
    token = read_variable(declared.token_env) if declared.token_env else None
    if not url or (declared.token_env and token is None):
        return None
    return _server_in_run(run_id, url, token)


@lru_cache(maxsize=8)
def _server_in_run(run_id: str, url: str, token: str | None) -> PrometheusServer:
    return PrometheusServer(url, token)


def _ask(
    server: PrometheusServer | None, spec: ModelSpec, match: str, query: str, window: Window
) -> Answer:
    if server is None:
        return Answer(reason=UNREACHABLE)
    seconds = round((window.end - window.start).total_seconds())
    text = filled(query, {"model": spec.model, "match": match, "window": f"{seconds}s"})
    return server.ask(text, window.end)


def filled(query: str, values: Mapping[str, str]) -> str:
    """Return a query with its ``$names`` filled in; any other ``$`` is of a regular expression."""
    for name, value in values.items():
        query = query.replace(f"${name}", value)
    return query


# Windows to look back: four weeks of hours or days, a season of weeks, a year of months.
_LOOK_BACK = {
    "hour": dt.timedelta(days=28),
    "day": dt.timedelta(days=28),
    "week": dt.timedelta(weeks=26),
    "month": dt.timedelta(days=3 * 366),
}
_WHOLE = 0.9  # of a window, from its first event or until its last


def served(work: Work, windows: Sequence[Window]) -> list[dict[str, object]]:
    """Return for each window the volumes before it, its budgets, and what Prometheus said.

    And ``refused_because``: what a refused file says that may hold its rows.
    """
    known = zip(
        volumes(work, windows),
        budgets(work, windows),
        answers_of(work, windows),
        refusals_behind(work, windows),
        strict=True,
    )
    return [
        {
            **volume,
            "burned": budget,
            "answers": answers,
            "refused_because": refused.get("refused_because", ""),
        }
        for volume, budget, answers, refused in known
    ]


def budgets(work: Work, windows: Sequence[Window]) -> list[dict[str, dict[str, object]]]:
    """Return for each window, by the name of an objective, what `monitors.service` judges.

    Requests are counted in buckets of five minutes, from the records of the windows and of the
    objectives' time before them; one that is not good, or of which that is not known, is bad.
    """
    objectives = work.spec.monitors.service.objectives
    if not objectives:
        return [{} for _ in windows]
    from mlmon_dagster.metrics.objectives import BUCKET, LOOK_BACK, budget_left, burned

    counts = counted_requests(work, windows, objectives)
    found: list[dict[str, dict[str, object]]] = []
    for window in windows:
        own: dict[str, dict[str, object]] = {}
        for objective in objectives:
            back = max(objective.over, LOOK_BACK)
            n, bad = (
                _buckets(counts, name, window.end - back, window.end)
                for name in ("n", objective.name)
            )
            first = len(n) - round((window.end - window.start) / BUCKET)
            looked = max(first - round(LOOK_BACK / BUCKET), 0)
            burn = burned(n[looked:], bad[looked:], objective.target, first - looked)
            period = round(objective.over / BUCKET)
            total, lost = int(n[-period:].sum()), int(bad[-period:].sum())
            start = window.end - BUCKET * (len(n) - looked)
            own[objective.name] = {
                "burn": burn,
                "since": start + BUCKET * burn.first,
                "until": start + BUCKET * (burn.last + 1),
                "left": budget_left(total, lost, objective.target),
            }
        found.append(own)
    return found


def counted_requests(
    work: Work, windows: Sequence[Window], objectives: Sequence[Objective]
) -> pd.DataFrame:
    """Count requests by bucket of five minutes: all, and those not good for each objective.

    Args:
        work: The model.
        windows: Which windows; the objectives' time before the first is counted, too.
        objectives: Of the spec.

    Returns:
        Columns ``bucket`` (its start, in buckets since 1970), ``n`` and the objectives' names.
        Buckets without requests are not in it.
    """
    from mlmon_dagster.metrics.objectives import BUCKET, LOOK_BACK

    spec, store = work.spec, work.project.store
    back = max(LOOK_BACK, *(objective.over for objective in objectives))
    read = windows_between(spec.time, windows[0].start - back, windows[-1].end)
    lost = ", ".join(f"{count_bad(spec, o)} AS {quote_identifier(o.name)}" for o in objectives)
    counted: pd.DataFrame = store.query(
        f"SELECT CAST(floor(epoch(event_time) / {BUCKET.total_seconds()}) AS BIGINT) AS bucket, "
        f"count(*) AS n, {lost} "
        f"FROM {store.inference_records(spec).from_sql(read, [PRODUCTION])} GROUP BY 1"
    ).to_pandas()
    return counted


def count_bad(spec: ModelSpec, objective: Objective) -> str:
    """Return SQL that counts the requests not good, or of which that is not known."""
    good = parse_predicate(objective.good, predicate_columns(spec), spec.time.zone)
    return f"count(*) FILTER (WHERE NOT coalesce({to_sql(good)}, FALSE))"


def _buckets(
    counts: pd.DataFrame, name: str, start: dt.datetime, end: dt.datetime
) -> NDArray[np.int64]:
    """Return a column's counts by bucket from a start to an end, empty buckets as 0."""
    from mlmon_dagster.metrics.objectives import BUCKET

    first = round(start.timestamp() / BUCKET.total_seconds())
    filled = np.zeros(round((end - start) / BUCKET), dtype=np.int64)
    places = counts["bucket"].to_numpy(np.int64) - first
    inside = (places >= 0) & (places < len(filled))
    filled[places[inside]] = counts[name].to_numpy(np.int64)[inside]
    return filled


def volumes(work: Work, windows: Sequence[Window]) -> list[dict[str, object]]:
    """Return for each window its place in the week, and places and sizes of the earlier ones.

    Holidays are not among the earlier ones, nor is the first of all windows if its events begin
    later in it than in others. In the last window of a production that has ended, or of an import,
    ``covered`` is the share of the usual time until its last event: an export may end in the middle
    of a week.
    """
    spec, engine = work.spec, work.project.store.state
    back = _LOOK_BACK[spec.time.granularity]
    states = window_state.load(engine, spec.model, windows[0].start - back, windows[-1].end)
    known = sorted((s for s in states.values() if s.n), key=lambda s: s.window_start)
    ends = _find_ends(work, windows)
    if known and _begins_late(work, known):
        del known[0]
    holidays: dict[dt.datetime, str] = {}
    if spec.time.holidays:
        around = windows_between(spec.time, windows[0].start - back, windows[-1].end)
        named = holidays_of_windows(spec.time, around)
        holidays = {around[i].start: name for i, name in named.items()}
    known = [state for state in known if state.window_start not in holidays]
    starts = [state.window_start for state in known]
    places = np.array([place_in_week(spec.time, start)[0] for start in starts], dtype=np.int64)
    sizes = np.array([state.n for state in known], dtype=np.int64)
    found = []
    for window in windows:
        mine = np.array([window.start - back <= s < window.start for s in starts], dtype=bool)
        covered = 1.0
        if window.start in ends and (state := states.get(window.start)) is not None:
            before = [one for one, is_mine in zip(known, mine, strict=True) if is_mine]
            lasted, usual = _seconds_until([state], "last"), _seconds_until(before, "last")
            covered = max(lasted / usual, 0.01) if lasted < _WHOLE * usual else 1.0
        found.append(
            {
                "holiday": holidays.get(window.start, ""),
                "covered": covered,
                "place": place_in_week(spec.time, window.start)[0],
                "earlier_places": places[mine],
                "earlier_sizes": sizes[mine],
            }
        )
    return found


def _begins_late(work: Work, known: Sequence[WindowInputs]) -> bool:
    """Say whether the first of some windows is the first of all, and begins later than others."""
    length = GRAINS[work.spec.time.granularity].total_seconds()
    later = _seconds_until(known[:1], "first") - _seconds_until(known[1:], "first")
    engine, start = work.project.store.state, known[0].window_start
    return later > (1 - _WHOLE) * length and (
        window_state.load_last_served(engine, work.spec.model, start) is None
    )


def _seconds_until(states: Sequence[WindowInputs], which: Literal["first", "last"]) -> float:
    """Return the usual time from a window's start to its first or last event; NaN if not known."""
    times = [(s.window_start, getattr(s, f"{which}_event_time")) for s in states]
    passed = [(moment - start).total_seconds() for start, moment in times if moment is not None]
    return float(np.median(passed)) if passed else float("nan")


def _find_ends(work: Work, windows: Sequence[Window]) -> set[dt.datetime]:
    """Return the starts of those windows in which production, or what was imported, ends."""
    spec, engine = work.spec, work.project.store.state
    ended, last = production_end(spec.time), windows[-1]
    found = {window.start for window in windows if ended is not None and window.end >= ended}
    if window_state.find_next_touched(engine, spec.model, last.end) is None:
        newest = window_state.load_last_served(engine, spec.model, last.end)
        with engine.connect() as conn:
            imported = window_state.find_imported(conn, spec, windows)
        found |= imported & {newest.window_start if newest else last.start}
    return found
