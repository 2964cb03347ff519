"""Rows that stay in tables of their owner are judged as the same rows from files are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa
from deltalake import write_deltalake

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import load_model, parse_model
from mlmon_dagster.store.reading import select
from mlmon_dagster.store.state import manifest, model_history
from mlmon_dagster.store.upkeep.integrity import examine_store
from mlmon_dagster.warehouse.log import PinnedRows
from mlmon_dagster.warehouse.look import look_at_tables
from tests.warehouse.owned_world import (
    FIRST,
    OLDER,
    ROWS,
    SPEC,
    Kind,
    Owned,
    Twins,
    draw_labels,
    draw_predictions,
    live_three_days,
)

DAY = pd.Timedelta(days=1)
Make = Callable[[Kind], Twins]


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Make:
    """Make twins; of a database on PostgreSQL."""

    def made(kind: Kind) -> Twins:
        url = request.getfixturevalue("pg_url") if kind in ("sql", "xmin") else ""
        return Twins(tmp_path / "twins", kind, url)

    return made


def begin(twins: Twins, rng: np.random.Generator) -> list[pd.DataFrame]:
    """Let the baseline come, labelled."""
    days = [draw_predictions(rng, FIRST - n * DAY) for n in range(OLDER, 0, -1)]
    twins.now = FIRST + pd.Timedelta(hours=1)
    for frame in days:
        twins.write("predictions", frame)
        twins.write("actuals", draw_labels(frame, frame["at"].max() + DAY))
    return days


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [*(pytest.param(kind, marks=pytest.mark.proof) for kind in ("delta", "iceberg")), "sql"]
)
def test_a_history_of_late_corrected_repeated_and_bad_rows_is_told_alike(
    make: Make, kind: Kind
) -> None:
    twins, rng = make(kind), np.random.default_rng(3)
    begin(twins, rng)
    lived: list[pd.DataFrame] = []
    for n in range(5):
        day = FIRST + n * DAY
        frame = draw_predictions(rng, day)
        lived.append(frame)
        twins.now = day + DAY + pd.Timedelta(hours=1)
        bad = frame.head(3).assign(id=[f"bad{n}-{i}" for i in range(3)], score=[1.5, -1.0, 2.0])
        twins.write("predictions", pd.concat([frame, frame.tail(5), bad]))
        if n >= 2:  # two days late
            twins.write("actuals", draw_labels(lived[n - 2], twins.now - pd.Timedelta(hours=2)))
        if n == 3:  # the first day's truth was another one, and some of it is taken back
            wrong = lived[0].head(40).assign(truth=1 - lived[0]["truth"].head(40))
            twins.write("actuals", draw_labels(wrong, twins.now))
            gone = draw_labels(lived[1].head(4), twins.now).assign(defaulted=pd.NA)
            twins.write("actuals", gone.astype({"defaulted": "Float64"}))
        if n == 4:  # late rows of a day that was computed
            late = draw_predictions(rng, FIRST + 2 * DAY, 20)
            twins.write("predictions", late.assign(id=[f"late{i}" for i in range(20)]))
        twins.look()

    assert twins.find_differences() == []
    store = twins.project(twins.kind).store
    assert not (twins.owned / ".mlmon" / "store" / "event_log").exists()
    spec = load_model(twins.owned / "models" / "credit.yaml")
    counts = store.query(f"SELECT COUNT(*) AS n FROM {store.inference_records(spec).from_sql()}")
    assert counts["n"][0].as_py() == (OLDER + 5) * ROWS + 20
    assert list(examine_store(store)) == []
    with pytest.raises(ConfigError, match="stay in tables of their own; records has both"):
        select(store, "credit", "SELECT * FROM predictions")
    store.close()
    erased = twins.ask("erase", "credit", "--prediction-id", "03-5", "--yes", "--recompute")
    assert "1  inference records" in erased
    assert "1  windows with such rows" in erased
    assert f"stay in {spec.source.predictions.label}" in erased
    read = ("store", "head", "credit", "--columns", "prediction_id", "--limit", "9999")
    rows = twins.ask(*read, "--format", "csv").split()
    assert "03-6" in rows
    assert "03-5" not in rows


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(12))
def test_drawn_histories_are_told_alike(
    make: Make, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lags, corrections, withdrawals, repeats, late rows, compaction and days without a look.

    Some are read in many groups of rows, for which ground truth is arranged.
    """
    if seed % 4 == 2:
        monkeypatch.setattr(PinnedRows, "rows_at_once", 60)
    kinds: tuple[Kind, ...] = ("delta", "sql", "iceberg")
    twins, rng = make(kinds[seed % 3]), np.random.default_rng([9, seed])
    begin(twins, rng)
    lived: list[pd.DataFrame] = []
    lag = int(rng.integers(1, 3))
    for n in range(6):
        day = FIRST + n * DAY
        frame = draw_predictions(rng, day, int(rng.integers(110, 220)))
        lived.append(frame)
        twins.now = day + DAY + pd.Timedelta(hours=1)
        twins.write("predictions", pd.concat([frame, frame.sample(int(rng.integers(0, 9)))]))
        if n >= lag:
            known = lived[n - lag].sample(frac=rng.uniform(0.8, 1.0), random_state=seed)
            twins.write("actuals", draw_labels(known, twins.now - pd.Timedelta(hours=2)))
        for old in lived[: max(n - lag, 0)]:
            if rng.random() < 0.3:
                some = old.sample(int(rng.integers(1, 40)), random_state=n)
                labels = draw_labels(some.assign(truth=1 - some["truth"]), twins.now)
                if rng.random() < 0.3:
                    labels = labels.assign(defaulted=pd.NA).astype({"defaulted": "Float64"})
                twins.write("actuals", labels)
            if rng.random() < 0.2:
                late = draw_predictions(rng, old["at"].min().normalize(), 15)
                twins.write("predictions", late.assign(id=[f"late{n}-{i}" for i in range(15)]))
        if twins.kind == "delta" and rng.random() < 0.3:
            twins.delta("predictions").optimize.compact()
            twins.date_commit("predictions")
        if twins.kind == "iceberg" and rng.random() < 0.3:
            table = twins.iceberg("predictions")
            table.overwrite(table.scan().to_arrow())
            twins.date_commit("predictions")
        if n in (0, 5) or rng.random() < 0.8:
            twins.look()
    assert twins.find_differences() == []


