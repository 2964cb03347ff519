"""The whole pipeline, killed at a step, fed the same rows in another order, and started again."""

from __future__ import annotations

import datetime as dt
import logging
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pandas as pd

from mlmon_dagster.commands.run import run_model
from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.spec import load_models
from mlmon_dagster.store.state import metric_log
from mlmon_dagster.tables.asked import ALWAYS
from tests import crash_steps, forked
from tests.defs.small_model import (
    DAYS,
    MODEL,
    ROWS,
    customers,
    drop,
    land_days,
    land_validation,
    landing,
    make_project,
    write_declaration,
)

PIPELINE = ("append.", "rebuild.", "ingest.")  # files; the steps of tables are tested with them
STEPS = tuple(step for step in crash_steps.STEPS if step.startswith(PIPELINE))
SOME_DAYS = DAYS[:3]
PROVENANCE = {"file_sha", "row_number", "ingested_at"}
NUMBERS = ["value", "lower", "upper", "n", "data_version"]
IDENTITY = ["window_start", "slice_key", "slice_value", "column_name", "metric", "model_version"]


def feed(folder: Path) -> None:
    """Land three days as they come."""
    write_declaration(folder)
    land_validation(folder)
    for day in SOME_DAYS:
        land_days(folder, day)


def feed_twice_in_another_order(folder: Path) -> None:
    """Land the same rows again and again: last day first, whole files, and rows in new files."""
    write_declaration(folder)
    for number, day in enumerate(reversed(SOME_DAYS)):
        for stream, frame in zip(("actuals", "predictions"), reversed(customers(day)), strict=True):
            drop(frame, landing(folder, stream) / f"{number}.parquet")
            drop(frame, landing(folder, stream) / f"{number}-again.parquet")
    for stream, rows in zip(("predictions", "actuals"), every_row(), strict=True):
        drop(rows.iloc[::-1], landing(folder, stream) / "5-backwards.parquet")
    land_validation(folder)


def every_row() -> tuple[pd.DataFrame, pd.DataFrame]:
    frames = [customers(day) for day in SOME_DAYS]
    return pd.concat(p for p, _ in frames), pd.concat(a for _, a in frames)


def content(folder: Path) -> tuple[list[str], pd.DataFrame]:
    """Return the inference records without their provenance, and the newest metrics."""
    project = make_project(folder)
    [spec] = load_models(project.models_folder)
    rows = project.store.inference_records(spec).read().to_pylist()
    kept = [sorted((k, v) for k, v in row.items() if k not in PROVENANCE) for row in rows]
    frame = metric_log.newest(project.store.state, MODEL).sort_values(IDENTITY, ignore_index=True)
    project.store.close()
    return sorted(map(repr, kept)), frame[IDENTITY + NUMBERS]


def statuses(folder: Path) -> set[dg.DagsterRunStatus]:
    """Return how the runs ended, as far as Dagster knows."""
    with open_instance(make_project(folder)) as instance:
        return {record.dagster_run.status for record in instance.get_run_records()}


def run_until(folder: Path, step: str) -> None:
    """Do what ``mlmon run`` does, and die without any clean-up when the step is reached."""
    logging.getLogger("dagster").setLevel(logging.WARNING)
    forked.die_at(step)
    project = make_project(folder)
    [spec] = load_models(project.models_folder)
    if not run_model(project, spec, ALWAYS):
        raise SystemExit(1)


def kill_at_each(home: Path, steps: Sequence[str]) -> None:
    """Kill a run of the pipeline at each step and run it again; compare with a clean run.

    Raises:
        AssertionError: If a record or a metric differs.
    """
    feed(home / "clean")
    for step in steps:
        feed_twice_in_another_order(home / step)

    def killed_and_run_again(step: str) -> tuple[int, int]:
        return forked.ended(run_until, home / step, step), forked.ended(run_until, home / step, "")

    with ThreadPoolExecutor(2) as pool:
        clean = pool.submit(forked.ended, run_until, home / "clean", "")
        ended = dict(zip(steps, pool.map(killed_and_run_again, steps), strict=True))
        assert clean.result() == 0
    assert ended == dict.fromkeys(steps, (-signal.SIGKILL, 0))
    records, metrics = content(home / "clean")
    assert len(records) == (3 + 20) * ROWS
    assert set(metrics["window_start"].dt.date) >= {dt.date(2024, 3, 1), dt.date(2024, 3, 3)}
    for step in steps:
        found_records, found_metrics = content(home / step)
        assert found_records == records, step
        assert statuses(home / step) == {
            dg.DagsterRunStatus.SUCCESS,
            dg.DagsterRunStatus.FAILURE,
        }
        pd.testing.assert_frame_equal(found_metrics, metrics, rtol=1e-12, atol=1e-15, obj=step)
