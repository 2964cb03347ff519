"""A real model of flight delays and the landing files that its year in production leaves.

Trained on January to March 2013, it serves April to December day by day. Everything is
repeatable but ``latency_ms``, which is the time that scoring really took.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from mlmon_dagster.store.places.location import whole_file

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

ZONE = "America/New_York"
FIRST_DAY, LAST_DAY = dt.date(2013, 4, 1), dt.date(2013, 12, 31)  # in production
MODEL_VERSION = "2013-q1"
THRESHOLD = 0.3  # of p_late, for the decision late_predicted
FEATURES = (
    "carrier", "origin", "dest", "hour", "day_of_week", "distance", "seats", "plane_age", "temp",
    "dewp", "humid", "wind_speed", "precip", "pressure", "visib",
)  # fmt: skip

_DATA = Path(__file__).with_name("flights_2013.parquet")
_ROWS_PER_REQUEST = 100
_TEXT = ("carrier", "origin", "dest")


class _Classifier(Protocol):
    def predict_proba(self, X: pd.DataFrame) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class FlightModel:
    """The trained classifier, the flights it knows about, and which of them validate it."""

    classifier: _Classifier
    flights: pd.DataFrame
    validation: pd.Index[int]

    def serve(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Score flights in requests of 100, as a serving process would.

        Args:
            rows: Flights with the columns `FEATURES`; may be empty.

        Returns:
            ``p_late`` (0 to 1), ``late_predicted`` (0 or 1) and ``latency_ms``, the time its
            request took, with the index of ``rows``.
        """
        import numpy as np
        import pandas as pd
        from threadpoolctl import threadpool_limits

        features = rows[list(FEATURES)]
        scores, latencies = [np.empty(0)], [np.empty(0)]
        # On a busy machine the threads of a small request wait for each other, for up to 100 times
        # as long as one thread needs for all of it.
        with threadpool_limits(limits=1):
            for first in range(0, len(features), _ROWS_PER_REQUEST):
                request = features.iloc[first : first + _ROWS_PER_REQUEST]
                begin = time.perf_counter()
                scores.append(self.classifier.predict_proba(request)[:, 1])
                latency_ms = (time.perf_counter() - begin) * 1000
                latencies.append(np.full(len(request), latency_ms))
        p_late = np.concatenate(scores)
        return pd.DataFrame(
            {
                "p_late": p_late,
                "late_predicted": (p_late >= THRESHOLD).astype("int8"),
                "latency_ms": np.concatenate(latencies),
            },
            index=rows.index,
        )


def load_flights() -> pd.DataFrame:
    """Read the flights of 2013, with ``day``, the local date, and ``flight_id``, a unique text."""
    import pandas as pd

    flights = pd.read_parquet(_DATA)
    flights["day"] = flights["scheduled_departure"].dt.tz_convert(ZONE).dt.date
    number = flights.groupby("day").cumcount().astype(str).str.zfill(4)
    for column in ("carrier", "origin"):
        number = flights[column].astype(str) + "-" + number
    flights["flight_id"] = flights["day"].astype(str) + "-" + number
    return flights


def train() -> FlightModel:
    """Train the model on the flights of 60 % of the days of January to March.

    Those of the other days, with an outcome, are its validation. The days are split by one random
    permutation, scikit-learn's ``train_test_split`` with seed 0: were the flights split, the model
    would know each validation flight's day by its weather, and flatter itself by .04 of ROC AUC.
    The features are all columns from carrier to visib, in the order of the file, categories as
    stored.
    """
    from sklearn.model_selection import train_test_split

    flights = load_flights()
    known = flights[(flights["day"] < FIRST_DAY) & flights["late"].notna()]
    days = sorted(known["day"].unique())
    taught, held_out = train_test_split(days, train_size=0.6, random_state=0)
    training = known.index[known["day"].isin(taught)]
    validation = known.index[known["day"].isin(held_out)]
    classifier = fit(flights.loc[training].rename(columns={"late": "actual"}))
    model = FlightModel(classifier, flights, validation.sort_values())
    model.serve(flights.head(1))  # the first request pays for imports; users do not see it
    return model


