"""One model twice: from landing files, and in the tables of its owner, through the same history."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from click.testing import CliRunner, Result
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.table import Table

from mlmon_dagster.cli import cli
from mlmon_dagster.ingest import IngestReport
from mlmon_dagster.project import Project, project_from_environment
from mlmon_dagster.spec import ModelSpec, load_model
from mlmon_dagster.store.state import manifest, metric_log, monitor_results
from mlmon_dagster.warehouse.look import look_at_tables

Kind = Literal["delta", "iceberg", "sql", "xmin"]
MODEL, URL_ENV, CATALOG_ENV = "credit", "OWNER_URL", "OWNER_CATALOG"
FIRST = pd.Timestamp("2026-03-01", tz="UTC")
DAY = pd.Timedelta(days=1)
OLDER = 4  # days of the baseline
ROWS: Final = 160
SPEC = """
model: credit
task: binary_classification
owners: [team:risk]
time: {start: 2026-03-01}
source:
  predictions: %s
  actuals: %s
columns: {prediction_id: id, event_time: at, score: score, prediction: decision, actual: defaulted,
          actual_time: known_at, model_version: version, latency_ms: ms, dataset: dataset}
actuals: {expected_within: 1d, closed_after: 90d}
features:
  age: {type: numeric, nullable: true}
  region: {type: categorical}
slices: [region]
"""
SOURCES: Mapping[str, str] = {
    "files": "{path: 'landing/%s/*.parquet', settle: 0s}",
    "delta": "{delta: owned/%s, in_place: true}",
    "iceberg": "{iceberg: owned.%s, config_env: OWNER_CATALOG}",
    "sql": "{sql: %s, url_env: OWNER_URL, in_place: true, "
    "cursor: {column: changed_at, kind: time}}",
    "xmin": "{sql: %s, url_env: OWNER_URL, in_place: true, cursor: {column: xmin, kind: xmin}}",
}
_TIME = pa.timestamp("us", "UTC")


def draw_predictions(rng: np.random.Generator, day: pd.Timestamp, n: int = ROWS) -> pd.DataFrame:
    """Draw a day's predictions, and what they turned out to be."""
    score = rng.beta(2, 4, n)
    age = rng.normal(40, 9, n)
    age[rng.random(n) < 0.05] = np.nan
    return pd.DataFrame(
        {
            "id": [f"{day:%d}-{i}" for i in range(n)],
            "at": day + pd.to_timedelta(rng.integers(0, 86_399, n), unit="s"),
            "score": score, "decision": (score > 0.5).astype(int),
            "version": np.where(rng.random(n) < 0.5, "a", "b"), "ms": rng.gamma(2, 20, n),
            "dataset": "production" if day >= FIRST else "validation",
            "age": age, "region": rng.choice(["north", "south", "west"], n),
            "truth": (rng.random(n) < score).astype(int),
        }
    )  # fmt: skip


def draw_labels(of: pd.DataFrame, known_at: pd.Timestamp) -> pd.DataFrame:
    """Return the ground truth of some predictions."""
    return pd.DataFrame(
        {"id": of["id"], "defaulted": of["truth"].astype("Float64"), "known_at": known_at,
         "dataset": of["dataset"]}
    )  # fmt: skip


