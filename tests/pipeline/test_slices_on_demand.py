"""Numbers of slices that no monitor judges: not stored, measured when somebody asks."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.monitors.wording import explain
from mlmon_dagster.profiles import load_baseline
from mlmon_dagster.project import Project
from mlmon_dagster.report.curves import Asked, Curves
from mlmon_dagster.spec import ModelSpec, load_model
from mlmon_dagster.store.state import metric_log, monitor_results
from mlmon_dagster.tables.metrics import query_metrics
from tests.defs.small_model import (
    FIRST,
    MODEL,
    NOW,
    customers,
    drop,
    land_validation,
    landing,
    make_project,
    write_declaration,
)
from tests.pipeline.looking import look

pytestmark = pytest.mark.slow

DAYS = tuple(FIRST + dt.timedelta(days=i) for i in range(10))
GONE = DAYS[6]  # the west sends no balance any more
OLDER, ALL_OLDER = DAYS[7], DAYS[8]  # customers of the south, and of all regions
KEY = ["window_start", "slice_value", "column_name", "metric"]
NUMBERS = ["value", "lower", "upper", "by_chance", "p_value", "n", "n_baseline", "reason"]
ORIGIN = ["method_version", "baseline_id", "baseline_kind", "data_version", "maturity"]


def lived(folder: Path, **changes: object) -> tuple[Project, ModelSpec]:
    write_declaration(folder)
    path = folder / "models" / f"{MODEL}.yaml"
    declared = yaml.safe_load(path.read_text())
    declared["monitors"] |= changes.pop("monitors", {})
    path.write_text(yaml.safe_dump(declared | changes, sort_keys=False))
    spec = load_model(path)
    land_validation(folder)
    both = [customers(day, n=400) for day in DAYS]
    served, known = (pd.concat(frames) for frames in zip(*both, strict=True))
    is_gone = served["region"].eq("west") & served["id"].str.startswith(f"p{GONE:%m%d}")
    served.loc[is_gone, "balance"] = np.nan
    day = served["id"].str[1:5]
    served.loc[(day == f"{OLDER:%m%d}") & (served["region"] == "south"), "age"] += 30
    served.loc[day == f"{ALL_OLDER:%m%d}", "age"] += 15
    drop(served, landing(folder, "predictions") / "p.parquet")
    drop(known, landing(folder, "actuals") / "a.parquet")
    project = make_project(folder)
    look(project, spec, "run")
    return project, spec


def stored(project: Project, **wanted: object) -> pd.DataFrame:
    return metric_log.newest(project.store.state, MODEL, **wanted)


@pytest.mark.parametrize(
    "baseline",
    [{}, pytest.param({"moving": "6d"}, marks=pytest.mark.proof)],
    ids=["fixed", "moving"],
)
def test_distances_measured_when_asked_are_those_that_a_monitor_of_slices_has_stored(
    tmp_path: Path, baseline: dict[str, str]
) -> None:
    drift = {"above": 0.25, "windows": "1 of 1", "min_rows": 30}
    drift |= {"baseline": baseline} if baseline else {}
    asked, spec = lived(tmp_path / "asked", monitors={"drift": drift})
    judged, sliced = lived(tmp_path / "judged", monitors={"drift": drift | {"slices": True}})
    wanted = {"metric": ("psi",), "slice_": "region"}

    now, before = query_metrics(asked, spec, **wanted), query_metrics(judged, sliced, **wanted)

    assert stored(asked, metric="psi", slice_key="region").empty
    assert len(stored(judged, metric="psi", slice_key="region")) == len(before)
    assert now["value"].notna().sum() > 40
    one, other = (frame.set_index(KEY)[NUMBERS + ORIGIN].sort_index() for frame in (now, before))
    pd.testing.assert_frame_equal(one, other, check_dtype=False, check_index_type=False, rtol=1e-12)
    # Where slices were judged once, what was stored then is there once.
    again = query_metrics(judged, spec, **wanted).set_index(KEY)[NUMBERS].sort_index()
    pd.testing.assert_frame_equal(again, one[NUMBERS], check_dtype=False, check_index_type=False)
    alone = query_metrics(asked, spec, metric=("psi",), column=("age",), slice_="region=west")
    mine = now[now["column_name"].eq("age") & now["slice_value"].eq("west")]
    pd.testing.assert_frame_equal(alone[NUMBERS], mine[NUMBERS].reset_index(drop=True))
    for project in (asked, judged):
        project.store.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, ModelSpec]:
    return lived(tmp_path_factory.mktemp("world"))


def test_shares_are_those_of_the_rows_of_a_slice(world: tuple[Project, ModelSpec]) -> None:
    project, spec = world
    found = query_metrics(
        project, spec, metric=("null_rate",), column=("balance",), slice_="region"
    )
    shares = found.pivot(index="window", columns="slice_value", values="value")
    assert shares.loc[f"{GONE}", "west"] == 1.0
    assert shares.drop(f"{GONE}").to_numpy().max() == 0.0
    sizes = {
        day: customers(day, n=400)[0]["region"].value_counts().to_dict() for day in (DAYS[0], GONE)
    }
    for day, mine in sizes.items():
        rows = found[found["window"] == f"{day}"].set_index("slice_value")["n"]
        assert rows.to_dict() == mine
    assert stored(project, metric="null_rate", slice_key="region").empty


def test_a_failed_share_names_the_slice_that_it_is_of(world: tuple[Project, ModelSpec]) -> None:
    project, _ = world
    rows = monitor_results.newest(project.store.state, MODEL, family="quality")
    failed = rows[(rows["status"] == "WARN") & (rows["column_name"] == "balance")]
    assert len(failed) == 1
    message, details = failed["message"].iloc[0], json.loads(failed["details"].iloc[0])
    n = customers(GONE, n=400)[0]["region"].eq("west").sum()
    assert f"All of these {n} rows have region = west, where it is 100 %." in message
    [worst] = details["worst_slices"]
    assert (worst["slice_value"], worst["count"]) == ("west", n)


def test_drift_names_the_slice_that_carries_it_and_none_where_all_have_it(
    world: tuple[Project, ModelSpec],
) -> None:
    project, spec = world
    rows = monitor_results.newest(project.store.state, MODEL, family="drift")
    failed = rows[(rows["status"] == "WARN") & (rows["monitor"] == "drift/psi/age")]
    days = failed["window_start"].dt.tz_convert(spec.time.zone).dt.date
    assert list(days) == [OLDER, ALL_OLDER]
    one, other = (json.loads(details) for details in failed["details"])
    part = customers(OLDER, n=400)[0]["region"].eq("south").mean()
    carried = one["carried_by"]
    assert (carried["key"], carried["values"], carried["is_mix"]) == ("region", ["south"], False)
    assert carried["rows"] == pytest.approx(part)
    [line] = explain("psi", "age", one)
    which = rf"region = south, which {100 * part:.3g} % of the rows have"
    assert re.fullmatch(rf"\d\d(\.\d)? % of the change of age is in {which}", line)
    assert "carried_by" not in other


def test_what_is_of_ground_truth_is_stored_of_every_slice(
    world: tuple[Project, ModelSpec],
) -> None:
    project, spec = world
    areas = stored(project, metric="roc_auc", slice_key="region")
    assert len(areas) == 3 * len(DAYS)
    every = query_metrics(project, spec, metric=("roc_auc",), slice_="*")
    assert len(every) == 4 * len(DAYS)
    past = query_metrics(project, spec, metric=("roc_auc",), slice_="region", as_of=NOW)
    assert len(past) == len(areas)
    with pytest.raises(ConfigError, match="quality and drift of slices"):
        query_metrics(project, spec, slice_="region", as_of=NOW)


def test_longer_windows_and_pages_of_a_slice_have_its_columns_too(
    world: tuple[Project, ModelSpec],
) -> None:
    project, spec = world
    month = query_metrics(project, spec, metric=("psi",), slice_="region", granularity="month")
    assert set(month["slice_value"]) == {"north", "south", "west"}
    whole = query_metrics(project, spec, metric=("psi",), granularity="month")
    assert set(whole["slice_key"]) == {"all"}

    baseline = load_baseline(project.store, spec)
    west = Asked(slice_key="region", slice_value="west")
    curves = Curves(project.store, spec, baseline, [], NOW, west)
    [nulls] = curves.null_rates()
    assert nulls.values == [float(day == GONE) for day in DAYS]
    known = query_metrics(project, spec, metric=("psi",), column=("age",), slice_="region=west")
    beyond = known["value"] - known["by_chance"]
    assert curves.drifts()["age"].values == pytest.approx(beyond.tolist(), abs=1e-12)
