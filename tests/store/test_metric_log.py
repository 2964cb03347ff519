import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state import metric_log, schema
from mlmon_dagster.store.state.sql import read_frame

T0 = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def frame(value: float = 1.0, **more: Any) -> pd.DataFrame:
    row = {
        "model": "credit",
        "dataset": "production",
        "window_start": T0,
        "window_end": T0 + DAY,
        "granularity": "day",
        "column_name": "age",
        "metric": "psi",
        "baseline_id": "b1",
        "method_version": "psi-1",
        "data_version": "v1",
        "value": value,
        "n": 100,
        "computed_at": T0 + DAY,
    }
    return pd.DataFrame([row | more])


def values(store: Store, **chosen: Any) -> list[float]:
    return metric_log.newest(store.state, "credit", **chosen)["value"].tolist()


def test_a_metric_comes_back_with_the_defaults_of_what_was_left_out(any_store: Store) -> None:
    assert metric_log.append(any_store.state, frame(0.25)) == 1
    (row,) = metric_log.newest(any_store.state, "credit").to_dict("records")
    assert (row["value"], row["n"], row["slice_key"], row["reason"]) == (0.25, 100, "all", "")
    assert row["window_start"] == pd.Timestamp(T0)
    assert np.isnan(row["p_value"])


def test_what_chance_gives_comes_back_with_the_interval_to_the_last_bit(any_store: Store) -> None:
    rng = np.random.default_rng(3)
    value = rng.gamma(1.0, size=200)
    lower = value - np.where(rng.random(200) < 0.5, rng.random(200), np.nan)
    ends = {"lower": lower, "upper": value + (value - lower)}
    known = pd.DataFrame({"value": value, "by_chance": rng.gamma(0.1, size=200), **ends})
    names = [f"c{i:03}" for i in range(200)]
    given_rows = pd.concat([frame(column_name=name) for name in names], ignore_index=True)
    metric_log.append(any_store.state, given_rows.assign(**known))

    found = metric_log.newest(any_store.state, "credit")
    pd.testing.assert_frame_equal(found[list(known)], known, check_exact=True)
    view = read_frame(any_store.state, sa.select(schema.mlmon_metric)).sort_values("column_name")
    pd.testing.assert_frame_equal(view[list(known)].reset_index(drop=True), known, check_exact=True)
    before = found["computed_at"]
    metric_log.append(any_store.state, found.assign(computed_at=T0 + 9 * DAY))
    assert metric_log.newest(any_store.state, "credit")["computed_at"].equals(before)


def test_a_distance_whose_interval_is_not_even_is_refused(any_store: Store) -> None:
    with pytest.raises(StoreError, match="as far up as"):
        metric_log.append(any_store.state, frame(0.5, by_chance=0.1, lower=0.4, upper=0.7))


def test_no_metrics_have_the_same_columns_and_types_as_some(any_store: Store) -> None:
    empty = metric_log.newest(any_store.state, "credit")
    metric_log.append(any_store.state, frame())
    pd.testing.assert_series_equal(
        empty.dtypes, metric_log.newest(any_store.state, "credit").dtypes
    )
    assert metric_log.append(any_store.state, frame().iloc[:0]) == 0


@pytest.mark.parametrize("change", ["data_version", "method_version", "baseline_id"])
def test_the_later_version_is_the_newest_even_if_the_clock_stood_still(
    change: str, any_store: Store
) -> None:
    for value, version in ((1.0, "z"), (2.0, "a"), (3.0, "m"), (4.0, "z")):
        metric_log.append(any_store.state, frame(value, **{change: version}))
        assert values(any_store) == [value]


