"""Single bad rows are refused by line and column; the rest of their file is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlmon_dagster.ingest.report import ROW_REASONS
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import manifest
from tests.erased import note_erased
from tests.ingest.landing import (
    ACTUALS,
    NOW,
    PREDICTIONS,
    credit_spec,
    csv_bytes,
    events,
    ingest,
    land,
    letters_of,
    log_content,
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
def test_bad_row_is_refused_by_line_and_the_others_kept(
    store: Store, project: Path, ending: str
) -> None:
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
        land(project, name, _with(frame, column, value))
        wanted[name] = (reason, column, expected)

    report = ingest(store, spec, project)

    line = {"csv": BAD + 2, "jsonl": BAD + 1}[ending]
    assert {file.path for file in report.of("done")} == set(wanted)
    for file in report.files:
        reason, column, expected = wanted[file.path]
        assert (file.rows_in, file.n_new, file.n_bad) == (10, 9, 1), file
        (message,) = file.bad_rows
        assert message.startswith(f"{file.path}, line {line}, column '{column}': ")
        assert f"expected {expected}" in message or expected in message
        assert message.endswith(f"{ROW_REASONS[reason]}.")
    letters = manifest.load_refused_rows(store.state, spec.model)
    assert sorted(letters["reason"]) == sorted(reason for reason, _, _ in wanted.values())
    assert set(letters["row_number"]) == {BAD}
    assert letters["row_hash"].str.fullmatch("[0-9a-f]{64}").all()


def test_bad_row_of_a_parquet_is_named_by_row(store: Store, project: Path) -> None:
    land(project, f"{PREDICTIONS}/a.parquet", events(10, score=[0.5] * 9 + [7.0]))

    (file,) = ingest(store, credit_spec(), project).files

    assert file.bad_rows[0].startswith(f"{PREDICTIONS}/a.parquet, row 10, column 'score'")


def test_line_of_a_bad_row_is_right_after_blank_lines_and_line_ends_in_quotes(
    store: Store, project: Path
) -> None:
    frame = events(3, region=["no\nrth", "south", "south"], score=[0.5, 0.5, 7.0])
    header, rest = csv_bytes(frame).split(b"\n", 1)
    land(project, f"{PREDICTIONS}/a.csv", header + b"\n\n" + rest)

    (file,) = ingest(store, credit_spec(source__predictions__multiline=True), project).files

    # header 1, blank 2, first row 3 and 4, second 5
    assert ", line 6, column 'score'" in file.bad_rows[0]


def test_values_of_bad_rows_are_in_no_message_and_no_table(store: Store, project: Path) -> None:
    secret = "4929-1234-5678"
    land(project, f"{PREDICTIONS}/a.csv", _with(events(10), "score", secret))

    report = ingest(store, credit_spec(), project)

    assert report.total("n_bad") == 1
    assert secret not in repr(report)
    assert secret not in repr(letters_of(store, credit_spec()))
    with store.state.connect() as conn:
        dump = conn.connection.iterdump()  # type: ignore[attr-defined]
        assert not any(secret in line for line in dump)


def test_row_with_several_faults_is_one_bad_row_with_a_letter_for_each(
    store: Store, project: Path
) -> None:
    frame = _with(_with(events(10), "score", "9"), "decision", "2")
    land(project, f"{PREDICTIONS}/a.csv", frame)

    (file,) = ingest(store, credit_spec(), project).files

    assert file.n_bad == 1
    found = {
        (letter["reason"], letter["column_name"]) for letter in letters_of(store, credit_spec())
    }
    assert found == {("score_out_of_range", "score"), ("wrong_type", "prediction")}


def test_no_null_of_a_feature_refuses_a_row_or_a_file(store: Store, project: Path) -> None:
    assert not credit_spec().features["region"].nullable
    land(project, f"{PREDICTIONS}/a.csv", events(40, region=[None] * 20 + ["north"] * 20))

    (file,) = ingest(store, credit_spec(), project).files

    assert (file.status, file.n_new, file.n_bad) == ("done", 40, 0)
    [rows] = [
        found for found in log_content(store, credit_spec(), provenance=False).values() if found
    ]
    assert sum("('region', None)" in row for row in rows) == 20


def test_rows_that_a_rule_refuses_never_refuse_their_file(store: Store, project: Path) -> None:
    """More than ten and more than max_bad_rate of them are refused, and the others are stored."""
    rule = {"expect": "expect_column_values_to_not_be_null", "severity": "refuse",
            "arguments": {"column": "region"}}  # fmt: skip
    spec = credit_spec(expectations=[rule])
    land(project, f"{PREDICTIONS}/a.csv", events(40, region=[None] * 20 + ["north"] * 20))

    (file,) = ingest(store, spec, project).files

    assert (file.status, file.n_new, file.n_bad) == ("done", 20, 20)
    assert {letter["reason"] for letter in letters_of(store, spec)} == {"expectation"}


def test_file_is_quarantined_above_ten_bad_rows_and_the_bad_rate(
    store: Store, project: Path
) -> None:
    spec = credit_spec()
    land(project, f"{PREDICTIONS}/few.csv", events(10, score=[7.0] * 10))
    land(project, f"{PREDICTIONS}/rate.csv", events(1200, 100, score=[7.0] * 12 + [0.5] * 1188))
    land(project, f"{PREDICTIONS}/many.csv", events(1000, 5000, score=[7.0] * 11 + [0.5] * 989))

    report = ingest(store, spec, project)

    found = {Path(f.path).stem: (f.status, f.n_new, f.n_bad) for f in report.files}
    assert found["few"] == ("done", 0, 10)
    assert found["rate"] == ("done", 1188, 12)
    assert found["many"] == ("quarantined", 0, 1000)
    (many,) = report.of("quarantined")
    assert "11 of 1,000 rows cannot be stored (11 score_out_of_range in 'score')" in many.message
    assert "expected at most 1.00%" in many.message
    assert len(many.bad_rows) == 5


def test_a_file_of_before_the_start_says_that_the_start_may_be_set_earlier(
    store: Store, project: Path
) -> None:
    """Nothing is wrong with its rows, which it said to correct."""
    land(project, f"{PREDICTIONS}/old.csv", events(20, at=["2001-01-01T10:00:00Z"] * 20))

    (old,) = ingest(store, credit_spec(), project).of("quarantined")

    assert "(20 before_start in 'at')" in old.message
    assert "set 'start' under 'time' to an earlier day. Correct the rows" in old.message


def test_bad_rows_mark_their_window_so_that_its_checks_run_again(
    store: Store, project: Path
) -> None:
    frame = events(10)
    frame.loc[0, "at"] = pd.Timestamp("2024-02-20T10:00:00Z")
    frame.loc[0, "score"] = 9.0
    land(project, f"{PREDICTIONS}/a.parquet", frame)

    report = ingest(store, credit_spec(), project)

    assert [w.key for w in report.windows] == ["2024-02-01", "2024-02-20"]
    (letter,) = letters_of(store, credit_spec())
    assert letter["window_start"] == "2024-02-19 23:00:00+00:00"
    assert list(revisions(store, credit_spec()).values()) == [1, 1]


def test_training_events_may_be_old_and_unscored(store: Store, project: Path) -> None:
    frame = events(4, day="2019-05-01", dataset=["training"] * 4, score=[None] * 4)
    frame["decision"] = None
    land(project, f"{PREDICTIONS}/a.csv", frame)

    (file,) = ingest(store, credit_spec(), project).files

    assert (file.n_new, file.n_bad) == (4, 0)


def test_failed_request_needs_no_score(store: Store, project: Path) -> None:
    status = ["ok", "timeout", "OK", "500"]
    frame = events(4, status=status, score=[None] * 4)
    land(project, f"{PREDICTIONS}/a.csv", frame)

    (file,) = ingest(store, credit_spec(), project).files

    assert (file.n_new, file.n_bad) == (2, 2)


def test_numbers_that_are_not_finite_become_null_and_are_listed(
    store: Store, project: Path
) -> None:
    age = ["nan", "inf", "-Infinity", "", "31"]
    land(project, f"{PREDICTIONS}/a.csv", csv_bytes(events(5, age=age, latency_ms=["NaN"] * 5)))

    report = ingest(store, credit_spec(), project)

    assert report.total("n_new") == 5
    rows = store.event_log(credit_spec()).rows("predictions").to_pylist()
    found = {row["prediction_id"]: (row["age"], row["nonfinite"]) for row in rows}
    assert found == {
        "p0": (None, ["age:nan", "latency_ms:nan"]),
        "p1": (None, ["age:inf", "latency_ms:nan"]),
        "p2": (None, ["age:-inf", "latency_ms:nan"]),
        "p3": (None, ["latency_ms:nan"]),
        "p4": (31.0, ["latency_ms:nan"]),
    }


def test_rule_on_a_column_without_values_does_not_pass_in_silence(
    store: Store, project: Path
) -> None:
    land(project, f"{PREDICTIONS}/a.parquet", events(5, age=[None] * 5))

    (file,) = ingest(store, credit_spec(), project).files

    assert any("'age' hold no value at all" in warning for warning in file.warnings)
    row = manifest.load_files_frame(store.state, "credit").iloc[0]
    assert '"untested": ["age"]' in row["schema_report"]


def test_missing_nullable_and_unknown_columns_are_warned_of(store: Store, project: Path) -> None:
    frame = events(5).drop(columns="age").assign(colour="red")
    land(project, f"{PREDICTIONS}/a.parquet", frame)

    (file,) = ingest(store, credit_spec(), project).files

    assert file.n_new == 5
    assert any("'colour' are not declared and not kept" in w for w in file.warnings)
    assert any("'age' are missing" in w for w in file.warnings)


def test_local_times_are_read_in_the_zone_when_the_spec_says_so(
    store: Store, project: Path
) -> None:
    # Clocks in Berlin skip 02:30 on 31 March 2024 and show 02:30 twice on 29 October 2023.
    spec = credit_spec(time__naive="zone", time__start="2023-01-01")
    at = ["2023-10-29 02:30", "2024-02-01 00:30", "2024-02-01T00:30:00Z"]
    land(project, f"{PREDICTIONS}/a.csv", csv_bytes(events(3, at=at)))

    (file,) = ingest(store, spec, project).files

    assert (file.n_new, file.n_bad) == (2, 1)
    assert "clocks show twice or never" in file.bad_rows[0]
    times = store.event_log(spec).rows("predictions", ["event_time", "window_date"]).to_pylist()
    assert sorted(str(t["event_time"]) for t in times) == [
        "2024-01-31 23:30:00+00:00",
        "2024-02-01 00:30:00+00:00",
    ]
    assert {t["window_date"] for t in times} == {"2024-02-01"}


def test_erased_prediction_does_not_come_back(store: Store, project: Path) -> None:
    note_erased(store.state, "credit", ["p3"], now=NOW)
    note_erased(store.state, "credit", ["p4"], now=NOW, dataset="training")
    land(project, f"{PREDICTIONS}/a.parquet", events(10))
    land(project, f"{ACTUALS}/a.parquet", truths(10))

    report = ingest(store, credit_spec(), project)

    assert [(f.n_new, f.n_bad) for f in report.files] == [(9, 1), (9, 1)]
    for stream in ("predictions", "actuals"):
        ids = store.event_log(credit_spec()).rows(stream)["prediction_id"].to_pylist()
        assert "p3" not in ids
    assert "p3" not in repr(letters_of(store, credit_spec()))


def test_null_actual_withdraws_and_is_counted(store: Store, project: Path) -> None:
    land(project, f"{PREDICTIONS}/a.parquet", events(4))
    land(project, f"{ACTUALS}/a.parquet", truths(4))
    ingest(store, credit_spec(), project)
    later = truths(2, day="2024-02-09", defaulted=[None, None])
    land(project, f"{ACTUALS}/b.parquet", parquet_bytes(later))

    (file,) = ingest(store, credit_spec(), project).files

    assert file.n_new == 2
    assert any("2 rows without an actual" in warning for warning in file.warnings)
    rows = store.event_log(credit_spec()).rows("actuals", ["prediction_id", "deleted"]).to_pylist()
    assert sum(row["deleted"] for row in rows) == 2
