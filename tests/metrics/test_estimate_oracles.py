"""Estimated performance and its residuals, fairness and volume, from rows on, against oracles.

An estimate is scikit-learn's metric of every row twice: as a positive with the weight that the
baseline's isotonic regression gives its score, and as a negative with the rest of it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk
from sklearn.isotonic import IsotonicRegression

from mlmon_dagster.metrics.estimated.binary import estimated_performance, residuals
from mlmon_dagster.metrics.estimated.calibration import (
    Calibration,
    Scored,
    calibrate,
    correct_by,
    hold_out,
    scored,
)
from mlmon_dagster.metrics.estimated.multiclass import (
    CONFIDENCE,
    DECIDED_FOR,
    ClassCalibration,
    calibrate_classes,
    estimated_classes,
)
from mlmon_dagster.metrics.estimated.regression import Losses, estimated_losses, loss_calibration
from mlmon_dagster.metrics.frames import concat_frames
from mlmon_dagster.metrics.performance.weighted_back import DECIDED
from mlmon_dagster.metrics.service import Volume
from mlmon_dagster.spec.metric_registry import BINARY, MULTICLASS, REGRESSION
from mlmon_dagster.spec.tasks import TASKS, estimated, residual
from tests.metrics.oracles import CLASSES, EXACT, midpoint, score_bin
from tests.metrics.rows import START, Profiles, profiled
from tests.metrics.task_oracles import SCORES
from tests.metrics.windows import baseline, world

pytestmark = pytest.mark.xdist_group("oracles")  # they share what was measured

KEYS = ["day", "metric"]


def _by_day(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(day=(frame["window_start"] - START).dt.days).set_index(KEYS)


def _current(task: str) -> pd.DataFrame:
    windows = world(task).windows
    return pd.concat([rows.assign(day=i) for i, rows in enumerate(windows.values())])


@cache
def binary_calibration() -> tuple[Scored, Calibration]:
    spec, then = world(BINARY).spec.model_copy(update={"slices": ()}), baseline(BINARY)
    now, whole = profiled(spec, _current(BINARY), then)
    half = profiled(spec, then[::2], then)[0]
    sides = [scored(side["score"], side[DECIDED]) for side in (now, whole, half)]
    return sides[0], calibrate(sides[1], sides[2], 3)


@cache
def binary_estimates() -> pd.DataFrame:
    now, learnt = binary_calibration()
    return _by_day(concat_frames([f(now, learnt) for f in (estimated_performance, residuals)]))


def _chance(
    score: np.ndarray, then: pd.DataFrame, column: str, positive: object, coarser: int = 1
) -> np.ndarray:
    """P(positive) of scores, by isotonic regression over the baseline's bins."""
    known = then[then[column].notna() & then["actual"].notna()]
    place = score_bin(known[column].to_numpy(float)) // coarser
    truth = (known["actual"] == positive).to_numpy(float)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(place, truth)
    least = 0.5 / (len(known) + 1)
    return np.clip(fitted.predict(score_bin(score) // coarser), least, 1 - least)


def _weighted(score: np.ndarray, decided: np.ndarray, chance: np.ndarray) -> dict[str, float]:
    truth = np.r_[np.ones(len(score)), np.zeros(len(score))]
    weight, twice = np.r_[chance, 1 - chance], np.r_[midpoint(score), midpoint(score)]
    both = np.r_[decided, decided]

    def of(metric: object, values: np.ndarray, **options: object) -> float:
        return float(metric(truth, values, sample_weight=weight, **options))

    return {
        "roc_auc": of(sk.roc_auc_score, twice),
        "pr_auc": of(sk.average_precision_score, twice),
        "brier": of(sk.brier_score_loss, twice),
        "log_loss": of(sk.log_loss, twice),
        "actual_rate": float(chance.mean()),
        "accuracy": of(sk.accuracy_score, both),
        "balanced_accuracy": of(sk.balanced_accuracy_score, both),
        "precision": of(sk.precision_score, both),
        "recall": of(sk.recall_score, both),
        "specificity": of(sk.recall_score, both, pos_label=0),
        "f1": of(sk.f1_score, both),
    }


def test_binary_estimates_are_scikit_learns_of_weighted_rows_and_residuals_less_the_truth():
    then, rows = baseline(BINARY), world(BINARY).windows["random"]
    rows = rows[rows["score"].notna()]
    found = binary_estimates()["value"].loc[0]
    for is_residual in (False, True):
        some = rows[rows["actual"].notna()] if is_residual else rows
        score = some["score"].to_numpy(float)
        decided = (some["prediction"] == 1).to_numpy(float)
        expected = _weighted(score, decided, _chance(score, then, "score", 1))
        assert set(expected) == set(TASKS[BINARY].estimated)
        if is_residual:
            truth = _weighted(score, decided, some["actual"].to_numpy(float))
            expected = {name: value - truth[name] for name, value in expected.items()}
        for name, value in expected.items():
            mine = found[residual(name) if is_residual else estimated(name)]
            mine += correct_by(binary_calibration()[1].held_out, name)
            assert mine == pytest.approx(value, abs=EXACT), (name, is_residual)


def test_what_baseline_windows_were_off_by_is_each_half_by_the_other_ones_regression() -> None:
    spec, then = world(BINARY).spec.model_copy(update={"slices": ()}), baseline(BINARY)
    whole, half = (profiled(spec, rows, then)[0] for rows in (then, then[::2]))
    sides = [scored(side["score"], side[DECIDED]) for side in (whole, half)]
    held_out = calibrate(sides[0], sides[1], 3).held_out
    is_first = np.arange(len(then)) % 2 == 0
    chance = np.where(
        is_first,
        _chance(then["score"].to_numpy(float), then[~is_first], "score", 1),
        _chance(then["score"].to_numpy(float), then[is_first], "score", 1),
    )
    known = (then["actual"].notna() & then["score"].notna()).to_numpy()
    off = held_out["brier"]
    days = (off.cells["window_start"] - START).dt.days
    assert len(days) >= 14
    for day, mine, n in zip(days, off.off, off.n, strict=True):
        some = known & (then["day"] == day).to_numpy()
        rows, truth = then[some], then.loc[some, "actual"].to_numpy(float)
        decided = (rows["prediction"] == 1).to_numpy(float)
        score = rows["score"].to_numpy(float)
        guess, real = (_weighted(score, decided, one) for one in (chance[some], truth))
        assert mine + off.habit == pytest.approx(guess["brier"] - real["brier"], abs=EXACT)
        assert n == some.sum()


def test_a_habit_of_estimates_is_taken_off_and_chance_is_not() -> None:
    """Days whose truth is .03 below the estimate, and days without any such habit."""
    cells = pd.DataFrame({"window_start": pd.date_range("2026-01-01", periods=40, tz="UTC")})
    everywhere, variance, n = np.ones(40, bool), np.full(40, 0.02**2), np.full(40, 500.0)
    habits = np.array(
        [
            [
                hold_out(cells, habit + rng.normal(0, 0.02, 40), variance, n, everywhere).habit
                for habit in (0.03, 0.0)
            ]
            for rng in map(np.random.default_rng, range(100))
        ]
    )
    assert habits[:, 0].mean() == pytest.approx(0.03, abs=0.001)
    assert (habits[:, 1] == 0).mean() > 0.6
    assert np.abs(habits[:, 1]).max() < 0.02 * 4 / np.sqrt(40)
    few = hold_out(cells[:13], np.full(13, 0.03), variance[:13], n[:13], everywhere[:13])
    assert few.habit == 0


REASONS = {
    "no_rows", "few_rows", "few_of_rarer_class", "no_actuals", "no_predicted_positives",
    "no_actual_positives", "no_actual_negatives", "no_positives",
}  # fmt: skip


def _finite_or_documented(frame: pd.DataFrame) -> None:
    missing = frame["value"].isna()
    assert set(frame.loc[missing, "reason"]) <= REASONS
    assert not np.isinf(frame[["value", "lower", "upper"]]).any(axis=None)
    assert (frame.loc[~missing, "reason"] == "").all()


def test_estimates_of_degenerate_windows_are_finite_or_have_the_documented_reason():
    frame, names = binary_estimates(), list(world(BINARY).windows)
    _finite_or_documented(frame)
    for window, reason in (("all_null", "no_rows"), ("no_outputs", "no_rows"),
                           ("one_row", "few_rows")):  # fmt: skip
        mine = frame.loc[names.index(window)]
        wanted = mine.index.str.startswith("estimated_")
        assert set(mine.loc[wanted, "reason"]) == {reason}, window
    gone = frame.loc[names.index("no_actuals")]
    assert set(gone.loc[gone.index.str.endswith("_residual"), "reason"]) == {"no_actuals"}
    flat = frame.loc[(names.index("constant_score"), "estimated_roc_auc"), "value"]
    assert flat == pytest.approx(0.5, abs=EXACT)


@cache
def class_calibration() -> tuple[Profiles, ClassCalibration]:
    spec, then = world(MULTICLASS).spec, baseline(MULTICLASS)
    now, whole = profiled(spec, _current(MULTICLASS), then)
    half = profiled(spec, then[::2], then)[0]
    names = [*SCORES, CONFIDENCE, *(f"{DECIDED_FOR}{name}" for name in SCORES)]
    sides = [{name: side[name] for name in names} for side in (now, whole, half)]
    return sides[0], calibrate_classes(*sides[1:], SCORES, 3)


@cache
def class_estimates() -> pd.DataFrame:
    return _by_day(estimated_classes(*class_calibration()))


def _confidence(rows: pd.DataFrame) -> pd.Series:
    given = sum(
        rows[c].astype(float) * (rows["prediction"] == k)
        for k, c in zip(CLASSES, SCORES, strict=True)
    )
    return given.where(rows["prediction"].isin(CLASSES))


def test_multiclass_estimates_are_those_of_each_class_against_the_rest():
    then, rows = baseline(MULTICLASS), world(MULTICLASS).windows["random"]
    found = class_estimates()["value"].loc[0]
    areas, brier, log_loss, each = [], 0.0, 0.0, []
    for label, column in zip(CLASSES, SCORES, strict=True):
        score = rows[column].to_numpy(float)
        one = _weighted(score, score > 0.5, chance := _chance(score, then, column, label))
        areas.append(one["roc_auc"])
        brier += one["brier"]
        log_loss -= float((chance * np.log(midpoint(score))).mean())
        mine, known = (side[side["prediction"] == label] for side in (rows, then))
        hits = _chance(mine[column].to_numpy(float), known, column, label, 4).sum()
        each.append((hits / len(mine), hits / chance.sum(), 2 * hits / (len(mine) + chance.sum())))
    sure = then.assign(sure=_confidence(then), actual=then["actual"].where(
        then["actual"].isna() | (then["actual"] != then["prediction"]), "right"))  # fmt: skip
    mine = _confidence(rows).dropna().to_numpy(float)
    expected = {
        "accuracy": float(_chance(mine, sure, "sure", "right").mean()),
        "macro_roc_auc": float(np.mean(areas)),
        "brier": brier,
        "log_loss": log_loss,
        **dict(zip(("macro_precision", "macro_recall", "macro_f1"), np.mean(each, axis=0),
                   strict=True)),
    }  # fmt: skip
    assert set(expected) == set(TASKS[MULTICLASS].estimated)
    for name, value in expected.items():
        habit = correct_by(class_calibration()[1].held_out, name)
        assert found[estimated(name)] + habit == pytest.approx(value, abs=EXACT), name
    _finite_or_documented(class_estimates())


@cache
def loss_estimates() -> pd.DataFrame:
    """Windows of 400 rows (day 0), of one row, without actuals, and of huge predicted losses."""
    rng = np.random.default_rng(2)
    days = np.repeat(np.arange(4), [400, 1, 40, 40])
    keys = pd.DataFrame({"window_start": START + pd.to_timedelta(days, unit="D"),
                         "dataset": "production"})  # fmt: skip
    truth = rng.exponential(size=(2, len(days)))
    truth[:, days == 2] = np.nan
    guess = rng.exponential(size=(2, 2, len(days)))
    guess[:, :, days == 3] = 1e300
    known = Losses(keys[:400], truth[:, :400], np.stack([guess[:, 0, :400]] * 2, axis=1))
    return _by_day(estimated_losses(Losses(keys, truth, guess), loss_calibration(known))).assign(
        mae=guess[0, :, :400].mean(), mse=guess[1, :, :400].mean(),
        true_mae=truth[0, :400].mean(), true_mse=truth[1, :400].mean(),
    )  # fmt: skip


def test_regression_estimates_are_means_of_predicted_losses():
    frame = loss_estimates()
    found, one = frame["value"].loc[0], frame.iloc[0]
    expected = {"mae": (one["mae"], one["true_mae"]),
                "rmse": (one["mse"] ** 0.5, one["true_mse"] ** 0.5)}  # fmt: skip
    assert set(expected) == set(TASKS[REGRESSION].estimated)
    for name, (guess, truth) in expected.items():
        assert found[estimated(name)] == pytest.approx(guess, rel=EXACT)
        assert found[residual(name)] == pytest.approx(guess - truth, abs=EXACT)
    assert set(frame["reason"].loc[1]) == {"few_rows"}
    assert frame["reason"].loc[(2, "mae_residual")] == "no_actuals"
    _finite_or_documented(frame)


@pytest.mark.parametrize("metric", ["demographic_parity", "equal_opportunity", "predictive_parity"])
def test_fairness_gaps_are_differences_and_ratios_of_the_groups_rates(metric):
    found = world(BINARY)
    rows = found.windows["random"]
    decided = rows[rows["prediction"].notna()]
    kept = {
        "demographic_parity": ("prediction", decided),
        "equal_opportunity": ("prediction", decided[decided["actual"] == 1]),
        "predictive_parity": (
            "actual",
            decided[(decided["prediction"] == 1) & decided["actual"].notna()],
        ),
    }[metric]
    rates = kept[1].groupby("site")[kept[0]].apply(lambda values: values.astype(float).mean())
    reference = decided["site"].value_counts().index[0]
    (other,) = set(rates.index) - {reference}
    frame = found.frame[found.frame["day"] == 0].set_index(["slice_value", "metric"])["value"]
    for slice_value in (other, "all"):
        gap, ratio = (
            frame[slice_value, f"{metric}_difference"],
            frame[slice_value, f"{metric}_ratio"],
        )
        assert gap == pytest.approx(rates[other] - rates[reference], abs=EXACT)
        assert ratio == pytest.approx(rates[other] / rates[reference], rel=EXACT)


def test_fairness_of_degenerate_windows_is_finite_or_has_a_reason():
    frame = world(BINARY).frame
    gaps = frame[frame["metric"].str.endswith(("_difference", "_ratio"))]
    assert not np.isinf(gaps[["value", "lower", "upper"]]).any(axis=None)
    missing = gaps["value"].isna()
    assert set(gaps.loc[missing, "reason"]) <= {"few_rows", "no_positives", "no_reference"}


def test_the_change_of_a_volume_is_a_share_of_the_median_of_its_place():
    sizes = np.random.default_rng(1).integers(1, 10_000, 28)
    places = np.tile(np.arange(7), 4)
    usual = np.exp(np.median(np.log(sizes[places == 3] + 0.5))) - 0.5
    found = Volume(17, 3, places, sizes)
    assert found.change == pytest.approx(17 / usual - 1, rel=EXACT)
    for n in (0, 1, 2**62):
        for rows in (np.ones(28, int), np.full(28, 2**62)):
            found = Volume(n, 3, places, rows)
            assert np.isfinite([found.usual, found.change, found.chance, *found.changes]).all()
