"""Means of losses and outcomes of all predictions, where labels are of a chosen part."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from benchmarks.calibrate_rectified import mean_misses
from benchmarks.calibrate_rectified_means import DRAWN, MeanCase, measure_mean
from mlmon_dagster.metrics.late_truth.means_by_output import ByOutput, interval, mean_of_all
from mlmon_dagster.metrics.late_truth.rectified import METHOD
from mlmon_dagster.profiles.measures import measure
from mlmon_dagster.profiles.storage import to_rows
from mlmon_dagster.spec import ModelSpec
from tests.metrics.rows import make_spec, profiled

VALUES = np.array([-2.0, -1.0, 0.0, 1.0, 3.0])
N = 4_000
MOST_BYTES = 4_000  # of what is kept of a window for this, as Arrow holds it


def by_output(rows: np.ndarray, counts: np.ndarray) -> ByOutput:
    """Return one cell of rows by group and labelled rows by group and value."""
    return ByOutput(
        np.array([0]), rows[None].astype(float), np.zeros((1, len(rows))),
        counts[None].astype(float), VALUES,
    )  # fmt: skip


def test_with_every_row_labelled_it_is_the_plain_mean() -> None:
    counts = np.random.default_rng(1).integers(0, 30, (6, 5))
    found = by_output(counts.sum(axis=1), counts)
    plain = (counts.sum(axis=0) @ VALUES) / counts.sum()
    assert mean_of_all(found, VALUES).value[0] == pytest.approx(plain, abs=1e-12)


def test_groups_of_enough_labels_are_strata_whose_means_are_added_up_by_all_their_rows() -> None:
    """The textbook's estimate and error of a stratified mean (Cochran, 1977, chapter 5A)."""
    rng = np.random.default_rng(2)
    counts = rng.multinomial(200, [0.1, 0.2, 0.3, 0.3, 0.1], size=3)
    rows = np.array([50_000, 20_000, 10_000])
    found = mean_of_all(by_output(rows, counts), VALUES)
    share, n = rows / rows.sum(), counts.sum(axis=1)
    means = counts @ VALUES / n
    assert found.value[0] == pytest.approx((share * means).sum(), abs=1e-12)
    variance = (counts @ VALUES**2 / n - means**2) * n / (n - 1)
    error = np.sqrt((share**2 * variance / n).sum())
    # Spreads are drawn towards the usual one by what ten rows are worth, and shares have noise.
    assert found.error[0] == pytest.approx(error, rel=0.05)


def test_no_cell_is_another_one_for_the_cells_that_it_is_measured_with() -> None:
    """A window's numbers are the same whichever windows are computed in the same run."""
    rng = np.random.default_rng(7)
    counts = rng.integers(0, 9, (4, 6, 5)).astype(float)
    counts[0, :, :2] = 0  # no value below 0
    counts[1, :, [0, 1, 3, 4]] = 0  # nothing but 0
    rows = counts.sum(axis=2) + rng.integers(0, 90, (4, 6))
    without = np.zeros((4, 6))

    def measured(chosen: slice) -> np.ndarray:
        found = ByOutput(
            np.arange(4)[chosen], rows[chosen], without[chosen], counts[chosen], VALUES
        )
        each = [VALUES, VALUES**2, np.abs(VALUES)]
        of_all = [mean_of_all(found, worth, grows=True, least_spread=2.0) for worth in each]
        ends = [interval(found, *pair) for pair in zip(of_all, each, strict=True)]
        return np.stack([np.stack([*one, *end]) for one, end in zip(of_all, ends, strict=True)])

    alone = [measured(slice(cell, cell + 1)) for cell in range(4)]
    np.testing.assert_allclose(
        measured(slice(None)), np.concatenate(alone, axis=2), rtol=1e-9, atol=1e-12
    )


def test_a_group_without_labels_widens_the_interval_by_what_was_seen() -> None:
    counts = np.zeros((3, 5), np.int64)
    counts[:2] = 20
    few, half = (by_output(np.array([400, 400, bare]), counts) for bare in (10, 800))
    ends = [interval(found, mean_of_all(found, VALUES), VALUES) for found in (few, half)]
    assert ends[0].upper[0] - ends[0].lower[0] < 1
    # Half of the rows may be -2 each, or 3 each.
    assert ends[1].lower[0] < ends[1].value[0] - 0.5 * (ends[1].value[0] + 2) + 0.01
    assert ends[1].upper[0] > ends[1].value[0] + 0.5 * (3 - ends[1].value[0]) - 0.01


@pytest.mark.parametrize("rule", ["random", "high", "low"])
@pytest.mark.parametrize("name", [name for name in DRAWN if "t of 5" not in name])
def test_intervals_of_means_hold(name: str, rule: str) -> None:
    case = MeanCase(1_000, 0.3, rule)
    found = measure_mean(name, case, 300)
    assert mean_misses(name, case, found, 300) == ""


def spec_of(task: str) -> ModelSpec:
    """Return a spec whose events have outcomes and, of several classes, scores."""
    columns: dict[str, object] = {
        "prediction": "p",
        "outcomes": {"bought": {"column": "b", "kind": "rate"}, "revenue": {"column": "r"}},
    }
    if task != "regression":
        columns["scores"] = {"a": "pa", "b": "pb", "c": "pc"}
    return make_spec(task, columns)


