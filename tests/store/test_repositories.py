import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa

from mlmon_dagster.store import Store, baselines
from mlmon_dagster.store.state import manifest, monitor_results, schema
from tests.conftest import make_spec, window

SPEC = make_spec()
T0 = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
ONE, TWO = window(SPEC, "2024-01-01"), window(SPEC, "2024-01-02")


# Window state


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


def test_a_verdict_that_goes_back_to_earlier_data_replaces_the_last_one(any_store: Store) -> None:
    """Of windows that are judged together one counts, does not, and counts again."""
    many, few = verdict(value=0.1, data_version="a+b"), verdict(value=0.2, data_version="a")
    for row in (many, few, few, many, many, few):
        monitor_results.append(any_store.state, [row])
        assert monitor_results.newest(any_store.state, SPEC.model)["value"].tolist() == [
            row["value"]
        ]
    with any_store.state.connect() as conn:
        assert conn.scalar(sa.select(sa.func.count()).select_from(schema.monitor_result)) == 4


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


def test_many_files_are_updated_at_once_each_with_its_own_values(any_store: Store) -> None:
    with any_store.state.begin() as conn:
        manifest.note_discovered(conn, [file(sha) for sha in "abc"])
        rows = [{"sha256": sha, "rows_in": n, "reason": sha} for n, sha in enumerate("ab")]
        manifest.update_files(conn, SPEC.model, "predictions", rows, status="done", finished_at=T0)
    found = manifest.load_files_frame(any_store.state, SPEC.model).set_index("sha256")
    assert found["status"].to_dict() == {"a": "done", "b": "done", "c": "discovered"}
    assert found["rows_in"].to_dict() == {"a": 0, "b": 1, "c": 0}
    assert found["finished_at"].isna().to_dict() == {"a": False, "b": False, "c": True}


@pytest.mark.parametrize("text", ["'; DROP TABLE silence; --", "%s", ":x", "ü"])
def test_texts_are_only_ever_values(text: str, any_store: Store) -> None:
    with any_store.state.begin() as conn:
        manifest.note_discovered(conn, [file(text)])
    assert manifest.load_files_frame(any_store.state, SPEC.model, shas=[text])[
        "sha256"
    ].tolist() == [text]
