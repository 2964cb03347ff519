"""``mlmon rows``: from an alert, a window or a slice to the rows, as they were then."""

from __future__ import annotations

import csv
import datetime as dt
import io
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from mlmon_dagster.pipeline.ingest import ingest
from mlmon_dagster.pipeline.run import compute
from mlmon_dagster.spec import load_model
from mlmon_dagster.tables.alerts import list_alerts
from mlmon_dagster.work import Work
from tests.cli.conftest import Command
from tests.defs.small_model import (
    DAYS,
    MODEL,
    NOW,
    NULLED,
    ROWS,
    customers,
    drop,
    landing,
    make_project,
    windows_of_days,
    write_declaration,
)
from tests.pipeline.looking import look

AT = ("--now", NOW.isoformat())


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def alert_of(folder: Path, monitor: str) -> str:
    project = make_project(folder)
    [found] = {e.fingerprint for e in list_alerts(project.store, MODEL) if e.monitor == monitor}
    project.store.close()
    return found[:12]


def test_an_alert_on_refused_rows_leads_to_what_was_refused_and_why(
    tmp_path: Path, mlmon: Command
) -> None:
    """It led to the model's worst errors among the rows that were good."""
    write_declaration(tmp_path)
    predictions, actuals = customers(DAYS[-1], n=40)
    predictions.loc[3, "score"] = 7.0
    predictions.loc[4, "at"] = pd.NaT
    drop(predictions, landing(tmp_path, "predictions") / "p.parquet")
    drop(actuals.assign(left=5), landing(tmp_path, "actuals") / "whole.parquet")
    assert mlmon("--project", tmp_path, *AT, "run", MODEL).code == 0
    mlmon("--project", tmp_path, *AT, "alerts", "deliver")

    ended = mlmon("--project", tmp_path, *AT, "rows", alert_of(tmp_path, "schema/bad_rate"))

    assert ended.code == 0, ended.err
    whole, *rows = ended.out.splitlines()
    assert whole.startswith("landing/churn/actuals/whole.parquet: 40 of 40 rows cannot be stored")
    assert [row.split(": ")[0] for row in rows] == [
        "landing/churn/predictions/p.parquet, row 4, column 'score'",
        "landing/churn/predictions/p.parquet, row 5, column 'at'",
    ]
    about = f"{DAYS[-1]}, schema: Share of refused rows"
    assert f"{about}: 3 refusals. Once the cause is repaired:" in ended.err


def test_an_alert_leads_to_its_rows_in_one_command(folder: Path, mlmon: Command) -> None:
    mlmon("--project", folder, *AT, "alerts", "deliver")
    short = alert_of(folder, "quality/null_rate/balance")
    ended = mlmon("--project", folder, *AT, "rows", short, "--worst", 1000, "--format", "csv")

    expected = set(customers(NULLED)[0]["id"])
    assert ended.code == 0, ended.err
    assert {row["prediction_id"] for row in table(ended.out)} == expected
    about = f"churn, {NULLED}, quality: Null share of balance where balance is null"
    assert f"{about}: {ROWS} rows." in ended.err


def test_the_column_of_an_alert_stands_beside_the_id_also_where_it_is_always_null(
    folder: Path, mlmon: Command
) -> None:
    mlmon("--project", folder, *AT, "alerts", "deliver")
    ended = mlmon("--project", folder, *AT, "rows", alert_of(folder, "quality/null_rate/balance"))

    assert ended.out.split()[:2] == ["prediction_id", "balance"]


