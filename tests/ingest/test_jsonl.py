"""The fast and the careful way to read JSON Lines give the same cells, or the fast one declines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.errors import SchemaError
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.formats import read_jsonl
from mlmon_dagster.ingest.formats.parse import cast_column
from mlmon_dagster.ingest.formats.read_jsonl import read_any, read_flat
from mlmon_dagster.ingest.raw import Options, RawFile
from tests.ingest.landing import credit_spec, events, jsonl_bytes

SPEC = credit_spec()
WANTED = columns_of(SPEC, "predictions")
OPTIONS = Options(max_rows=100_000)


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_jsonl, "_LEAST_BYTES", 0)


def typed(raw: RawFile) -> dict[str, Any]:
    """Return the cells as the ingest sees them: with their declared types."""
    found = {}
    for column in WANTED:
        if column.source in raw.columns:
            cast = cast_column(raw.columns[column.source], column, SPEC.time, "a")
            faults = [(f.reason, f.rows.tolist()) for f in cast.faults]
            found[column.source] = (cast.values.to_pylist(), faults, sorted(cast.not_finite))
    return found


def flat(path: Path) -> RawFile | None:
    parts = read_flat(path, "a", WANTED, OPTIONS)
    return None if parts is None else next(parts)


def both(path: Path) -> tuple[RawFile | None, RawFile]:
    return flat(path), read_any(path, "a", WANTED, OPTIONS)


def test_plain_lines_are_read_the_fast_way(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl_bytes(events(50)))

    fast, careful = both(path)

    assert fast is not None
    assert typed(fast) == typed(careful)
    assert (fast.n_rows, fast.present) == (careful.n_rows, careful.present)
    assert fast.place_of([0, 7]) == careful.place_of([0, 7]) == ["line 1", "line 8"]


GOOD = json.loads(jsonl_bytes(events(1)))
CELLS = {
    "id": st.one_of(st.text(max_size=6), st.integers(-(2**70), 2**70), st.none()),
    "score": st.one_of(
        st.floats(), st.integers(), st.none(), st.text(max_size=3), st.booleans(), st.just([1])
    ),
    "region": st.one_of(st.text(max_size=4), st.integers(), st.floats(), st.none()),
    "member": st.one_of(st.booleans(), st.none(), st.integers(0, 1), st.just("true")),
    "extra": st.one_of(st.text(max_size=4), st.just({"a": [{}]}), st.lists(st.integers())),
}


@settings(max_examples=150)
@given(st.lists(st.fixed_dictionaries({}, optional=CELLS), min_size=1, max_size=6), st.data())
def test_both_ways_give_the_same_cells(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "property.jsonl"
    ascii_only = data.draw(st.booleans())
    lines = [json.dumps({**GOOD, **row}, ensure_ascii=ascii_only) for row in rows]
    try:
        path.write_bytes("".join(line + "\n" for line in lines).encode())
    except UnicodeEncodeError:
        return

    fast, careful = both(path)

    assert fast is None or typed(fast) == typed(careful)


GOOD_LINE = json.dumps(GOOD)


@pytest.mark.parametrize(
    "content",
    [
        GOOD_LINE + GOOD_LINE + "\n" + GOOD_LINE + "\n",
        GOOD_LINE.replace(", ", ",\n") + "\n",
        GOOD_LINE + "\n\n" + GOOD_LINE + "\n",
        GOOD_LINE[:-1] + ', "id": "again"}\n',
        GOOD_LINE + "\n" + GOOD_LINE.replace('"score": ', '"score": "high", "x": ') + "\n",
        GOOD_LINE + "\n" + GOOD_LINE.replace('"score": ', '"score": [0.5], "x": ') + "\n",
        GOOD_LINE[:-9],
        GOOD_LINE + "\n" + GOOD_LINE[:-1] + ', "deep": ' + "[" * 200_000 + "\n",
    ],
    ids=["two on a line", "one on many", "blank", "twice", "mixed", "nested", "cut", "deep"],
)
def test_unusual_lines_are_left_to_the_careful_way(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)

    assert read_flat(path, "a", WANTED, OPTIONS) is None


def test_deep_values_nobody_asked_for_do_not_end_the_program(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    deep = "[" * 200_000 + "]" * 200_000
    path.write_text(GOOD_LINE + "\n" + GOOD_LINE[:-1] + f', "deep": {deep}}}\n')

    fast = flat(path)

    assert fast is None or fast.n_rows == 2


def test_key_that_comes_late_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_jsonl, "_SAMPLE", 1)
    path = tmp_path / "a.jsonl"
    first = json.dumps({k: v for k, v in GOOD.items() if k != "latency_ms"})
    path.write_text(first + "\n" + GOOD_LINE + "\n")

    fast, careful = both(path)

    assert fast is None
    assert "latency_ms" in careful.present


def test_blocks_may_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text((json.dumps({**GOOD, "region": "Zürich€"}, ensure_ascii=False) + "\n") * 3)
    for size in range(150, 200):
        monkeypatch.setattr(read_jsonl, "_BLOCK", size)
        assert read_jsonl._count_lines(path) == 3


def test_too_many_rows_are_refused_before_they_are_parsed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text((GOOD_LINE + "\n") * 3)

    with pytest.raises(SchemaError, match="max_rows = 2"):
        read_flat(path, "a", WANTED, Options(max_rows=2))
