import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from mlmon_dagster.store import Store, baselines
from mlmon_dagster.store.state import manifest, monitor_results, schema, window_state
from mlmon_dagster.store.state.manifest import SeenPath
from tests.conftest import list_windows, make_spec, window

SPEC = make_spec()
T0 = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
ONE, TWO = window(SPEC, "2024-01-01"), window(SPEC, "2024-01-02")


# Window state


def states(store: Store) -> pd.DataFrame:
    return list_windows(store, SPEC.model)


def test_every_touch_raises_a_windows_input_revision(any_store: Store) -> None:
    for touched in ([ONE, TWO, ONE], [TWO], []):
        with any_store.state.begin() as conn:
            window_state.mark_inputs(conn, SPEC, touched, T0)
    found = states(any_store)
    assert found["input_revision"].tolist() == [1, 2]
    assert found["window_end"].tolist() == [pd.Timestamp(w.end) for w in (ONE, TWO)]


def test_a_touch_that_is_rolled_back_did_not_happen(any_store: Store) -> None:
    with any_store.state.connect() as conn:
        window_state.mark_inputs(conn, SPEC, [ONE], T0)
        conn.rollback()
    assert states(any_store).empty


def test_computing_a_window_is_noted_beside_its_inputs(any_store: Store) -> None:
    computed = {"computed_revision": 1, "computed_at": T0, "n": 7, "data_version": "v"}
    with any_store.state.begin() as conn:
        window_state.mark_inputs(conn, SPEC, [ONE], T0)
        window_state.mark_computed(conn, SPEC.model, [{"window_start": ONE.start, **computed}])
        window_state.mark_computed(conn, SPEC.model, [{"window_start": TWO.start, **computed}])
        window_state.mark_computed(conn, SPEC.model, [])
    (row,) = states(any_store).to_dict("records")
    assert (row["input_revision"], row["computed_revision"], row["n"]) == (1, 1, 7)


def test_a_window_without_inputs_is_noted_too_when_its_end_is_given(any_store: Store) -> None:
    row = {"window_start": ONE.start, "window_end": ONE.end, "computed_revision": 0, "n": 0}
    for n in (0, 3):
        with any_store.state.begin() as conn:
            window_state.mark_computed(conn, SPEC.model, [row | {"n": n}])
    assert states(any_store)["n"].tolist() == [3]


# Monitor results


def verdict(**more: Any) -> dict[str, Any]:
    return {
        "model": SPEC.model,
        "monitor": "drift/psi/age",
        "family": "drift",
        "metric": "psi",
        "window_start": ONE.start,
        "window_end": ONE.end,
        "granularity": "day",
        "status": "OK",
        "value": 0.1,
        "data_version": "v1",
        "method_version": "psi-1",
        "created_at": T0,
        **more,
    }


def test_a_repeated_verdict_is_stored_once(any_store: Store) -> None:
    rows = [verdict(), verdict(monitor="drift/psi/region")]
    assert monitor_results.append(any_store.state, rows) == 2
    assert monitor_results.append(any_store.state, rows) == 0
    assert monitor_results.append(any_store.state, []) == 0
    assert monitor_results.newest(any_store.state, SPEC.model)["monitor"].tolist() == [
        "drift/psi/age",
        "drift/psi/region",
    ]


def test_a_verdict_on_the_same_data_that_is_another_replaces_the_last_one(any_store: Store) -> None:
    """By a changed limit, there and back, as after a clock that was wrong for a while."""
    loose = verdict(status="OK", threshold="above 5")
    tight = verdict(status="WARN", threshold="above 0.1")
    for row in (tight, loose, loose, tight, tight):
        monitor_results.append(any_store.state, [row, {**loose, "monitor": "drift/psi/b"}])
        newest = monitor_results.newest(any_store.state, SPEC.model).set_index("monitor")
        assert newest.loc["drift/psi/age", "threshold"] == row["threshold"]
    with any_store.state.connect() as conn:
        assert conn.scalar(sa.select(sa.func.count()).select_from(schema.monitor_result)) == 4


