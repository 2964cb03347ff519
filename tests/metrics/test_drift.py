from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.drift_laws import drift_metrics
from mlmon_dagster.metrics.frames import METRIC_COLUMNS
from mlmon_dagster.metrics.statistics import ColumnStatistics, concat
from tests.metrics.samples import (
    CATEGORICAL_LAWS,
    NUMERIC_LAWS,
    categorical_binning,
    cells,
    count,
    numeric_binning,
    score_statistics,
)

RNG = np.random.default_rng(11)
NORMAL = RNG.normal(size=(30, 500))
BINNING = numeric_binning(NORMAL)
BASELINE = count(BINNING, NORMAL)


def drift(current: ColumnStatistics, baseline: ColumnStatistics = BASELINE, **options: object):
    frame = drift_metrics(current, baseline, **({"seed": 1} | options))
    return frame.set_index(["metric", "window_start", "slice_key", "slice_value"]).sort_index()


def of(frame: pd.DataFrame, metric: str, column: str = "value") -> list:
    return frame.loc[metric, column].tolist()


def beyond_chance(frame: pd.DataFrame, metric: str = "psi") -> list:
    mine = frame.loc[metric]
    return (mine["value"] - mine["by_chance"]).tolist()


def test_a_shift_is_far_and_no_chance_by_every_distance():
    frame = drift(count(BINNING, RNG.normal(1.0, 1.0, size=(2, 1000))))
    for metric, least in {"psi": 0.7, "jensen_shannon": 0.25, "ks": 0.3, "chi_square": 0.5}.items():
        assert min(of(frame, metric)) > least
        assert max(of(frame, metric, "p_value")) < 1e-6


def test_without_a_change_the_distance_is_what_chance_gives_at_any_size():
    for n in (50, 300, 5000):
        frame = drift(count(BINNING, RNG.normal(size=(300, n))))
        for metric in ("psi", "jensen_shannon", "ks", "chi_square"):
            values = np.array(beyond_chance(frame, metric))
            # the one baseline is itself off, the same for every window
            assert abs(values.mean()) < 4 * values.std() / np.sqrt(300) + 0.003


def test_the_frame_has_the_columns_of_the_metric_store():
    frame = drift_metrics(count(BINNING, RNG.normal(size=(2, 100))), BASELINE, seed=1)
    assert tuple(frame.columns) == METRIC_COLUMNS
    assert set(frame["n_baseline"]) == {15_000}
    assert set(frame["n"]) == {100}


@pytest.mark.parametrize(
    ("rows", "windows", "reason"),
    [(29, 30, "few_rows"), (0, 30, "few_rows"), (100, 0, "few_baseline_rows")],
)
def test_few_rows_give_no_value_and_say_so(rows, windows, reason):
    baseline = BASELINE if windows else count(BINNING, NORMAL[:1, :20])
    frame = drift(count(BINNING, RNG.normal(size=(1, rows))), baseline)
    assert frame[["value", "p_value"]].isna().all(axis=None)
    assert set(frame["reason"]) == {reason}


def test_a_window_of_nulls_only_has_drifted_but_has_no_ks():
    frame = drift(count(BINNING, np.full((1, 100), np.nan)))
    assert of(frame, "psi")[0] > 1
    assert of(frame, "psi", "p_value")[0] < 1e-6
    assert of(frame, "ks", "reason") == ["all_null"]


def test_nulls_on_both_sides_are_no_drift():
    nulls = np.full((20, 100), np.nan)
    empty = replace(BASELINE.binning, edges=(), fine=1, size=1, binning_id="none")
    frame = drift(count(empty, nulls[:1]), count(empty, nulls))
    assert beyond_chance(frame)[0] == pytest.approx(0, abs=0.05)
    assert of(frame, "psi", "p_value")[0] > 0.01


def test_a_constant_column_that_stays_constant_has_not_drifted():
    values = np.full((20, 200), 7.0)
    binning = numeric_binning(values)
    same, other = count(binning, values[:1]), count(binning, values[:1] + 1)
    baseline = count(binning, values)
    assert beyond_chance(drift(same, baseline))[0] == pytest.approx(0, abs=0.02)
    assert of(drift(same, baseline), "psi", "p_value")[0] > 0.01
    assert of(drift(other, baseline), "psi")[0] > 1
    assert of(drift(other, baseline), "psi", "p_value")[0] < 1e-6


