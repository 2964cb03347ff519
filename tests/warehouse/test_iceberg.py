"""Iceberg tables in place: what is refused, what is found, and what is not read."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table.update import RemoveSchemasUpdate
from pyiceberg.typedef import Record

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import parse_model
from tests.warehouse.owned_world import (
    CATALOG_ENV,
    DAY,
    FIRST,
    SPEC,
    Owned,
    Twins,
    draw_labels,
    live_three_days,
)


@pytest.fixture
def owned(tmp_path: Path) -> Owned:
    return live_three_days(Twins(tmp_path / "twins", "iceberg"))


def draw_file(path: str, **given: object) -> DataFile:
    """Return what a table would say of a file."""
    return DataFile.from_args(**{
        "content": DataFileContent.DATA, "file_path": path, "file_format": FileFormat.PARQUET,
        "partition": Record(), "record_count": 1, "file_size_in_bytes": 10, "column_sizes": {},
        "value_counts": {}, "null_value_counts": {}, "nan_value_counts": {}, "lower_bounds": {},
        "upper_bounds": {}, "key_metadata": None, "split_offsets": None, "equality_ids": None,
        "sort_order_id": None,
    } | given)  # fmt: skip


def failed_message(owned: Owned) -> str:
    [report] = owned.look().files
    assert report.status == "failed"
    return report.message


def test_what_the_owner_arranges_anew_touches_no_day_and_what_changes_does(owned: Owned) -> None:
    for stream in ("predictions", "actuals"):
        table = owned.twins.iceberg(stream)
        table.overwrite(table.scan().to_arrow())
    assert owned.touched() == []
    table = owned.twins.iceberg("predictions")
    rows = table.scan("id = '01-3'").to_arrow().to_pandas()
    table.overwrite(
        pa.Table.from_pandas(rows.assign(age=99.0), schema=table.schema().as_arrow()),
        overwrite_filter="id = '01-3'",
    )
    assert owned.touched() == ["2026-03-01"]
    owned.delete("predictions", "id = '03-7'")
    owned.delete("actuals", "id = '02-7'")
    assert owned.touched() == ["2026-03-02", "2026-03-03"]


def test_snapshots_that_have_expired_mean_that_all_days_are_computed_again(owned: Owned) -> None:
    table = owned.twins.iceberg("actuals")
    seen = table.current_snapshot()
    assert seen is not None
    owned.twins.write("actuals", draw_labels(owned.lived[1].head(2), owned.twins.now),
                      may_land=False)  # fmt: skip
    owned.twins.iceberg("actuals").maintenance.expire_snapshots().by_id(seen.snapshot_id).commit()
    report = owned.look()
    assert len(report.windows) == 3
    assert f"snapshot {seen.snapshot_id} has expired" in report.again
    assert owned.touched() == []


def test_another_table_of_the_name_is_read_as_a_whole(owned: Owned) -> None:
    table = owned.twins.iceberg("actuals")
    rows = table.scan().to_arrow()
    owned.twins.open_catalog().drop_table("owned.actuals")
    owned.twins.append_iceberg("actuals", rows)
    report = owned.look()
    assert len(report.windows) == 3
    assert "another table is at its place" in report.again


def test_a_table_with_a_renamed_column_is_refused(owned: Owned) -> None:
    with owned.twins.iceberg("predictions").update_schema() as update:
        update.rename_column("age", "years")
    said = failed_message(owned)
    assert "its column 'age' was renamed" in said
    assert "CREATE TABLE ... AS SELECT" in said


def test_a_column_that_was_dropped_and_added_again_is_refused(owned: Owned) -> None:
    from pyiceberg.types import DoubleType

    with owned.twins.iceberg("predictions").update_schema() as update:
        update.delete_column("ms")
    with owned.twins.iceberg("predictions").update_schema() as update:
        update.add_column("ms", DoubleType())
    assert "dropped and added again" in failed_message(owned)


@pytest.mark.parametrize(
    ("content", "format_", "said"),
    [
        (DataFileContent.POSITION_DELETES, FileFormat.PARQUET, "files of deleted rows"),
        (DataFileContent.DATA, FileFormat.ORC, "only Parquet is read"),
    ],
)
def test_files_that_would_be_read_wrongly_are_refused(
    owned: Owned, content: DataFileContent, format_: FileFormat, said: str
) -> None:
    table = owned.twins.iceberg("actuals")
    file = draw_file(f"{table.location()}/other", content=content, file_format=format_)
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        append.append_data_file(file)
    assert said in failed_message(owned)


def test_a_renamed_column_is_found_in_files_whose_schema_was_removed(owned: Owned) -> None:
    with owned.twins.iceberg("predictions").update_schema() as update:
        update.rename_column("age", "years")
    with owned.twins.iceberg("predictions").update_schema() as update:
        update.rename_column("years", "age")
    table, number = owned.twins.iceberg("predictions"), 1
    assert "years" in next(s for s in table.metadata.schemas if s.schema_id == number).column_names
    table.append(table.scan("id = '01-3'").to_arrow().slice(0, 0))
    table.catalog.commit_table(table, (), (RemoveSchemasUpdate(schema_ids=[number]),))
    assert owned.touched() == []  # the files that are there have the names of now
    with owned.twins.iceberg("predictions").update_schema() as update:
        update.rename_column("age", "years")
    table = owned.twins.iceberg("predictions")
    table.append(table.scan("id = '01-3'").to_arrow())
    others = [s.schema_id for s in table.metadata.schemas if "age" in s.column_names]
    table.catalog.commit_table(table, (), (RemoveSchemasUpdate(schema_ids=others),))
    path = owned.twins.owned / "models" / "credit.yaml"
    path.write_text(path.read_text().replace("age: {", "years: {"))
    assert "was renamed" in failed_message(owned)


def test_a_column_of_the_partition_need_not_be_in_the_file(owned: Owned) -> None:
    table = owned.twins.iceberg("predictions")
    rows = table.scan("region = 'north'").to_arrow()
    path = f"{table.location()}/taken over/region=north/f.parquet".removeprefix("file://")
    Path(path).parent.mkdir(parents=True)
    pq.write_table(rows.slice(0, 3).drop_columns(["region"]), path)
    file = draw_file(f"file://{path}", partition=Record("north"), record_count=3)
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        append.append_data_file(file)
    project = owned.twins.project("iceberg")
    with project.find_owner(owned.spec).opened() as tables:
        dataset = tables.tables["predictions"].dataset  # type: ignore[attr-defined]
    project.store.close()
    assert dataset.to_table(columns=["region"])["region"].null_count == 0
    assert dataset.count_rows(filter=pads.field("region") == "north") == rows.num_rows + 3


def test_a_file_that_is_gone_is_told_and_is_no_crash(owned: Owned) -> None:
    owned.twins.write("actuals", draw_labels(owned.lived[1].head(2), owned.twins.now),
                      may_land=False)  # fmt: skip
    table = owned.twins.iceberg("actuals")
    newest = table.inspect.files()["file_path"].to_pylist()[0].removeprefix("file://")
    Path(newest).rename(f"{newest}.hidden")
    assert "No such file" in failed_message(owned)
    Path(f"{newest}.hidden").rename(newest)
    assert owned.touched() == ["2026-03-02"]


def test_files_of_other_days_are_left_out_by_what_the_table_says_of_them(owned: Owned) -> None:
    project = owned.twins.project("iceberg")
    with project.find_owner(owned.spec).opened() as tables:
        dataset = tables.tables["predictions"].dataset  # type: ignore[attr-defined]
    project.store.close()
    second = FIRST + DAY
    at = pads.field("at")
    within = (at >= pa.scalar(second, pa.timestamp("us", "UTC"))) & (
        at < pa.scalar(second + DAY, pa.timestamp("us", "UTC"))
    )
    every, mine = list(dataset.get_fragments()), list(dataset.get_fragments(within))
    assert len(mine) == len(every) / 3
    rows = pads.FileSystemDataset(mine, dataset.schema, dataset.format, dataset.filesystem)
    found = rows.to_table(columns=["at"]).to_pandas()["at"].dt.normalize().unique()
    assert list(found) == [second]


def test_when_ground_truth_came_is_known_from_snapshots(owned: Owned) -> None:
    owned.twins.now = pd.Timestamp("2026-03-09T05:00", tz="UTC")
    owned.twins.write("actuals", draw_labels(owned.lived[0].head(1), owned.twins.now),
                      may_land=False)  # fmt: skip
    project = owned.twins.project("iceberg")
    with project.find_owner(owned.spec).opened() as tables:
        moments = tables.tables["actuals"].list_arrivals()  # type: ignore[attr-defined]
    project.store.close()
    assert max(moments.values()) == owned.twins.now


def test_doctor_names_the_snapshot_and_an_unreachable_catalog_without_its_password(
    owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = owned.twins.iceberg("predictions").current_snapshot()
    assert snapshot is not None
    assert f"snapshot {snapshot.snapshot_id}" in owned.twins.ask_doctor()
    for uri in ("me:secret@rest.test/catalog?sig=secret", "sqlite:////nowhere/secret/catalog.db"):
        kind = "sql" if uri.startswith("sqlite") else "rest"
        catalog = {
            "type": kind,
            "uri": uri,
            "credential": "name:secret",
            "token": "",
            "region": "s",
        }
        monkeypatch.setattr(Twins, "catalog", catalog)
        said = owned.twins.ask_doctor()
        assert "cannot be reached" in said
        assert "secret" not in said
    for text, problem in (("no json", "is no JSON object"), (json.dumps([]), "no JSON object")):
        monkeypatch.setattr(Twins, "environ", {CATALOG_ENV: text})
        assert problem in owned.twins.ask_doctor()


def test_a_spec_names_a_table_and_a_variable() -> None:
    good = "{iceberg: ml.scores, config_env: X}"
    assert parse_model(SPEC % (good, good)).source.predictions.in_place
    for source, said in (
        ("{iceberg: scores, config_env: X}", "write it as namespace.table"),
        ("{iceberg: ml.scores, config_env: a b}", "name of an environment variable"),
        ("{iceberg: ml.scores, config_env: X, in_place: false}", "their rows stay there"),
    ):
        with pytest.raises(ConfigError, match=said):
            parse_model(SPEC % (source, good))
    with pytest.raises(ConfigError, match="tables of one kind"):
        parse_model(SPEC % (good, "{delta: a, in_place: true}"))