def test_the_verdict_on_the_newest_data_is_returned(any_store: Store) -> None:
    monitor_results.append(any_store.state, [verdict()])
    monitor_results.append(any_store.state, [verdict(status="WARN", data_version="v0")])
    (row,) = monitor_results.newest(any_store.state, SPEC.model).to_dict("records")
    assert (row["status"], row["is_backfill"], row["slice_key"]) == ("WARN", False, "all")
    assert row["folded_at"] is pd.NaT


def test_verdicts_can_be_chosen_by_window_and_family(any_store: Store) -> None:
    rows = [
        verdict(),
        verdict(window_start=TWO.start),
        verdict(family="quality", monitor="quality/null_rate/age"),
    ]
    assert monitor_results.append(any_store.state, rows) == 3

    def n(*arguments: Any) -> int:
        return len(monitor_results.newest(any_store.state, SPEC.model, *arguments))

    assert n() == 3
    assert n(TWO.start) == 1
    assert n(None, TWO.start, "drift") == 1
    assert n(None, None, ["drift", "quality"]) == 3
    assert n(None, None, []) == 0


def test_more_verdicts_than_fit_into_one_statement_are_stored(any_store: Store) -> None:
    rows = [verdict(slice_value=f"{i}") for i in range(1201)]
    assert monitor_results.append(any_store.state, rows) == 1201
    assert monitor_results.append(any_store.state, rows) == 0


# Baselines


def test_the_newest_baseline_is_the_one_saved_last(any_store: Store) -> None:
    assert baselines.load_newest(any_store.state, SPEC.model) is None
    for days, id_ in enumerate(("a", "b")):
        baselines.save_baseline(
            any_store, SPEC.model, id_, "dataset", "{}", T0 + days * DAY, n=5, dataset="v"
        )
    newest = baselines.load_newest(any_store.state, SPEC.model)
    assert newest is not None
    assert (newest.baseline_id, newest.n, newest.created_at) == ("b", 5, T0 + DAY)
    baselines.save_baseline(any_store, SPEC.model, "a", "dataset", '{"x": 1}', T0 + 2 * DAY)
    again = baselines.load_newest(any_store.state, SPEC.model)
    assert again is not None
    assert (again.baseline_id, baselines.read_payload(any_store, again)) == ("a", '{"x": 1}')
    older = baselines.load_newest(any_store.state, SPEC.model, "b")
    assert older is not None
    assert older.baseline_id == "b"


# Manifest


def file(sha: str, **more: Any) -> dict[str, Any]:
    key = {"model": SPEC.model, "stream": "predictions", "sha256": sha}
    return {**key, "path": f"{sha}.parquet", "first_seen": T0, **more}


def test_a_file_is_discovered_once(any_store: Store) -> None:
    with any_store.state.begin() as conn:
        assert manifest.note_discovered(conn, [file("a"), file("b")]) == 2
        assert manifest.note_discovered(conn, [file("b"), file("c")]) == 1
        assert manifest.note_discovered(conn, []) == 0
    found = manifest.load_files_frame(any_store.state, SPEC.model)
    assert found["sha256"].tolist() == ["a", "b", "c"]
    assert set(found["status"]) == {"discovered"}


def test_a_file_goes_through_its_states(any_store: Store) -> None:
    with any_store.state.begin() as conn:
        manifest.note_discovered(conn, [file("a"), file("b")])
        manifest.update_file(
            conn, SPEC.model, "predictions", "a", status="done", rows_in=5, finished_at=T0
        )
    done = manifest.load_files_frame(any_store.state, SPEC.model, "predictions", status="done")
    assert done[["sha256", "rows_in"]].values.tolist() == [["a", 5]]
    assert manifest.load_files_frame(any_store.state, SPEC.model, "actuals").empty
    several = manifest.load_files_frame(
        any_store.state, SPEC.model, status=["done", "discovered"], shas=["b"]
    )
    assert several["sha256"].tolist() == ["b"]


def test_many_files_are_updated_at_once_each_with_its_own_values(any_store: Store) -> None:
    with any_store.state.begin() as conn:
        manifest.note_discovered(conn, [file(sha) for sha in "abc"])
        rows = [{"sha256": sha, "rows_in": n, "reason": sha} for n, sha in enumerate("ab")]
        manifest.update_files(conn, SPEC.model, "predictions", rows, status="done", finished_at=T0)
    found = manifest.load_files_frame(any_store.state, SPEC.model).set_index("sha256")
    assert found["status"].to_dict() == {"a": "done", "b": "done", "c": "discovered"}
    assert found["rows_in"].to_dict() == {"a": 0, "b": 1, "c": 0}
    assert found["finished_at"].isna().to_dict() == {"a": False, "b": False, "c": True}


