"""Clusters that work on parts: Ray, and Spark, classic or by Spark Connect.

Without an address each starts processes of its own on this machine.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from mlmon_dagster.engines.engine import P, received, run
from mlmon_dagster.errors import ConfigError, EngineError
from mlmon_dagster.project import set_for_ray, set_for_spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_RETRIES: Final = 3  # of a part whose worker died
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


class Ray:
    """A Ray cluster.

    Args:
        address: ``ray://host:10001``; without one the cluster that ``RAY_ADDRESS`` names, else one
            that is started on this machine and ends with this process.
    """

    name = "ray"

    def __init__(self, address: str | None = None) -> None:
        self._address = address

    def map(self, work: Callable[[P], pa.Table], parts: Sequence[P]) -> Iterator[pa.Table]:
        """Do some work on every part, one part a core; see `Engine`."""
        ray = self._connected()
        once = ray.put(work)
        task = ray.remote(max_retries=_RETRIES)(run)
        waiting = [task.remote(once, part) for part in parts]
        while waiting:
            (done,), waiting = ray.wait(waiting, num_returns=1)
            try:
                content = ray.get(done)
            except ray.exceptions.RayError as error:
                for left in waiting:
                    ray.cancel(left)
                raise EngineError(
                    f"Ray could not work on a part: {str(error).strip()[:2000]} Every worker needs "
                    "mlmon-dagster in the version of this process, and a gigabyte of memory."
                ) from error
            yield received(content)

    def _connected(self) -> ModuleType:
        set_for_ray()
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                "The engine ray needs the package ray: pip install 'mlmon-dagster[ray]'."
            ) from error
        if not ray.is_initialized():
            try:
                ray.init(self._address, include_dashboard=False, log_to_driver=False)
            except Exception as error:  # it raises that very class, too
                # The address may hold a token, and is not repeated.
                raise EngineError(
                    f"Ray cannot be reached or started ({type(error).__name__}). Is the address in "
                    "MLMON_ENGINE or RAY_ADDRESS right, does the cluster run, and are Ray and "
                    "Python there those of this process? On this machine it needs 30 s of calm."
                ) from error
        module: ModuleType = ray
        return module


class Spark:
    """A Spark cluster.

    Args:
        address: ``spark://host:7077`` or, of Spark Connect, ``sc://host:15002``; without one the
            session that this process has, else one that is started on this machine.
    """

    name = "spark"

    def __init__(self, address: str | None = None) -> None:
        self._address = address

    def map(self, work: Callable[[P], pa.Table], parts: Sequence[P]) -> Iterator[pa.Table]:
        """Do some work on every part, one task a part; see `Engine`."""
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
