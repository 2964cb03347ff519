"""The arrival curve: what share of a window's predictions has ground truth, by age."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlmon_dagster.metrics.late_truth.arrivals import (
    ArrivalCurve,
    TruthRecord,
    decode_arrivals,
    encode_arrivals,
    learn_arrivals,
    merge_counts,
)
from mlmon_dagster.spec.windows import age_step
from tests.metrics.label_times import Lag, Past, between, by_class, lognormal

SHARE_TOLERANCE = 0.02  # of 60 windows of 400 rows, where the law alone is known
UNIFORM, SLOW = between(1, 20), between(30, 60)


def share_by_law(low: float, high: float, age: int) -> float:
    """Share of labels that came by an age in days, of predictions spread over their day."""
    at = (
        np.random.default_rng(3).random(200_000)
        - 1
        + np.random.default_rng(4).uniform(low, high, 200_000)
    )
    return float((np.ceil(at) + 0.1 <= age).mean())


@pytest.mark.parametrize("age", [2, 7, 14, 19])
def test_the_curve_of_uniform_lags_is_their_law(age: int) -> None:
    """It is the law's share at every age, although the newest windows are cut off."""
    curve = Past(UNIFORM, 70).learn(70).watched
    assert curve.share_by(age) == pytest.approx(share_by_law(1, 20, age), abs=SHARE_TOLERANCE)


@pytest.mark.parametrize(
    ("past", "due", "plateau"),
    [
        (Past(UNIFORM, 90), (19, 21), 1.0),
        (Past(SLOW, 120), (58, 62), 1.0),
        (Past(lognormal(5, 1), 120), (24, 40), 0.99),
        (Past(between(0, 4), 60, weekly=True), (9, 12), 1.0),
        (Past(UNIFORM, 120, pause=(60, 67)), (19, 21), 1.0),
        (Past(UNIFORM, 120, share=0.3), (19, 21), 0.3),
        (Past(UNIFORM, 120, share=0.1), (19, 21), 0.1),
        (Past(by_class(between(60, 60.5), between(1, 44)), 120), (59, 62), 1.0),
        (Past(by_class(between(0, 1), between(30, 60)), 120, rate=0.03), (57, 62), 1.0),
    ],
    ids=["1-20", "30-60", "heavy", "weekly", "pause", "30 %", "10 %", "positives", "negatives"],
)
def test_a_curve_seen_to_its_end_says_how_much_comes_and_by_when(
    past: Past, due: tuple[float, float], plateau: float
) -> None:
    """What is due is nearly all of the slower class, of whatever share ever comes."""
    curve = past.learn(120).watched
    assert curve.plateau == pytest.approx(plateau, abs=0.02)
    assert curve.due is not None
    assert due[0] <= curve.due <= due[1]


def test_a_curve_that_rests_between_two_classes_is_not_held_to_be_whole() -> None:
    """Positives of 1 to 44 days stop growing long before negatives of 60 days begin."""
    past = Past(by_class(between(60, 60.5), between(1, 44)), 120)
    for now in range(20, 66):
        assert past.learn(now).watched.plateau is None
    rare = Past(by_class(between(0, 1), between(30, 60)), 120, rate=0.05)
    for now in range(10, 55):
        assert rare.learn(now).watched.plateau is None


def test_what_the_baseline_saw_is_waited_for_before_production_is_believed() -> None:
    """A curve of production does not replace the baseline's before it was seen as long."""
    past = Past(SLOW, 100)
    baseline = [
        TruthRecord(r.end - 300, r.end, r.n, r.arrived, r.known) for r in past.records(100)[:30]
    ]
    found = Past(SLOW, 100, seed=5).learn(20, baseline=baseline)
    assert found.is_dated
    assert found.watched.plateau is None
    assert found.whole is found.prior
    assert found.prior.due == pytest.approx(60, abs=2)


def test_a_label_file_of_forty_windows_in_one_go_is_no_curve() -> None:
    """Its windows say how old they were, not how late their ground truth comes."""
    past = Past(UNIFORM, 60)
    for day, came in enumerate(past.came):
        past.came[day] = np.where(came <= 40.1, 40.1, np.inf)
    without = [TruthRecord(r.end, r.first_seen, r.n, r.arrived, {}) for r in past.records(45)]
    found = learn_arrivals(without, [], 45, 24.0, patience=2, n_classes=2)
    assert not found.watched.is_watched
    assert "came at once, and has no times of its own" in found.note
    # With times of its own, spread as they would be, these are learnt from.
    dated = past.learn(45)
    assert dated.is_dated
    assert dated.note == ""
    assert dated.prior.share_by(7) == pytest.approx(share_by_law(1, 20, 8), abs=0.06)