def test_what_a_look_left_of_the_landing_files_is_kept_by_stream(any_store: Store) -> None:
    left = manifest.Backlog(2, 3, T0, T0 + DAY, T0)
    manifest.note_backlog(
        any_store.state, SPEC.model, {"predictions": left, "actuals": manifest.Backlog()}
    )
    assert manifest.load_backlog(any_store.state, SPEC.model) == {"predictions": left}
    assert manifest.load_backlogs(any_store.state) == {SPEC.model: {"predictions": left}}
    assert left.holds_any_until(T0)
    assert not left.holds_any_until(T0 - DAY)
    manifest.note_backlog(any_store.state, SPEC.model, {"predictions": manifest.Backlog()})
    assert (
        manifest.load_backlog(any_store.state, SPEC.model)
        == manifest.load_backlogs(any_store.state)
        == {}
    )


def test_paths_are_remembered_as_last_seen(any_store: Store) -> None:
    for size in (1, 2):
        with any_store.state.begin() as conn:
            seen = {"x.csv": SeenPath(size, 10**18 + size, f"sha{size}")}
            manifest.note_paths(conn, SPEC.model, "predictions", seen)
            manifest.note_paths(conn, SPEC.model, "predictions", {})
    known = manifest.load_paths(any_store.state, SPEC.model, "predictions")
    assert known == {"x.csv": SeenPath(2, 10**18 + 2, "sha2")}
    assert manifest.load_paths(any_store.state, SPEC.model, "actuals") == {}


def refused(row_number: int, **more: Any) -> dict[str, Any]:
    return {
        "model": SPEC.model,
        "stream": "predictions",
        "sha256": "a",
        "row_number": row_number,
        "reason": "null_id",
        "column_name": "id",
        "window_start": None,
        "created_at": T0,
        **more,
    }


def test_refused_rows_are_stored_once_and_counted(any_store: Store) -> None:
    rows = [
        refused(1),
        refused(2),
        refused(2, column_name="at"),
        refused(3, window_start=ONE.start),
    ]
    with any_store.state.begin() as conn:
        assert manifest.refuse_rows(conn, rows) == 4
        assert manifest.refuse_rows(conn, rows) == 0
    everything = manifest.load_refused_rows(any_store.state, SPEC.model)
    assert everything["row_number"].tolist() == [1, 2, 2, 3]
    assert len(manifest.load_refused_rows(any_store.state, SPEC.model, sha256="b")) == 0
    in_window = manifest.load_refused_rows(
        any_store.state, SPEC.model, sha256="a", start=ONE.start, end=ONE.end
    )
    assert in_window["row_number"].tolist() == [3]
    counted = manifest.count_refused(any_store.state, SPEC.model)
    assert counted == {ONE.start: {"null_id:id": 1}}
    with any_store.state.begin() as conn:
        manifest.note_discovered(conn, [file("a", status="done")])
    unplaced = manifest.count_unplaced(any_store.state, SPEC.model, T0)
    assert unplaced["n_bad"].sum() == 2  # row 2 has two reasons, and is one row


def test_refused_rows_of_a_file_can_be_forgotten(any_store: Store) -> None:
    with any_store.state.begin() as conn:
        manifest.refuse_rows(conn, [refused(1), refused(2, sha256="b")])
        manifest.forget_refused(conn, SPEC.model, "predictions", "a")
    left = manifest.load_refused_rows(any_store.state, SPEC.model)
    assert left["sha256"].tolist() == ["b"]
    assert left["row_number"].dtype == np.int64


@pytest.mark.parametrize("text", ["'; DROP TABLE silence; --", "%s", ":x", "ü"])
def test_texts_are_only_ever_values(text: str, any_store: Store) -> None:
    with any_store.state.begin() as conn:
        manifest.note_discovered(conn, [file(text)])
    assert manifest.load_files_frame(any_store.state, SPEC.model, shas=[text])[
        "sha256"
    ].tolist() == [text]
