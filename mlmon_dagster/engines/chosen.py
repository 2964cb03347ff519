"""Which engine does the work of a model: what its spec says, else what the environment says.

An address is in ``MLMON_ENGINE`` and never in a spec, since it may hold a token.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from mlmon_dagster.engines.engine import Engine, Local
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.project import Project
from mlmon_dagster.spec.model import ModelSpec

SMALL: Final = 1_000_000  # rows; less is done here before a worker has begun
_SCHEMES: Final = {"ray": "ray", "spark": "spark", "sc": "spark"}


def engine_for(project: Project, spec: ModelSpec, n_rows: int) -> Engine:
    """Return where work on so many rows of a model is done.

    Args:
        project: Whose environment may name an engine.
        spec: The model; `compute.engine` counts first.
        n_rows: In all parts together; work on less than a million stays in this process.

    Raises:
        ConfigError: If the environment names an engine that does not exist.
    """
    kind, address = _read(project.engine)
    wanted = spec.compute.engine or kind
    if wanted == "local" or n_rows < SMALL:
        return Local()
    return _cluster(wanted, address if wanted == kind else None)


def _read(text: str) -> tuple[str, str | None]:
    """Return the kind of an engine and its address, if it has one."""
    scheme, has_address, _ = text.partition("://")
    if text in ("local", "ray", "spark"):
        return text, None
    if has_address and scheme in _SCHEMES:
        return _SCHEMES[scheme], text
    raise ConfigError(
        f"MLMON_ENGINE begins with {scheme[:20]!r}; expected local, ray, spark, or an address: "
        "ray://host:10001, spark://host:7077 or sc://host:15002."
    )


@cache
def _cluster(kind: str, address: str | None) -> Engine:
    """Return the one engine of this process, whose session stays open."""
    from mlmon_dagster.engines.clusters import Ray, Spark

    return Ray(address) if kind == "ray" else Spark(address)
