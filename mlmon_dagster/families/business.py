"""Family business: what came of the predictions, judged as performance is."""

from __future__ import annotations

from mlmon_dagster.families.family import measure_profiles
from mlmon_dagster.families.performance import judge_alike
from mlmon_dagster.spec.monitors import BUSINESS

FAMILY = judge_alike(BUSINESS, measure_profiles(BUSINESS, lambda spec: "nothing"))