@dataclass
class Twins:
    """Two projects, one of files and one in place.

    Attributes:
        folder: Of both.
        kind: Of the tables.
        url: Of the database with the owner's tables.
        now: What clocks show.
    """

    folder: Path
    kind: Kind
    url: str = ""
    now: pd.Timestamp = FIRST
    n_landed: int = 0

    def __post_init__(self) -> None:
        for name in ("files", self.kind):
            (self.folder / name / "models").mkdir(parents=True)
            text = SPEC % (SOURCES[name] % "predictions", SOURCES[name] % "actuals")
            (self.folder / name / "models" / f"{MODEL}.yaml").write_text(text)
        self.engine = sa.create_engine(self.url) if self.url else None

    @property
    def owned(self) -> Path:
        """The project whose rows stay where they are."""
        return self.folder / self.kind

    def write(self, stream: str, frame: pd.DataFrame, *, may_land: bool = True) -> None:
        """Let rows come: as a file, and into the owner's table."""
        rows = frame.drop(columns="truth", errors="ignore")
        table = pa.Table.from_pandas(rows, preserve_index=False)
        for name in ("at", "known_at"):
            if name in table.column_names:
                place = table.schema.get_field_index(name)
                table = table.set_column(place, name, table[name].cast(_TIME))
        if may_land:
            self.n_landed += 1
            path = self.folder / "files" / "landing" / stream / f"{self.n_landed:03}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path)
        if self.engine is not None:
            rows.assign(changed_at=self.now).to_sql(
                stream, self.engine, if_exists="append", index=False
            )
            return
        if self.kind == "iceberg":
            self.append_iceberg(stream, table)
        else:
            write_deltalake(self.owned / "owned" / stream, table, mode="append")
        self.date_commit(stream)

    def delta(self, stream: str) -> DeltaTable:
        """The owner's Delta table."""
        return DeltaTable(self.owned / "owned" / stream)

    @property
    def environ(self) -> dict[str, str]:
        """The variables that the owner's tables are reached with."""
        if self.kind == "iceberg":
            return {CATALOG_ENV: json.dumps(self.catalog)}
        return {URL_ENV: self.url} if self.url else {}

    @property
    def catalog(self) -> dict[str, str]:
        """The properties of the owner's Iceberg catalog."""
        home = self.owned / "owned"
        home.mkdir(exist_ok=True)
        return {"type": "sql", "uri": f"sqlite:///{home}/catalog.db", "warehouse": f"file://{home}"}

    def open_catalog(self) -> Catalog:
        """The owner's Iceberg catalog."""
        return load_catalog("mlmon", **self.catalog)

    def iceberg(self, stream: str) -> Table:
        """The owner's Iceberg table."""
        return self.open_catalog().load_table(f"owned.{stream}")

    def append_iceberg(self, stream: str, rows: pa.Table) -> None:
        """Let rows come into an Iceberg table; one with other columns gets those, too."""
        catalog = self.open_catalog()
        catalog.create_namespace_if_not_exists("owned")
        is_new = not catalog.table_exists(f"owned.{stream}")
        table = catalog.create_table_if_not_exists(f"owned.{stream}", schema=rows.schema)
        if is_new and "region" in rows.column_names:
            with table.update_spec() as partitions:
                partitions.add_identity("region")
        with table.update_schema() as update:
            update.union_by_name(rows.schema)
        table.append(rows)

    def date_commit(self, stream: str) -> None:
        """Let the newest commit be of the moment that clocks show, not of the test's."""
        millis = int(self.now.timestamp() * 1000)
        if self.kind == "iceberg":
            table = self.iceberg(stream)
            path = Path(table.metadata_location.removeprefix("file://"))
            told = json.loads(path.read_text())
            for noted in (*told["snapshots"], *told["snapshot-log"]):
                if noted["snapshot-id"] == told["current-snapshot-id"]:
                    noted["timestamp-ms"] = millis
            path.write_text(json.dumps(told))
            return
        version = self.delta(stream).version()
        entry = self.owned / "owned" / stream / "_delta_log" / f"{version:020d}.json"
        text = re.sub(r'"modificationTime":\d+', f'"modificationTime":{millis}', entry.read_text())
        entry.write_text(text)

    def ask(self, *command: str) -> str:
        """Run a command on the project whose rows stay where they are; return what it prints."""
        result = self._invoke(self.kind, *command)
        assert result.exit_code == 0, result.output
        return result.output

    def ask_doctor(self) -> str:
        """Return what doctor says of the project whose rows stay where they are."""
        return self._invoke(self.kind, "doctor").output

    def _invoke(self, name: str, *command: str) -> Result:
        asked = ["--project", str(self.folder / name), "--now", self.now.isoformat(), *command]
        return CliRunner().invoke(cli, asked, env=self.environ)

    def look(self) -> None:
        """Run both."""
        for name in ("files", self.kind):
            result = self._invoke(name, "run")
            if result.exception and not isinstance(result.exception, SystemExit):
                raise result.exception

    def project(self, name: str) -> Project:
        """One of the two, as of the last look."""
        moment = self.now.to_pydatetime()
        return project_from_environment(
            self.folder / name, environ=self.environ, now=lambda: moment
        )

    def find_differences(self) -> list[str]:
        """Return what the two say differently: metrics to 1e-9, verdicts and their sentences."""
        files, owned = self.project("files"), self.project(self.kind)
        try:
            return [
                *_compare_metrics(
                    *(metric_log.newest(p.store.state, MODEL) for p in (files, owned))
                ),
                *_compare_verdicts(files, owned),
            ]
        finally:
            files.store.close()
            owned.store.close()


