"""The demo's data tells the story that the README tells."""

from __future__ import annotations

import datetime as dt
import importlib.resources
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from mlmon_dagster.demo import flights
from mlmon_dagster.demo.flights import FEATURES, THRESHOLD, ZONE, FlightModel
from mlmon_dagster.spec import load_model

pytestmark = pytest.mark.xdist_group("flights")  # they share a model

REPOSITORY = Path(__file__).parents[2]
SPEC = load_model(REPOSITORY / "models" / "flight_delay.yaml")
APRIL_1, DECEMBER_31 = dt.date(2013, 4, 1), dt.date(2013, 12, 31)
DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def model() -> FlightModel:
    return flights.train()


@pytest.fixture(scope="module")
def year(model: FlightModel) -> pd.DataFrame:
    """All flights with their score, from one request instead of thousands."""
    scores = model.classifier.predict_proba(model.flights[list(FEATURES)])[:, 1]
    return model.flights.assign(p_late=scores)


def local_days(times: pd.Series) -> set[dt.date]:
    return set(times.dt.tz_convert(ZONE).dt.date)


def test_performance_falls_in_april_and_again_in_autumn(year: pd.DataFrame) -> None:
    known = year[year["late"].notna()]
    month = pd.to_datetime(known["day"]).dt.month

    auc = {
        m: roc_auc_score(rows["late"].astype(int), rows["p_late"])
        for m, rows in known.groupby(month)
        if m >= 4
    }

    expected = [0.636, 0.722, 0.727, 0.727, 0.681, 0.667, 0.626, 0.651, 0.698]
    assert list(auc.values()) == pytest.approx(expected, abs=0.01)


def test_the_last_day_has_no_weather_and_some_destinations_are_new(model: FlightModel) -> None:
    rows = model.flights
    last = rows[rows["day"] == DECEMBER_31]
    winter, later = (set(rows.loc[rows["day"].between(*days), "dest"]) for days in
                     ((dt.date(2013, 1, 1), APRIL_1 - DAY), (APRIL_1, DECEMBER_31)))  # fmt: skip

    assert last[["temp", "dewp", "humid", "wind_speed", "pressure"]].isna().all(axis=None)
    assert len(later - winter) == 9


def test_flights_are_as_late_and_as_long_as_the_page_says(
    model: FlightModel, year: pd.DataFrame
) -> None:
    page = " ".join((REPOSITORY / "docs" / "demo.md").read_text().split())
    known = year[year["late"].notna()]
    late = known.astype({"late": float}).groupby("day")["late"].mean() * 100
    first, second, third = (f"{late[dt.date(2013, 4, day)]:.0f}" for day in (22, 25, 26))
    week = known[known["day"].between(dt.date(2013, 4, 22), dt.date(2013, 4, 26))]
    found = 100 * week["late"].astype(float).mean()

    assert f"On 22, 25 and 26 April it was {first}, {second} and {third} %." in page
    assert f"and {found:.1f} % were late" in page

    last_week = year.loc[year["day"] > dt.date(2013, 12, 24), "distance"].median()
    usual = year.loc[model.validation, "distance"].median()
    assert 100 < last_week - usual < 120
    assert "the median flight of the last week is more than 100 miles longer" in page


def test_validation_is_forty_percent_of_the_days_none_of_which_training_saw(
    model: FlightModel,
) -> None:
    rows = model.flights
    known = rows[(rows["day"] < APRIL_1) & rows["late"].notna()]
    days = set(rows.loc[model.validation, "day"])

    assert len(days) / known["day"].nunique() == pytest.approx(0.4, abs=0.01)
    assert model.validation.is_unique
    assert set(model.validation) == set(known.index[known["day"].isin(days)])


def test_one_file_per_local_day_holds_that_days_flights(model: FlightModel, tmp_path: Path) -> None:
    start = dt.date(2013, 11, 2)

    paths = flights.write_predictions(model, tmp_path, start, start + 2 * DAY)

    assert [path.name for path in paths] == ["2013-11-02.parquet", "2013-11-03.parquet"]
    for path, day in zip(paths, (start, start + DAY), strict=True):
        events = pd.read_parquet(path)
        # The clocks went back on 3 November; that day is 25 hours long.
        assert local_days(events["scheduled_departure"]) == {day}
        assert len(events) == (model.flights["day"] == day).sum()


def test_events_have_the_columns_that_the_spec_declares(model: FlightModel, tmp_path: Path) -> None:
    landing = tmp_path / "landing" / "flight_delay"
    (predictions,) = flights.write_predictions(model, landing, APRIL_1, APRIL_1 + DAY)
    (actuals,) = flights.write_actuals(landing, APRIL_1, APRIL_1 + DAY)

    roles = SPEC.columns.declared()
    outcomes = {roles[name] for name in SPEC.columns.outcomes}
    of_actuals = {roles["prediction_id"], roles["actual"], roles["actual_time"], *outcomes}
    of_predictions = set(roles.values()) - of_actuals | {roles["prediction_id"]}
    assert set(pq.read_schema(predictions).names) == of_predictions | set(SPEC.features)
    assert set(pq.read_schema(actuals).names) == of_actuals
    for path, name in ((predictions, "scheduled_departure"), (actuals, "landed_at")):
        assert pq.read_schema(path).field(name).type == pa.timestamp("ms", tz="UTC")
    assert SPEC.source.actuals is not None
    assert list(tmp_path.glob(SPEC.source.predictions.path)) == [predictions]
    assert list(tmp_path.glob(SPEC.source.actuals.path)) == [actuals]
    assert tuple(SPEC.features) == FEATURES


