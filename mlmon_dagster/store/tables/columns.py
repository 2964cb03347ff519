"""The columns of the event log and of the inference records, derived from a spec."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.spec.declaration import attributed
from mlmon_dagster.spec.evaluations import list_texts
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.spec.spans import TOKENS, stage_calls, stage_column, stage_status
from mlmon_dagster.spec.tasks import Answer, class_scores, task_of
from mlmon_dagster.spec.windows import Window

UNMATCHED = "unmatched"  # window_date of an actual whose prediction had not arrived
EXPIRED = "expired"  # window_date of one whose prediction did not come in time
PARTITION_BY = ("dataset", "window_date")
TIME = pa.timestamp("us", tz="UTC")

_FEATURES = {
    "numeric": pa.float64(),
    "categorical": pa.string(),
    "text": pa.string(),
    "boolean": pa.bool_(),
    "datetime": TIME,
    "embedding": pa.list_(pa.float32()),
}
_ANSWERS: dict[Answer, pa.DataType] = {
    "label": pa.int64(),
    "class": pa.string(),
    "labels": pa.string(),
    "number": pa.float64(),
}
_PROVENANCE = (
    pa.field("file_sha", pa.string()),
    pa.field("row_number", pa.int64()),
    pa.field("ingested_at", TIME),
)


def prediction_schema(spec: ModelSpec) -> pa.Schema:
    """Return the columns of the log of predictions: roles, features, bookkeeping."""
    return pa.schema(
        [
            pa.field("prediction_id", pa.string()),
            pa.field("dataset", pa.string()),
            pa.field("event_time", TIME),
            pa.field("model_version", pa.string()),
            pa.field("prediction", _ANSWERS[task_of(spec).answer]),
            pa.field("score", pa.float64()),
            *(pa.field(name, pa.float64()) for name in class_scores(spec).values()),
            *(pa.field(name, pa.float64()) for name in attributed(spec).values()),
            *_list_explanations(spec),
            *_list_ranks(spec),
            pa.field("latency_ms", pa.float64()),
            pa.field("status", pa.string()),
            pa.field("trace_id", pa.string()),
            *(pa.field(name, _FEATURES[f.type]) for name, f in spec.logged_features.items()),
            pa.field("window_start", TIME),
            pa.field("window_date", pa.string()),
            pa.field("nonfinite", pa.list_(pa.string())),
            pa.field("row_hash", pa.int64()),
            *_PROVENANCE,
        ]
    )


def _list_explanations(spec: ModelSpec) -> list[pa.Field]:
    """Return what is logged beside SHAP values."""
    types = {"base_value": pa.float64(), "explainer": pa.string()}
    return [pa.field(n, t) for n, t in types.items() if getattr(spec.columns, n) is not None]


def _list_ranks(spec: ModelSpec) -> list[pa.Field]:
    if spec.columns.group is None:
        return []
    numbers = ["rank"] if task_of(spec).is_grouped else []
    numbers += ["examined"] if spec.columns.examined is not None else []
    return [pa.field("group", pa.string()), *(pa.field(name, pa.float64()) for name in numbers)]


def actual_schema(spec: ModelSpec) -> pa.Schema:
    """Return the columns of the log of actuals."""
    return pa.schema(
        [
            pa.field("prediction_id", pa.string()),
            pa.field("dataset", pa.string()),
            pa.field("actual", _ANSWERS[task_of(spec).answer]),
            pa.field("actual_time", TIME),
            *list_outcomes(spec),
            pa.field("deleted", pa.bool_()),
            pa.field("row_hash", pa.int64()),
            *_PROVENANCE,
            pa.field("window_date", pa.string()),
        ]
    )


def list_outcomes(spec: ModelSpec) -> list[pa.Field]:
    """Return what comes with the ground truth: outcomes, or evaluations and who gave them why."""
    texts = list_texts(spec.evaluations) if spec.evaluations else []
    return [
        *(pa.field(name, pa.float64()) for name in spec.columns.outcomes),
        *(pa.field(name, pa.string()) for name in texts),
    ]


def record_schema(spec: ModelSpec) -> pa.Schema:
    """Return the columns of the inference records.

    Where a row came from is not among them: it would depend on which of two equal deliveries
    came first, and records depend on contents alone.
    """
    provenance = {field.name for field in _PROVENANCE}
    return pa.schema(
        [
            *(field for field in prediction_schema(spec) if field.name not in provenance),
            pa.field("actual", _ANSWERS[task_of(spec).answer]),
            pa.field("actual_time", TIME),
            *list_outcomes(spec),
            pa.field("actual_row_hash", pa.int64()),
            pa.field("n_prediction_rows", pa.int64()),
            *span_fields(spec),
        ]
    )


def span_fields(spec: ModelSpec) -> list[pa.Field]:
    """Return the columns that records take from spans; none without a declaration."""
    if spec.spans is None:
        return []
    found = [pa.field("n_spans", pa.int64())]
    for name in spec.spans.stages:
        found.append(pa.field(stage_column(name), pa.float64()))
        found.append(pa.field(stage_status(name), pa.string()))
        found.append(pa.field(stage_calls(name), pa.float64()))
    found += [pa.field(name, pa.string()) for name in spec.spans.columns]
    if spec.spans.tokens:
        found += [pa.field(name, pa.float64()) for name in TOKENS]
    return found


def aliases_of(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """Return the earlier names of renamed features, under which older rows have them."""
    return {name: feature.alias for name, feature in spec.features.items() if feature.alias}


def stream_schema(spec: ModelSpec, stream: Stream) -> pa.Schema:
    """Return the columns of one stream's log."""
    return prediction_schema(spec) if stream == "predictions" else actual_schema(spec)


def conform(rows: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """Return rows with exactly the columns of a schema; missing ones become null.

    Raises:
        StoreError: If a column is unknown or holds values that its type cannot hold.
    """
    known = set(rows.column_names)
    unknown = sorted(known - set(schema.names))
    if unknown:
        raise StoreError(f"Unknown columns {unknown} in rows for {where}; it has {schema.names}.")
    arrays = []
    for field in schema:
        if field.name not in known:
            arrays.append(pa.nulls(rows.num_rows, field.type))
            continue
        try:
            arrays.append(rows.column(field.name).cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise StoreError(
                f"Column {field.name!r} of rows for {where} is {rows.column(field.name).type} "
                f"and cannot become {field.type}: {error}"
            ) from error
    return pa.Table.from_arrays(arrays, schema=schema)


def window_date(window: Window) -> str:
    """Return the local date on which a window starts, the partition that holds its rows."""
    return window.key[:10]


def by_date(windows: Iterable[Window]) -> dict[str, list[Window]]:
    """Return windows by the local date on which they start, in the order given."""
    found: dict[str, list[Window]] = {}
    for window in windows:
        found.setdefault(window_date(window), []).append(window)
    return found
