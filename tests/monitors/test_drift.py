from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.metrics.intervals import benjamini_hochberg
from mlmon_dagster.monitors.wording import as_judged, limit_of
from tests.monitors.cases import metric, only, spec, verdicts


def psi(value: float | None, p: float | None, column: str = "age", **fields) -> dict:
    return metric("psi", value, column, p_value=p, **fields)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_an_adjusted_p_value_is_the_least_q_at_which_the_procedure_calls_it_real(p_values):
    n, ranked = len(p_values), sorted(p_values)
    oracle = [min(1.0, *(q * n / k for k, q in enumerate(ranked, 1) if q >= p)) for p in p_values]
    found = benjamini_hochberg([*p_values, math.nan])  # what is not tested enlarges no family
    assert found == pytest.approx([*oracle, math.nan], abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("value", "p", "status"),
    [(0.4, 1e-8, "WARN"), (0.4, 0.02, "OK"), (0.05, 1e-8, "OK"), (-0.1, 0.9, "OK")],
)
def test_drift_fires_only_if_real_and_large(value, p, status):
    assert only(verdicts("drift", [psi(value, p)]), "drift/psi/age")["status"] == status


def test_the_sentence_has_number_n_baseline_and_limit():
    row = only(verdicts("drift", [psi(0.5, 1e-8, n=776, by_chance=0.07)]), "drift/psi/age")
    assert row["message"] == (
        "PSI of age is 0.50; an unchanged day has 0.07 on average, and 0.10 more fails "
        "(n 776, baseline n 5,000)."
    )
    assert row["threshold"] == "above 0.10 beyond chance"
    assert limit_of(row) == pytest.approx(0.17)
    assert as_judged(row)["value"] == pytest.approx(0.43)


@given(st.floats(0, 1), st.floats(0, 0.5), st.booleans())
def test_a_distance_fails_by_what_it_is_beyond_chance(distance, chance, is_real):
    found = psi(distance, 1e-9 if is_real else 0.5, by_chance=chance)
    row = only(verdicts("drift", [found]), "drift/psi/age")
    beyond = distance - chance
    assert row["status"] == ("WARN" if is_real and abs(beyond) > 0.1 else "OK")
    assert row["excess"] == pytest.approx((abs(beyond) - 0.1) / 0.1, abs=1e-6)
    assert (row["value"], row["baseline_value"]) == (distance, chance)


def test_a_slice_is_judged_by_what_it_is_beyond_chance_and_beyond_its_whole():
    parts = [
        psi(value, 0.0, slice_key="region", slice_value=name, by_chance=0.3)
        for name, value in (("n", 0.58), ("s", 0.61))
    ]
    rows = verdicts(
        "drift", [psi(0.25, 0.5, by_chance=0.05), *parts], model=spec(drift={"slices": True})
    )
    found = {row["slice_value"]: row["status"] for row in rows if row["slice_key"] == "region"}
    assert found == {"n": "OK", "s": "WARN"}
    assert {row["threshold"] for row in rows if row["slice_key"] == "region"} == {
        "above 0.30 beyond chance"
    }


def test_a_shift_has_no_part_that_chance_gives():
    model = spec(drift={"method": "mean_shift"})
    row = only(verdicts("drift", [metric("mean_shift", -0.5, "age", p_value=0.0)], model=model),
               "drift/mean_shift/age")  # fmt: skip
    assert "of age is -0.50; the limit is 0.10 (n 1,000, baseline n 5,000)." in row["message"]
    assert (row["threshold"], row["status"]) == ("above 0.10", "WARN")


def test_a_large_but_chancy_change_says_so():
    row = only(verdicts("drift", [psi(0.4, 0.2)]), "drift/psi/age")
    assert "This may be chance (adjusted p 0.20)" in row["message"]


def test_p_values_are_adjusted_over_the_columns_of_the_window():
    rows = verdicts("drift", [psi(0.4, 0.006), psi(0.0, 0.9, "region")])
    row = only(rows, "drift/psi/age")
    assert (row["p_adjusted"], row["family_size"], row["status"]) == (0.012, 2, "OK")


def test_a_failing_column_names_its_worst_slices():
    parts = [
        psi(value, 0.0, slice_key="region", slice_value=name, n=90)
        for name, value in (("n", 0.1), ("s", 2.0), ("w", None), ("e", 0.45))
    ]
    row = only(verdicts("drift", [psi(0.4, 0.0), *parts]), "drift/psi/age")
    worst = json.loads(row["details"])["worst_slices"]
    assert [part["slice_value"] for part in worst] == [
        "s"
    ]  # n drifted less than the whole, and e hardly more


def test_slices_are_a_family_of_their_own():
    parts = [
        psi(1.0, p, slice_key="region", slice_value=name)
        for name, p in (("n", 0.004), ("s", 0.3), ("w", 0.5))
    ]
    model = spec(drift={"slices": True})
    rows = verdicts("drift", [psi(0.0, 0.5), *parts], model=model)
    slices = {row["slice_value"]: row for row in rows if row["slice_key"] == "region"}
    assert {row["family_size"] for row in slices.values()} == {3}
    assert only(rows, "drift/psi/age")["family_size"] == 1
    assert slices["n"]["status"] == "OK"  # .012 after adjustment


def test_ks_is_replaced_by_psi_for_columns_without_order():
    model = spec(drift={"method": "ks"})
    metrics = [metric("ks", 0.3, "age", p_value=0.0), psi(0.0, 0.5), psi(0.3, 0.0, "region")]
    found = {row["monitor"]: row["status"] for row in verdicts("drift", metrics, model=model)}
    assert found == {"drift/ks/age": "WARN", "drift/psi/region": "WARN"}


def test_the_age_of_a_time_is_judged_like_any_number():
    rows = verdicts("drift", [psi(9.0, 0.0, "signed_up"), psi(0.0, 0.5)])
    assert only(rows, "drift/psi/signed_up")["status"] == "WARN"
    declared = {row["column_name"] for row in verdicts("drift", [])}
    assert "signed_up" in declared


@pytest.mark.parametrize(
    ("distance", "share", "usual", "p", "status"),
    [
        (7.35, 0.998, 0.1, 1e-6, "WARN"),
        (0.02, 0.008, 0.001, 1e-6, "WARN"),  # a few impossible values move no distance
        (0.02, 0.004, 0.0, 1e-6, "OK"),  # too few to matter
        (7.35, 0.998, 0.6, 1e-6, "OK"),  # the baseline's own windows are as novel
        (7.35, 0.998, 0.1, 0.2, "OK"),  # or are by chance
    ],
)
def test_rows_outside_everything_in_the_baseline_are_drift_whatever_the_distance_says(
    distance, share, usual, p, status
):
    rows = [
        psi(distance, 0.29),
        metric("novel_rate", share, "age", p_value=p),
        metric("novel_rate_auto", usual, "age"),
    ]
    row = only(verdicts("drift", rows), "drift/psi/age")
    assert row["status"] == status
    part = f"{100 * share:.3g} % of rows"
    is_novel = status == "WARN"
    assert (f"age lies outside everything seen before in {part}.\n" in row["message"]) == is_novel
    assert (f"{part} are outside the baseline's range" in row["message"]) == is_novel
    is_chance = distance > 1 and not is_novel
    assert ("This may be chance" in row["message"]) == is_chance
