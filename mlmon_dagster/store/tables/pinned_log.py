"""One state of the event log, held still while windows are rebuilt from it."""

from __future__ import annotations

from collections.abc import Sequence

from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store.tables.columns import stream_schema
from mlmon_dagster.store.tables.delta import Snapshot
from mlmon_dagster.store.tables.delta_sql import select_sql


class PinnedLog:
    """One state of the log, as subqueries for rebuilding windows."""

    def __init__(
        self,
        spec: ModelSpec,
        predictions: Snapshot | None,
        actuals: Snapshot | None,
        moved: Snapshot | None,
    ) -> None:
        self._snapshots = {"predictions": predictions, "actuals": actuals}
        self._spec = spec
        self.moved = moved

    def count_rows(self, dates: set[str]) -> dict[str, int]:
        """Return the number of logged predictions of each window date, duplicates included."""
        counts = dict.fromkeys(sorted(dates), 0)
        snapshot = self._snapshots["predictions"]
        for file in [] if snapshot is None else snapshot.files:
            if file.partition["window_date"] in counts:
                counts[file.partition["window_date"]] += file.n_rows
        return counts

    def moved_sql(self) -> str | None:
        """Return all (prediction_id, window_date) of moved ids as a subquery; None if none."""
        return None if self.moved is None else self.moved.from_sql()

    def sql(
        self,
        stream: Stream,
        columns: Sequence[str],
        dates: set[str],
        datasets: set[str] | None = None,
    ) -> str:
        """Return the rows of some window dates (and datasets) as a subquery."""
        snapshot = self._snapshots[stream]
        if snapshot is None:
            return select_sql([], stream_schema(self._spec, stream), columns, None)
        return snapshot.from_sql(
            columns,
            lambda p: p["window_date"] in dates and (datasets is None or p["dataset"] in datasets),
        )
