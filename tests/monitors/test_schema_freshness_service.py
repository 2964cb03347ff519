from __future__ import annotations

import datetime as dt
import json

import pandas as pd
import pytest

from mlmon_dagster.metrics.intervals import wilson
from tests.monitors.cases import DAY, NOW, metric, only, spec, verdicts, window

ONE_DAY = pd.Timedelta(days=1)


def test_a_bad_row_fails_the_schema_with_its_reasons():
    row = verdicts("schema", [], [window(n=997, n_bad=3, bad_reasons='{"bad_type": 3}')])[0]
    assert row["status"] == "ERROR"
    assert row["message"] == "3 of 1,000 rows (0.3 %) broke the schema (bad type), above 0 %."
    assert row["value"] == 0.003
    assert json.loads(row["details"])["bad_reasons"] == {"bad_type": 3}


def test_a_clean_window_keeps_the_schema():
    assert verdicts("schema", [], [window()])[0]["status"] == "OK"


def test_bad_rows_within_the_declared_share_are_fine():
    model = spec(schema={"bad_rate": {"above": 0.01}})
    assert verdicts("schema", [], [window(n_bad=5)], model=model)[0]["status"] == "OK"


def test_a_quarantined_file_fails_a_window_that_is_otherwise_empty():
    refused = {"quarantined": ["a.csv"], "refused_because": "a.csv: not UTF-8; expected text."}
    row = verdicts("schema", [], [window(n=0, n_quarantined=1, **refused)])[0]
    assert row["status"] == "ERROR"
    assert row["message"] == "1 file was refused: a.csv: not UTF-8; expected text."
    assert json.loads(row["details"])["quarantined"] == ["a.csv"]


def test_a_window_without_rows_has_no_schema_verdict():
    row = verdicts("schema", [], [window(n=0)])[0]
    assert (row["status"], row["reason"]) == ("NO_DATA", "no_rows")


def freshness(counts: list[int], *, now: dt.datetime = NOW, model=None, hours: int = 24, **fields):
    length = pd.Timedelta(hours=hours)
    windows = [
        window(DAY + i * length, n=n, window_end=DAY + (i + 1) * length, **fields)
        for i, n in enumerate(counts)
    ]
    return [r["status"] for r in silence(windows, model=model, now=now)]


def silence(windows, **options):
    """The verdicts on predictions; those on their ground truth stand beside them."""
    rows = verdicts("freshness", [], windows, **options)
    return [row for row in rows if row["monitor"] == "freshness/no_data_for"]


def test_an_empty_day_fails():
    assert freshness([10, 0, 10]) == ["OK", "ERROR", "OK"]


def test_an_empty_day_fails_only_when_its_rows_had_their_chance():
    end = (DAY + 2 * ONE_DAY).to_pydatetime()
    assert freshness([10, 0], now=end + dt.timedelta(hours=1)) == ["OK"]
    assert freshness([10, 0], now=end + dt.timedelta(hours=2)) == ["OK", "ERROR"]


def test_a_model_that_may_be_silent_for_three_days_may_be_so():
    model = spec(freshness={"no_data_for": "3d"})
    assert freshness([10, 0, 0, 0], model=model) == ["OK", "OK", "ERROR", "ERROR"]


def test_an_empty_day_waits_for_files_that_may_hold_its_rows():
    windows = [window(n=0, n_unread=3, unread_until="2024-01-11T00:00:00+00:00")]
    [row] = silence(windows)
    assert (row["status"], row["reason"]) == ("NO_DATA", "files_unread")
    assert row["message"] == (
        "No verdict on freshness: files that may hold its rows have landed and are not read yet "
        "(n 0)."
    )


REFUSED = {"refused_because": "in/a.csv: 20 of 40 rows cannot be stored."}


def test_an_empty_day_whose_file_was_refused_points_at_the_file():
    [row] = silence([window(n=0, **REFUSED)])
    assert (row["status"], row["reason"]) == ("NO_DATA", "files_refused")
    assert row["message"] == (
        "No verdict on freshness: a file that may hold its rows was refused (n 0). "
        "in/a.csv: 20 of 40 rows cannot be stored."
    )


