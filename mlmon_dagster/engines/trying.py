"""Trying an engine out: every worker that it has does a small part of what profiles do."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mlmon_dagster.engines.chosen import find_engine
from mlmon_dagster.engines.engine import Reply, compare
from mlmon_dagster.project import Project, Tables


@dataclass(frozen=True)
class Tried:
    """What a worker of an engine made of a small part.

    Attributes:
        reply: What it sent back.
        sees_store: Whether it reads the tables that this process has.
        problem: Why it cannot do the work, and what to do; empty if it can.
        warning: What is otherwise than here and may be; empty if nothing is.
    """

    reply: Reply
    sees_store: bool
    problem: str
    warning: str = ""


def try_workers(project: Project, engine: str) -> list[Tried]:
    """Have every worker of an engine do a small part: list the store's tables and read one.

    Args:
        project: Whose store and environment.
        engine: One of `ENGINES`, or an address.

    Raises:
        ConfigError: If there is no such engine.
        EngineError: If it cannot be reached, or none of its workers begins to work.
    """
    cluster = find_engine(project, engine)
    work = _Look(project.tables, _choose_rows(project))
    here = work(0)
    return [_judge(reply, here) for reply in cluster.ask_workers(work)]


def _judge(reply: Reply, here: pa.Table) -> Tried:
    """Compare what a worker sent with what the same work gives here."""
    difference = compare(reply)
    sees_store = reply.rows is not None and reply.rows.equals(here)
    if difference.is_refused:
        return Tried(reply, sees_store, difference.told)
    if reply.rows is None:
        failed = f"Worker {reply.host} failed: {reply.error}"
        return Tried(reply, sees_store, failed, difference.told)
    if sees_store:
        return Tried(reply, sees_store, "", difference.told)
    (there,), (ours,) = reply.rows.to_pylist(), here.to_pylist()
    problem = (
        f"Worker {reply.host} sees {there['n_tables']} tables in the store, this process "
        f"{ours['n_tables']}, and reads {there['n_rows']} rows of one, this process "
        f"{ours['n_rows']}. The store of work that is spread over machines has to be in a bucket, "
        "or on a disk that all of them have at this path."
    )
    return Tried(reply, sees_store, problem, difference.told)


@dataclass(frozen=True)
class _Look:
    """Lists the tables of a store, and counts the rows of one with the engine that profiles do.

    Attributes:
        tables: Opens them, wherever it is called.
        rows: Stands after FROM; empty if there are none.
    """

    tables: Tables
    rows: str

    def __call__(self, _part: int) -> pa.Table:
        queries, n_rows = self.tables(), 0
        n_tables = len(queries.root.tables())
        if self.rows and n_tables:  # else another folder is at that path
            found = queries.query(f"SELECT COUNT(*) AS n FROM {self.rows} AS records")
            n_rows = found["n"][0].as_py()
        return pa.table({"n_tables": [n_tables], "n_rows": [n_rows]})


def _choose_rows(project: Project) -> str:
    """Return the rows of one of the store's tables, to stand after FROM."""
    root = project.store.root
    for place in root.tables():
        kind, _, model = place.url.removeprefix(f"{root.url}/").rpartition("/")
        snapshot = project.store.table(kind, model).snapshot()
        if snapshot is not None and snapshot.files:
            return snapshot.from_sql()
    return ""
