"""The predicate language says what SQL says, and nothing that can do harm."""

from __future__ import annotations

import datetime as dt

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import Predicate, parse_predicate, predicate_columns
from mlmon_dagster.spec.predicate import (
    ColumnKind,
    Comparison,
    Every,
    Membership,
    Not,
    NullTest,
    Some,
    columns_of,
    to_sql,
    to_text,
)
from tests.spec.predicate_truth import to_callable
from tests.spec.specs import UTC, spec

COLUMNS: dict[str, ColumnKind] = {
    "origin": "text",
    "temp": "numeric",
    "late": "boolean",
    "event_time": "datetime",
}
NOON = dt.datetime(2013, 4, 1, 12, tzinfo=UTC)

WORDS = st.text(st.characters(codec="utf-8"), max_size=6).filter(
    lambda text: text.isprintable() and "\\" not in text
) | st.sampled_from(["JFK", "'; DROP TABLE x; --", '"', "''", "%", "ÄÖ", "all", ""])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.1, 1.0, 3.0, -0.5])
TIMES = st.timedeltas(dt.timedelta(-15_000), dt.timedelta(60_000)).map(NOON.__add__)
VALUES: dict[str, st.SearchStrategy[object]] = {
    "origin": WORDS,
    "temp": NUMBERS.map(lambda number: number + 0.0),
    "late": st.booleans(),
    "event_time": TIMES,
}


def conditions() -> st.SearchStrategy[Predicate]:
    def of(column: str) -> st.SearchStrategy[Predicate]:
        value = VALUES[column]
        signs = ["=", "!="] if column == "late" else ["=", "!=", "<", "<=", ">", ">="]
        return st.one_of(
            st.builds(Comparison, st.just(column), st.sampled_from(signs), value),
            st.builds(
                Membership,
                st.just(column),
                st.lists(value, min_size=1, max_size=3).map(tuple),
                st.booleans(),
            ),
            st.builds(NullTest, st.just(column), st.booleans()),
        )

    return st.sampled_from(sorted(VALUES)).flatmap(of)


def _combined(parts: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
    several = st.lists(parts, min_size=2, max_size=3).map(tuple)
    return st.builds(Not, parts) | st.builds(Every, several) | st.builds(Some, several)


PREDICATES = st.recursive(conditions(), _combined, max_leaves=6)
ROWS = st.lists(
    st.fixed_dictionaries({column: st.none() | value for column, value in VALUES.items()}),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def database() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


@given(predicate=PREDICATES, rows=ROWS)
@settings(max_examples=100)
def test_sql_and_python_pick_the_same_rows(
    database: duckdb.DuckDBPyConnection, predicate: Predicate, rows: list[dict[str, object]]
) -> None:
    schema = pa.schema(
        [
            ("origin", pa.string()),
            ("temp", pa.float64()),
            ("late", pa.bool_()),
            ("event_time", pa.timestamp("us", tz="UTC")),
            ("number", pa.int64()),
        ]
    )
    numbered = [{**row, "number": n} for n, row in enumerate(rows)]
    database.register("events", pa.Table.from_pylist(numbered, schema))

    found = database.execute(
        f"SELECT number FROM events WHERE {to_sql(predicate)} ORDER BY number"
    ).fetchall()

    picks = to_callable(predicate)
    assert [n for (n,) in found] == [n for n, row in enumerate(rows) if picks(row)]


@settings(max_examples=50)
@given(predicate=PREDICATES)
def test_what_is_written_reads_back_equal(predicate: Predicate) -> None:
    assert parse_predicate(to_text(predicate), COLUMNS) == predicate


@given(text=st.text(max_size=60) | st.lists(
    st.sampled_from(["origin", "temp", "=", "<", "'a'", "1", "and", "or", "not", "in", "is",
                     "null", "(", ")", ",", "true", "--", ";", "*", "event_time"]),
    max_size=12).map(" ".join))  # fmt: skip
def test_any_text_is_a_predicate_or_a_config_error(text: str) -> None:
    try:
        predicate = parse_predicate(text, COLUMNS)
    except ConfigError as error:
        message = str(error)
    else:
        message = ""
        assert columns_of(predicate) <= set(COLUMNS)
    assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("origin = 'JFK'", "(\"origin\" = 'JFK')"),
        ('origin == "O\'Hare"', "(\"origin\" = 'O''Hare')"),
        ("origin <> 'a''b'", "(\"origin\" <> 'a''b')"),
        ("temp < .5", '("temp" < 0.5e0)'),
        ("temp >= -1e3", '("temp" >= -1000.0e0)'),
        ("LATE = true", None),
        ("late = TRUE", '("late" = TRUE)'),
        ("origin IN ('a', 'b')", "(\"origin\" IN ('a', 'b'))"),
        ("origin not in ('a')", "(\"origin\" NOT IN ('a'))"),
        ("temp is null", '("temp" IS NULL)'),
        ("temp is not null", '("temp" IS NOT NULL)'),
        (
            "temp is null or temp = 1 and not late = false",
            '(("temp" IS NULL) OR (("temp" = 1.0e0) AND (NOT ("late" = FALSE))))',
        ),
        (
            "(temp is null or temp = 1) and late = false",
            '((("temp" IS NULL) OR ("temp" = 1.0e0)) AND ("late" = FALSE))',
        ),
        (
            "event_time >= '2013-04-01T12:00:00Z'",
            "(\"event_time\" >= TIMESTAMP WITH TIME ZONE '2013-04-01 12:00:00.000000+00:00')",
        ),
    ],
)
def test_text_becomes_sql(text: str, sql: str | None) -> None:
    if sql is None:
        with pytest.raises(ConfigError, match="did you mean 'late'"):
            parse_predicate(text, COLUMNS)
    else:
        assert to_sql(parse_predicate(text, COLUMNS)) == sql


