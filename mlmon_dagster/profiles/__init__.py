"""Profiles: mergeable statistics per window, slice and column, computed in the query engine."""

from mlmon_dagster.profiles.baseline import Baseline, ensure_baseline, fit_period
from mlmon_dagster.profiles.bins.fit import fit_binnings
from mlmon_dagster.profiles.build import build_profiles
from mlmon_dagster.profiles.in_force import BaselineInForce, baseline_in_force, load_baseline
from mlmon_dagster.profiles.in_parts import ProfileRows, profile_in_parts
from mlmon_dagster.profiles.storage import load_profiles, save_profiles

__all__ = [
    "Baseline",
    "BaselineInForce",
    "ProfileRows",
    "baseline_in_force",
    "build_profiles",
    "ensure_baseline",
    "fit_binnings",
    "fit_period",
    "load_baseline",
    "load_profiles",
    "profile_in_parts",
    "save_profiles",
]
