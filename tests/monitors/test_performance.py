from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import special

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.monitors.evidence import level_of
from mlmon_dagster.monitors.wording import explain
from tests.conftest import make_spec
from tests.monitors.cases import frame, metric, only, spec, verdicts, window

AUC = "performance/roc_auc"


def auc(value: float | None, half: float = 0.02, **fields) -> dict:
    ends = {} if value is None else {"lower": value - half, "upper": value + half}
    return metric("roc_auc", value, **(ends | fields))


BASELINE = frame([auc(0.80, 0.01, n=20_000)])


@pytest.mark.parametrize(
    ("value", "half", "status"),
    [
        (0.70, 0.02, "ERROR"),  # far and sure
        (0.75, 0.02, "ERROR"),  # exactly the limit
        (0.77, 0.01, "OK"),  # sure but small
        (0.70, 0.15, "OK"),  # large but may be chance
        (0.85, 0.01, "OK"),
    ],
)
def test_a_drop_must_be_large_and_sure(value, half, status):
    row = only(verdicts("performance", [auc(value, half)], baseline=BASELINE), AUC)
    assert row["status"] == status
    assert row["baseline_value"] == 0.80


def test_the_baselines_own_uncertainty_counts():
    unsure = frame([auc(0.80, 0.2, n=60)])
    assert only(verdicts("performance", [auc(0.70)], baseline=unsure), AUC)["status"] == "OK"


def test_the_sentence_compares_with_the_baseline():
    row = only(verdicts("performance", [auc(0.65, n=776)], baseline=BASELINE), AUC)
    assert row["message"] == (
        "ROC AUC is 0.65, worse than the baseline's 0.80.\n"
        "95 % interval 0.63 to 0.67 (n 776); the limit is a fall of 0.05."
    )
    chance = only(verdicts("performance", [auc(0.7, 0.15)], baseline=BASELINE), AUC)
    assert chance["message"].endswith(", but this may be chance.")


EARLY = {
    "maturity": "early", "n": 1000, "n_expected": 1000, "n_actual": 250, "truth_share": 0.25,
    "truth_message": "It will be judged by 12 March.",
}  # fmt: skip


def test_a_window_judged_early_fails_past_an_interval_twice_as_wide_at_a_quarter_of_its_truth():
    """Worse by .1 +- .06 would fail a complete window."""
    sure, unsure = (
        only(verdicts("performance", [auc(0.70, half)], [window(**EARLY)], baseline=BASELINE), AUC)
        for half in (0.035, 0.06)
    )
    assert (sure["status"], unsure["status"]) == ("ERROR", "OK")
    assert "Judged early: 250 of 1,000 predictions have ground truth" in sure["message"]
    assert "but this may be chance" in unsure["message"]
    whole = verdicts("performance", [auc(0.70, 0.06)], [window()], baseline=BASELINE)
    assert only(whole, AUC)["status"] == "ERROR"


def test_what_an_early_window_lacks_is_still_coming():
    few = auc(None) | {"reason": "few_of_rarer_class"}
    row = only(verdicts("performance", [few], [window(**EARLY)], baseline=BASELINE), AUC)
    assert (row["reason"], row["message"]) == ("labels_still_coming", EARLY["truth_message"])


def test_slices_and_outcomes_of_an_early_window_wait():
    """They were not compared: labels may come first for one region, or for large orders."""
    model = spec(performance=[{"metric": "roc_auc", "drop": 0.05, "slices": True}])
    rows = [auc(0.6), auc(0.6, slice_key="region", slice_value="north")]
    base = frame([auc(0.8, 0.01), auc(0.8, 0.01, slice_key="region", slice_value="north")])
    found = verdicts("performance", rows, [window(**EARLY)], model=model, baseline=base)
    by_slice = {row["slice_key"]: row["reason"] for row in found if row["metric"] == "roc_auc"}
    assert by_slice == {"all": "", "region": "labels_still_coming"}


def test_looking_again_with_every_delivery_raises_hardly_more_false_alarms_than_one_look():
    """Of 20,000 unchanged windows, each looked at twelve times: 4 %, where one look has 2.5 %."""
    rng, n, looks = np.random.default_rng(0), 20_000, 12
    shares = np.arange(1, looks + 1) / looks
    z = np.cumsum(rng.normal(size=(n, looks)), axis=1) / np.sqrt(np.arange(1, looks + 1))
    levels = [level_of({"truth_share": share}, 0.025) for share in shares]
    ever = (special.ndtr(-z) <= np.array(levels)).any(axis=1).mean()
    plain = (special.ndtr(-z) <= 0.025).any(axis=1).mean()
    assert plain > 0.09
    assert ever == pytest.approx(0.04, abs=0.008)


