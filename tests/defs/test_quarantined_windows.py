"""Which window reports a file that was refused as a whole."""

from __future__ import annotations

import pandas as pd
import pytest

from mlmon_dagster.families.reported_files import reported_in, sent_again, window_named_by
from tests.conftest import make_spec, window

TIME = make_spec(time={"start": "2024-01-01", "zone": "America/New_York"}).time
SPEC = make_spec(time={"start": "2024-01-01", "zone": "America/New_York"})


@pytest.mark.parametrize(
    ("path", "day"),
    [
        ("landing/predictions/2024-02-03.parquet", "2024-02-03"),
        ("landing/2023-12-01/part_20240203_a.csv", "2024-02-03"),
        ("landing/2024-02-03/part.csv", None),
        ("landing/2024-02-03_2024-02-04.csv", None),
        ("landing/20249999.csv", None),
        ("landing/1999-01-01.csv", None),
        ("landing/123456789.csv", None),
    ],
)
def test_the_one_date_in_a_files_name_names_its_window(path: str, day: str | None) -> None:
    expected = window(SPEC, f"{day}T17:00:00") if day else None

    assert window_named_by(path, TIME) == expected


def test_a_file_is_reported_by_its_named_window_else_by_the_last_one_before_it_came() -> None:
    seen = window(SPEC, "2024-02-10T17:00:00").start + pd.Timedelta(hours=6)
    files = pd.DataFrame(
        {"path": ["in/2024-02-03.csv", "in/a.csv", "in/2024-06-01.csv"], "first_seen": [seen] * 3}
    )

    named = reported_in(files, window(SPEC, "2024-02-03T17:00:00"), TIME)
    last = reported_in(files, window(SPEC, "2024-02-09T17:00:00"), TIME)

    assert list(named["path"]) == ["in/2024-02-03.csv"]
    assert list(last["path"]) == ["in/a.csv", "in/2024-06-01.csv"]


def test_a_file_that_is_rewritten_counts_what_it_repeats_once_in_the_window_before_each() -> None:
    came = [pd.Timestamp("2024-02-10T06:00Z"), pd.Timestamp("2024-02-20T06:00Z")]
    counts = {"rows_in": [60, 11], "n_duplicate": [50, 1], "n_conflict": [3, 0]}
    files = pd.DataFrame({"path": ["in/newest.csv"] * 2, "first_seen": came, **counts})

    found = [
        sent_again(reported_in(files, window(SPEC, f"{day}T17:00:00"), TIME))
        for day in ("2024-02-08", "2024-02-09", "2024-02-19")
    ]

    assert [one["n_sent"] for one in found] == [0, 60, 11]
    assert [one["n_duplicate"] for one in found] == [0, 50, 1]
