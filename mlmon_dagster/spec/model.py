"""What a user declares about one deployed model; pure pydantic, free of dagster.

What of it decides about profiles is told apart, so that a change elsewhere computes nothing again.
"""

from __future__ import annotations

import hashlib
import json
from typing import Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from mlmon_dagster.spec.baseline import (
    default_baseline,
)
from mlmon_dagster.spec.checks import find_problems
from mlmon_dagster.spec.declaration import (
    Declaration,
    Feature,
    attributed,
    with_evaluations,
)
from mlmon_dagster.spec.evaluations import FORMAT
from mlmon_dagster.spec.monitors import (
    BusinessMonitor,
    shap_columns,
)
from mlmon_dagster.spec.names import BUSINESS, ESTIMATED_PERFORMANCE, PERFORMANCE
from mlmon_dagster.spec.sources import FileSource
from mlmon_dagster.spec.tasks import (
    default_estimates,
    default_levels,
    default_performance,
    outcomes_of,
    task_signature,
)


class ModelSpec(Declaration):
    """One monitored model: a declaration whose parts fit together, with its defaults."""

    def __hash__(self) -> int:
        """Hash the name alone: lookups by a model are many, and of one name specs are few."""
        return hash(self.model)

    @model_validator(mode="after")
    def _defaults_of_the_whole(self) -> Self:
        if self.evaluations:
            self.__dict__["columns"] = with_evaluations(self.columns, self.evaluations)
            actuals = self.source.actuals
            if isinstance(actuals, FileSource) and "format" not in actuals.model_fields_set:
                read = actuals.model_copy(update={"format": FORMAT})
                self.__dict__["source"] = self.source.model_copy(update={"actuals": read})
        if isinstance(self.columns.shap, str):
            shap = shap_columns(self.columns.shap, self.logged_features)
            self.__dict__["columns"] = self.columns.model_copy(update={"shap": shap})
        # Beside pydantic, so that a default still counts as not declared.
        if "baseline" not in self.model_fields_set or self.baseline.model_fields_set == {"asset"}:
            found = default_baseline(self.names_datasets, self.time.granularity)
            self.__dict__["baseline"] = found.model_copy(update={"asset": self.baseline.asset})
        monitors = self.monitors.model_copy()
        if PERFORMANCE not in self.monitors.model_fields_set:
            monitors.__dict__[PERFORMANCE] = default_performance(self)
        monitors.__dict__[PERFORMANCE] += default_levels(self, monitors.performance)
        monitors.__dict__[BUSINESS] = tuple(self._with_outcome(m) for m in monitors.business)
        self.__dict__["monitors"] = monitors
        if ESTIMATED_PERFORMANCE not in self.monitors.model_fields_set:
            monitors = self.monitors.model_copy()
            monitors.__dict__[ESTIMATED_PERFORMANCE] = default_estimates(self)
            self.__dict__["monitors"] = monitors
        return self

    def _with_outcome(self, monitor: BusinessMonitor) -> BusinessMonitor:
        """Return a monitor that names the only outcome that it can be of."""
        fit = outcomes_of(self, monitor.metric)
        only = fit[0] if len(fit) == 1 and monitor.outcome is None else monitor.outcome
        return monitor.model_copy(update={"outcome": only})

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        problems = find_problems(self)
        if problems:
            text = "; ".join(f"{'.'.join(map(str, p.path))}: {p.message}" for p in problems)
            # The loader reads the list again, to give each problem its own line.
            raise PydanticCustomError(
                "spec_problems", "{text}", {"text": text, "problems": problems}
            )
        return self


def profile_signature(spec: ModelSpec) -> list[object]:
    """Return all of a spec that decides about bins and profiles, as plain values.

    A change makes another baseline, and every window is computed again.
    """
    return [
        spec.baseline.dataset,
        spec.task,
        sorted(spec.columns.model_dump(exclude_none=True)),
        {name: _dump_feature(feature) for name, feature in spec.features.items()},
        spec.slices,
        [spec.time.zone, spec.time.granularity],
        task_signature(spec),
        *profiled_besides(spec),
    ]


def _dump_feature(feature: Feature) -> dict[str, object]:
    """Return what of a feature decides about numbers; of what is computed, what it is."""
    people = {"importance", "description", "unit", "nullable", "null_rate", "describe"}
    unused = {name for name in ("embedder", "prices") if getattr(feature, name) is None}
    return feature.model_dump(exclude=people | unused)


def profile_digest(spec: ModelSpec) -> str:
    """Return a short text that changes when a baseline of another kind or content is needed."""
    content = json.dumps([spec.baseline.is_rolling, *profile_signature(spec)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def profiled_besides(spec: ModelSpec) -> list[object]:
    """Return it as plain values; a change makes another baseline. Empty for most models."""
    found: list[object] = []
    if any(feature.type == "datetime" for feature in spec.features.values()):
        found.append("ages")  # before, of a time the time itself was profiled
    if spec.embeddings:
        found.append("four of five")  # of a topic's rows are like it; before, nine of ten
    if spec.spans is not None:
        found.append(["spans", *spec.spans.stages])
        found += [["columns", *spec.spans.columns]] if spec.spans.columns else []
        found += ["tokens"] if spec.spans.tokens else []
    if attributed(spec):
        explain = spec.explain.model_dump(exclude_defaults=True)
        found.append(["shap", explain, *attributed(spec)])
    if spec.evaluations:
        judged = {name: [e.by, e.of, e.good is None] for name, e in spec.evaluations.items()}
        found.append(["evaluations", judged])
    if spec.actuals.no_actual_when is not None:
        found.append(["exempt", spec.actuals.no_actual_when])
    if spec.columns.outcomes:
        read = {name: [o.kind, o.better] for name, o in spec.columns.outcomes.items()}
        found.append(["outcomes", read])
    return found