def test_a_refused_file_hides_no_silence_that_its_own_alert_is_milder_than():
    model = spec(schema={"severity": "WARN"})
    [row] = silence([window(n=0, **REFUSED)], model=model)
    assert row["status"] == "ERROR"
    assert row["message"].endswith(
        "the limit is 26 hours. in/a.csv: 20 of 40 rows cannot be stored."
    )
    assert row["message"].startswith("No prediction was taken in; a file was refused;")


def test_a_silence_after_a_refused_file_fails_and_says_so():
    days = [window(DAY + i * ONE_DAY, n=n, **more) for i, (n, more) in
            enumerate([(9, {}), (0, REFUSED), (0, {}), (9, {}), (0, {})])]  # fmt: skip
    rows = silence(days)
    assert [row["status"] for row in rows] == ["OK", "NO_DATA", "ERROR", "OK", "ERROR"]
    assert "a file was refused" in rows[2]["message"]
    assert "in/a.csv" in rows[2]["message"]
    assert "refused" not in rows[4]["message"]


@pytest.mark.parametrize(("is_dated", "first"), [(False, "NO_DATA"), (True, "ERROR")])
def test_a_refused_file_may_be_of_earlier_empty_days_unless_its_name_has_the_day(is_dated, first):
    days = [window(), window(DAY + ONE_DAY, n=0),
            window(DAY + 2 * ONE_DAY, n=0, refused_is_dated=is_dated, **REFUSED)]  # fmt: skip
    assert [row["status"] for row in silence(days)] == ["OK", first, "NO_DATA"]


def test_late_ground_truth_names_the_file_of_it_that_was_refused():
    because = "in/t.csv: column 'label' is missing."
    rows = verdicts(
        "freshness", [],
        [window(n_expected=1000, n_actual=0, n_refused_actuals=2, refused_actuals_because=because)],
        now=NOW + dt.timedelta(days=200),
    )  # fmt: skip
    assert rows[1]["status"] == "ERROR"
    assert rows[1]["message"].endswith(f"2 files of ground truth refused since then. {because}")


def test_overdue_ground_truth_waits_for_files_that_may_hold_it():
    rows = verdicts("freshness", [], [window(n_expected=1000, n_actual=0, n_unread_actuals=1)])
    assert [(r["monitor"], r["status"]) for r in rows] == [
        ("freshness/no_data_for", "OK"),
        ("freshness/actuals_missing", "NO_DATA"),
    ]


def test_windows_that_are_not_counted_yet_have_a_verdict_on_ground_truth_all_the_same():
    """Two windows without any would end an alert that still fires."""
    rows = verdicts("freshness", [], [window(n=10, n_expected=0, is_waiting=True)])
    assert [(r["monitor"], r["status"], r["reason"]) for r in rows] == [
        ("freshness/no_data_for", "OK", ""),
        ("freshness/actuals_missing", "NO_DATA", "labels_still_coming"),
    ]


@pytest.mark.parametrize(
    ("windows", "said"),
    [
        ([window(n=0)], "on this day, and none was taken in before it"),
        ([window(), window(DAY + ONE_DAY, n=0)], "since Wednesday 2024-01-10 00:00 (UTC)"),
        (
            [window(n=0, last_before=DAY - 90 * ONE_DAY)],
            "since Thursday 2023-10-12 00:00 (UTC)",
        ),
    ],
)
def test_an_empty_window_says_when_the_last_prediction_before_it_came(windows, said):
    row = silence(windows)[-1]
    assert row["message"] == f"No prediction {said}; the limit is 26 hours."
    assert row["status"] == "ERROR"


def test_hours_without_data_add_up():
    model = spec(freshness={"no_data_for": "4h"})
    assert freshness([5, 0, 0, 0, 0, 5, 0], model=model, hours=1) == [
        "OK", "OK", "OK", "ERROR", "ERROR", "OK", "OK",
    ]  # fmt: skip


def test_hours_before_the_first_prediction_of_all_are_no_silence_yet():
    """A model whose first day begins at 5 in the morning."""
    model = spec(freshness={"no_data_for": "4h"})
    assert freshness([0, 0, 0, 5], model=model, hours=1) == ["OK", "OK", "OK", "OK"]
    assert freshness([0] * 5, model=model, hours=1) == ["OK", "OK", "OK", "ERROR", "ERROR"]
    assert freshness([0, 5]) == ["ERROR", "OK"]  # of days, with a limit of 26 hours


