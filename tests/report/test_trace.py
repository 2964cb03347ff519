from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.metrics.intervals import wilson
from mlmon_dagster.profiles import baseline_in_force, load_baseline
from mlmon_dagster.report.trace import newest_mature, trace_of
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import monitor_results
from mlmon_dagster.tables.periods import History, coarsen, list_period_columns, rolled_up_metrics
from mlmon_dagster.trace.slices import COLUMNS, MIN_ROWS, compare_slices, profiled_for
from tests.report.worlds import BROKEN, DAY, DAYS, REGIONS, START, World, build, declare

pytestmark = pytest.mark.xdist_group("report")  # they share a world

EXACT = ("accuracy", "f1", "precision", "recall", "actual_rate", "brier", "log_loss")


def traced(
    world: World,
    start: dt.datetime,
    end: dt.datetime,
    metrics: Sequence[str],
    min_rows: int = MIN_ROWS,
) -> pd.DataFrame:
    """Compare the slices of some windows with the baseline's."""
    now = baseline_in_force(world.store, world.spec).profiles(
        start=start, end=end, dataset="production", columns=profiled_for(world.spec, metrics)
    )
    then = load_baseline(world.store, world.spec).windows
    return compare_slices(world.spec, now, then, metrics, min_rows=min_rows)


@pytest.fixture(scope="module")
def trace(world: World) -> pd.DataFrame:
    return traced(world, *world.period, ("roc_auc", *EXACT))


def of(trace: pd.DataFrame, metric: str, key: str = "region") -> pd.DataFrame:
    part = trace[(trace["metric"] == metric) & (trace["slice_key"] == key)]
    return part.set_index("slice_value")


def accuracy(rows: pd.DataFrame) -> float:
    known = rows[rows["actual"] >= 0]
    return float((known["prediction"] == known["actual"]).mean())


@pytest.mark.parametrize("metric", EXACT)
@pytest.mark.parametrize("key", ["region", "region,member"])
def test_the_effects_of_a_slice_key_add_up_to_the_change(trace, metric: str, key: str) -> None:
    whole = of(trace, metric, "all").iloc[0]
    parts = of(trace, metric, key)

    assert abs(parts["effect"].sum() - whole["change"]) <= 1e-12
    assert parts["share"].sum() == pytest.approx(1, abs=1e-9)
    assert parts["weight"].sum() == pytest.approx(1, abs=1e-12)
    assert set(parts["method"]) == {"exact"}


def test_values_are_those_of_the_rows(world: World, trace: pd.DataFrame) -> None:
    now, then = world.side("production"), world.side("validation")
    whole = of(trace, "accuracy", "all").iloc[0]

    assert whole["value"] == pytest.approx(accuracy(now), abs=1e-12)
    assert whole["change"] == pytest.approx(accuracy(now) - accuracy(then), abs=1e-12)
    for name in ("north", "south", "east"):
        row = of(trace, "accuracy").loc[name]
        mine = now[now["region"] == name]
        assert row["value"] == pytest.approx(accuracy(mine), abs=1e-12)
        assert row["n"] == (mine["actual"] >= 0).sum()
        assert row["baseline_value"] == pytest.approx(
            accuracy(then[then["region"] == name]), abs=1e-12
        )


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc", "log_loss"])
def test_the_slice_that_broke_comes_first(trace: pd.DataFrame, metric: str) -> None:
    parts = of(trace, metric)

    assert parts.index[0] == REGIONS[BROKEN]
    assert parts["is_real"].iloc[0]


def test_a_slice_that_grew_and_is_worse_than_the_rest_is_a_mix_effect(trace: pd.DataFrame) -> None:
    grown = of(trace, "accuracy").loc["south"]

    assert grown["mix"] < -0.01
    assert not grown["is_real"]


def test_slices_of_one_side_are_told_and_count_as_mix_alone(trace: pd.DataFrame) -> None:
    fresh, former = (of(trace, "accuracy").loc[name] for name in ("fresh", "former"))

    assert (fresh["note"], former["note"]) == ("new", "gone")
    assert fresh["within"] == former["within"] == 0
    assert fresh["mix"] != 0
    assert former["mix"] != 0
    assert np.isnan(fresh["p_value"])


def test_an_area_is_not_split_but_ranked_by_the_slices_own_change(trace: pd.DataFrame) -> None:
    parts = trace[(trace["metric"] == "roc_auc") & (trace["slice_key"] != "all")]
    real = parts[parts["is_real"]]

    assert set(parts["method"]) == {"own_change"}
    assert parts[["mix", "within", "effect", "share"]].isna().all(axis=None)
    assert real["change"].is_monotonic_increasing
    assert list(parts["is_real"]) == sorted(parts["is_real"], reverse=True)


def test_small_values_are_put_together_and_still_count(world: World) -> None:
    trace = traced(world, *world.period, ["accuracy"])
    few = traced(world, *world.period, ["accuracy"], min_rows=400)
    known = world.rows[world.rows["actual"] >= 0]
    small = known[known["region"].isin(["fresh", "former", "tiny"])]

    assert of(trace, "accuracy").loc["(1 smaller)", "note"] == "small"
    together = of(few, "accuracy").loc["(3 smaller)"]
    assert together["n"] == (small["dataset"] == "production").sum()
    assert together["n_baseline"] == (small["dataset"] == "validation").sum()
    for frame in (trace, few):
        change = of(frame, "accuracy", "all")["change"].iloc[0]
        assert abs(of(frame, "accuracy")["effect"].sum() - change) <= 1e-12


