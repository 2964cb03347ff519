"""Every family of monitors by name, and by the asset that measures it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from mlmon_dagster.families.family import Family
from mlmon_dagster.spec.monitors import FAMILIES


def _load_family(name: str) -> Family:
    """Import the module that is called as a family is, so that nothing lists them twice."""
    found: Family = import_module(f"mlmon_dagster.families.{name}").FAMILY
    return found


# Each family's name -> its record.
JUDGED_BY: Mapping[str, Family] = {name: _load_family(name) for name in FAMILIES}
# The asset that measures a family's metrics -> the family, in the order of the assets.
MEASURED_BY: Mapping[str, Family] = {
    family.step: family for family in JUDGED_BY.values() if family.measure is not None
}