def test_times_that_are_all_one_day_are_not_believed() -> None:
    past = Past(UNIFORM, 60)
    for day in range(60):
        past.known[day] = np.full(past.n, 39.5)
        past.came[day] = np.full(past.n, 40.1 if day < 40 else np.inf)
    found = past.learn(45)
    assert not found.is_dated
    assert found.note


def test_times_of_the_future_and_before_the_prediction_are_said() -> None:
    record = TruthRecord(1.0, 1.0, 100, {}, {}, n_future=1200, n_early=3)
    note = learn_arrivals([record], [], 5, 24.0, patience=2).note
    assert "1,200 actuals have a time in the future" in note
    assert "3 actuals have a time before their prediction" in note


def test_imported_history_is_learnt_from_the_times_it_gives() -> None:
    past = Past(UNIFORM, 90)
    records = past.records(90.2, imported_at=90.15)
    found = learn_arrivals(records, [], 90.2, 24.0, patience=2, n_classes=2)
    assert found.is_dated
    assert found.prior.due == pytest.approx(20, abs=1)
    assert not found.watched.is_watched


def labelled_whole(lag: Lag, end: float) -> list[TruthRecord]:
    """Return thirty windows of a baseline that ends then, of which all rows have labels."""
    records = Past(lag, 100, seed=7).records(100)[:30]
    away = end - records[-1].end
    return [TruthRecord(r.end + away, r.end + away, r.n, r.arrived, r.known) for r in records]


def test_imported_windows_of_which_a_part_is_labelled_wait_for_no_more_than_that() -> None:
    """A baseline that is labelled whole says how late labels come, not of how many rows."""
    past = Past(between(1, 8), 40, share=0.3)
    records = past.records(40.2, imported_at=40.15)
    baseline = labelled_whole(between(1, 8), -15)
    found = learn_arrivals(records, baseline, 40.2, 24.0, patience=2, n_classes=2)
    assert found.is_dated
    assert found.prior.plateau == pytest.approx(0.3, abs=0.02)
    assert found.prior.due == pytest.approx(8, abs=1)


@pytest.mark.parametrize("lag", [between(1, 8), UNIFORM], ids=["1 to 8", "1 to 20"])
def test_the_prior_of_lived_windows_is_that_of_the_baseline_until_they_are_seen_to_their_end(
    lag: Lag,
) -> None:
    past, baseline = Past(lag, 60, share=0.3), labelled_whole(lag, -30)
    for now in (1, 2, 3, 8, 30):
        found = past.learn(now, baseline=baseline)
        assert found.prior.plateau == 1.0


@pytest.mark.parametrize("now", [30.2, 38.2, 40.2])
def test_how_much_ever_comes_is_the_same_of_lived_and_of_imported_windows(now: float) -> None:
    """Labels come late to this store, so its own watching takes longer to show how many come."""
    past, baseline = Past(between(1, 8), 60, share=0.3), labelled_whole(between(1, 8), -15)
    for day, came in enumerate(past.came):
        past.came[day] = came + 2
    lived = past.learn(now, baseline=baseline)
    imported = [
        replace(
            record,
            first_seen=now - 0.05,
            arrived={
                name: {age_step(now - record.end): sum(by_age.values())}
                for name, by_age in record.arrived.items()
            },
        )
        for record in past.records(now)
    ]
    found = learn_arrivals(imported, baseline, now, 24.0, patience=2.0, n_classes=2)
    assert lived.watched.plateau is None
    assert found.whole is not None
    assert lived.whole is not None
    assert lived.whole.plateau == pytest.approx(found.whole.plateau, rel=0.01)
    assert lived.whole.due == found.whole.due


def test_a_history_too_short_to_be_seen_to_its_end_is_learnt_from_together_with_the_baseline() -> (
    None
):
    """Fifteen windows of labels that take twenty days."""
    records = Past(UNIFORM, 15).records(15.2, imported_at=15.15)
    found = learn_arrivals(
        records, labelled_whole(UNIFORM, -30), 15.2, 24.0, patience=2, n_classes=2
    )
    assert found.prior.plateau == pytest.approx(1.0)
    assert found.prior.due == pytest.approx(20, abs=1)


