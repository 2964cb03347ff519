"""Verdicts: metric + condition + sample size -> OK, WARN, ERROR or NO_DATA.

`evaluate` turns the metrics of some windows into rows of the table `monitor_result`. One module per
family; none of them reads a clock, a store or the environment.
"""

from mlmon_dagster.monitors.dispatch import evaluate

__all__ = ["evaluate"]