def test_an_alerts_rows_are_those_of_a_query_on_the_files_also_after_the_table_changed(
    folder: Path, mlmon: Command
) -> None:
    mlmon("--project", folder, *AT, "alerts", "deliver")
    short = alert_of(folder, "quality/null_rate/balance")
    project = make_project(folder, lambda: NOW + dt.timedelta(hours=2))
    spec = load_model(folder / "models" / f"{MODEL}.yaml")
    work = Work(project, spec, tuple(windows_of_days(spec, [NULLED])), project.now(), "run", False)
    records = folder / ".mlmon" / "store" / "inference_records" / MODEL

    def written_by_hand(version: int) -> list[str]:
        files = DeltaTable(str(records), version=version).file_uris()
        found = duckdb.execute(
            "SELECT prediction_id FROM read_parquet($files, hive_partitioning = true) "
            "WHERE dataset = 'production' AND balance IS NULL "
            "AND event_time >= '2024-03-12 00:00-04' AND event_time < '2024-03-13 00:00-04' "
            "ORDER BY prediction <> actual DESC, abs(score - actual) DESC, prediction_id",
            {"files": files},
        )
        return [row[0] for row in found.fetchall()]

    def told(*more: object) -> list[str]:
        asked = ("rows", short, "--worst", 9 * ROWS, "--format", "csv", *more)
        ended = mlmon("--project", folder, "--now", project.now().isoformat(), *asked)
        assert ended.code == 0, ended.err
        return [row["prediction_id"] for row in table(ended.out)]

    judged = DeltaTable(str(records)).version()
    assert told() == written_by_hand(judged)
    assert len(told()) == ROWS

    # More rows without a balance, and other ground truth; rebuilt, and not judged yet.
    more, _ = customers(NULLED)
    more = more.head(20).assign(id=[f"late-{i}" for i in range(20)], balance=np.nan)
    drop(more, landing(folder, "predictions") / "late.parquet")
    truth = customers(NULLED)[1]
    other = {"left": 1 - truth["left"], "known_at": truth["known_at"] + dt.timedelta(hours=1)}
    drop(truth.assign(**other), landing(folder, "actuals") / "other.parquet")
    ingest(work)
    compute(work, ("inference_store",))
    newest = DeltaTable(str(records)).version()

    assert newest > judged
    assert told() == written_by_hand(judged)
    assert told("--newest") == written_by_hand(newest)
    assert len(told("--newest")) == ROWS + 20
    assert told("--newest")[:ROWS] != told()

    # Judged again, an alert is about the rows that it then failed on.
    look(project, spec, "again")
    assert told() == written_by_hand(DeltaTable(str(records)).version())
    assert len(told()) == ROWS + 20
    project.store.close()


def test_rows_of_a_slice_are_those_of_the_files_and_the_worst_come_first(
    folder: Path, mlmon: Command, tmp_path: Path
) -> None:
    where = "region = 'west' and age >= 50"
    day = DAYS[0]
    to = tmp_path / "rows.parquet"
    ended = mlmon(
        "--project", folder, *AT, "rows", MODEL, "--window", day, "--where", where,
        "--worst", 500, "--format", "parquet", "--output", to,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    found = pq.read_table(to).to_pandas()
    rows = customers(day)[0].merge(customers(day)[1], on="id")
    mine = rows[(rows["region"] == "west") & (rows["age"] >= 50)]

    assert set(found["prediction_id"]) == set(mine["id"])
    assert list(found["off_by"]) == list(
        pd.concat([part.sort_values("off_by", ascending=False) for part in _wrong_first(found)])[
            "off_by"
        ]
    )
    shown = mlmon("--project", folder, *AT, "rows", MODEL, "--window", day, "--worst", 2)
    assert shown.out.splitlines()[0].split()[:2] == ["prediction_id", "event_time"]
    assert f"churn, {day}: {ROWS} rows, the worst 2." in shown.err
    assert "In your files, prediction_id is id" in shown.err


def _wrong_first(found: pd.DataFrame) -> list[pd.DataFrame]:
    wrong = found["prediction"] != found["actual"]
    return [found[wrong], found[~wrong]]


@pytest.mark.parametrize("command", [("report",), ("rows", "--worst", "3")])
def test_what_is_known_now_is_not_shown_as_of_a_moment_before_files_were_read(
    folder: Path, mlmon: Command, command: tuple[str, ...]
) -> None:
    """The page of a past moment had later windows, and rows had later ground truth."""
    past = (NOW - dt.timedelta(days=3)).isoformat()
    name, *options = command

    ended = mlmon("--project", folder, "--now", past, name, MODEL, *options)

    assert (ended.code, ended.out) == (2, "")
    assert f"--now {past} lies before {NOW.isoformat()}, when files of churn were read" in ended.err
    assert f"mlmon metrics churn --as-of {past}" in ended.err
    assert mlmon("--project", folder, *AT, name, MODEL, *options).code == 0
    assert mlmon("--project", folder, name, MODEL, *options).code == 0
