"""Objectives as rules of Prometheus, for what must wake somebody before a window is over.

The rules of `metrics.objectives` whose stretches are hours, on the counters of the serving system;
the slower ones are judged here, of what was logged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from mlmon_dagster.metrics.objectives import FEWEST_BAD, RULES, Rule
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.monitors import Objective, ObjectiveCounters
from mlmon_dagster.spec.scalars import format_duration

PAGES = RULES[:-1]


def objective_rules(spec: ModelSpec) -> str:
    """Return a file of rules, as ``rule_files`` of Prometheus names it.

    Args:
        spec: The model; its objectives that name no counters are left out.
    """
    groups = [
        {"name": f"mlmon_{spec.model}_{o.name}", "rules": list(_rules(spec, o, o.counters))}
        for o in spec.monitors.service.objectives
        if o.counters is not None
    ]
    return yaml.safe_dump({"groups": groups}, sort_keys=False, width=1_000)


def _rules(
    spec: ModelSpec, objective: Objective, counters: ObjectiveCounters
) -> Iterator[dict[str, Any]]:
    about = {"model": spec.model, "objective": objective.name}
    selected = f'{{model="{spec.model}",objective="{objective.name}"}}'
    for stretch in sorted({s for rule in PAGES for s in (rule.short, rule.long)}):
        over = format_duration(stretch)
        bad, all_of = (f"sum(rate({c}[{over}]))" for c in (counters.bad, counters.requests))
        # Where no request was ever bad, there is no series of bad ones.
        expr = f"({bad} or 0 * {all_of}) / {all_of}"
        yield {"record": _record(over), "expr": expr, "labels": about}
    for rule in PAGES:
        limit = f"{rule.factor * (1 - objective.target):.10g}"
        long, short = format_duration(rule.long), format_duration(rule.short)
        burns = " and ".join(f"{_record(over)}{selected} >= {limit}" for over in (long, short))
        enough = f"sum(increase({counters.bad}[{long}])) >= {FEWEST_BAD}"
        yield {
            "alert": f"MlmonBudgetBurns{rule.name.capitalize()}",
            "expr": f"{burns} and on() ({enough})",
            "labels": {**about, "severity": "critical"},
            "annotations": {"summary": _summary(spec, objective, rule)},
        }


def _record(over: str) -> str:
    return f"mlmon:objective_bad:ratio_rate{over}"


def _summary(spec: ModelSpec, objective: Objective, rule: Rule) -> str:
    return (
        f"{spec.model}: {objective.name} burns its budget {rule.factor:g} times too fast, over "
        f"{format_duration(rule.long)} and {format_duration(rule.short)}"
    )
