from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlmon_dagster.errors import StoreError
from mlmon_dagster.spec import Window
from mlmon_dagster.store import Store
from mlmon_dagster.store.places.objects import place_of
from mlmon_dagster.store.tables.delta import Conflict, DeltaFolder, retry
from tests.conftest import make_spec, window
from tests.store.test_query import ENGINE

SCHEMA = pa.schema([("dataset", pa.string()), ("window_date", pa.string()), ("v", pa.int64())])
names = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=8
)


def rows(*datasets: str, **more: list[object]) -> pa.Table:
    n = len(datasets)
    return pa.table({"dataset": datasets, "window_date": ["2024-01-01"] * n, "v": range(n), **more})


@pytest.mark.parametrize(
    "name", ["a b", "a/b", "ü", "x=y", "a%20b", "it's", "*", "?", "a:b", "\\", "..", "\n", "2024"]
)
def test_partition_values_may_have_any_characters(name: str, store: Store) -> None:
    folder = DeltaFolder(store.root / "t * ? 'x'", SCHEMA, ("dataset", "window_date"))
    folder.ensure().append(rows(name, "other"))
    snapshot = folder.snapshot()
    assert snapshot is not None
    sql = snapshot.from_sql(["dataset"], lambda p: p["dataset"] == name)
    assert store.query(f"SELECT * FROM {sql}")["dataset"].to_pylist() == [name]


def test_a_commit_decided_on_an_old_version_is_refused(tmp_path: Path) -> None:
    folder = DeltaFolder(place_of(tmp_path / "t"), SCHEMA)
    first, second = folder.ensure(), folder.ensure()
    first.append(rows("a"))
    with pytest.raises(Conflict):
        second.append(rows("b"))
    with pytest.raises(Conflict):
        second.overwrite(rows("b"), "TRUE")


def test_older_files_read_null_for_a_column_added_later(store: Store) -> None:
    folder = DeltaFolder(store.root / "t", SCHEMA, ("dataset",))
    folder.ensure().append(rows("old"))
    folder.ensure().append(rows("new", extra=[1.5]))
    snapshot = folder.snapshot()
    assert snapshot is not None
    found = store.query(f"SELECT dataset, extra FROM {snapshot.from_sql()} ORDER BY dataset")
    assert found.to_pylist() == [
        {"dataset": "new", "extra": 1.5},
        {"dataset": "old", "extra": None},
    ]
    only_old = snapshot.from_sql(["extra"], lambda p: p["dataset"] == "old")
    assert store.query(f"SELECT * FROM {only_old}").to_pylist() == [{"extra": None}]


def test_a_column_declared_but_never_written_reads_as_null(store: Store) -> None:
    DeltaFolder(store.root / "t", SCHEMA).ensure().append(rows("a"))
    declared = pa.schema([*SCHEMA, pa.field("later", pa.list_(pa.string()))])
    snapshot = DeltaFolder(store.root / "t", declared).snapshot()
    assert snapshot is not None
    found = store.query(f"SELECT later FROM {snapshot.from_sql()}")
    assert found.schema.field("later").type == pa.list_(pa.string())
    assert found.to_pylist() == [{"later": None}]


def test_an_empty_table_reads_with_its_types(store: Store) -> None:
    snapshot = DeltaFolder(store.root / "t", SCHEMA).ensure()
    found = store.query(f"SELECT * FROM {snapshot.from_sql()}")
    assert (found.num_rows, found.schema.types) == (0, SCHEMA.types)


def test_endless_conflicts_end_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)

    def attempt() -> None:
        raise Conflict

    with pytest.raises(StoreError, match="too many writers"):
        retry(attempt, "Writing")


# Derived rows


def derived(window: Window, *values: int) -> pa.Table:
    return pa.table(
        {
            "window_date": [window.key[:10]] * len(values),
            "window_start": pa.array([window.start] * len(values), pa.timestamp("us", tz="UTC")),
            "kind": ["a"] * len(values),
            "v": values,
        }
    )


def test_replacing_windows_leaves_others_alone(store: Store) -> None:
    spec = make_spec()
    one, two = window(spec, "2024-01-01"), window(spec, "2024-01-02")
    table = store.table("profiles", spec.model)
    assert table.read().num_rows == 0
    table.replace(pa.concat_tables([derived(one, 1, 2), derived(two, 3)]), [one, two])
    table.replace(derived(one, 9), [one])
    table.replace(derived(one, 9), [])
    assert sorted(table.read(["v"])["v"].to_pylist()) == [3, 9]
    assert table.read(["v"], where="window_date = '2024-01-02'")["v"].to_pylist() == [3]


def test_replacing_hours_leaves_other_hours_of_the_day_alone(store: Store) -> None:
    spec = make_spec(time={"start": "2024-01-01", "granularity": "hour"})
    one, two = window(spec, "2024-01-01T03:30"), window(spec, "2024-01-01T04:30")
    table = store.table("profiles", spec.model)
    table.replace(pa.concat_tables([derived(one, 1), derived(two, 2)]), [one, two])
    table.replace(derived(two, 5), [two])
    assert sorted(table.read()["v"].to_pylist()) == [1, 5]


def test_replacing_by_predicate_touches_nothing_else(store: Store) -> None:
    spec = make_spec()
    one = window(spec, "2024-01-01")
    table = store.table("profiles", spec.model)
    table.replace(derived(one, 1), None)
    other = derived(one, 7).set_column(2, "kind", pa.array(["b"]))
    table.replace(other, [one], "kind = 'b'")
    assert sorted(table.read()["v"].to_pylist()) == [1, 7]
    table.replace(other.slice(0, 0), None, "kind = 'b'")
    assert table.read()["v"].to_pylist() == [1]


@given(names)
@example("[a]")
def test_names_of_columns_may_have_any_characters(name: str) -> None:
    from mlmon_dagster.store.tables.delta import select_sql

    sql = select_sql([], pa.schema([(name, pa.int64())]), [name], None)
    assert ENGINE.query(f"SELECT * FROM {sql}").column_names == [name]
