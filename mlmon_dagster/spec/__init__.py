"""What a user declares about a model: types, loading, windows, maturity, predicates."""

from mlmon_dagster.spec.loader import (
    BrokenModel,
    Models,
    load_model,
    load_models,
    parse_model,
    read_models,
    spec_from_mapping,
)
from mlmon_dagster.spec.model import *  # noqa: F403  (the spec's types, listed in its __all__)
from mlmon_dagster.spec.model import __all__ as _types
from mlmon_dagster.spec.predicate import ColumnKind, Predicate, parse_predicate, predicate_columns
from mlmon_dagster.spec.windows import (
    Maturity,
    Window,
    actual_coverage,
    check_window_count,
    closes_at,
    complete_windows,
    first_window,
    granularity_windows,
    has_low_coverage,
    key_format,
    maturity_of,
    production_end,
    window_containing,
    window_date,
    window_from_key,
    windows_between,
)

__all__ = [
    *_types,
    "BrokenModel",
    "ColumnKind",
    "Maturity",
    "Models",
    "Predicate",
    "Window",
    "actual_coverage",
    "check_window_count",
    "closes_at",
    "complete_windows",
    "first_window",
    "granularity_windows",
    "has_low_coverage",
    "key_format",
    "load_model",
    "load_models",
    "maturity_of",
    "parse_model",
    "parse_predicate",
    "predicate_columns",
    "production_end",
    "read_models",
    "spec_from_mapping",
    "window_containing",
    "window_date",
    "window_from_key",
    "windows_between",
]
