"""``mlmon doctor --engine``: what every worker of an engine is like, and whether it can work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mlmon_dagster.commands.outside import sentence
from mlmon_dagster.engines.chosen import name_engines, read_engine
from mlmon_dagster.engines.engine import Reply
from mlmon_dagster.engines.trying import Tried, try_workers
from mlmon_dagster.engines.worker import PACKAGES
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.tables.table import Answer, Column, Table

Row = Mapping[str, object]
_SHOWN = ("engine", "host", "process", "python", *PACKAGES)
WORKERS = Table[Row](
    "workers",
    (
        *(Column[Row](name.upper(), name) for name in _SHOWN),
        Column("STORE", lambda row: "seen" if row["sees_store"] else "not seen"),
        Column("CAN WORK", lambda row: "no" if row["problem"] else "yes"),
    ),
)


def answer_of_workers(project: Project, specs: Sequence[ModelSpec], engine: str) -> Answer[Row]:
    """Have every worker of an engine do a small part, and return a row for each.

    Args:
        project: The project.
        specs: Its models.
        engine: A name or an address; empty for those that the environment and the models name.

    Raises:
        ConfigError: If there is no such engine, or its package is not installed here.
    """
    names = [engine] if engine else name_engines(project, specs) or ["local"]
    rows = [row for name in names for row in _rows(project, name)]
    problems = dict.fromkeys(str(row["problem"]) for row in rows if row["problem"])
    warnings = dict.fromkeys(str(row["warning"]) for row in rows if row["warning"])
    below = [f"FIX  {text}" for text in problems] + [f"note {text}" for text in warnings]
    return Answer(WORKERS, rows, below="\n".join(below), exit_code=1 if problems else 0)


def _rows(project: Project, engine: str) -> Iterator[Row]:
    kind = read_engine(engine, "--engine").kind
    try:
        tried = try_workers(project, engine)
    except ConfigError:
        raise
    except Exception as error:  # of clients that are not ours, too
        why = sentence(error) or f"{type(error).__name__}: {error}"
        tried = [Tried(Reply("-"), sees_store=False, problem=why)]
    for one in tried:
        yield {
            "engine": kind,
            "host": one.reply.host,
            "process": one.reply.process or None,
            **{name: one.reply.installed.get(name) for name in ("python", *PACKAGES)},
            "sees_store": one.sees_store,
            "problem": one.problem,
            "warning": one.warning,
        }
