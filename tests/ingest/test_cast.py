"""Cells get the declared type and no other; each is kept or reported, in every format alike."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlmon_dagster.errors import SchemaError
from mlmon_dagster.ingest.declared_columns import Column, Kind
from mlmon_dagster.ingest.formats.parse import Cast, cast_column, parse_file
from mlmon_dagster.ingest.landing import Staged
from mlmon_dagster.ingest.rows.canonical import canonical_rows, draft_rows
from mlmon_dagster.metrics.quality import quality_metrics
from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.profiles.measures import performance
from mlmon_dagster.spec import window_containing
from mlmon_dagster.spec.declaration import TimeSpec
from tests.ingest.landing import (
    ACTUALS,
    NOW,
    PREDICTIONS,
    World,
    credit_spec,
    csv_bytes,
    events,
    parquet_bytes,
    truths,
)

TIME = TimeSpec(zone="Europe/Berlin", start=dt.date(2024, 1, 1))


def cast(values: Any, kind: Kind, type_: pa.DataType | None = None, time: TimeSpec = TIME) -> Cast:
    array = values if isinstance(values, pa.Array) else pa.array(values, type_)
    return cast_column(array, Column("x", "x", kind), time, "file.csv")


@pytest.mark.parametrize(
    ("values", "type_", "expected", "at_fault"),
    [
        (["b|a", "a", " b | a |", "a|a", "", None], None, ["a|b", "a", "a|b", "a", None, None], []),
        (['["b", "a"]', "[]", "(none)", "[1, 2]"], None, ["a|b", "(none)", "(none)", "1|2"], []),
        (['["a"', '["a|b"]', "[{}]", "[null]"], None, [None] * 4, [0, 1, 2, 3]),
        ([["b", "a"], [], None, ["a", "a"]], None, ["a|b", "(none)", None, "a"], []),
        ([["a|b"], ["a", None], ["c"]], pa.large_list(pa.string()), [None, None, "c"], [0, 1]),
        ([[7, 3], [2]], pa.list_(pa.int64()), ["3|7", "2"], []),
        (pa.array(["b|a", "b|a"]).dictionary_encode(), None, ["a|b", "a|b"], []),
    ],
)
def test_sets_of_labels_are_sorted_text_from_lists_json_or_bars(values, type_, expected, at_fault):
    found = cast(values, "labels", type_)
    assert found.values.to_pylist() == expected
    assert bad(found).get("wrong_type", []) == at_fault


def bad(found: Cast) -> dict[str, list[int]]:
    return {fault.reason: fault.rows.tolist() for fault in found.faults}


@pytest.mark.parametrize(
    ("values", "type_", "expected", "at_fault"),
    [
        (["1", "2.5", "-3e2", "+4", ".5", "5.", " 6 "], None, [1, 2.5, -300, 4, 0.5, 5, 6], []),
        (["1", "x", None, "", "1,5", "1_0", "0x1", "1e"], None, [1] + [None] * 7, [1, 4, 5, 6, 7]),
        ([1, None, 3], pa.int8(), [1, None, 3], []),
        ([2**53 - 1], pa.uint64(), [2.0**53 - 1], []),
        ([True, False, None], None, [1, 0, None], []),
        ([Decimal("1.25")], None, [1.25], []),
        ([0.5], pa.float32(), [0.5], []),
        ([None, None], pa.null(), [None, None], []),
        ([-0.0], None, [0.0], []),
    ],
)
def test_numbers(
    values: list[Any], type_: pa.DataType | None, expected: list[Any], at_fault: list[int]
) -> None:
    found = cast(values, "number", type_)

    assert found.values.to_pylist() == expected
    assert found.values.type == pa.float64()
    assert bad(found) == ({"wrong_type": at_fault} if at_fault else {})
    assert not any(math.copysign(1, x) < 0 for x in expected if x == 0)


def test_numbers_that_are_not_finite_are_told_apart_from_nulls() -> None:
    for values in (
        [1.0, math.nan, math.inf, -math.inf, None],
        ["1", "NaN", "inf", "-Infinity", ""],
    ):
        found = cast(values, "number")

        assert found.values.to_pylist() == [1, None, None, None, None]
        masks = {kind: mask.tolist().index(True) for kind, mask in found.not_finite.items()}
        assert masks == {"nan": 1, "inf": 2, "-inf": 3}
        assert found.faults == ()


@pytest.mark.parametrize(
    ("kind", "values", "expected", "at_fault"),
    [
        ("label", ["0", "1", "true", "False", "1.0", None], [0, 1, 1, 0, 1, None], []),
        ("label", [0, 1, None], [0, 1, None], []),
        ("label", [0.0, 1.0, math.nan], [0, 1, None], []),
        ("label", [True, False], [1, 0], []),
        ("label", ["yes", "no", "0"], [None, None, 0], [0, 1]),
        ("label", [math.inf, 1.0], [None, 1], [0]),
        ("boolean", ["true", "FALSE", "1", None, "yes"], [True, False, True, None, None], [4]),
        ("boolean", [1, 0, 2], [True, False, None], [2]),
        ("boolean", [True, None], [True, None], []),
    ],
)
def test_labels_and_booleans(
    kind: Kind, values: list[Any], expected: list[Any], at_fault: list[int]
) -> None:
    found = cast(values, kind)

    assert found.values.to_pylist() == expected
    assert bad(found) == ({"wrong_type": at_fault} if at_fault else {})


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        (["NA", "null", "None", "", None], None, ["NA", "null", "None", "", None]),
        ([1, 2], pa.int32(), ["1", "2"]),
        ([1.0, 2.5, None, math.nan], None, ["1", "2.5", None, None]),
        ([True], None, ["true"]),
        ([dt.date(2024, 1, 2)], None, ["2024-01-02"]),
        (["Zoe\u0308"], None, ["Zo\u00eb"]),
        ([b"ab"], pa.binary(), ["ab"]),
        (["a", "b", "a"], pa.dictionary(pa.int8(), pa.string()), ["a", "b", "a"]),
        (["a"], pa.large_string(), ["a"]),
        (["a"], pa.string_view(), ["a"]),
    ],
)
def test_texts(values: list[Any], type_: pa.DataType | None, expected: list[Any]) -> None:
    found = cast(values, "text", type_)

    assert (found.values.to_pylist(), found.faults) == (expected, ())


@pytest.mark.parametrize("kind", ["number", "label", "boolean", "text", "time", "id"])
@pytest.mark.parametrize("type_", [pa.float64(), pa.list_(pa.int8()), pa.null()])
def test_column_without_a_value_is_null_whatever_its_type(kind: Kind, type_: pa.DataType) -> None:
    for n in (0, 2):
        found = cast(pa.nulls(n, type_), kind)

        assert (found.values.null_count, found.faults, found.not_finite) == (n, (), {})


def test_text_that_no_database_can_hold_is_at_fault() -> None:
    assert bad(cast(["a\0b", "c"], "text")) == {"wrong_type": [0]}
    assert bad(cast([b"\xff", b"c"], "text", pa.binary())) == {"wrong_type": [0]}
    assert bad(cast(["x" * (1 << 20) + "y", "c"], "text")) == {"wrong_type": [0]}
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())
    assert bad(cast(broken, "text")) == {"wrong_type": [0]}


def test_ids_keep_every_digit_and_never_pass_through_a_float() -> None:
    assert cast([2**53 + 1], "id").values.to_pylist() == ["9007199254740993"]
    assert cast(["007", "1e5", "", None], "id").values.to_pylist() == ["007", "1e5", None, None]
    with pytest.raises(SchemaError, match="'x' is double; expected text or an integer"):
        cast([1.0], "id")


UTC_8 = dt.datetime(2024, 2, 1, 8, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2024-02-01T08:00:00Z",
        "2024-02-01 08:00Z",
        "2024-02-01T09:00:00+01:00",
        "2024-02-01T09:00:00.000000999+0100",
        "2024-02-01 03:00:00 -05",
        " 2024-02-01t08:00:00z ",
    ],
)
def test_times_with_an_offset_are_read(text: str) -> None:
    found = cast([text], "time")

    assert (found.values.to_pylist(), found.faults) == ([UTC_8], ())


@pytest.mark.parametrize(
    "text",
    ["1706774400", "01/02/2024 08:00 Z", "2024-13-01T00:00:00Z", "2024-02-01T25:00:00Z", "now",
     "2024-W05-4T08:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00"],
)  # fmt: skip
def test_texts_that_are_no_times_are_at_fault(text: str) -> None:
    assert bad(cast([text, "2024-02-01T08:00:00Z"], "time")) == {"wrong_type": [0]}


def test_times_of_all_centuries_keep_their_microseconds() -> None:
    text = ["1600-01-01T00:00:00.123456Z", "2500-01-01T00:00:00.123456789Z"]

    found = cast(text, "time").values.to_pylist()

    assert [(t.year, t.microsecond) for t in found] == [(1600, 123456), (2500, 123456)]


def test_timestamps_of_any_unit_and_zone_become_utc_microseconds() -> None:
    for unit in ("s", "ms", "us", "ns"):
        naive = pa.array([UTC_8.replace(tzinfo=None)], pa.timestamp("us")).cast(pa.timestamp(unit))
        zoned = pa.compute.assume_timezone(naive, "UTC").cast(pa.timestamp(unit, "Asia/Tokyo"))
        assert cast(zoned, "time").values.to_pylist() == [UTC_8]
        assert bad(cast(naive, "time")) == {"naive_time": [0]}
    far = pa.array([2**60], pa.timestamp("s", "UTC"))
    assert bad(cast(far, "time")) == {"wrong_type": [0]}


def test_local_times_that_occur_twice_or_never_are_at_fault() -> None:
    local = TIME.model_copy(update={"naive": "zone"})
    times = ["2024-03-31 02:30", "2024-10-27 02:30", "2024-07-01 12:00", "2024-01-01"]

    found = cast(times, "time", time=local)

    assert bad(found) == {"ambiguous_time": [0, 1]}
    assert [str(t) for t in found.values.to_pylist()[2:]] == [
        "2024-07-01 10:00:00+00:00",
        "2023-12-31 23:00:00+00:00",
    ]


cells = st.none() | st.text(st.characters(codec="utf-8"), max_size=12) | st.floats().map(str)


@settings(max_examples=150, deadline=None)
@given(st.lists(cells, max_size=6), st.sampled_from(["number", "label", "boolean", "time", "text"]))
def test_every_cell_is_kept_reported_or_was_empty(values: list[str | None], kind: Kind) -> None:
    found = cast(values, kind, pa.string())

    accounted = found.values.is_valid().to_numpy(zero_copy_only=False)
    for mask in found.not_finite.values():
        accounted = accounted | mask
    for fault in found.faults:
        accounted[fault.rows] = True
    empty = np.array([v is None or not v.strip() for v in values], dtype=bool)
    nan = np.array([(v or "").strip().lower().strip("+-") == "nan" for v in values], dtype=bool)
    assert (accounted | empty | (nan & (kind in ("label", "boolean")))).all()


# A lone carriage return is left out: pandas writes it unquoted, as a line end.
frames = st.integers(1, 6).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "score": st.lists(st.floats(0, 1), min_size=n, max_size=n),
            "age": st.lists(
                st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=n, max_size=n
            ),
            "region": st.lists(
                st.text(
                    st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=6
                ),
                min_size=n,
                max_size=n,
            ),
            "member": st.lists(st.booleans(), min_size=n, max_size=n),
            "decision": st.lists(st.integers(0, 1), min_size=n, max_size=n),
        }
    )
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(frames)
def test_rows_have_one_hash_in_every_format(tmp_path: Path, values: dict[str, list[Any]]) -> None:
    frame = events(len(values["score"]), **values)
    frame["decision"] = frame["decision"].astype("int8")
    found = []
    for ending, write in (
        ("parquet", parquet_bytes),
        ("csv", csv_bytes),
        ("jsonl", _exact_jsonl),
    ):
        path = tmp_path / f"file.{ending}"
        path.write_bytes(write(frame))
        staged = Staged("predictions", path.name, path, "sha", path.stat().st_size, 0)
        spec = credit_spec(source__predictions__multiline=True)
        [parsed] = parse_file(staged, spec, spec.source.predictions)
        draft = draft_rows(parsed, spec, NOW)
        assert draft.faults == ()
        rows = canonical_rows(draft, np.ones(parsed.n_rows, dtype=bool), spec, NOW)
        found.append((rows["row_hash"].to_pylist(), rows.drop_columns("nonfinite").to_pylist()))

    assert found[0] == found[1] == found[2]


def _exact_jsonl(frame: pd.DataFrame) -> bytes:
    import json

    plain = frame.assign(at=[t.isoformat() for t in frame["at"]]).to_dict("records")
    return b"".join(json.dumps(row).encode() + b"\n" for row in plain)


ODD = [np.nan, np.inf, -np.inf, 1e300, 1.7e308, 2.0**63, -(2.0**63), 5e-324, 0.0, 1.0, 2.0, 3.0]


def test_cells_that_are_no_numbers_are_counted_and_spoil_no_metric(world: World) -> None:
    """A bad score costs its row alone; a bad feature nothing but a place in its rates."""
    spec, frame = credit_spec(), events()
    scores = [0.05 + (i % 10) / 10 for i in range(9)] + [np.nan, np.inf, 0.15]
    rows = pa.Table.from_pandas(frame)
    for name, values in (("age", ODD), ("score", scores)):  # pandas would write NaN as a null
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
    world.land(f"{PREDICTIONS}/a.parquet", parquet_bytes(rows))
    world.land(f"{ACTUALS}/a.parquet", truths())

    world.ingest(spec)

    windows = [window_containing(spec.time, frame["at"][0].to_pydatetime())]
    (counts,) = world.store.inference_records(spec).rebuild(windows, ["production"])
    source = world.store.inference_records(spec).from_sql(windows)
    profiles = build_profiles(world.store, spec, source, fit_binnings(world.store, spec, source))
    rates = quality_metrics(profiles["age"]).set_index("metric")["value"]
    assert counts.n == 10
    assert rates[["nan_rate", "inf_rate", "null_rate"]].tolist() == pytest.approx([0.1, 0.2, 0.0])
    found = performance(spec, profiles, None).set_index("metric")["value"]
    kept = [i for i in range(12) if i not in (9, 10)]
    exact = np.mean([(scores[i] - i % 2) ** 2 for i in kept])
    assert found["brier"] == pytest.approx(exact, rel=1e-9)
    assert np.isfinite(found.dropna()).all()
