"""What is profiled of SHAP values: every feature's share of a row's attributions."""

from __future__ import annotations

from mlmon_dagster.profiles.losses import ATTRIBUTED, Values
from mlmon_dagster.spec.attribution import attributed
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store.sql import quote_identifier


def attribution_columns(spec: ModelSpec) -> Values:
    """Return name -> kind and SQL expression: |SHAP| / the row's sum of |SHAP|, 0 to 1.

    NULL in rows that lack the value of a feature, or whose values are all 0.
    """
    # A quarter of each, so that no sum of numbers is beyond all numbers.
    sizes = {name: f"ABS({quote_identifier(c)} / 4)" for name, c in attributed(spec).items()}
    total = " + ".join(sizes.values())
    return {loss_of(name): ("loss", f"{size} / NULLIF({total}, 0)") for name, size in sizes.items()}


def loss_of(feature: str) -> str:
    """Return the name of the profiled column of a feature's share."""
    return f"{ATTRIBUTED}{feature}"
