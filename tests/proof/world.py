"""A tiny model, a stream of what can happen to it, and an oracle that folds the stream by itself.

The oracle is plain Python over the events; it shares no code with the store, the SQL or the hashes.
Contents that differ have different times, so that which of them wins needs no tie-break.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlmon_dagster.ingest import ingest_new, readers
from mlmon_dagster.metrics.late_truth.rectified import METHOD
from mlmon_dagster.metrics.performance.weighted_back import COMPLETE
from mlmon_dagster.pipeline.baseline import fit_baseline
from mlmon_dagster.pipeline.run import compute
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, Window, spec_from_mapping, window_containing
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.erasure.erase import erase, resume_erasures
from mlmon_dagster.store.state import manifest, metric_log
from mlmon_dagster.work import Work

NOW = dt.datetime(2024, 2, 10, tzinfo=dt.UTC)
LANDED = 1_700_000_000
DAYS = (1, 2, 3)
PRODUCTION = "production"
COUNTERS = ("n_new", "n_duplicate", "n_conflict", "n_bad")


@dataclass(frozen=True)
class Predicted:
    """A prediction event; two of one id are a conflict, wherever they lie."""

    id: str
    day: int
    variant: int


@dataclass(frozen=True)
class Known:
    """An actual; a later one corrects it, one without a value retracts it."""

    id: str
    hour: int
    value: int | None


@dataclass(frozen=True)
class Erased:
    """A request to erase an id, for ever."""

    id: str


Measured = tuple[int, int, float | None, float | None]  # n, n labelled, accuracy, Brier score
NOTHING: Measured = (0, 0, None, None)
Event = Predicted | Known | Erased


SPEC_MAPPING: dict[str, Any] = {
    "model": "tiny",
    "task": "binary_classification",
    "owners": ["team:proof"],
    "time": {"start": "2024-01-01"},
    "source": {
        "predictions": {"path": "landing/predictions/*", "settle": "0s"},
        "actuals": {"path": "landing/actuals/*", "settle": "0s"},
    },
    "columns": {
        "prediction_id": "id", "event_time": "at", "score": "score",
        "prediction": "decision", "actual": "truth", "actual_time": "known_at",
        "dataset": "dataset",
    },
    "baseline": {"dataset": "training"},
    "actuals": {"expected_within": "30d", "closed_after": "300d", "min_coverage": 0.9},
    "features": {"age": {"type": "numeric"}},
}  # fmt: skip


def make_spec() -> ModelSpec:
    """Return the spec of the tiny model."""
    return spec_from_mapping(SPEC_MAPPING)


def windows(spec: ModelSpec) -> list[Window]:
    """Return the three windows that events lie in."""
    return [window_containing(spec.time, dt.datetime(2024, 1, d, 12, tzinfo=dt.UTC)) for d in DAYS]


def score_of(variant: int) -> float:
    """Return the score of the events of a variant; the decision is whether it is odd."""
    return 0.1 + 0.2 * variant


def _line(event: Event) -> dict[str, Any]:
    if isinstance(event, Predicted):
        return {
            "id": event.id,
            "dataset": "production",
            "at": f"2024-01-0{event.day}T{event.variant:02}:00:00Z",
            "score": score_of(event.variant),
            "decision": event.variant % 2,
            "age": 30.0 + event.variant,
        }
    assert isinstance(event, Known)
    code = 2 if event.value is None else event.value
    known_at = f"2024-02-01T{event.hour:02}:{code:02}:00Z"
    return {"id": event.id, "truth": event.value, "known_at": known_at}


def land(project: Path, name: str, events: Iterable[Event]) -> None:
    """Write the events of each stream to a landing file; none to none."""
    events = list(events)
    for stream, kind in (("predictions", Predicted), ("actuals", Known)):
        lines = [json.dumps(_line(event)) + "\n" for event in events if isinstance(event, kind)]
        if lines:
            path = project / "landing" / stream / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(lines))
            os.utime(path, (LANDED, LANDED))


def step(store: Store, spec: ModelSpec, project: Path, erased: Sequence[str] = ()) -> None:
    """Do what a run does: finish and make erasures, ingest, rebuild what changed."""
    resume_erasures(store, spec, NOW)
    if erased:
        erase(store, spec, list(erased), now=NOW)
    report = ingest_new(store, spec, project, readers(), now=NOW)
    failed = [file.message for file in report.files if file.status in ("failed", "quarantined")]
    assert not failed, failed
    store.inference_records(spec).rebuild(report.windows)


def expected(events: Iterable[Event]) -> dict[str, Any]:
    """Fold a stream into the final records and the metrics of each day."""
    events = set(events)
    gone = {event.id for event in events if isinstance(event, Erased)}
    records = {}
    for id_ in {event.id for event in events if isinstance(event, Predicted)} - gone:
        contents = [e for e in events if isinstance(e, Predicted) and e.id == id_]
        truths = [e for e in events if isinstance(e, Known) and e.id == id_]
        winner = min(contents, key=lambda e: (e.day, e.variant))
        newest = max(
            truths, key=lambda e: (e.hour, 2 if e.value is None else e.value), default=None
        )
        value = None if newest is None else newest.value
        records[id_] = (winner.day, winner.variant, value, len(contents))
    metrics = {day: _folded([r for r in records.values() if r[0] == day]) for day in DAYS}
    n_rows = {
        "predictions": sum(isinstance(e, Predicted) and e.id not in gone for e in events),
        "actuals": sum(isinstance(e, Known) and e.id not in gone for e in events),
    }
    return {"records": records, "metrics": metrics, "log": n_rows}


def _folded(records: Sequence[tuple[int, int, int | None, int]]) -> Measured:
    known = [(variant, value) for _, variant, value, _ in records if value is not None]
    if len(known) < COMPLETE * len(records) or not known:
        return (len(records), len(known), None, None)  # weighted back, see `_metrics`
    right = [variant % 2 == value for variant, value in known]
    errors = [(score_of(variant) - value) ** 2 for variant, value in known]
    n = len(known)
    return (len(records), n, round(sum(right) / n, 9), round(sum(errors) / n, 9))


def observed(store: Store, spec: ModelSpec, project: Path) -> dict[str, Any]:
    """Rebuild and measure all windows; return what the store then says, as the oracle does."""
    measure(store, spec, project)
    return stored(store, spec)


def stored(store: Store, spec: ModelSpec) -> dict[str, Any]:
    """Return what the store says as it is, as the oracle does."""
    found = {
        row["prediction_id"]: (
            row["event_time"].day,
            int(row["age"]) - 30,
            None if row["actual"] is None else int(row["actual"]),
            row["n_prediction_rows"],
        )
        for row in store.inference_records(spec)
        .read(
            datasets=["production"],
            columns=["prediction_id", "event_time", "age", "actual", "n_prediction_rows"],
        )
        .to_pylist()
    }
    log = store.event_log(spec)
    predictions = log.rows("predictions", ["dataset"])["dataset"].to_pylist()
    n_rows = {
        "predictions": predictions.count(PRODUCTION),
        "actuals": log.rows("actuals", ["row_hash"]).num_rows,
    }
    return {"records": found, "metrics": _metrics(store, spec), "log": n_rows}


def measure(store: Store, spec: ModelSpec, project: Path) -> None:
    """Run the steps of all windows, as the assets do."""
    work = work_on(store, spec, project)
    compute(work, ("inference_store", "profiles", "performance"))


def work_on(store: Store, spec: ModelSpec, project: Path) -> Work:
    """Return the three windows, to be worked on."""
    home = Project(project, str(store.folder), now=lambda: NOW)
    home.__dict__["store"] = store  # the one that is open
    return Work(home, spec, tuple(windows(spec)), NOW, "proof", False)


def _metrics(store: Store, spec: ModelSpec) -> dict[int, Measured]:
    frame = metric_log.newest(store.state, spec.model, dataset=PRODUCTION)
    found: dict[int, Measured] = dict.fromkeys(DAYS, NOTHING)
    for day in DAYS:
        mine = frame[frame["window_start"].dt.day == day].set_index("metric")
        if len(mine) and (n := int(mine.loc["predicted_rate", "n"])):
            # What is weighted back is compared by its records alone.
            is_plain = mine.loc["accuracy", "method_version"] != METHOD
            values = [mine.loc[m, "value"] if is_plain else None for m in ("accuracy", "brier")]
            accuracy, brier = (None if pd.isna(v) else round(float(v), 9) for v in values)
            found[day] = (n, int(mine.loc["accuracy", "n"]), accuracy, brier)
    return found


def unbalanced(store: Store, spec: ModelSpec) -> list[str]:
    """Return the files whose counters do not add up, or that are not settled."""
    rows = manifest.load_files_frame(store.state, spec.model).to_dict("records")
    return [
        row["path"]
        for row in rows
        if row["status"] != "done" or row["rows_in"] != sum(row[name] for name in COUNTERS)
    ]


def fresh(template: Path, folder: Path) -> tuple[Store, Path]:
    """Copy a store that is migrated already, since that takes longest."""
    shutil.copytree(template, folder / "store")
    (folder / "project").mkdir()
    return open_store(folder / "store"), folder / "project"


def make_template(folder: Path) -> Path:
    """Make a store to copy, with nothing but a baseline in it."""
    spec, project = make_spec(), folder / "project"
    landing = project / "landing" / "predictions" / "training.jsonl"
    landing.parent.mkdir(parents=True)
    landing.write_text("".join(json.dumps(_trained(n)) + "\n" for n in range(60)))
    os.utime(landing, (LANDED, LANDED))
    store = open_store(folder / "store")
    step(store, spec, project)
    fit_baseline(work_on(store, spec, project))
    store.close()
    return folder / "store"


def _trained(number: int) -> dict[str, Any]:
    score = (number % 10) / 10 + 0.05
    return {
        "id": f"trained-{number}", "dataset": "training", "at": "2023-12-01T00:00:00Z",
        "score": score, "decision": int(score > 0.5), "age": 30.0 + number % 4,
    }  # fmt: skip