def test_a_window_that_waits_says_so_whatever_it_lacks_by_now():
    """No ground truth yet, or one class of it, is what is still coming and no reason of its own."""
    waiting = {"maturity": "provisional", "truth_message": "It will be judged by 12 March."}
    none_yet = auc(None) | {"reason": "no_actuals"}
    row = only(verdicts("performance", [none_yet], [window(**waiting)], baseline=BASELINE), AUC)
    assert (row["reason"], row["message"]) == (
        "labels_still_coming",
        "It will be judged by 12 March.",
    )


@pytest.mark.parametrize("of", ["window", "baseline"])
@pytest.mark.parametrize("limit", [{"change": "20%"}, {"below": 5.0}])
def test_a_mean_without_an_interval_to_trust_is_shown_and_not_judged(of, limit):
    unsure = dict.fromkeys(("lower", "upper"))
    mean = metric("mean_outcome", 4.0, "revenue", lower=3.9, upper=4.1)
    usual = metric("mean_outcome", 9.0, "revenue", lower=8.9, upper=9.1)
    {"window": mean, "baseline": usual}[of].update(unsure, reason="few_rows")
    row = only(
        verdicts("business", [mean], model=spec(business=limit), baseline=frame([usual])),
        "business/mean_outcome/revenue",
    )
    judged = of == "baseline" and "below" in limit  # which needs none
    assert (row["status"], row["reason"]) == (("WARN", "") if judged else ("NO_DATA", "few_rows"))
    assert row["value"] == 4.0


@pytest.mark.parametrize(("value", "status"), [(400.0, "WARN"), (1_600.0, "OK")])
def test_a_total_is_counted_and_judged_as_it_is(value, status):
    total = metric("total_outcome", value, "revenue", lower=None, upper=None)
    model = spec(business={"metric": "total_outcome", "below": 1_000})
    row = only(verdicts("business", [total], model=model), "business/total_outcome/revenue")
    assert row["status"] == status
    assert "chance" not in row["message"]
    with pytest.raises(ConfigError, match="total_outcome is counted and has no interval"):
        spec(business={"metric": "total_outcome", "change": "20%"})


def test_a_loss_is_worse_when_it_rises():
    model = spec(performance=[{"metric": "brier", "drop": 0.02}])
    base = frame([metric("brier", 0.10, lower=0.098, upper=0.102)])
    for value, status in ((0.13, "ERROR"), (0.07, "OK")):
        rows = [metric("brier", value, lower=value - 0.005, upper=value + 0.005)]
        found = verdicts("performance", rows, model=model, baseline=base)
        assert only(found, "performance/brier")["status"] == status


@pytest.mark.parametrize(("half", "status"), [(0.01, "ERROR"), (0.2, "OK")])
def test_a_fixed_bound_must_be_outside_the_interval(half, status):
    model = spec(performance=[{"metric": "roc_auc", "below": 0.7}])
    assert only(verdicts("performance", [auc(0.65, half)], model=model), AUC)["status"] == status


def among(n_windows: int = 30, spread: float = 0.05, **fields) -> dict:
    """A baseline of 0.80 whose windows have 0.78 on average and stray by `spread`."""
    usual = {"usual": 0.78, "usual_error": 0.01, "spread": spread, "row_error": 0.01}
    return auc(0.80, 0.005, n=20_000) | usual | {"n_windows": n_windows} | fields


def usually(row: dict) -> pd.DataFrame:
    return pd.DataFrame([row])


@pytest.mark.parametrize(
    ("value", "spread", "status"),
    [
        (0.70, 0.005, "ERROR"),  # the windows hardly stray
        (0.70, 0.05, "OK"),  # one of the baseline's windows would be as low
        (0.60, 0.05, "ERROR"),  # none would
        (0.74, 0.005, "OK"),  # only 0.04 below what its windows have
    ],
)
def test_a_drop_must_be_beyond_what_the_baselines_windows_stray(value, spread, status):
    base = usually(among(spread=spread))
    row = only(verdicts("performance", [auc(value, 0.01)], baseline=base), AUC)
    assert row["status"] == status
    assert row["baseline_value"] == 0.78
    assert row["method_version"] == "roc_auc-1:windows"