@pytest.fixture(params=["delta", "iceberg", "sql", "xmin"])
def owned(make: Make, request: pytest.FixtureRequest) -> Owned:
    """Three days, labelled and looked at."""
    return live_three_days(make(request.param))


def test_a_look_when_nothing_changed_finds_nothing(owned: Owned) -> None:
    report = owned.look()
    assert (report.files, report.windows) == ((), [])


def test_a_correction_of_some_labels_touches_exactly_their_days(owned: Owned) -> None:
    wrong = owned.lived[1].head(30).assign(truth=1)
    owned.twins.write("actuals", draw_labels(wrong, owned.twins.now), may_land=False)
    assert owned.touched() == ["2026-03-02"]
    assert owned.touched() == []


def test_late_rows_and_labels_of_other_days_are_found_by_one_look(owned: Owned) -> None:
    rng = np.random.default_rng(5)
    late = draw_predictions(rng, FIRST, 5).assign(id=[f"late{i}" for i in range(5)])
    owned.twins.write("predictions", late, may_land=False)
    labels = draw_labels(owned.lived[2].head(2), owned.twins.now)
    owned.twins.write("actuals", labels, may_land=False)
    assert owned.touched() == ["2026-03-01", "2026-03-03"]


def test_a_look_that_is_killed_was_never_made(
    owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = draw_labels(owned.lived[2].head(2), owned.twins.now)
    owned.twins.write("actuals", labels, may_land=False)

    def stop(step: str) -> None:
        if step == "look.found":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mlmon_dagster.warehouse.look.reached", stop)
        with pytest.raises(KeyboardInterrupt):
            owned.look()
    assert owned.touched() == ["2026-03-03"]


def test_rows_ahead_of_the_clock_are_taken_up_when_their_time_comes(owned: Owned) -> None:
    rng = np.random.default_rng(6)
    ahead = draw_predictions(rng, FIRST + 9 * DAY, 10)
    owned.twins.write("predictions", ahead, may_land=False)
    assert owned.touched() == []
    owned.twins.now = FIRST + 10 * DAY
    assert "2026-03-10" in owned.touched()
    assert owned.touched() == []


@pytest.mark.parametrize("clock", ["zone", "none", "number"])
def test_groups_of_rows_find_their_ground_truth_among_what_was_arranged(
    make: Make, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    """Of times with and without a zone, or as numbers; some ids come on two days."""
    twins, rng = make("delta"), np.random.default_rng(12)
    twins.now = FIRST + 4 * DAY
    frames = [draw_predictions(rng, FIRST + n * DAY) for n in range(3)]
    frames[2] = pd.concat([frames[2], frames[0].head(5).assign(at=FIRST + 2 * DAY)])
    frame = pd.concat(frames)
    time = "zone: Pacific/Auckland"
    if clock == "none":
        frame["at"], time = frame["at"].dt.tz_localize(None), f"{time}, naive: zone"
    table = pa.Table.from_pandas(frame.drop(columns="truth"), preserve_index=False)
    path = twins.owned / "models" / "credit.yaml"
    text = path.read_text().replace("2026-03-01}", f"2026-02-28, {time}}}")
    if clock == "number":
        at = table.schema.get_field_index("at")
        seconds = pa.array(frame["at"].astype("datetime64[s, UTC]").astype("int64"))
        table = table.set_column(at, "at", seconds)
        text = text.replace("owned/predictions,", "owned/predictions, epoch: s,")
    path.write_text(text)
    write_deltalake(twins.owned / "owned" / "predictions", table)
    twins.write("actuals", draw_labels(frame.drop_duplicates("id"), twins.now), may_land=False)
    project = twins.project("delta")
    spec = load_model(path)
    windows = look_at_tables(project.find_owner(spec), wait_seconds=1).windows
    found = []
    for at_once in (10_000, 50):
        monkeypatch.setattr(PinnedRows, "rows_at_once", at_once)
        records = project.store.inference_records(spec)
        records.rebuild(windows)
        rows = records.read(columns=["prediction_id", "event_time", "actual", "score"])
        found.append(rows.sort_by([("prediction_id", "ascending")]).to_pylist())
    project.store.close()
    assert found[0] == found[1]
    assert {row["actual"] is None for row in found[0]} == {False}


def test_rows_of_no_window_are_refused_until_their_owner_mends_or_deletes_them(
    owned: Owned,
) -> None:
    rng = np.random.default_rng(7)
    rows = draw_predictions(rng, FIRST, 5).assign(id=[f"x{i}" for i in range(5)])
    rows["at"] = [pd.NaT, pd.NaT, FIRST - DAY, *rows["at"][3:]]
    rows["dataset"] = [*rows["dataset"][:4], "staging"]
    owned.twins.write("predictions", rows, may_land=False)
    labels = draw_labels(owned.lived[0].head(3), owned.twins.now).assign(id=[None, "a", "b"])
    owned.twins.write("actuals", labels, may_land=False)
    found = owned.look().files
    assert [(file.n_bad, file.n_unmatched) for file in found] == [(4, 0), (1, 2)]
    assert "1 row of no window" in found[0].bad_rows[0]
    assert "or set 'start' under 'time' to an earlier day" in found[0].bad_rows[0]
    assert owned.list_refused() == {
        ("predictions", "null_required"): 2, ("predictions", "before_start"): 1,
        ("predictions", "bad_dataset"): 1, ("actuals", "null_required"): 1,
    }  # fmt: skip
    assert owned.look().files == ()  # told once
    owned.delete("predictions", "at IS NULL AND id = 'x0'")
    owned.delete("actuals", "id IS NULL")
    owned.look()
    assert owned.list_refused() == {
        ("predictions", "null_required"): 1, ("predictions", "before_start"): 1,
        ("predictions", "bad_dataset"): 1,
    }  # fmt: skip


def test_times_without_a_zone_are_refused_in_words_until_the_spec_says_which(make: Make) -> None:
    twins, rng = make("delta"), np.random.default_rng(11)
    twins.now = FIRST + 2 * DAY
    frame = draw_predictions(rng, FIRST)
    frame["at"] = frame["at"].dt.tz_localize(None)
    table = pa.Table.from_pandas(frame.drop(columns="truth"), preserve_index=False)
    write_deltalake(twins.owned / "owned" / "predictions", table)
    twins.write("actuals", draw_labels(frame, twins.now), may_land=False)
    owned = Owned(twins, [frame])
    [predictions, _] = owned.look().files
    assert predictions.n_bad == ROWS
    assert "set 'naive: zone' under 'time'" in predictions.bad_rows[0]
    assert owned.list_refused() == {("predictions", "naive_time"): ROWS}
    path = twins.owned / "models" / "credit.yaml"
    path.write_text(path.read_text().replace("2026-03-01}", "2026-03-01, naive: zone}"))
    assert owned.touched() == ["2026-03-01"]
    assert owned.list_refused() == {}
    assert owned.touched() == []


def test_a_column_that_only_the_newer_version_has_is_a_change_and_is_told(make: Make) -> None:
    owned = live_three_days(make("delta"))
    twins = owned.twins
    path = twins.owned / "models" / "credit.yaml"
    path.write_text(f"{path.read_text()}  income: {{type: numeric, nullable: true}}\n".replace(
        "slices: [region]\n  income: {type: numeric, nullable: true}\n",
        "  income: {type: numeric, nullable: true}\nslices: [region]\n"))  # fmt: skip
    owned.look()
    rows = twins.delta("predictions").to_pyarrow_table()
    rows = rows.append_column("income", pa.array([1.0] * rows.num_rows))
    write_deltalake(twins.owned / "owned" / "predictions", rows, mode="overwrite",
                    schema_mode="overwrite")  # fmt: skip
    assert owned.touched() == ["2026-03-01", "2026-03-02", "2026-03-03"]
    project = twins.project("delta")
    changes = model_history.load_changes(project.store.state, "credit")
    project.store.close()
    assert [seen.change.text() for seen in changes] == ["income is new"]


def test_columns_that_are_called_otherwise_in_the_files_are_refused(make: Make) -> None:
    owned = live_three_days(make("delta"))
    folder = owned.twins.owned / "owned" / "predictions" / "_delta_log"
    first = folder / f"{0:020d}.json"
    first.write_text(
        first.read_text().replace(
            '"configuration":{}', '"configuration":{"delta.columnMapping.mode":"name"}'
        )
    )
    [failed] = owned.look().files
    assert failed.status == "failed"
    assert "maps its columns to other names (delta.columnMapping.mode)" in failed.message


def test_what_the_owner_arranges_anew_touches_no_day_and_what_changes_does(make: Make) -> None:
    owned = live_three_days(make("delta"))
    twins = owned.twins
    twins.delta("predictions").optimize.compact()
    twins.delta("actuals").optimize.compact()
    assert owned.touched() == []
    twins.delta("predictions").update({"age": "age + 1"}, predicate="id = '01-3'")
    assert owned.touched() == ["2026-03-01"]
    twins.delta("predictions").delete("id = '03-7'")
    twins.delta("actuals").delete("id = '02-7'")
    assert owned.touched() == ["2026-03-02", "2026-03-03"]


def test_versions_that_are_gone_mean_that_all_days_are_computed_again(make: Make) -> None:
    owned = live_three_days(make("delta"))
    twins = owned.twins
    twins.delta("predictions").update({"age": "age + 1"}, predicate="id = '01-3'")
    twins.delta("predictions").vacuum(0, dry_run=False, enforce_retention_duration=False)
    report = owned.look()
    assert len(report.windows) == 3
    assert "files of version" in report.again
    assert owned.touched() == []


def test_a_table_that_was_emptied_means_that_all_days_are_computed_again(make: Make) -> None:
    owned = live_three_days(make("xmin"))
    for stream in ("actuals", "predictions"):
        _tell_owner(owned, f"TRUNCATE {stream}")
        report = owned.look()
        assert [window.key for window in report.windows] == [
            "2026-03-01", "2026-03-02", "2026-03-03",
        ]  # fmt: skip
        assert "it was emptied, replaced or rewritten" in report.again
    assert owned.touched() == []


@pytest.mark.parametrize("kind", ["delta", "sql", "xmin"])
def test_a_column_of_another_type_is_read_again_whatever_its_values(make: Make, kind: Kind) -> None:
    """Also one whose values compare as equal: a time without a zone is no moment any more."""
    owned = live_three_days(make(kind))
    if kind in ("sql", "xmin"):
        # In UTC the server does not even write the rows anew.
        _tell_owner(owned, "SET LOCAL TIME ZONE 'UTC'",
                    "ALTER TABLE predictions ALTER at TYPE timestamp")  # fmt: skip
    else:
        rows = owned.twins.delta("predictions").to_pyarrow_table()
        place = rows.schema.get_field_index("at")
        rows = rows.set_column(place, "at", rows["at"].cast(pa.timestamp("us")))
        write_deltalake(owned.twins.owned / "owned" / "predictions", rows, mode="overwrite",
                        schema_mode="overwrite")  # fmt: skip
    report = owned.look()
    assert len(report.windows) == 3
    assert "its columns have other types than at the look before" in report.again
    assert "a time without an offset" in report.files[0].bad_rows[0]
    assert owned.touched() == []


def test_a_column_that_cannot_be_compared_with_what_it_was_is_refused_row_by_row(
    make: Make,
) -> None:
    owned = live_three_days(make("delta"))
    rows = owned.twins.delta("predictions").to_pyarrow_table()
    nested = pa.array([{"years": age} for age in rows["age"].to_pylist()])
    rows = rows.set_column(rows.schema.get_field_index("age"), "age", nested)
    write_deltalake(owned.twins.owned / "owned" / "predictions", rows, mode="overwrite",
                    schema_mode="overwrite")  # fmt: skip
    report = owned.look()
    assert [file.status for file in report.files] == ["done"]
    assert len(report.windows) == 3


def test_a_table_that_its_user_may_not_read_is_said_by_a_look_and_by_doctor(make: Make) -> None:
    owned = live_three_days(make("xmin"))
    twins = owned.twins
    _tell_owner(owned, "CREATE ROLE mlmon_reader LOGIN PASSWORD 'geheim'",
                "GRANT SELECT ON predictions TO mlmon_reader")  # fmt: skip
    url = sa.make_url(twins.url).set(username="mlmon_reader", password="geheim")
    twins.url = url.render_as_string(hide_password=False)
    try:
        [failed] = owned.look().files
        told = twins.ask_doctor()
        _tell_owner(owned, "GRANT SELECT ON actuals TO mlmon_reader")
        assert owned.touched() == []
        assert "ok   windows of credit: found in place, by the column at" in twins.ask_doctor()
    finally:
        _tell_owner(owned, "DROP OWNED BY mlmon_reader", "DROP ROLE mlmon_reader")
    assert "permission denied for table actuals" in failed.message
    assert "permission denied for table actuals" in told
    assert "geheim" not in failed.message + told


def _tell_owner(owned: Owned, *statements: str) -> None:
    """Run statements as the owner of the database."""
    assert owned.twins.engine is not None
    with owned.twins.engine.begin() as conn:
        for statement in statements:
            conn.exec_driver_sql(statement)


def test_files_of_a_table_that_are_gone_are_named_in_one_line(make: Make) -> None:
    owned = live_three_days(make("delta"))
    for path in (owned.twins.owned / "owned" / "predictions").glob("*.parquet"):
        path.unlink()
    path = owned.twins.owned / "models" / "credit.yaml"
    path.write_text(path.read_text().replace("2026-03-01}", "2026-03-02}"))
    [failed] = owned.look().files
    assert "No such file or directory" in failed.message
    assert failed.message.isprintable()


def test_ground_truth_that_is_refused_counts_in_the_window_of_its_prediction(make: Make) -> None:
    """Of hours, and of an id that has a row on another day as well."""
    twins, rng = make("delta"), np.random.default_rng(10)
    path = twins.owned / "models" / "credit.yaml"
    path.write_text(path.read_text().replace("2026-03-01}", "2026-03-01, granularity: hour}"))
    twins.now = FIRST + 3 * DAY
    frame = draw_predictions(rng, FIRST + DAY, 60)
    frame["at"] = FIRST + DAY + pd.Timedelta(hours=14, minutes=5)
    again = frame.head(1).assign(at=FIRST + 2 * DAY + pd.Timedelta(hours=3))
    twins.write("predictions", pd.concat([frame, again]), may_land=False)
    labels = draw_labels(frame, twins.now - DAY)
    labels.loc[:2, "defaulted"] = 7
    twins.write("actuals", labels, may_land=False)
    project = twins.project(twins.kind)
    spec = load_model(path)
    windows = look_at_tables(project.find_owner(spec), wait_seconds=1).windows
    project.store.inference_records(spec).rebuild([w for w in windows if w.key < "2026-03-03"])
    refused = manifest.count_refused(project.store.state, "credit")
    project.store.close()
    assert refused == {frame["at"][0].floor("h").to_pydatetime(): {"bad_actual:actual": 3}}


def test_a_model_of_files_that_becomes_one_in_place_is_read_from_its_tables(make: Make) -> None:
    twins, rng = make("delta"), np.random.default_rng(8)
    days = begin(twins, rng)
    frame = draw_predictions(rng, FIRST)
    twins.write("predictions", frame)
    twins.now = FIRST + DAY + pd.Timedelta(hours=1)
    twins.look()
    files = twins.folder / "files"
    shutil.copytree(twins.owned / "owned", files / "owned")
    shutil.copy(twins.owned / "models" / "credit.yaml", files / "models" / "credit.yaml")
    project = twins.project("files")
    spec = load_model(files / "models" / "credit.yaml")
    found = look_at_tables(project.find_owner(spec), wait_seconds=1)
    project.store.close()
    assert len(found.windows) == len(days) + 1
    twins.look()
    assert twins.find_differences() == []


def test_a_table_that_is_not_there_or_has_no_times_is_said_in_words(make: Make) -> None:
    owned = live_three_days(make("delta"))
    path = owned.twins.owned / "models" / "credit.yaml"
    text = path.read_text()
    path.write_text(text.replace("event_time: at", "event_time: region"))
    [failed] = owned.look().files
    assert failed.status == "failed"
    assert "'region' is string; in place windows are found by a column of times" in failed.message
    path.write_text(text.replace("owned/predictions", "owned/scores"))
    [failed] = owned.look().files
    assert "does not exist" in failed.message


@pytest.mark.parametrize(
    ("predictions", "actuals", "said"),
    [
        ("{delta: p, in_place: true}", "{delta: a}", "for both streams or for none"),
        ("{delta: p, in_place: true}", "{path: a/*.csv}", "for both streams or for none"),
        (
            "{delta: p, in_place: true}",
            "{sql: a, url_env: X, cursor: {column: c, kind: time}, in_place: true}",
            "both streams in one database, or in tables of one kind",
        ),
        (
            "{sql: p, url_env: X, cursor: {column: c, kind: time}, in_place: true}",
            "{sql: a, url_env: Y, cursor: {column: c, kind: time}, in_place: true}",
            "needs one database; write X",
        ),
    ],
)
def test_sources_that_no_one_look_can_see_are_refused(
    predictions: str, actuals: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_model(SPEC % (predictions, actuals))