_KEYS = ["window_start", "dataset", "model_version", "slice_key", "slice_value", "column_name",
         "metric"]  # fmt: skip


@dataclass
class Owned:
    """A model in place, of which only looks are made.

    Attributes:
        twins: Its tables.
        lived: Predictions of the days that came.
    """

    twins: Twins
    lived: list[pd.DataFrame]

    def look(self) -> IngestReport:
        """Look at the tables an hour later."""
        self.twins.now += pd.Timedelta(hours=1)
        project = self.twins.project(self.twins.kind)
        try:
            return look_at_tables(project.find_owner(self.spec), wait_seconds=1)
        finally:
            project.store.close()

    def list_refused(self) -> dict[tuple[str, str], int]:
        """Count the refused rows of no window by stream and reason."""
        project = self.twins.project(self.twins.kind)
        rows = manifest.load_refused_rows(project.store.state, "credit", is_unplaced=True)
        project.store.close()
        return dict(Counter(zip(rows["stream"], rows["reason"], strict=True)))

    def delete(self, stream: str, where: str) -> None:
        """Delete rows of an owner's table."""
        if self.twins.kind == "iceberg":
            self.twins.iceberg(stream).delete(where)
            return
        if self.twins.engine is None:
            self.twins.delta(stream).delete(where)
            return
        with self.twins.engine.begin() as conn:
            conn.execute(sa.text(f"DELETE FROM {stream} WHERE {where}"))

    @property
    def spec(self) -> ModelSpec:
        """As declared now."""
        return load_model(self.twins.owned / "models" / "credit.yaml")

    def touched(self) -> list[str]:
        """The days that a look finds changed."""
        return [window.key for window in self.look().windows]


def live_three_days(twins: Twins) -> Owned:
    """Let three days come, labelled, and look at them."""
    rng = np.random.default_rng(4)
    twins.now = FIRST + 4 * DAY
    owned = Owned(twins, [draw_predictions(rng, FIRST + n * DAY) for n in range(3)])
    for frame in owned.lived:
        twins.write("predictions", frame, may_land=False)
        twins.write("actuals", draw_labels(frame, twins.now), may_land=False)
    assert owned.touched() == ["2026-03-01", "2026-03-02", "2026-03-03"]
    return owned


def _compare_metrics(files: pd.DataFrame, owned: pd.DataFrame) -> list[str]:
    both = files.merge(owned, on=_KEYS, how="outer", suffixes=("", "_owned"), indicator=True)
    alone = both["_merge"] != "both"
    values = both["value"].to_numpy(float), both["value_owned"].to_numpy(float)
    differ = alone | ~np.isclose(*values, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert len(files) > 50
    return [str(row) for row in both[differ][[*_KEYS, "value", "value_owned"]].to_numpy().tolist()]


def _compare_verdicts(files: Project, owned: Project) -> list[str]:
    keys = ["monitor", "slice_key", "slice_value", "window_start"]
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    found = []
    for project in (files, owned):
        rows = monitor_results.newest(
            project.store.state, MODEL, start, start + dt.timedelta(days=9999), None
        )
        said = rows[[*keys, "status", "reason", "message"]].astype(str)
        # Of files it is told what was sent with each, and in place what is there.
        mine = said[~said["monitor"].isin(["schema/duplicate_rate", "schema/conflict_rate"])]
        found.append({tuple(row[:4]): tuple(row[4:]) for row in mine.to_numpy().tolist()})
    assert found[0]
    return [
        json.dumps([*key, found[0].get(key), found[1].get(key)])
        for key in sorted({*found[0], *found[1]})
        if found[0].get(key) != found[1].get(key)
    ]