@pytest.mark.parametrize(("upper", "status"), [(9.5, "WARN"), (30.0, "OK")])
def test_what_a_low_outcomes_interval_adds_for_rows_not_drawn_hides_no_fall_but_a_far_one(
    upper: float, status: str
):
    usual = {"usual": 9.0, "usual_error": 0.1, "spread": 0.1, "row_error": 0.4, "n_windows": 30}
    now = metric("mean_outcome", 6.3, "revenue", lower=5.5, upper=upper)
    base = metric("mean_outcome", 9.0, "revenue", lower=8.9, upper=9.1) | usual
    model = spec(business={"metric": "mean_outcome", "drop": 1.0})
    rows = verdicts("business", [now], baseline=pd.DataFrame([base]), model=model)
    assert only(rows, "business/mean_outcome/revenue")["status"] == status


def test_a_baseline_of_too_few_windows_is_compared_by_rows():
    row = only(verdicts("performance", [auc(0.7)], baseline=BASELINE), AUC)
    assert row["method_version"] == "roc_auc-1:rows"
    assert row["baseline_value"] == 0.80


def test_the_sentence_says_what_is_usual_of_the_baselines_windows():
    row = only(verdicts("performance", [auc(0.70, 0.01)], baseline=usually(among())), AUC)
    assert row["message"] == (
        "ROC AUC is 0.70, worse than the usual 0.78.\n95 % interval 0.69 to 0.71 (n 1,000); the "
        "baseline's days lie within 0.67 to 0.89; the limit is a fall of 0.05, but this may be "
        "chance."
    )


def sliced(name: str, value: float, half: float = 0.02) -> dict:
    return auc(value, half, slice_key="region", slice_value=name, n=300)


def test_a_failing_window_names_the_slices_that_fell_most():
    base = frame([auc(0.80, 0.01), *(sliced(name, 0.8) for name in "nsw")])
    rows = [auc(0.65), sliced("n", 0.78), sliced("s", 0.5), sliced("new", 0.4)]
    row = only(verdicts("performance", rows, baseline=base), AUC)
    worst = json.loads(row["details"])["worst_slices"]
    assert [(part["slice_value"], round(part["worse_by"], 2)) for part in worst] == [
        ("s", 0.3),
    ]  # n fell by less than the whole, so that it is no cause


def test_slices_that_fell_as_the_whole_did_are_not_named():
    base = frame([auc(0.80, 0.01), *(sliced(name, 0.8) for name in "nsw")])
    rows = [auc(0.65), sliced("n", 0.64), sliced("s", 0.66), sliced("w", 0.63)]
    row = only(verdicts("performance", rows, baseline=base), AUC)
    details = json.loads(row["details"])
    assert details["worst_slices"] == []
    assert explain("roc_auc", ":table", details) == [
        "no slice is shown to be worse than the whole (looked at region)"
    ]


def test_slices_must_hold_against_the_number_of_slices():
    names = [f"s{i}" for i in range(40)]
    base = frame([auc(0.80, 0.01), *(sliced(name, 0.8, 0.01) for name in names)])
    model = spec(performance=[{"metric": "roc_auc", "drop": 0.05, "slices": True}])
    quiet = [sliced(name, 0.8, 0.05) for name in names[2:]]
    rows = verdicts(
        "performance",
        [auc(0.8), sliced("s0", 0.74, 0.05), sliced("s1", 0.5, 0.05), *quiet],
        model=model,
        baseline=base,
    )
    status = {row["slice_value"]: row["status"] for row in rows}
    assert (status["s0"], status["s1"]) == ("OK", "ERROR")


@pytest.mark.parametrize(("share", "status"), [(0.2, "WARN"), (0.015, "OK")])
def test_ground_truth_of_classes_that_the_model_does_not_know_is_watched_by_default(share, status):
    model = make_spec(
        task="multiclass_classification",
        columns={"prediction_id": "id", "event_time": "at", "prediction": "p", "actual": "y"},
    )
    rows = [
        metric("unseen_class_rate", value, lower=max(value - 0.01, 0.0), upper=value + 0.01, n=5000)
        for value in (share, 0.001)
    ]
    found = verdicts("performance", rows[:1], model=model, baseline=frame(rows[1:]))
    row = only(found, "performance/unseen_class_rate")
    assert row["status"] == status
    if status == "WARN":
        assert row["message"].startswith(
            "Share of unseen classes is 0.20, worse than the baseline's 0.001."
        )