def test_the_method_says_whether_the_baseline_had_windows():
    current = count(BINNING, RNG.normal(size=(1, 200)))
    few = drift(current, count(BINNING, NORMAL[:13]))
    assert set(drift(current).loc["psi", "method_version"]) == {"psi-5:windows"}
    assert set(few.loc["psi", "method_version"]) == {"psi-5:rows"}


def test_day_effects_that_the_baseline_has_too_are_not_significant():
    days = RNG.normal(size=(60, 1)) + RNG.normal(size=(60, 960))
    binning = numeric_binning(days)
    current = count(binning, RNG.normal(size=(40, 1)) + RNG.normal(size=(40, 960)))
    by_windows = np.array(of(drift(current, count(binning, days)), "psi", "p_value"))
    pooled = count(binning, days.reshape(1, -1))
    by_rows = np.array(of(drift(current, pooled), "psi", "p_value"))
    assert (by_rows < 1e-3).mean() > 0.8
    assert (by_windows < 1e-3).mean() < 0.05


def test_a_bad_day_in_the_baseline_does_not_hide_a_change():
    days = RNG.normal(size=(60, 500))
    days[7] += 5
    binning = numeric_binning(days)
    frame = drift(count(binning, RNG.normal(0.7, 1, size=(5, 500))), count(binning, days))
    assert max(of(frame, "psi", "p_value")) < 1e-3


def test_slices_are_compared_with_their_own_baseline_by_psi_only():
    parts, bases = [], []
    for name, mean in (("a", 0.0), ("b", 3.0)):
        base = count(BINNING, RNG.normal(mean, 1, size=(20, 200)))
        bases.append(replace(base, cells=cells(20, key="group", value=name)))
        part = count(BINNING, RNG.normal(3.0, 1, size=(1, 200)))
        parts.append(replace(part, cells=cells(1, key="group", value=name)))
    lost = replace(parts[0], cells=cells(1, key="group", value="new"))
    frame = drift(concat([*parts, lost]), concat([BASELINE, *bases])).reset_index()
    assert set(frame["metric"]) == {"psi"}
    found = frame.set_index("slice_value")
    assert found.loc["a", "value"] > 1
    assert abs(found.loc["b", "value"] - found.loc["b", "by_chance"]) < 0.2
    assert found.loc["new", "reason"] == "no_baseline"


def test_versions_of_the_baseline_are_pooled():
    halves = [
        replace(count(BINNING, NORMAL[i::2]), cells=cells(15, version=str(i))) for i in (0, 1)
    ]
    current = count(BINNING, RNG.normal(size=(3, 200)))
    assert of(drift(current, concat(halves)), "psi") == pytest.approx(of(drift(current), "psi"))


def test_scores_drift_by_groups_of_equal_mass():
    shares = np.exp(-(((np.arange(200) - 100) / 20) ** 2))
    rows = RNG.multinomial(400, shares / shares.sum(), size=20)
    none = np.zeros_like(rows)
    baseline = score_statistics(rows, none)
    same = score_statistics(none[:1], rows[:1])  # labels do not matter
    moved = score_statistics(np.roll(rows[:1], 25, axis=1), none[:1])
    assert abs(beyond_chance(drift(same, baseline))[0]) < 0.1
    assert of(drift(moved, baseline), "psi")[0] > 0.5


def test_profiles_made_with_other_bins_are_refused():
    other = replace(BINNING, binning_id="other")
    with pytest.raises(ValueError, match="different bins"):
        drift_metrics(count(other, NORMAL[:1]), BASELINE, seed=1)


def test_the_interval_of_psi_holds_the_value_and_narrows_with_rows():
    widths = []
    for n in (200, 5000):
        frame = drift(count(BINNING, RNG.normal(0.5, 1, size=(1, n)))).loc["psi"]
        assert (frame["lower"] < frame["value"]).all()
        assert (frame["value"] < frame["upper"]).all()
        widths.append(float((frame["upper"] - frame["lower"]).iloc[0]))
    assert widths[1] < widths[0] / 3


@pytest.mark.parametrize("name", [*NUMERIC_LAWS, *CATEGORICAL_LAWS])
def test_every_law_gives_finite_results(name):
    law = (NUMERIC_LAWS | CATEGORICAL_LAWS)[name]
    make = numeric_binning if name in NUMERIC_LAWS else categorical_binning
    values = law(RNG, (16, 300))
    binning = make(values)
    frame = drift(count(binning, law(RNG, (2, 60))), count(binning, values))
    known = frame[frame["reason"] == ""]
    assert np.isfinite(known[["value", "p_value"]]).all(axis=None)
    assert known["p_value"].between(0, 1).all()
    assert set(frame.loc["psi", "reason"]) == {""}
