"""Declared metrics of the serving system by window: shares of requests, numbers of Prometheus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from mlmon_dagster.pipeline.work import Work, stored_metric
from mlmon_dagster.project import read_variable
from mlmon_dagster.spec import ModelSpec, Window, parse_predicate, predicate_columns
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.monitors import CLASS_RATE, PROMETHEUS, Prometheus, RequestClass
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.predicate import Predicate, columns_of, columns_of_spans, to_sql
from mlmon_dagster.store.prometheus_source import UNREACHABLE, Answer, PrometheusServer

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.frames import MetricRows

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
    counted = ["count(event_time) AS n"]
    for index, picked in enumerate(classes):
        so = to_sql(picked)
        row = "event_time IS NOT NULL" + (" AND n_spans > 0" * _is_of_spans(spec, picked))
        counted += [
            f"count(*) FILTER (WHERE {row} AND ({so}) IS NOT NULL) AS n{index}",
            f"count(*) FILTER (WHERE {row} AND ({so})) AS k{index}",
        ]
    spans = ", ".join(
        f"({place}, {window.start.timestamp()}, {window.end.timestamp()})"
        for place, window in enumerate(work.windows)
    )
    source = store.inference_records(spec).from_sql(work.windows, [PRODUCTION])
    found: pd.DataFrame = store.query(
        f'SELECT {", ".join(counted)} FROM (VALUES {spans}) AS w(":place", ":since", ":until") '
        f'LEFT JOIN {source} AS r ON epoch(r.event_time) >= w.":since" '
        'AND epoch(r.event_time) < w.":until" GROUP BY w.":place" ORDER BY w.":place"'
    ).to_pandas()
    return found


def _answers(work: Work, declared: Prometheus) -> list[MetricRows]:
    import numpy as np

    from mlmon_dagster.metrics.frames import MetricRows

    server = _server_of(declared, work.run_id)
    cells, rows = _cells(work.windows), []
    for name, query in declared.queries.items():
        said = [_ask(server, work.spec, declared.match, query, w) for w in work.windows]
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
