"""A day whose rows repeat others under new ids."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlmon_dagster.families.newest_windows import RepeatedRows
from mlmon_dagster.metrics.statistics import ColumnStatistics, count_whole
from mlmon_dagster.metrics.windows.repeats import CELLS
from mlmon_dagster.pipeline.why import describe_repeats
from mlmon_dagster.profiles.bin_shapes import row_binning
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.names import ROWS
from mlmon_dagster.store import Store
from mlmon_dagster.work import Work
from tests.conftest import make_events, make_spec, window
from tests.pipeline.test_silence import FIRST, Desk, land
from tests.pipeline.test_silence import SPEC as DESK

SPEC = make_spec()
DAYS = [f"2024-03-0{day}" for day in range(1, 9)]


def describe(store: Store, last: list[pa.Table], rounded: bool = False) -> str:
    """Store seven days, and one of the given rows; describe it."""
    days = [make_events(SPEC, day, 60, seed=place)[0] for place, day in enumerate(DAYS[:-1])]
    rows = pa.concat_tables([*days, *last])
    if rounded:
        ages = pa.array([float(age > 40) for age in rows["age"].to_pylist()])
        rows = rows.set_column(rows.column_names.index("age"), "age", ages)
    store.event_log(SPEC).append("predictions", rows, ["p"])
    windows = [window(SPEC, day) for day in DAYS]
    store.inference_records(SPEC).rebuild(windows)
    now = dt.datetime(2024, 3, 9, tzinfo=dt.UTC)
    work = SimpleNamespace(spec=SPEC, project=SimpleNamespace(store=store), now=now)
    return describe_repeats(cast("Work", work), windows[-1])


def repeat(day: int, prefix: str) -> pa.Table:
    """Return the rows of a day again, on the last one, under new ids."""
    rows, _ = make_events(SPEC, DAYS[-1], 60, seed=day, prefix=prefix)
    return rows


@pytest.mark.parametrize("rounded", [False, True])
def test_healthy_days_repeat_none_or_as_many_as_usual(store: Store, rounded: bool) -> None:
    assert describe(store, [repeat(7, "")], rounded) == ""


def test_rows_of_another_day_are_seen_and_the_day_is_named(store: Store) -> None:
    said = describe(store, [repeat(7, ""), repeat(2, "again-")])
    assert said == "50 % of the rows repeat rows of 3 March under new ids, usually 0 %"


def test_rows_that_come_twice_are_seen(store: Store) -> None:
    said = describe(store, [repeat(7, ""), repeat(7, "b-"), repeat(7, "c-")])
    assert said == "66.7 % of the rows repeat others of this window under new ids, usually 0 %"


@pytest.mark.slow
def test_yesterday_sent_again_is_a_warning_that_says_so(tmp_path: Path) -> None:
    """Files, tables and verdicts: features of the day before, under other ids."""
    desk = Desk(tmp_path)
    desk.land_weekdays(dt.date(2024, 1, 15), dt.date(2024, 2, 23), "validation")
    days = pd.date_range(FIRST, periods=17)
    for day in days:
        land(desk, day.date())
    drawn = np.random.default_rng(days[-2].toordinal())
    again = pd.DataFrame(
        {
            "id": [f"again{i}" for i in range(40)], "dataset": "production",
            "at": days[-1].tz_localize("Europe/Berlin") + pd.Timedelta(hours=9),
            "p": drawn.normal(size=40), "age": drawn.normal(40, 9, 40),
        }
    )  # fmt: skip
    desk.land("predictions", "again", again)
    desk.look_at("2024-03-21T06:00:00+01:00")

    newest = desk.newest("service")
    found = newest[newest["status"] != "OK"]
    assert found["monitor"].tolist() == ["service/volume_rise"]
    assert found["status"].tolist() == ["WARN"]
    assert found["message"].iloc[0] == "80 predictions, usually 40 on Wednesdays: twice as many."
    assert json.loads(found["details"].iloc[0])["why"] == (
        "50 % of the rows repeat rows of 19 March under new ids, usually 0 %"
    )


def land_day(
    desk: Desk, day: dt.date, of: dt.date | None = None, dataset: str = "production"
) -> None:
    """Land 150 rows of a day, with the features of another day if one is named."""
    rng = np.random.default_rng((of or day).toordinal())
    opens = pd.Timestamp(day, tz="Europe/Berlin") + pd.Timedelta(hours=8)
    frame = pd.DataFrame(
        {
            "id": [f"{dataset}{day}{i}" for i in range(150)], "dataset": dataset,
            "at": opens + pd.to_timedelta(np.arange(150), unit="m"),
            "p": rng.normal(size=150), "age": rng.normal(40, 9, 150),
            "shop": "north" if of == day else rng.choice(["north", "south"], 150),
        }
    )  # fmt: skip
    desk.land("predictions", f"{dataset}{day}", frame)


SHOPS = DESK.replace("age: {type: numeric}", "age: {type: numeric}\n  shop: {type: categorical}")


@pytest.mark.slow
@pytest.mark.parametrize("has_baseline", [pytest.param(True, marks=pytest.mark.proof), False])
def test_yesterday_instead_of_today_is_told_though_nothing_else_changed(
    tmp_path: Path, has_baseline: bool
) -> None:
    spec = SHOPS if has_baseline else SHOPS.replace("dataset: dataset, ", "")
    desk = Desk(tmp_path, spec)
    for day in pd.date_range("2024-01-15", "2024-02-10") if has_baseline else ():
        land_day(desk, day.date(), dataset="validation")
    days = [day.date() for day in pd.date_range(FIRST, periods=24)]
    for place, day in enumerate(days):
        land_day(desk, day, days[place - 2] if place == 22 else None)
    desk.look_at("2024-03-28T06:00:00+01:00")

    newest = desk.newest("drift")
    found = newest[(newest["status"] != "OK") & (newest["status"] != "NO_DATA")]
    assert found["monitor"].tolist() == ["drift/repeated_rows"]
    row = found.iloc[0]
    assert (row["status"], row["k"], row["of_n"]) == ("WARN", 1, 1)
    assert row["window_start"].tz_convert("Europe/Berlin").date() == days[22]
    assert row["message"] == (
        "Rows of 24 March came again under new ids.\nSimilarity to the rows of 24 March is 1.00 "
        "(1 is the same rows); days as far apart have 0.00 on average, and 0.10 more fails (n 150)."
    )
    assert json.loads(row["details"]) == {
        "measured": "",
        "why": "100 % of the rows repeat rows of 24 March under new ids, usually 0 %",
    }
    judged = newest[newest["monitor"] == "drift/repeated_rows"]
    assert len(judged) == (24 - 6 if has_baseline else 24 - 9)


@pytest.mark.slow
def test_a_column_of_one_value_is_noted_beside_its_other_verdicts(tmp_path: Path) -> None:
    desk = Desk(tmp_path, SHOPS)
    for day in pd.date_range("2024-01-15", "2024-02-10"):
        land_day(desk, day.date(), dataset="validation")
    first, last = FIRST, FIRST + dt.timedelta(days=1)
    land_day(desk, first)
    land_day(desk, last, last)
    desk.look_at("2024-03-06T06:00:00+01:00")
    newest = desk.newest("quality")
    shop = newest[newest["monitor"] == "quality/unseen_rate/shop"].sort_values("window_start")
    assert [json.loads(text).get("beside") for text in shop["details"]] == [None, ["constant"]]


@pytest.mark.slow
@pytest.mark.parametrize("has_baseline", [pytest.param(True, marks=pytest.mark.proof), False])
def test_first_days_are_judged_alike_day_by_day_and_all_at_once(
    tmp_path: Path, has_baseline: bool
) -> None:
    """From the seventh day on, however many of them a look computes."""
    days = [day.date() for day in pd.date_range(FIRST, periods=8)]
    found = {}
    for name, looks in (("by day", days), ("at once", days[-1:])):
        desk = Desk(tmp_path / name, SHOPS)
        for day in pd.date_range("2024-01-15", "2024-02-10") if has_baseline else ():
            land_day(desk, day.date(), dataset="validation")
        for place, day in enumerate(days):
            land_day(desk, day, days[place - 1] if place == 6 else None)
            if day in looks:
                desk.look_at(f"{day + dt.timedelta(days=1)}T06:00:00+01:00")
        key = ["monitor", "slice_key", "slice_value", "window_start"]
        verdicts = desk.newest("drift").set_index(key).sort_index()
        found[name] = verdicts[["status", "reason", "value", "p_value", "n"]]

    pd.testing.assert_frame_equal(found["by day"], found["at once"])
    repeated = found["by day"].loc["drift/repeated_rows"]["status"].tolist()
    assert repeated == (["WARN", "OK"] if has_baseline else ["NO_DATA"] * 2)


def profile_rows(days: pd.DatetimeIndex) -> dict[str, ColumnStatistics]:
    """Profile the rows of days, of which every fourth row is one of two hundred."""
    counts = np.zeros((len(days), CELLS), np.int64)
    for place, day in enumerate(days):
        rng = np.random.default_rng(day.toordinal())
        cells = np.concatenate([rng.integers(0, CELLS, 300), rng.integers(0, 200, 100)])
        counts[place] = np.bincount(cells, minlength=CELLS)
    cells = pd.DataFrame({"window_start": days, "dataset": PRODUCTION, "model_version": "1"})
    binning = row_binning(ROWS, CELLS, ["a"])
    return {ROWS: count_whole(binning, cells, counts, counts.sum(axis=1))}


@pytest.mark.parametrize("baseline", ["moving", "that stays"])
def test_days_before_that_are_only_read_for_others_are_compared_with_none(baseline: str) -> None:
    """A look at many days reads more days before the last than a look at that one alone."""
    weekly = baseline == "that stays"  # days on which nothing comes lie between
    days = pd.date_range("2024-01-01", periods=40, freq="W-MON" if weekly else "B", tz="UTC")
    last, month = days[-1], days[days >= days[-1] - pd.Timedelta(days=27)]
    own = SimpleNamespace(windows=profile_rows(pd.date_range("2023-01-01", periods=30, tz="UTC")))
    spec = make_spec() if weekly else make_spec(baseline={"moving": "28d"})

    def find(read_days: pd.DatetimeIndex) -> object:
        profiles = profile_rows(read_days)
        known = cast("Any", own if weekly else None)
        return RepeatedRows(spec, lambda start: (profiles, last.to_pydatetime()), known)(last)

    alone = find(month)
    assert alone is not None
    assert find(days) == alone
