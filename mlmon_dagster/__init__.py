"""Production monitoring for machine-learning models, as a Dagster code location.

The public names are loaded on first use, so that a serving process which imports this package
pays neither for dagster nor for pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlmon_dagster.defs.build import MonitoredModel, MonitoredModels, build_definitions
    from mlmon_dagster.defs.resource import MonitoringResource, mlmon_checks
    from mlmon_dagster.errors import MlmonError
    from mlmon_dagster.logger import PredictionLogger
    from mlmon_dagster.notebook import Monitoring, open
    from mlmon_dagster.spec import ModelSpec, load_model, load_models
    from mlmon_dagster.spec.custom_metrics import metric
    from mlmon_dagster.store import open_store

__version__ = "0.1.0"
__all__ = [
    "MlmonError",
    "ModelSpec",
    "MonitoredModel",
    "MonitoredModels",
    "Monitoring",
    "MonitoringResource",
    "PredictionLogger",
    "build_definitions",
    "load_model",
    "load_models",
    "metric",
    "mlmon_checks",
    "open",
    "open_store",
]

_HOMES = {
    "MlmonError": "errors",
    "ModelSpec": "spec",
    "MonitoredModel": "defs.build",
    "MonitoredModels": "defs.build",
    "Monitoring": "notebook",
    "MonitoringResource": "defs.resource",
    "PredictionLogger": "logger",
    "build_definitions": "defs.build",
    "load_model": "spec",
    "load_models": "spec",
    "metric": "spec.custom_metrics",
    "mlmon_checks": "defs.resource",
    "open": "notebook",
    "open_store": "store",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
