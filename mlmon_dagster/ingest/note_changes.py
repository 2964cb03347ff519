"""Note when the columns of a stream's files became others, with the files that show it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from mlmon_dagster.ingest.file_layout import carried_over, changes_between, layout_from
from mlmon_dagster.ingest.layout import columns_of
from mlmon_dagster.ingest.prepare import Prepared
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import schema_changes

_LIVE = ("production", "shadow", "canary")


def note_changes(
    conn: sa.Connection, spec: ModelSpec, batch: Sequence[Prepared], now: dt.datetime
) -> None:
    """Compare each file of a batch with the ones before it, oldest window first.

    Files without live predictions are left out, since exports of training and validation data
    often have other columns; so are predictions older than the last change, which came late.
    """
    layouts = [file.layout for file in batch if file.layout]
    if not layouts:
        return
    stored = schema_changes.layout(conn, spec.model, batch[0].staged.stream)
    before = layout_from(stored.text) if stored else None
    if before and all(carried_over(before, layout) == before for layout in layouts):
        return
    placed = [(_first_window(file), file.staged.name, file) for file in batch if file.layout]
    order = sorted(
        (item for item in placed if item[2].staged.stream == "actuals" or item[0] is not None),
        key=lambda item: (item[0] or now, item[1]),
    )
    for window, path, file in order:
        _note(conn, spec, file, window, path, now)


def _note(
    conn: sa.Connection,
    spec: ModelSpec,
    file: Prepared,
    window: dt.datetime | None,
    path: str,
    now: dt.datetime,
) -> None:
    assert file.layout is not None
    stream = file.staged.stream
    stored = schema_changes.layout(conn, spec.model, stream)
    if stored is None:
        schema_changes.save_layout(conn, spec.model, stream, file.layout.text(), window, now)
        return
    before = layout_from(stored.text)
    is_old = window is not None and stored.window_start is not None and window < stored.window_start
    after = carried_over(before, file.layout)
    if is_old or after == before:
        return
    found = changes_between(before, after, columns_of(spec, stream))
    schema_changes.note(
        conn, spec.model, stream, found, sha256=file.staged.sha256, path=path,
        window_start=window, now=now,
    )  # fmt: skip
    schema_changes.save_layout(conn, spec.model, stream, after.text(), window, now)


def _first_window(file: Prepared) -> dt.datetime | None:
    """Return the first window that a file has live predictions of."""
    rows = file.rows
    if file.staged.stream != "predictions" or not rows.num_rows:
        return None
    live = pc.is_in(rows.column("dataset"), pa.array(_LIVE))
    first = pc.min(rows.column("window_start").filter(live)).as_py()
    return None if first is None else first.astimezone(dt.UTC)
