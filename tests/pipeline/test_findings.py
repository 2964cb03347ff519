"""What a feature holds is found, counted and judged; it never keeps a window from being judged."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.scaffold.proposal import propose
from mlmon_dagster.store.state import manifest
from tests.pipeline.looking import Place

FIRST = dt.date(2026, 1, 1)
DAY = dt.timedelta(days=1)
ROWS = 400
BEFORE, DAYS = 20, 14  # of the baseline, and of production


class Shop(Place):
    """A model with the spec that init writes from its first three days; one folder, one clock."""

    def __init__(self, folder: Path) -> None:
        self.landing = folder / "landing" / "shop" / "predictions"
        self.landing.mkdir(parents=True)
        past = pd.concat([orders(day, "validation") for day in range(-BEFORE, 0)])
        files = [self.drop("validation", past)]
        files += [self.drop(f"{day:03d}", orders(day)) for day in range(3)]
        text = propose(folder, files, "shop", "UTC", "team:shop", at(3, 6))
        super().__init__(folder, re.sub(r"/\*\.csv(?=[,}])", "/*.csv, settle: 0s", text), at(3, 6))

    def drop(self, name: str, frame: pd.DataFrame) -> Path:
        path = self.landing / f"{name}.csv"
        frame.to_csv(path.with_suffix(".tmp"), index=False)
        return path.with_suffix(".tmp").rename(path)

    def live(self, change: Any = None) -> None:
        """Live all days, those after init's changed, and look at them on the morning after."""
        for day in range(3, 3 + DAYS):
            frame = orders(day)
            self.drop(f"{day:03d}", frame if change is None else change(frame, day))
        self.now = at(3 + DAYS, 6)
        self.look()

    def verdicts(self, family: str) -> pd.DataFrame:
        """Return the newest verdicts of the changed days."""
        found = self.newest(family)
        return found[found["window_start"] >= at(3)]

    def files(self, *status: str) -> pd.DataFrame:
        return manifest.load_files_frame(self.project.store.state, "shop", status=status or None)


def at(day: int, hour: int = 0) -> dt.datetime:
    return dt.datetime.combine(FIRST, dt.time(), dt.UTC) + day * DAY + dt.timedelta(hours=hour)


def orders(day: int, dataset: str = "production") -> pd.DataFrame:
    rng = np.random.default_rng([day + 100, len(dataset)])
    basket = rng.lognormal(3, 0.6, ROWS).round(2)
    age = rng.normal(40, 10, ROWS).clip(18, 90).round()
    score = 1 / (1 + np.exp(-(np.log(basket) - 3) - (age - 40) / 20))
    times = pd.Timestamp(at(day)) + pd.to_timedelta(np.sort(rng.uniform(0, 24, ROWS)), unit="h")
    return pd.DataFrame(
        {
            "order_id": [f"{dataset[0]}{day}-{i}" for i in range(ROWS)],
            "scored_at": [moment.isoformat() for moment in times],
            "dataset": dataset,
            "score": score.round(6),
            "returned": (rng.random(ROWS) < score).astype(int),
            "basket": basket,
            "age": age,
            "channel": rng.choice(["web", "app", "shop"], ROWS, p=[0.5, 0.3, 0.2]),
        }
    )


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def nulls_of_the_shop(frame: pd.DataFrame, day: int) -> pd.DataFrame:
    """Take the age of 5 % of the rows away, all of one channel."""
    rng = np.random.default_rng([day, 7])
    rows = rng.choice(frame.index[frame["channel"] == "shop"], ROWS // 20, replace=False)
    return frame.assign(age=frame["age"].where(~frame.index.isin(rows)))


@pytest.mark.slow
def test_14_days_with_5_percent_nulls_are_all_monitored_and_the_null_share_names_the_slice(
    shop: Shop,
) -> None:
    assert not shop.spec.features["age"].nullable, "no null was seen"
    shop.live(nulls_of_the_shop)

    assert set(shop.files()["status"]) == {"done"}
    assert shop.files()["n_bad"].sum() == 0
    assert set(shop.verdicts("schema")["status"]) == {"OK"}
    freshness = shop.verdicts("freshness").set_index("metric")
    assert set(freshness.loc["no_data_for", "status"]) == {"OK"}
    for family in ("drift", "performance"):
        found = shop.verdicts(family)
        mine = found[found["slice_key"] == "all"]
        assert mine["window_start"].nunique() == DAYS
        assert set(mine["status"]) <= {"OK", "WARN"}, family
    quality = shop.verdicts("quality")
    failing = quality[quality["status"] != "OK"]
    assert set(failing["monitor"]) == {"quality/null_rate/age"}
    assert failing["window_start"].nunique() == DAYS
    assert failing["value"].unique().tolist() == [0.05]
    for message in failing["message"]:
        assert "All of these 20 rows have channel = shop" in message


@pytest.mark.slow
def test_while_a_file_is_refused_freshness_points_at_it_and_once_it_is_mended_is_fine(
    shop: Shop,
) -> None:
    last = 4
    shop.drop("003", orders(3))
    scores = orders(last)["score"].astype(str)
    shop.drop("004", orders(last).assign(score=scores.where(scores.index % 2 == 0, "high")))
    shop.now = at(last + 2, 6)
    shop.look()

    def said() -> pd.Series:
        found = shop.newest("freshness")
        found = found[found["window_start"] == at(last)]
        return found.set_index("metric").loc["no_data_for"]

    assert list(shop.files("quarantined")["path"]) == ["landing/shop/predictions/004.csv"]
    assert (said()["status"], said()["reason"]) == ("NO_DATA", "files_refused")
    assert "landing/shop/predictions/004.csv: 200 of 400 rows cannot be stored" in said()["message"]
    assert "No prediction" not in said()["message"]

    shop.drop("004-mended", orders(last))
    shop.look()
    assert said()["status"] == "OK"