def test_metrics_can_be_chosen_by_all_that_identifies_them(any_store: Store) -> None:
    metric_log.append(
        any_store.state,
        pd.concat(
            [
                frame(1.0),
                frame(2.0, column_name="region"),
                frame(3.0, metric="ks"),
                frame(4.0, slice_key="region", slice_value="north"),
                frame(5.0, dataset="shadow"),
                frame(6.0, model_version="7"),
                frame(7.0, granularity="week"),
                frame(8.0, window_start=T0 + DAY, baseline_id="b2"),
                frame(9.0, model="another"),
            ]
        ).fillna({"model_version": "all", "slice_key": "all", "slice_value": "all"}),
    )
    chosen: list[tuple[dict[str, Any], set[float]]] = [
        ({"column": "region"}, {2}),
        ({"column": ["region", "nothing"]}, {2}),
        ({"metric": "ks"}, {3}),
        ({"slice_key": "region"}, {4}),
        ({"slice_key": "all", "slice_value": "all"}, {1, 2, 3, 5, 6, 7, 8}),
        ({"dataset": "shadow"}, {5}),
        ({"model_version": "7"}, {6}),
        ({"granularity": "week"}, {7}),
        ({"baseline_id": "b2"}, {8}),
        ({"start": T0 + DAY}, {8}),
        ({"end": T0 + DAY, "column": "age", "metric": "psi"}, {1, 4, 5, 6, 7}),
        ({"metric": []}, set()),
    ]
    for conditions, expected in chosen:
        assert set(values(any_store, **conditions)) == expected, conditions


def test_values_that_are_no_numbers_are_stored_as_null(any_store: Store) -> None:
    metric_log.append(any_store.state, frame(np.nan, lower=np.inf, upper=-np.inf))
    (row,) = metric_log.newest(any_store.state, "credit").to_dict("records")
    assert np.isnan([row["value"], row["lower"], row["upper"]]).all()


@pytest.mark.parametrize("text", ["", "a,b", 'say "x"', "line\nbreak", "\\N", "\\.", "NULL", "ü日"])
def test_texts_survive_whatever_they_hold(text: str, any_store: Store) -> None:
    metric_log.append(any_store.state, frame(slice_key="s", slice_value=text, reason=text))
    (row,) = metric_log.newest(any_store.state, "credit", slice_value=text).to_dict("records")
    assert (row["slice_value"], row["reason"]) == (text, text)


def test_unknown_and_missing_columns_are_named(any_store: Store) -> None:
    bad = frame().drop(columns="metric").assign(oops=1)
    with pytest.raises(StoreError, match=r"unknown columns \['oops'\] .* columns \['metric'\]"):
        metric_log.append(any_store.state, bad)


def test_null_keys_and_naive_times_are_refused(any_store: Store) -> None:
    with pytest.raises(StoreError, match=r"'metric' .* must not be null"):
        metric_log.append(any_store.state, frame(metric=None))
    with pytest.raises(StoreError, match="timezone-aware"):
        metric_log.append(any_store.state, frame(window_end=dt.datetime(2024, 1, 2)))  # noqa: DTZ001
    with pytest.raises(StoreError, match="Column 'n' of metrics"):
        metric_log.append(any_store.state, frame(n="many"))
    assert values(any_store) == []


@pytest.mark.proof
def test_many_metrics_are_written_in_one_go(any_store: Store) -> None:
    n = 20_000  # a statement of each would have more parameters than any database takes
    many = pd.DataFrame({**frame().iloc[0].to_dict(), "column_name": [f"c{i}" for i in range(n)]})
    assert metric_log.append(any_store.state, many) == n
    assert len(metric_log.newest(any_store.state, "credit")) == n


NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0])
END = NUMBER | st.just(float("nan"))


@given(st.lists(st.tuples(END, END, END), min_size=1), st.booleans())
def test_intervals_are_stored_without_what_the_value_says_and_read_back_to_the_last_bit(
    numbers: list[tuple[float, float, float]], is_degenerate: bool
) -> None:
    value, lower, upper = np.array(numbers).T.copy()
    if is_degenerate:
        lower = value.copy()
    stored = metric_log.stored_ends(value, lower, upper)
    found = metric_log.read_ends(value, *stored)
    for before, after in zip((lower, upper), found, strict=True):
        assert np.array_equal(before.view(np.int64), after.view(np.int64)) or np.array_equal(
            np.nan_to_num(before), np.nan_to_num(after)
        )


def test_repeating_what_is_known_keeps_the_time_of_the_first_computation(store: Store) -> None:
    metric_log.append(store.state, frame(1.0))
    metric_log.append(store.state, frame(1.0, computed_at=T0 + 3 * DAY))
    assert metric_log.newest(store.state, "credit")["computed_at"].tolist() == [T0 + DAY]


