"""A small model with landing folders, good and bad files, and the store's content to compare."""

from __future__ import annotations

import datetime as dt
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlmon_dagster.ingest import IngestReport, ingest_new, readers
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.spec import ModelSpec, spec_from_mapping
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import manifest, writing
from tests.conftest import list_windows

NOW = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
LANDED = 1_709_000_000  # when files were last changed, by the clock of their producer
PREDICTIONS = "landing/predictions"
ACTUALS = "landing/actuals"

_SPEC: dict[str, Any] = {
    "model": "credit",
    "task": "binary_classification",
    "owners": ["team:risk"],
    "time": {"zone": "Europe/Berlin", "start": "2024-01-01"},
    "source": {
        "predictions": {"path": f"{PREDICTIONS}/*", "settle": "0s"},
        "actuals": {"path": f"{ACTUALS}/*", "settle": "0s"},
    },
    "columns": {
        "prediction_id": "id",
        "event_time": "at",
        "score": "score",
        "prediction": "decision",
        "actual": "defaulted",
        "actual_time": "known_at",
        "dataset": "dataset",
        "model_version": "version",
        "latency_ms": "latency_ms",
        "status": "status",
    },
    "features": {
        "age": {"type": "numeric", "nullable": True},
        "region": {"type": "categorical"},
        "member": {"type": "boolean", "nullable": True},
    },
}


def credit_spec(**changes: Any) -> ModelSpec:
    """Return the model's spec; a change named a__b__c sets the key c below b below a."""
    values = _copy(_SPEC)
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = values
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return spec_from_mapping(values)


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


SPEC = credit_spec()


def events(n: int = 12, first: int = 0, day: str = "2024-02-01", **changes: Any) -> pd.DataFrame:
    """Return n good prediction events as a producer has them; changes replace whole columns."""
    numbers = range(first, first + n)
    columns = {
        "id": [f"p{i}" for i in numbers],
        "at": [pd.Timestamp(f"{day}T08:00:00Z") + pd.Timedelta(minutes=i) for i in numbers],
        "score": [(i % 10) / 10 + 0.05 for i in numbers],
        "decision": [i % 2 for i in numbers],
        "dataset": ["production"] * n,
        "version": ["7"] * n,
        "latency_ms": [12.5 + i for i in numbers],
        "status": ["ok"] * n,
        "age": [30.0 + i for i in numbers],
        "region": ["north" if i % 3 else "south" for i in numbers],
        "member": [i % 2 == 0 for i in numbers],
    }
    return pd.DataFrame({**columns, **changes})


def truths(n: int = 12, first: int = 0, day: str = "2024-02-03", **changes: Any) -> pd.DataFrame:
    """Return the actuals of n events."""
    numbers = range(first, first + n)
    columns = {
        "id": [f"p{i}" for i in numbers],
        "defaulted": [i % 2 for i in numbers],
        "known_at": [pd.Timestamp(f"{day}T08:00:00Z")] * n,
    }
    return pd.DataFrame({**columns, **changes})


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """Write a frame as CSV, times with an offset."""
    out = frame.copy()
    for name in out.columns:
        if isinstance(out[name].dtype, pd.DatetimeTZDtype):
            out[name] = [t.isoformat() if t is not pd.NaT else None for t in out[name]]
    return out.to_csv(index=False).encode()


def jsonl_bytes(frame: pd.DataFrame) -> bytes:
    """Write a frame as JSON Lines."""
    text = frame.to_json(orient="records", lines=True, date_format="iso", date_unit="us")
    return text.encode()


def parquet_bytes(frame: pd.DataFrame | pa.Table) -> bytes:
    """Write a frame or table as Parquet."""
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame)
    out = io.BytesIO()
    pq.write_table(table, out, write_page_checksum=True)
    return out.getvalue()


def land(project: Path, name: str, content: bytes | pd.DataFrame) -> Path:
    """Put a file into a landing folder; frames are written in the format of the name."""
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pd.DataFrame):
        write = {".csv": csv_bytes, ".jsonl": jsonl_bytes, ".parquet": parquet_bytes}[path.suffix]
        content = write(content)
    path.write_bytes(content)
    os.utime(path, (LANDED, LANDED))
    return path


def ingest(store: Store, spec: ModelSpec, project: Path, **options: Any) -> IngestReport:
    """Ingest at the tests' present moment."""
    return ingest_new(store, spec, project, **{"readers": readers(), "now": NOW, **options})


