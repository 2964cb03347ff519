"""What metrics said before: rows that a later computation under the same key replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from mlmon_dagster.store.state import schema
from mlmon_dagster.store.state.bulk import write_frame
from mlmon_dagster.store.state.frames import frame_of

if TYPE_CHECKING:
    import pandas as pd

_TABLE = schema.metric
_GROUP = ["model", "dataset", "window_start", "granularity", "metric"]
_VERSION = ["baseline_id", "method_version", "data_version"]
_SAID = ("value", "lower", "upper", "n", "n_baseline", "baseline_kind", "p_value",
         "actual_coverage", "maturity", "reason", "window_end")  # fmt: skip


def keep_history(conn: sa.Connection, frame: pd.DataFrame) -> pd.DataFrame:
    """Copy the rows that a frame is about to replace to the history.

    Args:
        conn: The transaction that goes on to write the frame.
        frame: Metrics, as given to `metric_log.append`.

    Returns:
        The rows to write: those that say the same as the newest row of their window are left
        out, so that its time stays that of the first computation.
    """
    import numpy as np

    stored = _stored(conn, frame)
    if stored.empty:
        return frame
    keys = list(schema.METRIC_KEYS)
    full = _with_defaults(frame).drop_duplicates(keys, keep="last")
    pairs = full.merge(stored, on=keys, how="left", suffixes=("", "_before"), indicator=True)
    known = (pairs["_merge"] == "both").to_numpy()
    same = known & pairs["is_newest"].eq(True).to_numpy()
    for name in _SAID:
        a, b = pairs[name], pairs[f"{name}_before"]
        if a.dtype.kind == "f" or b.dtype.kind == "f":
            x, y = (
                a.to_numpy(dtype=float, na_value=np.nan),
                b.to_numpy(dtype=float, na_value=np.nan),
            )
            x, y = (np.where(np.isfinite(v), v, np.nan) for v in (x, y))
            same &= (x == y) | (np.isnan(x) & np.isnan(y))
        else:
            same &= (a == b).to_numpy()
    moment = (pairs["computed_at"] != pairs["computed_at_before"]).to_numpy()
    replaced = pairs.loc[known & ~same & moment, keys]
    if len(replaced):
        rows = stored.merge(replaced, on=keys).drop(columns="is_newest")
        write_frame(conn, schema.metric_history, rows)
    return frame.drop_duplicates([k for k in keys if k in frame], keep="last")[~same]


def _stored(conn: sa.Connection, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the stored rows of the frame's windows and data versions."""
    c = _TABLE.c
    first, last = frame["window_start"].min(), frame["window_start"].max()
    here = [
        c.model.in_(frame["model"].unique().tolist()),
        c.window_start.between(first.to_pydatetime(), last.to_pydatetime()),
        c.metric.in_(frame["metric"].unique().tolist()),
    ]
    versions = frame["data_version"].unique().tolist()
    query = sa.select(_TABLE).where(*here, c.data_version.in_(versions))
    stored = frame_of(conn, query)
    if stored.empty:
        return stored
    ranked = frame_of(
        conn,
        sa.select(
            *(c[name] for name in (*_GROUP, *_VERSION)),
            sa.func.max(c.computed_at, type_=c.computed_at.type).label("computed_at"),
            sa.func.max(c.sequence, type_=c.sequence.type).label("sequence"),
        )
        .where(*here)
        .group_by(*(c[name] for name in (*_GROUP, *_VERSION))),
    ).sort_values(["computed_at", "sequence"])
    newest = ranked.drop_duplicates(_GROUP, keep="last")[[*_GROUP, *_VERSION]]
    return stored.merge(newest.assign(is_newest=True), on=[*_GROUP, *_VERSION], how="left")


def _with_defaults(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with all columns, absent ones as the database would fill them."""
    missing: dict[str, Any] = {}
    for column in _TABLE.c:
        if column.name not in frame.columns and column.name != "sequence":
            default = column.server_default
            value = default.arg if isinstance(default, sa.DefaultClause) else None
            is_count = isinstance(column.type, sa.BigInteger)
            missing[column.name] = (
                float("nan") if value is None else int(str(value)) if is_count else str(value)
            )
    times = {n: frame[n].dt.as_unit("us") for n in ("window_start", "window_end", "computed_at")}
    return frame.assign(**missing, **times)
