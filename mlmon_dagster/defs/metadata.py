"""Metadata of assets: what is known of their definition, and values that Dagster takes."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import dagster as dg

from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, production_end
from mlmon_dagster.spec.declaration import Feature, Granularity
from mlmon_dagster.spec.names import shown_url
from mlmon_dagster.spec.steps import AssetInfo
from mlmon_dagster.store.tables.columns import prediction_schema, record_schema

MAX_TABLE_ROWS = 50
SHOWN_DIGITS = 4
REBUILT = {"mlmon": "reported from the store, not computed"}
ROW_COUNT = "dagster/row_count"
PARTITION_ROW_COUNT = "dagster/partition_row_count"
# Where below the store the rows of an asset are, and their columns.
_TABLES = {
    "event_log": ("event_log/{model}/predictions", prediction_schema),
    "inference_store": ("inference_records/{model}", record_schema),
    "profiles": ("profiles/{model}", None),
}
_NEVER_NULL = ("prediction_id", "dataset", "event_time")
_METHOD_VERSION = re.compile(r'"[a-z][a-z0-9-]*-\d+"|VERSION = "[^"]+"')
_WINDOW: dict[Granularity, dt.timedelta] = {
    "hour": dt.timedelta(hours=1),
    "day": dt.timedelta(days=1),
    "week": dt.timedelta(days=7),
    "month": dt.timedelta(days=31),
}


def definition_metadata(
    project: Project, spec: ModelSpec, info: AssetInfo, declared: Path | None
) -> dict[str, object]:
    """Return what the definition of an asset says: columns, address, and where it is declared.

    Args:
        project: Where the store is.
        spec: The model.
        info: The asset.
        declared: The model's file, if it has one.
    """
    metadata: dict[str, object] = {**page_metadata(project.page_of(spec.model))}
    if info.name in _TABLES:
        below, schema = _TABLES[info.name]
        root = project.store_root
        root = shown_url(root) if "://" in root else Path(root).absolute().as_uri()
        metadata["dagster/uri"] = f"{root.rstrip('/')}/{below.format(model=spec.model)}"
        if schema is not None:
            columns = [
                _column(field.name, str(field.type), spec.features.get(field.name))
                for field in schema(spec)
            ]
            metadata["dagster/column_schema"] = dg.TableSchema(columns=columns)
    if declared is not None:
        reference = dg.LocalFileCodeReference(
            file_path=str(declared), line_number=1, label=f"{spec.model}: {declared.name}"
        )
        metadata["dagster/code_references"] = dg.CodeReferencesMetadataValue(
            code_references=[reference]
        )
    return metadata


def _column(name: str, type_: str, feature: Feature | None) -> dg.TableColumn:
    if feature is None:
        return _table_column(name, type_, None, name not in _NEVER_NULL)
    bounds = [
        f"at {word} {bound:g}"
        for word, bound in (("least", feature.min), ("most", feature.max))
        if bound is not None
    ]
    said = [feature.description, feature.unit, *bounds, "personal" if feature.pii else None]
    description = "; ".join(filter(None, said)) or f"{feature.type} feature"
    return _table_column(name, type_, description, feature.nullable)


@lru_cache(maxsize=10_000)  # most columns are the same in every model, and are checked when made
def _table_column(name: str, type_: str, description: str | None, nullable: bool) -> dg.TableColumn:
    constraints = dg.TableColumnConstraints(nullable=nullable)
    return dg.TableColumn(name, type_, description=description, constraints=constraints)


def code_version(info: AssetInfo) -> str | None:
    """Return what changes as soon as a method does by which the asset's numbers are computed."""
    if not info.formulas:
        return None
    found = {version for path in info.formulas for version in _method_versions(path)}
    return hashlib.sha256(" ".join(sorted(found)).encode()).hexdigest()[:12]


@cache
def _method_versions(path: str) -> frozenset[str]:
    """Return the method versions that formulas name.

    They stand beside the formulas. They are read as text, since to import them would load
    numpy and scipy into every process that only loads the definitions.
    """
    place = resources.files("mlmon_dagster.metrics").joinpath(path)
    texts = (file.read_text(encoding="utf-8") for file in _modules(place))
    return frozenset(version for text in texts for version in _METHOD_VERSION.findall(text))


def _modules(place: Traversable) -> Iterator[Traversable]:
    if place.is_dir():
        yield from (file for file in place.iterdir() if file.name.endswith(".py"))
    else:
        yield place


def freshness_of(spec: ModelSpec, info: AssetInfo) -> dg.FreshnessPolicy | None:
    """Return how often the newest window has to be computed: a schedule does it for each.

    Whether events still come is another question, which the check ``freshness`` answers. A model
    that has ended is computed no more.
    """
    if info.name != "inference_store" or production_end(spec.time) is not None:
        return None
    window = _WINDOW[spec.time.granularity]
    return dg.FreshnessPolicy.time_window(fail_window=2 * window, warn_window=1.5 * window)


Safe = bool | int | float | str


def safe_value(value: object) -> Safe:
    """Return a metadata value Dagster accepts.

    numpy scalars become Python's own; a number that is not finite becomes the text ``n/a``, since
    Dagster shows it as an empty cell; times become ISO 8601 text. Numbers are rounded for people:
    the metric table keeps every digit.
    """
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        value = value.item()
    if value is None:
        return "n/a"
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(f"{value:.{SHOWN_DIGITS}g}") if math.isfinite(value) else "n/a"
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    return str(value)


def safe_metadata(values: Mapping[str, object]) -> dict[str, dg.MetadataValue | Safe]:
    """Return metadata with every value safe; metadata values proper pass through."""
    return {
        key: value if isinstance(value, dg.MetadataValue) else safe_value(value)
        for key, value in values.items()
    }


def page_metadata(url: str) -> dict[str, dg.MetadataValue]:
    """Return the link to a page; nothing without `mlmon serve`."""
    return {"page": dg.MetadataValue.url(url)} if url else {}


def numbers_only(values: Mapping[str, object]) -> dict[str, float]:
    """Return only the finite numbers, so that a plot has a gap rather than a text."""
    safe = {key: safe_value(value) for key, value in values.items()}
    return {k: v for k, v in safe.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> dg.MetadataValue:
    """Return a table of at most `MAX_TABLE_ROWS` rows; values are plain text or numbers."""
    records = [
        dg.TableRecord({c: safe_value(row.get(c)) for c in columns})
        for row in rows[:MAX_TABLE_ROWS]
    ]
    schema = dg.TableSchema(columns=[dg.TableColumn(c, _column_type(records, c)) for c in columns])
    return dg.MetadataValue.table(records, schema=schema)


def _column_type(records: Sequence[dg.TableRecord], column: str) -> str:
    values = [record.data[column] for record in records]
    if values and all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        return "int"
    numeric = values and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return "float" if numeric else "string"
