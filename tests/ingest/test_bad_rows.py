"""Single bad rows are refused by line and column; the rest of their file is kept."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlmon_dagster.ingest.report import ROW_REASONS
from mlmon_dagster.store.state import manifest
from tests.erased import note_erased
from tests.ingest.landing import (
    ACTUALS,
    NOW,
    PREDICTIONS,
    World,
    credit_spec,
    csv_bytes,
    events,
    parquet_bytes,
    revisions,
    truths,
)

BAD = 3  # the row that is made bad: line 5 of a CSV, line 4 of JSON Lines, row 4 of a Parquet


def _with(frame: pd.DataFrame, column: str, value: Any) -> pd.DataFrame:
    out = frame.copy()
    cells = list(out[column])
    cells[BAD] = value
    out[column] = pd.Series(cells, dtype=object if isinstance(value, str | None) else None)
    return out


# stream, column, value, reason, what is expected
CASES = [
    (PREDICTIONS, "id", None, "null_required", "text or an integer"),
    (PREDICTIONS, "id", "", "null_required", "text or an integer"),
    (PREDICTIONS, "at", None, "null_required", "ISO 8601"),
    (PREDICTIONS, "score", None, "null_required", "a number"),
    (PREDICTIONS, "score", "high", "wrong_type", "a number"),
    (PREDICTIONS, "score", "0,5", "wrong_type", "a number"),
    (PREDICTIONS, "age", "NA", "wrong_type", "a number"),
    (PREDICTIONS, "age", "0x1f", "wrong_type", "a number"),
    (PREDICTIONS, "age", "1_000", "wrong_type", "a number"),
    (PREDICTIONS, "decision", "2", "wrong_type", "0 or 1"),
    (PREDICTIONS, "decision", "yes", "wrong_type", "0 or 1"),
    (PREDICTIONS, "member", "yes", "wrong_type", "true or false"),
    (PREDICTIONS, "region", "nor\0th", "wrong_type", "text"),
    (PREDICTIONS, "at", "yesterday", "wrong_type", "ISO 8601"),
    (PREDICTIONS, "at", "2024-02-30T08:00:00Z", "wrong_type", "ISO 8601"),
    (PREDICTIONS, "at", "2024-02-01T08:00:00", "naive_time", "an offset"),
    (PREDICTIONS, "at", "2024-02-01", "naive_time", "an offset"),
    (PREDICTIONS, "at", "2024-03-01T12:10:01Z", "future_time", "2024-03-01T12:10:00+00:00"),
    (PREDICTIONS, "at", "2023-12-31T22:59:59Z", "before_start", "2024-01-01T00:00:00+01:00"),
    (PREDICTIONS, "score", "1.01", "score_out_of_range", "0 to 1"),
    (PREDICTIONS, "score", "-0.01", "score_out_of_range", "0 to 1"),
    (PREDICTIONS, "score", "nan", "score_out_of_range", "finite"),
    (PREDICTIONS, "score", "inf", "score_out_of_range", "finite"),
    (PREDICTIONS, "dataset", "prod", "bad_dataset", "production"),
    (PREDICTIONS, "dataset", "all", "bad_dataset", "one of"),
    (ACTUALS, "id", None, "null_required", "text or an integer"),
    (ACTUALS, "defaulted", "2", "bad_actual", "0 or 1"),
    (ACTUALS, "defaulted", "0.5", "bad_actual", "0 or 1"),
    (ACTUALS, "defaulted", "late", "wrong_type", "0 or 1"),
    (ACTUALS, "known_at", None, "null_required", "ISO 8601"),
    (ACTUALS, "known_at", "2025-01-01T00:00:00Z", "future_time", "at most"),
]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_bad_row_is_refused_by_line_and_the_others_kept(world: World, ending: str) -> None:
    spec = credit_spec()
    wanted = {}
    for number, (stream, column, value, reason, expected) in enumerate(CASES):
        good = events if stream == PREDICTIONS else truths
        name = f"{stream}/{number}.{ending}"
        frame = good(10, first=100 * number)
        if stream == ACTUALS and column != "known_at":
            frame = frame.assign(known_at=[t.isoformat() for t in frame["known_at"]])
        if ending == "csv" and value == "":
            continue  # an empty CSV cell is a null
        world.land(name, _with(frame, column, value))
        wanted[name] = (reason, column, expected)

    report = world.ingest(spec)

    line = {"csv": BAD + 2, "jsonl": BAD + 1}[ending]
    assert {file.path for file in report.of("done")} == set(wanted)
    for file in report.files:
        reason, column, expected = wanted[file.path]
        assert (file.rows_in, file.n_new, file.n_bad) == (10, 9, 1), file
        (message,) = file.bad_rows
        assert message.startswith(f"{file.path}, line {line}, column '{column}': ")
        assert f"expected {expected}" in message or expected in message
        assert message.endswith(f"{ROW_REASONS[reason]}.")
    letters = manifest.load_refused_rows(world.store.state, spec.model)
    assert sorted(letters["reason"]) == sorted(reason for reason, _, _ in wanted.values())
    assert set(letters["row_number"]) == {BAD}
    assert letters["row_hash"].str.fullmatch("[0-9a-f]{64}").all()


HALF = events(40, region=[None] * 20 + ["north"] * 20)
UNSCORED = {"score": [None] * 4, "decision": [None] * 4}
NOT_NULL = {"expect": "expect_column_values_to_not_be_null", "severity": "refuse",
            "arguments": {"column": "region"}}  # fmt: skip
BLANK_LINE = csv_bytes(
    events(3, region=["no\nrth", "south", "south"], score=[0.5, 0.5, 7.0])
).replace(b"\n", b"\n\n", 1)
# What lands, how the spec differs, rows that are new and bad, and what is said.
FILES: dict[str, tuple[bytes | pd.DataFrame, dict[str, Any], tuple[int, int], list[str]]] = {
    "a row of a Parquet file has a number": (
        parquet_bytes(events(10, score=[0.5] * 9 + [7.0])), {}, (9, 1),
        [f"{PREDICTIONS}/a.parquet, row 10, column 'score'"],
    ),
    # header 1, blank 2, first row 3 and 4, second 5
    "lines are counted through blank ones and line ends in quotes": (
        BLANK_LINE, {"source__predictions__multiline": True}, (2, 1), [", line 6, column 'score'"]
    ),
    "no null of a feature refuses a row or a file": (HALF, {}, (40, 0), []),
    # More than ten and more than max_bad_rate of them are refused, and the others are stored.
    "rows that an expectation refuses never refuse their file": (
        HALF, {"expectations": [NOT_NULL]}, (20, 20), ["does not allow"]
    ),
    "nothing is wrong with the rows of a file of before the start": (
        events(20, at=["2001-01-01T10:00:00Z"] * 20), {}, (0, 20),
        ["(20 before_start in 'at')",
         "set 'start' under 'time' to an earlier day. Correct the rows"],
    ),
    # Half of the rows are far more than max_bad_rate.
    "rows of after the end never refuse their file": (
        events(40, at=["2024-02-01T10:00:00Z"] * 20 + ["2024-02-02T10:00:00Z"] * 20),
        {"time__end": dt.date(2024, 2, 2)}, (20, 20), ["a time after production ended"],
    ),
    "nothing is after the end in another dataset": (
        events(4, dataset=["training"] * 4), {"time__end": dt.date(2024, 2, 1)}, (4, 0), []
    ),
    "a week that the end lies in is none of production": (
        events(4), {"time__granularity": "week", "time__end": dt.date(2024, 2, 2)}, (0, 4),
        ["expected before 2024-01-29T00:00:00+01:00, the 'end' under 'time'"],
    ),
    "training events may be old and unscored": (
        events(4, day="2019-05-01", dataset=["training"] * 4, **UNSCORED), {}, (4, 0), []
    ),
    "a failed request needs no score": (
        events(4, status=["ok", "timeout", "OK", "500"], score=[None] * 4), {}, (2, 2), []
    ),
    "a rule on a column without values does not pass in silence": (
        events(5, age=[None] * 5), {}, (5, 0), ["'age' hold no value at all"]
    ),
    "missing nullable and unknown columns are warned of": (
        events(5).drop(columns="age").assign(colour="red"), {}, (5, 0),
        ["'colour' are not declared and not kept", "'age' are missing"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("claim", FILES)
def test_of_a_file_with_odd_rows(world: World, claim: str) -> None:
    content, changes, counts, said = FILES[claim]
    is_parquet = isinstance(content, bytes) and content.startswith(b"PAR1")

    file = world.take_in(content, credit_spec(**changes), "a.parquet" if is_parquet else "a.csv")

    assert (file.n_new, file.n_bad) == counts
    text = " ".join([file.message, *file.warnings, *file.bad_rows])
    assert [wanted for wanted in said if wanted not in text] == []


def test_values_of_bad_rows_are_in_no_message_and_no_table(world: World) -> None:
    secret = "4929-1234-5678"
    world.land(f"{PREDICTIONS}/a.csv", _with(events(10), "score", secret))

    report = world.ingest()

    assert report.total("n_bad") == 1
    assert secret not in repr(report)
    assert secret not in repr(world.letters())
    with world.store.state.connect() as conn:
        dump = conn.connection.iterdump()  # type: ignore[attr-defined]
        assert not any(secret in line for line in dump)


def test_row_with_several_faults_is_one_bad_row_with_a_letter_for_each(world: World) -> None:
    frame = _with(_with(events(10), "score", "9"), "decision", "2")
    file = world.take_in(frame)

    assert file.n_bad == 1
    found = {(letter["reason"], letter["column_name"]) for letter in world.letters()}
    assert found == {("score_out_of_range", "score"), ("wrong_type", "prediction")}


def test_file_is_quarantined_above_ten_bad_rows_and_the_bad_rate(world: World) -> None:
    spec = credit_spec()
    world.land(f"{PREDICTIONS}/few.csv", events(10, score=[7.0] * 10))
    world.land(f"{PREDICTIONS}/rate.csv", events(1200, 100, score=[7.0] * 12 + [0.5] * 1188))
    world.land(f"{PREDICTIONS}/many.csv", events(1000, 5000, score=[7.0] * 11 + [0.5] * 989))

    report = world.ingest(spec)

    found = {Path(f.path).stem: (f.status, f.n_new, f.n_bad) for f in report.files}
    assert found["few"] == ("done", 0, 10)
    assert found["rate"] == ("done", 1188, 12)
    assert found["many"] == ("quarantined", 0, 1000)
    (many,) = report.of("quarantined")
    assert "11 of 1,000 rows cannot be stored (11 score_out_of_range in 'score')" in many.message
    assert "expected at most 1.00%" in many.message
    assert len(many.bad_rows) == 5


def test_bad_rows_mark_their_window_so_that_its_checks_run_again(world: World) -> None:
    frame = events(10)
    frame.loc[0, "at"] = pd.Timestamp("2024-02-20T10:00:00Z")
    frame.loc[0, "score"] = 9.0
    world.land(f"{PREDICTIONS}/a.parquet", frame)

    report = world.ingest()

    assert [w.key for w in report.windows] == ["2024-02-01", "2024-02-20"]
    (letter,) = world.letters()
    assert letter["window_start"] == "2024-02-19 23:00:00+00:00"
    assert list(revisions(world.store, credit_spec()).values()) == [1, 1]


def test_numbers_that_are_not_finite_become_null_and_are_listed(world: World) -> None:
    age = ["nan", "inf", "-Infinity", "", "31"]
    world.land(f"{PREDICTIONS}/a.csv", csv_bytes(events(5, age=age, latency_ms=["NaN"] * 5)))

    report = world.ingest()

    assert report.total("n_new") == 5
    rows = world.rows()
    found = {row["prediction_id"]: (row["age"], row["nonfinite"]) for row in rows}
    assert found == {
        "p0": (None, ["age:nan", "latency_ms:nan"]),
        "p1": (None, ["age:inf", "latency_ms:nan"]),
        "p2": (None, ["age:-inf", "latency_ms:nan"]),
        "p3": (None, ["latency_ms:nan"]),
        "p4": (31.0, ["latency_ms:nan"]),
    }


def test_local_times_are_read_in_the_zone_when_the_spec_says_so(world: World) -> None:
    # Clocks in Berlin skip 02:30 on 31 March 2024 and show 02:30 twice on 29 October 2023.
    spec = credit_spec(time__naive="zone", time__start="2023-01-01")
    at = ["2023-10-29 02:30", "2024-02-01 00:30", "2024-02-01T00:30:00Z"]
    file = world.take_in(csv_bytes(events(3, at=at)), spec)

    assert (file.n_new, file.n_bad) == (2, 1)
    assert "clocks show twice or never" in file.bad_rows[0]
    times = (
        world.store.event_log(spec).rows("predictions", ["event_time", "window_date"]).to_pylist()
    )
    assert sorted(str(t["event_time"]) for t in times) == [
        "2024-01-31 23:30:00+00:00",
        "2024-02-01 00:30:00+00:00",
    ]
    assert {t["window_date"] for t in times} == {"2024-02-01"}


def test_erased_prediction_does_not_come_back(world: World) -> None:
    note_erased(world.store.state, "credit", ["p3"], now=NOW)
    note_erased(world.store.state, "credit", ["p4"], now=NOW, dataset="training")
    world.land(f"{PREDICTIONS}/a.parquet", events(10))
    world.land(f"{ACTUALS}/a.parquet", truths(10))

    report = world.ingest()

    assert [(f.n_new, f.n_bad) for f in report.files] == [(9, 1), (9, 1)]
    for stream in ("predictions", "actuals"):
        ids = world.store.event_log(credit_spec()).rows(stream)["prediction_id"].to_pylist()
        assert "p3" not in ids
    assert "p3" not in repr(world.letters())


def test_null_actual_withdraws_and_is_counted(world: World) -> None:
    world.land(f"{PREDICTIONS}/a.parquet", events(4))
    world.land(f"{ACTUALS}/a.parquet", truths(4))
    world.ingest()
    later = truths(2, day="2024-02-09", defaulted=[None, None])
    world.land(f"{ACTUALS}/b.parquet", parquet_bytes(later))

    (file,) = world.ingest().files

    assert file.n_new == 2
    assert any("2 rows without an actual" in warning for warning in file.warnings)
    rows = (
        world.store.event_log(credit_spec())
        .rows("actuals", ["prediction_id", "deleted"])
        .to_pylist()
    )
    assert sum(row["deleted"] for row in rows) == 2