def day_after(hours: float, **fields):
    """The verdicts on an empty day as known so long after it, the last event an hour before it."""
    end = DAY + 2 * ONE_DAY
    windows = [
        window(last_event_time=DAY + pd.Timedelta(hours=23)),
        window(DAY + ONE_DAY, n=0, **fields),
    ]
    now = (end + pd.Timedelta(hours=hours)).to_pydatetime()
    model = spec(freshness={"no_data_for": "30h"})
    return [row["status"] for row in silence(windows, model=model, now=now)][1:]


def test_the_silence_is_as_long_as_since_the_last_event():
    """Of a limit of 30 hours 25 are over at the day's end: it is decided five hours later."""
    assert day_after(4.9) == []
    assert day_after(6) == ["ERROR"]


def test_an_event_within_the_limit_ends_the_silence():
    end = DAY + 2 * ONE_DAY
    early, late = (end + pd.Timedelta(hours=hour) for hour in (4.9, 5.1))
    assert day_after(48, next_after=early) == ["OK"]
    assert day_after(48, next_after=late) == ["ERROR"]


def test_rows_that_are_not_counted_yet_put_the_verdict_off():
    assert day_after(48, is_followed=True) == []


def test_a_limit_of_several_windows_is_judged_at_the_end_of_each():
    """Another window follows soon, which says the same of the same silence."""
    early, late = DAY + pd.Timedelta(minutes=5), DAY + pd.Timedelta(minutes=50)
    model = spec(freshness={"no_data_for": "4h"})
    counts = [5, 0, 0, 0, 0]
    for last, said in ((early, ["OK", "ERROR"]), (late, ["OK", "ERROR"])):
        found = freshness(counts, model=model, hours=1, last_event_time=last)
        assert found[3:] == said


def test_only_production_can_be_stale():
    windows = [window(n=0, dataset="validation"), window(n=5, dataset="production")]
    assert len(silence(windows)) == 1


def latency(value: float | None, **fields) -> dict:
    return metric("p95_latency_ms", value, **fields)


SLOW = {"p95_latency_ms": {"above": 250}}


@pytest.mark.parametrize(("value", "status"), [(249.0, "OK"), (250.0, "OK"), (260.0, "ERROR")])
def test_latency_is_compared_with_its_limit(value, status):
    rows = verdicts("service", [latency(value)], model=spec(service=SLOW))
    assert only(rows, "service/p95_latency_ms")["status"] == status


@pytest.mark.parametrize(
    ("errors", "n", "status"),
    [
        (1, 40, "OK"),
        (2, 30, "OK"),
        (6, 589, "OK"),
        (3, 200, "OK"),
        (3, 30, "ERROR"),
        (30, 1000, "ERROR"),
    ],
)
def test_a_few_errors_are_no_evidence_of_many(errors, n, status):
    lower, upper = (float(bound) for bound in wilson(errors, n))
    rows = [metric("error_rate", errors / n, n=n, lower=lower, upper=upper)]
    assert only(verdicts("service", rows), "service/error_rate")["status"] == status


def test_one_error_is_one_too_many_where_none_are_allowed():
    lower, upper = (float(bound) for bound in wilson(1, 5000))
    rows = [metric("error_rate", 1 / 5000, n=5000, lower=lower, upper=upper)]
    model = spec(service={"error_rate": {"above": 0}})
    assert only(verdicts("service", rows, model=model), "service/error_rate")["status"] == "ERROR"


def test_too_little_traffic_fails_even_when_there_is_none():
    model = spec(service={"n": {"below": 100}})
    for n, status in ((0, "ERROR"), (99, "ERROR"), (100, "OK")):
        rows = verdicts("service", [], [window(n=n)], model=model)
        assert only(rows, "service/n")["status"] == status


def test_what_the_model_does_not_log_is_not_judged():
    model = spec(service=SLOW)
    columns = model.columns.model_copy(update={"latency_ms": None, "status": None})
    silent = model.model_copy(update={"columns": columns})
    assert verdicts("service", [], model=silent) == []
