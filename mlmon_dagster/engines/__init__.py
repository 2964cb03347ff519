"""Where work on parts runs: in this process, or on a cluster that is there already.

A part is rows that can be worked on alone, whose result merges. The work is the same function
everywhere, so where it runs changes no number.
"""

from mlmon_dagster.engines.chosen import engine_for
from mlmon_dagster.engines.engine import Engine

__all__ = ["Engine", "engine_for"]
