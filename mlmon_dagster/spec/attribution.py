"""How much each feature counts for a model's outputs: SHAP values that are logged with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mlmon_dagster.spec.names import column_problem, did_you_mean, listed
from mlmon_dagster.spec.shap import FEATURE, attribution_column, shap_columns

if TYPE_CHECKING:
    from mlmon_dagster.spec.declaration import Declaration


ATTRIBUTION: Final = "attribution"  # of a feature
SHIFT: Final = "attribution_shift"  # of the same, from the baseline's
Found = Iterator[tuple[tuple[str | int, ...], str]]


def attributed(spec: Declaration) -> dict[str, str]:
    """Return feature -> the store's column of its SHAP values, in the order of the features."""
    known = shap_columns(spec.columns.shap, spec.features)
    return {name: attribution_column(name) for name in spec.features if name in known}


def attribution_problems(spec: Declaration) -> Found:
    """Find SHAP columns of no feature, or of two, and a monitor without them."""
    columns = shap_columns(spec.columns.shap, spec.features)
    for name, column in columns.items():
        where = ("columns", "shap", name)
        if name not in spec.features:
            hint = did_you_mean(name, spec.features) or "."
            yield where, f"'{name}' is not a feature{hint} Known: {listed(spec.features)}"
        elif problem := column_problem(column):
            yield where, problem
        elif column in spec.features:
            yield where, f"'{column}' is a feature; its SHAP values are another column"
    if spec.columns.shap is not None and len(columns) < 2:
        yield ("columns", "shap"), "a share needs the SHAP values of at least two features"
    if len(set(columns.values())) < len(columns):
        yield ("columns", "shap"), "two features have the same column"
    monitor = spec.monitors.drift
    wanted = "attribution" in monitor.model_fields_set and monitor.attribution is not None
    if wanted and spec.columns.shap is None:
        yield (
            ("monitors", "drift", "attribution"),
            f"attributions are measured from columns.shap; declare it, such as shap_{FEATURE}",
        )
