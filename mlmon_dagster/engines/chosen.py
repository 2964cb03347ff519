"""Which engine does the work of a model: what its spec says, else what the environment says.

An address is in ``MLMON_ENGINE`` and never in a spec, since it may hold a token.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import Final

import pyarrow as pa

from mlmon_dagster.engines.engine import Engine, Local
from mlmon_dagster.errors import ConfigError, EngineError
from mlmon_dagster.project import Project, Tables
from mlmon_dagster.spec.declaration import ENGINES
from mlmon_dagster.spec.model import ModelSpec

SMALL: Final = 1_000_000  # rows; less is done here before a worker has begun
_TRIED: Final = 2  # parts, so that a second worker is seen where there is one


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


def name_engines(project: Project, specs: Iterable[ModelSpec]) -> list[str]:
    """Return which engines the environment and some models name, without that of this process.

    Raises:
        ConfigError: If the environment names an engine that does not exist.
    """
    named = {_read(project.engine)[0], *(spec.compute.engine or "local" for spec in specs)}
    return sorted(named - {"local"})


def try_engine(project: Project, name: str) -> str:
    """Have an engine's workers look at the store, and return what they saw, in words.

    Args:
        project: Whose store and environment.
        name: ``local``, or another of `ENGINES`.

    Raises:
        EngineError: If it cannot be reached, or its workers cannot do the work of this process.
    """
    kind, address = _read(project.engine)
    engine = Local() if name == "local" else _cluster(name, address if name == kind else None)
    here = len(project.tables().root.tables())
    found = pa.concat_tables(engine.map(partial(_look, project.tables), range(_TRIED)))
    hosts = sorted(set(found["host"].to_pylist()))
    if set(found["n_tables"].to_pylist()) != {here}:
        raise EngineError(
            f"Workers on {', '.join(hosts)} see {min(found['n_tables'].to_pylist())} tables in the "
            f"store, this process {here}. The store of work that is spread over machines has to be "
            "in a bucket, or on a disk that all of them have at this path."
        )
    return f"{name}: workers on {', '.join(hosts)} read the store's {here} tables"


def _look(tables: Tables, _part: int) -> pa.Table:
    n_tables = len(tables().root.tables())
    return pa.table({"host": [socket.gethostname()], "n_tables": [n_tables]})


def _read(text: str) -> tuple[str, str | None]:
    """Return the kind of an engine and its address, if it has one."""
    if text in ENGINES:
        return text, None
    kinds = [kind for kind in ENGINES if kind != "local"]
    scheme, has_address, _ = text.partition("://")
    for kind in kinds:
        if has_address and scheme in _load(kind).ADDRESSES:
            return kind, text
    examples = [example for kind in kinds for example in _load(kind).ADDRESSES.values()]
    raise ConfigError(
        f"MLMON_ENGINE begins with {scheme[:20]!r}; expected {', '.join(ENGINES)}, or an address: "
        f"{', '.join(examples[:-1])} or {examples[-1]}."
    )


def _load(kind: str) -> ModuleType:
    """Return the module of an engine, which loads the engine itself when it is used."""
    return import_module(f"mlmon_dagster.engines.{kind}")


@cache
def _cluster(kind: str, address: str | None) -> Engine:
    """Return the one engine of this process, whose session stays open."""
    engine: Engine = _load(kind).Engine(address)
    return engine
