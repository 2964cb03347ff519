"""A Spark cluster that works on parts, classic or by Spark Connect."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from mlmon_dagster.engines.engine import P, received, run
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
            yield from _job(session, work, parts[first : first + _AT_ONCE])

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


def _job(
    session: SparkSession, work: Callable[[P], pa.Table], parts: Sequence[P]
) -> Iterator[pa.Table]:
    n = len(parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of its pandas, which is not used here
        # A range has exactly as many partitions as asked for: one task a part.
        tasks = session.range(0, n, 1, n).mapInArrow(partial(_run_each, work, parts), "done binary")
        try:
            rows = tasks.collect()
        except Exception as error:  # of Java, of the gateway to it, of gRPC
            raise EngineError(
                f"Spark could not work on {n} parts: {str(error).strip()[:2000]} Every worker "
                "needs mlmon-dagster in the version of this process, and a gigabyte of memory."
            ) from error
    for row in rows:
        yield received(bytes(row.done))


def _run_each(
    work: Callable[[P], pa.Table], parts: Sequence[P], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for place in batch.column("id").to_pylist():
            yield pa.RecordBatch.from_pydict({"done": [run(work, parts[place])]})
