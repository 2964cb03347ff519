"""Events without an id, identified by several columns together."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.raw import RawFile, columns_to_read, rows_of, with_derived_id, with_nulls
from mlmon_dagster.spec import ModelSpec, parse_model

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
