"""Features come, go and are renamed while a model is monitored; nothing old is lost or noisy."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import pytest

from mlmon_dagster.report.health import health_report
from mlmon_dagster.store.state import model_history
from mlmon_dagster.store.state.model_history import load_history
from tests.defs.small_model import DAYS, NOW, customers, drop, landing, windows_of_days
from tests.defs.worlds import World, opened

pytestmark = pytest.mark.slow

DAY = dt.timedelta(days=1)
NEXT = DAYS[-1] + DAY


def land_changed(world: World, day: dt.date) -> pd.DataFrame:
    """Land a day whose files have `amount` for `balance`, `tenure` and an undeclared `note`."""
    rows, _ = customers(day)
    changed = rows.rename(columns={"balance": "amount"}).assign(
        tenure=range(len(rows)), note="x", age=rows["age"].astype(int)
    )
    drop(changed, landing(world.folder, "predictions") / f"{day}.parquet")
    return changed


def schema_verdicts(world: World, day: dt.date) -> list[dict[str, Any]]:
    """Return the verdict on the shape of a day's files; rows sent again have one of their own."""
    found = world.verdicts("schema", day)
    return [dict(row) for row in found[found["metric"] == "bad_rate"].to_dict("records")]


@pytest.fixture
def declared(own_fortnight: World) -> World:
    """The processed fortnight, its model now with `amount`, `balance` before, and `tenure`."""
    path = own_fortnight.project.models_folder / "churn.yaml"
    text = path.read_text()
    new = "  amount: {type: numeric, nullable: true, alias: [balance]}\n"
    new += "  tenure: {type: numeric, nullable: true}\n"
    path.write_text(text.replace("  balance: {type: numeric, nullable: true}\n", new))
    return own_fortnight


@pytest.mark.proof
def test_renamed_and_added_features_are_told_once_and_old_windows_keep_working(
    declared: World,
) -> None:
    before = declared.metrics(DAYS[0])
    with opened(declared.folder, NOW + DAY) as world:
        land_changed(world, NEXT)
        world.launcher.materialize(world.spec, ("event_log",))
        store, spec = world.project.store, world.spec
        world.work()
        found = model_history.load_changes(store.state, spec.model)
        told = {(seen.change.kind, seen.change.column) for seen in found}
        assert told == {("renamed", "amount"), ("added", "tenure"), ("extra", "note"),
                        ("narrowed", "age")}  # fmt: skip
        assert {seen.window_start for seen in found} == {windows_of_days(spec, [NEXT])[0].start}

        [schema] = schema_verdicts(world, NEXT)
        assert schema["status"] == "WARN"
        assert "amount was called balance before" in schema["message"]
        assert "2024-03-15.parquet" in schema["message"]
        assert set(world.verdicts("schema", DAYS[0])["status"]) == {"OK"}

        verdicts = world.verdicts("drift", NEXT)
        drift = verdicts[verdicts["metric"] == "psi"].set_index("column_name")
        assert drift.loc["amount", "status"] == "OK"
        assert (drift.loc["tenure", "status"], drift.loc["tenure", "reason"]) == (
            "NO_DATA", "not_in_baseline",
        )  # fmt: skip
        assert set(world.verdicts("quality", NEXT)["status"]) <= {"OK", "NO_DATA"}
        # The oldest window has its numbers under the new name, from rows stored under the old.
        after = world.metrics(DAYS[0])
        values = {
            name: frame[(frame["metric"] == "psi") & (frame["column_name"] == name)]["value"]
            for name, frame in (("balance", before), ("amount", after))
        }
        assert len(values["amount"])
        assert values["amount"].to_numpy() == pytest.approx(
            values["balance"].to_numpy(), abs=1e-9, nan_ok=True
        )
        assert "amount was called balance before" in health_report(store, spec, NOW + DAY).html
        assert any(
            row["kind"] == "columns changed" for row in load_history(store.state, spec.model)
        )

        world.clock.moment = NOW + 2 * DAY
        land_changed(world, NEXT + DAY)
        renamed = customers(DAYS[0])[0].rename(columns={"balance": "amount"})
        drop(renamed, landing(world.folder, "predictions") / "again.parquet")
        world.launcher.materialize(spec, ("event_log",))
        world.work()
        [schema] = schema_verdicts(world, NEXT + DAY)
        assert schema["status"] == "OK", schema["message"]
        assert len(model_history.load_changes(store.state, spec.model)) == len(found)
        records = store.inference_records(spec).read(windows_of_days(spec, [DAYS[0]]))
        assert set(records.column("n_prediction_rows").to_pylist()) == {1}  # no conflict
        assert "balance" not in records.column_names
        assert records.column("amount").null_count == 0