def world(task: str, chosen: str) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Live a window of which labels are of all rows or of high outputs.

    Returns:
        What is measured of performance and business, all rows as they are, and the bytes of what
        is kept by output.
    """
    rng = np.random.default_rng(4)
    labels = np.array(["a", "b", "c"])
    x = rng.normal(size=N)
    score = np.exp(1.5 * np.column_stack([x, 0.3 * x, -x]) + rng.normal(size=(N, 3)))
    score /= score.sum(axis=1, keepdims=True)
    is_number = task == "regression"
    answer = np.exp(0.6 * x) if is_number else labels[score.argmax(axis=1)]
    actual = (
        answer * (1.1 + 0.4 * rng.normal(size=N))
        if is_number
        else labels[[rng.choice(3, p=p) for p in score]]
    )
    output = answer if is_number else score.max(axis=1)
    bought = (rng.random(N) < 1 / (1 + np.exp(1 - 2 * (output - output.mean())))).astype(float)
    revenue = bought * np.exp(0.3 * rng.normal(size=N)) * (1 + output)
    rank = np.argsort(np.argsort(output)) / N
    chance = {"all": np.ones(N), "random": np.full(N, 0.4), "high": 0.05 + 0.8 * rank**2}
    is_known = rng.random(N) < chance[chosen]

    records = pd.DataFrame({"day": 0, "site": "x", "prediction": answer})
    for name, values in (("actual", actual), ("bought", bought), ("revenue", revenue)):
        records[name] = np.where(is_known, values.astype(object), None)
    if not is_number:
        records[[f"score:{name}" for name in labels]] = score
    spec = spec_of(task)
    profiles, _ = profiled(spec, records, records)
    kept = {name: stats for name, stats in profiles.items() if name.startswith(":by_output/")}
    found = pd.concat([measure(spec, family, profiles, None)
                       for family in ("performance", "business")])  # fmt: skip
    found = found[(found["slice_key"] == "all") & ~found["column_name"].str.startswith("class:")]
    rows = pd.DataFrame({"bought": bought, "revenue": revenue})
    if is_number:
        rows["error"] = answer - actual
    else:
        of_actual = score[np.arange(N), [list(labels).index(a) for a in actual]]
        rows["log_loss"] = -np.log(of_actual)
        rows["brier"] = (score**2).sum(axis=1) - 2 * of_actual + 1
        rows["right"] = answer == actual
        rows["top"] = (score > of_actual[:, None]).sum(axis=1) < spec.top_k
    mine = [to_rows({name: stats}) for name, stats in kept.items()]
    cells = found.set_index(found["metric"] + "/" + found["column_name"])
    whole = [t.filter(pa.compute.equal(t.column("slice_key"), "all")) for t in mine]
    return cells, rows, sum(part.nbytes for part in whole)


def expected(task: str, rows: pd.DataFrame) -> dict[str, float]:
    """Return every metric that is weighted back, of all rows."""
    found = {
        "mean_outcome/bought": rows["bought"].mean(),
        "mean_outcome/revenue": rows["revenue"].mean(),
    }
    if task == "regression":
        error = rows["error"]
        return found | {
            "me/:table": error.mean(),
            "mae/:table": error.abs().mean(),
            "rmse/:table": np.sqrt((error**2).mean()),
            "bias/:table": error.mean() / error.abs().mean(),
            "quantile_loss/:table": error.abs().mean() / 2,
        }
    return found | {
        "log_loss/:table": rows["log_loss"].mean(),
        "brier/:table": rows["brier"].mean(),
        "accuracy/:table": rows["right"].mean(),
        "top_k_accuracy/:table": rows["top"].mean(),
    }


@pytest.mark.parametrize("task", ["regression", "multiclass_classification"])
def test_metrics_of_labels_chosen_by_output_are_those_of_all_rows(task: str) -> None:
    found, rows, n_bytes = world(task, "high")
    biased = 0
    whole, _, _ = world(task, "all")
    plain = expected(task, rows)
    for name, truth in plain.items():
        assert whole.loc[name, "value"] == pytest.approx(truth, rel=1e-9), name
        assert whole.loc[name, "method_version"] != METHOD, name
        assert found.loc[name, "method_version"] == METHOD, name
        lower, value, upper = (found.loc[name, end] for end in ("lower", "value", "upper"))
        assert lower < value < upper, name
        # Of some 1,250 labels: three and a half standard errors.
        assert abs(value - truth) < 0.9 * (upper - lower), name
        biased += not lower <= truth <= upper
    assert biased <= 1
    assert n_bytes < MOST_BYTES * len(DRAWN)


def test_half_of_the_labels_at_random_change_a_mean_by_chance_alone() -> None:
    found, rows, _ = world("regression", "random")
    for name, truth in expected("regression", rows).items():
        lower, upper = found.loc[name, "lower"], found.loc[name, "upper"]
        assert lower <= truth <= upper, name
