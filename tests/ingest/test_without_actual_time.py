"""Ground truth that has no time of its own: what arrived last is the newest."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

import pytest

from mlmon_dagster.ingest import IngestReport
from mlmon_dagster.spec import ModelSpec, spec_from_mapping
from mlmon_dagster.store import Store
from tests.ingest.landing import (
    ACTUALS,
    LANDED,
    NOW,
    PREDICTIONS,
    credit_spec,
    dying_at,
    events,
    ingest,
    land,
    truths,
)

Truths = dict[str, int | None]


@pytest.fixture
def spec() -> ModelSpec:
    """The model without the optional role."""
    values = credit_spec().model_dump(exclude_unset=True, by_alias=True)
    del values["columns"]["actual_time"]
    return spec_from_mapping(values)


def tell(project: Path, name: str, known: Truths, minute: int = 0) -> None:
    """Land a file of ground truth that was written at some minute."""
    frame = truths(len(known), id=list(known), defaulted=list(known.values()))
    frame["defaulted"] = frame["defaulted"].astype("Int64")
    path = land(project, f"{ACTUALS}/{name}.csv", frame.drop(columns="known_at"))
    os.utime(path, (LANDED + 60 * minute,) * 2)


def take_in(store: Store, spec: ModelSpec, project: Path, **options: Any) -> IngestReport:
    report = ingest(store, spec, project, **options)
    store.inference_records(spec).rebuild(report.windows)
    return report


def known(store: Store, spec: ModelSpec) -> Truths:
    rows = store.inference_records(spec).read(columns=["prediction_id", "actual"]).to_pylist()
    return {row["prediction_id"]: row["actual"] for row in rows if row["actual"] is not None}


def test_a_correction_wins_whatever_it_says(store: Store, spec: ModelSpec, project: Path) -> None:
    land(project, f"{PREDICTIONS}/a.parquet", events(4))
    tell(project, "a", {"p0": 0, "p1": 1, "p2": 0})
    take_in(store, spec, project)
    tell(project, "b", {"p0": 1, "p1": 0, "p2": None, "p3": 1})

    (file,) = take_in(store, spec, project).files

    assert (file.status, file.n_new, file.n_duplicate, file.n_conflict) == ("done", 4, 0, 0)
    assert known(store, spec) == {"p0": 1, "p1": 0, "p3": 1}


def test_what_is_known_is_a_duplicate_and_what_comes_back_is_a_correction(
    store: Store, spec: ModelSpec, project: Path
) -> None:
    land(project, f"{PREDICTIONS}/a.parquet", events(4))
    for name, told in (("a", {"p0": 0, "p1": 1}), ("b", {"p0": 1, "p1": 1, "p2": 1})):
        tell(project, name, told)
        (*_, file) = take_in(store, spec, project).files
    assert (file.n_new, file.n_duplicate) == (2, 1)
    tell(project, "c", {"p0": 0, "p1": 1, "p2": 1, "p3": 0})

    (file,) = take_in(store, spec, project).files

    assert (file.n_new, file.n_duplicate) == (2, 2)
    assert known(store, spec) == {"p0": 0, "p1": 1, "p2": 1, "p3": 0}


def test_of_files_found_together_the_one_written_last_wins_and_of_rows_the_last(
    store: Store, spec: ModelSpec, project: Path
) -> None:
    land(project, f"{PREDICTIONS}/a.parquet", events(4))
    for minute, (name, p0, p1) in enumerate([("d", 0, 1), ("b", 1, 0), ("c", 0, 0), ("a", 1, 1)]):
        tell(project, name, {"p0": p0, "p1": p1}, minute)
    tell(project, "e", {"p2": 0}, 1)
    frame = truths(3, id=["p3", "p3", "p3"], defaulted=[1, 0, 1]).drop(columns="known_at")
    land(project, f"{ACTUALS}/f.csv", frame)

    report = take_in(store, spec, project)

    assert sum(f.n_new for f in report.files if f.stream == "actuals") == 11
    assert known(store, spec) == {"p0": 1, "p1": 1, "p2": 0, "p3": 1}


def test_a_clock_that_was_set_back_does_not_undo_a_correction(
    store: Store, spec: ModelSpec, project: Path
) -> None:
    land(project, f"{PREDICTIONS}/a.parquet", events(2))
    tell(project, "a", {"p0": 0})
    take_in(store, spec, project)
    tell(project, "b", {"p0": 1})

    take_in(store, spec, project, now=NOW - dt.timedelta(days=1))

    assert known(store, spec) == {"p0": 1}


@pytest.mark.parametrize("step", ["ingest.before_append", "ingest.after_append"])
def test_an_interrupted_run_counts_and_knows_the_same(
    store: Store, spec: ModelSpec, project: Path, step: str
) -> None:
    land(project, f"{PREDICTIONS}/a.parquet", events(4))
    tell(project, "a", {"p0": 0, "p1": 1})
    take_in(store, spec, project)
    tell(project, "b", {"p0": 1, "p1": 1}, 1)
    tell(project, "c", {"p0": 0, "p1": 1, "p2": 1}, 2)

    with dying_at(step):
        take_in(store, spec, project)

    files = {file.path: file for file in take_in(store, spec, project).files}
    counts = {path[-5:]: (file.n_new, file.n_duplicate) for path, file in files.items()}

    assert counts == {"b.csv": (1, 1), "c.csv": (2, 1)}
    assert known(store, spec) == {"p0": 0, "p1": 1, "p2": 1}


def test_ground_truth_waits_for_its_prediction_and_keeps_its_order(
    store: Store, spec: ModelSpec, project: Path
) -> None:
    for name, told in (("a", {"p0": 0, "p1": 1}), ("b", {"p0": 1}), ("c", {"p1": None})):
        tell(project, name, told)
        take_in(store, spec, project)
    land(project, f"{PREDICTIONS}/a.parquet", events(2))

    take_in(store, spec, project)

    assert known(store, spec) == {"p0": 1}
