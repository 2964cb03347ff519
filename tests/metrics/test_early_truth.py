"""What is missing of a window is called missing at random only where that was shown."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from benchmarks.label_laws import LAWS
from mlmon_dagster.metrics.late_truth.arrivals import TruthRecord
from mlmon_dagster.metrics.late_truth.early_truth import LIMIT, find_early_ages
from mlmon_dagster.spec.windows import EarlyAge, age_step

Floats = NDArray[np.float64]
DUE = {"1 to 20": 20, "weekly batches": 9, "positives first": 60, "negatives first": 40}


def record(
    day: int, label: NDArray[np.bool_], logit: Floats, age: Floats, n: int | None = None
) -> TruthRecord:
    """Return a day's window: rows by class, quarter of the score and whole age of their label."""
    bands: dict[str, dict[int, list[int]]] = {"0": {}, "1": {}}
    for name, mine in (("0", ~label), ("1", label)):
        order = np.argsort(np.argsort(logit[mine]))
        steps = np.array([age_step(at) for at in np.unique(age[mine])])
        place = np.unique(age[mine], return_inverse=True)[1]
        table = np.zeros((len(steps), 4), dtype=int)
        np.add.at(table, (place, order * 4 // max(mine.sum(), 1)), 1)
        for step, counts in zip(steps, table, strict=True):
            known = bands[name].get(int(step), [0] * 4)
            bands[name][int(step)] = [a + int(b) for a, b in zip(known, counts, strict=True)]
    arrived = {name: {at: sum(k) for at, k in ages.items()} for name, ages in bands.items()}
    return TruthRecord(
        day + 1.0, day + 1.0, len(label) if n is None else n, arrived, {}, bands=bands
    )


def past(
    law: str,
    windows: int,
    rows: int,
    *,
    rate: float = 0.25,
    slower: float = 0.0,
    by_score: float = 0.0,
    seed: int = 0,
) -> list[TruthRecord]:
    """Draw complete windows whose labels come by a law.

    Args:
        slower: By how much longer positives take.
        by_score: By how much sooner a standard deviation of the score is labelled, in logs.
    """
    rng, drawn = np.random.default_rng([seed, windows, rows]), LAWS[law]
    found = []
    for day in range(windows):
        feature = rng.normal(0, 1, rows)
        logit = special.logit(rate) - 0.5 + 1.5 * feature
        label = rng.random(rows) < special.expit(logit)
        lag = drawn.lags(rng, label) * np.where(label, 1 + slower, 1.0)
        lag = lag * np.exp(-by_score * feature)
        came = np.ceil((day + rng.random(rows) + lag) / drawn.every) * drawn.every
        found.append(record(day, label, logit, came - day - 1))
    return found


def early(records: list[TruthRecord], due: float, n_classes: int = 2) -> list[EarlyAge]:
    """Return the ages before windows are due at which they are judged early."""
    found = find_early_ages(records, 1e6, due, n_classes=n_classes)
    return [age for age in found if age.age < due]


@pytest.mark.parametrize("law", ["1 to 20", "weekly batches"])
def test_labels_that_come_at_random_are_shown_to_with_sixty_windows(law: str) -> None:
    found = early(past(law, 60, 400), DUE[law])
    assert found
    assert found[0].age <= 0.75 * DUE[law]
    assert all(age.fewest <= age.most for age in found)
    # Thirty positives, of which a quarter of the rows are about.
    assert found[-1].fewest == pytest.approx(30 / 0.24, rel=0.2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("windows", [30, 60, 120])
def test_positives_first_are_never_judged_early(windows: int, seed: int) -> None:
    assert early(past("positives first", windows, 300, seed=seed), 60) == []


def test_negatives_first_are_judged_when_positives_have_come() -> None:
    ages = [age.age for age in early(past("negatives first", 80, 400), 40)]
    assert min(ages) >= 38


def test_few_windows_show_nothing_however_large_they_are() -> None:
    assert early(past("1 to 20", 19, 5000), 20) == []
    assert early(past("1 to 20", 20, 5000), 20) != []


def test_a_record_without_bands_or_of_one_class_shows_nothing() -> None:
    plain = [TruthRecord(r.end, r.first_seen, r.n, r.arrived, {}) for r in past("1 to 20", 40, 300)]
    assert early(plain, 20) == []
    negatives = [
        TruthRecord(r.end, r.end, r.n, {"0": r.arrived["0"]}, {}, bands={"0": r.bands["0"]})
        for r in past("1 to 20", 40, 300)
    ]
    assert early(negatives, 20) == []
    assert early(negatives, 20, n_classes=0) != []


def test_windows_that_are_not_complete_do_not_count() -> None:
    records = past("1 to 20", 40, 400)
    found = find_early_ages(records, 45.0, 20, n_classes=2)
    assert found == find_early_ages(records[:25], 1e6, 20, n_classes=2)
    assert find_early_ages(records, 35.0, 20, n_classes=2) == ()


def test_windows_that_differ_are_not_judged_early_though_their_mean_is_right() -> None:
    """In every other window positives come first, in the rest negatives do."""
    rng, found = np.random.default_rng(3), []
    for day in range(60):
        logit = rng.normal(-0.5, 1.5, 400)
        label = rng.random(400) < special.expit(logit)
        first = label if day % 2 else ~label
        found.append(record(day, label, logit, np.where(first, rng.uniform(1, 16, 400), 18)))
    assert all(age.age >= 17 for age in early(found, 20))


def test_a_bias_of_scores_within_classes_is_seen() -> None:
    """Of either class high scores are labelled first: the shares of classes alone hide that."""
    rng, found = np.random.default_rng(4), []
    for day in range(60):
        feature = rng.normal(0, 1, 400)
        label = rng.random(400) < 0.4
        age = np.where(feature > 0, rng.uniform(1, 8, 400), rng.uniform(8, 16, 400))
        found.append(record(day, label, feature, age))
    assert all(age.age >= 15 for age in early(found, 17))


def test_the_limit_is_on_what_a_bias_does_beside_the_interval_of_so_many_rows() -> None:
    """The more rows of a window are labelled, the smaller must be what was not ruled out."""
    few, many = (early(past("1 to 20", windows, 400), 20) for windows in (40, 120))
    ages = {age.age: age.most for age in few}
    shared = [(age.most, ages[age.age]) for age in many if age.age in ages]
    assert sum(a > b for a, b in shared) > 0.9 * len(shared)


def true_bias(come: Floats, whole: Floats) -> float:
    """Return what `LIMIT` bounds of a window of one labelled row: sqrt(sum d^2 / p)."""
    p, q = whole / whole.sum(), come / come.sum()
    return float(np.sqrt(((q - p) ** 2 / p).sum()))


def cells(records: list[TruthRecord], until: float) -> Floats:
    total = np.zeros(8)
    for one in records:
        for name, ages in one.bands.items():
            for age, bands in ages.items():
                if age <= until:
                    total[4 * int(name) : 4 * int(name) + 4] += bands
    return total


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["slower", "by_score"])
@pytest.mark.parametrize(("windows", "rows"), [(30, 200), (60, 400)])
def test_a_bias_at_the_limit_is_missed_once_in_twenty(kind: str, windows: int, rows: int) -> None:
    """Of laws whose true bias is past the limit for the record's windows, few are called random."""
    wrong = n = 0
    for size in (0.05, 0.1, 0.2, 0.4):
        truth = past("1 to 20", 400, 1000, seed=99, **{kind: size})
        whole = cells(truth, 1e9)
        bias = {age: true_bias(cells(truth, age), whole) for age in range(3, 20)}
        for seed in range(20):
            found = {
                age.age: age
                for age in early(past("1 to 20", windows, rows, seed=seed, **{kind: size}), 20)
            }
            for age in (6, 12, 17):
                biased_from = (LIMIT / bias[age]) ** 2  # labelled rows
                n += 1
                wrong += age in found and found[age].most > biased_from > found[age].fewest
    assert n == 240
    assert wrong / n <= 0.05