def test_windows_that_fell_into_a_pause_of_the_label_job_do_not_count_as_usual() -> None:
    """A week without labels and the catch-up after it leave the curve as it was."""
    usual, paused = Past(UNIFORM, 90), Past(UNIFORM, 90, pause=(60, 67))
    for age in (3, 7, 14):
        found = paused.learn(85).watched.share_by(age)
        assert found == pytest.approx(usual.learn(85).watched.share_by(age), abs=SHARE_TOLERANCE)
    # Nor does a job that has stopped for good become what is usual.
    stopped = Past(UNIFORM, 90, stopped=60)
    assert stopped.learn(85).watched.share_by(7) == pytest.approx(
        usual.learn(85).watched.share_by(7), abs=SHARE_TOLERANCE
    )


@pytest.mark.parametrize("now", [64, 67, 71, 76])
def test_a_delivery_that_is_overdue_does_not_make_none_usual_before_it_is_a_pause(now: int) -> None:
    """Of weekly deliveries the next but one would have to be missed before a gap is a pause."""
    lag = between(0.5, 3)
    stopped, usual = (Past(lag, 90, weekly=True, stopped=at) for at in (58, np.inf))
    for age in (7, 9, 12):
        found = stopped.learn(now).watched.share_by(age)
        assert found == pytest.approx(usual.learn(now).watched.share_by(age), abs=0.04)


def test_the_age_by_which_it_has_come_does_not_depend_on_how_much_ever_comes() -> None:
    """A tenth of the first windows gets ground truth, and a twelfth of the newest."""
    more, less = (Past(between(1, 8), 60, 1_000, share=s, seed=int(99 * s)) for s in (0.12, 0.1))
    for day in range(15, 60):
        for part in ("truth", "known", "came"):
            getattr(more, part)[day] = getattr(less, part)[day]
    found = more.learn(50).watched
    assert found.plateau == pytest.approx(0.12, abs=0.02)
    assert found.due is not None
    assert 8 <= found.due <= 10


@pytest.mark.parametrize(("k", "n", "share"), [(60, 100, 0.8), (5, 50, 0.3), (850, 1000, 0.9)])
def test_the_chance_of_so_few_is_that_of_the_beta_binomial(k: int, n: int, share: float) -> None:
    spread = 0.004
    curve = ArrivalCurve(24.0, (5,), (share,), (spread,), (30,))
    weight = share * (1 - share) / (spread + share * (1 - share) / n) - 1
    # The mixing law has the same mean, and the variance that the spread alone gives.
    mixing = share * (1 - share) / spread - 1
    exact = stats.betabinom(n, share * mixing, (1 - share) * mixing).cdf(k)
    assert weight > 0
    assert curve.chance_of_so_few(k, n, 5) == pytest.approx(exact, rel=0.35)


ages = st.dictionaries(st.integers(0, 200), st.integers(1, 50), max_size=12)


def _on_grid(counts: dict[int, int]) -> dict[int, int]:
    return merge_counts({age_step(age): n} for age, n in counts.items())


@given(st.lists(st.dictionaries(st.sampled_from(["0", "1"]), ages), min_size=7, max_size=30))
def test_a_share_never_falls_with_age_nor_leaves_0_to_1(
    parts: list[dict[str, dict[int, int]]],
) -> None:
    records = [
        TruthRecord(float(i), float(i), 2000, {c: _on_grid(a) for c, a in part.items()}, {})
        for i, part in enumerate(parts)
    ]
    found = learn_arrivals(records, [], 150.0, 24.0, patience=2)
    for shares in (found.watched.share, *found.watched.classes.values()):
        assert all(a <= b + 1e-9 for a, b in itertools.pairwise(shares))
        assert all(0 <= share <= 1 + 1e-9 for share in shares)
    assert decode_arrivals(encode_arrivals(found)) == found


@given(st.lists(ages, max_size=5), st.randoms())
def test_counts_merge_in_any_order(parts: list[dict[int, int]], rng) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(parts)
    rng.shuffle(shuffled)
    assert merge_counts(parts) == merge_counts(shuffled)


@given(st.floats(-10, 5000))
def test_steps_end_at_or_after_the_age_and_are_a_sixteenth_of_it(age: float) -> None:
    step = age_step(age)
    assert step >= age
    assert step - max(age, 0) <= max(1, age / 16 + 1)
    assert age_step(step) == step
