"""A Delta table is read version by version: each row once, and what is gone is told."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.ingest.sources.delta import check_source
from mlmon_dagster.ingest.sources.polling import Surroundings
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import DeltaSource
from mlmon_dagster.store import Store
from tests.ingest.landing import credit_spec, ingest
from tests.ingest.sql_world import ids_of

PLACE = "warehouse/scores"
COLUMNS = {
    "prediction_id": "id", "event_time": "at", "score": "score", "prediction": "decision",
    "actual": "defaulted", "actual_time": "known_at",
}  # fmt: skip


def delta_spec(**changes: Any) -> ModelSpec:
    features = {"age": {"type": "numeric", "nullable": True}, "region": {"type": "categorical"}}
    return credit_spec(
        source__predictions={"delta": PLACE, **changes}, columns=COLUMNS, features=features
    )


SPEC = delta_spec()


def rows_of(ids: Sequence[str], region: str = "north") -> pa.Table:
    n = len(ids)
    return pa.table(
        {
            "id": list(ids),
            "at": pa.array([1706774400_000_000] * n, pa.timestamp("us", "UTC")),
            "score": [0.5] * n,
            "decision": [1] * n,
            "age": [30.0] * n,
            "region": [region] * n,
            "unused": ["x"] * n,
        }
    )


def write(project: Path, *ids: str, mode: str = "append", region: str = "north") -> None:
    place = project / PLACE
    place.mkdir(parents=True, exist_ok=True)
    write_deltalake(place, rows_of(ids, region), mode=mode, partition_by=["region"])


def test_every_version_is_read_once(store: Store, project: Path) -> None:
    write(project, "a", "b")
    write(project, "c", region="south")
    first = ingest(store, SPEC, project)
    assert ids_of(store, SPEC) == ["a", "b", "c"]
    assert ingest(store, SPEC, project).files == ()

    write(project, "d")
    write(project, "e", region="west")
    second = ingest(store, SPEC, project)

    assert ids_of(store, SPEC) == ["a", "b", "c", "d", "e"]
    names = [file.path for report in (first, second) for file in report.files]
    assert names == [f"delta:{PLACE}/v{v}/{n}.parquet" for v, n in ((1, 1), (2, 1), (3, 2))]
    assert sum(file.n_duplicate for file in second.files) == 0
    regions = store.event_log(SPEC).rows("predictions")["region"].to_pylist()
    assert sorted(regions) == ["north", "north", "north", "south", "west"]


def test_rows_that_are_only_arranged_anew_are_not_read_again(store: Store, project: Path) -> None:
    for name in "abc":
        write(project, name)
    ingest(store, SPEC, project)
    DeltaTable(project / PLACE).optimize.compact()
    write(project, "d")

    report = ingest(store, SPEC, project)

    assert [(file.n_new, file.n_duplicate) for file in report.files] == [(1, 0)]
    assert ids_of(store, SPEC) == ["a", "b", "c", "d"]


def test_versions_whose_log_is_gone_are_read_from_what_is_left_and_told(
    store: Store, project: Path
) -> None:
    write(project, "a")
    ingest(store, SPEC, project)
    write(project, "b")
    write(project, "c")
    table = DeltaTable(project / PLACE)
    table.create_checkpoint()
    (project / PLACE / "_delta_log" / f"{1:020d}.json").unlink()

    report = ingest(store, SPEC, project)

    assert ids_of(store, SPEC) == ["a", "b", "c"]
    [told] = [file.message for file in report.files if file.status == "skipped"]
    assert "versions 1 to 2 are no longer all there" in told
    assert sum(file.n_duplicate for file in report.files) == 1
    assert ingest(store, SPEC, project).files == ()


def test_large_versions_become_several_batches(store: Store, project: Path) -> None:
    spec = delta_spec(batch_rows=2)
    write(project, *"abcde")

    report = ingest(store, spec, project)

    assert [file.n_new for file in report.files] == [2, 2, 1]


def test_what_is_wrong_with_a_table_is_said(project: Path) -> None:
    source = SPEC.source.predictions
    assert isinstance(source, DeltaSource)
    around = Surroundings(project, {}.get)
    with pytest.raises(ConfigError, match="does not exist"):
        check_source(SPEC, "predictions", source, around)
    write(project, "a")
    assert check_source(SPEC, "predictions", source, around) == (
        f"Delta table {PLACE}, version 0, 6 columns"
    )
    renamed = credit_spec(
        source__predictions={"delta": PLACE}, columns={**COLUMNS, "score": "scor"}
    )
    with pytest.raises(ConfigError, match="no column 'scor'; did you mean 'score'"):
        check_source(renamed, "predictions", source, around)
    (project / PLACE / "_delta_log" / f"{0:020d}.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        check_source(SPEC, "predictions", source, around)


def test_a_table_that_was_restored_from_a_copy_and_counted_on_is_read_again(
    store: Store, project: Path
) -> None:
    write(project, "a")
    shutil.copytree(project / PLACE, project / "copy")
    write(project, "b")
    ingest(store, SPEC, project)
    write(project, "never read")
    shutil.rmtree(project / PLACE)
    shutil.copytree(project / "copy", project / PLACE)
    for name in "cde":
        write(project, name)

    report = ingest(store, SPEC, project)

    assert ids_of(store, SPEC) == ["a", "b", "c", "d", "e"]
    [told] = [file.message for file in report.files if file.status == "skipped"]
    assert "version 1 is not the one that was read" in told
    assert "lost, an unknown number" in told
    assert ingest(store, SPEC, project).files == ()


def test_a_column_that_is_gone_is_read_from_the_versions_that_had_it(
    store: Store, project: Path
) -> None:
    write(project, "a")
    ingest(store, SPEC, project)
    write(project, "b")
    rows = rows_of(["c"]).drop_columns(["age"])
    write_deltalake(
        project / PLACE, rows, mode="overwrite", schema_mode="overwrite", partition_by=["region"]
    )

    ingest(store, SPEC, project)

    log = store.event_log(SPEC).rows("predictions")
    assert dict(zip(log["prediction_id"].to_pylist(), log["age"].to_pylist(), strict=True)) == {
        "a": 30.0, "b": 30.0, "c": None,
    }  # fmt: skip
