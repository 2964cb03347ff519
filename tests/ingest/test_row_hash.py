"""The content hash of a row is the same in any format, order and version of this program."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.raw import (
    RawFile,
    columns_to_read,
    row_hashes,
    rows_of,
    with_derived_id,
    with_nulls,
)
from mlmon_dagster.spec import ModelSpec, parse_model

UTC = dt.UTC
SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("number", pa.float64()),
        ("label", pa.int64()),
        ("flag", pa.bool_()),
        ("at", pa.timestamp("us", "UTC")),
        ("nonfinite", pa.list_(pa.string())),
    ]
)
YEARS = (dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1))  # noqa: DTZ001
rows = st.fixed_dictionaries(
    {
        "name": st.none() | st.text(st.characters(codec="utf-8"), max_size=5),
        "number": st.none()
        | st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0),
        "label": st.none() | st.integers(-(2**62), 2**62),
        "flag": st.none() | st.booleans(),
        "at": st.none() | st.datetimes(*YEARS, timezones=st.just(UTC)),
        "nonfinite": st.lists(st.sampled_from(["a:nan", "b:inf"]), max_size=2),
    }
)


def _hashes(content: list[dict[str, object]], columns: list[str] | None = None) -> list[int]:
    table = pa.Table.from_pylist(content, schema=SCHEMA)
    return row_hashes(table, columns or SCHEMA.names).tolist()


def test_hashes_never_change_between_versions() -> None:
    moment = dt.datetime(2024, 2, 1, 8, tzinfo=UTC)
    first = {"name": "p1", "number": 0.25, "label": 1, "flag": True, "at": moment, "nonfinite": []}
    second = {
        "name": "Zoë",
        "number": None,
        "label": None,
        "flag": False,
        "at": None,
        "nonfinite": ["a:nan"],
    }

    assert _hashes([first, second]) == PINNED


PINNED = [-768487412314106994, 7112307698180755033]


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=8), st.randoms())
def test_hash_depends_on_a_row_alone(content: list[dict[str, object]], random: object) -> None:
    together = _hashes(content)
    order = list(range(len(content)))
    random.shuffle(order)  # type: ignore[attr-defined]

    assert together == [_hashes([row])[0] for row in content]
    assert _hashes([content[i] for i in order]) == [together[i] for i in order]
    assert _hashes(content, SCHEMA.names[::-1]) == together


@settings(max_examples=100, deadline=None)
@given(rows, rows)
def test_rows_have_equal_hashes_only_if_they_are_equal(
    one: dict[str, object], other: dict[str, object]
) -> None:
    assert (_hashes([one]) == _hashes([other])) == (one == other)


@settings(max_examples=40, deadline=None)
@given(rows)
def test_column_that_is_null_adds_nothing(row: dict[str, object]) -> None:
    table = pa.Table.from_pylist([row], schema=SCHEMA)
    wider = table.append_column("later", pa.nulls(1, pa.float64()))

    assert row_hashes(wider, wider.column_names) == row_hashes(table, table.column_names)


YAML = """
model: till
task: regression
owners: [team:shop]
time: {start: 2026-01-01}
source: {predictions: {path: "p/*.csv"}, actuals: {path: "a/*.csv"}}
columns:
  prediction_id: [shop, till, day]
  event_time: at
  prediction: guess
  actual: sales
  actual_time: known
features: {shop: {type: categorical}}
"""
SPEC: ModelSpec = parse_model(YAML, "till.yaml")
CELL = st.none() | st.text(max_size=5)


def ids(**cells: list[str | None]) -> list[str | None]:
    columns = {name: pa.array(values, pa.string()) for name, values in cells.items()}
    n = len(next(iter(columns.values())))
    raw = RawFile(columns, n, tuple(columns), rows_of)
    found = with_derived_id(raw, columns_of(SPEC, "predictions"), SPEC)
    result: list[str | None] = found.columns["shop + till + day"].to_pylist()
    return result


def test_the_parts_are_read_instead_of_the_id() -> None:
    wanted = columns_to_read(columns_of(SPEC, "actuals"), SPEC)

    assert {c.source for c in wanted} == {"shop", "till", "day", "sales", "known"}


def test_the_id_is_pinned_and_does_not_depend_on_the_order_of_the_columns() -> None:
    [one] = ids(shop=["a"], till=["1"], day=["2026-01-01"])

    assert one == ids(day=["2026-01-01"], till=["1"], shop=["a"])[0]
    assert one == "0469adefba14b4b1078cfa67626b263d"


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_a_word_for_null_is_no_part_of_an_id(kind: pa.DataType) -> None:
    cells = {"shop": pa.array(["a", "-"]), "till": pa.array(["-", "-"]), "day": pa.array(["-"] * 2)}
    raw = RawFile({n: v.cast(kind) for n, v in cells.items()}, 2, tuple(cells), rows_of)
    wanted = columns_of(SPEC, "predictions")

    found = with_derived_id(with_nulls(raw, ["-"]), wanted, SPEC)

    assert found.columns["shop + till + day"].to_pylist() == [
        *ids(shop=["a"], till=[None], day=[None]),
        None,
    ]


def test_swapped_cells_and_gaps_are_other_events_and_an_empty_row_has_no_id() -> None:
    found = ids(shop=["a", "b", "a", None, None], till=["b", "a", None, "a", None], day=[None] * 5)

    assert len(set(found)) == 5
    assert found[-1] is None
    assert None not in found[:-1]


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=30))
def test_ids_are_equal_exactly_where_the_cells_are(rows: list[tuple[str | None, ...]]) -> None:
    shop, till, day = (list(cells) for cells in zip(*rows, strict=True))
    found = ids(shop=shop, till=till, day=day)

    assert len(set(found)) == len(set(rows))


def test_a_part_listed_twice_is_an_error_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"till\.yaml:8: .*'shop' is listed twice"):
        parse_model(YAML.replace("[shop, till, day]", "[shop, till, shop]"), "till.yaml")
