"""Profiles: mergeable statistics per window, slice and column, computed in the query engine."""

from mlmon_dagster.profiles.baseline import Baseline, ensure_baseline, fit_period
from mlmon_dagster.profiles.build import ProfileRows, build_profiles, profile_in_parts
from mlmon_dagster.profiles.in_force import baseline_in_force, load_baseline
from mlmon_dagster.profiles.storage import save_profiles

__all__ = [
    "Baseline",
    "ProfileRows",
    "baseline_in_force",
    "build_profiles",
    "ensure_baseline",
    "fit_period",
    "load_baseline",
    "profile_in_parts",
    "save_profiles",
]