def fit(rows: pd.DataFrame) -> _Classifier:
    """Fit the model.

    Args:
        rows: Flights with the columns `FEATURES`, texts as categories, and ``actual``: late or not.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    classifier = HistGradientBoostingClassifier(
        max_iter=60,
        learning_rate=0.08,
        max_leaf_nodes=15,
        categorical_features="from_dtype",
        random_state=0,
    )
    return cast(_Classifier, classifier.fit(rows[list(FEATURES)], rows["actual"].astype("int8")))


def write_predictions(
    model: FlightModel,
    landing: Path,
    start: dt.date = FIRST_DAY,
    end: dt.date = LAST_DAY + dt.timedelta(days=1),
) -> list[Path]:
    """Serve every flight that departs on the days ``[start, end)``, and log the predictions.

    Args:
        model: The trained model.
        landing: The folder that ``predictions/`` and ``actuals/`` are in.
        start: First local day of departure.
        end: The day after the last one.

    Returns:
        One Parquet file per day with flights, oldest first. A file that is already there is
        kept: what was served was served, and serving it again would take another time.
    """
    paths = []
    for day, rows in _by_day(model.flights, "day", start, end):
        path = landing / "predictions" / f"{day}.parquet"
        if not path.exists():
            _write(_prediction_events(model, rows, "production"), path)
        paths.append(path)
    return paths


def write_actuals(
    landing: Path,
    start: dt.date = FIRST_DAY,
    end: dt.date = LAST_DAY + dt.timedelta(days=2),
) -> list[Path]:
    """Log how the flights in production ended, one Parquet file per local day of landing.

    Cancelled and diverted flights never get an actual. Flights land up to two days after the day
    they were to depart on.

    Args:
        landing: As in `write_predictions`.
        start: First local day of landing.
        end: The day after the last one.

    Returns:
        The files of the days with landings, oldest first; those already there are kept.
    """
    flights = load_flights()
    served = flights[(flights["day"] >= FIRST_DAY) & flights["late"].notna()]
    served = served.assign(landing_day=served["label_time"].dt.tz_convert(ZONE).dt.date)
    warned = _warned(landing)
    paths = []
    for day, rows in _by_day(served, "landing_day", start, end):
        path = landing / "actuals" / f"{day}.parquet"
        if not path.exists():
            _write(_actuals(rows, warned), path)
        paths.append(path)
    return paths


def write_validation(model: FlightModel, landing: Path) -> list[Path]:
    """Log the model's predictions on its validation flights and how those ended.

    Returns:
        One file of predictions, of dataset ``validation``, and one of actuals; kept if there.
    """
    rows = model.flights.loc[model.validation]
    paths = [landing / kind / "validation.parquet" for kind in ("predictions", "actuals")]
    if not paths[0].exists():
        _write(_prediction_events(model, rows, "validation"), paths[0])
    if not paths[1].exists():
        _write(_actuals(rows, _warned(landing, "validation.parquet")), paths[1])
    return paths


def _prediction_events(model: FlightModel, rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    events = rows[["flight_id", "scheduled_departure", *FEATURES]].astype(dict.fromkeys(_TEXT, str))
    events.insert(2, "dataset", dataset)
    events.insert(3, "model_version", MODEL_VERSION)
    return events.join(model.serve(rows))


def _warned(landing: Path, files: str = "*.parquet") -> pd.Series[float]:
    """Return the decision on every flight that was served, by its id."""
    import pandas as pd

    columns = ["flight_id", "late_predicted"]
    paths = sorted((landing / "predictions").glob(files))
    served = [pd.read_parquet(path, columns=columns) for path in paths]
    frame = pd.concat(served) if served else pd.DataFrame(columns=columns)
    return frame.set_index("flight_id")["late_predicted"].astype(float)


def _actuals(rows: pd.DataFrame, warned: pd.Series[float]) -> pd.DataFrame:
    """Return how flights ended, and of their minutes of delay what a warning had covered.

    Only the minutes of flights that came 15 or more minutes late count, which is what the model
    warns of; where nobody knows whether it did, nothing is said of them.
    """
    columns = {"flight_id": "flight_id", "late": "late", "label_time": "landed_at"}
    minutes = rows["arrival_delay"].where(rows["late"] == 1, 0).astype(float)
    was_warned = rows["flight_id"].map(warned)
    return (
        rows[list(columns)]
        .rename(columns=columns)
        .assign(covered_min=minutes * was_warned, missed_min=minutes * (1 - was_warned))
    )


def _by_day(
    frame: pd.DataFrame, column: str, start: dt.date, end: dt.date
) -> Iterator[tuple[dt.date, pd.DataFrame]]:
    within = frame[(frame[column] >= start) & (frame[column] < end)]
    for day, rows in within.groupby(column, sort=True):
        yield cast(dt.date, day), rows


def _write(frame: pd.DataFrame, path: Path) -> None:
    """Write a Parquet file that is complete from the moment it can be seen."""
    with whole_file(path) as draft:
        frame.to_parquet(draft, index=False)
