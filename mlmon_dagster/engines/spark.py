"""A Spark cluster that works on parts, classic or by Spark Connect."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from mlmon_dagster.engines import worker
from mlmon_dagster.engines.engine import P, Reply, received
from mlmon_dagster.errors import ConfigError, EngineError
from mlmon_dagster.project import set_for_spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# An example of each scheme.
ADDRESSES: Final = {"spark": "spark://host:7077", "sc": "sc://host:15002"}
_LOCAL: Final = "local[*,4]"  # every core, and four attempts at a part, as on a cluster
# Of a session on this machine: Java only hands bytes to and fro, and leaves the cores to the work.
SPARK_HERE: Final[dict[str, bool | float | int | str | None]] = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_CORES: Final = 32  # of a cluster that does not say how many it has
_ROUNDS: Final = 5
_REST: Final = 0.3  # seconds
_AT_ONCE: Final = 256  # parts of a job; their rows of profiles are held together


class Engine:
    """A Spark cluster.

    Args:
        address: ``spark://host:7077`` or, of Spark Connect, ``sc://host:15002``; without one the
            session that this process has, else one that is started on this machine.
    """

    name = "spark"

    def __init__(self, address: str | None = None) -> None:
        self._address = address

    def map(self, work: Callable[[P], pa.Table], parts: Sequence[P]) -> Iterator[pa.Table]:
        """Do some work on every part, one task a part; see `engines.engine`."""
        session = self._connected()
        for first in range(0, len(parts), _AT_ONCE):
            yield from map(received, _job(session, work, parts[first : first + _AT_ONCE]))

    def ask_workers(self, work: Callable[[int], pa.Table]) -> Sequence[Reply]:
        """Do some work on every executor; see `engines.engine`.

        Spark sends no task to an executor of choice. So as many parts as there are cores, which
        last a moment each, are begun at once, until that meets no executor that was not known:
        those of a session that was opened just now register one after the other.
        """
        session = self._connected()
        found: dict[tuple[str, int], Reply] = {}
        for _ in range(_ROUNDS):
            known = len(found)
            replies = _job(session, work, range(_cores(session)), _REST)
            found |= {(reply.host, reply.process): reply for reply in replies}
            if len(found) == known:
                break
        return list(found.values())

    def _connected(self) -> SparkSession:
        try:
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise ConfigError(
                "The engine spark needs the package pyspark: pip install 'mlmon-dagster[spark]'."
            ) from error
        address = self._address
        builder = SparkSession.builder.appName("mlmon")
        if address is not None and address.startswith("sc://"):
            builder = builder.remote(address)  # whose server says which Python its workers have
        else:
            set_for_spark()
            if address is not None:
                builder = builder.master(address)
            elif SparkSession.getActiveSession() is None:
                builder = builder.master(_LOCAL).config(map=SPARK_HERE)
        try:
            session = builder.getOrCreate()
        except Exception as error:  # of Java, of the gateway to it, of gRPC
            # The address may hold a token, and is not repeated.
            raise EngineError(
                f"Spark cannot be started or reached ({type(error).__name__}). It needs Java 17 or "
                "later here (Debian: default-jre-headless), or a server that runs at the address "
                "in MLMON_ENGINE."
            ) from error
        return session


def _cores(session: SparkSession) -> int:
    from pyspark.sql.utils import is_remote

    return _CORES if is_remote() else int(session.sparkContext.defaultParallelism)


def _job(
    session: SparkSession,
    work: Callable[[P], pa.Table],
    parts: Sequence[P],
    rest: float = 0.0,
) -> Iterator[Reply]:
    """Do some work on some parts, one task a part, each of which rests at its end."""
    n = len(parts)
    cloudpickle = import_module("pyspark.cloudpickle")  # which has no types
    cloudpickle.register_pickle_by_value(worker)
    there = partial(worker.run_at, cloudpickle.dumps(work), parts, rest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of its pandas, which is not used here
        from pyspark.sql.functions import udf

        # Without Arrow: then a worker that has none can say so.
        run = udf(there, "binary", useArrow=False).asNondeterministic()
        # A range has exactly as many partitions as asked for.
        tasks = session.range(0, n, 1, n).select(run("id").alias("done"))
        try:
            rows = tasks.collect()
        except Exception as error:  # of Java, of the gateway to it, of gRPC
            raise EngineError(
                f"Spark could not work on {n} parts: {_find_cause(str(error))} Every worker needs "
                "mlmon-dagster in the version of this process, and a gigabyte of memory."
            ) from error
    for row in rows:
        yield Reply.read(bytes(row.done))


def _find_cause(told: str) -> str:
    """Return what Spark says of a failed task, without the stacks around it."""
    lost = re.search(r"\((\S+) executor \S+\): (?:[\w.]+: )?(.+)", told)
    if lost and "Traceback" not in lost[2]:
        return f"worker {lost[1]}: {lost[2]}."
    raised = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception): .+)", told, re.MULTILINE)
    return raised[-1] if raised else told.strip()[:2000]
