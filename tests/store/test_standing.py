"""What stands of a model, against all its verdicts gone through one by one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.baseline import GRAINS
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import schema
from mlmon_dagster.store.state.monitor_results import PIPELINE, load_standing, worst_of
from tests.alerts.worlds import DAY, day, observe, result, spec_of

WAITS = "labels_still_coming"
FAMILIES = ("schema", "drift", "quality", "performance")
Row = dict[str, Any]


def failed_run(when: dt.datetime, status: str = "ERROR", kind: str = "run") -> Row:
    return result(
        1, status, family=PIPELINE, metric=f"failed_{kind}", monitor=f"pipeline/{kind}",
        column_name=":table", window_start=when, window_end=when, granularity="",
        data_version=f"{when}", message="A run failed: disk full" if status == "ERROR" else "",
        reason="",
    )  # fmt: skip


def statuses(store: Store, now: dt.datetime) -> dict[str, set[tuple[dt.datetime, str]]]:
    found: dict[str, set[tuple[dt.datetime, str]]] = {}
    for row in load_standing(store.state, [spec_of()], now)["credit"]:
        found.setdefault(row["family"], set()).add((row["window_start"], row["status"]))
    return found


@pytest.mark.parametrize("granularity", ["hour", "week", "month"])
def test_forty_windows_are_as_long_as_the_windows_are(any_store: Store, granularity: str) -> None:
    length = GRAINS[granularity]
    for number, status in ((0, "ERROR"), (40, "NO_DATA"), (41, "NO_DATA")):
        start = day(1) + number * length
        observe(
            any_store,
            result(
                1, status, granularity=granularity, window_start=start, window_end=start + length
            ),
        )
        expected = status if number == 41 else "ERROR"
        assert [row["status"] for row in rows_of_view(any_store)] == [expected]
        assert {said for _, said in statuses(any_store, day(9999))["drift"]} == {expected}


def test_windows_that_wait_for_ground_truth_hide_no_verdict_however_many(any_store: Store) -> None:
    """Of daily windows whose ground truth takes 60 days the newest verdict is 60 windows old."""
    about = {"family": "performance", "reason": ""}
    waits = about | {"reason": WAITS}
    rows = [result(1, "ERROR", **about)]
    rows += [result(number, "NO_DATA", **waits) for number in range(2, 62)]
    observe(any_store, *rows)
    assert statuses(any_store, day(99)) == {"performance": {(day(1), "ERROR")}}

    # A monitor that waits beside one that need not.
    observe(any_store, result(61, "OK", **about, column_name="plan"))
    assert statuses(any_store, day(99))["performance"] == {(day(1), "ERROR"), (day(61), "OK")}
    assert {row["family_status"] for row in rows_of_view(any_store)} == {"ERROR"}


def draw_history(rng: np.random.Generator, model: str) -> list[Row]:
    """Draw verdicts of up to 200 days: judged again, with gaps, slices, datasets and failures."""
    rows: list[Row] = []
    number = 1
    for _ in range(int(rng.integers(1, 5))):
        waiting = rng.random() < 0.3
        for _ in range(int(rng.integers(1, 46))):
            number += 1
            for family in FAMILIES:
                if rng.random() < 0.3:
                    continue
                is_late = family == "performance" and rng.random() < 0.7
                likely = [0, 0, 0, 1] if waiting or is_late else [0.5, 0.2, 0.2, 0.1]
                for version in range(int(rng.integers(1, 3))):
                    for column in ("age", "plan"):
                        key, dataset = (
                            ("all", "production") if rng.random() < 0.7 else ("o", "shadow")
                        )
                        status = str(rng.choice(["OK", "WARN", "ERROR", "NO_DATA"], p=likely))
                        is_waiting = is_late and status == "NO_DATA" and rng.random() < 0.5
                        rows.append(
                            result(
                                number, status, reason=WAITS if is_waiting else "",
                                model=model, family=family, column_name=column,
                                slice_key=key if rng.random() < 0.9 else "o", dataset=dataset,
                                data_version=f"{version}",
                            )
                        )  # fmt: skip
            if rng.random() < 0.05:
                status, kind = rng.choice(["OK", "ERROR"]), str(rng.choice(["run", "check"]))
                rows.append({**failed_run(day(number), str(status), kind), "model": model})
        number += int(rng.choice([0, 3, 40, 41, 80, 81]))
    return rows


def expected_standing(rows: Sequence[Row], model: str, now: dt.datetime) -> set[tuple[Any, ...]]:
    """Go through the verdicts in the order in which they were written."""
    last: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        is_mine = row["model"] == model and row["dataset"] == "production"
        if is_mine and row["family"] != PIPELINE and row["window_start"] < now:
            same = ("family", "monitor", "slice_key", "slice_value", "window_start")
            last[tuple(row[name] for name in same)] = row
    found: set[tuple[Any, ...]] = set()
    for family in FAMILIES:
        mine = [row for row in last.values() if row["family"] == family]
        mine_at: dict[str, dt.datetime] = {}
        whole = [row for row in mine if row["slice_key"] == "all"]
        if not whole:
            continue
        newest = max(row["window_start"] for row in whole)
        waits = any(r["reason"] == WAITS for r in whole if r["window_start"] == newest)
        judged = [
            row["window_start"]
            for row in whole
            if row["status"] != "NO_DATA" and (waits or row["window_start"] >= newest - 40 * DAY)
        ]
        chosen = max(judged, default=newest)
        for row in whole:
            if row["window_start"] != chosen:
                continue
            own = [
                one["window_start"]
                for one in whole
                if one["monitor"] == row["monitor"]
                and one["status"] != "NO_DATA"
                and one["window_start"] <= chosen
                and (row["reason"] == WAITS or chosen - 40 * DAY <= one["window_start"])
            ]
            mine_at[row["monitor"]] = max(own, default=chosen) if judged else chosen
        found |= {
            identity(row)
            for row in mine
            if row["window_start"] == mine_at.get(row["monitor"], chosen)
        }
    failures: dict[str, Row] = {}
    for row in rows:
        if row["model"] == model and row["family"] == PIPELINE:
            known = failures.get(row["monitor"])
            if known is None or row["window_start"] >= known["window_start"]:
                failures[row["monitor"]] = row
    return found | {identity(row) for row in failures.values() if row["status"] != "OK"}


def identity(row: Any) -> tuple[Any, ...]:
    names = ("family", "monitor", "slice_key", "window_start", "status", "data_version")
    return tuple(row[name] for name in names)


@pytest.mark.parametrize("seed", range(6))
def test_what_stands_is_what_all_verdicts_gone_through_say(any_store: Store, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = ("credit", "churn", "fraud")
    specs: list[ModelSpec] = [spec_of(name) for name in names]
    written = [row for name in names for row in draw_history(rng, name)]
    written = list({written_once(row): row for row in reversed(written)}.values())[::-1]
    for row in written:
        row["window_end"] = row["window_start"] + DAY * (row["family"] != PIPELINE)
    for place in range(0, len(written), 400):
        observe(any_store, *written[place : place + 400])
    seen = rows_of_view(any_store)
    for name in names:
        expected = expected_standing(written, name, day(400))
        assert {identity(row) for row in seen if row["model"] == name} == expected
        for family in {row["family"] for row in seen}:
            rows = [row for row in seen if (row["model"], row["family"]) == (name, family)]
            assert {row["family_status"] for row in rows} <= {worst_of(rows)}
    assert {row["model"] for row in seen} == set(names)
    for now in (day(400), day(int(rng.integers(20, 200)))):
        found = load_standing(any_store.state, specs, now)
        for name in names:
            expected = expected_standing(written, name, now)
            assert {identity(row) for row in found[name]} == expected
            assert len(found[name]) == len(expected)
            whole = [row["slice_key"] == "all" for row in found[name]]
            assert whole == sorted(whole, reverse=True)


def rows_of_view(store: Store) -> list[Any]:
    """Return what the view says that dashboards read."""
    with store.state.connect() as conn:
        return list(conn.execute(sa.select(schema.mlmon_standing)).mappings())


def written_once(row: Row) -> tuple[Any, ...]:
    names = ("model", "monitor", "dataset", "slice_key", "window_start", "data_version")
    return tuple(row[name] for name in names)