_WHERE_FROM = {"file_sha", "row_number", "ingested_at"}


def log_content(store: Store, spec: ModelSpec, *, provenance: bool) -> dict[str, list[str]]:
    """Return the rows of both logs in a fixed order, with or without where they came from."""
    found = {}
    for stream in ("predictions", "actuals"):
        rows = store.event_log(spec).rows(stream).to_pylist()
        dropped = set() if provenance else _WHERE_FROM
        if stream == "actuals" and not provenance:
            dropped = dropped | {"window_date"}  # it says whether the prediction came first
        found[stream] = sorted(
            repr(sorted((k, v) for k, v in row.items() if k not in dropped)) for row in rows
        )
    return found


def files_of(store: Store, spec: ModelSpec) -> list[dict[str, Any]]:
    """Return the manifest's rows."""
    frame = manifest.load_files_frame(store.state, spec.model)
    return frame.sort_values(["stream", "sha256"]).astype(str).to_dict("records")


def letters_of(store: Store, spec: ModelSpec, with_hashes: bool = False) -> list[dict[str, Any]]:
    """Return the dead letters, by default without the hashes, whose key each store draws."""
    letters = manifest.load_refused_rows(store.state, spec.model)
    if not with_hashes:
        letters = letters.drop(columns=["id_hash", "row_hash"])
    return letters.astype(str).to_dict("records")


def revisions(store: Store, spec: ModelSpec) -> dict[str, int]:
    """Return the input revision by window start."""
    frame = list_windows(store, spec.model)
    return dict(zip(frame["window_start"].astype(str), frame["input_revision"], strict=True))


def record_content(store: Store, spec: ModelSpec) -> tuple[list[str], list[str]]:
    """Rebuild the records of every touched window; return them and their fingerprints."""
    from mlmon_dagster.spec import window_containing

    frame = list_windows(store, spec.model)
    windows = [window_containing(spec.time, t.to_pydatetime()) for t in frame["window_start"]]
    records = store.inference_records(spec)
    counts = records.rebuild(windows)
    return sorted(map(repr, records.read().to_pylist())), sorted(map(repr, counts))


def everything(store: Store, spec: ModelSpec) -> dict[str, Any]:
    """Return all that an ingest leaves behind."""
    return {
        "log": log_content(store, spec, provenance=True),
        "files": files_of(store, spec),
        "letters": letters_of(store, spec),
        "revisions": revisions(store, spec),
        "records": record_content(store, spec),
        "paths": {
            name: replace(seen, mark="")  # each file system numbers its files by itself
            for stream in ("predictions", "actuals")
            for name, seen in manifest.load_paths(store.state, spec.model, stream).items()
        },
        "staging": sorted(p.name for p in (store.folder / "staging").rglob("*") if p.is_file()),
        "quarantine": sorted(p.name for p in (store.folder / "quarantine").rglob("*.*")),
    }


@contextmanager
def dying_at(step: str) -> Iterator[None]:
    """Let the program end where it reaches a step."""

    def die(reached: str) -> None:
        if reached == step:
            raise KeyboardInterrupt

    writing.on_reached = die
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        writing.on_reached = None


@dataclass(frozen=True)
class World:
    """A project folder and a store of the credit model, or of another spec where one is given."""

    store: Store
    project: Path

    def land(self, name: str, content: bytes | pd.DataFrame) -> Path:
        """Put a file into a landing folder."""
        return land(self.project, name, content)

    def ingest(self, spec: ModelSpec = SPEC, **options: Any) -> IngestReport:
        """Ingest what has landed."""
        return ingest(self.store, spec, self.project, **options)

    def take_in(
        self, content: bytes | pd.DataFrame, spec: ModelSpec = SPEC, name: str = "a.csv"
    ) -> FileReport:
        """Ingest one file of predictions."""
        self.land(f"{PREDICTIONS}/{name}", content)
        (file,) = self.ingest(spec).files
        return file

    def rows(self, spec: ModelSpec = SPEC, stream: Stream = "predictions") -> list[dict[str, Any]]:
        """Return what is in the log."""
        found: list[dict[str, Any]] = self.store.event_log(spec).rows(stream).to_pylist()
        return found

    def files(self, spec: ModelSpec = SPEC) -> list[dict[str, Any]]:
        """Return the manifest's rows."""
        return files_of(self.store, spec)

    def letters(self, spec: ModelSpec = SPEC) -> list[dict[str, Any]]:
        """Return the dead letters."""
        return letters_of(self.store, spec)
