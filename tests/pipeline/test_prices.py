"""What a call costs is computed from its amounts and a table of prices, and judged as a feature."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import parse_predicate, predicate_columns, window_from_key
from mlmon_dagster.spec.files.loader import parse_model
from mlmon_dagster.store.state import metric_log
from mlmon_dagster.tables.rows import rows_of
from tests.pipeline.looking import Place

ROWS, DAYS = 400, 16
FIRST = dt.date(2024, 3, 1)
NOW = dt.datetime(2024, 3, FIRST.day + DAYS, 6, tzinfo=dt.UTC)
SPEC = """\
model: assistant
task: binary_classification
owners: [team:support]
time: {start: 2024-03-01}
source:
  predictions: {path: landing/predictions/*.parquet, settle: 0s}
columns: {prediction_id: id, event_time: at, score: p, model_version: version}
features:
  read: {type: numeric}
  written: {type: numeric}
  cached: {type: numeric, nullable: true, null_rate: {above: 1}}
  cost:
    type: numeric
    unit: USD
    prices:
      of:
        mini-3*: {read: 0.15, written: 0.6, cached: -0.075}
        "large": {read: 2.5, written: 10}
baseline: {moving: 14d}
monitors: {service: {sum_cost: {above: 0.5}, mean_cost: {above: 0.0009}}}
"""


def called(day: dt.date, *, large: float = 0.1, unknown: float = 0.0) -> pd.DataFrame:
    """Return a day's calls, of which a share went to the large model, or to one without a price."""
    rng = np.random.default_rng(day.toordinal())
    u = rng.random(ROWS)
    cached = rng.integers(0, 500, ROWS).astype(float)
    return pd.DataFrame(
        {
            "id": [f"{day:%m%d}-{i}" for i in range(ROWS)],
            "at": pd.Timestamp(day, tz="UTC") + pd.to_timedelta(np.arange(ROWS) * 200, unit="s"),
            "p": rng.random(ROWS),
            "version": np.where(
                u < large, "large", np.where(u > 1 - unknown, "new-1", "mini-3-2024")
            ),
            "read": rng.integers(800, 1200, ROWS).astype(float),
            "written": rng.integers(100, 300, ROWS).astype(float),
            "cached": np.where(rng.random(ROWS) < 0.5, cached, np.nan),
        }
    )


def by_hand(calls: pd.DataFrame) -> pd.Series:
    """Return what calls cost, NaN of those without a price."""
    mini = 0.15 * calls["read"] + 0.6 * calls["written"] - 0.075 * calls["cached"].fillna(0)
    large = 2.5 * calls["read"] + 10 * calls["written"]
    cost = mini.where(calls["version"].str.startswith("mini-3"), large) / 1e6
    return cost.where(calls["version"] != "new-1")


def make_desk(folder: Path, last: pd.DataFrame) -> Place:
    desk = Place(folder, SPEC, NOW)
    usual = [called(FIRST + dt.timedelta(days=n)) for n in range(DAYS - 1)]
    desk.land("predictions", "calls", pd.concat([*usual, last]))
    desk.look()
    return desk


LAST = FIRST + dt.timedelta(days=DAYS - 1)


def test_a_call_costs_what_its_tokens_cost_by_hand(tmp_path: Path) -> None:
    """One that was answered by a model without a price has no cost."""
    last = called(LAST, unknown=0.01)
    desk = make_desk(tmp_path, last)
    store, spec = desk.project.store, desk.spec
    windows = [window_from_key(spec.time, str(LAST))]
    table = rows_of(store, spec, windows, limit=ROWS).table.to_pandas()
    found = dict(zip(table["prediction_id"], table["cost"], strict=True))
    wanted = dict(zip(last["id"], by_hand(last), strict=True))
    assert found == pytest.approx(wanted, rel=1e-9, nan_ok=True)
    dear = parse_predicate("cost > 0.001", predicate_columns(spec))
    assert rows_of(store, spec, windows, dear).n == (by_hand(last) > 0.001).sum()


def test_a_window_s_costs_are_the_sum_and_mean_of_its_calls_with_students_interval(
    tmp_path: Path,
) -> None:
    last = called(LAST, unknown=0.01)
    state = make_desk(tmp_path, last).project.store.state
    found = metric_log.newest(state, "assistant", column="cost", slice_key="all")
    is_last = found["window_start"] == pd.Timestamp(LAST, tz="UTC")
    found = found[is_last & (found["model_version"] == "all")].set_index("metric")
    cost = by_hand(last).dropna()
    mean = found.loc["mean_cost"]
    assert mean["n"] == len(cost)
    assert mean["value"] == pytest.approx(cost.mean(), rel=1e-9)
    wanted = stats.t.interval(0.95, len(cost) - 1, cost.mean(), stats.sem(cost))
    assert (mean["lower"], mean["upper"]) == pytest.approx(wanted, rel=1e-9)
    assert found.loc["sum_cost", "value"] == pytest.approx(cost.sum(), rel=1e-9)


def test_a_day_beyond_its_budget_is_told_in_the_unit_of_the_prices(tmp_path: Path) -> None:
    last = called(LAST, large=0.5)
    said, cost = make_desk(tmp_path, last).firing(), by_hand(last)
    assert said["service/sum_cost/cost"] == (
        f"Sum of cost is {cost.sum():.2f} USD (n 400), above 0.50 USD."
    )
    assert "service/mean_cost/cost" in said


def test_dearer_calls_are_drift_of_the_cost_and_unpriced_ones_are_nulls(tmp_path: Path) -> None:
    dear = make_desk(tmp_path / "a", called(LAST, large=0.5))
    assert any(name.endswith("/cost") for name in dear.firing())
    said = make_desk(tmp_path / "b", called(LAST, unknown=0.3)).firing()["quality/null_rate/cost"]
    assert re.match(r"cost is missing in 2\d(\.\d)? % of rows", said), said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("of:", "by: versoin\n      of:"), "'versoin' is no categorical feature"),
        (("{read: 2.5", "{raed: 2.5"), "'raed' is no numeric feature; did you mean 'read'?"),
        (("of:\n        mini", "per: 0\n      of:\n        mini"), "greater than 0"),
        (("type: numeric\n    unit", "type: categorical\n    unit"), "prices are for numeric"),
        (("unit: USD", "from: price"), "a feature with prices is computed"),
        (("{read: 2.5, written: 10}", "{}"), "names no feature that has a price"),
    ],
)
def test_prices_that_name_what_is_not_there_are_refused_in_words(
    change: tuple[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_model(SPEC.replace(*change))


def test_a_spec_with_prices_is_written_as_it_was_declared() -> None:
    spec = parse_model(SPEC)
    written = spec.model_dump(exclude_unset=True)["features"]["cost"]
    assert written["prices"]["of"]["large"] == {"read": 2.5, "written": 10.0}
    assert "of" not in written
    assert type(spec).model_validate(spec.model_dump(exclude_unset=True)) == spec