def test_a_change_is_unlikely_just_when_its_interval_leaves_out_zero(trace: pd.DataFrame) -> None:
    tested = trace.dropna(subset=["p_value"])
    excludes = (tested["change_lower"] > 0) | (tested["change_upper"] < 0)

    assert ((tested["p_value"] < 0.05) == excludes).all()
    assert (tested["p_adjusted"] >= tested["p_value"] - 1e-15).all()
    north = of(trace, "accuracy").loc["north"]  # its interval is no narrower than by rows
    assert (north["n_windows"], north["n_baseline_windows"]) == (DAYS, DAYS)
    assert north["change_upper"] - north["change"] >= (north["upper"] - north["value"])


def test_few_windows_are_shown_and_never_called_real(world: World) -> None:
    frame = traced(world, START, START + 7 * DAY, ["accuracy"])

    assert set(frame["n_windows"]) <= {0, 7}
    assert not frame["is_real"].any()
    assert frame["p_value"].isna().all()
    assert of(frame, "accuracy").loc["north", "note"] == "few_windows"
    assert np.isfinite(of(frame, "accuracy").loc["north", "change_lower"])


def test_monitors_compare_with_the_baselines_windows_once_there_are_eight(world: World) -> None:
    found = monitor_results.newest(
        world.store.state, world.spec.model, *world.period, "performance"
    )
    judged = found[(found["status"] != "NO_DATA") & (found["metric"] == "accuracy")]

    assert set(judged["method_version"]) == {"wilson-1:windows"}
    daily = [accuracy(day) for _, day in world.side("validation").groupby("window_start")]
    assert judged["baseline_value"].iloc[0] == pytest.approx(np.mean(daily), abs=2e-3)


def test_a_months_interval_is_as_wide_as_its_days_stray(world: World) -> None:
    frame = rolled_up_metrics(world.store, world.spec, "month")
    found = frame[(frame["metric"] == "accuracy") & (frame["slice_key"] == "all")].iloc[0]
    now = world.side("production")
    left = [
        accuracy(now[now["window_start"] != day]) - accuracy(now)
        for day in now["window_start"].unique()
    ]
    half = stats.t.ppf(0.975, DAYS - 1) * np.sqrt((DAYS - 1) / DAYS * np.sum(np.square(left)))

    assert found["method_version"] == "wilson-1:windows"
    lower, upper = wilson(np.round(found["value"] * found["n"]), found["n"])
    assert found["lower"] == pytest.approx(min(found["value"] - half, lower), abs=1e-12)
    assert found["upper"] == pytest.approx(max(found["value"] + half, upper), abs=1e-12)
    sliced = frame[(frame["metric"] == "accuracy") & (frame["slice_key"] != "all")]
    assert set(sliced["method_version"]) == {"wilson-1"}


def test_what_is_read_once_is_added_up_as_what_is_read_for_itself(world: World) -> None:
    spec, start, end = world.spec, START + 2 * DAY, START + 9 * DAY
    columns, keys = list_period_columns(spec), [(), *spec.slices]
    history = History(world.store, spec, columns, keys)
    found = history.merge(columns, keys, start, end)
    alone = baseline_in_force(world.store, spec).profiles(
        start=start, end=end, dataset="production", columns=columns, slices=keys
    )

    assert set(found) == set(alone)
    for name, stats_ in alone.items():
        expected = coarsen(spec, stats_, "month")
        pd.testing.assert_frame_equal(found[name].cells, expected.cells)
        assert np.array_equal(found[name].counts, expected.counts)
        assert np.array_equal(found[name].total, expected.total)
    sizes = history.sizes(columns[0]).groupby("window_start")["n"].sum()
    rows = world.side("production").groupby("window_start").size()
    assert sizes.tolist() == rows.tolist()


def test_a_base_rate_is_sorted_by_its_share_and_nothing_gives_an_empty_trace(
    world: World, trace: pd.DataFrame
) -> None:
    parts = trace[(trace["metric"] == "actual_rate") & (trace["slice_key"] != "all")]
    frame = traced(world, START - DAYS * DAY, START, ["accuracy", "roc_auc"])

    assert parts["share"].is_monotonic_decreasing
    assert frame.empty
    assert tuple(frame.columns) == COLUMNS


def test_by_default_monitored_metrics_come_first(world: World) -> None:
    frame = trace_of(world.store, world.spec, world.period).slices

    names = list(dict.fromkeys(frame["metric"]))
    assert names == ["accuracy", "roc_auc", "f1", "actual_rate"]


def test_without_a_baseline_there_is_nothing_to_compare_with(store: Store) -> None:
    with pytest.raises(BaselineMissingError):
        trace_of(store, declare(), (START, START + DAY))


def test_the_newest_mature_windows_end_with_the_last_of_them(world: World, store: Store) -> None:
    assert newest_mature(world.store, world.spec) == world.period
    assert newest_mature(store, world.spec) is None


def test_windows_whose_ground_truth_is_still_to_come_are_not_traced(tmp_path: Path) -> None:
    waiting = declare(actuals={"expected_within": "30d", "min_coverage": 1.0})
    world = build(tmp_path, spec=waiting)

    assert newest_mature(world.store, world.spec) is None
    world.store.close()


def test_a_model_without_scores_is_traced_by_its_decisions(tmp_path: Path) -> None:
    spec = declare()
    columns = spec.columns.model_copy(update={"score": None})
    monitor = spec.monitors.model_copy(update={"performance": spec.monitors.performance[:1]})
    world = build(tmp_path, spec=spec.model_copy(update={"columns": columns, "monitors": monitor}))
    frame = trace_of(world.store, world.spec, world.period).slices

    assert set(frame["metric"]) == {"accuracy", "f1", "actual_rate"}
    assert of(frame, "accuracy").index[0] == REGIONS[BROKEN]
    world.store.close()
