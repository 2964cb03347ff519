"""Late ground truth: beside what windows usually have at the same age."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from mlmon_dagster.families.ground_truth import compare_truth, explain_waiting
from mlmon_dagster.metrics.late_truth.arrivals import Arrivals
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.windows import TruthTiming
from tests.conftest import make_spec
from tests.metrics.label_times import Past, between, by_class, lognormal
from tests.monitors.cases import DAY, verdicts, window

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
SPEC = make_spec()
UNIFORM = between(1, 20)


def day(number: float) -> dt.datetime:
    return START + dt.timedelta(days=number)


def states(past: Past, look: float, arrivals: Arrivals, spec: ModelSpec = SPEC) -> dict[int, str]:
    """Return what is said of every window that has ended at a look, by its day."""
    return {
        i: compare_truth(spec, arrivals, day(i + 1), past.n, past.labels(i, look), day(look)).state
        for i in range(int(look))
    }


def late_windows(past: Past, looks: range) -> dict[int, set[int]]:
    """Live the looks, each with the curve as it was learnt then; return what was late at each."""
    found = {}
    for look in looks:
        seen = states(past, look + 0.2, past.learn(look + 0.2))
        found[look] = {i for i, state in seen.items() if state == "late"}
    return found


HEALTHY = {
    "1 to 20 days": lambda seed: Past(UNIFORM, 120, 200, seed=seed),
    "50 rows": lambda seed: Past(UNIFORM, 120, 50, seed=seed),
    "30 to 60 days": lambda seed: Past(between(30, 60), 120, 200, seed=seed),
    "heavy tail": lambda seed: Past(lognormal(6, 1.3), 120, 200, seed=seed),
    "weekly batches": lambda seed: Past(between(0, 10), 120, 200, weekly=True, seed=seed),
    "positives first": lambda seed: Past(
        by_class(between(60, 60.5), between(1, 44)), 120, 200, seed=seed
    ),
    "negatives first": lambda seed: Past(
        by_class(between(0, 1), between(20, 40)), 120, 200, seed=seed
    ),
    "10 %": lambda seed: Past(UNIFORM, 120, 500, share=0.1, seed=seed),
    "next day": lambda seed: Past(between(0, 1), 120, 200, seed=seed),
}


@pytest.mark.parametrize("law", HEALTHY)
def test_healthy_ground_truth_is_never_late_whatever_its_lag(law: str) -> None:
    """Of 15 looks at every window of 120 days, none says that ground truth is late."""
    found = late_windows(HEALTHY[law](1), range(2, 120, 8))
    assert {look: late for look, late in found.items() if late} == {}


@pytest.mark.parametrize("law", ["1 to 20 days", "weekly batches", "next day", "negatives first"])
def test_a_label_job_that_stops_is_found_within_days_and_stays_found(law: str) -> None:
    """Within five windows of the day on which labels were due, with the days that may be late."""
    past = HEALTHY[law](3)
    due = {"1 to 20 days": 3, "weekly batches": 9, "next day": 1, "negatives first": 1}[law]
    for i, came in enumerate(past.came):
        past.came[i] = pd.Series(came).where(came <= 80.2, float("inf")).to_numpy()
    found = late_windows(past, range(80, 110))
    first = min(look for look, late in found.items() if late)
    assert 80 < first <= 80 + due + 5 + SPEC.time.allowed_lateness.days
    assert all(found[look] for look in range(first, 110))


def test_a_pause_of_the_label_job_is_found_and_over_when_it_has_caught_up() -> None:
    past = Past(UNIFORM, 120, 300, pause=(60, 69))
    found = late_windows(past, range(55, 100))
    late = [look for look, windows in found.items() if windows]
    assert late
    assert min(late) >= 62
    assert max(late) <= 69


def test_after_windows_that_never_got_any_the_next_ones_show_that_ground_truth_comes_again() -> (
    None
):
    """Of a model that was watched for two weeks: so young a curve holds such windows for usual."""
    past = Past(between(0, 1), 40, 600)
    for i in range(15, 21):
        past.came[i] = past.came[i] * 0 + float("inf")
    stopped, resumed = (states(past, look, past.learn(look)) for look in (21.2, 28.2))
    assert "late" in stopped.values()
    assert [resumed[i] for i in (21, 22, 23, 24)] == ["fine"] * 4
    assert {resumed[i] for i in range(15, 21)} <= {"late", "too_few"}


def test_a_window_too_young_to_miss_anything_is_no_evidence_that_ground_truth_comes() -> None:
    """Of 300 predictions so few have it after three days that none could be chance."""
    arrivals = Past(UNIFORM, 60).learn(60)
    young, old = (compare_truth(SPEC, arrivals, day(0), 300, 0, day(age)) for age in (3.2, 9.2))
    assert (young.state, old.state) == ("too_few", "late")
    found = judged(arrivals, n_expected=20, n_actual=1)
    assert (found["status"], found["reason"]) in [("NO_DATA", "labels_still_coming"), ("ERROR", "")]


def test_nothing_is_said_before_anything_is_known() -> None:
    """Without a curve, and without `expected_within`, a window of 89 days has no verdict."""
    for arrivals in (None, Past(UNIFORM, 5).learn(5)):
        found = compare_truth(SPEC, arrivals, day(0), 1000, 0, day(91))
        assert found.state == "unknown"
    # Nobody waits for ever, though: `closed_after` is not less than that.
    assert compare_truth(SPEC, None, day(0), 1000, 0, day(93)).state == "late"
    assert compare_truth(SPEC, None, day(0), 20, 0, day(93)).state == "unknown"


def test_before_a_curve_is_learnt_the_declared_age_counts() -> None:
    declared = make_spec(actuals={"expected_within": "5d"})
    for age, k, state in [(13.9, 0, "not_due"), (14, 0, "late"), (7, 1, "fine")]:
        assert compare_truth(declared, None, day(0), 100, k, day(age)).state == state


def test_a_window_that_has_all_of_it_misses_none_though_nothing_is_known_of_when_it_comes() -> None:
    """As after a backfill, in which the files of a year came on one day."""
    for arrivals in (None, Past(UNIFORM, 5).learn(5)):
        found = compare_truth(SPEC, arrivals, day(0), 1000, 1000, day(40))
        assert (found.state, found.missing) == ("fine", 0.0)
        assert compare_truth(SPEC, arrivals, day(0), 1000, 999, day(40)).state == "unknown"


def test_times_of_the_baseline_are_believed_a_week_later() -> None:
    """They are when ground truth became known, and not when it came here."""
    past = Past(UNIFORM, 60).records(100)
    records = [replace(record, end=record.end - 200) for record in past]
    arrivals = Past(UNIFORM, 3).learn(3, baseline=records)
    end = day(0)
    assert compare_truth(SPEC, arrivals, end, 400, 0, day(8)).state == "not_due"
    assert compare_truth(SPEC, arrivals, end, 400, 0, day(15)).state == "late"
    assert compare_truth(SPEC, arrivals, end, 400, 150, day(15)).state == "fine"


def judged(arrivals: Arrivals | None, **fields: Any) -> dict[str, Any]:
    rows = verdicts("freshness", [], [window(**fields)], arrivals=arrivals, now=day(29.2))
    (row,) = [row for row in rows if row["metric"] == "actuals_missing"]
    return row


def test_the_verdict_says_how_much_is_usual_at_that_age() -> None:
    arrivals = Past(UNIFORM, 60).learn(60)
    late = judged(arrivals, n_expected=1000, n_actual=12)
    assert late["window_start"] == DAY.to_pydatetime()
    assert late["status"] == "ERROR"
    said = f"Ground truth is late: 12 of 1,000 predictions of {DAY:%Y-%m-%d} have it, "
    assert late["message"].startswith(said)
    assert late["message"].endswith(" % at this age.")
    fine = judged(arrivals, n_expected=1000, n_actual=800)
    assert fine["status"] == "OK"
    # What is not counted yet may be what is missing; what is counted already may be enough.
    waiting = judged(arrivals, n_expected=1000, n_actual=12, is_waiting=True)
    assert (waiting["status"], waiting["reason"]) == ("NO_DATA", "labels_still_coming")
    assert judged(arrivals, n_expected=1000, n_actual=800, is_waiting=True)["status"] == "OK"


def test_a_window_without_a_known_curve_says_so_with_the_reason() -> None:
    row = judged(None, n_expected=1000, n_actual=12)
    assert (row["status"], row["reason"]) == ("NO_DATA", "arrival_unknown")
    assert row["message"] == "How late ground truth usually comes is not known yet."


def test_a_window_that_waits_names_the_day_on_which_it_is_judged() -> None:
    """Before the age at which nearly all has come, and after it where it has not."""
    arrivals = Past(UNIFORM, 60).learn(60)
    timing = TruthTiming(dt.timedelta(days=20), 0.8, dt.timedelta(days=90))
    end = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
    five = end + dt.timedelta(days=5)
    reason, said = explain_waiting(SPEC, arrivals, timing, end, 1000, 212, five)
    assert reason == "labels_still_coming"
    share = arrivals.watched.share_by(5)
    assert share is not None
    assert said == (
        f"Ground truth is still coming: 212 of 1,000 predictions had it on 6 March, usually "
        f"{share:.0%} at this age. It is usually judged by 21 March."
    ).replace(f"{share:.0%}", f"{share * 100:.0f} %")
    behind = end + dt.timedelta(days=30)
    reason, said = explain_waiting(SPEC, arrivals, timing, end, 1000, 212, behind)
    assert reason == "labels_still_coming"
    assert said.startswith("Ground truth is late: 212 of 1,000 predictions had it on 31 March")
    assert said.endswith("It will be judged once more of it is there, or on 30 May.")
    reason, said = explain_waiting(SPEC, None, TruthTiming(), end, 1000, 212, five)
    assert reason == "arrival_unknown"
