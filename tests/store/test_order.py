"""The records are a function of the set of inputs, whatever their order and repetition."""

import datetime as dt
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.tables.columns import actual_schema, prediction_schema
from tests.conftest import make_spec, window

SPEC = make_spec()
WINDOWS = [window(SPEC, f"2024-01-0{day}") for day in (1, 2, 3)]
ids = st.sampled_from(["a", "b", "c", "d"])
hours = st.integers(0, 71)
Row = tuple[str, dict[str, Any]]


def moment(hour: int) -> dt.datetime:
    return dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=hour)


def predicted(id_: str, dataset: str, hour: int, age: int) -> Row:
    time = moment(hour)
    return "predictions", {
        "prediction_id": id_,
        "dataset": dataset,
        "event_time": time,
        "age": float(age),
        "window_start": time.replace(hour=0),
        "window_date": time.date().isoformat(),
        "row_hash": hour * 10 + age,
    }


def known(id_: str, dataset: str | None, hour: int, actual: int, deleted: bool) -> Row:
    return "actuals", {
        "prediction_id": id_,
        "dataset": dataset,
        "actual": actual,
        "actual_time": moment(hour),
        "deleted": deleted,
        "row_hash": hour * 4 + actual * 2 + deleted,
    }


datasets = st.sampled_from(["production", "training"])
rows = st.builds(predicted, ids, datasets, hours, st.integers(0, 1)) | st.builds(
    known, ids, st.none() | datasets, hours, st.integers(0, 1), st.booleans()
)


def append(store: Store, batch: Sequence[Row], sha: str) -> None:
    for stream, schema in (
        ("predictions", prediction_schema(SPEC)),
        ("actuals", actual_schema(SPEC)),
    ):
        found = [{**row, "file_sha": sha} for kind, row in batch if kind == stream]
        names = list(found[0]) if found else []
        if found:
            table = pa.Table.from_pylist(found, pa.schema([schema.field(n) for n in names]))
            store.event_log(SPEC).append(stream, table, [sha])  # type: ignore[arg-type]


def outcome(store: Store) -> tuple[object, object]:
    records = store.inference_records(SPEC)
    counts = [count for one in WINDOWS for count in records.rebuild([one])]
    key = [("dataset", "ascending"), ("prediction_id", "ascending")]
    return counts, records.read().sort_by(key).to_pylist()


@pytest.mark.slow
@settings(max_examples=5)  # `make prove` has more, killed in between
@given(st.lists(rows, min_size=1, max_size=14), st.data())
def test_any_order_repetition_and_batching_of_rows_gives_the_same_records(
    logged: list[Row], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(logged), max_size=4))
    shuffled = data.draw(st.permutations(logged + again))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(shuffled)), max_size=3)))
    with tempfile.TemporaryDirectory() as folder:
        whole, pieces = (open_store(Path(folder) / name) for name in ("whole", "pieces"))
        append(whole, logged, "whole")
        for start, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True):
            append(pieces, shuffled[start:end], f"{start}")
            outcome(pieces)  # rebuilding in between must not matter
        assert outcome(pieces) == outcome(whole) == reference(logged)
        whole.close()
        pieces.close()


def reference(logged: Sequence[Row]) -> tuple[object, object]:
    """Compute the records in plain Python, over all rows at once."""
    by_id: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for kind, row in logged:
        if kind == "predictions":
            by_id.setdefault((row["dataset"], row["prediction_id"]), []).append(row)
    records = []
    for (dataset, id_), found in sorted(by_id.items()):
        actuals = [
            row
            for kind, row in logged
            if kind == "actuals"
            and row["prediction_id"] == id_
            and row["dataset"] in (None, dataset)
        ]
        winner = min(found, key=lambda row: (row["event_time"], row["row_hash"]))
        newest = max(actuals, key=lambda r: (r["actual_time"], r["row_hash"]), default=None)
        if newest is not None and newest["deleted"]:
            newest = None
        records.append(
            dict.fromkeys(
                [
                    "model_version",
                    "prediction",
                    "score",
                    "latency_ms",
                    "status",
                    "trace_id",
                    "region",
                    "nonfinite",
                    "revenue",
                ]
            )
            | winner
            | {
                "actual": newest and newest["actual"],
                "actual_time": newest and newest["actual_time"],
                "actual_row_hash": newest and newest["row_hash"],
                "n_prediction_rows": len({row["row_hash"] for row in found}),
            }
        )
    return Anything(), records


class Anything:
    """Equal to whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__
