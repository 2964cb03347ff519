"""Profiles: mergeable statistics per window, slice and column, computed in the query engine."""

from mlmon_dagster.profiles.binning import fit_binnings
from mlmon_dagster.profiles.build import build_profiles

__all__ = ["build_profiles", "fit_binnings"]
