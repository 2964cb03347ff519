"""Which engine does the work of a model: what its spec says, else what the environment says.

An address is in ``MLMON_ENGINE`` and never in a spec, since it may hold a token.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from mlmon_dagster.engines.engine import Engine, Local
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.project import Project
from mlmon_dagster.spec.declaration import ENGINES
from mlmon_dagster.spec.model import ModelSpec


def engine_for(project: Project, spec: ModelSpec, n_rows: int) -> Engine:
    """Return where work on so many rows of a model is done.

    Args:
        project: Whose environment may name an engine.
        spec: The model; `compute.engine` counts first.
        n_rows: In all parts together; work on fewer than `compute.at_least` stays in this process,
            where it is done before a worker has begun.

    Raises:
        ConfigError: If the environment names an engine that does not exist.
    """
    named = _read_variable(project)
    wanted = spec.compute.engine or named.kind
    if wanted == "local" or n_rows < spec.compute.at_least:
        return Local()
    return _cluster(wanted, named.address if wanted == named.kind else None)


def name_engines(project: Project, specs: Iterable[ModelSpec]) -> list[str]:
    """Return which engines the environment and some models name, without that of this process.

    Raises:
        ConfigError: If the environment names an engine that does not exist.
    """
    named = {_read_variable(project).kind, *(spec.compute.engine or "local" for spec in specs)}
    return sorted(named - {"local"})


class Named(NamedTuple):
    """An engine as somebody names it: its kind, and its address if it has one."""

    kind: str
    address: str | None


def find_engine(project: Project, text: str) -> Engine:
    """Return the engine that a person names, at the address of the environment if without one.

    Args:
        project: Whose environment.
        text: As `read_engine` takes it.

    Raises:
        ConfigError: If there is no such engine.
    """
    asked, named = read_engine(text, "--engine"), _read_variable(project)
    if asked.kind == "local":
        return Local()
    address = named.address if asked.kind == named.kind else None
    return _cluster(asked.kind, asked.address or address)


def _read_variable(project: Project) -> Named:
    return read_engine(project.engine, "MLMON_ENGINE")


def read_engine(text: str, where: str) -> Named:
    """Return which engine a text names.

    Args:
        text: One of `ENGINES`, or an address.
        where: Who says so, for the error; the text itself may hold a token.

    Raises:
        ConfigError: If there is no such engine.
    """
    if text in ENGINES:
        return Named(text, None)
    kinds = [kind for kind in ENGINES if kind != "local"]
    scheme, has_address, _ = text.partition("://")
    for kind in kinds:
        if has_address and scheme in _load(kind).ADDRESSES:
            return Named(kind, text)
    examples = [example for kind in kinds for example in _load(kind).ADDRESSES.values()]
    raise ConfigError(
        f"{where} begins with {scheme[:20]!r}; expected {', '.join(ENGINES)}, or an address: "
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