def test_a_time_without_offset_is_local() -> None:
    text = "event_time = '2013-04-01 08:00'"

    assert parse_predicate(text, COLUMNS, zone="America/New_York") == Comparison(
        "event_time", "=", NOON
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("orign = 'JFK'", "no column orign; did you mean 'origin'?"),
        ("origin", "expected a comparison"),
        ("origin not 'a'", "expected a comparison"),
        ("origin =", "compared with text in quotes, not the end"),
        ("origin = JFK", "compared with text in quotes, not JFK"),
        ("origin = 1", "compared with text in quotes, not 1"),
        ("temp = '1'", "compared with a number, not '1'"),
        ("temp = 1e999", "too large"),
        ("temp = 12ab", "character 8: this is not a number"),
        ("late < true", "compare it with = or !="),
        ("late = 1", "compared with true or false"),
        ("temp = null", "write 'temp is null'"),
        ("origin in ()", "compared with text"),
        ("origin in ('a'", "expected ), found the end"),
        ("origin = 'JFK", "this quote is never closed"),
        ("origin = 'a' origin = 'b'", "expected 'and', 'or' or the end"),
        ("1 = 1", "expected the name of a column"),
        ("(temp = 1", "expected )"),
        ("origin = 'a'; drop table x", "';' has no meaning"),
        ("origin = 'a' -- x", "'-' has no meaning"),
        ("origin = 'a\\'", "backslashes"),
        ("origin = 'a\nb'", "control characters"),
        ("origin = 'a\0b'", "control characters"),
        ("event_time > '2013-13-01'", "is not a time"),
        ("event_time > '0001-01-01T00:00:00+14:00'", "is not a time"),
        ("event_time > '1969-01-01'", "not between the years"),
        ("__import__('os').system('x')", "'.' has no meaning"),
        ("(" * 200 + "temp = 1" + ")" * 200, "nested more than"),
        ("not " * 200 + "temp = 1", "nested more than"),
        ("temp in (" + ",".join(["1"] * 1001) + ")", "more than 1,000 values"),
        ("temp = 1 or " * 400 + "temp = 1", "more than 4,000 characters"),
    ],
    ids=lambda value: value[:30],
)
def test_what_cannot_be_meant_is_refused_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_predicate(text, COLUMNS)

    assert message in str(caught.value)


def test_a_models_predicates_name_its_features_and_declared_roles() -> None:
    columns = predicate_columns(spec())

    assert columns["plan"] == columns["dataset"] == columns["model_version"] == "text"
    assert columns["score"] == columns["age"] == "numeric"
    assert columns["member"] == "boolean"
    assert columns["event_time"] == columns["signed_up"] == "datetime"
    assert "latency_ms" not in columns
