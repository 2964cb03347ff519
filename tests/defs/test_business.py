"""What predictions were worth is measured, judged and traced, of models that declare it alone."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from mlmon_dagster.alerts.messages.digest import compose_digest
from mlmon_dagster.report.health import health_report
from mlmon_dagster.report.trace import trace_of
from mlmon_dagster.spec import Window
from mlmon_dagster.tables.periods import business_line
from tests.defs.small_model import DAYS, MODEL, customers, drop, landing, write_declaration
from tests.defs.worlds import World, opened

pytestmark = pytest.mark.slow

GOOD, BAD = DAYS[0], DAYS[1]
MOMENT = dt.datetime(2024, 3, 3, 12, tzinfo=dt.UTC)
COSTS = {"tp": -50.0, "fp": 5.0, "fn": 0.0, "tn": 0.0}
Frames = tuple[pd.DataFrame, pd.DataFrame]


def declare(folder: Path, **more: object) -> None:
    write_declaration(folder)
    path = folder / "models" / f"{MODEL}.yaml"
    declared = yaml.safe_load(path.read_text())
    declared["columns"]["outcomes"] = {"revenue": {"column": "revenue", "unit": "EUR"}}
    monitor = {"change": "20%", "windows": "1 of 1"}
    declared["monitors"]["business"] = monitor
    declared["currency"] = "EUR"
    path.write_text(yaml.safe_dump({**declared, **more}, sort_keys=False))


def paying(day: dt.date, dataset: str = "production") -> Frames:
    """Return customers who pay 100 on average; on the bad day those in the west pay nothing.

    A tenth of them never tells what it paid.
    """
    predictions, truths = customers(day, dataset)
    paid = np.random.default_rng(day.toordinal()).normal(100, 20, len(truths))
    paid[(predictions["region"] == "west") & (day == BAD) & (dataset == "production")] = 0
    paid[::10] = np.nan
    return predictions, truths.assign(revenue=paid)


def land(folder: Path, name: str, *parts: Frames) -> None:
    for stream, frames in zip(("predictions", "actuals"), zip(*parts, strict=True), strict=True):
        drop(pd.concat(frames), landing(folder, stream) / f"{name}.parquet")


def land_all(folder: Path) -> None:
    first = dt.date(2024, 2, 1)
    land(
        folder, "baseline", *(paying(first + i * dt.timedelta(1), "validation") for i in range(20))
    )
    for day in (GOOD, BAD):
        land(folder, f"{day}", paying(day))


def worth(world: World, day: dt.date, metric: str) -> pd.DataFrame:
    frame = world.metrics(day)
    return frame[frame["metric"] == metric].set_index(["slice_key", "slice_value"])


def test_a_day_that_earned_less_fails_with_its_numbers_and_the_trace_names_who_paid_less(
    tmp_path: Path,
) -> None:
    declare(tmp_path, costs=COSTS)
    land_all(tmp_path)
    with opened(tmp_path, MOMENT) as world:
        assert world.launcher.materialize(world.spec, ("event_log", "baseline")).is_success
        report = world.compute([GOOD, BAD])
        assert report.is_success, report.errors

        for day in (GOOD, BAD):
            predictions, truths = paying(day)
            found = worth(world, day, "mean_outcome")
            assert found.loc[("all", "all"), "value"] == pytest.approx(truths["revenue"].mean())
            assert found.loc[("all", "all"), "n"] == truths["revenue"].notna().sum()
            west = truths.loc[(predictions["region"] == "west").to_numpy(), "revenue"]
            assert found.loc[("region", "west"), "value"] == pytest.approx(west.mean())
            cases = predictions["decision"].to_numpy() * 2 + truths["left"].to_numpy()
            names = np.array(["tn", "fn", "fp", "tp"])[cases]
            gained = -np.mean([COSTS[name] for name in names])
            value = worth(world, day, "expected_value").loc[("all", "all"), "value"]
            assert value == pytest.approx(gained)

        [good], [bad] = (world.verdicts("business", day).to_dict("records") for day in (GOOD, BAD))
        assert (good["status"], bad["status"]) == ("OK", "WARN")
        assert bad["monitor"] == "business/mean_outcome/revenue"
        assert "lower than the usual 99.9" in bad["message"]
        money = json.loads(bad["details"])["money"].split("; ")[0]
        lost = 150 * 0.9 * (100 - bad["value"])
        assert money.startswith("revenue is 2")
        assert "EUR less" in money
        assert money.endswith("mostly region = west")
        assert float(money.split("about ")[1].split()[0].replace(",", "")) == pytest.approx(
            lost, rel=0.1
        )
        checks = world.evaluations("business_impact", "business")
        assert {day: record.status.value for day, record in checks.items()} == {
            str(GOOD): "SUCCEEDED",
            str(BAD): "FAILED",
        }

        window = next(w for w in plan_windows(world) if w.key == str(BAD))
        trace = trace_of(world.project.store, world.spec, (window.start, window.end)).slices
        own = trace[trace["metric"] == "mean_outcome/revenue"].set_index(
            ["slice_key", "slice_value"]
        )
        assert set(own["method"]) == {"exact"}
        assert own.loc[("region", "west"), "share"] > 0.8
        assert own.loc["region", "effect"].sum() == pytest.approx(
            own.loc[("all", "all"), "change"], abs=1e-9
        )
        end = window.end
        said = business_line(world.project.store, world.spec, window.start, end)
        assert "revenue is" in said
        told = compose_digest(
            world.project.store, [world.spec], "weekly", end, lambda *_: "what was worth it"
        )
        assert [item.numbers.endswith("what was worth it") for item in told.items] == [True]
        html = health_report(world.project.store, world.spec, MOMENT).html
        assert ">Business</h2>" in html
        assert "Mean outcome" in html
        assert ">From serving to business</h2>" in html
        assert "Business: Mean outcome of revenue" in html
        assert "Expected value" in html


def plan_windows(world: World) -> list[Window]:
    from tests.defs.small_model import windows_of_days

    return windows_of_days(world.spec, [GOOD, BAD])