WRITER = """if True:
    import sys
    import pandas as pd
    from mlmon_dagster.store import open_store
    from mlmon_dagster.store.state import metric_log
    from tests.store.test_metric_log import DAY, T0, frame
    name, place, url = sys.argv[1:]
    store = open_store(place, url)
    print("ready", flush=True)
    sys.stdin.readline()
    for day in range(8):
        at = {"window_start": T0 + day * DAY, "window_end": T0 + (day + 1) * DAY}
        both = [frame(day, column_name=f"c{n}", **at) for n in range(20)]
        mine = [frame(day, column_name=f"{name}{n}", **at) for n in range(20)]
        metric_log.append(store.state, pd.concat(both + mine))
"""


@pytest.mark.proof
def test_two_processes_that_write_one_model_at_once_lose_nothing_and_write_nothing_twice(
    pg_url: str, tmp_path: Path
) -> None:
    store = open_store(tmp_path / "store", pg_url)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, name, str(tmp_path / "store"), pg_url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in ("left", "right")
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]

    found = metric_log.newest(store.state, "credit")
    named = found["column_name"].str.rstrip("0123456789").value_counts().to_dict()
    assert named == {"c": 160, "left": 160, "right": 160}  # 8 windows of 20 columns each
    assert not found.duplicated(["window_start", "column_name"]).any()
    assert (found["value"] == (found["window_start"] - T0).dt.days).all()
    with store.state.connect() as conn:
        sizes = [
            conn.scalar(sa.select(sa.func.count()).select_from(table))
            for table in (schema.series, schema.metric_window, schema.sample, schema.sample_history)
        ]
    assert sizes == [60, 8, 480, 0]
    store.close()


Naive = dict[tuple[Any, ...], dict[str, Any]]  # of what is the newest, by what it is about
TOGETHER = ("dataset", "window_start", "granularity", "metric")
ABOUT = (*TOGETHER, "column_name", "slice_value", "model_version")


def retell(known: Naive, rows: pd.DataFrame) -> Naive:
    """Say what stands after a computation: a metric's other data versions of a window are gone."""
    found = dict(known)
    for row in rows.to_dict("records"):
        together = tuple(row[name] for name in TOGETHER)
        found = {
            key: old
            for key, old in found.items()
            if key[: len(TOGETHER)] != together or old["data_version"] == row["data_version"]
        }
        found[tuple(row[name] for name in ABOUT)] = row
    return found


def told(known: pd.DataFrame) -> list[tuple[Any, ...]]:
    names = [*ABOUT, "data_version", "method_version", "baseline_id", "value", "n", "reason"]
    return sorted(known[names].itertuples(index=False, name=None), key=str)


@pytest.mark.parametrize("seed", range(3))
def test_after_drawn_computations_now_and_then_are_what_a_plain_account_of_them_says(
    any_store: Store, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    known: Naive = {}
    moments: list[tuple[dt.datetime, Naive]] = []
    for step in range(30):
        now = T0 + (20 + step) * DAY
        version, method = f"v{rng.integers(3)}", f"m{rng.integers(2)}"
        some = [
            frame(
                float(rng.integers(9)), window_start=T0 + day * DAY, metric=metric,
                window_end=T0 + (day + 1) * DAY, column_name=str(rng.choice(["a", "b", "c"])),
                slice_value=str(rng.choice(["all", "n"])), n=int(rng.integers(9)),
                data_version=version, method_version=method, baseline_id=f"b{rng.integers(2)}",
                computed_at=now, model_version="all", reason="",
            )
            for day in rng.choice(4, 2, replace=False)
            for metric in rng.choice(["psi", "js", "ks"], 2, replace=False)
        ]  # fmt: skip
        rows = pd.concat(some, ignore_index=True)
        metric_log.append(any_store.state, rows)
        known = retell(known, rows)
        moments.append((now, known))
        assert told(metric_log.newest(any_store.state, "credit")) == told(
            pd.DataFrame(list(known.values()))
        )
    for now, then in moments:
        seen = metric_log.newest(any_store.state, "credit", as_of=now + DAY / 2)
        assert told(seen) == told(pd.DataFrame(list(then.values())))
