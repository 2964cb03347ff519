"""What a user declares about a model: types, loading, windows, maturity, predicates."""

from mlmon_dagster.spec.files.loader import (
    BrokenModel,
    Models,
    load_model,
    load_models,
    parse_model,
    read_models,
    spec_from_mapping,
)
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.predicate import Predicate, parse_predicate, predicate_columns
from mlmon_dagster.spec.windows import (
    Maturity,
    Window,
    check_window_count,
    complete_windows,
    first_window,
    granularity_windows,
    maturity_of,
    production_end,
    window_containing,
    window_date,
    window_from_key,
    windows_between,
)

__all__ = [
    "BrokenModel",
    "Maturity",
    "ModelSpec",
    "Models",
    "Predicate",
    "Window",
    "check_window_count",
    "complete_windows",
    "first_window",
    "granularity_windows",
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
