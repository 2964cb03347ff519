"""Which window reports a file that was refused as a whole."""

from __future__ import annotations

import pandas as pd
import pytest

from mlmon_dagster.defs.refused import reported_in, window_named_by
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

    assert reported_in(files, window(SPEC, "2024-02-03T17:00:00"), TIME) == ["in/2024-02-03.csv"]
    last = reported_in(files, window(SPEC, "2024-02-09T17:00:00"), TIME)
    assert last == ["in/a.csv", "in/2024-06-01.csv"]