def test_minutes_of_delay_are_covered_where_a_warning_was_given_and_missed_elsewhere(
    model: FlightModel, tmp_path: Path
) -> None:
    [path] = flights.write_predictions(model, tmp_path, APRIL_1, APRIL_1 + DAY)
    [landed] = flights.write_actuals(tmp_path, APRIL_1, APRIL_1 + DAY)
    rows = pd.read_parquet(landed).merge(pd.read_parquet(path), on="flight_id")
    flown = rows.merge(model.flights[["flight_id", "arrival_delay"]], on="flight_id")
    minutes = flown["arrival_delay"].where(flown["late"] == 1, 0).astype(float)

    assert (flown["covered_min"] + flown["missed_min"] == minutes).all()
    assert (flown.loc[flown["late_predicted"] == 0, "covered_min"] == 0).all()
    assert flown["covered_min"].sum() > 0
    assert flown["missed_min"].sum() > 0


def test_every_flight_keeps_to_the_declared_ranges_and_nulls(model: FlightModel) -> None:
    for name, feature in SPEC.features.items():
        values = model.flights[name]
        assert values.isna().any() == feature.nullable, name
        assert feature.min is None or values.min() >= feature.min, name
        assert feature.max is None or values.max() <= feature.max, name


def test_the_spec_covers_the_days_that_are_served() -> None:
    assert SPEC.time.zone == ZONE
    assert SPEC.time.start == flights.FIRST_DAY
    assert SPEC.time.end == flights.LAST_DAY + DAY


def test_the_package_carries_the_spec_of_the_repository() -> None:
    packaged = importlib.resources.files("mlmon_dagster.demo").joinpath("flight_delay.yaml")

    assert packaged.read_text() == (REPOSITORY / "models" / "flight_delay.yaml").read_text()


def test_scores_are_repeatable_and_latency_is_measured(model: FlightModel) -> None:
    rows = model.flights.iloc[100_000:100_250]

    served = model.serve(rows)

    whole = model.classifier.predict_proba(rows[list(FEATURES)])[:, 1]
    np.testing.assert_array_equal(served["p_late"], whole)
    np.testing.assert_array_equal(served["late_predicted"], whole >= THRESHOLD)
    assert served.index.equals(rows.index)
    assert (served["latency_ms"] > 0).all()
    assert served["latency_ms"].nunique() == 3  # one per request of 100


def test_what_was_served_stays_as_it_was(model: FlightModel, tmp_path: Path) -> None:
    def write() -> list[Path]:
        return [
            *flights.write_predictions(model, tmp_path, APRIL_1, APRIL_1 + DAY),
            *flights.write_actuals(tmp_path, APRIL_1, APRIL_1 + 2 * DAY),
            *flights.write_validation(model, tmp_path),
        ]

    first = {path: path.read_bytes() for path in write()}
    again = {path: path.read_bytes() for path in write()}

    assert again == first
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(first)


def test_an_actual_comes_on_the_day_of_landing_and_never_for_the_cancelled(
    model: FlightModel, tmp_path: Path
) -> None:
    paths = flights.write_actuals(tmp_path)

    first, last = paths[0], paths[-1]
    actuals = pd.concat([pd.read_parquet(path) for path in paths])
    served = model.flights[model.flights["day"] >= APRIL_1]
    assert (first.stem, last.stem) == ("2013-04-01", "2014-01-01")
    assert local_days(pd.read_parquet(last)["landed_at"]) == {dt.date(2014, 1, 1)}
    assert set(actuals["flight_id"]) == set(served.loc[served["late"].notna(), "flight_id"])
    assert model.flights["flight_id"].is_unique


def test_validation_goes_out_as_its_own_dataset_with_all_its_actuals(
    model: FlightModel, tmp_path: Path
) -> None:
    predictions, actuals = map(pd.read_parquet, flights.write_validation(model, tmp_path))

    assert set(predictions["dataset"]) == {"validation"}
    assert set(predictions["flight_id"]) == set(actuals["flight_id"])
    assert len(predictions) == len(model.validation)
    assert max(local_days(predictions["scheduled_departure"])) < APRIL_1


def test_the_licence_of_the_data_is_beside_it() -> None:
    folder = importlib.resources.files("mlmon_dagster.demo")

    assert folder.joinpath("flights_2013.parquet").is_file()
    assert "CC0" in folder.joinpath("README.md").read_text()
